package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"hansa/homeserver/clientapi"
	"hansa/test/hstest"
)

// sweep is the calling of every route by outsiders.
type sweep struct {
	*camps
	t     *testing.T
	table []clientapi.Entry
	seen  map[string]bool // canaries that somebody saw who may
	done  int
	every int // of so many requests one is made
	kinds map[string]map[int]int
}

func newSweep(t *testing.T, w *camps) *sweep {
	return &sweep{camps: w, t: t, table: w.s.API.Table(), seen: w.seen, every: 1, kinds: map[string]map[int]int{}}
}

// try makes a request and checks that nothing of other camps is in the answer.
func (p *sweep) try(from *camp, who *hstest.User, c call) hstest.Answer {
	p.t.Helper()
	a := who.Try(c.method, c.path, c.body)
	p.done++
	if k := c.method + " " + c.entry.Paths[0]; p.kinds[k] == nil {
		p.kinds[k] = map[int]int{a.Status: 1}
	} else {
		p.kinds[k][a.Status]++
	}
	text := append(slices.Clip(a.Raw), fmt.Sprint(a.Header)...)
	for _, k := range p.canaries.found(text, from.name, false) {
		p.t.Errorf("%s of camp %s, %s: the answer holds %q of camp %s: %d %.600s", who.ID, from.name, c, k.label, k.camp, a.Status, a.Raw)
	}
	for _, k := range p.canaries.found(text, from.name, true) {
		p.seen[k.text] = true
	}
	if c.entry.Paths[0] != "" && strings.Contains(c.entry.Paths[0], "/logout") && a.Status == 200 {
		who.Login("")
	}
	return a
}

// refusal checks the form of an answer that refuses.
func (p *sweep) refusal(who *hstest.User, c call, a hstest.Answer) {
	p.t.Helper()
	bad := ""
	switch code := a.Code(); {
	case a.Status >= 500:
		bad = "a fault of the server"
	case a.Status == 403 && code != "M_FORBIDDEN" && code != "M_WRONG_ROOM_KEYS_VERSION" || a.Status == 404 && code != "M_NOT_FOUND":
		bad = "the wrong errcode"
	case a.Status >= 400 && !strings.HasPrefix(code, "M_") && a.Get("flows") == nil:
		bad = "no errcode"
	case a.Get("org.hansa.decision_id") == "" || a.Get("org.hansa.reasons") != nil && a.Get("org.hansa.decision_id") == nil:
		bad = "reasons without a decision"
	}
	if reasons, ok := a.Get("org.hansa.reasons").([]any); ok && len(reasons) == 0 {
		bad = "a denial without a reason"
	}
	if bad != "" {
		p.t.Errorf("%s: %s: %s: %d %s", who.ID, c, bad, a.Status, a.Raw)
	}
}

// outsiders are the members of a camp who try to get at others. The owner and the hidden member keep still, so that they can tell
// whether anything reaches them.
func (c *camp) outsiders() []*hstest.User {
	if c.guest != nil {
		return []*hstest.User{c.fellow, c.guest}
	}
	return []*hstest.User{c.fellow}
}

// attack makes everybody call every route about everybody of the other camps.
func (p *sweep) attack() {
	p.t.Helper()
	n := 0
	for _, from := range p.all {
		for _, who := range from.outsiders() {
			for _, to := range p.all {
				if to == from {
					continue
				}
				for i, a := range to.aims {
					for _, e := range p.table {
						if i > 0 && !aboutRooms(e) {
							continue
						}
						for _, c := range calls(p.t, e, a, &p.txn) {
							if n++; n%p.every == 0 {
								p.refusal(who, c, p.try(from, who, c))
							}
						}
					}
				}
			}
		}
	}
}

// aboutRooms tells whether a route is called differently for each room of a camp.
func aboutRooms(e clientapi.Entry) bool {
	return strings.Contains(e.Paths[0], "oom") || strings.Contains(e.Paths[0], "{eventId}")
}

// control lets the people of each camp look at what is theirs: what was planted is there, and outsiders have destroyed nothing.
func (p *sweep) control() {
	p.t.Helper()
	reads := []string{"/publicRooms", "/user_directory/search", "/keys/query"}
	for _, c := range p.all {
		for _, who := range []*hstest.User{c.fellow, c.owner} {
			for i, a := range c.aims {
				for _, e := range p.table {
					if i > 0 && !aboutRooms(e) {
						continue
					}
					if e.Method != "GET" && !slices.ContainsFunc(reads, func(r string) bool { return strings.HasSuffix(e.Paths[0], r) }) {
						continue
					}
					for _, call := range calls(p.t, e, a, &p.txn) {
						p.try(c, who, call)
					}
				}
			}
		}
		claim := call{"POST", "/keys/claim", object{"one_time_keys": object{string(c.owner.ID): object{c.owner.DeviceID: "signed_curve25519"}}}, clientapi.Entry{Paths: []string{"/keys/claim"}}}
		for range 6 { // five one-time keys and the fallback key
			p.try(c, c.fellow, claim)
		}
	}
	for _, k := range p.canaries.list {
		if !p.seen[k.text] {
			p.t.Errorf("nobody of camp %s has seen %q: it was not planted well, or somebody has destroyed it", k.camp, k.label)
		}
	}
}

// marks are the places from which the quiet people look whether anything has reached them.
func (w *camps) marks() {
	for _, c := range w.all {
		c.owner.Sync(0)
		c.hidden.Sync(0)
		for i := range c.aims {
			c.aims[i].since = c.owner.Since
		}
	}
}

// onlyStopped tells whether all that is said of rooms is that those who were typing there have stopped, as they do after a time: people of their
// own camp, who typed before the mark.
func onlyStopped(rooms any) bool {
	kinds, _ := rooms.(map[string]any)
	joined, ok := kinds["join"].(map[string]any)
	for _, room := range joined {
		sections, _ := room.(map[string]any)
		for name, v := range sections {
			section, _ := v.(map[string]any)
			events, _ := section["events"].([]any)
			for _, e := range events {
				m, _ := e.(map[string]any)
				content, _ := m["content"].(map[string]any)
				users, has := content["user_ids"].([]any)
				ok = ok && name == "ephemeral" && m["type"] == "m.typing" && has && len(users) == 0
			}
		}
	}
	return ok && len(kinds) == 1
}

// untouched checks that nothing has reached anybody.
func (w *camps) untouched(t *testing.T) {
	t.Helper()
	for _, c := range w.all {
		own := map[string]bool{}
		for _, u := range c.people() {
			own[string(u.ID)] = true
		}
		for _, u := range []*hstest.User{c.owner, c.hidden} {
			a := u.Sync(0)
			for _, section := range []string{"rooms", "to_device", "account_data"} {
				if got := a.Get(section); got != nil && !onlyStopped(got) {
					t.Errorf("%s got something under %s: %s", u.ID, section, a.Raw)
				}
			}
			if list, ok := a.Get("presence", "events").([]any); ok {
				for _, e := range list {
					if m, _ := e.(map[string]any); !own[fmt.Sprint(m["sender"])] {
						t.Errorf("%s sees presence of %v", u.ID, m["sender"])
					}
				}
			}
			for _, part := range []string{"changed", "left"} {
				list, _ := a.Get("device_lists", part).([]any)
				for _, id := range list {
					if !own[fmt.Sprint(id)] {
						t.Errorf("%s: device list of %v under %s", u.ID, id, part)
					}
				}
			}
		}
		if n := c.owner.Must("POST", "/keys/upload", object{}).Get("one_time_key_counts", "signed_curve25519"); n != 5.0 {
			t.Errorf("%s has %v one-time keys left of 5", c.owner.ID, n)
		}
		for _, aim := range c.aims {
			list, _ := c.owner.Must("GET", "/rooms/"+hstest.Esc(aim.room)+"/members", nil).Get("chunk").([]any)
			for _, e := range list {
				if m, _ := e.(map[string]any); !own[fmt.Sprint(m["state_key"])] {
					t.Errorf("%v has a membership in a room of camp %s: %v", m["state_key"], c.name, m["content"])
				}
			}
		}
	}
}

// Nothing that the people of one camp wrote anywhere is in any byte of any answer to people of another, whatever route they call
// with whatever names; and nothing that these do reaches those. On PostgreSQL every third request is made.
func TestP331_CanaryNonInterference(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{Policy: campPolicy()}, func(t *testing.T, s *hstest.Server) {
		w := newCamps(t, s)
		w.marks()
		p := newSweep(t, w)
		if strings.HasPrefix(s.Config.Database, "postgres") {
			p.every = 3
		}
		p.attack()
		t.Logf("%d requests by outsiders, %d canaries", p.done, len(w.canaries.list))
		w.untouched(t)
		p.control()
	})
}
