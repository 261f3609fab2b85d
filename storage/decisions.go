package storage

import (
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"fmt"
)

// Decision is one record of the decision log.
type Decision struct {
	Seq                                            int64
	ID                                             string
	TS                                             int64 // ms since 1970
	Tenant, Point, Revision, Subject, Target, Room string
	Allow                                          bool
	// Detail is JSON: reasons, the masked input, errors.
	Detail []byte
	// Chain is the hash over this record and the chain before it.
	Chain []byte
}

// hash chains a record to what came before it.
func (d *Decision) hash(before []byte) []byte {
	h := sha256.New()
	h.Write(before)
	var n [8]byte
	for _, v := range []int64{d.Seq, d.TS, b2i(d.Allow)} {
		binary.BigEndian.PutUint64(n[:], uint64(v))
		h.Write(n[:])
	}
	for _, s := range []string{d.ID, d.Tenant, d.Point, d.Revision, d.Subject, d.Target, d.Room, string(d.Detail)} {
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	return h.Sum(nil)
}

func b2i(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// AppendDecisions adds records to the decision log and chains them by hash. The end of the chain stays locked until the
// transaction ends, so that there is one order on all nodes.
func (tx *Tx) AppendDecisions(list []Decision) error {
	if len(list) == 0 {
		return nil
	}
	var last int64
	var chain []byte
	if err := tx.row(`UPDATE decision_chain SET seq = seq + $1 WHERE id = 1 RETURNING seq, chain`, []any{int64(len(list))}, &last, &chain); err != nil {
		return fmt.Errorf("end of the decision log: %w", err)
	}
	rows := make([][]any, len(list))
	for i := range list {
		d := &list[i]
		d.Seq = last - int64(len(list)) + 1 + int64(i)
		d.Tenant, d.Subject, d.Target, d.Room = dbText(d.Tenant), dbText(d.Subject), dbText(d.Target), dbText(d.Room)
		d.Chain = d.hash(chain)
		chain = d.Chain
		rows[i] = []any{d.Seq, d.ID, d.TS, d.Tenant, d.Point, d.Revision, b2i(d.Allow), d.Subject, d.Target, d.Room, d.Detail, d.Chain}
	}
	err := tx.bulk(`INSERT INTO decisions (seq, id, ts, tenant, point, revision, allow, subject, target, room_id, detail, chain)`,
		[]string{"BIGINT", "TEXT", "BIGINT", "TEXT", "TEXT", "TEXT", "BIGINT", "TEXT", "TEXT", "TEXT", "BYTEA", "BYTEA"}, "", rows, nil)
	if err != nil {
		return err
	}
	_, err = tx.exec(`UPDATE decision_chain SET chain = $1 WHERE id = 1`, chain)
	return err
}

const selectDecisionsSQL = `SELECT seq, id, ts, tenant, point, revision, allow, subject, target, room_id, detail, chain FROM decisions `

func (tx *Tx) decisions(q string, args ...any) ([]Decision, error) {
	var out []Decision
	err := tx.query(func(r *sql.Rows) error {
		var d Decision
		var allow int64
		if err := r.Scan(&d.Seq, &d.ID, &d.TS, &d.Tenant, &d.Point, &d.Revision, &allow, &d.Subject, &d.Target, &d.Room, &d.Detail, &d.Chain); err != nil {
			return err
		}
		d.Allow = allow != 0
		out = append(out, d)
		return nil
	}, q, args...)
	return out, err
}

// LoadDecision returns one record, or ErrNotFound.
func (tx *Tx) LoadDecision(id string) (Decision, error) {
	list, err := tx.decisions(selectDecisionsSQL+`WHERE id = $1`, id)
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Decision{}, err
	}
	return list[0], nil
}

// LoadDecisions returns up to limit records after a sequence number, oldest first; of one tenant unless tenant is empty.
func (tx *Tx) LoadDecisions(tenant string, after int64, limit int) ([]Decision, error) {
	if tenant == "" {
		return tx.decisions(selectDecisionsSQL+`WHERE seq > $1 ORDER BY seq LIMIT $2`, after, limit)
	}
	return tx.decisions(selectDecisionsSQL+`WHERE tenant = $3 AND seq > $1 ORDER BY seq LIMIT $2`, after, limit, dbText(tenant))
}

// LoadNewestDecisions returns the newest records of a tenant (all tenants when it is empty), newest first.
func (tx *Tx) LoadNewestDecisions(tenant string, limit int) ([]Decision, error) {
	if tenant == "" {
		return tx.decisions(selectDecisionsSQL+`ORDER BY seq DESC LIMIT $1`, limit)
	}
	return tx.decisions(selectDecisionsSQL+`WHERE tenant = $2 ORDER BY seq DESC LIMIT $1`, limit, dbText(tenant))
}

// ChainError says where the decision log is not what was written.
type ChainError struct{ Seq int64 }

func (e *ChainError) Error() string {
	return fmt.Sprintf("storage: the decision log was changed: record %d does not follow from those before it", e.Seq)
}

// VerifyDecisions goes through the whole decision log and checks that no record was changed, removed or put in. It returns how many
// there are; the error of a log that was tampered with is *ChainError.
func (tx *Tx) VerifyDecisions() (int64, error) {
	var chain []byte
	var seq int64
	for {
		list, err := tx.decisions(selectDecisionsSQL+`WHERE seq > $1 ORDER BY seq LIMIT 1000`, seq)
		if err != nil {
			return seq, err
		}
		for i := range list {
			d := &list[i]
			if d.Seq != seq+1 || string(d.hash(chain)) != string(d.Chain) {
				return seq, &ChainError{seq + 1}
			}
			seq, chain = d.Seq, d.Chain
		}
		if len(list) < 1000 {
			break
		}
	}
	var end int64
	var last []byte
	if err := tx.row(`SELECT seq, chain FROM decision_chain WHERE id = 1`, nil, &end, &last); err != nil {
		return seq, err
	}
	if end != seq || seq > 0 && string(last) != string(chain) {
		return seq, &ChainError{seq + 1}
	}
	return seq, nil
}

// Agreement is what one tenant (the owner) holds about a partner.
type Agreement struct {
	Owner, Partner, ID, State string
	Scope                     []byte // JSON, see policy.Scope
	ValidFrom, ValidUntil     int64  // ms since 1970; 0 for no bound
	ChangedBy                 string
	ChangedTS                 int64
}

// PutAgreement stores a record and announces it.
func (tx *Tx) PutAgreement(a Agreement) error {
	_, err := tx.exec(`INSERT INTO agreements (owner, partner, id, state, scope, valid_from, valid_until, changed_by, changed_ts)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (owner, partner) DO UPDATE SET id = excluded.id, state = excluded.state,
		scope = excluded.scope, valid_from = excluded.valid_from, valid_until = excluded.valid_until, changed_by = excluded.changed_by,
		changed_ts = excluded.changed_ts`,
		a.Owner, a.Partner, a.ID, a.State, a.Scope, a.ValidFrom, a.ValidUntil, a.ChangedBy, tx.nowMS())
	if err != nil {
		return err
	}
	return tx.Announce(NoticeAgreement, a.Owner)
}

// LoadAgreements returns all records, or those of one owner.
func (tx *Tx) LoadAgreements(owner string) ([]Agreement, error) {
	var out []Agreement
	err := tx.query(func(r *sql.Rows) error {
		var a Agreement
		if err := r.Scan(&a.Owner, &a.Partner, &a.ID, &a.State, &a.Scope, &a.ValidFrom, &a.ValidUntil, &a.ChangedBy, &a.ChangedTS); err != nil {
			return err
		}
		out = append(out, a)
		return nil
	}, `SELECT owner, partner, id, state, scope, valid_from, valid_until, changed_by, changed_ts FROM agreements
		WHERE $1 = '' OR owner = $1 ORDER BY owner, partner`, owner)
	return out, err
}
