package keyring

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/signing"
	"hansa/storage"
)

// What we say about our own keys.
const (
	ownValidity = 24 * time.Hour
	// ownGrace is for how long a key that was replaced may still sign: until the other nodes are started again with the new key file.
	ownGrace = 5 * time.Minute
	// ownRefresh is when a signed answer is made anew.
	ownRefresh = time.Hour
)

// ownKeys are the keys of one tenant. The Ring's lock guards former, signed and made.
type ownKeys struct {
	current signing.Key
	others  []signing.Key
	former  []storage.ServerKey
	signed  []byte
	made    time.Time
}

func (o *ownKeys) list(tenant matrix.ServerName, now time.Time) []storage.ServerKey {
	public := o.current.Public()
	return append([]storage.ServerKey{{Server: tenant, Source: tenant, KeyID: string(o.current.ID), Public: public[:], ValidUntil: math.MaxInt64, FetchedTS: now.UnixMilli()}}, o.former...)
}

func (r *Ring) tenants() []matrix.ServerName {
	out := make([]matrix.ServerName, 0, len(r.own))
	for tenant := range r.own {
		out = append(out, tenant)
	}
	slices.Sort(out)
	return out
}

// Register notes in the database which keys the tenants sign with, and since when which are old. It is called once, before the server
// listens. A tenant whose present key the database knows, and whose key file does not hold it any more, is an error: another node signs
// with it, or the file was lost and made anew.
//
// spec: server-server-api#publishing-keys
func (r *Ring) Register(ctx context.Context) error {
	for _, tenant := range r.tenants() {
		o := r.own[tenant]
		var former []storage.ServerKey
		err := r.DB.Update(ctx, func(tx *storage.Tx) error {
			known, err := tx.LoadServerKeys(tenant)
			if err != nil {
				return err
			}
			rows, old, err := o.succeed(tenant, known, r.Now())
			if err != nil {
				return err
			}
			former = old
			return tx.PutServerKeys(rows)
		})
		if err != nil {
			return fmt.Errorf("signing keys of %s: %w", tenant, err)
		}
		r.mu.Lock()
		o.former, o.signed = former, nil
		r.mu.Unlock()
	}
	return nil
}

// succeed says which rows the database should have and which keys are old, given those it has.
func (o *ownKeys) succeed(tenant matrix.ServerName, known []storage.ServerKey, now time.Time) (rows, former []storage.ServerKey, err error) {
	inFile := func(public []byte) bool {
		return slices.ContainsFunc(o.others, func(k signing.Key) bool { p := k.Public(); return string(p[:]) == string(public) })
	}
	current := o.current.Public()
	have := map[string]bool{string(current[:]): true}
	for _, k := range known {
		if string(k.Public) == string(current[:]) {
			continue
		}
		have[string(k.Public)] = true
		if k.KeyID == string(o.current.ID) {
			return nil, nil, fmt.Errorf("%s is the ID of another key that was used before; a new key needs a new ID", k.KeyID)
		}
		if !k.Old {
			if !inFile(k.Public) {
				return nil, nil, fmt.Errorf("the key file does not hold %s, which the servers of this database sign with: "+
					"give this node the same file, or to change the key put the line of the old one below that of the new one", k.KeyID)
			}
			k.Old, k.ValidUntil = true, now.Add(ownGrace).UnixMilli()
			rows = append(rows, k)
		}
		former = append(former, k)
	}
	for _, other := range o.others {
		if p := other.Public(); !have[string(p[:])] {
			k := storage.ServerKey{Server: tenant, Source: tenant, KeyID: string(other.ID), Public: p[:], ValidUntil: now.Add(ownGrace).UnixMilli(), Old: true, FetchedTS: now.UnixMilli()}
			rows, former = append(rows, k), append(former, k)
		}
	}
	rows = append(rows, storage.ServerKey{Server: tenant, Source: tenant, KeyID: string(o.current.ID), Public: current[:], ValidUntil: math.MaxInt64, FetchedTS: now.UnixMilli()})
	return rows, former, nil
}

// OwnKeys returns the signed answer to /_matrix/key/v2/server for a tenant, nil where it is no tenant.
//
// spec: server-server-api#get_matrixkeyv2server
func (r *Ring) OwnKeys(tenant matrix.ServerName) ([]byte, error) {
	o, ok := r.own[tenant]
	if !ok {
		return nil, matrix.NotFound("%s is not hosted here.", tenant)
	}
	now := r.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if o.signed != nil && now.Sub(o.made) < ownRefresh && !now.Before(o.made) {
		return o.signed, nil
	}
	a := federation.ServerKeys{ServerName: tenant, VerifyKeys: map[string]federation.VerifyKey{string(o.current.ID): {Key: o.current.Public().String()}},
		OldVerifyKeys: map[string]federation.OldVerifyKey{}, ValidUntilTS: now.Add(ownValidity).UnixMilli()}
	for _, k := range o.former {
		a.OldVerifyKeys[k.KeyID] = federation.OldVerifyKey{Key: signing.EncodeBase64(k.Public), ExpiredTS: k.ValidUntil}
	}
	b, err := json.Marshal(a)
	if err == nil {
		b, err = signing.SignJSON(b, tenant, o.current)
	}
	if err != nil {
		return nil, fmt.Errorf("sign the keys of %s: %w", tenant, err)
	}
	o.signed, o.made = b, now
	return b, nil
}

// maxQuery is about how many servers one may ask a notary at once. Those whose keys have to be fetched for that are asked some at a time, for
// less time than the other side waits.
const (
	maxQuery    = 50
	queryAtOnce = 16
	queryTime   = fetchTimeout / 2
)

// Query answers as a notary, in the name of a tenant: what servers have said about their keys, with the tenant's signature. Keys that are not
// known, or not for as long as is wanted, are fetched first where that is allowed; the criteria of the key ID "" are about any key.
//
// spec: server-server-api#post_matrixkeyv2query
func (r *Ring) Query(ctx context.Context, as matrix.ServerName, want map[matrix.ServerName]map[string]federation.KeyCriteria) ([]jsontext.Value, error) {
	o, ok := r.own[as]
	if !ok {
		return nil, matrix.NotFound("%s is not hosted here.", as)
	}
	if len(want) > maxQuery {
		return nil, matrix.InvalidParam("At most %d servers can be asked about at once.", maxQuery)
	}
	servers := slices.Sorted(maps.Keys(want))
	answers, errs := make([]jsontext.Value, len(servers)), make([]error, len(servers))
	fetching, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	stream.Spread(len(servers), queryAtOnce, func(i int) {
		server := servers[i]
		raw, err := r.said(ctx, fetching, server, want[server])
		if err == nil && raw != nil && server != as {
			if raw, err = signing.SignJSON(raw, as, o.current); err != nil {
				err = fmt.Errorf("sign the keys of %s: %w", server, err)
			}
		}
		answers[i], errs[i] = raw, err
	})
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(answers, func(raw jsontext.Value) bool { return raw == nil }), nil
}

// said returns the newest answer of a server about its keys, nil where there is none. What has to be fetched is waited for until fetching ends.
func (r *Ring) said(ctx, fetching context.Context, server matrix.ServerName, criteria map[string]federation.KeyCriteria) ([]byte, error) {
	if r.isOwn(server) {
		return r.OwnKeys(server)
	}
	if _, err := matrix.ParseServerName(string(server)); err != nil {
		return nil, nil
	}
	seen := r.answers(server)
	raw, until, err := r.lastAnswer(ctx, server)
	if err != nil || r.suffices(raw, until, criteria) {
		return raw, err
	}
	if err := r.fetchDirect(fetching, server, seen); err != nil {
		return raw, nil // what is known is better than nothing
	}
	raw, _, err = r.lastAnswer(ctx, server)
	return raw, err
}

// suffices tells whether an answer holds what is wanted for as long as is wanted.
func (r *Ring) suffices(raw []byte, until int64, criteria map[string]federation.KeyCriteria) bool {
	if raw == nil || len(criteria) == 0 && until < r.Now().UnixMilli() {
		return false
	}
	current, _ := canonicaljson.Find(raw, "verify_keys")
	old, _ := canonicaljson.Find(raw, "old_verify_keys")
	for id, c := range criteria {
		least := c.MinimumValidUntilTS
		if least == 0 {
			least = r.Now().UnixMilli()
		}
		if _, err := signing.ParseKeyID(id); err == nil {
			if _, ok := canonicaljson.Find(old, id); ok {
				continue
			}
			if _, ok := canonicaljson.Find(current, id); !ok {
				return false
			}
		}
		if until < min(least, r.Now().Add(maxValidity).UnixMilli()) {
			return false
		}
	}
	return true
}

// lastAnswer returns what the database holds of a server's answers.
func (r *Ring) lastAnswer(ctx context.Context, server matrix.ServerName) (raw []byte, until int64, err error) {
	err = r.DB.Read(ctx, func(tx *storage.Tx) error {
		a, err := tx.FindServerKeyAnswer(server)
		if errors.Is(err, storage.ErrNotFound) {
			return nil
		}
		if err == nil {
			raw, until = a.Answer, a.ValidUntil
		}
		return err
	})
	return raw, until, err
}
