package storage

// ChangeAgreement stores a record if what is stored now is still before (nil: nothing is stored), and announces it. It reports
// false when somebody else was faster, so that of several who change one record at a time each sees what the others did.
func (tx *Tx) ChangeAgreement(before *Agreement, a Agreement) (bool, error) {
	var n int64
	var err error
	if before == nil {
		n, err = tx.exec(`INSERT INTO agreements (owner, partner, id, state, scope, valid_from, valid_until, changed_by, changed_ts)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (owner, partner) DO NOTHING`,
			a.Owner, a.Partner, a.ID, a.State, a.Scope, a.ValidFrom, a.ValidUntil, dbText(a.ChangedBy), tx.nowMS())
	} else {
		n, err = tx.exec(`UPDATE agreements SET id = $3, state = $4, scope = $5, valid_from = $6, valid_until = $7, changed_by = $8, changed_ts = $9
			WHERE owner = $1 AND partner = $2 AND id = $10 AND state = $11 AND scope = $12 AND changed_ts = $13`,
			a.Owner, a.Partner, a.ID, a.State, a.Scope, a.ValidFrom, a.ValidUntil, dbText(a.ChangedBy), tx.nowMS(),
			before.ID, before.State, before.Scope, before.ChangedTS)
	}
	if err != nil || n != 1 {
		return false, err
	}
	return true, tx.Announce(NoticeAgreement, a.Owner)
}

// LoadAgreement returns the record that owner holds about partner, or ErrNotFound.
func (tx *Tx) LoadAgreement(owner, partner string) (*Agreement, error) {
	a := &Agreement{Owner: owner, Partner: partner}
	err := tx.row(`SELECT id, state, scope, valid_from, valid_until, changed_by, changed_ts FROM agreements WHERE owner = $1 AND partner = $2`,
		[]any{owner, partner}, &a.ID, &a.State, &a.Scope, &a.ValidFrom, &a.ValidUntil, &a.ChangedBy, &a.ChangedTS)
	if err != nil {
		return nil, err
	}
	return a, nil
}
