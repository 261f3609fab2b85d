package push

import (
	"bytes"
	"context"
	"errors"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/pushrule"
	"hansa/storage"
)

const (
	// typeRules is the account datum that tells clients of their rules.
	typeRules = "m.push_rules"
	// maxEvaluators is how many users' compiled rules stay in memory, maxOwn how many of those with own rules.
	maxEvaluators = 100_000
	maxOwn        = 5_000
)

// Rules keeps the push rules of all users. Its methods may be called from any goroutine.
type Rules struct {
	db       *storage.DB
	defaults *pushrule.Evaluator

	mu    sync.Mutex
	known map[matrix.UserID]compiled // guarded by mu, as is all below
	own   int                        // how many of known have own rules
	epoch uint64                     // counts invalidations, so that what was read before one is not kept after it
	busy  map[matrix.UserID]int      // whose rules are being changed: nothing is kept or taken from memory meanwhile
}

type compiled struct {
	*pushrule.Evaluator
	own bool
}

// New returns the rules in a database.
func New(db *storage.DB) *Rules {
	const anybody = matrix.UserID("@:")
	return &Rules{db: db, defaults: pushrule.Compile(pushrule.Defaults(anybody), anybody), known: map[matrix.UserID]compiled{},
		busy: map[matrix.UserID]int{}}
}

// Evaluator returns a user's compiled rules.
func (r *Rules) Evaluator(ctx context.Context, user matrix.UserID) (*pushrule.Evaluator, error) {
	r.mu.Lock()
	c, ok := r.known[user]
	epoch := r.epoch
	r.mu.Unlock()
	if ok {
		return c.Evaluator, nil
	}
	custom, err := r.load(ctx, user)
	if err != nil {
		return nil, err
	}
	if custom == nil {
		c = compiled{r.defaults.For(user), false}
	} else {
		c = compiled{pushrule.Compile(pushrule.Apply(pushrule.Defaults(user), custom), user), true}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.known[user]; !ok && r.epoch == epoch && r.busy[user] == 0 {
		r.keep(user, c)
	}
	return c.Evaluator, nil
}

// keep remembers a user's rules. Where there are too many, some others go. The caller holds r.mu.
func (r *Rules) keep(user matrix.UserID, c compiled) {
	for old, was := range r.known {
		if len(r.known) < maxEvaluators && (!c.own || r.own < maxOwn) {
			break
		}
		if was.own || !c.own || len(r.known) >= maxEvaluators {
			r.drop(old)
		}
	}
	r.known[user] = c
	if c.own {
		r.own++
	}
}

func (r *Rules) drop(user matrix.UserID) {
	if r.known[user].own {
		r.own--
	}
	delete(r.known, user)
}

// Invalidate forgets what is kept in memory of a user. It is called when the log shows a user's m.push_rules.
func (r *Rules) Invalidate(user matrix.UserID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epoch++
	r.drop(user)
}

// load returns what a user's rules differ from the defaults, nil for nothing.
func (r *Rules) load(ctx context.Context, user matrix.UserID) (custom *pushrule.Custom, err error) {
	err = r.db.Read(ctx, func(tx *storage.Tx) error {
		custom, err = loadCustom(tx, user)
		return err
	})
	return custom, err
}

func loadCustom(tx *storage.Tx, user matrix.UserID) (*pushrule.Custom, error) {
	stored, err := tx.LoadPushRules(user)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return pushrule.ParseCustom(stored)
}

// Rules returns all rules of a user, the own ones and the defaults.
func (r *Rules) Rules(ctx context.Context, user matrix.UserID) (pushrule.Ruleset, error) {
	custom, err := r.load(ctx, user)
	if err != nil {
		return pushrule.Ruleset{}, err
	}
	return pushrule.Apply(pushrule.Defaults(user), custom), nil
}

// Content returns the content of a user's m.push_rules event.
//
// spec: client-server-api#mpush_rules
func (r *Rules) Content(ctx context.Context, user matrix.UserID) ([]byte, error) {
	custom, err := r.load(ctx, user)
	if err != nil {
		return nil, err
	}
	return render(user, custom)
}

func render(user matrix.UserID, custom *pushrule.Custom) ([]byte, error) {
	all := struct {
		Global pushrule.Ruleset `json:"global"`
	}{pushrule.Apply(pushrule.Defaults(user), custom)}
	return json.Marshal(all, json.Deterministic(true))
}

// Put creates or changes one of a user's own rules.
func (r *Rules) Put(ctx context.Context, user matrix.UserID, kind pushrule.Kind, id string, d pushrule.Draft, at pushrule.Place) error {
	return r.change(ctx, user, func(c *pushrule.Custom) error { return c.Put(kind, id, d, at) })
}

// Delete removes one of a user's own rules.
func (r *Rules) Delete(ctx context.Context, user matrix.UserID, kind pushrule.Kind, id string) error {
	return r.change(ctx, user, func(c *pushrule.Custom) error { return c.Delete(kind, id) })
}

// SetEnabled switches a rule on or off, an own one or a default.
func (r *Rules) SetEnabled(ctx context.Context, user matrix.UserID, kind pushrule.Kind, id string, enabled bool) error {
	return r.change(ctx, user, func(c *pushrule.Custom) error { return c.SetEnabled(kind, id, enabled) })
}

// SetActions gives a rule other actions, an own one or a default.
func (r *Rules) SetActions(ctx context.Context, user matrix.UserID, kind pushrule.Kind, id string, actions []jsontext.Value) error {
	return r.change(ctx, user, func(c *pushrule.Custom) error { return c.SetActions(kind, id, actions) })
}

// CopyRoom gives a room the rules that a user has for another one, after an upgrade of the room, in the caller's transaction.
// The caller invalidates the user when that has committed.
func (r *Rules) CopyRoom(tx *storage.Tx, user matrix.UserID, from, to matrix.RoomID) error {
	return change(tx, user, func(c *pushrule.Custom) error { return c.CopyRoom(from, to) })
}

// Erase removes the rules of an account that is closed, in the caller's transaction.
func (r *Rules) Erase(tx *storage.Tx, user matrix.UserID) error { return tx.DeletePushRules(user) }

// change changes rules. Whoever hears of it from the log, which may be before Update returns, finds the new ones.
func (r *Rules) change(ctx context.Context, user matrix.UserID, fn func(*pushrule.Custom) error) error {
	r.mu.Lock()
	r.busy[user]++
	r.drop(user)
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.busy[user]--; r.busy[user] == 0 {
			delete(r.busy, user)
		}
		r.epoch++
	}()
	return r.db.Update(ctx, func(tx *storage.Tx) error { return change(tx, user, fn) })
}

// change stores changed rules and tells the user's devices. A change that changes nothing is not told.
func change(tx *storage.Tx, user matrix.UserID, fn func(*pushrule.Custom) error) error {
	return tx.ChangeAccountData(user, "", typeRules, func([]byte) ([]byte, error) {
		custom, err := loadCustom(tx, user)
		if err != nil {
			return nil, err
		}
		if custom == nil {
			custom = new(pushrule.Custom)
		}
		before, err := custom.Encode()
		if err != nil {
			return nil, err
		}
		if err := fn(custom); err != nil {
			return nil, err
		}
		after, err := custom.Encode()
		if err != nil || bytes.Equal(before, after) {
			return nil, err
		}
		if err := tx.PutPushRules(user, after); err != nil {
			return nil, err
		}
		return render(user, custom)
	})
}
