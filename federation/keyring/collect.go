package keyring

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"hansa/federation"
	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/matrix/signing"
	"hansa/outbound"
	"hansa/storage"
)

// The bounds of Collect.
const (
	// patience is how long one server is waited for, directTime how long all of them: then there is time left for notaries.
	patience   = 10 * time.Second
	directTime = 20 * time.Second
	// maxBatches is how many questions, of maxQuery servers each, one notary is asked at a time; maxBatchBody bounds an answer, and
	// maxPerServer how many answers about each server it may hold.
	maxBatches   = 8
	maxBatchBody = 4 << 20
	maxPerServer = 4
)

// collection is the work of one Collect.
type collection struct {
	r     *Ring
	want  map[matrix.ServerName]map[signing.KeyID]int64
	known map[matrix.ServerName][]storage.ServerKey // not changed any more once find is given away
}

// Collect fetches the keys that many events are signed with as far as they are not known, each with the newest time in ms that it is needed
// for; 0 means that the time does not count. It returns what finds them, which fetches nothing more.
//
// Each server is asked first, so that nobody else can speak for one that speaks for itself. Of those that do not answer, or do not
// tell of the key, notaries are asked, many in one question: from, which brought the events, and then who has talked to us last.
//
// spec: server-server-api#querying-keys-through-another-server
func (r *Ring) Collect(ctx context.Context, from matrix.ServerName, want map[matrix.ServerName]map[signing.KeyID]int64) func(matrix.ServerName, signing.KeyID, int64) (signing.PublicKey, error) {
	c := &collection{r: r, want: want, known: map[matrix.ServerName][]storage.ServerKey{}}
	lacking := c.lacking(ctx, slices.Sorted(maps.Keys(want)))
	if len(lacking) > 0 && r.Servers != nil {
		lacking = c.lacking(ctx, c.direct(ctx, lacking))
	}
	for _, notary := range r.notaries(from) {
		if len(lacking) == 0 || ctx.Err() != nil {
			break
		}
		asked := 0
		for chunk := range slices.Chunk(lacking, maxQuery) {
			if asked++; asked > maxBatches || r.fetchMany(ctx, notary, chunk, want) != nil { // logged by ask
				break
			}
		}
		lacking = c.lacking(ctx, lacking)
	}
	return c.find
}

// find is PublicKey among what is known.
func (c *collection) find(server matrix.ServerName, id signing.KeyID, at int64) (signing.PublicKey, error) {
	k, _ := forEvent(c.known[server], id, at)
	if k == nil || id == signing.PolicyServerKeyID || len(k.Public) != len(signing.PublicKey{}) {
		return signing.PublicKey{}, fmt.Errorf("%w: %s of %s", ErrNoKey, id, server)
	}
	return signing.PublicKey(k.Public), nil
}

// lacking loads what is known of servers, and returns those of which a key is lacking.
func (c *collection) lacking(ctx context.Context, servers []matrix.ServerName) []matrix.ServerName {
	var out []matrix.ServerName
	for _, server := range servers {
		keys, err := c.r.load(ctx, server)
		if err != nil {
			c.r.log.WithField("origin", server).WithError(err).Warn("server keys could not be loaded")
			continue
		}
		c.known[server] = keys
		for id, at := range c.want[server] {
			if k, _ := forEvent(keys, id, c.atMost(at)); k == nil && !c.r.isOwn(server) && id != signing.PolicyServerKeyID {
				out = append(out, server)
				break
			}
		}
	}
	return out
}

// atMost is a time that a key may be wanted for: nobody has a key of the future.
func (c *collection) atMost(at int64) int64 { return min(at, c.r.Now().UnixMilli()) }

// direct asks servers for their keys. It returns those about which others may be asked, since they have had their chance.
func (c *collection) direct(ctx context.Context, servers []matrix.ServerName) []matrix.ServerName {
	ctx, cancel := context.WithTimeout(ctx, directTime)
	defer cancel()
	heard := make([]bool, len(servers))
	stream.Spread(len(servers), maxInFlight, func(i int) {
		if ctx.Err() != nil {
			return
		}
		one, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		err := c.r.fetchDirect(one, servers[i], c.r.answers(servers[i]))
		heard[i] = err == nil || c.r.silent(servers[i]) || one.Err() != nil && ctx.Err() == nil
	})
	var out []matrix.ServerName
	for i, server := range servers {
		if heard[i] {
			out = append(out, server)
		}
	}
	return out
}

// silent tells whether a server has not answered of late, or may not be asked. One that was spared the question is not silent.
func (r *Ring) silent(server matrix.ServerName) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.budgetOf(server)
	return b.failures > 0 || b.denied != nil
}

// notaries are those who may be asked for the keys of others: first who has brought what they have signed.
func (r *Ring) notaries(first matrix.ServerName) []matrix.ServerName {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []matrix.ServerName
	for _, n := range append([]matrix.ServerName{first}, r.talkers...) {
		if _, ours := r.own[n]; n != "" && !ours && !slices.Contains(out, n) && len(out) < maxNotaries {
			out = append(out, n)
		}
	}
	return out
}

// fetchMany asks a notary for the keys of several servers. What it leaves out, or has not signed, or what its server has not signed, is left
// out here; the rest counts.
//
// spec: server-server-api#post_matrixkeyv2query
func (r *Ring) fetchMany(ctx context.Context, notary matrix.ServerName, servers []matrix.ServerName, want map[matrix.ServerName]map[signing.KeyID]int64) error {
	if err := r.allowed(ctx, notary); err != nil {
		return err
	}
	now := r.Now()
	query := federation.KeyQuery{ServerKeys: map[matrix.ServerName]map[string]federation.KeyCriteria{}}
	for _, server := range servers {
		if server == notary {
			continue // it was asked itself
		}
		keys := map[string]federation.KeyCriteria{}
		for id, at := range want[server] {
			keys[string(id)] = federation.KeyCriteria{MinimumValidUntilTS: max(1, min(at, now.UnixMilli()))}
		}
		query.ServerKeys[server] = keys
	}
	if len(query.ServerKeys) == 0 {
		return nil
	}
	body, err := json.Marshal(query, json.Deterministic(true))
	if err != nil {
		return err
	}
	return r.askAs(ctx, notary+" *", perBatch, perBatchBurst, func() error {
		resp, err := r.Servers.Do(ctx, notary, outbound.Request{Method: http.MethodPost, Path: keyPath + "query", Header: http.Header{"Content-Type": {"application/json"}},
			Body: body, MaxBody: maxBatchBody, Timeout: fetchTimeout})
		if err != nil {
			return err
		}
		if resp.Status != http.StatusOK {
			return fmt.Errorf("%w: status %d", ErrBadAnswer, resp.Status)
		}
		var list federation.KeyQueryAnswer
		if err := json.Unmarshal(resp.Body, &list); err != nil {
			return fmt.Errorf("%w: %w", ErrBadAnswer, err)
		}
		if len(list.ServerKeys) > maxPerServer*len(servers) {
			return fmt.Errorf("%w: %d answers about %d servers", ErrBadAnswer, len(list.ServerKeys), len(servers))
		}
		var good []*answer
		for _, raw := range list.ServerKeys {
			var about struct {
				Server matrix.ServerName `json:"server_name"`
			}
			err := json.Unmarshal(raw, &about)
			if _, asked := query.ServerKeys[about.Server]; err != nil || !asked {
				continue
			}
			a, err := parseAnswer(raw, about.Server, notary, now)
			if err == nil {
				err = r.vouched(ctx, a, notary)
			}
			if err != nil {
				r.log.WithField("origin", about.Server).WithError(err).Debug("what a notary says does not count")
				continue
			}
			good = append(good, a)
		}
		return r.store(ctx, good, false)
	})
}
