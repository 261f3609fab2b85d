package account

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net/http"
	"time"

	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

// nonceLife is how long a nonce is good.
const nonceLife = 60 * time.Second

// SecretRequest is the body of POST /_synapse/admin/v1/register: a script that knows the tenant's shared secret makes an account.
type SecretRequest struct {
	Nonce       string  `json:"nonce"`
	Username    string  `json:"username"`
	Password    string  `json:"password"`
	Admin       bool    `json:"admin"`
	UserType    *string `json:"user_type"`
	DisplayName string  `json:"displayname"`
	MAC         string  `json:"mac"`
}

// secretTenant returns a tenant that has a shared secret. One without looks as if the route did not exist.
func (s *Service) secretTenant(name matrix.ServerName) (Tenant, error) {
	t, ok := s.Tenant(name)
	if !ok || len(t.SharedSecret) == 0 {
		return t, matrix.Errorf(http.StatusBadRequest, matrix.CodeUnknown, "Registration by shared secret is not enabled.")
	}
	return t, nil
}

// Nonce makes a nonce for one registration by shared secret. It says itself when it was made and who made it, so that asking for
// many leaves nothing behind.
func (s *Service) Nonce(tenant matrix.ServerName, c Client) (string, error) {
	t, err := s.secretTenant(tenant)
	if err != nil {
		return "", err
	}
	if err := s.limits.charge(s.limits.lookup, networkOf(c.IP)); err != nil {
		return "", err
	}
	b := make([]byte, 8+16, 8+16+sha256.Size)
	binary.BigEndian.PutUint64(b, uint64(s.Now().UnixMilli()))
	if _, err := io.ReadFull(s.Rand, b[8:]); err != nil {
		return "", err
	}
	return hex.EncodeToString(append(b, nonceMAC(t, b)...)), nil
}

// nonceMAC shows that a nonce was made by a server that knows the tenant's secret: any node of this deployment.
func nonceMAC(t Tenant, b []byte) []byte {
	m := hmac.New(sha256.New, t.SharedSecret)
	_, _ = io.WriteString(m, "hansa nonce "+string(t.Name)+"\n") // never fails
	_, _ = m.Write(b)
	return m.Sum(nil)[:16]
}

// takeNonce uses a nonce up.
func (s *Service) takeNonce(ctx context.Context, t Tenant, nonce string) error {
	refused := matrix.Forbidden("The nonce is not known, has expired or was used already.")
	b, err := hex.DecodeString(nonce)
	if err != nil || len(b) != 8+16+16 || !hmac.Equal(b[24:], nonceMAC(t, b[:24])) {
		return refused
	}
	made := time.UnixMilli(int64(binary.BigEndian.Uint64(b)))
	if age := s.Now().Sub(made); age >= nonceLife || age < -nonceLife {
		return refused
	}
	var first bool
	h := sha256.Sum256(b)
	err = s.DB.Update(ctx, func(tx *storage.Tx) (err error) {
		first, err = tx.UseNonce(h[:], made.Add(2*nonceLife).UnixMilli())
		return err
	})
	if err == nil && !first {
		err = refused
	}
	return err
}

// RegisterBySecret makes an account for a script that knows the shared secret. The nonce is used up also by a wrong MAC.
func (s *Service) RegisterBySecret(ctx context.Context, tenant matrix.ServerName, c Client, r SecretRequest) (*LoginAnswer, error) {
	t, err := s.secretTenant(tenant)
	if err != nil {
		return nil, err
	}
	if err := s.limits.charge(s.limits.lookup, networkOf(c.IP)); err != nil {
		return nil, err
	}
	for _, p := range []struct{ name, value string }{{"nonce", r.Nonce}, {"username", r.Username}, {"password", r.Password}, {"mac", r.MAC}} {
		if p.value == "" {
			return nil, matrix.Errorf(http.StatusBadRequest, matrix.CodeMissingParam, "The member %s is missing.", p.name)
		}
		if len(p.value) > maxPassword {
			return nil, matrix.InvalidParam("The member %s is too long.", p.name)
		}
	}
	if err := s.takeNonce(ctx, t, r.Nonce); err != nil {
		return nil, err
	}
	mac, err := hex.DecodeString(r.MAC)
	if err != nil || !hmac.Equal(mac, r.mac(t.SharedSecret)) {
		return nil, matrix.Forbidden("The MAC is wrong.")
	}
	kind := "user"
	if r.UserType != nil && *r.UserType == "bot" {
		kind = "bot"
	}
	if err := checkNew(r.Password); err != nil {
		return nil, err
	}
	if err := checkDisplayName(r.DisplayName); err != nil {
		return nil, err
	}
	id, err := s.freeUserID(ctx, tenant, r.Username)
	if err != nil {
		return nil, err
	}
	return s.bear(ctx, t, c, &birth{user: &storage.User{ID: id, Tenant: tenant, Kind: kind, Admin: r.Admin}, password: r.Password,
		via: "shared_secret", subject: operator(tenant), login: true, mayFail: true, displayName: r.DisplayName})
}

// operator is the party that holds the keys of the deployment: at the command line, the local socket, or with the shared secret.
func operator(tenant matrix.ServerName) *policy.Party {
	return &policy.Party{Kind: "operator", ID: "operator", Tenant: string(tenant), Local: true, Listed: true}
}

// mac is what a script that knows the secret computes over the request, with zero bytes between the parts.
func (r *SecretRequest) mac(secret []byte) []byte {
	admin := "notadmin"
	if r.Admin {
		admin = "admin"
	}
	text := r.Nonce + "\x00" + r.Username + "\x00" + r.Password + "\x00" + admin
	if r.UserType != nil {
		text += "\x00" + *r.UserType
	}
	m := hmac.New(sha1.New, secret)
	_, _ = io.WriteString(m, text) // never fails
	return m.Sum(nil)
}
