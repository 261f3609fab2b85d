package policy

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"
)

// cpu adds the processor time of one operation to the figures: the machine may be shared.
func cpu(b *testing.B) func() {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	start := used()
	return func() { b.ReportMetric(float64(used()-start)/float64(b.N)/1000, "cpu-us/op") }
}

func benchEngine(b *testing.B) (*fixture, *Party, *Party) {
	b.Helper()
	e := newEngine(b, acmeFiles(), func(o *Options) { o.Recorder = nil; o.Now = time.Now })
	return e, e.user("@alice:acme.example", "rnd"), e.user("@bob:acme.example", "rnd")
}

// benchInputs is one typical question for each point that is asked often.
func benchInputs(a, b *Party) map[Point]*Input {
	aud := NewAudience(a, b)
	room := send(a, aud).Room
	pair := func(p Point) *Input { return &Input{Point: p, Subject: a, Target: b} }
	inRoom := func(p Point) *Input { return &Input{Point: p, Subject: a, Room: room, Audience: aud} }
	ins := map[Point]*Input{EventSend: send(a, aud), RoomInvite: invite(a, b, aud), AccountLogin: {Point: AccountLogin, Subject: a, Request: &Request{IP: "192.0.2.1"}, Account: &Account{Username: "alice", Via: "password"}},
		RoomCreate:  {Point: RoomCreate, Subject: a, Room: &Room{Version: "12", Tenant: acme, JoinRule: "invite", HistoryVisibility: "shared", Federate: true, Servers: []string{string(acme)}}},
		MediaUpload: {Point: MediaUpload, Subject: a, Media: &Media{MimeType: "image/png", Size: 1000, Server: acme}}}
	for _, p := range []Point{ProfileRead, PresenceRead, KeysQuery, ToDeviceSend, DirectorySearch} {
		ins[p] = pair(p)
	}
	for _, p := range []Point{RoomJoin, RoomRead, TypingSend, ReceiptSend} {
		ins[p] = inRoom(p)
	}
	ins[RoomState] = send(a, aud)
	ins[RoomState].Point = RoomState
	key := ""
	ins[RoomState].Event = &Event{Type: "m.room.name", StateKey: &key, Size: 30}
	return ins
}

// BenchmarkDecideFirst measures an act that was never asked before.
func BenchmarkDecideFirst(b *testing.B) {
	e, alice, bob := benchEngine(b)
	for p, in := range benchInputs(alice, bob) {
		b.Run(string(p), func(b *testing.B) {
			b.ReportAllocs()
			s := e.current.Load()
			defer cpu(b)()
			for b.Loop() {
				s.memo = newMemo()
				if d := e.Decide(context.Background(), in); d.Memo || d.Err != nil || !d.Allow {
					b.Fatalf("%+v", d)
				}
			}
		})
	}
}

// BenchmarkDecideMemo measures an act that repeats.
func BenchmarkDecideMemo(b *testing.B) {
	e, alice, bob := benchEngine(b)
	for p, in := range benchInputs(alice, bob) {
		b.Run(string(p), func(b *testing.B) {
			b.ReportAllocs()
			e.Decide(context.Background(), in)
			defer cpu(b)()
			for b.Loop() {
				if d := e.Decide(context.Background(), in); !d.Memo {
					b.Fatalf("%+v", d)
				}
			}
		})
	}
}

func BenchmarkContact(b *testing.B) {
	e, alice, bob := benchEngine(b)
	b.ReportAllocs()
	defer cpu(b)()
	for b.Loop() {
		if !e.Contact(alice, bob) {
			b.Fatal("no contact")
		}
	}
}

// BenchmarkContactMatrix200Classes fills the matrix of 200 audience classes: 40,000 evaluations.
func BenchmarkContactMatrix200Classes(b *testing.B) {
	e, _, _ := benchEngine(b)
	users := make([]*Party, 200)
	for i := range users {
		users[i] = e.Resolve(Facts{UserID: fmt.Sprintf("@u%d:acme.example", i), Pools: []string{fmt.Sprintf("p%d", i), "office"}})
	}
	for b.Loop() {
		s := e.current.Load()
		s.contacts = newContacts(s.rules.contact)
		for _, x := range users {
			for _, y := range users {
				e.Contact(x, y)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/40000, "us/pair")
}

func BenchmarkResolve(b *testing.B) {
	e, _, _ := benchEngine(b)
	f := Facts{UserID: "@alice:acme.example", Groups: []string{"rnd", "staff"}}
	b.ReportAllocs()
	for b.Loop() {
		e.Resolve(f)
	}
}

// BenchmarkReload measures how long a set takes to become active.
func BenchmarkReload(b *testing.B) {
	e, _, _ := benchEngine(b)
	n := 0
	for b.Loop() {
		n++
		put(b, e.dir, "acme.example/tenant.yaml", fmt.Sprintf("marketing%d: {groups: [m]}\n", n))
		if err := e.Reload(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkContactFirst measures a pair of classes that was never asked before, one that may meet and one that may not.
func BenchmarkContactFirst(b *testing.B) {
	e, alice, bob := benchEngine(b)
	carol := e.user("@carol:acme.example", "sales")
	for name, other := range map[string]*Party{"allowed": bob, "denied": carol} {
		b.Run(name, func(b *testing.B) {
			s := e.current.Load()
			x, y := s.contacts.reads.project(e.codec, alice), s.contacts.reads.project(e.codec, other)
			b.ReportAllocs()
			defer cpu(b)()
			for b.Loop() {
				e.evaluateContact(s, x, y, time.Now())
			}
		})
	}
}
