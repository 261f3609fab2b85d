package fedserver

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/signing"
	"hansa/storage/storagetest"
)

const (
	us      = matrix.ServerName("acme.example")
	partner = matrix.ServerName("partner.example")
	denied  = matrix.ServerName("denied.example")
)

// kit is an API of which every part that is not under test is a stand-in.
type kit struct {
	*API
	h   http.Handler
	key signing.Key // of the partner

	mu      sync.Mutex
	lookups []matrix.ServerName // whose keys were looked up
	asked   []matrix.ServerName // about whom the door was asked
}

type noMembers struct{ Members }

type noDevices struct{ Devices }

type noDirectory struct{ Directory }

type noProfiles struct{ Profiles }

type noMedia struct{ Media }

func newKit(t testing.TB) *kit {
	t.Helper()
	key, err := signing.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k := &kit{key: key}
	k.API = New(Deps{Door: k, Keys: k, Members: noMembers{}, Devices: noDevices{}, Directory: noDirectory{}, Profiles: noProfiles{}, Media: noMedia{},
		Ingest: func(context.Context, matrix.ServerName, matrix.ServerName, matrix.RoomID, [][]byte) []room.Admitted {
			return nil
		},
		Tenants: []Tenant{{Name: us, Host: "matrix.acme.example", Delegate: "matrix.acme.example:443"}, {Name: "globex.example"}}, Log: storagetest.Quiet()})
	k.h = k.Handler()
	return k
}

// Inbound implements Door.
func (k *kit) Inbound(_ context.Context, _, origin matrix.ServerName) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = append(k.asked, origin)
	if origin == denied {
		return matrix.Forbidden("no partner")
	}
	return nil
}

// InboundLeave implements Door.
func (k *kit) InboundLeave(ctx context.Context, as, origin matrix.ServerName) error {
	return k.Inbound(ctx, as, origin)
}

// RequestKey implements Keys: the partner has one key.
func (k *kit) RequestKey(_ context.Context, server matrix.ServerName, id signing.KeyID) (signing.PublicKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lookups = append(k.lookups, server)
	if server == partner && id == k.key.ID {
		return k.key.Public(), nil
	}
	return signing.PublicKey{}, errors.New("no such key")
}

// OwnKeys implements Keys.
func (k *kit) OwnKeys(matrix.ServerName) ([]byte, error) { return []byte(`{}`), nil }

// Query implements Keys.
func (k *kit) Query(context.Context, matrix.ServerName, map[matrix.ServerName]map[string]federation.KeyCriteria) ([]jsontext.Value, error) {
	return nil, nil
}

// ask makes a request with the given Authorization headers.
func (k *kit) ask(method, target, body string, authorization ...string) (status int, code string) {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if body == "" {
		r = httptest.NewRequest(method, target, nil)
	}
	r.Header["Authorization"] = authorization
	w := httptest.NewRecorder()
	k.h.ServeHTTP(w, r)
	var e struct {
		Code string `json:"errcode"`
	}
	_ = json.Unmarshal(w.Body.Bytes(), &e)
	return w.Code, e.Code
}

// sign makes the Authorization header of the partner.
func (k *kit) sign(t testing.TB, method, target, body string, to matrix.ServerName) string {
	t.Helper()
	var content []byte
	if body != "" {
		content = []byte(body)
	}
	h, err := signing.SignRequest(k.key, method, target, partner, to, content)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// fill puts values into the parameters of a path.
func fill(path string) string {
	return strings.NewReplacer("{roomId}", "!r:acme.example", "{eventId}", "$e", "{userId}", "@u:partner.example", "{txnId}", "t1", "{mediaId}", "m",
		"{serverName}", "x.example").Replace(path)
}
