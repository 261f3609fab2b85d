package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/storage"
)

// template is what a server answers to make_join.
type template struct {
	Type       string           `json:"type"`
	StateKey   string           `json:"state_key"`
	Sender     string           `json:"sender"`
	Content    jsontext.Value   `json:"content"`
	Depth      int64            `json:"depth"`
	PrevEvents []jsontext.Value `json:"prev_events"`
	AuthEvents []jsontext.Value `json:"auth_events"`
}

func prototype(t reporter, raw []byte) template {
	t.Helper()
	var p template
	must(t, json.Unmarshal(raw, &p))
	return p
}

// references reads IDs, or pairs of an ID and hashes.
func references(t reporter, list []jsontext.Value) []matrix.EventID {
	t.Helper()
	var out []matrix.EventID
	for _, v := range list {
		if v.Kind() == '[' {
			var pair []jsontext.Value
			must(t, json.Unmarshal(v, &pair))
			v = pair[0]
		}
		var id matrix.EventID
		must(t, json.Unmarshal(v, &id))
		out = append(out, id)
	}
	return out
}

// step does one thing, drawn by lot.
func (w *world) step(n int) {
	w.now = w.now.Add(time.Duration(w.r.IntN(200)) * time.Millisecond)
	s := w.server()
	me, other := s.user(w.r.IntN(users)), w.anybody()
	switch k := w.r.IntN(100); {
	case k < 36:
		w.mailStep()
	case k < 52:
		w.send(s, room.Draft{Sender: me, Type: "m.room.message", Content: room.Object(map[string]any{"msgtype": "m.text", "body": fmt.Sprint(n)})})
	case k < 60:
		typ := []string{"m.room.topic", "m.room.name", "org.example.setting"}[w.r.IntN(3)]
		w.send(s, room.Draft{Sender: me, Type: typ, StateKey: ptr(""), Content: room.Object(map[string]any{"value": n})})
	case k < 71:
		if !w.join(s, me, w.server()) {
			w.join(s, me, w.servers[0])
		}
	case k < 74:
		if w.in(s) {
			w.member(s, me, me, "leave")
		}
	case k < 77:
		w.member(s, s.user(w.r.IntN(2)), other, "leave")
	case k < 80:
		w.member(s, s.user(w.r.IntN(2)), other, "ban")
	case k < 83:
		w.member(s, me, other, "invite")
	case k < 86:
		w.levels(s, s.user(w.r.IntN(2)), other)
	case k < 89:
		w.joinRules(s, s.user(w.r.IntN(2)))
	case k < 91:
		w.knock(s, me, w.server())
	case k < 93:
		w.redact(s, me)
	case k < 95:
		w.partition(s)
	case k < 97:
		w.heal()
	case k < 99:
		w.note("%s restarts", s.name)
		w.restarts++
		s.restart()
	default:
		w.note("%s forgets", s.name)
		s.forget()
	}
}

// mailStep delivers, loses or doubles a piece of mail, any of those that wait.
func (w *world) mailStep() {
	if len(w.mail) == 0 {
		return
	}
	i := w.r.IntN(len(w.mail))
	if w.r.IntN(3) == 0 {
		w.bundle(i)
	}
	switch w.r.IntN(12) {
	case 0:
		w.note("the mail of %s to %s with %v is lost", w.mail[i].from, w.mail[i].to, w.mail[i].ids)
		w.mail = append(w.mail[:i], w.mail[i+1:]...)
		w.lost++
	case 1:
		again := *w.mail[i]
		if w.deliver(i) {
			w.mail = append(w.mail, &again)
		}
	default:
		w.deliver(i)
	}
}

// bundle puts all that waits for the same way into one transaction, as far as it may have it.
func (w *world) bundle(i int) {
	t := *w.mail[i] // the mail may be there twice
	rest := append([]*transaction{}, w.mail[:i]...)
	for _, m := range w.mail[i+1:] {
		if m.from == t.from && m.to == t.to && len(t.pdus)+len(m.pdus) <= federation.MaxPDUs {
			t.pdus, t.ids = slices.Concat(t.pdus, m.pdus), slices.Concat(t.ids, m.ids)
		} else {
			rest = append(rest, m)
		}
	}
	w.mail = slices.Insert(rest, i, &t)
}

func (w *world) partition(s *server) {
	for _, o := range w.servers {
		if o != s && w.r.IntN(2) == 0 {
			w.cut[[2]matrix.ServerName{s.name, o.name}], w.cut[[2]matrix.ServerName{o.name, s.name}] = true, true
			w.cuts++
			w.note("cut between %s and %s", s.name, o.name)
		}
	}
}

func (w *world) heal() {
	if len(w.cut) > 0 {
		clear(w.cut)
		w.note("the network is whole again")
	}
}

// joinRules changes who may join.
func (w *world) joinRules(s *server, sender matrix.UserID) {
	v, _ := matrix.FindRoomVersion(w.version)
	rules := []string{"public", "invite"}
	if v.Knock {
		rules = append(rules, "knock")
	}
	if v.Restricted && !(w.version == "8" && w.hides()) { // there a redacted join does not say any more who vouched for it
		rules = append(rules, "restricted")
	}
	if v.KnockRestricted {
		rules = append(rules, "knock_restricted")
	}
	content := map[string]any{"join_rule": rules[w.r.IntN(len(rules))]}
	if strings.HasSuffix(content["join_rule"].(string), "restricted") {
		content["allow"] = []any{map[string]any{"type": "m.room_membership", "room_id": "!elsewhere:" + string(s.name)}}
	}
	w.send(s, room.Draft{Sender: sender, Type: "m.room.join_rules", StateKey: ptr(""), Content: room.Object(content)})
}

// redact lets a user redact something that says nothing about who may do what: redaction may not change that, and in room version 8 it did.
func (w *world) redact(s *server, sender matrix.UserID) {
	var page []*storage.Event
	must(w.t, s.db.Read(w.ctx, func(tx *storage.Tx) error {
		pos, err := tx.Position()
		if err == nil {
			page, err = tx.LoadPage(w.room, pos, storage.Backward, 20)
		}
		return err
	}))
	page = slices.DeleteFunc(page, func(e *storage.Event) bool {
		return !slices.Contains([]string{"m.room.message", "m.room.topic", "m.room.name"}, e.Type)
	})
	if len(page) == 0 {
		return
	}
	target := page[w.r.IntN(len(page))].ID
	d := room.Draft{Sender: sender, Type: "m.room.redaction", Redacts: target}
	if v, _ := matrix.FindRoomVersion(w.version); v.RedactsInContent {
		d.Redacts, d.Content = "", room.Object(map[string]any{"redacts": string(target)})
	}
	w.send(s, d)
}

// levels changes the power of somebody.
func (w *world) levels(s *server, sender, other matrix.UserID) {
	var content jsontext.Value
	err := s.rooms.Look(w.ctx, w.room, func(v room.View) {
		if e := v.State("m.room.power_levels", ""); e != nil {
			content = e.Content
		}
	})
	if err != nil || content == nil {
		return
	}
	var levels map[string]any
	must(w.t, json.Unmarshal(content, &levels))
	people, ok := levels["users"].(map[string]any)
	if !ok {
		people = map[string]any{}
	}
	if w.r.IntN(4) == 0 {
		levels["events_default"] = w.r.IntN(2) * 10
	} else {
		people[string(other)] = []int{0, 50, 100}[w.r.IntN(3)]
	}
	for k, v := range people { // numbers of the decoder are floats
		if f, ok := v.(float64); ok {
			people[k] = int64(f)
		}
	}
	for k, v := range levels {
		if f, ok := v.(float64); ok {
			levels[k] = int64(f)
		}
	}
	levels["users"] = people
	w.send(s, room.Draft{Sender: sender, Type: "m.room.power_levels", StateKey: ptr(""), Content: room.Object(levels)})
}

// settle makes the network whole, delivers all mail, and lets every server speak until all have one view.
func (w *world) settle() {
	w.heal()
	w.flush()
	for _, s := range w.servers { // who may come back does
		for i := 0; i < users*len(w.servers) && !w.in(s); i++ {
			w.join(s, s.user(i%users), w.servers[i/users])
		}
		w.flush()
	}
	for round := range 3 {
		clear(w.said)
		for _, s := range w.servers {
			if !w.in(s) {
				continue
			}
			w.now = w.now.Add(time.Second)
			for i := range users {
				w.send(s, room.Draft{Sender: s.user(i), Type: "m.room.message", Content: room.Object(map[string]any{"msgtype": "m.text", "body": fmt.Sprint("last words ", round)})})
			}
			w.flush()
		}
	}
	for range 2 { // what one has only now the others can have, too
		for _, s := range w.servers {
			for _, hole := range w.holes(s) {
				for more := w.in(s); more; {
					var err error
					more, err = s.rooms.Backfill(w.ctx, w.room, hole, 100)
					must(w.t, err)
				}
			}
		}
	}
}

// holes are the places in the room's history where a server misses something.
func (w *world) holes(s *server) (out []storage.Hole) {
	must(w.t, s.db.View(w.ctx, func(tx *storage.Tx) error {
		for upto := int64(1 << 62); ; {
			hole, top, ok, err := tx.FindHole(w.room, upto)
			if !ok || err != nil {
				out = append(out, storage.NoHole)
				return err
			}
			if !slices.Contains(out, hole) {
				out = append(out, hole)
			}
			upto = top - 1
		}
	}))
	return out
}

func (w *world) flush() {
	for len(w.mail) > 0 {
		w.bundle(0)
		w.deliver(0)
	}
}
