package room_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/policy"
	"hansa/storage"
)

// A partner that is no partner any more: where we have the power its people go; meanwhile nobody of ours can send.
func TestR357_Revocation(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"suspended", "ended", "expired"} {
		t.Run(state, func(t *testing.T) {
			eachTown(t, func(t *testing.T, c *town) {
				c.agree(map[string]string{"far.example": state})
				_, err := c.say(c.id, user("anna"), "x")
				refused(t, err, "send next to a former partner")
				if _, r := c.sends(fred, "m.room.message", nil, map[string]any{"msgtype": "m.text", "body": "x"}); r.Flags != storage.Withheld {
					t.Errorf("message of a former partner: %+v, want withheld", r)
				}
				c.follow()
				if m := c.membership(fred); m != auth.Leave {
					t.Errorf("fred is %q, want removed", m)
				}
				if _, err := c.say(c.id, user("anna"), "x"); err != nil {
					t.Errorf("send when the former partner is gone: %v", err)
				}
			})
		})
	}
}

// People of a refused server can go, so that the room becomes right again.
func TestR358_LeavingWorks(t *testing.T) {
	t.Parallel()
	eachTown(t, func(t *testing.T, c *town) {
		c.agree(map[string]string{"far.example": "suspended"})
		e, r := c.sends(fred, "m.room.member", ptr(string(fred)), map[string]any{"membership": "leave"})
		if r.Flags != 0 || c.shown(e.ID) != 1 {
			t.Errorf("leave of a refused server's user: %+v", r)
		}
		if _, err := c.say(c.id, user("anna"), "x"); err != nil {
			t.Errorf("send when the former partner is gone: %v", err)
		}
	})
}

// What was withheld becomes visible, once and at the end of the log, when there is an agreement; the ACL lets the server in again.
func TestR359_ReleasedAfterApproval(t *testing.T) {
	t.Parallel()
	eachTown(t, func(t *testing.T, c *town) {
		joined, _ := c.joins(mallory)
		var said []matrix.EventID
		for i := range 5 {
			e, _ := c.sends(mallory, "m.room.message", nil, map[string]any{"msgtype": "m.text", "body": bodyOf(i)})
			said = append(said, e.ID)
		}
		topic, r := c.sends(fred, "m.room.message", nil, map[string]any{"msgtype": "m.text", "body": "of a partner"})
		if r.Flags != 0 {
			t.Fatalf("message of a partner: %+v", r)
		}
		from := c.stream.Position()
		c.follow() // nothing has changed: everything stays hidden
		for _, id := range said {
			if c.shown(id) != 0 {
				t.Fatal("released without an agreement")
			}
		}
		c.agree(map[string]string{"far.example": "active", "evil.example": "active"})
		c.follow()
		c.follow()
		var order []matrix.EventID
		c.must(c.db.View(c.ctx(), func(tx *storage.Tx) error {
			upto, err := tx.Position()
			if err != nil {
				return err
			}
			entries, err := tx.ReadLog(from, upto)
			order = nil
			for _, e := range entries {
				if e.Kind == storage.KindEvent && e.Event.Sender == mallory && !e.Event.Flags.Hidden() {
					order = append(order, e.Event.ID)
				}
			}
			return err
		}))
		if want := append([]matrix.EventID{joined.ID}, said...); !slices.Equal(order, want) {
			t.Errorf("the log has %d events of the new partner after the approval, want each once and in order", len(order))
		}
		for _, id := range append(said, joined.ID, topic.ID) {
			if c.shown(id) != 1 {
				t.Errorf("an event is shown %d times, want once", c.shown(id))
			}
		}
		if c.event(said[0]).Flags != 0 {
			t.Error("the flag is still there")
		}
		c.must(c.rooms.Look(c.ctx(), c.id, func(v room.View) {
			if e := v.State("m.room.server_acl", ""); e != nil && strings.Contains(string(e.Content), "evil") {
				t.Errorf("server ACL %s", e.Content)
			}
		}))
		c.fresh()
		if c.membership(mallory) == auth.Join {
			if _, err := c.say(c.id, user("anna"), "welcome"); err != nil {
				t.Errorf("send among partners: %v", err)
			}
		}
	})
}

// The notice comes with every change of policy, and the follower acts on it, by itself.
func TestR357_WithinASecond(t *testing.T) {
	t.Parallel()
	eachTown(t, func(t *testing.T, c *town) {
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 3)
		for _, run := range []func() error{
			func() error { return c.stream.Run(ctx) },
			func() error { return c.rooms.WatchPolicy(ctx) },
			func() error { return c.stream.Follow(ctx, c.rooms.Compliance()) },
		} {
			go func() { done <- run() }()
		}
		defer func() {
			stop()
			for range 3 {
				<-done
			}
		}()
		c.agree(map[string]string{"far.example": "suspended"})
		if _, err := c.say(c.id, user("anna"), "x"); err != nil || c.membership(fred) == auth.Join { // else fred was out before
			refused(t, err, "send right after the suspension")
		}
		limit, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		for pos := int64(0); c.membership(fred) != auth.Leave; pos = c.stream.Position() {
			if err := c.stream.Wait(limit, pos); err != nil {
				t.Fatal("fred is still in the room")
			}
		}
	})
}

// Where nobody of ours has the power, our people leave if their tenant says so.
func TestR357_OurPeopleLeave(t *testing.T) {
	t.Parallel()
	each(t, map[string]string{"acme.example/rooms.yaml": "rooms: {strangers: leave}\n"}, func(t *testing.T, k *kit) {
		k.must(k.engine.SetAgreements(context.Background(), []policy.Agreement{{ID: "a", Owner: string(acme), Partner: "far.example", State: "active",
			Scope: &policy.Scope{Direction: "both", Pools: policy.AllPools(), Features: policy.AllFeatures()}}}))
		c := newTown(k, "11")
		c.must(c.member(c.id, user("ben"), user("ben"), "join"))
		c.must(c.state(c.id, user("anna"), "m.room.power_levels", "", map[string]any{"users": map[string]any{string(fred): 100}}))
		c.follow()
		if m := c.membership(user("ben")); m != auth.Join {
			t.Fatalf("ben is %q among partners", m)
		}
		c.joins(mallory)
		c.follow()
		for _, who := range []matrix.UserID{user("anna"), user("ben")} {
			if m := c.membership(who); m != auth.Leave {
				t.Errorf("%s is %q next to a stranger, want out", who, m)
			}
		}
		if c.membership(fred) != auth.Join || c.membership(mallory) != auth.Join {
			t.Error("others were removed without power")
		}
	})
}

// A redaction that was withheld has its effect when it is released, and not before.
func TestR359_ReleasedRedaction(t *testing.T) {
	t.Parallel()
	eachTown(t, func(t *testing.T, c *town) {
		c.joins(mallory)
		said, _ := c.sends(mallory, "m.room.message", nil, map[string]any{"msgtype": "m.text", "body": "regretted"})
		c.sends(mallory, "m.room.redaction", nil, map[string]any{"redacts": string(said.ID)})
		if !strings.Contains(string(c.event(said.ID).Content), "regretted") {
			t.Error("a withheld redaction has had its effect")
		}
		c.agree(map[string]string{"far.example": "active", "evil.example": "active"})
		c.follow()
		if e := c.event(said.ID); strings.Contains(string(e.Content), "regretted") || e.RedactedBy == "" || e.Flags != 0 {
			t.Errorf("after the release: %s, flags %b", e.Content, e.Flags)
		}
	})
}
