package homeserver

import (
	"context"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/policy"
	"hansa/storage"
)

// recorder writes the decision log. It implements policy.Recorder.
type recorder struct{ db *storage.DB }

var _ policy.Recorder = (*recorder)(nil)

// RecordDecisions implements policy.Recorder: the records are durable when it returns.
func (r *recorder) RecordDecisions(ctx context.Context, records []policy.Record) error {
	list := make([]storage.Decision, len(records))
	for i, rec := range records {
		detail, err := json.Marshal(struct {
			Tenants []string        `json:"tenants"`
			Reasons []policy.Reason `json:"reasons"`
			Error   string          `json:"error,omitzero"`
			Input   jsontext.Value  `json:"input"`
			// Repeated is how often the same refusal came again since its first record.
			Repeated int64 `json:"repeated,omitzero"`
		}{rec.Tenants, rec.Reasons, rec.Error, rec.Input, rec.Repeated})
		if err != nil {
			return err
		}
		list[i] = storage.Decision{ID: rec.ID, TS: rec.Time.UnixMilli(), Tenant: rec.Tenant, Point: string(rec.Point), Revision: rec.Revision,
			Allow: rec.Allow, Subject: rec.Subject, Target: rec.Target, Room: rec.Room, Detail: detail}
	}
	return r.db.Update(ctx, func(tx *storage.Tx) error {
		batch := append([]storage.Decision(nil), list...) // the transaction may run again
		return tx.AppendDecisions(batch)
	})
}

// loadAgreements reads what the tenants hold about their partners, as policy wants it.
func loadAgreements(ctx context.Context, db *storage.DB) ([]policy.Agreement, error) {
	var rows []storage.Agreement
	err := db.Read(ctx, func(tx *storage.Tx) (err error) { rows, err = tx.LoadAgreements(""); return err })
	if err != nil {
		return nil, err
	}
	out := make([]policy.Agreement, len(rows))
	for i, r := range rows {
		var scope policy.Scope
		if err := json.Unmarshal(r.Scope, &scope); err != nil {
			return nil, err
		}
		out[i] = policy.Agreement{ID: r.ID, State: r.State, Scope: &scope, Owner: r.Owner, Partner: r.Partner,
			ValidFrom: moment(r.ValidFrom), ValidUntil: moment(r.ValidUntil)}
	}
	return out, nil
}

func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
