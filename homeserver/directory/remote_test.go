package directory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/sirupsen/logrus"

	"hansa/federation"
	"hansa/matrix"
)

// peer is another server with an alias and a list.
type peer struct {
	servers []matrix.ServerName
	answer  federation.PublicRoomsAnswer
	err     error
	asked   []federation.PublicRoomsRequest
}

func (p *peer) Alias(context.Context, matrix.ServerName, matrix.ServerName, matrix.RoomAlias) (matrix.RoomID, []matrix.ServerName, error) {
	return "!room:partner.example", p.servers, p.err
}

func (p *peer) PublicRooms(_ context.Context, _, _ matrix.ServerName, q federation.PublicRoomsRequest) (*federation.PublicRoomsAnswer, error) {
	p.asked = append(p.asked, q)
	return &p.answer, p.err
}

func (p *peer) Hierarchy(context.Context, matrix.ServerName, matrix.ServerName, matrix.RoomID, bool) (jsontext.Value, error) {
	return nil, p.err
}

// far is a service that asks a peer; only servers whose names begin with p may be reached.
func far(p *peer) (*Service, Caller) {
	log := logrus.New()
	log.SetOutput(io.Discard)
	s := &Service{Deps: Deps{Remote: p, Reach: func(_ context.Context, _, to matrix.ServerName) error {
		if strings.HasPrefix(string(to), "p") {
			return nil
		}
		return errors.New("no partner")
	}}, log: logrus.NewEntry(log)}
	return s, Caller{UserID: "@anna:acme.example"}
}

// Servers that are no partners are left out of what a partner says about an alias.
func TestR347_ServersOfAnAlias(t *testing.T) {
	p := &peer{servers: []matrix.ServerName{"s.example", "p2.example", "acme.example", "p2.example", "s.example"}}
	s, c := far(p)
	id, servers, err := s.resolveRemote(t.Context(), c, "#x:partner.example")
	if got := fmt.Sprint(servers); err != nil || id != "!room:partner.example" || got != "[p2.example acme.example partner.example]" {
		t.Errorf("%s, %v, %v", id, servers, err)
	}
	for i := range 1000 {
		p.servers = append(p.servers, matrix.ServerName(fmt.Sprintf("p%d.example", i)))
	}
	if _, servers, err = s.resolveRemote(t.Context(), c, "#x:partner.example"); err != nil || len(servers) > maxServers+1 {
		t.Errorf("%d servers, %v", len(servers), err)
	}
	p.err = errors.New("down")
	var e *matrix.Error
	if _, _, err = s.resolveRemote(t.Context(), c, "#x:partner.example"); !errors.As(err, &e) || e.Status != 404 {
		t.Error(err)
	}
}

func TestListRemote_HostileAnswers(t *testing.T) {
	long := strings.Repeat("x", maxText+1)
	p := &peer{answer: federation.PublicRoomsAnswer{NextBatch: "next", PrevBatch: strings.Repeat("x", maxToken+1), Chunk: []jsontext.Value{
		jsontext.Value(`{"room_id":"!a:partner.example","name":"Good","num_joined_members":3,"world_readable":true,"guest_can_join":false,"unknown":1}`),
		jsontext.Value(`{"room_id":"!b:s.example","name":"of a stranger","num_joined_members":3}`), jsontext.Value(`{"room_id":"b","num_joined_members":3}`),
		jsontext.Value(`{"room_id":"!c:partner.example","num_joined_members":-3}`), jsontext.Value(`{"room_id":7}`), jsontext.Value(`null`), jsontext.Value(`[]`),
		jsontext.Value(`{"room_id":"!d:partner.example","name":"` + long + `","canonical_alias":"no alias","num_joined_members":1}`)}}}
	s, c := far(p)
	page, err := s.listRemote(t.Context(), c, Query{Server: "partner.example", Limit: 1 << 30, Since: "token", Term: "x"})
	if err != nil || len(page.Chunk) != 2 || page.NextBatch != "next" || page.PrevBatch != "" {
		t.Fatalf("%+v, %v", page, err)
	}
	if a, d := page.Chunk[0], page.Chunk[1]; a.Name != "Good" || a.Joined != 3 || d.Name != "" || d.CanonicalAlias != "" {
		t.Errorf("%+v, %+v", a, d)
	}
	if q := p.asked[0]; q.Limit != listMax || q.Since != "token" || q.Filter.GenericSearchTerm != "x" {
		t.Errorf("asked %+v", q)
	}
	for range 3 * listMax {
		p.answer.Chunk = append(p.answer.Chunk, p.answer.Chunk[0])
	}
	if page, err = s.listRemote(t.Context(), c, Query{Server: "partner.example"}); err != nil || len(page.Chunk) > listMax {
		t.Errorf("%d entries, %v", len(page.Chunk), err)
	}
	var e *matrix.Error
	if _, err = s.listRemote(t.Context(), c, Query{Server: "partner.example", Since: strings.Repeat("x", maxToken+1)}); !errors.As(err, &e) || e.Status != 400 {
		t.Error(err)
	}
	p.err = errors.New("down")
	if _, err = s.listRemote(t.Context(), c, Query{Server: "partner.example"}); !errors.As(err, &e) || e.Status != 502 {
		t.Error(err)
	}
	p.err = matrix.Forbidden("the door")
	if _, err = s.listRemote(t.Context(), c, Query{Server: "partner.example"}); !errors.As(err, &e) || e.Status != 403 {
		t.Error(err)
	}
}

func FuzzReadListed(f *testing.F) {
	f.Add([]byte(`{"room_id":"!a:b","num_joined_members":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if l := readListed(b); l != nil && len(l.Name) > maxText {
			t.Errorf("%+v", l)
		}
	})
}
