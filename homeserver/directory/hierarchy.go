package directory

import (
	"context"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"hansa/homeserver/ratelimit"
	"hansa/matrix"
	"hansa/storage"
)

const (
	// treeDefault and treeMax are how many rooms a page of a hierarchy has, maxTreeDepth how deep one goes, maxTree how many rooms are looked
	// at for one in all.
	treeDefault, treeMax = 50, 100
	maxTreeDepth         = 20
	maxTree              = 10_000
	// maxWalks is how many hierarchies are gone through at the same time, walkPatience how long one waits for its turn.
	maxWalks     = 16
	walkPatience = 10 * time.Second
)

// TreeQuery is what is wanted of a hierarchy.
type TreeQuery struct {
	// Limit is how many rooms a page may have, 0 for the default. MaxDepth is how deep to go below the first room, negative for as deep as
	// the server goes.
	Limit, MaxDepth int
	SuggestedOnly   bool
	// From is a token of the page before.
	From string
}

// Tree is a page of a hierarchy.
type Tree struct {
	Rooms     []*Summary `json:"rooms"`
	NextBatch string     `json:"next_batch,omitempty"`
}

// place is a room on the way through a hierarchy.
type place struct {
	id  matrix.RoomID
	via []matrix.ServerName
	// depth is that below the first room.
	depth int
	// given is what the server of the space above has said of the room, nil for nothing.
	given *Summary
	// barred says that that server has said that the caller's could not enter it.
	barred bool
}

// found is a room that the caller may be shown.
type found struct {
	sum  *Summary
	here bool // what it says comes from here
	// below are the rooms in it.
	below []place
}

// walk is how far a hierarchy was gone through: the places that come next, the last one first, and the rooms that were met.
type walk struct {
	stack []place
	seen  map[matrix.RoomID]struct{}
	shown int
}

func errNoView() *matrix.Error { return matrix.Forbidden("You are not allowed to view this room.") }

// Hierarchy returns a page of the rooms of a space, the space first and each room before those in it. A room stands in it once, by whatever
// ways it is reached. Rooms that are not known here are asked for where the space says.
//
// spec: client-server-api#get_matrixclientv1roomsroomidhierarchy
// spec: client-server-api#discovering-rooms-within-spaces
func (s *Service) Hierarchy(ctx context.Context, c Caller, root matrix.RoomID, q TreeQuery) (*Tree, error) {
	if q.MaxDepth < 0 || q.MaxDepth > maxTreeDepth {
		q.MaxDepth = maxTreeDepth
	}
	if q.Limit <= 0 {
		q.Limit = treeDefault
	}
	q.Limit = min(q.Limit, treeMax)
	skip, err := q.read(root)
	if err != nil {
		return nil, err
	}
	leave, err := s.takeTurn(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	k := s.seeker(c, c.UserID.Server())
	first := place{id: root, via: k.ways(ctx, root)}
	w := s.walks.take(c.UserID, q.From)
	if w != nil { // whoever may not see the space any more is not shown the rest of it
		f, err := k.look(ctx, first, q)
		if err != nil {
			return nil, err
		}
		if f == nil {
			return nil, errNoView()
		}
	} else {
		w = &walk{stack: []place{first}, seen: map[matrix.RoomID]struct{}{}}
		for w.shown < skip {
			f, _, err := k.next(ctx, w, q)
			if err != nil {
				return nil, err
			}
			if f == nil { // there is less to be seen than before
				return &Tree{Rooms: []*Summary{}}, nil
			}
		}
	}
	return k.page(ctx, w, root, q)
}

// page goes on with a hierarchy until a page is full, and then to the room after it, so that there is a token only where there is more.
func (k *seeker) page(ctx context.Context, w *walk, root matrix.RoomID, q TreeQuery) (*Tree, error) {
	t := &Tree{Rooms: []*Summary{}}
	var here []*Summary
	for {
		f, p, err := k.next(ctx, w, q)
		if err != nil {
			return nil, err
		}
		if f == nil {
			break
		}
		if len(t.Rooms) == q.Limit {
			w.back(p, len(f.below))
			t.NextBatch = q.token(root, w.shown)
			k.s.walks.put(k.c.UserID, t.NextBatch, w)
			break
		}
		t.Rooms = append(t.Rooms, f.sum)
		if f.here {
			here = append(here, f.sum)
		}
	}
	return t, k.describe(ctx, here)
}

// next finds the next room that the caller may be shown; nil at the end.
func (k *seeker) next(ctx context.Context, w *walk, q TreeQuery) (*found, place, error) {
	for len(w.stack) > 0 && len(w.seen) < maxTree {
		p := w.stack[len(w.stack)-1]
		w.stack = w.stack[:len(w.stack)-1]
		if _, met := w.seen[p.id]; met {
			continue
		}
		w.seen[p.id] = struct{}{}
		f, err := k.look(ctx, p, q)
		if err != nil {
			return nil, p, err
		}
		if f == nil {
			if p.depth == 0 {
				return nil, p, errNoView()
			}
			continue
		}
		if p.depth >= q.MaxDepth {
			f.below = nil
		}
		for i := len(f.below) - 1; i >= 0; i-- {
			w.stack = append(w.stack, f.below[i])
		}
		w.shown++
		return f, p, nil
	}
	return nil, place{}, nil
}

// back undoes the last step.
func (w *walk) back(p place, below int) {
	w.stack = append(w.stack[:len(w.stack)-below], p)
	delete(w.seen, p.id)
	w.shown--
}

// look finds out whether the caller may be shown a room, and what is in it; nil where not. What is known here goes before what others say.
func (k *seeker) look(ctx context.Context, p place, q TreeQuery) (*found, error) {
	if !k.mayRoom(ctx, p.id) {
		return nil, nil
	}
	st, err := k.stand(ctx, p.id)
	if err != nil {
		return nil, err
	}
	if st == nil || !st.current {
		return k.far(ctx, p, q.SuggestedOnly)
	}
	f, err := k.near(ctx, p.id, st)
	if err != nil || f == nil || st.facts.Type != typeSpace {
		return f, err
	}
	list, here, err := k.children(ctx, p.id, q.SuggestedOnly)
	if err != nil {
		return nil, err
	}
	f.sum.Children = list
	for _, c := range list {
		f.below = append(f.below, place{id: c.RoomID, via: c.Content.Via, depth: p.depth + 1})
	}
	if p.depth < q.MaxDepth {
		k.prefetch(ctx, f.below, here, q)
	}
	return f, nil
}

// near is a room that is known here, without what is in it, nil where the caller may not be shown it.
func (k *seeker) near(ctx context.Context, id matrix.RoomID, st *standing) (*found, error) {
	ok, err := k.accessible(ctx, id, st)
	if ok && err == nil {
		ok, err = k.findable(ctx, id, st)
	}
	if err != nil || !ok {
		return nil, err
	}
	f := &found{here: true, sum: &Summary{Children: []*Child{}, Version: st.facts.Version}}
	f.sum.RoomID, f.sum.RoomType, f.sum.JoinRule = id, st.facts.Type, st.facts.JoinRule
	f.sum.WorldReadable = st.facts.HistoryVisibility == "world_readable"
	return f, nil
}

// ways are the servers that may know a room of which only the ID is known: who invited the caller, and the server in the ID.
func (k *seeker) ways(ctx context.Context, id matrix.RoomID) []matrix.ServerName {
	var out []matrix.ServerName
	if server, err := k.invitedBy(ctx, id); err == nil && server != "" {
		out = append(out, server)
	}
	if id.Server() != "" {
		out = append(out, id.Server())
	}
	return out
}

// invitedBy is the server of whoever has invited the caller into a room elsewhere, empty for nobody.
func (k *seeker) invitedBy(ctx context.Context, id matrix.RoomID) (matrix.ServerName, error) {
	if k.c.Server != "" || k.s.DB == nil {
		return "", nil
	}
	if k.asked == nil {
		k.asked = map[matrix.RoomID]matrix.ServerName{}
		err := k.s.DB.Read(ctx, func(tx *storage.Tx) error {
			list, err := tx.LoadRemoteMembers(k.c.UserID, 0)
			for _, m := range list {
				if m.Membership == "invite" && m.Open() {
					k.asked[m.RoomID] = m.Via
				}
			}
			return err
		})
		if err != nil {
			k.asked = nil
			return "", err
		}
	}
	return k.asked[id], nil
}

// takeTurn waits until there are not too many who go through hierarchies.
func (s *Service) takeTurn(ctx context.Context) (leave func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, walkPatience)
	defer cancel()
	select {
	case s.turns <- struct{}{}:
		return func() { <-s.turns }, nil
	case <-ctx.Done():
		return nil, ratelimit.TooMany(walkPatience)
	}
}

func errNoToken() *matrix.Error {
	return matrix.InvalidParam("This is no token of this hierarchy, or max_depth or suggested_only are others than before.")
}

// token says how many rooms were shown, and of which question. It tells nothing of rooms that were not.
func (q *TreeQuery) token(root matrix.RoomID, shown int) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d %d %t %s", shown, q.MaxDepth, q.SuggestedOnly, root))
}

// read takes the number of rooms that were shown out of the token.
func (q *TreeQuery) read(root matrix.RoomID) (int, error) {
	if q.From == "" {
		return 0, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(q.From)
	if err != nil {
		return 0, errNoToken()
	}
	part := strings.SplitN(string(b), " ", 4)
	if len(part) != 4 || part[3] != string(root) {
		return 0, errNoToken()
	}
	shown, err := strconv.Atoi(part[0])
	if err != nil || shown <= 0 || shown > maxTree || q.token(root, shown) != q.From { // which also compares what was asked
		return 0, errNoToken()
	}
	return shown, nil
}
