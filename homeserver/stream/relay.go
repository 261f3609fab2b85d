package stream

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"sync"
	"time"
)

const (
	// maxRelayed is the longest message that Tell sends.
	maxRelayed = 32 << 10
	// maxTells bounds the nodes whose counters are remembered.
	maxTells = 1000
	// maxSkew is how far the clocks of two nodes may differ: older messages are taken for repeated ones.
	maxSkew = 10 * time.Minute
)

// relayed is a message that waits to be sent.
type relayed struct {
	topic   string
	message []byte
}

// hearers are those who listen to what other nodes tell.
type hearers struct {
	mu sync.RWMutex
	by map[string]func(message []byte) // by topic
}

func (h *hearers) hear(topic string, message []byte) {
	h.mu.RLock()
	fn := h.by[topic]
	h.mu.RUnlock()
	if fn != nil {
		fn(message)
	}
}

// Hear gives what other nodes Tell about a topic to fn, one message at a time; fn returns soon. There is one hearer of a topic.
// Nothing is heard before Run: who hears may need what is made later.
func (s *Stream) Hear(topic string, fn func(message []byte)) {
	s.hearers.mu.Lock()
	defer s.hearers.mu.Unlock()
	if s.hearers.by == nil {
		s.hearers.by = map[string]func([]byte){}
	}
	s.hearers.by[topic] = fn
}

// Tell sends a message of at most 32 KiB to the other nodes of the cell. It returns at once, and the message may be lost; without NATS
// it always is. Topics are single words.
func (s *Stream) Tell(topic string, message []byte) {
	if s.bus == nil || len(message) > maxRelayed {
		return
	}
	select {
	case s.bus.out <- relayed{topic, message}:
	default: // others are not told while there is more to tell than can be sent
	}
}

// Relays tells whether what is told reaches other nodes at the moment, as far as is known.
func (s *Stream) Relays() bool { return s.bus != nil && s.bus.connected() }

// seal keeps what nodes tell each other from those who are none: it is encrypted with the secret of the cell, counted and dated.
type seal struct {
	aead cipher.AEAD
	node uint64

	mu    sync.Mutex
	count uint64
	seen  map[uint64]uint64 // the newest count of each other node
}

// sealHead is the length of what precedes a message: node, count, time in ms.
const sealHead = 24

func newSeal(secret []byte, node string) (*seal, error) {
	id, err := hex.DecodeString(node)
	if err != nil || len(id) != 8 {
		return nil, fmt.Errorf("stream: the name of a node is 16 hexadecimal digits, not %q", node)
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, fmt.Errorf("stream: the secret of the cell: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &seal{aead: aead, node: binary.BigEndian.Uint64(id), seen: map[uint64]uint64{}}, nil
}

// close encrypts a message for a subject.
func (s *seal) close(subject string, message []byte) []byte {
	s.mu.Lock()
	s.count++
	count := s.count
	s.mu.Unlock()
	plain := binary.BigEndian.AppendUint64(make([]byte, 0, sealHead+len(message)), s.node)
	plain = binary.BigEndian.AppendUint64(plain, count)
	plain = binary.BigEndian.AppendUint64(plain, uint64(time.Now().UnixMilli())) //nolint:gosec // after 1970
	plain = append(plain, message...)
	nonce := make([]byte, s.aead.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	return s.aead.Seal(nonce, nonce, plain, []byte(subject))
}

// open decrypts a message; false when it is not from another node of this cell, not for this subject, or was here before.
func (s *seal) open(subject string, sealed []byte) ([]byte, bool) {
	n := s.aead.NonceSize()
	if len(sealed) < n {
		return nil, false
	}
	plain, err := s.aead.Open(nil, sealed[:n], sealed[n:], []byte(subject))
	if err != nil || len(plain) < sealHead {
		return nil, false
	}
	node, count := binary.BigEndian.Uint64(plain), binary.BigEndian.Uint64(plain[8:])
	at := time.UnixMilli(int64(binary.BigEndian.Uint64(plain[16:]))) //nolint:gosec // written by close
	if age := time.Since(at); node == s.node || age > maxSkew || age < -maxSkew {
		return nil, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if count <= s.seen[node] {
		return nil, false
	}
	if len(s.seen) >= maxTells {
		clear(s.seen)
	}
	s.seen[node] = count
	return plain[sealHead:], true
}
