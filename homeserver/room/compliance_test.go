package room_test

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"testing"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/matrix/signing"
	"hansa/policy"
	"hansa/storage"
	"hansa/storage/storagetest"
)

// others are servers elsewhere: far.example, a partner of acme, and evil.example, which is none.
type others map[matrix.ServerName]*far

// PublicKey implements room.Keyring.
func (o others) PublicKey(ctx context.Context, server matrix.ServerName, id signing.KeyID, at int64) (signing.PublicKey, error) {
	f := o[server]
	if f == nil {
		return signing.PublicKey{}, errors.New("no such server")
	}
	return f.PublicKey(ctx, server, id, at)
}

// Collect implements room.Keyring.
func (o others) Collect(ctx context.Context, _ matrix.ServerName, _ map[matrix.ServerName]map[signing.KeyID]int64) func(matrix.ServerName, signing.KeyID, int64) (signing.PublicKey, error) {
	return func(server matrix.ServerName, id signing.KeyID, at int64) (signing.PublicKey, error) {
		return o.PublicKey(ctx, server, id, at)
	}
}

const (
	fred    = matrix.UserID("@fred:far.example")
	mallory = matrix.UserID("@mallory:evil.example")
)

// town is a room of acme with anna, its creator, and fred of far.example in it.
type town struct {
	*kit
	others  others
	id      matrix.RoomID
	version string
}

func newTown(k *kit, version string) *town {
	k.t.Helper()
	c := &town{kit: k, others: others{}, version: version}
	for _, name := range []matrix.ServerName{"far.example", "evil.example", "acme.example:8449"} {
		key, err := signing.Generate(rand.Reader)
		k.must(err)
		c.others[name] = &far{name, key}
	}
	c.fresh()
	c.id = k.create(version, "public", user("anna"))
	c.joins(fred)
	return c
}

// fresh gives the rooms an empty memory.
func (c *town) fresh() {
	c.rooms = room.New(room.Deps{DB: c.db, Stream: c.stream, Policy: c.engine, Parties: c.facts, Keys: c.keys, Keyring: c.others, Remote: c.remote, Log: storagetest.Quiet()})
}

// sends is an event of another server that comes in, from whomever.
func (c *town) sends(sender matrix.UserID, typ string, key *string, content map[string]any) (*event.Event, room.Received) {
	c.t.Helper()
	e := c.others[sender.Server()].pdu(c.t, c.version, c.draft(c.id, c.version, sender, typ, key, content))
	r, err := c.receive(e)
	c.must(err)
	return e, r
}

func (c *town) joins(who matrix.UserID) (*event.Event, room.Received) {
	c.t.Helper()
	return c.sends(who, "m.room.member", ptr(string(who)), map[string]any{"membership": "join", "displayname": "canary of " + string(who)})
}

// agree replaces the agreements of the database.
func (c *town) agree(partners map[string]string) {
	c.t.Helper()
	var list []policy.Agreement
	for partner, state := range partners {
		list = append(list, policy.Agreement{ID: "a-" + partner, Owner: string(acme), Partner: partner, State: state,
			Scope: &policy.Scope{Direction: "both", Pools: policy.AllPools(), Features: policy.AllFeatures()}})
	}
	c.must(c.engine.SetAgreements(context.Background(), list))
}

// follow lets the follower hear that policy has changed.
func (c *town) follow() {
	c.t.Helper()
	c.must(c.rooms.Compliance().Handle(context.Background(), []storage.Entry{{Kind: storage.KindNotice, Name: storage.NoticePolicy}}, 0))
}

// shown tells how often an event is in the timeline.
func (c *town) shown(id matrix.EventID) (n int) {
	for _, e := range c.timeline(c.id) {
		if e.ID == id {
			n++
		}
	}
	return n
}

func (c *town) membership(who matrix.UserID) (m string) {
	c.t.Helper()
	c.must(c.rooms.Look(context.Background(), c.id, func(v room.View) { m = v.Membership(who) }))
	return m
}

// refused checks that an error is a denial by policy with the id of the decision.
func refused(t *testing.T, err error, what string) {
	t.Helper()
	var e *matrix.Error
	if !errors.As(err, &e) || e.Status != 403 || e.Extra["org.hansa.decision_id"] == nil {
		t.Errorf("%s: %v, want 403 with the id of a decision", what, err)
	}
}

func eachTown(t *testing.T, fn func(t *testing.T, c *town)) {
	t.Helper()
	each(t, nil, func(t *testing.T, k *kit) {
		k.must(k.engine.SetAgreements(context.Background(), []policy.Agreement{{ID: "a", Owner: string(acme), Partner: "far.example", State: "active",
			Scope: &policy.Scope{Direction: "both", Pools: policy.AllPools(), Features: policy.AllFeatures()}}}))
		fn(t, newTown(k, "12"))
	})
}

// What a server without agreement says is kept, and shown to nobody, whoever brings it; it is not built upon.
func TestR334_EventOfAStrangerByAPartner(t *testing.T) {
	t.Parallel()
	eachTown(t, func(t *testing.T, c *town) {
		joined, r := c.joins(mallory)
		if r.Flags != storage.Withheld {
			t.Fatalf("join of a stranger: %+v, want withheld", r)
		}
		said, r := c.sends(mallory, "m.room.message", nil, map[string]any{"msgtype": "m.text", "body": "canary"})
		if r.Flags != storage.Withheld || r.Reason == "" {
			t.Fatalf("message of a stranger: %+v, want withheld with a reason", r)
		}
		if c.shown(joined.ID)+c.shown(said.ID) != 0 {
			t.Error("withheld events are in the timeline")
		}
		if c.event(said.ID).DecisionID == "" {
			t.Error("a withheld event does not name its decision")
		}
		if h := c.head(c.id); slices.Contains(h.Extremities, said.ID) {
			t.Error("a message that nobody may see is built upon")
		}
		if _, r := c.sends(fred, "m.room.message", nil, map[string]any{"msgtype": "m.text", "body": "hello"}); r.Flags != 0 {
			t.Errorf("message of a partner next to a stranger: %+v, want visible", r)
		}
	})
}

// A stranger in the room, by whatever way: nobody of ours can send until it is gone, and those who can remove it do.
func TestR342_R343_StrangerInTheRoom(t *testing.T) {
	t.Parallel()
	eachTown(t, func(t *testing.T, c *town) {
		_, err := c.say(c.id, user("anna"), "before")
		c.must(err)
		e, r := c.sends(fred, "m.room.member", ptr(string(mallory)), map[string]any{"membership": "invite"})
		if r.Flags != storage.Withheld {
			t.Fatalf("invitation of a stranger: %+v, want withheld", r)
		}
		if c.shown(e.ID) != 0 {
			t.Error("the invitation of a stranger is shown")
		}
		_, err = c.say(c.id, user("anna"), "after the invitation")
		refused(t, err, "send next to an invited stranger")
		c.joins(mallory)
		_, err = c.say(c.id, user("anna"), "after the join")
		refused(t, err, "send next to a stranger")
		err = c.state(c.id, user("anna"), "m.room.topic", "", map[string]any{"topic": "x"})
		refused(t, err, "state next to a stranger")
		c.fresh()
		_, err = c.say(c.id, user("anna"), "after a restart")
		refused(t, err, "send next to a stranger after a restart")

		c.follow()
		if m := c.membership(mallory); m != auth.Leave {
			t.Errorf("the stranger is %q, want removed", m)
		}
		acl := c.event(c.stateID(c.id, "m.room.server_acl", ""))
		if !strings.Contains(string(acl.Content), `"deny":["evil.example"]`) || !strings.Contains(string(acl.Content), `"allow":["*"]`) {
			t.Errorf("server ACL %s", acl.Content)
		}
		if _, err = c.say(c.id, user("anna"), "alone again"); err != nil {
			t.Errorf("send after the stranger was removed: %v", err)
		}
		before := c.head(c.id).Name
		c.follow()
		if after := c.head(c.id).Name; after != before {
			t.Error("the follower wrote into a room that is as it should be")
		}
		if _, r := c.joins(mallory); !r.Flags.Hidden() {
			t.Errorf("the stranger came back: %+v", r)
		}
	})
}

// Where nobody of ours has the power, the room stays as it is, and nobody of ours can send.
func TestR343_WithoutPower(t *testing.T) {
	t.Parallel()
	eachTown(t, func(t *testing.T, c *town) {
		c.must(c.member(c.id, user("ben"), user("ben"), "join"))
		c.must(c.state(c.id, user("anna"), "m.room.power_levels", "", map[string]any{"users": map[string]any{string(fred): 100}, "state_default": 100, "kick": 100}))
		if c.version != "12" {
			c.must(c.state(c.id, user("anna"), "m.room.member", string(user("anna")), map[string]any{"membership": "leave"}))
		}
		c.must(c.member(c.id, user("anna"), user("anna"), "leave"))
		c.joins(mallory)
		before := c.head(c.id).Name
		c.follow()
		if after := c.head(c.id).Name; after != before || c.membership(mallory) != auth.Join {
			t.Error("something was written without power")
		}
		_, err := c.say(c.id, user("ben"), "hello")
		refused(t, err, "send next to a stranger")
		if err := c.member(c.id, user("ben"), user("ben"), "leave"); err != nil {
			t.Errorf("leaving must stay possible: %v", err)
		}
	})
}

// A server that shares its host with a tenant of ours is never put on the list of denied ones: that would lock us out.
func TestA65_NeverLocksOurselvesOut(t *testing.T) {
	t.Parallel()
	eachTown(t, func(t *testing.T, c *town) {
		neighbour := matrix.UserID("@nina:acme.example:8449")
		c.joins(neighbour)
		c.follow()
		if m := c.membership(neighbour); m != auth.Leave {
			t.Errorf("the neighbour is %q, want removed", m)
		}
		c.must(c.rooms.Look(c.ctx(), c.id, func(v room.View) {
			if e := v.State("m.room.server_acl", ""); e != nil {
				t.Errorf("server ACL %s", e.Content)
			}
		}))
	})
}

// The handshakes: a stranger gets in by no membership, and our people get into no room that holds one.
func TestR338_R351_R353_Handshakes(t *testing.T) {
	t.Parallel()
	eachTown(t, func(t *testing.T, c *town) {
		ctx := context.Background()
		refused(t, c.rooms.MayEnter(ctx, c.id, mallory, auth.Join), "join of a stranger")
		refused(t, c.rooms.MayEnter(ctx, c.id, mallory, auth.Knock), "knock of a stranger")
		refused(t, c.rooms.MayInvite(ctx, c.id, mallory, user("ben")), "invitation by a stranger")
		refused(t, c.rooms.MayInvite(ctx, c.id, user("anna"), mallory), "invitation of a stranger")
		refused(t, c.member(c.id, user("anna"), mallory, "invite"), "our invitation of a stranger")
		for _, ok := range []error{c.rooms.MayEnter(ctx, c.id, "@freda:far.example", auth.Join), c.rooms.MayEnter(ctx, c.id, "@freda:far.example", auth.Knock),
			c.rooms.MayInvite(ctx, c.id, fred, user("ben")), c.rooms.MayInvite(ctx, c.id, user("anna"), "@freda:far.example")} {
			if ok != nil {
				t.Errorf("a partner is refused: %v", ok)
			}
		}
		var state []*event.Event
		for _, e := range c.timeline(c.id) {
			if e.StateKey != nil {
				state = append(state, e.Event)
			}
		}
		v, _ := matrix.FindRoomVersion(c.version)
		if err := c.rooms.MayAdopt(ctx, user("ben"), v, c.id, state); err != nil {
			t.Errorf("a room of partners: %v", err)
		}
		e, _ := c.joins(mallory)
		refused(t, c.rooms.MayAdopt(ctx, user("ben"), v, c.id, append(state, e)), "a room with a stranger")
		refused(t, c.rooms.MayEnter(ctx, c.id, user("ben"), auth.Join), "our join next to a stranger")
	})
}

// Every tenant of ours in the room must approve a server.
func TestMayEnter_EveryTenantInTheRoom(t *testing.T) {
	t.Parallel()
	eachTown(t, func(t *testing.T, c *town) {
		agreed := func(owner, partner string) policy.Agreement {
			return policy.Agreement{ID: owner + partner, Owner: owner, Partner: partner, State: "active",
				Scope: &policy.Scope{Direction: "both", Pools: policy.AllPools(), Features: policy.AllFeatures()}}
		}
		ctx := context.Background()
		all := []policy.Agreement{agreed("acme.example", "far.example"), agreed("acme.example", "globex.example"), agreed("globex.example", "acme.example"), agreed("globex.example", "far.example")}
		c.must(c.engine.SetAgreements(ctx, all))
		gil := matrix.UserID("@gil:globex.example")
		c.must(c.member(c.id, gil, gil, "join"))
		if err := c.rooms.MayEnter(ctx, c.id, "@freda:far.example", auth.Join); err != nil {
			t.Fatalf("a partner of both: %v", err)
		}
		c.must(c.engine.SetAgreements(ctx, all[:3]))
		refused(t, c.rooms.MayEnter(ctx, c.id, "@freda:far.example", auth.Join), "a server that globex does not approve")
		_, err := c.say(c.id, user("anna"), "x")
		if err != nil {
			t.Errorf("acme approves everybody in the room: %v", err)
		}
		_, err = c.say(c.id, gil, "x")
		refused(t, err, "globex next to fred")
	})
}

// An agreement that covers some people of ours and not others is judged person by person.
func TestR354_PartialAgreement(t *testing.T) {
	t.Parallel()
	files := map[string]string{"acme.example/pools.yaml": "sales: {contact: closed}\n"}
	each(t, files, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.must(k.engine.SetAgreements(ctx, []policy.Agreement{{ID: "a", Owner: string(acme), Partner: "far.example", State: "active",
			Scope: &policy.Scope{Direction: "both", Pools: policy.PoolPairs{{Ours: "sales", Theirs: "*"}}, Features: policy.AllFeatures()}}}))
		k.facts.pools[user("sam")] = []string{"sales"}
		c := &town{kit: k, others: others{}, version: "12"}
		key, err := signing.Generate(rand.Reader)
		k.must(err)
		c.others["far.example"] = &far{"far.example", key}
		c.fresh()
		c.id = k.create("12", "public", user("sam"))
		if err := c.rooms.MayEnter(ctx, c.id, fred, auth.Join); err != nil {
			t.Errorf("fred to sam: %v", err)
		}
		if _, r := c.joins(fred); r.Flags != 0 {
			t.Errorf("fred joins sam: %+v", r)
		}
		refused(t, c.rooms.MayEnter(ctx, c.id, user("anna"), auth.Join), "anna next to fred")
		c.id = k.create("12", "public", user("anna"))
		refused(t, c.rooms.MayEnter(ctx, c.id, fred, auth.Join), "fred to anna")
		refused(t, c.rooms.MayInvite(ctx, c.id, fred, user("anna")), "fred invites anna")
		refused(t, c.member(c.id, user("anna"), fred, "invite"), "anna invites fred")
		if _, r := c.joins(fred); r.Flags != storage.Withheld {
			t.Errorf("fred joins anna: %+v, want withheld", r)
		}
		_, err = c.say(c.id, user("anna"), "x")
		refused(t, err, "anna sends next to fred")
	})
}

// Half an agreement is none.
func TestR355_OneSidedAgreement(t *testing.T) {
	t.Parallel()
	each(t, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		gil := matrix.UserID("@gil:globex.example")
		id := k.create("12", "public", user("anna"))
		for _, list := range [][2]string{{"active", "proposed"}, {"proposed", "active"}, {"active", "suspended"}, {"active", ""}} {
			var agreements []policy.Agreement
			for i, owner := range []string{"acme.example", "globex.example"} {
				if list[i] != "" {
					agreements = append(agreements, policy.Agreement{ID: owner, Owner: owner, Partner: []string{"globex.example", "acme.example"}[i], State: list[i],
						Scope: &policy.Scope{Direction: "both", Pools: policy.AllPools(), Features: policy.AllFeatures()}})
				}
			}
			k.must(k.engine.SetAgreements(ctx, agreements))
			refused(t, k.rooms.MayEnter(ctx, id, gil, auth.Join), "join with half an agreement")
			refused(t, k.member(id, user("anna"), gil, "invite"), "invitation with half an agreement")
		}
	})
}

// Nothing that a partner's server sends changes our people or our power, but what the rules of the room give it.
func TestR363_RemoteActsOnOurs(t *testing.T) {
	t.Parallel()
	eachTown(t, func(t *testing.T, c *town) {
		anna, ben := string(user("anna")), string(user("ben"))
		c.must(c.member(c.id, user("ben"), user("ben"), "join"))
		for _, m := range []struct {
			typ, key string
			content  map[string]any
		}{
			{"m.room.member", anna, map[string]any{"membership": "leave"}},
			{"m.room.member", ben, map[string]any{"membership": "ban"}},
			{"m.room.member", ben, map[string]any{"membership": "join", "displayname": "renamed"}},
			{"m.room.member", "@new:acme.example", map[string]any{"membership": "join"}},
			{"m.room.power_levels", "", map[string]any{"users": map[string]any{string(fred): 100}}},
			{"m.room.server_acl", "", map[string]any{"allow": []string{"far.example"}}},
		} {
			if _, r := c.sends(fred, m.typ, ptr(m.key), m.content); r.Flags&storage.Rejected == 0 {
				t.Errorf("%s %q by a partner without power: %+v, want rejected", m.typ, m.key, r)
			}
		}
		d := c.draft(c.id, c.version, user("ben"), "m.room.message", nil, map[string]any{"msgtype": "m.text", "body": "forged"})
		if _, err := c.receive(c.others["far.example"].pdu(t, c.version, d)); !errors.Is(err, room.ErrDropped) {
			t.Errorf("an event in our user's name: %v, want dropped", err)
		}
		if c.membership(user("anna")) != auth.Join || c.membership(user("ben")) != auth.Join || c.membership("@new:acme.example") != "" {
			t.Error("our people's memberships have changed")
		}
	})
}
