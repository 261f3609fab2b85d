package room_test

import (
	"context"
	"testing"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/signing"
	"hansa/storage"
)

// Events are signed by the tenant of their sender, but only where somebody of another server is in the room.
func TestSigner_SignsWhereAnotherTenantTakesPart(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"acme.example/partners.yaml":   "partners:\n  globex.example: {pools: '*', features: '*'}\n",
		"globex.example/partners.yaml": "partners:\n  acme.example: {pools: '*', features: '*'}\n",
	}
	each(t, files, func(t *testing.T, k *kit) {
		erik := matrix.UserID("@erik:globex.example")
		alone, shared := k.create("12", "public", user("anna")), k.create("12", "public", user("anna"))
		k.must(k.member(shared, erik, erik, "join"))
		quiet, err := k.say(alone, user("anna"), "among ourselves")
		k.must(err)
		mine, err := k.say(shared, user("anna"), "hello")
		k.must(err)
		theirs, err := k.say(shared, erik, "hello back")
		k.must(err)
		var last int64
		ctx, cancel := context.WithCancel(context.Background())
		f := k.rooms.Signer()
		handle := f.Handle
		f.Handle = func(ctx context.Context, es []storage.Entry, upto int64) error {
			err := handle(ctx, es, upto)
			if last = upto; last >= theirs.Pos {
				cancel()
			}
			return err
		}
		k.must(k.stream.Follow(ctx, f))
		check := func(sent room.Sent, server matrix.ServerName, want bool) {
			t.Helper()
			e := k.event(sent.EventID)
			key := k.keys[server]
			if err := signing.VerifyEvent(e.Event, server, key.ID, key.Public()); (err == nil) != want {
				t.Errorf("signature of %s: %v, want valid: %v", server, err, want)
			}
		}
		check(mine, acme, true)
		check(theirs, globex, true)
		check(mine, globex, false)
		if e := k.event(quiet.EventID); len(e.Signatures) != 0 {
			t.Error("a room of one tenant pays for signatures")
		}
	})
}
