package push

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/matrix/pushrule"
	"hansa/storage"
	"hansa/storage/storagetest"
)

const (
	anna = matrix.UserID("@anna:acme.example")
	bert = matrix.UserID("@bert:acme.example")
	room = matrix.RoomID("!a:acme.example")
)

func each(t *testing.T, fn func(t *testing.T, r *Rules, db *storage.DB)) {
	t.Helper()
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) { fn(t, New(db), db) })
}

func code(err error) string {
	var e *matrix.Error
	if errors.As(err, &e) {
		return fmt.Sprintf("%d %s", e.Status, e.Code)
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func actions(list ...string) []jsontext.Value {
	out := []jsontext.Value{}
	for _, a := range list {
		out = append(out, jsontext.Value(`"`+a+`"`))
	}
	return out
}

func message(t testing.TB, body string) *event.Event {
	t.Helper()
	return built(t, `{"msgtype":"m.text","body":"`+body+`"}`)
}

func built(t testing.TB, content string) *event.Event {
	t.Helper()
	v, _ := matrix.FindRoomVersion("11")
	e, err := event.Build(v, event.Draft{RoomID: room, Type: "m.room.message", Sender: "@carl:acme.example",
		Content: jsontext.Value(content), PrevEvents: []matrix.EventID{"$a"}, Depth: 2, OriginServerTS: 1})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// ask returns the rule that an event meets.
func ask(t testing.TB, r *Rules, user matrix.UserID, e *event.Event) pushrule.Result {
	t.Helper()
	ev, err := r.Evaluator(context.Background(), user)
	if err != nil {
		t.Fatal(err)
	}
	return ev.Evaluate(pushrule.NewSubject(e), &pushrule.RoomContext{MemberCount: 3})
}

// datum returns the stored m.push_rules of a user and its position.
func datum(t *testing.T, db *storage.DB, user matrix.UserID) (content string, pos int64) {
	t.Helper()
	err := db.View(t.Context(), func(tx *storage.Tx) error {
		d, err := tx.LoadAccountDatum(user, "", "m.push_rules")
		content, pos = string(d.Content), d.Pos
		if errors.Is(err, storage.ErrNotFound) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return content, pos
}

func TestRules_ChangesAreToldAndApplied(t *testing.T) {
	each(t, func(t *testing.T, r *Rules, db *storage.DB) {
		ctx := t.Context()
		cake := message(t, "there is cake")
		if got := ask(t, r, anna, cake); got.Rule != ".m.rule.message" || got.Highlight {
			t.Errorf("by default %+v", got)
		}
		pattern := "cake"
		draft := pushrule.Draft{Actions: []jsontext.Value{[]byte(`"notify"`), []byte(`{"set_tweak":"highlight"}`)}, Pattern: &pattern}
		var last int64
		for _, step := range []struct {
			what string
			do   func() error
			want string
		}{
			{"put", func() error { return r.Put(ctx, anna, pushrule.Content, "cake", draft, pushrule.Place{}) }, "cake"},
			{"switch off", func() error { return r.SetEnabled(ctx, anna, pushrule.Content, "cake", false) }, ".m.rule.message"},
			{"switch on", func() error { return r.SetEnabled(ctx, anna, pushrule.Content, "cake", true) }, "cake"},
			{"other actions", func() error { return r.SetActions(ctx, anna, pushrule.Content, "cake", actions()) }, "cake"},
			{"delete", func() error { return r.Delete(ctx, anna, pushrule.Content, "cake") }, ".m.rule.message"},
			{"master", func() error { return r.SetEnabled(ctx, anna, pushrule.Override, ".m.rule.master", true) }, ".m.rule.master"},
		} {
			if err := step.do(); err != nil {
				t.Fatalf("%s: %v", step.what, err)
			}
			if got := ask(t, r, anna, cake); got.Rule != step.want {
				t.Errorf("%s: meets %s, want %s", step.what, got.Rule, step.want)
			}
			if got := ask(t, r, bert, cake); got.Rule != ".m.rule.message" {
				t.Errorf("%s: bert's event meets %s", step.what, got.Rule)
			}
			stored, pos := datum(t, db, anna)
			content, err := r.Content(ctx, anna)
			if err != nil || string(content) != stored || pos <= last {
				t.Errorf("%s: told %s at %d after %d, have %s, %v", step.what, stored, pos, last, content, err)
			}
			last = pos
		}
		// What changes nothing is not told, and what is refused neither.
		for what, want := range map[string]struct {
			err  error
			code string
		}{
			"again":    {r.SetEnabled(ctx, anna, pushrule.Override, ".m.rule.master", true), ""},
			"unknown":  {r.Delete(ctx, anna, pushrule.Content, "cake"), "404 M_NOT_FOUND"},
			"kind":     {r.Put(ctx, anna, "overide", "x", draft, pushrule.Place{}), "400 M_INVALID_PARAM"},
			"default":  {r.Delete(ctx, anna, pushrule.Override, ".m.rule.master"), "400 M_INVALID_PARAM"},
			"not ours": {r.Put(ctx, anna, pushrule.Override, ".m.rule.x", draft, pushrule.Place{}), "400 M_INVALID_PARAM"},
		} {
			if got := code(want.err); got != want.code {
				t.Errorf("%s: %q, want %q", what, got, want.code)
			}
		}
		if _, pos := datum(t, db, anna); pos != last {
			t.Errorf("told again at %d after %d", pos, last)
		}
		if stored, _ := datum(t, db, bert); stored != "" {
			t.Errorf("bert was told %s", stored)
		}
		content, err := r.Content(ctx, bert)
		var all struct {
			Global pushrule.Ruleset `json:"global"`
		}
		if err != nil || json.Unmarshal(content, &all) != nil || len(all.Global.Override)+len(all.Global.Underride) != 15 {
			t.Errorf("bert's rules %s, %v", content, err)
		}
	})
}

// Another node's change is seen after Invalidate, and a restart loses nothing.
func TestRules_OtherNodes(t *testing.T) {
	each(t, func(t *testing.T, r *Rules, db *storage.DB) {
		cake, other := message(t, "cake"), New(db)
		if got := ask(t, other, anna, cake).Rule; got != ".m.rule.message" {
			t.Fatal(got)
		}
		if err := r.Put(t.Context(), anna, pushrule.Room, string(room), pushrule.Draft{Actions: actions()}, pushrule.Place{}); err != nil {
			t.Fatal(err)
		}
		if got := ask(t, other, anna, cake).Rule; got != ".m.rule.message" {
			t.Errorf("before the log was read: %s", got)
		}
		other.Invalidate(anna)
		for _, node := range []*Rules{other, New(db)} {
			if got := ask(t, node, anna, cake).Rule; got != string(room) {
				t.Errorf("the rule is %s", got)
			}
		}
		err := db.Update(t.Context(), func(tx *storage.Tx) error { return r.CopyRoom(tx, anna, room, "!b:acme.example") })
		if err != nil {
			t.Fatal(err)
		}
		rules, err := r.Rules(t.Context(), anna)
		if err != nil || len(rules.Room) != 2 {
			t.Errorf("rules for rooms %v, %v", rules.Room, err)
		}
		if err := db.Update(t.Context(), func(tx *storage.Tx) error { return r.Erase(tx, anna) }); err != nil {
			t.Fatal(err)
		}
		if rules, err = r.Rules(t.Context(), anna); err != nil || len(rules.Room) != 0 {
			t.Errorf("rules after erasing %v, %v", rules.Room, err)
		}
	})
}

// Changes of one user that come at once are all kept.
func TestRules_AtOnce(t *testing.T) {
	each(t, func(t *testing.T, r *Rules, _ *storage.DB) {
		var wg sync.WaitGroup
		for i := range 12 {
			wg.Go(func() {
				err := r.Put(t.Context(), anna, pushrule.Override, fmt.Sprint(i), pushrule.Draft{Actions: actions()}, pushrule.Place{})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		rules, err := r.Rules(t.Context(), anna)
		if err != nil || len(rules.Override) != 12+10 {
			t.Errorf("%d override rules, %v", len(rules.Override), err)
		}
	})
}

// Whoever hears of a change from the log finds the new rules, even before the change has returned to its caller.
func TestRules_FreshWhenTold(t *testing.T) {
	t.Parallel()
	for _, name := range storagetest.Databases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var r *Rules
			cake := message(t, "cake")
			asked := make(chan string, 1)
			db := storagetest.Open(t, storage.Options{URL: storagetest.URL(t, name), Publish: func(_, _ int64, _ []storage.Entry) {
				done := make(chan struct{})
				go func() { defer close(done); asked <- ask(t, r, anna, cake).Rule }()
				<-done
			}})
			r = New(db)
			for range 5 {
				for want, do := range map[string]func() error{
					string(room): func() error {
						return r.Put(t.Context(), anna, pushrule.Room, string(room), pushrule.Draft{Actions: actions()}, pushrule.Place{})
					},
					".m.rule.message": func() error { return r.Delete(t.Context(), anna, pushrule.Room, string(room)) },
				} {
					ask(t, r, anna, cake)
					if err := do(); err != nil && code(err) != "404 M_NOT_FOUND" {
						t.Fatal(err)
					}
					select {
					case got := <-asked:
						if got != want {
							t.Errorf("while it was told the rule was %s, want %s", got, want)
						}
					default: // nothing changed
					}
					if got := ask(t, r, anna, cake).Rule; got != want {
						t.Errorf("after that the rule is %s, want %s", got, want)
					}
				}
			}
		})
	}
}

func TestC190_CapsHold(t *testing.T) {
	each(t, func(t *testing.T, r *Rules, _ *storage.DB) {
		big := pushrule.Draft{Actions: []jsontext.Value{jsontext.Value(`{"set_tweak":"` + strings.Repeat("a", pushrule.MaxValue-100) + `"}`)}}
		for i := range 10 {
			big.Actions = append(big.Actions, big.Actions[0])
			_ = i
		}
		n, got := 0, ""
		for ; got == "" && n < pushrule.MaxRules; n++ {
			got = code(r.Put(t.Context(), anna, pushrule.Override, fmt.Sprint(n), big, pushrule.Place{}))
		}
		if got != "413 M_TOO_LARGE" || n > 20 {
			t.Errorf("%q at rule %d", got, n)
		}
		content, err := r.Content(t.Context(), anna)
		if err != nil || len(content) > 2*pushrule.MaxSize {
			t.Errorf("content has %d bytes, %v", len(content), err)
		}
	})
}

// Users without own rules share one compiled set, and memory has a bound.
func TestEvaluator_IsBounded(t *testing.T) {
	t.Parallel()
	db := storagetest.Open(t, storage.Options{URL: storagetest.URL(t, "sqlite")})
	r := New(db)
	first, err := r.Evaluator(t.Context(), anna)
	if err != nil {
		t.Fatal(err)
	}
	mention := built(t, `{"msgtype":"m.text","body":"you","m.mentions":{"user_ids":["@anna:acme.example"]}}`)
	if got := ask(t, r, anna, mention); !got.Highlight || got.Rule != ".m.rule.is_user_mention" {
		t.Errorf("anna is mentioned: %+v", got)
	}
	if got := ask(t, r, bert, mention); got.Highlight {
		t.Errorf("bert is not mentioned: %+v", got)
	}
	reads := db.Stats().Reads
	again, err := r.Evaluator(t.Context(), anna)
	if err != nil || again != first || db.Stats().Reads != reads {
		t.Errorf("a known user costs a read, %v", err)
	}
	for i := range maxOwn + 50 {
		r.keep(matrix.UserID(fmt.Sprintf("@own%d:acme.example", i)), compiled{first, true})
	}
	if r.own != maxOwn || len(r.known) != maxOwn+2 {
		t.Errorf("%d of %d with own rules, want %d", r.own, len(r.known), maxOwn)
	}
	for i := range maxEvaluators {
		r.keep(matrix.UserID(fmt.Sprintf("@u%d:acme.example", i)), compiled{first, false})
	}
	if len(r.known) > maxEvaluators {
		t.Errorf("%d users kept, want at most %d", len(r.known), maxEvaluators)
	}
	own := 0
	for _, c := range r.known {
		if c.own {
			own++
		}
	}
	if own != r.own {
		t.Errorf("%d users with own rules, counted %d", own, r.own)
	}
}
