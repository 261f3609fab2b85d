package chaos

import "sync"

// ledger is what was acknowledged. Each entry is written by one lane; the maps are guarded by mu.
type ledger struct {
	mu sync.Mutex
	// events, redactions and notes were acknowledged; messages of one lane and room are in the order of their acknowledgement.
	events     []*sentEvent
	redactions []redaction
	notes      map[string]note // last state event by lane and room
	receipts   map[string]receipt
	devices    []toDevice
	// heard is what each of the people got by /sync.
	heard []*heard
	// keys were acknowledged, by owner; claims were answered; unsure counts claims without an answer, by owner.
	keys   map[string][]string
	claims map[string][]string
	unsure map[string]int
	data   map[string]*datum // by person, room and type
	names  map[string]string // acknowledged display names
	made   []madeRoom
	moves  map[string]*moves // by person and door
	media  []upload
	live   map[string]bool // access tokens: whether they work
	people []string        // names of accounts that were registered
}

type sentEvent struct {
	room, lane, body, txn, id string
	seq                       int
	redacted                  bool
}

type redaction struct{ room, target, id string }

type note struct {
	room, key, id string
	n             int
}

type receipt struct{ room, user, acked string }

type toDevice struct {
	lane, kind, to string
	n              int
}

// datum is a value that one lane raises.
type datum struct {
	person, path     string
	acked, attempted int
}

type madeRoom struct {
	id, alias, invited string
	creator            int
}

type moves struct {
	person, door string
	list         []string // acknowledged memberships
}

type upload struct {
	uri  string
	data []byte
}

// heard is what one person's device got by /sync, in the order in which it came.
type heard struct {
	since     string
	timelines map[string][]Event
	seen      map[string]bool // IDs of all events in timelines
	messages  []heardMessage
	data      map[string]int // newest value of each global account datum
	keyCount  int
	gaps      int
}

type heardMessage struct {
	sender, kind, lane string
	n                  int
}

func newHeard(since string) *heard {
	return &heard{since: since, timelines: map[string][]Event{}, seen: map[string]bool{}, data: map[string]int{}}
}

func (l *ledger) open(people int) {
	l.notes, l.receipts, l.keys, l.claims, l.unsure = map[string]note{}, map[string]receipt{}, map[string][]string{}, map[string][]string{}, map[string]int{}
	l.data, l.names, l.moves, l.live = map[string]*datum{}, map[string]string{}, map[string]*moves{}, map[string]bool{}
	for range people {
		l.heard = append(l.heard, newHeard(""))
	}
}

// write changes the ledger.
func (l *ledger) write(fn func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fn()
}
