package policy

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// propertyFiles hold rules that read the input in as many ways as rules can: through aliases, functions, defaults,
// negation, comprehensions, every, object.get, other rules, and parts of collections.
func propertyFiles() map[string]string {
	files := acmeFiles()
	files["acme.example/lib.rego"] = `package tenants["acme.example"].lib

who := input.subject

target_pools := object.get(input, ["target", "pools"], [])

big(thing, limit) if thing.size > limit

shared(a, b) := {p | some p in a.pools; p in b.pools}

label(room) := x if {
	some x in room.labels
	startswith(x, "secret")
}

step(p) := "first" if p.attributes.grade == "a"

else := "second" if p.attributes.x == "y"

else := "third"

first([x, _]) := x.attributes.z

is_y if input.subject.attributes.x == "y"

default grade := "none"

grade := input.subject.attributes.grade
`
	files["acme.example/a.rego"] = tenantRule(EventSend, `import data.tenants["acme.example"].lib

deny contains {"code": "big", "message": "m"} if {
	e := input.event
	lib.big(e, 50)
	e.msgtype == "m.text"
}

deny contains {"code": "grade", "message": lib.grade} if lib.grade in {"c", "d"}

deny contains {"code": "label", "message": l} if l := lib.label(input.room)

deny contains {"code": "device", "message": "m"} if {
	not input.subject.device.verified
	some k, v in lib.who.attributes
	k == "x"
	v == "y"
}

deny contains {"code": "every", "message": "m"} if {
	count(input.room.servers) > 1
	every s in input.room.servers { s != "acme.example" }
}

deny contains {"code": "state", "message": "m"} if input.event.state_key

deny contains {"code": "ip", "message": "m"} if net.cidr_contains("10.0.0.0/8", object.get(input, ["request", "ip"], "0.0.0.0"))`)
	files["acme.example/b.rego"] = tenantRule(RoomInvite, `import data.tenants["acme.example"].lib

deny contains {"code": "shared", "message": concat(",", sort(lib.shared(input.subject, input.target)))} if count(lib.shared(input.subject, input.target)) > 1

deny contains {"code": "step", "message": s} if {
	s := lib.step(input.target)
	s != "third"
}

deny contains {"code": "first", "message": z} if z := lib.first([input.target, input.room])

deny contains {"code": "with", "message": "m"} if lib.is_y with input.subject as input.target

deny contains {"code": "key", "message": v} if {
	some k in ["membership", "version"]
	v := input.room[k]
	v == ""
}

deny contains {"code": "pools", "message": "m"} if count(lib.target_pools) > 2

deny contains {"code": "same", "message": "m"} if {
	a := input.subject
	b := input.target
	a.attributes == b.attributes
	a.attributes != {}
}

obligations := {"retention": r} if r := lib.who.attributes.grade`)
	files["acme.example/c.rego"] = tenantRule(Contact, `deny contains {"code": "grades", "message": "m"} if {
	input.subject.attributes.grade == "a"
	input.target.attributes.grade == "d"
}

deny contains {"code": "roles", "message": "m"} if "hermit" in input.target.roles`)
	return files
}

func genParty(e *fixture) *rapid.Generator[*Party] {
	return rapid.Custom(func(t *rapid.T) *Party {
		tenant := rapid.SampledFrom([]string{acme, acme, acme, globex, "remote.example"}).Draw(t, "tenant")
		f := Facts{UserID: fmt.Sprintf("@u%d:%s", rapid.IntRange(0, 2).Draw(t, "user"), tenant),
			Groups:     rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"rnd", "sales", "marketing", "office"}), 0, 3, rapid.ID[string]).Draw(t, "groups"),
			Roles:      rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"admin", "hermit"}), 0, 1, rapid.ID[string]).Draw(t, "roles"),
			Attributes: rapid.MapOfN(rapid.SampledFrom([]string{"grade", "x", "z"}), rapid.SampledFrom([]string{"a", "c", "d", "y"}), 0, 2).Draw(t, "attributes")}
		p := e.Resolve(f)
		if rapid.Bool().Draw(t, "device") {
			p = p.With(&Device{ID: "D", Verified: rapid.Bool().Draw(t, "verified")}, nil)
		}
		return p
	})
}

func genInput(e *fixture) *rapid.Generator[*Input] {
	return rapid.Custom(func(t *rapid.T) *Input {
		party := genParty(e)
		in := &Input{Point: rapid.SampledFrom([]Point{EventSend, EventSend, RoomInvite, RoomInvite, RoomJoin, ProfileRead, KeysQuery, RoomState, TypingSend}).Draw(t, "point"), Subject: party.Draw(t, "subject")}
		if rapid.Bool().Draw(t, "target") || in.Point == RoomInvite {
			in.Target = party.Draw(t, "target")
		}
		if rapid.Bool().Draw(t, "request") {
			in.Request = &Request{IP: rapid.SampledFrom([]string{"10.1.2.3", "192.0.2.1"}).Draw(t, "ip")}
		}
		in.Audience = NewAudience(rapid.SliceOfN(party, 0, 3).Draw(t, "audience")...)
		in.Room = &Room{ID: "!r:x", Version: "12", Tenant: rapid.SampledFrom([]string{acme, globex}).Draw(t, "room"), JoinRule: "invite", HistoryVisibility: "shared", Federate: true,
			Membership: rapid.SampledFrom([]string{"join", ""}).Draw(t, "membership"), Servers: rapid.SliceOfN(rapid.SampledFrom([]string{acme, globex, "remote.example"}), 1, 2).Draw(t, "servers"),
			Labels: rapid.SliceOfN(rapid.SampledFrom([]string{"secret-1", "open"}), 0, 2).Draw(t, "labels")}
		in.Event = &Event{Type: rapid.SampledFrom([]string{"m.room.message", "m.room.topic"}).Draw(t, "type"), MsgType: rapid.SampledFrom([]string{"m.text", "m.image"}).Draw(t, "msgtype"), Size: rapid.SampledFrom([]int{45, 55}).Draw(t, "size")}
		if rapid.Bool().Draw(t, "state") {
			key := ""
			in.Event.StateKey = &key
		}
		return in
	})
}

func answer(d Decision) string {
	reasons := slices.Clone(d.Reasons)
	slices.SortFunc(reasons, func(a, b Reason) int { return cmpReason(a, b) })
	return fmt.Sprintf("%t %+v %+v %v", d.Allow, reasons, d.Obligations, d.Err)
}

func cmpReason(a, b Reason) int {
	return slices.Compare([]string{a.Code, a.Message, a.Rule}, []string{b.Code, b.Message, b.Rule})
}

// TestProperty_MemoEqualsFresh: an answer from the memo or the matrix is the answer a fresh evaluation gives.
func TestProperty_MemoEqualsFresh(t *testing.T) {
	t.Parallel()
	e := newEngine(t, propertyFiles(), func(o *Options) { o.Recorder = nil })
	must(t, e.SetAgreements(context.Background(), []Agreement{agree(acme, globex), agree(globex, acme)}))
	fresh := newEngine(t, nil, func(o *Options) { o.Recorder = nil; o.Bundles = []string{e.dir} })
	must(t, fresh.SetAgreements(context.Background(), []Agreement{agree(acme, globex), agree(globex, acme)}))
	ctx := context.Background()
	for _, plans := range append([]map[Point]*pointPlan{fresh.current.Load().rules.plain}, slices.Collect(maps.Values(fresh.current.Load().rules.custom))...) {
		for _, pl := range plans {
			pl.only = nil // the fresh engine gives rules the whole input
		}
	}
	memo := 0
	rapid.Check(t, func(rt *rapid.T) {
		in := genInput(e).Draw(rt, "input")
		d := e.Decide(ctx, in)
		if d.Memo {
			memo++
		}
		s := fresh.current.Load()
		s.memo, s.contacts = newMemo(), newContacts(s.rules.contact)
		copied := *in
		copied.Subject = reparty(in.Subject)
		copied.Target = reparty(in.Target)
		copied.Audience = NewAudience()
		for _, p := range in.Audience.members {
			copied.Audience.Add(reparty(p))
		}
		want := fresh.Decide(ctx, &copied)
		if answer(d) != answer(want) {
			rt.Fatalf("memo %t\n got %s\nwant %s", d.Memo, answer(d), answer(want))
		}
		if in.Target != nil {
			if got, want := e.Contact(in.Subject, in.Target), fresh.Contact(copied.Subject, copied.Target); got != want {
				rt.Fatalf("contact %t, want %t", got, want)
			}
		}
	})
	t.Logf("%d answers came from the memo", memo)
}

// reparty copies a party without what an engine noted on it.
func reparty(p *Party) *Party {
	if p == nil {
		return nil
	}
	c := p.With(p.Device, p.Network)
	c.class.Store(nil)
	return c
}

// TestProperty_AudienceEqualsPairs: being with everybody in an audience is contact with each, whatever came and went.
func TestProperty_AudienceEqualsPairs(t *testing.T) {
	t.Parallel()
	e := newEngine(t, propertyFiles(), func(o *Options) { o.Recorder = nil })
	must(t, e.SetAgreements(context.Background(), []Agreement{agree(acme, globex), agree(globex, acme)}))
	rapid.Check(t, func(rt *rapid.T) {
		a := NewAudience()
		in := map[string]*Party{}
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			p := genParty(e).Draw(rt, "party")
			switch rapid.IntRange(0, 3).Draw(rt, "step") {
			case 0:
				a.Remove(p)
				delete(in, p.ID)
			case 1:
				want := true
				for id, q := range in {
					if id != p.ID && !e.Contact(p, q) && !e.Contact(q, p) {
						want = false
					}
				}
				if got, err := e.AudienceContact(p, a); err != nil || got != want {
					rt.Fatalf("AudienceContact(%s %v) = %t, want %t with %v", p.ID, p.Pools, got, want, in)
				}
			case 2:
				if rapid.IntRange(0, 9).Draw(rt, "reload") == 0 {
					must(t, e.SetTenants(context.Background(), []string{acme, globex}))
				}
			default:
				a.Add(p)
				in[p.ID] = p
			}
		}
		if a.Len() != len(in) {
			rt.Fatalf("Len %d, want %d", a.Len(), len(in))
		}
	})
}

// TestProperty_ClassKey: keys say the same as parties do.
func TestProperty_ClassKey(t *testing.T) {
	t.Parallel()
	e := newEngine(t, propertyFiles(), func(o *Options) { o.Recorder = nil })
	must(t, e.SetAgreements(context.Background(), []Agreement{agree(acme, globex), agree(globex, acme)}))
	rapid.Check(t, func(rt *rapid.T) {
		viewer := genParty(e).Draw(rt, "viewer")
		others := rapid.SliceOfN(genParty(e), 1, 5).Draw(rt, "others")
		keys := []string{}
		for _, p := range others {
			keys = append(keys, e.ClassKey(p))
		}
		reachable := e.Reachable(viewer, keys)
		for i, p := range others {
			anonymous := reparty(p)
			anonymous.ID = "@somebody:else"
			if want := e.Contact(viewer, anonymous); slices.Contains(reachable, keys[i]) != want {
				rt.Fatalf("%s: reachable %t, want %t", keys[i], !want, want)
			}
		}
	})
	if got := e.Reachable(e.user("@a:acme.example"), []string{"", "{}", "x", `{"kind":"user"}`, `{"kind":"user","nonsense":1}`}); len(got) > 0 {
		t.Errorf("unsound keys are reachable: %v", got)
	}
}

// TestProperty_KeysAreInjective: two different values never make the same key.
func TestProperty_KeysAreInjective(t *testing.T) {
	t.Parallel()
	e := newEngine(t, acmeFiles())
	c := e.codec
	rapid.Check(t, func(rt *rapid.T) {
		a, b := genInput(e).Draw(rt, "a"), genInput(e).Draw(rt, "b")
		ka, kb := c.appendKey(nil, reflect.ValueOf(a).Elem(), &access{}, false), c.appendKey(nil, reflect.ValueOf(b).Elem(), &access{}, false)
		ta, tb := c.structTerm(reflect.ValueOf(a).Elem(), nil), c.structTerm(reflect.ValueOf(b).Elem(), nil)
		if (string(ka) == string(kb)) != ta.Equal(tb) {
			rt.Fatalf("keys equal %t, terms equal %t:\n%v\n%v", string(ka) == string(kb), ta.Equal(tb), ta, tb)
		}
	})
}

// TestConcurrent asks, reloads and changes agreements at once; the race detector watches.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	e := newEngine(t, propertyFiles(), func(o *Options) { o.Now = time.Now })
	ctx := context.Background()
	alice, bob := e.user("@alice:acme.example", "rnd"), e.user("@bob:acme.example", "rnd")
	room := NewAudience(alice, bob)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 50 {
				in := send(alice, room)
				in.Event.Size = n % 7
				if d := e.Decide(ctx, in); !d.Allow {
					t.Errorf("%+v %v", d.Reasons, d.Err)
				}
				room.Add(e.user(fmt.Sprintf("@u%d:acme.example", i), "rnd"))
				room.Remove(&Party{ID: fmt.Sprintf("@u%d:acme.example", n%4)})
				e.Status()
			}
		})
	}
	for n := range 5 {
		put(t, e.dir, "acme.example/n.yaml", fmt.Sprintf("pool%d: {groups: [x], contact: open}\n", n))
		must(t, e.Reload(ctx))
		must(t, e.SetAgreements(ctx, []Agreement{agree(acme, globex)}))
	}
	wg.Wait()
}
