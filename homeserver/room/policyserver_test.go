package room_test

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/matrix/signing"
	"hansa/storage"
	"hansa/storage/storagetest"
)

// officer is the policy server far.example, which signs with a key of the room's, or refuses.
type officer struct {
	room.Remote
	version string
	key     signing.Key
	err     error
	asked   int
}

// PolicySign implements room.PolicyServers.
func (o *officer) PolicySign(_ context.Context, _, via matrix.ServerName, pdu []byte) (jsontext.Value, error) {
	o.asked++
	if o.err != nil {
		return nil, o.err
	}
	v, _ := matrix.FindRoomVersion(o.version)
	e, err := event.Parse(v, pdu)
	if err != nil {
		return nil, err
	}
	return signing.SignEvent(e.WithSignatures(nil), via, o.key).Signatures, nil
}

// A room with a policy server: what it has not signed fails softly, what we send is sent with its signature or not at all.
func TestR367_PolicyServer(t *testing.T) {
	t.Parallel()
	eachTown(t, func(t *testing.T, c *town) {
		key, err := signing.Generate(rand.Reader)
		c.must(err)
		key.ID = signing.PolicyServerKeyID
		o := &officer{version: c.version, key: key}
		c.rooms = room.New(room.Deps{DB: c.db, Stream: c.stream, Policy: c.engine, Parties: c.facts, Keys: c.keys, Keyring: c.others, Remote: o, Log: storagetest.Quiet()})
		settings := map[string]any{"via": "far.example", "public_keys": map[string]any{"ed25519": key.Public().String()}}
		said := func() error { _, err := c.say(c.id, user("anna"), "hello"); return err }
		c.must(said())
		if o.asked != 0 {
			t.Fatal("asked in a room without a policy server")
		}
		c.must(c.state(c.id, user("anna"), "m.room.policy", "", settings)) // is never asked about itself
		if o.asked != 0 {
			t.Error("asked about m.room.policy")
		}

		sent, err := c.say(c.id, user("anna"), "signed")
		c.must(err)
		if e := c.event(sent.EventID); signing.VerifyEvent(e.Event, "far.example", signing.PolicyServerKeyID, key.Public()) != nil || o.asked != 1 {
			t.Errorf("asked %d times, signatures %s", o.asked, e.Signatures)
		}
		if e := c.event(sent.EventID); signing.VerifyEvent(e.Event, acme, c.keys[acme].ID, c.keys[acme].Public()) != nil {
			t.Errorf("our own signature is missing: %s", e.Signatures)
		}

		o.err = matrix.Errorf(400, matrix.CodeForbidden, "The message appears to contain possible spam.")
		var told *matrix.Error
		if err := said(); !errors.As(err, &told) || told.Status != 400 || told.Message != "The message appears to contain possible spam." {
			t.Errorf("refused by the policy server: %v, want its words", err)
		}
		o.err = errors.New("connection refused")
		if err := said(); !errors.As(err, &told) || told.Status != 403 {
			t.Errorf("the policy server is away: %v, want 403", err)
		}
		o.err = nil
		good := o.key
		if o.key, err = signing.Generate(rand.Reader); err != nil {
			t.Fatal(err)
		}
		o.key.ID = signing.PolicyServerKeyID
		if err := said(); !errors.As(err, &told) || told.Status != 403 {
			t.Errorf("signed with another key: %v, want 403", err)
		}
		o.key = good

		// Unsigned, signed with another key, signed.
		draft := c.draft(c.id, c.version, fred, "m.room.message", nil, map[string]any{"msgtype": "m.text", "body": "unsigned"})
		e := c.others["far.example"].pdu(t, c.version, draft)
		if r, err := c.receive(e); err != nil || r.Flags != storage.SoftFailed {
			t.Errorf("unsigned: %+v, %v; want soft-failed", r, err)
		}
		draft.Content = room.Object(map[string]any{"msgtype": "m.text", "body": "signed"})
		e = signing.SignEvent(c.others["far.example"].pdu(t, c.version, draft), "far.example", key)
		if r, err := c.receive(e); err != nil || r.Flags != 0 {
			t.Errorf("signed: %+v, %v", r, err)
		}
		if slices.Contains(c.head(c.id).Extremities, "") {
			t.Error("no extremity")
		}

		// Without a user in the room it is none, and m.room.policy can be taken back.
		o.err = errors.New("gone")
		if err := c.member(c.id, user("anna"), fred, "leave"); err == nil {
			t.Error("a removal needs the signature like anything else")
		}
		c.must(c.state(c.id, user("anna"), "m.room.policy", "", map[string]any{}))
		c.must(c.member(c.id, user("anna"), fred, "leave"))
		c.must(c.state(c.id, user("anna"), "m.room.policy", "", settings))
		c.must(said())
	})
}
