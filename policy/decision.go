package policy

import (
	"errors"
	"slices"
	"strings"

	"hansa/matrix"
)

// Errors that a Decision may carry in Err. Whoever sees one was denied, whatever else the decision says.
var (
	// ErrEvaluation is wrapped by errors of the rules themselves: conflicts, failed builtins, results of a wrong shape.
	ErrEvaluation = errors.New("policy: rules could not be evaluated")
	// ErrDeadline is wrapped when rules took too long, or are held back because they did so repeatedly.
	ErrDeadline = errors.New("policy: rules took too long")
	// ErrRecord is wrapped when a decision could not be recorded.
	ErrRecord = errors.New("policy: decision could not be recorded")
)

// Codes of reasons that the engine gives itself.
const (
	// CodePolicyError stands for rules that could not be evaluated.
	CodePolicyError = "policy_error"
	// CodeNoContact stands for parties that may not know of each other.
	CodeNoContact = "no_contact"
	// CodeNoTenant stands for a question that concerns no tenant of this deployment.
	CodeNoTenant = "no_tenant"
	// CodeTooLarge stands for an event or media larger than the obligation max_bytes.
	CodeTooLarge = "too_large"
	// CodeObligationConflict stands for layers that demand the opposite of each other.
	CodeObligationConflict = "obligation_conflict"
)

// Reason is one reason of a denial.
type Reason struct {
	// Code is a stable word for programs.
	Code string `json:"code"`
	// Message is a sentence for the person who was refused.
	Message string `json:"message"`
	// Rule names the rule: its package, or file and line where they are known.
	Rule string `json:"rule,omitempty"`
}

// Obligations is what must also happen when something is allowed.
type Obligations struct {
	// Encryption is `required`, `forbidden` or empty.
	Encryption string `json:"encryption,omitempty"`
	// NoFederation says that the room must be made with m.federate false.
	NoFederation bool `json:"no_federation,omitempty"`
	// HistoryVisibility is the most that the room may show, or empty.
	HistoryVisibility string `json:"history_visibility,omitempty"`
	// MaxBytes is the largest size allowed, 0 for no limit.
	MaxBytes int64 `json:"max_bytes,omitempty"`
	// Retention is the retention class, or empty.
	Retention string `json:"retention,omitempty"`
	// RecordFull says that the decision must be recorded whole although it allows.
	RecordFull bool `json:"record_full,omitempty"`
	// PushEventIDOnly says that push notifications may carry no more than the event id.
	PushEventIDOnly bool `json:"push_event_id_only,omitempty"`
	// LeaveStrangers says that our people have to leave rooms that hold the server in question, where nobody of ours can remove it.
	LeaveStrangers bool `json:"leave_strangers,omitempty"`
}

// Decision is the answer to one question.
type Decision struct {
	// Allow is true only if every layer of every concerned tenant allowed.
	Allow bool `json:"allow"`
	// Reasons are all reasons of a denial.
	Reasons []Reason `json:"reasons"`
	// Obligations is what must also happen.
	Obligations Obligations `json:"obligations,omitzero"`
	// ID names this decision in answers, logs and records. Unique.
	ID string `json:"decision_id"`
	// Revision is the id of the rules and data that decided.
	Revision string `json:"revision"`
	// Generation counts the sets that this process made active; see Engine.Fresh.
	Generation uint64 `json:"-"`
	// Point is the point that was asked.
	Point Point `json:"point"`
	// Memo says that the answer was known already.
	Memo bool `json:"-"`
	// Err is set when the engine could not decide; then Allow is false.
	Err error `json:"-"`
}

// Small is what is kept of an allowed act, together with what the act wrote.
type Small struct {
	// ID is the decision's id.
	ID string `json:"id"`
	// Revision is the revision that allowed it.
	Revision string `json:"revision"`
	// Point is the point that was asked.
	Point Point `json:"point"`
}

// Small returns the short record of an allowed act.
func (d Decision) Small() Small { return Small{ID: d.ID, Revision: d.Revision, Point: d.Point} }

// Error is nil when the decision allows, and else what the asker is told: 403 with the first message, all reasons and the decision
// id; 503 where the engine could not decide, so that clients and servers try again and nothing is lost.
//
// spec: client-server-api#standard-error-response
func (d Decision) Error() *matrix.Error {
	if d.Allow {
		return nil
	}
	if d.Err != nil {
		return matrix.Errorf(503, matrix.CodeUnknown, "The policy cannot decide at present; try again later.").
			With("org.hansa.decision_id", d.ID).With("retry_after_ms", 5000)
	}
	message := "This is not allowed here."
	if len(d.Reasons) > 0 {
		message = d.Reasons[0].Message
	}
	reasons := make([]any, len(d.Reasons))
	for i, r := range d.Reasons {
		reasons[i] = map[string]any{"code": r.Code, "message": r.Message}
	}
	return matrix.Errorf(403, matrix.CodeForbidden, "%s", message).With("org.hansa.decision_id", d.ID).With("org.hansa.reasons", reasons)
}

// Hidden is like Error for look-ups that must not reveal whether something exists: what is denied is not found.
func (d Decision) Hidden() *matrix.Error {
	if d.Allow {
		return nil
	}
	return d.NotFound("This does not exist, or you may not know of it.")
}

// NotFound is the answer of a look-up both to what policy denies and to what does not exist, so that nobody can tell one from the other.
// It names the decision in both cases; to an admin, the decision gives the reasons.
func (d Decision) NotFound(message string) *matrix.Error {
	return matrix.NotFound("%s", message).With("org.hansa.decision_id", d.ID)
}

// Has says whether a reason with the code was given.
func (d Decision) Has(code string) bool {
	return slices.ContainsFunc(d.Reasons, func(r Reason) bool { return r.Code == code })
}

// limitSize enforces the obligation max_bytes. It is done outside the rules, so that every size has one remembered answer.
func (d *Decision) limitSize(in *Input) {
	limit := d.Obligations.MaxBytes
	if !d.Allow || limit == 0 || (in.Event == nil || int64(in.Event.Size) <= limit) && (in.Media == nil || in.Media.Size <= limit) {
		return
	}
	d.Allow = false
	d.Reasons = []Reason{{Code: CodeTooLarge, Message: "This is larger than allowed.", Rule: "obligation max_bytes"}}
}

// verdict is what a decision and its repetitions share. It never changes.
type verdict struct {
	allow       bool
	reasons     []Reason
	obligations Obligations
	minute      int64 // the minute it holds for, 0 when the clock does not matter
	err         error
}

func deniedBy(code, message, rule string) *verdict {
	return &verdict{reasons: []Reason{{Code: code, Message: message, Rule: rule}}}
}

func failed(err error) *verdict {
	v := deniedBy(CodePolicyError, "The policy of this server could not be evaluated; an administrator has been alerted.", "")
	v.err = err
	return v
}

// addReasons appends reasons that are not there yet.
func addReasons(to []Reason, from ...Reason) []Reason {
	for _, r := range from {
		if !slices.Contains(to, r) {
			to = append(to, r)
		}
	}
	return to
}

// merge narrows o by p; the result is a conflict when they demand opposites.
func (o *Obligations) merge(p Obligations) (conflict bool) {
	if o.Encryption != "" && p.Encryption != "" && o.Encryption != p.Encryption {
		conflict = true
	}
	if o.Encryption == "" {
		o.Encryption = p.Encryption
	}
	if p.HistoryVisibility != "" && (o.HistoryVisibility == "" || rank(p.HistoryVisibility) < rank(o.HistoryVisibility)) {
		o.HistoryVisibility = p.HistoryVisibility
	}
	if p.MaxBytes > 0 && (o.MaxBytes == 0 || p.MaxBytes < o.MaxBytes) {
		o.MaxBytes = p.MaxBytes
	}
	if o.Retention == "" {
		o.Retention = p.Retention
	}
	o.NoFederation = o.NoFederation || p.NoFederation
	o.RecordFull = o.RecordFull || p.RecordFull
	o.PushEventIDOnly = o.PushEventIDOnly || p.PushEventIDOnly
	o.LeaveStrangers = o.LeaveStrangers || p.LeaveStrangers
	return conflict
}

// rank orders history visibilities from the strictest on; -1 is no visibility.
func rank(visibility string) int {
	return slices.Index([]string{"joined", "invited", "shared", "world_readable"}, visibility)
}

// String lists the reasons in one line, for logs and people.
func (d Decision) String() string {
	if d.Allow {
		return "allowed"
	}
	parts := make([]string, len(d.Reasons))
	for i, r := range d.Reasons {
		parts[i] = r.Code
	}
	return "denied: " + strings.Join(parts, ", ")
}
