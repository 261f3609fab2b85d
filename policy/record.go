package policy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Recorder keeps decisions durably. It is declared here because package policy is called from below the storage that
// implements it. RecordDecisions returns only when the records are safe; it may gather those of many callers into one commit.
type Recorder interface {
	RecordDecisions(ctx context.Context, records []Record) error
}

// Record is what is kept of a denial, and of an allowed act where the policy asks for it. It holds no message content, no
// tokens and no secrets.
type Record struct {
	// ID is the decision's id.
	ID string `json:"id"`
	// Time is when it was decided.
	Time time.Time `json:"time"`
	// Tenant is the tenant whose log it belongs to: the subject's if it is hosted here, else the one that was asked first.
	Tenant string `json:"tenant"`
	// Tenants are all tenants that were asked.
	Tenants []string `json:"tenants"`
	// Point is the decision point.
	Point Point `json:"point"`
	// Revision is the revision of rules and data.
	Revision string `json:"revision"`
	// Allow is the answer.
	Allow bool `json:"allow"`
	// Subject is the id of the subject.
	Subject string `json:"subject"`
	// Target is the id of the target.
	Target string `json:"target,omitzero"`
	// Room is the room's id.
	Room string `json:"room,omitzero"`
	// Reasons are the reasons.
	Reasons []Reason `json:"reasons"`
	// Error says why the engine could not decide.
	Error string `json:"error,omitzero"`
	// Repeated is how often the same refusal came again since its first record; 0 in that record.
	Repeated int64 `json:"repeated,omitzero"`
	// Input is the input, without what must not be kept.
	Input jsontext.Value `json:"input"`
}

const recordTimeout = 10 * time.Second

// record keeps a decision and waits until it is kept. It is kept even if the caller has given up. A decision that cannot be
// kept denies.
func (e *Engine) record(ctx context.Context, d Decision, f *frame) Decision {
	if e.opts.Recorder == nil {
		return d
	}
	r, err := e.newRecord(d, f)
	if err == nil {
		err = e.save(ctx, []Record{r})
	}
	if err != nil {
		return e.unrecorded(d, err)
	}
	return d
}

// save hands records to the recorder, whether or not the caller goes on.
func (e *Engine) save(ctx context.Context, records []Record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	return e.opts.Recorder.RecordDecisions(ctx, records)
}

// unrecorded turns a decision that could not be kept into one that could not be made.
func (e *Engine) unrecorded(d Decision, err error) Decision {
	d.Allow = false
	d.Err = errors.Join(d.Err, fmt.Errorf("%w: %w", ErrRecord, err))
	d.Reasons = addReasons(d.Reasons, Reason{Code: CodePolicyError, Message: "The decision could not be recorded; an administrator has been alerted."})
	e.metrics.failed(d.Point, d.Err)
	e.opts.Log.WithField("decision_id", d.ID).WithField("err", err).Error("policy: a decision could not be recorded")
	return d
}

func (e *Engine) newRecord(d Decision, f *frame) (Record, error) {
	in := masked(f.in, e.opts.RecordIP)
	in.Tenant, in.Server = Tenant{}, f.asGiven
	if len(f.asked) > 0 {
		in.Tenant.Name = f.asked[0]
	}
	data, err := json.Marshal(in, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return Record{}, fmt.Errorf("input: %w", err)
	}
	r := Record{ID: d.ID, Time: f.in.Time.UTC(), Tenant: in.Tenant.Name, Tenants: append([]string(nil), f.asked...), Point: d.Point, Revision: d.Revision,
		Allow: d.Allow, Reasons: d.Reasons, Input: data}
	if f.in.Subject != nil {
		r.Subject = f.in.Subject.ID
	}
	if f.in.Target != nil {
		r.Target = f.in.Target.ID
	}
	if f.in.Room != nil {
		r.Room = f.in.Room.ID
	}
	if d.Err != nil {
		r.Error = clean(d.Err.Error(), 500)
	}
	return r, nil
}

// masked returns a copy of an input without message content and search terms and, unless they are wanted, addresses.
func masked(in Input, addresses bool) Input {
	in.Schema = InputSchema
	if in.Event != nil && in.Event.Content != nil {
		ev := *in.Event
		ev.Content = nil
		in.Event = &ev
	}
	if in.Search != nil {
		in.Search = &Search{}
	}
	if addresses {
		return in
	}
	if in.Request != nil {
		r := *in.Request
		r.IP = ""
		in.Request = &r
	}
	for _, p := range []**Party{&in.Subject, &in.Target} {
		if *p != nil && (*p).Network != nil {
			*p = (*p).With((*p).Device, &Network{Zone: (*p).Network.Zone})
		}
	}
	return in
}
