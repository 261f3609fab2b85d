package clientsync

import (
	"sort"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"hansa/matrix"
	"hansa/matrix/pushrule"
	"hansa/storage"
)

// delivery is one entry in an inbox.
type delivery struct {
	pos  int64
	item *item // of an event
	// was is the reader's own membership before, where the event changes it.
	was   string
	own   bool // the event is the reader's own membership
	entry *storage.Entry
}

// inbox is what is new for one online user.
type inbox struct {
	user matrix.UserID

	mu sync.Mutex
	// floor: everything after it that concerns the user is in list. Guarded by mu, like all below.
	floor   int64
	upto    int64
	list    []delivery
	changed chan struct{} // closed and replaced at news
	readers int
	idle    time.Time // since when nobody reads
	rooms   map[matrix.RoomID]string
	ignored map[matrix.UserID]bool
	counts  map[matrix.RoomID]*unread
	// served is up to where this node has answered the user: who comes with a later token was answered by another node meanwhile.
	served  int64
	push    *pushrule.Evaluator
	devices map[matrix.DeviceID]*device
}

// device is what this node remembers of a device between two of its requests.
type device struct {
	lastNews time.Time
	// acked is up to where its to-device messages were deleted, -1 before the first time.
	acked int64
	// given is the position up to which to-device messages were given to it.
	given int64
	// members are the lazy-loaded memberships that it was given, by room.
	members map[matrix.RoomID]map[matrix.UserID]matrix.EventID
	// sentKeys are the key counts that it was told last.
	sentKeys string
}

func (b *inbox) enter() {
	b.mu.Lock()
	b.readers++
	b.mu.Unlock()
}

func (b *inbox) leave(now time.Time) {
	b.mu.Lock()
	b.readers--
	b.idle = now
	b.mu.Unlock()
}

// put adds an entry. The hub's lock is held.
func (b *inbox) put(d delivery, woken map[*inbox]struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if d.pos <= b.floor {
		return
	}
	if n := len(b.list); n > 0 && b.list[n-1].pos == d.pos {
		return // a device list change of somebody in several shared rooms
	}
	if len(b.list) >= inboxMax {
		cut := inboxMax / 2
		b.floor = b.list[cut-1].pos
		b.list = append(make([]delivery, 0, inboxMax), b.list[cut:]...)
	}
	b.list = append(b.list, d)
	b.upto = d.pos
	woken[b] = struct{}{}
}

func (b *inbox) signal() {
	b.mu.Lock()
	close(b.changed)
	b.changed = make(chan struct{})
	b.mu.Unlock()
}

// accountData keeps what the hub itself must know of a user's account data.
func (b *inbox) accountData(d *storage.AccountData) {
	switch {
	case d.RoomID == "" && d.Type == "m.ignored_user_list":
		var c struct {
			Users map[matrix.UserID]any `json:"ignored_users"`
		}
		_ = json.Unmarshal(d.Content, &c) // a list of the wrong form ignores nobody
		m := make(map[matrix.UserID]bool, len(c.Users))
		for u := range c.Users {
			m[u] = true
		}
		b.mu.Lock()
		b.ignored = m
		b.mu.Unlock()
	case d.RoomID == "" && d.Type == "m.push_rules":
		b.mu.Lock()
		b.push = nil
		clear(b.counts)
		b.mu.Unlock()
	}
}

// since returns what came after a position, a channel that tells of more, and whether the inbox goes back that far.
func (b *inbox) since(pos int64) (news []delivery, more <-chan struct{}, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := sort.Search(len(b.list), func(i int) bool { return b.list[i].pos > pos })
	return b.list[first:len(b.list):len(b.list)], b.changed, pos >= b.floor
}

func (b *inbox) device(id matrix.DeviceID) *device {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := b.devices[id]
	if d == nil {
		d = &device{acked: -1, members: map[matrix.RoomID]map[matrix.UserID]matrix.EventID{}}
		b.devices[id] = d
	}
	return d
}
