package api

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"testing"
	"time"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage"
	"hansa/storage/statemap"
	"hansa/storage/storagetest"
	"hansa/test/hstest"
)

// historyPerMember is how many state events a large room has for each of its members: one join and changes of the display name.
const historyPerMember = 10

// largeMembers is how many members a large room has: HANSA_LARGE_MEMBERS, or a number that is made in some seconds.
func largeMembers(t testing.TB) int {
	v := os.Getenv("HANSA_LARGE_MEMBERS")
	if v == "" {
		return 10_000
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		t.Fatalf("HANSA_LARGE_MEMBERS is %q, want a number", v)
	}
	return n
}

// crowdRoom brings n local members and their history into a room past the server, which is started again. The events are whole, and their hashes are
// right. Those of one round of the history share the state at its end, so that there is one tree a round, and event_auth and the
// index of the auth graph do not have them: only state resolution and other servers read those.
func crowdRoom(t testing.TB, s *hstest.Server, owner *hstest.User, room string, n int) {
	t.Helper()
	f := &filling{t: t, owner: owner.ID, id: matrix.RoomID(room), users: make([]filled, n), nodes: map[statemap.Hash][]byte{}}
	err := s.DB.Read(context.Background(), func(tx *storage.Tx) (err error) {
		if f.room, err = tx.LoadRoom(f.id); err != nil {
			return err
		}
		if f.pos, err = tx.Position(); err != nil {
			return err
		}
		for _, typ := range []string{"m.room.power_levels", "m.room.join_rules"} {
			e, err := tx.LoadStateEvent(f.id, event.StateKey{Type: typ})
			if err != nil {
				return err
			}
			f.auth, f.rank = append(f.auth, e.ID), max(f.rank, e.AuthRank)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Stop()
	db := storagetest.Raw(t, s.Config.Database)
	if strings.HasPrefix(s.Config.Database, "sqlite:") {
		db.SetMaxOpenConns(1)
		f.must(db.Exec(`PRAGMA synchronous = OFF; PRAGMA cache_size = -1000000`))
	}
	if f.tx, err = db.Begin(); err != nil {
		t.Fatal(err)
	}
	f.run()
	if err := f.tx.Commit(); err != nil {
		t.Fatal(err)
	}
	f.must(db.Exec(`ANALYZE`))
	s.Restart()
}

// filling is the making of a large room.
type filling struct {
	t     testing.TB
	tx    *sql.Tx
	owner matrix.UserID
	id    matrix.RoomID
	room  *storage.Room
	num   int64
	pos   int64
	auth  []matrix.EventID
	rank  int64
	users []filled
	nodes map[statemap.Hash][]byte // of the newest tree, as far as it was made here
}

// filled is a member as it is so far.
type filled struct {
	event matrix.EventID
	pos   int64
}

func (f *filling) must(_ sql.Result, err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *filling) user(i int) matrix.UserID {
	return matrix.UserID(fmt.Sprintf("@member%07d:%s", i, f.owner.Server()))
}

func (f *filling) run() {
	if err := f.tx.QueryRow(`SELECT room_num FROM rooms WHERE room_id = $1`, string(f.id)).Scan(&f.num); err != nil {
		f.t.Fatal(err)
	}
	for round := range historyPerMember {
		f.round(round)
	}
	members := f.rows(`INSERT INTO memberships (room_num, user_id, membership, sender, event_id, auth_rank, pos, forgotten)`, 8)
	for i, u := range f.users {
		members.add(f.num, string(f.user(i)), "join", string(f.user(i)), string(u.event), f.rank+historyPerMember, u.pos, 0)
	}
	members.flush()
	f.must(f.tx.Exec(`INSERT INTO current_state (room_num, type, state_key, event_id, auth_rank, pos)
		SELECT room_num, 'm.room.member', user_id, event_id, auth_rank, pos FROM memberships WHERE room_num = $1 AND user_id <> $2`, f.num, string(f.owner)))
	f.must(f.tx.Exec(`INSERT INTO users (user_id, tenant, kind, admin, listed, locked, suspended, deactivated, password, appservice, pools, groups_in, roles,
			attributes, created_ts)
		SELECT m.user_id, u.tenant, u.kind, u.admin, u.listed, u.locked, u.suspended, u.deactivated, u.password, u.appservice, u.pools, u.groups_in, u.roles,
			u.attributes, u.created_ts
		FROM memberships m JOIN users u ON u.user_id = $2 WHERE m.room_num = $1 AND m.user_id <> $2`, f.num, string(f.owner)))
	h := f.room.Head
	f.must(f.tx.Exec(`UPDATE rooms SET head = $2, extremities = $3, depth = $4, state_root = $5, last_pos = $6, state_pos = $6 WHERE room_num = $1`, f.num,
		h.Name, `["`+h.Name+`"]`, h.Depth, h.StateRoot[:], f.pos))
	f.must(f.tx.Exec(`UPDATE log_position SET pos = $1`, f.pos))
	f.must(f.tx.Exec(`UPDATE cursors SET pos = $1`, f.pos)) // nobody has to be told of what was never sent
}

// round stores one event of each member, and the state after them.
func (f *filling) round(round int) {
	made := make([]*event.Event, len(f.users))
	changes := make([]statemap.Change, len(f.users))
	h := &f.room.Head
	now := time.Now().UnixMilli()
	for i := range f.users {
		user := f.user(i)
		key := string(user)
		d := event.Draft{RoomID: f.id, Type: "m.room.member", StateKey: &key, Sender: user, PrevEvents: h.Extremities, AuthEvents: f.auth, Depth: h.Depth + 1,
			OriginServerTS: now, Content: fmt.Appendf(nil, `{"displayname":"Member %d of the house (%d)","membership":"join"}`, i, round)}
		if round > 0 {
			d.AuthEvents = append(f.auth[:len(f.auth):len(f.auth)], f.users[i].event)
		}
		e, err := event.Build(f.room.Version, d)
		if err != nil {
			f.t.Fatal(err)
		}
		made[i], changes[i] = e, statemap.Change{Key: e.Key(), ID: e.ID}
		h.Name, h.Extremities, h.Depth = string(e.ID), []matrix.EventID{e.ID}, h.Depth+1
	}
	f.grow(changes)
	events := f.rows(`INSERT INTO events (pos, event_id, room_num, type, state_key, sender, depth, origin_server_ts, received_ts, flags, auth_rank, state_root,
		replaces, json)`, 14)
	for i, e := range made {
		u := &f.users[i]
		f.pos++
		var replaces any
		if u.event != "" {
			replaces = string(u.event)
		}
		events.add(f.pos, string(e.ID), f.num, e.Type, *e.StateKey, string(e.Sender), e.Depth, e.OriginServerTS, now, 0, f.rank+1+int64(round), h.StateRoot[:],
			replaces, []byte(e.JSON))
		u.event, u.pos = e.ID, f.pos
	}
	events.flush()
}

// grow brings changes into the state tree.
func (f *filling) grow(changes []statemap.Change) {
	root, nodes, err := statemap.Put(func(hashes []statemap.Hash) (map[statemap.Hash][]byte, error) {
		out := map[statemap.Hash][]byte{}
		for _, h := range hashes {
			data := f.nodes[h]
			if data == nil {
				if err := f.tx.QueryRow(`SELECT data FROM state_nodes WHERE hash = $1`, h[:]).Scan(&data); err != nil {
					return nil, err
				}
			}
			out[h] = data
		}
		return out, nil
	}, f.room.Head.StateRoot, changes)
	if err != nil {
		f.t.Fatal(err)
	}
	f.room.Head.StateRoot = root
	clear(f.nodes)
	rows := f.rows(`INSERT INTO state_nodes (hash, data)`, 2)
	for i := range nodes {
		f.nodes[nodes[i].Hash] = nodes[i].Data
		rows.add(nodes[i].Hash[:], nodes[i].Data)
	}
	rows.flush()
}

// rows are rows on their way into a table.
type rows struct {
	f     *filling
	head  string
	width int
	args  []any
	full  *sql.Stmt
}

const rowsAtOnce = 20

func (f *filling) rows(head string, width int) *rows { return &rows{f: f, head: head, width: width} }

func (r *rows) add(args ...any) {
	if r.args = append(r.args, args...); len(r.args) == rowsAtOnce*r.width {
		if r.full == nil {
			var err error
			if r.full, err = r.f.tx.Prepare(r.text(rowsAtOnce)); err != nil {
				r.f.t.Fatal(err)
			}
		}
		r.f.must(r.full.Exec(r.args...))
		r.args = r.args[:0]
	}
}

func (r *rows) flush() {
	if len(r.args) > 0 {
		r.f.must(r.f.tx.Exec(r.text(len(r.args)/r.width), r.args...))
	}
	if r.full != nil {
		if err := r.full.Close(); err != nil {
			r.f.t.Fatal(err)
		}
	}
}

func (r *rows) text(n int) string {
	var b strings.Builder
	b.WriteString(r.head)
	for i := range n * r.width {
		switch {
		case i == 0:
			b.WriteString(` VALUES (`)
		case i%r.width == 0:
			b.WriteString(`), (`)
		default:
			b.WriteString(`, `)
		}
		fmt.Fprintf(&b, `$%d`, i+1)
	}
	b.WriteString(`) ON CONFLICT DO NOTHING`)
	return b.String()
}

// heap is how many bytes are in use on the heap.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	return live()
}

// live is how many bytes the last collection found in use.
func live() int64 {
	m := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(m)
	return int64(m[0].Value.Uint64())
}

// peak is the most that was in use on the heap while fn ran, to within some percent.
func peak(fn func()) int64 {
	defer debug.SetGCPercent(debug.SetGCPercent(5))
	most, stop, done := heap(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				most = max(most, live())
			case <-stop:
				return
			}
		}
	}()
	fn()
	close(stop)
	<-done
	return max(most, live())
}

// stream is an answer that is not kept, so that it takes no memory in this process: how long it is, how many memberships it tells of, and how
// it begins.
type stream struct {
	size, members int
	head, tail    []byte
}

func (s *stream) Write(p []byte) (int, error) {
	const word = `"type":"m.room.member"`
	s.size += len(p)
	s.head = append(s.head, p[:min(len(p), 256-len(s.head))]...)
	both := append(s.tail, p...)
	s.members += bytes.Count(both, []byte(word))
	s.tail = append([]byte(nil), both[max(0, len(both)-len(word)+1):]...)
	return len(p), nil
}

// syncStream makes a sync and returns its token, too.
func syncStream(t testing.TB, u *hstest.User, query string) (since string, s *stream) {
	t.Helper()
	req, err := http.NewRequest("GET", u.S.URL+"/_matrix/client/v3/sync?timeout=0&"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+u.Token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	s = &stream{}
	if _, err := io.Copy(s, resp.Body); err != nil || resp.StatusCode != 200 {
		t.Fatalf("sync: %d %s %v", resp.StatusCode, s.head, err)
	}
	_, rest, ok := strings.Cut(string(s.head), `"next_batch":"`)
	since, _, end := strings.Cut(rest, `"`)
	if !ok || !end {
		t.Fatalf("no token in %s", s.head)
	}
	return since, s
}

// TestD479_LargeRoom is a room with very many members and a long history of state. To join it and to sync it takes no more than twice the
// memory that the process has with the room in it; and beyond the answer itself no second copy of the room. Where HANSA_LARGE_MEMBERS is set the
// room has that many members, ten events for each.
func TestD479_LargeRoom(t *testing.T) { // not parallel: what is measured is the heap of the process
	for _, name := range storagetest.Databases() {
		t.Run(name, func(t *testing.T) { largeRoom(t, name, largeMembers(t)) })
	}
}

func largeRoom(t *testing.T, database string, n int) {
	const slack = 3 << 20 // what else goes on in the process
	s := hstest.New(t, hstest.Options{Database: database})
	anna, ben := s.User("anna"), s.User("ben")
	room := anna.CreateRoom(map[string]any{"preset": "public_chat", "name": "Everybody"})
	crowdRoom(t, s, anna, room, n)
	before, _ := syncStream(t, ben, "")
	rest := heap()
	loading := peak(func() { anna.Send(room, "hello") })
	base := heap()
	t.Logf("%d members: %d KiB at rest, %d when the room is loaded, %d with it", n, rest>>10, loading>>10, base>>10)
	step := func(what string, whole bool, fn func() *stream) {
		t.Helper()
		var got *stream
		most := peak(func() { got = fn() })
		beyond := most - base - int64(got.size)
		t.Logf("%-28s peak %d KiB, %d%% of base; answer %d KiB, beyond it %d", what, most>>10, most*100/base, got.size>>10, beyond>>10)
		if most > 2*base || beyond > base-rest+slack {
			t.Errorf("%s: %d KiB in use, of which %d are the answer; want at most twice %d, and no second copy of the room, which takes %d", what, most>>10,
				got.size>>10, base>>10, (base-rest)>>10)
		}
		if all := n + 2; whole && got.members != all || !whole && got.members > 20 {
			t.Errorf("%s: told of %d memberships of %d", what, got.members, all)
		}
	}
	const messages = `"timeline":{"types":["m.room.message"]}`
	whole, lazy := `filter={"room":{`+messages+`}}`, `filter={"room":{`+messages+`,"state":{"lazy_load_members":true}}}`
	since := ""
	sync := func(u *hstest.User, query string) func() *stream {
		return func() (got *stream) { since, got = syncStream(t, u, query); return got }
	}
	step("join", false, func() *stream { ben.Join(room); return &stream{} })
	step("sync after the join, lazy", false, sync(ben, lazy+"&since="+before))
	step("sync after the join, whole", true, sync(ben, whole+"&since="+before))
	step("first sync, lazy", false, sync(anna, lazy))
	step("first sync, whole", true, sync(anna, whole))
	anna.Send(room, "more")
	step("next sync", false, sync(anna, "since="+since))
}

// TestSync_TellsALargeRoomWhole is what a first sync tells of a room that is written in pages: every member once, as it was where the
// timeline begins.
func TestSync_TellsALargeRoomWhole(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		const n = 1100
		anna := s.User("anna")
		room := anna.CreateRoom(map[string]any{"preset": "public_chat"})
		crowdRoom(t, s, anna, room, n)
		one := &hstest.User{S: s, ID: "@member0000601:acme.example"}
		one.Login("")
		one.Must("PUT", "/rooms/"+hstest.Esc(room)+"/state/m.room.member/"+hstest.Esc(string(one.ID)), map[string]any{"membership": "join", "displayname": "Newly named"})
		for _, c := range []struct {
			query, section, filter, name string
			members                      int
		}{
			{section: "state", filter: `{"room":{"timeline":{"limit":1}}}`, name: "Member 601 of the house (9)", members: n + 1},
			{section: "state", filter: `{"room":{"timeline":{"types":["m.room.message"]}}}`, name: "Newly named", members: n + 1},
			{query: "true", section: "state_after", filter: `{"room":{"timeline":{"limit":1}}}`, name: "Newly named", members: n + 1},
			{section: "state", filter: `{"room":{"timeline":{"limit":1},"state":{"not_types":["m.room.member"]}}}`},
			{section: "state", filter: `{"room":{"timeline":{"limit":1},"state":{"senders":["` + string(one.ID) + `"]}}}`, name: "Member 601 of the house (9)", members: 1},
		} {
			anna.Since = ""
			a := anna.Sync(0, "filter", c.filter, "use_state_after", c.query)
			list, _ := a.Get("rooms", "join", room, c.section, "events").([]any)
			names, told := map[string]string{}, 0
			for _, e := range list {
				if m, _ := e.(map[string]any); m["type"] == "m.room.member" {
					content, _ := m["content"].(map[string]any)
					names[fmt.Sprint(m["state_key"])], told = fmt.Sprint(content["displayname"]), told+1
				}
			}
			if len(names) != c.members || told != c.members {
				t.Errorf("%s: %d memberships of %d people, want %d", c.filter, told, len(names), c.members)
			}
			if c.members > 0 && names[string(one.ID)] != c.name {
				t.Errorf("%s: %s is %q in %s, want %q", c.filter, one.ID, names[string(one.ID)], c.section, c.name)
			}
		}
	})
}
