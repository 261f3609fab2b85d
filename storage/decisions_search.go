package storage

// DecisionFilter says which records of the decision log are wanted; members that are empty want all.
type DecisionFilter struct {
	Tenant, Point, Subject, Target, Room string
	// Allow is "true", "false" or empty for both.
	Allow string
	// Since and Until bound the time in ms; 0 for no bound.
	Since, Until int64
	// Before is the sequence number that the records are older than; 0 for the newest.
	Before int64
}

// SearchDecisions returns up to limit records that fit the filter, newest first.
func (tx *Tx) SearchDecisions(f DecisionFilter, limit int) ([]Decision, error) {
	return tx.decisions(selectDecisionsSQL+`WHERE ($1 = '' OR tenant = $1) AND ($2 = '' OR point = $2) AND ($3 = '' OR subject = $3)
		AND ($4 = '' OR target = $4) AND ($5 = '' OR room_id = $5) AND ($6 = '' OR $6 = 'true' AND allow = 1 OR $6 = 'false' AND allow = 0)
		AND ts >= $7 AND (CAST($8 AS BIGINT) = 0 OR ts < $8) AND (CAST($9 AS BIGINT) = 0 OR seq < $9) ORDER BY seq DESC LIMIT $10`,
		dbText(f.Tenant), f.Point, dbText(f.Subject), dbText(f.Target), dbText(f.Room), f.Allow, f.Since, f.Until, f.Before, limit)
}
