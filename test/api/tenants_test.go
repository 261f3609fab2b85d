package api

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"hansa/test/hstest"
)

// mix takes each name from one of two aims.
func mix(r *rand.Rand, a, b aim) aim {
	pick := func(x, y string) string {
		if r.IntN(2) == 0 {
			return x
		}
		return y
	}
	m := a
	m.user, m.device, m.room, m.alias, m.event, m.thread = pick(a.user, b.user), pick(a.device, b.device), pick(a.room, b.room), pick(a.alias, b.alias), pick(a.event, b.event), pick(a.thread, b.thread)
	m.server, m.media, m.since, m.text, m.tenant = pick(a.server, b.server), pick(a.media, b.media), pick(a.since, b.since), pick("canary", "a"), pick(a.tenant, b.tenant)
	return m
}

// Random requests whose names are partly the caller's own and partly those of people out of reach: somebody else's event in one's own room,
// one's own alias for somebody else's room, both in one relation. Nothing of the others is in any answer, and nothing reaches them.
func TestP331_RandomOperations(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{Policy: campPolicy()}, func(t *testing.T, s *hstest.Server) {
		w := newCamps(t, s)
		w.marks()
		p := newSweep(t, w)
		most := 4000
		if strings.HasPrefix(s.Config.Database, "postgres") {
			most = 1000
		}
		mentions := regexp.MustCompile(`"m.mentions":\{"user_ids":\["[^"]*"\]\}`)
		seed := rand.Uint64()
		r := rand.New(rand.NewPCG(seed, 1))
		for p.done < most && !t.Failed() {
			from, to := w.all[r.IntN(len(w.all))], w.all[r.IntN(len(w.all))]
			if from == to {
				continue
			}
			out := from.outsiders()
			who := out[r.IntN(len(out))]
			e := p.table[r.IntN(len(p.table))]
			if strings.Contains(e.Paths[0], "/leave") || strings.Contains(e.Paths[0], "/logout") {
				continue // whoever goes on must stay in
			}
			list := calls(t, e, mix(r, from.aims[r.IntN(len(from.aims))], to.aims[r.IntN(len(to.aims))]), &w.txn)
			c := list[r.IntN(len(list))]
			a := p.try(from, who, c)
			if a.Status >= 500 {
				t.Errorf("%s: %s: %d %s", who.ID, c, a.Status, a.Raw)
			}
		}
		for _, c := range w.all {
			for _, u := range []*hstest.User{c.owner, c.hidden} {
				for _, q := range []string{"?timeout=0&since=" + url.QueryEscape(u.Since), "?timeout=0&full_state=true&filter=" + url.QueryEscape(`{"room":{"include_leave":true,"timeline":{"limit":100}}}`)} {
					raw := mentions.ReplaceAllString(string(u.Must("GET", "/sync"+q, nil).Raw), "") // of which people of the own camp have written
					for _, other := range w.all {
						if other == c {
							continue
						}
						for _, v := range other.people() {
							if strings.Contains(raw, string(v.ID)) {
								i := strings.Index(raw, string(v.ID))
								t.Errorf("%s hears of %s of camp %s: %s", u.ID, v.ID, other.name, raw[max(0, i-300):min(len(raw), i+300)])
							}
						}
					}
				}
			}
		}
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
}

// Two tenants of one process are strangers to each other: what acme's people are answered about globex, which is hosted here and has no agreement,
// they are answered about a domain that is hosted elsewhere; and the same the other way round.
func TestP361_TenantsAreStrangers(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		anna, gina := s.User("anna"), s.User("@gina:globex.example")
		for _, c := range []struct {
			from, to *hstest.User
			far      string
		}{{anna, gina, "faraway.example"}, {gina, anna, "farar.example"}} {
			there, mine := string(c.to.ID), c.from.CreateRoom(object{"preset": "public_chat"})
			room := c.to.CreateRoom(object{"preset": "public_chat", "visibility": "public", "room_alias_name": "hall", "room_version": "10"})
			local, server, _ := strings.Cut(there[1:], ":")
			media := upload(t, c.to, "x.txt", "text/plain", []byte("x"))
			esc := hstest.Esc
			ask := func(user, server, room string) []hstest.Answer {
				all := []hstest.Answer{
					c.from.Try("POST", "/rooms/"+esc(mine)+"/invite", object{"user_id": user}),
					c.from.Try("PUT", "/rooms/"+esc(mine)+"/state/m.room.member/"+esc(user), object{"membership": "invite"}),
					c.from.Try("POST", "/createRoom", object{"invite": []string{user}, "is_direct": true}),
					c.from.Try("GET", "/profile/"+esc(user), nil),
					c.from.Try("GET", "/profile/"+esc(user)+"/displayname", nil),
					c.from.Try("GET", "/presence/"+esc(user)+"/status", nil),
					c.from.Try("GET", "/directory/room/"+esc("#hall:"+server), nil),
					c.from.Try("POST", "/join/"+esc("#hall:"+server), object{}),
					c.from.Try("POST", "/knock/"+esc("#hall:"+server), object{}),
					c.from.Try("GET", "/publicRooms?server="+server, nil),
					c.from.Try("POST", "/publicRooms?server="+server, object{}),
					c.from.Try("GET", "/_matrix/client/v1/media/download/"+server+"/"+media, nil),
					c.from.Try("GET", "/_matrix/client/v1/media/thumbnail/"+server+"/"+media+"?width=9&height=9", nil),
					c.from.Try("PUT", "/sendToDevice/m.x/"+c.from.Txn(), object{"messages": object{user: object{"*": object{"x": 1}}}}),
					c.from.Try("POST", "/user_directory/search", object{"search_term": user}),
				}
				for _, path := range []string{"/state", "/members", "/messages?dir=b", "/joined_members", "/aliases"} {
					all = append(all, c.from.Try("GET", "/rooms/"+esc(room)+path, nil))
				}
				return all
			}
			host := ask(there, server, room)
			far := ask("@"+local+":"+c.far, c.far, strings.Replace(room, server, c.far, 1))
			for i := range host {
				if host[i].Status != far[i].Status || host[i].Code() != far[i].Code() || host[i].Status < 400 && string(host[i].Raw) != string(far[i].Raw) {
					t.Errorf("%s, request %d: %d %s about a tenant, %d %s about a stranger", c.from.ID, i, host[i].Status, host[i].Raw, far[i].Status, far[i].Raw)
				}
			}
			refused(t, "join by ID", c.from.Try("POST", "/join/"+esc(room), object{}))
			if a := c.to.Sync(0); a.Get("to_device") != nil || a.Get("rooms", "invite") != nil {
				t.Errorf("something has reached %s: %s", c.to.ID, a.Raw)
			}
		}
	})
}

// agreementCase is a state of the agreement records of two tenants, and whether people may meet under it.
type agreementCase struct {
	name         string
	acme, globex string
	meet         bool
}

// An agreement counts only while both sides have it: proposed, suspended or forgotten on one of them it opens nothing, in neither direction.
func TestP355_OneSidedAgreement(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		anna, gina := s.User("anna"), s.User("@gina:globex.example")
		entry := func(other, state string) string {
			if state == "" {
				return "custom: {}\n"
			}
			return fmt.Sprintf("partners: {%s: {pools: \"*\", features: \"*\", state: %s}}\n", other, state)
		}
		for _, c := range []agreementCase{{"nothing", "", "", false}, {"only acme", "active", "", false}, {"only globex", "", "active", false},
			{"proposed", "active", "proposed", false}, {"suspended", "suspended", "active", false}, {"ended", "active", "ended", false}, {"expired", "expired", "active", false},
			{"both", "active", "active", true}} {
			s.WritePolicy("acme.example/partners.yaml", entry("globex.example", c.acme))
			s.WritePolicy("globex.example/partners.yaml", entry("acme.example", c.globex))
			s.ReloadPolicy()
			for _, d := range [][2]*hstest.User{{anna, gina}, {gina, anna}} {
				for what, a := range map[string]hstest.Answer{
					"direct chat": d[0].Try("POST", "/createRoom", object{"invite": []string{string(d[1].ID)}, "is_direct": true}),
					"profile":     d[0].Try("GET", "/profile/"+hstest.Esc(string(d[1].ID)), nil),
					"join":        d[0].Try("POST", "/join/"+hstest.Esc(d[1].CreateRoom(object{"preset": "public_chat"})), object{}),
				} {
					if (a.Status == 200) != c.meet || !c.meet && a.String("org.hansa.decision_id") == "" {
						t.Errorf("%s: %s of %s: %d %s", c.name, what, d[0].ID, a.Status, a.Raw)
					}
				}
			}
		}
	})
}

// An agreement about some features opens those and no others.
func TestP354_PartialAgreement(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		anna, gina := s.User("anna"), s.User("@gina:globex.example")
		gina.Must("PUT", "/profile/"+hstest.Esc(string(gina.ID))+"/displayname", object{"displayname": "Gina"})
		gina.Must("PUT", "/presence/"+hstest.Esc(string(gina.ID))+"/status", object{"presence": "online"})
		media := upload(t, gina, "x.txt", "text/plain", []byte("x"))
		surfaces := map[string]func() bool{
			"profiles": func() bool { return anna.Try("GET", "/profile/"+hstest.Esc(string(gina.ID)), nil).Status == 200 },
			"presence": func() bool {
				return anna.Try("GET", "/presence/"+hstest.Esc(string(gina.ID))+"/status", nil).Status == 200
			},
			"media": func() bool {
				return anna.Try("GET", "/_matrix/client/v1/media/download/globex.example/"+media, nil).Status == 200
			},
			"directory": func() bool {
				return strings.Contains(string(anna.Must("POST", "/user_directory/search", object{"search_term": "gina"}).Raw), string(gina.ID))
			},
		}
		for feature := range surfaces {
			for _, f := range []struct{ acme, globex string }{{"messages, " + feature, "messages, " + feature}, {"messages", "messages, " + feature}, {"messages, " + feature, "messages"}} {
				s.WritePolicy("acme.example/partners.yaml", "partners: {globex.example: {pools: \"*\", features: ["+f.acme+"]}}\n")
				s.WritePolicy("globex.example/partners.yaml", "partners: {acme.example: {pools: \"*\", features: ["+f.globex+"]}}\n")
				s.ReloadPolicy()
				for name, open := range surfaces {
					want := name == feature && f.acme == f.globex
					if want && name == "directory" { // which may hear of her name later
						hstest.Await(t, "gina in the directory", open)
					} else if open() != want {
						t.Errorf("acme grants %s, globex %s: %s is open: %v", f.acme, f.globex, name, !want)
					}
				}
			}
		}
	})
}
