package directory

import (
	"context"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

const (
	// searchDefault and searchMax are how many users a search returns.
	searchDefault, searchMax = 10, 100
	// searchRounds is how many pages of hits are looked at, where policy hides many of them from within their class.
	searchRounds = 20
	// maxTerm is the longest search term in bytes.
	maxTerm = 255
	// buildStep is how many users are entered in one transaction.
	buildStep = 500
	// patience is how long a search waits for the newest changes to be entered.
	patience = time.Second
)

// userIndex is what a node knows of the table of users.
type userIndex struct {
	build sync.Mutex // held while the table is made anew

	mu         sync.Mutex
	generation uint64        // guarded by mu, as is everything below: of the rules that the table was made for; 0 for none
	classes    []string      // of all users in the table, nil when not known
	epoch      uint64        // counts changes of the table
	handled    int64         // position of the log up to which changes are entered
	moved      chan struct{} // closed and replaced whenever handled grows
}

func newUserIndex() *userIndex { return &userIndex{moved: make(chan struct{})} }

// reached waits until changes up to a position are entered, or the patience is over.
func (x *userIndex) reached(ctx context.Context, pos int64) {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		x.mu.Lock()
		done, moved := x.handled >= pos, x.moved
		x.mu.Unlock()
		if done {
			return
		}
		select {
		case <-moved:
		case <-limit.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// Follower returns the follower that enters changed users into the directory.
func (s *Service) Follower() stream.Follower {
	return stream.Follower{Name: "directory.users", EveryNode: true, SaveEvery: time.Second, Handle: s.follow}
}

func (s *Service) follow(ctx context.Context, entries []storage.Entry, upto int64) error {
	var users []matrix.UserID
	seen := map[matrix.UserID]bool{}
	for i := range entries {
		e := &entries[i]
		if e.Kind != storage.KindNotice || e.Name != storage.NoticeParty && e.Name != storage.NoticeProfile {
			continue
		}
		if u := matrix.UserID(e.Ref); s.Rooms.IsLocal(u.Server()) && !seen[u] {
			seen[u] = true
			users = append(users, u)
		}
	}
	if len(users) > 0 {
		var list []*storage.User
		err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) { list, err = tx.LoadUsers(users); return err })
		if err != nil {
			return err
		}
		if err := s.enter(ctx, list); err != nil {
			return err
		}
	}
	x := s.users
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(users) > 0 {
		x.classes = nil
		x.epoch++
	}
	x.reach(upto)
	return nil
}

// reach notes that changes up to a position are entered. The caller holds mu.
func (x *userIndex) reach(pos int64) {
	x.handled = max(x.handled, pos)
	close(x.moved)
	x.moved = make(chan struct{})
}

// Run makes the directory anew when the rules or their data change, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	retry := time.NewTimer(0)
	defer retry.Stop()
	<-retry.C
	for {
		changed := s.Policy.Changed()
		if err := s.rebuild(ctx); err != nil && ctx.Err() == nil {
			s.log.WithField("err", err).Warn("the user directory could not be made anew; trying again")
			retry.Reset(5 * time.Second)
		}
		select {
		case <-changed:
		case <-retry.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// rebuild enters all users, if the table was made for other rules than those that are active.
func (s *Service) rebuild(ctx context.Context) error {
	x := s.users
	x.build.Lock()
	defer x.build.Unlock()
	generation := s.Policy.Generation()
	x.mu.Lock()
	done := x.generation == generation
	x.mu.Unlock()
	if done {
		return nil
	}
	pos := s.Stream.Position()
	for _, tenant := range s.Tenants {
		after := matrix.UserID("")
		for {
			var list []*storage.User
			err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) { list, err = tx.ListUsers(tenant, after, buildStep); return err })
			if err != nil {
				return err
			}
			if err := s.enter(ctx, list); err != nil {
				return err
			}
			if len(list) < buildStep {
				break
			}
			after = list[len(list)-1].ID
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.generation, x.classes = generation, nil
	x.epoch++
	x.reach(pos)
	return nil
}

// enter brings the entries of users up to date. Closed accounts have none.
func (s *Service) enter(ctx context.Context, users []*storage.User) error {
	if len(users) == 0 {
		return nil
	}
	ids := make([]matrix.UserID, len(users))
	for i, u := range users {
		ids[i] = u.ID
	}
	var put []storage.DirectoryUser
	var drop []matrix.UserID
	err := s.DB.View(ctx, func(tx *storage.Tx) error {
		put, drop = put[:0], drop[:0]
		have, err := tx.LoadDirectoryUsers(ids)
		if err != nil {
			return err
		}
		names, err := profiles(tx, ids)
		if err != nil {
			return err
		}
		now := map[matrix.UserID]storage.DirectoryUser{}
		for _, d := range have {
			now[d.UserID] = d
		}
		for _, u := range users {
			d := storage.DirectoryUser{UserID: u.ID, Tenant: u.Tenant, Class: s.Policy.ClassKey(s.PartyOf(u)), Local: strings.ToLower(u.ID.Localpart()),
				Name: strings.ToLower(names[u.ID].name)}
			old, there := now[u.ID]
			switch {
			case u.Deactivated && there:
				drop = append(drop, u.ID)
			case !u.Deactivated && old != d:
				put = append(put, d)
			}
		}
		return nil
	})
	if err != nil || len(put)+len(drop) == 0 {
		return err
	}
	return s.DB.Update(ctx, func(tx *storage.Tx) error {
		if err := tx.PutDirectoryUsers(put); err != nil || len(drop) == 0 {
			return err
		}
		return tx.DeleteDirectoryUsers(drop)
	})
}

// look is how a user looks in the directory.
type look struct{ name, avatar string }

func profiles(tx *storage.Tx, users []matrix.UserID) (map[matrix.UserID]look, error) {
	out := map[matrix.UserID]look{}
	list, err := tx.LoadProfiles(users, "displayname", "avatar_url")
	for _, f := range list {
		var text string
		if json.Unmarshal(f.Value, &text) != nil {
			continue
		}
		l := out[f.UserID]
		if f.Field == "displayname" {
			l.name = text
		} else {
			l.avatar = text
		}
		out[f.UserID] = l
	}
	return out, err
}

// Person is a user that was found.
type Person struct {
	UserID      matrix.UserID `json:"user_id"`
	DisplayName string        `json:"display_name,omitempty"`
	AvatarURL   string        `json:"avatar_url,omitempty"`
}

// People is what a search found; Limited says that there is more.
type People struct {
	Results []Person `json:"results"`
	Limited bool     `json:"limited"`
}

// Search finds users whom the caller may know of by localpart and display name.
//
// spec: client-server-api#post_matrixclientv3user_directorysearch
func (s *Service) Search(ctx context.Context, c Caller, term string, limit int) (*People, error) {
	term = strings.ToLower(strings.TrimSpace(term))
	if len(term) > maxTerm || !utf8.ValidString(term) {
		return nil, matrix.InvalidParam("The search term may have at most %d bytes.", maxTerm)
	}
	if limit <= 0 {
		limit = searchDefault
	}
	limit = min(limit, searchMax)
	out := &People{Results: []Person{}}
	if term == "" {
		return out, nil
	}
	if err := s.rebuild(ctx); err != nil {
		return nil, err
	}
	s.users.reached(ctx, s.Stream.Position())
	classes, err := s.classes(ctx)
	if err != nil {
		return nil, err
	}
	q := storage.DirectorySearch{Classes: s.Policy.Reachable(c.Subject, classes), Term: term, Limit: limit + 1}
	if id, ok := strings.CutPrefix(term, "@"); ok {
		local, server, _ := strings.Cut(id, ":")
		q.Term, q.Local, q.Server = local, local, matrix.ServerName(server)
		if server != "" && !s.Rooms.IsLocal(q.Server) {
			q.Server = "" // half a name: whoever begins like that
		}
	}
	return out, s.collect(ctx, c, q, limit, out)
}

// collect takes hits until there are enough that the caller may see.
func (s *Service) collect(ctx context.Context, c Caller, q storage.DirectorySearch, limit int, out *People) error {
	if len(q.Classes) == 0 {
		return nil
	}
	for range searchRounds {
		var hits []storage.DirectoryHit
		var looks map[matrix.UserID]look
		ids := []matrix.UserID{}
		err := s.DB.View(ctx, func(tx *storage.Tx) (err error) {
			if hits, err = tx.SearchDirectory(q); err != nil {
				return err
			}
			ids = ids[:0]
			for _, h := range hits {
				ids = append(ids, h.UserID)
			}
			looks, err = profiles(tx, ids)
			return err
		})
		if err != nil {
			return err
		}
		parties, err := s.Parties.Parties(ctx, ids)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if id == c.UserID || !s.decide(ctx, c, c.UserID.Server(), policy.Input{Point: policy.DirectorySearch, Target: parties[id]}).Allow {
				continue
			}
			if len(out.Results) == limit {
				out.Limited = true
				return nil
			}
			out.Results = append(out.Results, Person{id, looks[id].name, looks[id].avatar})
		}
		if len(hits) < q.Limit {
			return nil
		}
		q.After = &hits[len(hits)-1]
	}
	out.Limited = true
	return nil
}

// classes returns the audience classes of all users in the directory.
func (s *Service) classes(ctx context.Context) ([]string, error) {
	x := s.users
	x.mu.Lock()
	known, epoch := x.classes, x.epoch
	x.mu.Unlock()
	if known != nil {
		return known, nil
	}
	list := []string{}
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		found, err := tx.LoadDirectoryClasses()
		list = append(list[:0], found...)
		return err
	})
	if err != nil {
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.epoch == epoch {
		x.classes = list
	}
	return list, nil
}
