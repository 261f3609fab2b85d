package glob

import (
	"sort"
	"unicode/utf8"
)

// program is a Shift-And automaton for a piece without stars: bit i of the state is set while the last i+1 characters of
// the text match the first i+1 characters of the piece. One step a character moves all candidates at once.
type program struct {
	// length is the number of characters of the piece, words the number of machine words of a state.
	length, words int
	// ascii gives the class of an ASCII character, 0 for one that is not in the piece.
	ascii [utf8.RuneSelf]uint8
	// runes are the other characters of the piece in ascending order; their classes count from base.
	runes []rune
	base  int
	// masks holds the state bits of each class, words for each.
	masks []uint64
}

// stackWords is the largest state, in words, that needs no allocation while matching.
const stackWords = 16

func newProgram(piece string, wild bool) *program {
	chars := []rune(piece)
	p := &program{length: len(chars), words: (len(chars) + 63) / 64, base: 1}
	for _, r := range chars {
		switch {
		case wild && r == '?':
		case r >= utf8.RuneSelf:
			p.runes = append(p.runes, r)
		case p.ascii[r] == 0:
			p.ascii[r] = uint8(p.base)
			p.base++
		}
	}
	p.runes = sortUnique(p.runes)
	p.masks = make([]uint64, (p.base+len(p.runes))*p.words)
	for i, r := range chars {
		bit := uint64(1) << (i % 64)
		if !wild || r != '?' {
			p.masks[p.class(r)*p.words+i/64] |= bit
			continue
		}
		for at := i / 64; at < len(p.masks); at += p.words {
			p.masks[at] |= bit
		}
	}
	return p
}

func sortUnique(runes []rune) []rune {
	sort.Slice(runes, func(i, j int) bool { return runes[i] < runes[j] })
	n := 0
	for i, r := range runes {
		if i == 0 || r != runes[i-1] {
			runes[n] = r
			n++
		}
	}
	return runes[:n]
}

func (p *program) class(r rune) int {
	if r < utf8.RuneSelf {
		return int(p.ascii[r])
	}
	i := sort.Search(len(p.runes), func(i int) bool { return p.runes[i] >= r })
	if i < len(p.runes) && p.runes[i] == r {
		return p.base + i
	}
	return 0
}

// find returns the end of the leftmost occurrence in text[from:], or -1; see segment.find.
func (p *program) find(text string, from int, start, end bool) int {
	if p.words > 1 {
		return p.findLong(text, from, start, end)
	}
	accept := uint64(1) << (p.length - 1)
	state := uint64(0)
	for i := from; i < len(text); {
		class, size := 0, 1
		if c := text[i]; c < utf8.RuneSelf {
			class = int(p.ascii[c])
		} else {
			var r rune
			r, size = utf8.DecodeRuneInString(text[i:])
			class = p.class(r)
		}
		state <<= 1
		if !start || boundary(text, i) {
			state |= 1
		}
		state &= p.masks[class]
		i += size
		if state&accept != 0 && (!end || boundary(text, i)) {
			return i
		}
	}
	return -1
}

// findLong is find for a piece of more than 64 characters.
func (p *program) findLong(text string, from int, start, end bool) int {
	var stack [stackWords]uint64
	state := stack[:]
	if p.words > stackWords {
		state = make([]uint64, p.words)
	}
	state = state[:p.words]
	accept := uint64(1) << ((p.length - 1) % 64)
	for i := from; i < len(text); {
		r, size := rune(text[i]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(text[i:])
		}
		carry := uint64(0)
		if !start || boundary(text, i) {
			carry = 1
		}
		at := p.class(r) * p.words
		for w, mask := range p.masks[at : at+p.words] {
			old := state[w]
			state[w] = (old<<1 | carry) & mask
			carry = old >> 63
		}
		i += size
		if state[p.words-1]&accept != 0 && (!end || boundary(text, i)) {
			return i
		}
	}
	return -1
}
