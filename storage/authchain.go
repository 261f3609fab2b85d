package storage

import (
	"cmp"
	"database/sql"
	"slices"

	"hansa/matrix"
	"hansa/matrix/event"
)

// The index of auth chains covers the auth graph with chains: an event that cites the last event of its own state key (a later
// power_levels, a later membership of the same user) follows it in one chain, every other one begins a chain. Within a chain an event
// reaches all before it; what it reaches elsewhere is told by links, of which one is left out where an earlier event of the chain has it.
// So an event adds one place and at most as many links as it has auth events, and how far two events are apart does not matter.
// A chain is named after the position that its first event had when it came. Rejected events have no place.

// AuthPlace is the place of an event in the index of auth chains.
type AuthPlace struct{ Chain, Seq int64 }

// AuthLink says that the event at one place cites the event at another.
type AuthLink struct{ From, To AuthPlace }

// AuthRange is a part of a chain, both ends included.
type AuthRange struct{ Chain, First, Last int64 }

// LoadAuthPlaces returns the places of those of the events that have one.
func (tx *Tx) LoadAuthPlaces(ids []matrix.EventID) (map[matrix.EventID]AuthPlace, error) {
	out := make(map[matrix.EventID]AuthPlace, len(ids))
	if len(ids) == 0 {
		return out, nil
	}
	err := tx.query(func(r *sql.Rows) error {
		var id string
		var p AuthPlace
		if err := r.Scan(&id, &p.Chain, &p.Seq); err != nil {
			return err
		}
		out[matrix.EventID(id)] = p
		return nil
	}, `SELECT event_id, chain, seq FROM auth_chains WHERE event_id SET($1)`, setOf(tx, ids))
	return out, err
}

func (tx *Tx) authLinks(q string, args ...any) ([]AuthLink, error) {
	var out []AuthLink
	err := tx.query(func(r *sql.Rows) error {
		var l AuthLink
		if err := r.Scan(&l.From.Chain, &l.From.Seq, &l.To.Chain, &l.To.Seq); err != nil {
			return err
		}
		out = append(out, l)
		return nil
	}, q, args...)
	return out, err
}

// LoadAuthBelow returns the links that leave chains.
func (tx *Tx) LoadAuthBelow(chains []int64) ([]AuthLink, error) {
	if len(chains) == 0 {
		return nil, nil
	}
	return tx.authLinks(`SELECT chain, seq, to_chain, to_seq FROM auth_links WHERE chain INTSET($1)`, tx.set(chains))
}

// LoadAuthAbove returns up to limit links that lead to a place or beyond it in its chain, the highest first, after a link of an earlier page.
func (tx *Tx) LoadAuthAbove(to AuthPlace, after *AuthLink, limit int) ([]AuthLink, error) {
	const q = `SELECT chain, seq, to_chain, to_seq FROM auth_links WHERE to_chain = $1 AND to_seq >= $2`
	if after == nil {
		return tx.authLinks(q+` ORDER BY to_seq DESC, chain DESC, seq DESC LIMIT $3`, to.Chain, to.Seq, limit)
	}
	return tx.authLinks(q+` AND (to_seq, chain, seq) < ($4, $5, $6) ORDER BY to_seq DESC, chain DESC, seq DESC LIMIT $3`, to.Chain, to.Seq, limit,
		after.To.Seq, after.From.Chain, after.From.Seq)
}

// LoadAuthKeys returns which entry of room state each chain is about.
func (tx *Tx) LoadAuthKeys(chains []int64) (map[int64]event.StateKey, error) {
	out := make(map[int64]event.StateKey, len(chains))
	if len(chains) == 0 {
		return out, nil
	}
	err := tx.query(func(r *sql.Rows) error {
		var chain int64
		var typ, key string
		if err := r.Scan(&chain, &typ, &key); err != nil {
			return err
		}
		out[chain] = event.StateKey{Type: goText(typ), Key: goText(key)}
		return nil
	}, `SELECT c.chain, e.type, e.state_key FROM auth_chains c JOIN events e ON e.event_id = c.event_id
		WHERE c.chain INTSET($1) AND c.seq = 1`, tx.set(chains))
	return out, err
}

// LoadAuthRanges returns the events of parts of chains.
func (tx *Tx) LoadAuthRanges(ranges []AuthRange) ([]matrix.EventID, error) {
	if len(ranges) == 0 {
		return nil, nil
	}
	chains := make([]int64, len(ranges))
	byChain := make(map[int64]AuthRange, len(ranges))
	first, last := ranges[0].First, ranges[0].Last
	for i, r := range ranges {
		chains[i], byChain[r.Chain] = r.Chain, r
		first, last = min(first, r.First), max(last, r.Last)
	}
	var out []matrix.EventID
	err := tx.query(func(r *sql.Rows) error {
		var id string
		var p AuthPlace
		if err := r.Scan(&id, &p.Chain, &p.Seq); err != nil {
			return err
		}
		if w := byChain[p.Chain]; p.Seq >= w.First && p.Seq <= w.Last {
			out = append(out, matrix.EventID(id))
		}
		return nil
	}, `SELECT event_id, chain, seq FROM auth_chains WHERE chain INTSET($1) AND seq >= $2 AND seq <= $3`, tx.set(chains), first, last)
	return out, err
}

// IndexAuth gives those accepted state events of a room a place that have none: they came before there was an index, or by a node that does
// not keep it.
func (tx *Tx) IndexAuth(room matrix.RoomID) error {
	var num int64
	if err := tx.row(`SELECT room_num FROM rooms WHERE room_id = $1`, []any{string(room)}, &num); err != nil {
		return err
	}
	for {
		var page []authEntry
		err := tx.query(func(r *sql.Rows) error {
			var id, typ, key string
			var e authEntry
			if err := r.Scan(&id, &e.pos, &typ, &key); err != nil {
				return err
			}
			e.id, e.key = matrix.EventID(id), event.StateKey{Type: goText(typ), Key: goText(key)}
			page = append(page, e)
			return nil
		}, `SELECT e.event_id, e.pos, e.type, e.state_key FROM events e LEFT JOIN auth_chains c ON c.event_id = e.event_id
			WHERE e.room_num = $1 AND e.state_key IS NOT NULL AND e.flags & 1 = 0 AND c.event_id IS NULL ORDER BY e.auth_rank, e.pos LIMIT 1000`, num)
		if err != nil || len(page) == 0 {
			return err
		}
		at := make(map[matrix.EventID]int, len(page))
		ids := make([]matrix.EventID, len(page))
		for i, e := range page {
			at[e.id], ids[i] = i, e.id
		}
		cited, err := tx.pairs(`SELECT event_id, auth_id FROM event_auth WHERE event_id SET($1)`, ids)
		if err != nil {
			return err
		}
		for id, list := range cited {
			page[at[id]].auth = list
		}
		if err := tx.indexAuth(page, nil); err != nil {
			return err
		}
	}
}

// authEntry is a state event that gets a place.
type authEntry struct {
	id   matrix.EventID
	key  event.StateKey
	pos  int64
	rank int64
	auth []matrix.EventID
}

// indexAuth gives state events their places, in the given order, in which an event comes after those that it cites. What it cites and
// that has no place is given to unknown, which may bring it about; nil leaves it out.
func (tx *Tx) indexAuth(list []authEntry, unknown func([]matrix.EventID) error) error {
	ids := make([]matrix.EventID, 0, len(list)+16)
	own := make(map[matrix.EventID]bool, len(list)+16) // false for those that are cited only, which many events do with the same few
	for _, e := range list {
		own[e.id] = true
		ids = append(ids, e.id)
	}
	for _, e := range list {
		for _, id := range e.auth {
			if _, ok := own[id]; !ok {
				own[id] = false
				ids = append(ids, id)
			}
		}
	}
	places, err := tx.LoadAuthPlaces(ids)
	if err != nil {
		return err
	}
	var lost []matrix.EventID
	for _, id := range ids {
		if _, ok := places[id]; !ok && !own[id] {
			lost = append(lost, id)
		}
	}
	if len(lost) > 0 && unknown != nil {
		if err := unknown(lost); err != nil {
			return err
		}
		return tx.indexAuth(list, nil)
	}
	x := &authIndexer{places: places}
	if err := x.load(tx, list); err != nil {
		return err
	}
	for _, e := range list {
		x.add(e)
	}
	if err := tx.bulk(`INSERT INTO auth_chains (event_id, chain, seq)`, []string{"TEXT", "BIGINT", "BIGINT"}, `ON CONFLICT DO NOTHING`, x.rows, nil); err != nil {
		return err
	}
	return tx.bulk(`INSERT INTO auth_links (chain, seq, to_chain, to_seq)`, []string{"BIGINT", "BIGINT", "BIGINT", "BIGINT"}, `ON CONFLICT DO NOTHING`,
		x.links, nil)
}

// authIndexer makes the rows of the index for a number of events.
type authIndexer struct {
	places map[matrix.EventID]AuthPlace
	keys   map[int64]event.StateKey
	tips   map[int64]int64
	linked map[[2]int64]int64 // from chain to chain: the highest place that a link leads to
	rows   [][]any
	links  [][]any
}

// load finds the chains that events may continue.
func (x *authIndexer) load(tx *Tx, list []authEntry) error {
	x.tips, x.linked = map[int64]int64{}, map[[2]int64]int64{}
	var chains []int64
	seen := map[int64]bool{}
	for _, e := range list {
		for _, id := range e.auth {
			if p, ok := x.places[id]; ok && !seen[p.Chain] {
				seen[p.Chain] = true
				chains = append(chains, p.Chain)
			}
		}
	}
	var err error
	if x.keys, err = tx.LoadAuthKeys(chains); err != nil || len(chains) == 0 {
		return err
	}
	wanted := make(map[event.StateKey]bool, len(list))
	for _, e := range list {
		wanted[e.key] = true
	}
	var mine []int64
	for _, c := range chains {
		if wanted[x.keys[c]] {
			mine = append(mine, c)
		}
	}
	if len(mine) == 0 {
		return nil
	}
	if err := tx.query(func(r *sql.Rows) error {
		var chain, seq int64
		err := r.Scan(&chain, &seq)
		x.tips[chain] = seq
		return err
	}, `SELECT chain, MAX(seq) FROM auth_chains WHERE chain INTSET($1) GROUP BY chain`, tx.set(mine)); err != nil {
		return err
	}
	return tx.query(func(r *sql.Rows) error {
		var from, to, seq int64
		err := r.Scan(&from, &to, &seq)
		x.linked[[2]int64{from, to}] = seq
		return err
	}, `SELECT chain, to_chain, MAX(to_seq) FROM auth_links WHERE chain INTSET($1) GROUP BY chain, to_chain`, tx.set(mine))
}

func (x *authIndexer) add(e authEntry) {
	if _, ok := x.places[e.id]; ok {
		return // an outlier that gets its place in the timeline
	}
	p := AuthPlace{Chain: e.pos, Seq: 1}
	for _, id := range e.auth {
		if before, ok := x.places[id]; ok && x.keys[before.Chain] == e.key && x.tips[before.Chain] == before.Seq {
			p = AuthPlace{Chain: before.Chain, Seq: before.Seq + 1}
		}
	}
	x.places[e.id], x.tips[p.Chain], x.keys[p.Chain] = p, p.Seq, e.key
	x.rows = append(x.rows, []any{string(e.id), p.Chain, p.Seq})
	for _, id := range e.auth {
		to, ok := x.places[id]
		if !ok || to.Chain == p.Chain || x.linked[[2]int64{p.Chain, to.Chain}] >= to.Seq {
			continue
		}
		x.linked[[2]int64{p.Chain, to.Chain}] = to.Seq
		x.links = append(x.links, []any{p.Chain, p.Seq, to.Chain, to.Seq})
	}
}

// indexAuth gives the state events of a batch their places.
func (b *appendBatch) indexAuth(list []*Append) error {
	var entries []authEntry
	rooms := map[matrix.RoomID]bool{}
	for _, a := range list {
		for _, e := range a.Stored {
			if e.StateKey == nil || e.Flags&Rejected != 0 {
				continue
			}
			entries = append(entries, authEntry{id: e.ID, key: e.Key(), pos: e.Pos, rank: e.AuthRank, auth: e.AuthEvents})
			rooms[a.Room.ID] = true
		}
	}
	if len(entries) == 0 {
		return nil
	}
	slices.SortStableFunc(entries, func(x, y authEntry) int { return cmp.Compare(x.rank, y.rank) })
	return b.tx.indexAuth(entries, func([]matrix.EventID) error {
		for id := range rooms {
			if err := b.tx.IndexAuth(id); err != nil {
				return err
			}
		}
		return nil
	})
}

// ForgetAuth takes the events of a room out of the index. They get their places again when somebody needs them.
func (tx *Tx) ForgetAuth(room matrix.RoomID) error {
	const chains = `(SELECT c.chain FROM auth_chains c JOIN events e ON e.event_id = c.event_id JOIN rooms r ON r.room_num = e.room_num WHERE r.room_id = $1)`
	if _, err := tx.exec(`DELETE FROM auth_links WHERE chain IN `+chains, string(room)); err != nil {
		return err
	}
	_, err := tx.exec(`DELETE FROM auth_chains WHERE chain IN `+chains, string(room))
	return err
}
