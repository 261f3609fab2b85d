package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"hansa/test/hstest"
)

// worldPolicy allows rooms that everybody may look into.
func worldPolicy() map[string]string {
	return map[string]string{"acme.example/rooms.yaml": "rooms: {history_visibility: [shared, invited, joined, world_readable]}\n"}
}

// phases is how many moments a story has. At each of them, after the memberships have changed, the owner sends a message and sets a topic.
const phases = 7

// story is what happens to somebody's membership: what they do, or what is done to them, at a phase.
type story map[int]string

// stories are the lives that people have in a room.
func stories() map[string]story {
	return map[string]story{
		"never":        {},
		"invited":      {1: "invite"},
		"joined":       {1: "invite", 2: "join"},
		"left":         {1: "invite", 2: "join", 3: "leave"},
		"kicked":       {1: "invite", 2: "join", 3: "kick"},
		"banned":       {1: "invite", 2: "join", 3: "ban"},
		"leftbanned":   {1: "invite", 2: "join", 3: "leave", 5: "ban"},
		"rejoined":     {1: "invite", 2: "join", 3: "leave", 4: "invite", 5: "join"},
		"leftagain":    {1: "invite", 2: "join", 3: "leave", 4: "invite", 5: "join", 6: "leave"},
		"knocking":     {1: "knock"},
		"retracted":    {1: "knock", 3: "leave"},
		"declined":     {1: "invite", 3: "leave"},
		"invitedagain": {1: "invite", 2: "join", 3: "leave", 4: "invite"},
		"declinedlate": {1: "invite", 2: "join", 3: "leave", 4: "invite", 5: "leave"},
		"unbanned":     {1: "invite", 2: "join", 3: "ban", 5: "unban"},
		"knockagain":   {1: "invite", 2: "join", 3: "leave", 4: "knock"},
		"forgotten":    {1: "invite", 2: "join", 3: "leave", 6: "forget"},
		"bannedfirst":  {1: "ban", 4: "unban", 5: "invite"},
		"latejoin":     {5: "invite", 6: "join"},
	}
}

// eras are history visibilities by phase: four that stay, and some that change.
func eras() map[string][]string {
	stay := func(v string) []string { return slices.Repeat([]string{v}, phases) }
	return map[string][]string{
		"world_readable": stay("world_readable"), "shared": stay("shared"), "invited": stay("invited"), "joined": stay("joined"),
		"closing": {"world_readable", "world_readable", "shared", "shared", "invited", "joined", "joined"},
		"opening": {"joined", "joined", "invited", "invited", "shared", "shared", "world_readable"},
	}
}

// life is a story told to its end: the membership at each phase.
type life struct {
	user    *hstest.User
	at      [phases]string
	forgot  bool
	current string
}

func (l *life) tell(s story) {
	now := ""
	for p := range phases {
		switch s[p] {
		case "":
		case "kick", "unban", "leave":
			now = "leave"
		case "forget":
			l.forgot = true
		default:
			now = s[p]
		}
		l.at[p] = now
	}
	l.current = now
}

// lastJoin is the last phase at which the user came in, -1 for none.
func (l *life) lastJoin() int {
	last := -1
	for p := range phases {
		if l.at[p] == "join" && (p == 0 || l.at[p-1] != "join") {
			last = p
		}
	}
	return last
}

// end is the phase at which the last stay ended, phases while it goes on.
func (l *life) end() int {
	j := l.lastJoin()
	if j < 0 {
		return -1
	}
	for p := j; p < phases; p++ {
		if l.at[p] != "join" {
			return p
		}
	}
	return phases
}

// sees is the table of the specification for an event of a phase.
//
// spec: client-server-api#room-history-visibility
func (l *life) sees(phase int, visibility string) bool {
	switch membership := l.at[phase]; {
	case visibility == "world_readable":
		return true
	case l.forgot:
		return false // forgotten history is gone for good
	case membership == "join":
		return true
	case visibility == "shared":
		return l.lastJoin() > phase // came in at any point after the event
	case visibility == "invited":
		return membership == "invite"
	}
	return false
}

// mayPage tells whether the endpoints about the room as a whole are open: to members, to those who have been in it and have not
// forgotten it, and to everybody while the room is readable for the world.
func (l *life) mayPage(now string) bool {
	switch {
	case l.current == "join", now == "world_readable":
		return true
	case l.current == "leave" || l.current == "ban":
		return l.lastJoin() >= 0 && !l.forgot
	}
	return false
}

// stage is a room in which all stories have happened.
type stage struct {
	t      *testing.T
	s      *hstest.Server
	owner  *hstest.User
	room   string
	era    []string
	lives  map[string]*life
	events [phases]string
	cells  *int
	// before are sync tokens of everybody from before the first phase, during of phase 3.
	before, during map[string]string
}

// play makes a room and lets all stories happen in it.
func play(t *testing.T, s *hstest.Server, name string, era []string, cells *int) *stage {
	t.Helper()
	g := &stage{t: t, s: s, owner: s.User("owner-" + name), era: era, lives: map[string]*life{}, cells: cells, before: map[string]string{}, during: map[string]string{}}
	for n, st := range stories() {
		l := &life{user: s.User(n + "-" + name)}
		l.tell(st)
		g.lives[n] = l
		g.before[n] = l.user.Sync(0).String("next_batch")
	}
	g.room = g.owner.CreateRoom(object{"preset": "private_chat", "initial_state": []any{
		object{"type": "m.room.join_rules", "content": object{"join_rule": "knock"}},
		object{"type": "m.room.history_visibility", "content": object{"history_visibility": era[0]}}}})
	for p := range phases {
		if p > 0 && era[p] != era[p-1] {
			g.owner.Must("PUT", g.path()+"/state/m.room.history_visibility", object{"history_visibility": era[p]})
		}
		for _, n := range slices.Sorted(maps.Keys(g.lives)) {
			g.act(g.lives[n].user, stories()[n][p])
		}
		g.events[p] = g.owner.Send(g.room, fmt.Sprint("phase ", p))
		g.owner.Must("PUT", g.path()+"/state/m.room.topic", object{"topic": fmt.Sprint("topic ", p)})
		if p == 3 {
			for n, l := range g.lives {
				g.during[n] = l.user.Sync(0).String("next_batch")
			}
		}
	}
	return g
}

func (g *stage) path() string { return "/rooms/" + hstest.Esc(g.room) }

func (g *stage) act(u *hstest.User, what string) {
	g.t.Helper()
	switch what {
	case "":
	case "join", "leave", "forget":
		u.Must("POST", g.path()+"/"+what, object{})
	case "knock":
		u.Must("POST", "/knock/"+hstest.Esc(g.room), object{})
	default:
		g.owner.Must("POST", g.path()+"/"+what, object{"user_id": u.ID})
	}
}

// cell checks one entry of the matrix.
func (g *stage) cell(what string, name string, got, want any) {
	g.t.Helper()
	*g.cells++
	if got != want {
		g.t.Errorf("%s: %s: %v, want %v (memberships %v, visibility %v)", name, what, got, want, g.lives[name].at, g.era)
	}
}

// texts are the messages in a text, as a set of phases.
func (g *stage) texts(raw []byte) [phases]bool {
	var out [phases]bool
	for p := range phases {
		out[p] = strings.Contains(string(raw), fmt.Sprintf(`"phase %d"`, p))
	}
	return out
}

// check goes through all endpoints for everybody.
func (g *stage) check() {
	g.t.Helper()
	now := g.era[phases-1]
	for name, l := range g.lives {
		var want [phases]bool
		for p := range phases {
			want[p] = l.sees(p, g.era[p])
		}
		may := l.mayPage(now)
		g.single(name, l, want, may)
		g.pages(name, l, want, may)
		g.state(name, l, may, now)
		g.syncs(name, l, want)
	}
}

// single checks the endpoints about one event.
func (g *stage) single(name string, l *life, want [phases]bool, may bool) {
	g.t.Helper()
	status := func(ok bool) int {
		if ok {
			return 200
		}
		return 404
	}
	for p := range phases {
		e := hstest.Esc(g.events[p])
		g.cell(fmt.Sprint("event of phase ", p), name, l.user.Try("GET", g.path()+"/event/"+e, nil).Status, status(want[p]))
		a := l.user.Try("GET", g.path()+"/context/"+e+"?limit=900", nil)
		switch {
		case !want[p]:
			g.cell(fmt.Sprint("context of phase ", p), name, a.Status, 404)
		case !may:
			g.cell(fmt.Sprint("context of phase ", p), name, a.Status, 403)
		default:
			g.cell(fmt.Sprint("context of phase ", p), name, g.texts(a.Raw), want)
		}
	}
}

// pages checks /messages, in both directions, and over a page's end.
func (g *stage) pages(name string, l *life, want [phases]bool, may bool) {
	g.t.Helper()
	for _, dir := range []string{"b", "f"} {
		a := l.user.Try("GET", g.path()+"/messages?limit=1000&dir="+dir, nil)
		if !may {
			g.cell("messages "+dir, name, a.Status, 403)
			continue
		}
		g.cell("messages "+dir, name, g.texts(a.Raw), want)
		var all []byte
		from, turns := "", 0
		for ; turns < 200; turns++ {
			q := "?limit=3&dir=" + dir
			if from != "" {
				q += "&from=" + url.QueryEscape(from)
			}
			a := l.user.Must("GET", g.path()+"/messages"+q, nil)
			all = append(all, a.Raw...)
			if from = a.String("end"); from == "" {
				break
			}
		}
		g.cell("messages "+dir+" in small pages", name, g.texts(all), want)
		g.cell("messages "+dir+" come to an end", name, turns < 200, true)
	}
}

// state checks the endpoints about the state: members see the present one, who has left that of leaving.
func (g *stage) state(name string, l *life, may bool, now string) {
	g.t.Helper()
	topic := ""
	switch end := l.end(); {
	case !may:
	case l.current == "join" || end < 0 || l.current != "leave" && l.current != "ban":
		topic = fmt.Sprint("topic ", phases-1)
	case end == 0:
	default:
		topic = fmt.Sprint("topic ", end-1) // of the phase before the one at whose beginning they left
	}
	for _, path := range []string{"/state", "/state/m.room.topic", "/state/m.room.topic/?format=event"} {
		a := l.user.Try("GET", g.path()+path, nil)
		got := ""
		for p := range phases {
			if t := fmt.Sprint("topic ", p); strings.Contains(string(a.Raw), `"`+t+`"`) {
				got = t
			}
		}
		g.cell(path, name, got, topic)
		if !may {
			g.cell(path+" status", name, a.Status, 403)
		}
	}
	a := l.user.Try("GET", g.path()+"/members", nil)
	g.cell("members", name, a.Status == 200, may)
	if may && topic != "" && l.end() != phases-1 {
		// Whether somebody who came at phase 6 is listed tells which moment is shown.
		g.cell("members of the right moment", name, memberOf(a, g.lives["latejoin"].user) == "join", topic == fmt.Sprint("topic ", phases-1))
	}
	g.cell("joined_members", name, l.user.Try("GET", g.path()+"/joined_members", nil).Status == 200, l.current == "join")
	g.cell("aliases", name, l.user.Try("GET", g.path()+"/aliases", nil).Status == 200, l.current == "join" || now == "world_readable" && l.end() < 0 || now == "world_readable" && l.current != "leave" && l.current != "ban")
	for p := range phases {
		e := hstest.Esc(g.events[p])
		a := l.user.Try("POST", g.path()+"/receipt/m.read/"+e, object{})
		g.cell(fmt.Sprint("receipt of phase ", p), name, a.Status == 200, l.current == "join" && l.sees(p, g.era[p]))
	}
}

func memberOf(a hstest.Answer, u *hstest.User) string {
	list, _ := a.Get("chunk").([]any)
	for _, e := range list {
		m, _ := e.(map[string]any)
		if m["state_key"] == string(u.ID) {
			c, _ := m["content"].(map[string]any)
			return fmt.Sprint(c["membership"])
		}
	}
	return ""
}

// syncs checks what /sync tells: a first one, one with rooms that were left, and ones from older tokens.
func (g *stage) syncs(name string, l *life, want [phases]bool) {
	g.t.Helper()
	filter := url.QueryEscape(`{"room":{"include_leave":true,"timeline":{"limit":100}}}`)
	first := l.user.Must("GET", "/sync?timeout=0&filter="+filter, nil)
	var inside [phases]bool // what a timeline may hold: no more than what is visible up to the end of the stay
	for p := range phases {
		inside[p] = want[p] && (l.current == "join" || (l.current == "leave" || l.current == "ban") && p < l.end())
	}
	if l.forgot {
		inside = [phases]bool{}
	}
	joined := first.Get("rooms", "join", g.room) != nil
	g.cell("sync: among joined rooms", name, joined, l.current == "join")
	got := g.texts(first.Raw)
	if l.current == "join" {
		g.cell("first sync", name, got, inside)
	} else {
		for p := range phases {
			if got[p] && !inside[p] {
				g.cell(fmt.Sprint("first sync shows phase ", p), name, true, false)
			}
			*g.cells++
		}
	}
	g.cell("sync: among invitations", name, first.Get("rooms", "invite", g.room) != nil, l.current == "invite")
	for when, since := range map[string]string{"before": g.before[name], "phase 3": g.during[name]} {
		a := l.user.Must("GET", "/sync?timeout=0&since="+url.QueryEscape(since)+"&filter="+filter, nil)
		got := g.texts(a.Raw)
		for p := range phases {
			*g.cells++
			if got[p] && !(want[p] && p < max(l.end(), 0)) {
				g.t.Errorf("%s: sync since %s shows phase %d (memberships %v, visibility %v)", name, when, p, l.at, g.era)
			}
			if when == "phase 3" && l.current == "join" && !got[p] && p > 3 && want[p] {
				g.t.Errorf("%s: sync since phase 3 lacks phase %d (memberships %v, visibility %v)", name, p, l.at, g.era)
			}
		}
		if l.current != "join" && l.current != "invite" && l.current != "knock" && a.Get("rooms", "join", g.room) != nil {
			g.t.Errorf("%s: sync since %s has the room among those joined", name, when)
		}
	}
}

// Four history visibilities, and rooms in which they change, times nineteen lives of members, times all events, times every endpoint that
// reads: exactly the table of the specification. On PostgreSQL one of the changing rooms and two others.
func TestC182_HistoryVisibilityMatrix(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{Policy: worldPolicy()}, func(t *testing.T, s *hstest.Server) {
		cells := 0
		for name, era := range eras() {
			if strings.HasPrefix(s.Config.Database, "postgres") && !slices.Contains([]string{"shared", "invited", "closing"}, name) {
				continue
			}
			g := play(t, s, strings.ReplaceAll(name, "_", ""), era, &cells)
			g.check()
			s.Restart() // the same from the database alone
			for n, l := range g.lives {
				var want [phases]bool
				for p := range phases {
					want[p] = l.sees(p, era[p])
				}
				g.pages(n, l, want, l.mayPage(era[phases-1]))
				g.syncs(n, l, want)
			}
		}
		t.Logf("%d cells", cells)
		if cells < 1000 {
			t.Errorf("the matrix has %d cells", cells)
		}
	})
}

// Who has left, was removed or banned hears nothing of what happens later, on any way; who waits in a /sync hears of the end only.
func TestC183_DataAfterLeave(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{Policy: worldPolicy()}, func(t *testing.T, s *hstest.Server) {
		for _, how := range []string{"leave", "kick", "ban"} {
			owner, gone := s.User("owner-"+how), s.User("gone-"+how)
			room := owner.CreateRoom(object{"preset": "public_chat"})
			gone.Join(room)
			gone.Sync(0)
			path := "/rooms/" + hstest.Esc(room)
			if how == "leave" {
				gone.Must("POST", path+"/leave", object{})
			} else {
				owner.Must("POST", path+"/"+how, object{"user_id": gone.ID})
			}
			after := gone.Sync(0)
			if after.Get("rooms", "leave", room) == nil {
				t.Errorf("%s: the next sync does not tell: %s", how, after.Raw)
			}
			secrets := []string{"SECRETTEXT", "SECRETTOPIC", "SECRETNAME"}
			owner.Send(room, secrets[0])
			owner.Must("PUT", path+"/state/m.room.topic", object{"topic": secrets[1]})
			owner.Must("PUT", "/profile/"+hstest.Esc(string(owner.ID))+"/displayname", object{"displayname": secrets[2]})
			owner.Must("PUT", path+"/typing/"+hstest.Esc(string(owner.ID)), object{"typing": true})
			owner.Until("the new name in the room", func(hstest.Answer) bool {
				return strings.Contains(string(owner.Must("GET", path+"/state", nil).Raw), secrets[2])
			})
			owner.Must("POST", path+"/receipt/m.read/"+hstest.Esc(owner.Send(room, secrets[0])), object{})
			if how == "ban" {
				owner.Must("POST", path+"/unban", object{"user_id": gone.ID}) // tells the one it is about, and nothing else
			}
			var all []hstest.Answer
			for _, q := range []string{"?timeout=0", "?timeout=0&full_state=true", "?timeout=0&since=" + url.QueryEscape(gone.Since), "?timeout=0&full_state=true&since=" + url.QueryEscape(gone.Since),
				"?timeout=0&filter=" + url.QueryEscape(`{"room":{"include_leave":true,"timeline":{"limit":100}}}`)} {
				all = append(all, gone.Must("GET", "/sync"+q, nil))
			}
			for _, p := range []string{"/messages?dir=b&limit=100", "/messages?dir=f&limit=100", "/state", "/members", "/joined_members", "/state/m.room.topic"} {
				all = append(all, gone.Try("GET", path+p, nil))
			}
			for _, a := range all {
				for _, secret := range secrets {
					if strings.Contains(string(a.Raw), secret) {
						t.Errorf("%s: %s is told to who has gone: %.500s", how, secret, a.Raw)
					}
				}
				if b, err := json.Marshal(a.Get("rooms", "join", room)); err == nil && string(b) != "null" {
					t.Errorf("%s: the room is among those joined: %s", how, b)
				}
			}
		}
	})
}

// Whoever has left is told that those are out of sight with whom they shared the room, and nothing of those who came later; whoever is banned
// from a room that they never had to do with hears of neither the room nor the people in it.
func TestC183_DeviceListsAfterLeave(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		owner, mate, gone, late, outsider := s.User("owner"), s.User("mate"), s.User("gone"), s.User("late"), s.User("outsider")
		room := owner.CreateRoom(object{"preset": "public_chat"})
		mate.Join(room)
		gone.Join(room)
		gone.Sync(0)
		outsider.Sync(0)
		before := gone.Since
		gone.Must("POST", "/rooms/"+hstest.Esc(room)+"/leave", object{})
		late.Join(room)
		owner.Must("POST", "/rooms/"+hstest.Esc(room)+"/ban", object{"user_id": outsider.ID})
		for what, a := range map[string]hstest.Answer{"sync": gone.Sync(0), "keys/changes": gone.Must("GET", "/keys/changes?from="+url.QueryEscape(before), nil)} {
			left, _ := a.Get("left").([]any)
			if what == "sync" {
				left, _ = a.Get("device_lists", "left").([]any)
			}
			got := fmt.Sprint(left)
			if !strings.Contains(got, string(mate.ID)) || !strings.Contains(got, string(owner.ID)) || strings.Contains(string(a.Raw), string(late.ID)) {
				t.Errorf("%s: left %s: %s", what, got, a.Raw)
			}
		}
		owner.Must("POST", "/rooms/"+hstest.Esc(room)+"/ban", object{"user_id": gone.ID})
		if a := gone.Sync(0); strings.Contains(string(a.Raw), string(late.ID)) || strings.Contains(string(a.Raw), string(mate.ID)) {
			t.Errorf("a ban after leaving tells who is in the room: %s", a.Raw)
		}
		for _, q := range []string{"?timeout=0&since=" + url.QueryEscape(outsider.Since), "?timeout=0&full_state=true&filter=" + url.QueryEscape(`{"room":{"include_leave":true}}`), "?timeout=0"} {
			if a := outsider.Must("GET", "/sync"+q, nil); a.Get("rooms") != nil || a.Get("device_lists") != nil {
				t.Errorf("a ban reaches somebody who never had to do with the room: %s", a.Raw)
			}
		}
	})
}

// A newcomer is told of the keys of those who are in the room, and nothing of those who were there before.
func TestC183_DeviceListsOfNewcomer(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		owner, early, newcomer := s.User("owner"), s.User("early"), s.User("newcomer")
		room := owner.CreateRoom(object{"preset": "public_chat"})
		newcomer.Sync(0)
		before := newcomer.Since
		early.Join(room)
		early.Must("POST", "/rooms/"+hstest.Esc(room)+"/leave", object{})
		newcomer.Join(room)
		owner.Must("POST", "/rooms/"+hstest.Esc(room)+"/ban", object{"user_id": early.ID})
		newcomer.Sync(0)
		came := newcomer.Since
		newcomer.Must("PUT", "/profile/"+hstest.Esc(string(newcomer.ID))+"/displayname", object{"displayname": "New"})
		newcomer.Until("the name in the room", func(a hstest.Answer) bool { return strings.Contains(fmt.Sprint(a.Timeline(room)), "displayname:New") })
		for _, to := range []string{"", "&to=" + url.QueryEscape(newcomer.Since), "&to=" + url.QueryEscape(came)} { // the name is newer than the coming
			a := newcomer.Must("GET", "/keys/changes?from="+url.QueryEscape(before)+to, nil)
			if !strings.Contains(fmt.Sprint(a.Get("changed")), string(owner.ID)) || strings.Contains(string(a.Raw), string(early.ID)) {
				t.Errorf("changes for a newcomer%s: %s", to, a.Raw)
			}
		}
	})
}
