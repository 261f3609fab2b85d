package sim

import (
	"slices"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage"
	"hansa/storage/statemap"
)

// compare finds what is wrong in the end; doc.go says what is asked for.
func (w *world) compare() {
	var views []*view
	for _, s := range w.servers {
		if v := s.view(); v != nil {
			views = append(views, v)
		}
	}
	seen := map[matrix.EventID]bool{}
	for todo := []matrix.EventID(nil); ; todo = todo[:0] { // what any of them has, and what that cites
		for _, v := range views {
			for id, e := range v.stored {
				for _, c := range append(slices.Concat(e.PrevEvents, e.AuthEvents), id) {
					if !seen[c] {
						seen[c] = true
						todo = append(todo, c)
					}
				}
			}
		}
		if len(todo) == 0 {
			break
		}
		for _, v := range views {
			v.fill(todo)
		}
	}
	t := w.truth(views)
	w.events, w.forks = len(t.events), t.forks
	for _, v := range views {
		v.check(t)
	}
	for _, d := range w.verdicts {
		d.check(t, views)
	}
	for i, v := range views {
		switch {
		case !w.in(v.s):
			w.note("%s is out", v.s.name)
			w.out++
		case len(w.said[v.s.name]) == 0:
			w.note("%s is mute", v.s.name)
			w.mute++
		}
		for _, o := range views[:i] {
			if w.in(v.s) && w.in(o.s) {
				v.compare(o)
			}
		}
	}
}

// check holds what a server has made of each event against the truth.
func (v *view) check(t *truth) {
	w := v.s.w
	for id, e := range v.stored {
		refused := e.Flags&storage.Rejected != 0
		if e.Flags&storage.SoftFailed != 0 {
			w.soft++
		}
		switch {
		case e.Flags&storage.Withheld != 0:
			w.t.Errorf("%s withholds %s", v.s.name, id)
		case e.Flags&storage.Outlier != 0:
			if refused != t.unfit[id] {
				w.t.Errorf("%s (%s of %s) is marked %b by %s; that its auth events allow it is %t", id, e.Type, e.Sender, e.Flags, v.s.name, !t.unfit[id])
			}
		case refused && e.Redacts != t.events[id].Redacts: // it came redacted: before version 3 it takes more power not to say what to redact
		case refused != t.refused[id]:
			w.t.Errorf("%s (%s of %s) is marked %b by %s; that it is allowed is %t", id, e.Type, e.Sender, e.Flags, v.s.name, !t.refused[id])
		case e.StateRoot != t.roots[id]:
			w.t.Errorf("the state after %s (%s of %s) is not right at %s: %s", id, e.Type, e.Sender, v.s.name, v.differ(t, e.StateRoot, t.after[id]))
		}
		if t.refused[id] {
			w.t.Errorf("%s (%s of %s) is not allowed, and an honest server has written it", id, e.Type, e.Sender)
		}
	}
	v.redacted()
	followed := map[matrix.EventID]matrix.EventID{}
	for id, e := range v.events {
		for _, p := range e.PrevEvents {
			followed[p] = id
		}
	}
	for _, id := range v.head.Extremities {
		if followed[id] != "" {
			w.t.Errorf("%s takes %s for an end of the graph, although %s follows it", v.s.name, id, followed[id])
		}
	}
	if want := t.join(v.head.Extremities); v.head.StateRoot != t.root(want) {
		w.t.Errorf("the state at the head of %s is not right: %s", v.s.name, v.differ(t, v.head.StateRoot, want))
	}
	if found, err := v.s.rooms.AuditState(w.ctx, w.room); err != nil || !found.Right() {
		w.t.Errorf("what %s stores of the state is not right: %v, %v", v.s.name, found, err)
	}
}

// check holds the verdict that an event fails softly, or does not, against the state that was current.
func (d verdict) check(t *truth, views []*view) {
	w := d.s.w
	v := views[slices.IndexFunc(views, func(v *view) bool { return v.s == d.s })]
	e := v.stored[d.id]
	if e == nil || e.Flags&(storage.Rejected|storage.Outlier) != 0 {
		return
	}
	w.judged++
	err := t.check(e.Event, v.state(t, d.current))
	if soft := e.Flags&storage.SoftFailed != 0; soft != (err != nil) {
		w.t.Errorf("%s (%s of %s) is marked %b by %s; by the state that was current when it came: %v", e.ID, e.Type, e.Sender, e.Flags, d.s.name, err)
	}
}

// state is a state that the server has stored.
func (v *view) state(t *truth, root statemap.Hash) state {
	if s, ok := t.known[root]; ok {
		return s
	}
	s := state{}
	must(v.s.w.t, v.s.db.View(v.s.w.ctx, func(tx *storage.Tx) error {
		return statemap.Walk(tx.LoadNodes, root, func(k event.StateKey, id matrix.EventID) { s[k] = id })
	}))
	t.known[root] = s
	return s
}

// redacted checks that what is shown of redactions has taken effect where nobody can doubt that it may: on what the same server has written.
// Others redact by power, and what power they had when depends on which servers were there to see it.
func (v *view) redacted() {
	by := map[matrix.EventID][]matrix.EventID{}
	for id, e := range v.stored {
		target := v.stored[e.Redacts]
		if e.Type != "m.room.redaction" || e.Flags.Hidden() || target == nil {
			continue
		}
		by[target.ID] = append(by[target.ID], id)
		if target.Sender.Server() == e.Sender.Server() && target.RedactedBy == "" {
			v.s.w.t.Errorf("%s shows %s, which redacts %s, but that is not redacted", v.s.name, id, target.ID)
		}
	}
	for id, e := range v.stored {
		if e.RedactedBy != "" && !slices.Contains(by[id], e.RedactedBy) {
			v.s.w.t.Errorf("%s has %s redacted by %s, which it does not show", v.s.name, id, e.RedactedBy)
		}
	}
}

// differ tells how a state differs from the right one.
func (v *view) differ(t *truth, root statemap.Hash, want state) (text string) {
	if root == (statemap.Hash{}) {
		return "it has none"
	}
	tell := func(k event.StateKey, is, should matrix.EventID) {
		text += "\n  " + k.Type + " [" + k.Key + "] is " + string(is) + ", should be " + string(should)
	}
	got := v.state(t, root)
	for k, id := range got {
		if want[k] != id {
			tell(k, id, want[k])
		}
	}
	for k, id := range want {
		if got[k] == "" {
			tell(k, "", id)
		}
	}
	return text
}

// compare compares two servers that take themselves for being in the room.
func (v *view) compare(o *view) {
	w := v.s.w
	if !w.sees(v.s, o.s) || !w.sees(o.s, v.s) {
		w.note("%s and %s have come apart", v.s.name, o.s.name)
		w.apart++
		return
	}
	v.reached(o)
	o.reached(v)
	if w.deaf(v.s, o) || w.deaf(o.s, v) {
		w.note("%s and %s do not hear each other", v.s.name, o.s.name)
		w.apart++
		return
	}
	late := false
	for _, pair := range [][2]*view{{v, o}, {o, v}} {
		for id := range pair[0].events {
			switch {
			case pair[1].events[id] != nil:
			case w.late(id, pair[1].s):
				late = true
			default:
				w.t.Errorf("%s has %s, %s has it not", pair[0].s.name, id, pair[1].s.name)
			}
		}
	}
	if late {
		w.note("%s or %s has yet to hear of the last words of a third", v.s.name, o.s.name)
		return
	}
	w.equal++
	a, b := slices.Sorted(slices.Values(v.head.Extremities)), slices.Sorted(slices.Values(o.head.Extremities))
	if !slices.Equal(a, b) {
		w.t.Errorf("extremities of %s %v, of %s %v", v.s.name, a, o.s.name, b)
	}
	if v.head.StateRoot != o.head.StateRoot {
		w.t.Errorf("%s and %s do not have the same state", v.s.name, o.s.name)
	}
}

// reached checks that everything below the head of a server that has spoken in the end has come to the other one, if only to be found wanting there.
func (v *view) reached(o *view) {
	w := v.s.w
	if len(w.said[v.s.name]) == 0 {
		return
	}
	for id := range v.events {
		if e := o.stored[id]; (e == nil || e.Flags&storage.Outlier != 0) && !w.late(id, o.s) {
			w.t.Errorf("%s has %s below its head and has spoken since, %s has never got it", v.s.name, id, o.s.name)
		}
	}
}

// late tells whether an event is one of the last words of a server that does not take another one for being in the room: that one hears of
// them when somebody else speaks again, and nobody does.
func (w *world) late(id matrix.EventID, o *server) bool {
	return slices.ContainsFunc(w.servers, func(z *server) bool { return slices.Contains(w.said[z.name], id) && !w.sees(z, o) })
}

// sees tells whether one server is in the room by the account of another.
func (w *world) sees(s, o *server) bool {
	yes, err := s.rooms.InRoom(w.ctx, w.room, o.name)
	must(w.t, err)
	return yes
}

// deaf tells whether nothing of what one server said in the end became a part of what the other one shows.
func (w *world) deaf(s *server, o *view) bool {
	return !slices.ContainsFunc(w.said[s.name], func(id matrix.EventID) bool {
		e := o.stored[id]
		return e != nil && !e.Flags.Hidden()
	})
}
