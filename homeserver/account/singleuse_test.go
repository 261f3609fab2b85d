package account

import (
	"context"
	"fmt"
	"testing"
	"time"

	"hansa/matrix"
)

// A token that lets somebody in is good once: its repetition is refused, adding it again does not make it good, and a new one has to be another. (Agreements
// are made by administrators on each side; no token goes between servers.)
func TestR365_TokensAreGoodOnce(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx, op := context.Background(), Operator("")
		must(t, k.AddRegistrationToken(ctx, op, globex, "once", 1, time.Time{}))
		by := func(name, token string) error {
			_, err := k.register(globex, name, fmt.Sprintf(`{"type":"m.login.registration_token","token":"%s"}`, token), nil)
			return err
		}
		must(t, by("first", "once"))
		wants(t, "a repetition", by("second", "once"), 401, matrix.CodeUnauthorized)
		ok, err := k.IsRegistrationTokenValid(ctx, globex, from("192.0.2.1"), "once")
		must(t, err)
		if ok {
			t.Error("a token that was used up is valid")
		}
		wants(t, "the same secret once more", k.AddRegistrationToken(ctx, op, globex, "once", 1, time.Time{}), 400, matrix.CodeInvalidParam)
		wants(t, "a repetition after that", by("second", "once"), 401, matrix.CodeUnauthorized)
		must(t, k.AddRegistrationToken(ctx, op, globex, "another", 1, time.Time{}))
		must(t, by("second", "another"))
	})
}

// A token that an administrator has deleted is good for nothing, also for those who had shown it before. Added again it is a new token: its uses
// begin at zero, and its limits are the new ones.
func TestRegistrationToken_DeletedAndAddedAgain(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx, op := context.Background(), Operator("")
		by := func(name string) error {
			_, err := k.register(globex, name, `{"type":"m.login.registration_token","token":"welcome"}`, nil)
			return err
		}
		must(t, k.AddRegistrationToken(ctx, op, globex, "welcome", 1, time.Time{}))
		must(t, by("first"))
		wants(t, "used up", by("second"), 401, matrix.CodeUnauthorized)
		must(t, k.DeleteRegistrationToken(ctx, op, globex, "welcome"))
		wants(t, "deleted", by("second"), 401, matrix.CodeUnauthorized)
		if list, err := k.ListRegistrationTokens(ctx, op, globex); err != nil || len(list) != 0 {
			t.Errorf("after it was deleted: %v, %v", list, err)
		}
		must(t, k.AddRegistrationToken(ctx, op, globex, "welcome", 2, k.clock().Add(time.Hour)))
		list, err := k.ListRegistrationTokens(ctx, op, globex)
		must(t, err)
		if len(list) != 1 || list[0].Uses != 0 || list[0].UsesAllowed != 2 || list[0].ExpiresTS == 0 {
			t.Errorf("added again: %+v", list)
		}
		must(t, by("second"))
		must(t, by("third"))
		wants(t, "used up again", by("fourth"), 401, matrix.CodeUnauthorized)
		wants(t, "added while it is there", k.AddRegistrationToken(ctx, op, globex, "welcome", 9, time.Time{}), 400, matrix.CodeInvalidParam)
	})
}
