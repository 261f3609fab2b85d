package keyring

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/sirupsen/logrus"

	"hansa/federation"
	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/signing"
	"hansa/outbound"
	"hansa/storage"
)

const keyPath = "/_matrix/key/v2/"

// denialAge is for how long a refusal by policy is not asked for again: short, since an approval counts at once.
const denialAge = time.Second

// fetchDirect asks a server for its keys and stores them. All who ask at the same time share one question, and who has seen what is stored before
// the answer to another's came does not ask again: seen is how many answers there were before the caller looked.
//
// spec: server-server-api#get_matrixkeyv2server
func (r *Ring) fetchDirect(ctx context.Context, server matrix.ServerName, seen uint64) error {
	return r.once(ctx, fmt.Sprint("direct ", seen, " ", server), func(ctx context.Context) error {
		if r.answers(server) > seen {
			return nil
		}
		if err := r.allowed(ctx, server); err != nil {
			return err
		}
		return r.ask(ctx, server, func() error {
			resp, err := r.Servers.Do(ctx, server, outbound.Request{Method: http.MethodGet, Path: keyPath + "server", MaxBody: maxBody, Timeout: fetchTimeout})
			if err != nil {
				return err
			}
			if resp.Status != http.StatusOK {
				return fmt.Errorf("%w: status %d", ErrBadAnswer, resp.Status)
			}
			a, err := parseAnswer(resp.Body, server, server, r.Now())
			if err != nil {
				return err
			}
			return r.store(ctx, []*answer{a}, true)
		})
	})
}

// fetchVia asks a notary for the keys of a server. The notary must have signed what it gives.
//
// spec: server-server-api#get_matrixkeyv2queryservername
func (r *Ring) fetchVia(ctx context.Context, notary, server matrix.ServerName) error {
	return r.once(ctx, "via "+string(notary)+" "+string(server), func(ctx context.Context) error {
		if err := r.allowed(ctx, notary); err != nil {
			return err
		}
		return r.ask(ctx, notary+" "+server, func() error {
			resp, err := r.Servers.Do(ctx, notary, outbound.Request{Method: http.MethodGet, Path: keyPath + "query/" + url.PathEscape(string(server)), MaxBody: maxBody, Timeout: fetchTimeout})
			if err != nil {
				return err
			}
			var list federation.KeyQueryAnswer
			if resp.Status != http.StatusOK {
				return fmt.Errorf("%w: status %d", ErrBadAnswer, resp.Status)
			}
			if err := json.Unmarshal(resp.Body, &list); err != nil {
				return fmt.Errorf("%w: %w", ErrBadAnswer, err)
			}
			for _, raw := range list.ServerKeys[:min(len(list.ServerKeys), maxVerify)] {
				a, perr := parseAnswer(raw, server, notary, r.Now())
				if perr != nil {
					err = perr
					continue
				}
				if err = r.vouched(ctx, a, notary); err == nil {
					return r.store(ctx, []*answer{a}, false)
				}
			}
			if err == nil {
				err = fmt.Errorf("%w: %s knows no keys of %s", ErrBadAnswer, notary, server)
			}
			return err
		})
	})
}

// vouched checks the notary's own signature on an answer.
func (r *Ring) vouched(ctx context.Context, a *answer, notary matrix.ServerName) error {
	signatures, _ := canonicaljson.Find(a.raw, "signatures")
	for id := range signing.Signatures(signatures, notary) {
		key, err := r.RequestKey(ctx, notary, id)
		if err == nil && signing.VerifyJSON(a.raw, notary, id, key) == nil {
			return nil
		}
	}
	return fmt.Errorf("%w: the notary %s has not signed it", ErrBadAnswer, notary)
}

// once does something once for all who want it at the same time; it goes on where one of them leaves.
func (r *Ring) once(ctx context.Context, key string, fn func(context.Context) error) error {
	if r.Servers == nil {
		return ErrNoKey
	}
	_, err := r.flight.Do(ctx, key, 2*fetchTimeout, func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) })
	return err
}

// ask spends leave to ask, waits for its turn, asks, and notes the outcome.
func (r *Ring) ask(ctx context.Context, whom matrix.ServerName, fn func() error) error {
	return r.askAs(ctx, whom, perServer, perServerBurst, fn)
}

// askAs is ask with bounds of its own for how often it may be done.
func (r *Ring) askAs(ctx context.Context, whom matrix.ServerName, rate, burst float64, fn func() error) error {
	if err := r.spend(whom, rate, burst); err != nil {
		return err
	}
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	err := fn()
	r.settle(whom, err)
	if err != nil {
		r.log.WithField("origin", whom).WithError(err).Warn("server keys could not be fetched")
	}
	return err
}

// allowed asks whether a server may be asked, and keeps a refusal for a moment so that a flood of events brings no flood of decisions.
func (r *Ring) allowed(ctx context.Context, server matrix.ServerName) error {
	if r.Allowed == nil {
		return nil
	}
	now := r.Now()
	r.mu.Lock()
	b := r.budgetOf(server)
	err, until := b.denied, b.deniedUntil
	r.mu.Unlock()
	if err != nil && now.Before(until) {
		return err
	}
	err = r.Allowed(ctx, server)
	r.mu.Lock()
	b.denied, b.deniedUntil = err, now.Add(denialAge)
	r.mu.Unlock()
	return err
}

// store merges answers with what is known and stores both keys and answers, in one transaction.
func (r *Ring) store(ctx context.Context, answers []*answer, direct bool) error {
	now := r.Now().UnixMilli()
	outcomes := make([]outcome, len(answers))
	if len(answers) == 0 {
		return nil
	}
	err := r.DB.Update(ctx, func(tx *storage.Tx) (err error) {
		for i, a := range answers {
			if outcomes[i], err = put(tx, a, direct, now); err != nil {
				return fmt.Errorf("store the keys of %s: %w", a.server, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	prune := false
	for i, o := range outcomes {
		server := answers[i].server
		for range o.reused {
			r.metrics.reused.Inc()
			r.log.WithField("origin", server).Error("a server uses the ID of one of its keys for another key: ask its operator whether that is meant")
		}
		for _, other := range o.sharers {
			r.metrics.shared.Inc()
			r.log.WithFields(logrus.Fields{"origin": server, "destination": other}).Error("a server signs with the key of another one: the two may be one under two names")
		}
		r.mu.Lock()
		r.servers.put(string(server), o.keys)
		r.stored++
		prune = prune || r.stored%1000 == 0
		r.mu.Unlock()
	}
	if prune {
		r.prune(ctx)
	}
	return nil
}

// outcome is what storing an answer has led to: all keys of the server, the IDs that it has used for two keys, and who has one of its keys, too.
type outcome struct {
	keys    []storage.ServerKey
	reused  []string
	sharers []matrix.ServerName
}

func put(tx *storage.Tx, a *answer, direct bool, now int64) (o outcome, err error) {
	known, err := tx.LoadServerKeys(a.server)
	if err != nil {
		return o, err
	}
	var changed []storage.ServerKey
	changed, o.reused = merge(known, a, direct, now)
	if o.sharers, err = tx.FindKeySharers(a.server, fresh(known, changed)); err != nil {
		return o, err
	}
	if err := tx.PutServerKeys(changed); err != nil {
		return o, err
	}
	if direct {
		if err := tx.PutServerKeyAnswer(storage.ServerKeyAnswer{Server: a.server, Answer: a.raw, ValidUntil: a.validUntil, FetchedTS: now}); err != nil {
			return o, err
		}
	}
	o.keys, err = tx.LoadServerKeys(a.server)
	return o, err
}

// fresh are the public keys that a server was not known to have.
func fresh(known, changed []storage.ServerKey) [][]byte {
	var out [][]byte
	for _, c := range changed {
		if !slices.ContainsFunc(known, func(k storage.ServerKey) bool { return bytes.Equal(k.Public, c.Public) }) {
			out = append(out, c.Public)
		}
	}
	return out
}

// prune keeps the database bounded; a failure is tried again with the next keys.
func (r *Ring) prune(ctx context.Context) {
	var gone int64
	err := r.DB.Update(ctx, func(tx *storage.Tx) (err error) {
		gone, err = tx.PruneServerKeys(r.MaxRows, r.tenants())
		return err
	})
	switch {
	case err != nil:
		r.log.WithError(err).Warn("old server keys could not be deleted")
	case gone > 0:
		r.log.Info("deleted the server keys that were fetched longest ago")
	}
}

// merge says which rows change by an answer, and which key IDs a server has used for two keys.
//
// What the server says itself counts: a current key gets the later of both ends, a retired one ends when the server says, a key that is
// not published any more ends now. A notary adds what nobody knew and extends what only notaries have said.
func merge(known []storage.ServerKey, a *answer, isDirect bool, now int64) (changed []storage.ServerKey, reused []string) {
	named := map[string]bool{}
	for _, k := range a.keys {
		named[k.KeyID] = true
		contested, taken := false, false
		for _, have := range known {
			switch {
			case have.KeyID != k.KeyID:
			case bytes.Equal(have.Public, k.Public):
				k.ValidFrom = have.ValidFrom
				if !k.Old && !have.Old {
					k.ValidUntil = max(k.ValidUntil, have.ValidUntil)
				}
				taken = taken || !isDirect && direct(&have)
			case direct(&have):
				contested = true
				taken = taken || !isDirect || k.Old
			}
		}
		if taken {
			continue
		}
		if contested && isDirect {
			for _, have := range known {
				if have.KeyID == k.KeyID && !bytes.Equal(have.Public, k.Public) && !have.Old {
					reused = append(reused, k.KeyID)
					have.Old, have.ValidUntil = true, min(have.ValidUntil, now-1)
					changed = append(changed, have)
					k.ValidFrom = now
				}
			}
		}
		changed = append(changed, k)
	}
	if !isDirect {
		return changed, nil
	}
	for _, have := range known {
		if !named[have.KeyID] && !have.Old {
			have.Old, have.ValidUntil = true, min(have.ValidUntil, now)
			changed = append(changed, have)
		}
	}
	return changed, reused
}
