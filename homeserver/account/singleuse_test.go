package account

import (
	"context"
	"fmt"
	"testing"
	"time"

	"hansa/matrix"
)

// A token that lets somebody in is good once: its repetition is refused, it cannot be made good again, and a new one has to be another. (Agreements
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
