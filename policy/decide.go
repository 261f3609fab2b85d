package policy

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// frame is one question while it is answered: the caller's input with what the engine adds.
type frame struct {
	in          Input
	room        Room
	server      Server
	contact     PairContact
	roomContact RoomContact
	agreements  Agreements
	asked       []string // tenants
	buf         []byte
	asGiven     *Server  // in.Server as the caller gave it
	given       bool     // the input came with facts that the engine usually establishes
	pair        *verdict // the contact decision behind in.Contact
	err         error    // contact could not be decided
}

func (e *Engine) frame(in *Input) *frame {
	f := e.frames.Get().(*frame)
	f.in = *in
	f.asGiven = in.Server
	if f.in.Bridge == nil && in.Subject != nil {
		f.in.Bridge = in.Subject.Bridge
	}
	return f
}

func (e *Engine) release(f *frame) {
	asked, buf := f.asked[:0], f.buf[:0]
	if cap(buf) > 64<<10 {
		buf = nil
	}
	*f = frame{asked: asked, buf: buf}
	e.frames.Put(f)
}

// ask adds a tenant to those whose rules are asked, if this deployment hosts it.
func (f *frame) ask(s *snapshot, tenant string) {
	if s.data.tenants[tenant] != nil && !slices.Contains(f.asked, tenant) {
		f.asked = append(f.asked, tenant)
	}
}

// Consider answers like Decide and records nothing: for looking ahead, where nobody has asked for anything yet.
func (e *Engine) Consider(ctx context.Context, in *Input) Decision {
	d, f := e.answer(ctx, in)
	e.release(f)
	return d
}

// Decide answers one question. Denials are recorded before it returns; an error of any kind denies.
func (e *Engine) Decide(ctx context.Context, in *Input) Decision {
	d, f := e.answer(ctx, in)
	defer e.release(f)
	switch info := e.points[in.Point]; {
	case !d.Allow && d.Err == nil && countsRepeats(in.Point):
		d = e.recordOnce(ctx, d, f)
	case !d.Allow && info.Kind != KindFilter, d.Obligations.RecordFull:
		d = e.record(ctx, d, f)
	}
	return d
}

// answer answers a question. The caller releases the frame.
func (e *Engine) answer(ctx context.Context, in *Input) (Decision, *frame) {
	now := e.opts.Now()
	s := e.snapshot(now)
	if !in.Time.IsZero() {
		now = in.Time
	}
	f := e.frame(in)
	f.in.Time = now
	v, memo := e.decide(ctx, s, f, now)
	d := e.decision(s, in.Point, v, memo)
	d.explainContact(f)
	d.limitSize(in)
	e.metrics.decided(&d)
	if d.Err != nil {
		e.metrics.failed(in.Point, d.Err)
		e.opts.Log.WithField("decision_id", d.ID).WithField("err", d.Err).Error("policy: a decision could not be made")
	}
	return d, f
}

func (e *Engine) decision(s *snapshot, p Point, v *verdict, memo bool) Decision {
	return Decision{Allow: v.allow && v.err == nil, Reasons: v.reasons, Obligations: v.obligations, ID: e.newID(), Revision: s.revision,
		Generation: s.generation, Point: p, Memo: memo, Err: v.err}
}

func (e *Engine) decide(ctx context.Context, s *snapshot, f *frame, now time.Time) (v *verdict, memo bool) {
	info, ok := e.points[f.in.Point]
	if !ok || f.in.Subject == nil {
		return failed(fmt.Errorf("%w: point %q with no subject or of no known name", ErrEvaluation, f.in.Point)), false
	}
	if f.in.Point == Contact && f.in.Target != nil && f.in.Agreements == nil {
		return e.contact(s, f.in.Subject, f.in.Target, now), false
	}
	f.askFor(s, info)
	if len(f.asked) == 0 {
		return deniedBy(CodeNoTenant, "This server has nothing to do with that.", ""), false
	}
	e.establish(s, f, now)
	minute := now.Unix()/60 + 1
	if !f.given {
		f.key(e.codec, s)
		if v := s.memo.get(f.buf, minute); v != nil {
			return v, true
		}
	}
	v = e.evaluate(ctx, s, f, nil)
	if v.err == nil && f.err != nil && !v.allow {
		v.err = f.err
	}
	if v.err == nil && !f.given {
		if f.clock(s) {
			v.minute = minute
		}
		s.memo.put(f.buf, v)
	}
	return v, false
}

// askFor finds the tenants that the point asks.
func (f *frame) askFor(s *snapshot, info PointInfo) {
	for _, who := range strings.Fields(info.Asks) {
		switch {
		case who == "subject":
			f.ask(s, f.in.Subject.Tenant)
		case who == "target" && f.in.Target != nil:
			f.ask(s, f.in.Target.Tenant)
		case who == "room" && f.in.Room != nil:
			f.ask(s, f.in.Room.Tenant)
		case who == "addressed" && (len(f.asked) == 0 || info.Asks != asksOwn):
			f.ask(s, f.in.Tenant.Name)
		}
	}
}

// establish fills the facts that are the engine's to find out, as far as the rules of the point read them.
func (e *Engine) establish(s *snapshot, f *frame, now time.Time) {
	in := &f.in
	needs := s.rules.needs[in.Point]
	f.given = in.Contact != nil || in.Agreements != nil || in.Room != nil && in.Room.Contact != nil || in.Server != nil && in.Server.Agreement != nil
	if in.Contact == nil && in.Target != nil && needs.contact {
		f.pair = e.contact(s, in.Subject, in.Target, now)
		back := e.contact(s, in.Target, in.Subject, now)
		f.contact = PairContact{Allow: f.pair.allow, Reverse: back.allow, Self: self(in.Subject, in.Target)}
		in.Contact = &f.contact
		f.err = firstError(f.pair, back)
	}
	if in.Room != nil && in.Room.Contact == nil && in.Audience != nil && needs.roomContact {
		newcomer := in.Subject
		if in.Point == RoomInvite && in.Target != nil {
			newcomer = in.Target
		}
		ok, err := e.audienceContact(s, newcomer, in.Audience, now)
		f.room = *in.Room
		f.roomContact = RoomContact{Allow: ok}
		f.room.Contact = &f.roomContact
		in.Room = &f.room
		if err != nil {
			f.err = err
		}
	}
}

func (f *frame) clock(s *snapshot) bool {
	for _, t := range f.asked {
		if s.rules.plan(f.in.Point, t).clock {
			return true
		}
	}
	return false
}

// key writes into buf everything the answer depends on: the point, the tenants asked, the names from which the engine
// derives facts, and the values at the paths that the rules of those tenants read.
func (f *frame) key(c *codec, s *snapshot) {
	b := appendString(f.buf[:0], string(f.in.Point))
	for _, t := range f.asked {
		b = appendString(b, t)
	}
	in := &f.in
	b = append(appendString(append(b, tagStruct), in.Subject.Tenant), tagStruct)
	if in.Target != nil {
		b = appendString(b, in.Target.Tenant)
	}
	b = append(b, tagStruct)
	if in.Room != nil {
		b = appendString(b, in.Room.Tenant)
	}
	b = append(b, tagStruct)
	if in.Server != nil {
		b = appendString(b, in.Server.Name)
	}
	b = append(b, tagStruct)
	if in.Media != nil {
		b = appendString(b, in.Media.Server)
	}
	root := reflect.ValueOf(in).Elem()
	for _, t := range f.asked {
		pl := s.rules.plan(in.Point, t)
		for i := range pl.values {
			b = c.appendKey(b, root, &pl.values[i], false)
		}
		for i := range pl.presence {
			b = c.appendKey(b, root, &pl.presence[i], true)
		}
	}
	f.buf = b
}

// evaluate asks the rules of every tenant in f.asked. A deny from anyone wins; all reasons are collected.
func (e *Engine) evaluate(ctx context.Context, s *snapshot, f *frame, t *tracing) *verdict {
	out := &verdict{allow: true}
	for _, tenant := range f.asked {
		e.evaluateTenant(ctx, s, f, tenant, out, t)
	}
	return out
}

// explainContact adds the reasons of the contact decision where the lack of contact is a reason. They are no part of what
// is remembered: they tell classes apart that the rules of the point may not.
func (d *Decision) explainContact(f *frame) {
	if !d.Allow && f.pair != nil && !f.pair.allow && d.Has(CodeNoContact) {
		d.Reasons = addReasons(slices.Clone(d.Reasons), f.pair.reasons...)
	}
}

func (e *Engine) evaluateTenant(ctx context.Context, s *snapshot, f *frame, tenant string, out *verdict, t *tracing) {
	data := s.data.tenants[tenant]
	pl := s.rules.plan(f.in.Point, tenant)
	e.sightOf(s, f, data)
	ev := &evaluator{compiler: s.rules.compiler, store: data.store, txn: data.txn, now: f.in.Time, limit: e.opts.Deadline,
		input: e.codec.structTerm(reflect.ValueOf(&f.in).Elem(), pl.only)}
	add := func(l *layer, library bool) {
		v := e.evaluateLayer(ctx, ev, l, library, tenant, f.in.Time, t)
		out.allow = out.allow && v.allow
		out.reasons = addReasons(out.reasons, v.reasons...)
		if out.err == nil {
			out.err = v.err
		}
		if out.obligations.merge(v.obligations) {
			out.allow = false
			out.reasons = addReasons(out.reasons, Reason{Code: CodeObligationConflict,
				Message: "The rules of this server demand and forbid encryption at the same time.", Rule: l.name})
		}
	}
	for _, l := range pl.narrow {
		add(l, false)
	}
	for _, pool := range poolsOf(&f.in, tenant) {
		if l := pl.pools[pool]; l != nil {
			add(l, false)
		}
	}
	if pl.library == nil {
		v := failed(fmt.Errorf("%w: the library has no rule for %s", ErrEvaluation, f.in.Point))
		out.allow, out.err, out.reasons = false, v.err, addReasons(out.reasons, v.reasons...)
		return
	}
	add(pl.library, true)
}

func (e *Engine) evaluateLayer(ctx context.Context, ev *evaluator, l *layer, library bool, tenant string, now time.Time, t *tracing) *verdict {
	key := breakerKey{l, tenant}
	if e.breaker.open(key, now) {
		return failed(fmt.Errorf("%w: %s is held back", ErrDeadline, l.name))
	}
	ev.tracer = t.begin(l, tenant)
	evaluate := ev.narrow
	if library {
		evaluate = ev.library
	}
	v := evaluate(ctx, l)
	if isDeadline(v.err) && e.breaker.fresh(key) {
		v = evaluate(ctx, l) // the machine may have been busy with something else
	}
	e.breaker.note(key, v.err, now)
	t.end(v)
	return v
}

// poolsOf lists the pools of the tenant that subject and target are in, each once.
func poolsOf(in *Input, tenant string) []string {
	var out []string
	for _, p := range []*Party{in.Subject, in.Target} {
		if p == nil || p.Tenant != tenant {
			continue
		}
		for _, name := range p.Pools {
			if !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out
}

// sightOf fills what depends on the tenant that is asked: itself, the other server as it sees it, and the agreements.
func (e *Engine) sightOf(s *snapshot, f *frame, data *tenantData) {
	in := &f.in
	in.Schema = InputSchema
	in.Tenant = data.info
	if in.Target != nil && in.Target.Tenant != in.Subject.Tenant && (in.Agreements == nil || in.Agreements == &f.agreements) {
		f.agreements = Agreements{Outgoing: s.data.agreement(in.Subject.Tenant, in.Target.Tenant), Incoming: s.data.agreement(in.Target.Tenant, in.Subject.Tenant)}
		in.Agreements = &f.agreements
	}
	if f.asGiven != nil && f.asGiven.Agreement != nil {
		return
	}
	name := normal(f.other(data.info.Name))
	if name == "" {
		in.Server = nil
		return
	}
	f.server = Server{Name: name, Local: s.data.tenants[name] != nil, Agreement: s.data.agreement(data.info.Name, name)}
	in.Server = &f.server
}

// other is the domain that takes part besides the tenant that is asked, empty when there is none.
func (f *frame) other(tenant string) string {
	in := &f.in
	if f.asGiven != nil && f.asGiven.Name != tenant {
		return f.asGiven.Name
	}
	names := [...]string{in.Subject.Tenant, "", "", ""}
	if in.Target != nil {
		names[1] = in.Target.Tenant
	}
	if in.Media != nil {
		names[2] = in.Media.Server
	}
	if in.Room != nil {
		names[3] = in.Room.Tenant
	}
	for _, n := range names {
		if n != "" && n != tenant {
			return n
		}
	}
	if f.asGiven != nil {
		return f.asGiven.Name
	}
	return ""
}
