package storage

import (
	"database/sql"
	"fmt"
	"math"

	"hansa/matrix"
)

// Depart notes which domains were hosted by this deployment and are not any more, and suspends what others have agreed with them: as a tenant
// such a domain had to agree as well, and whoever has it next, elsewhere, is somebody that nobody has agreed with. It returns those that it
// has not noted before. A domain that is hosted again is forgotten; the agreements stay suspended until they are approved again.
func (tx *Tx) Depart(hosted []matrix.ServerName) ([]matrix.ServerName, error) {
	if _, err := tx.exec(`DELETE FROM departed_tenants WHERE tenant SET($1)`, setOf(tx, hosted)); err != nil {
		return nil, err
	}
	var gone []matrix.ServerName
	// The present key of a tenant is the one that is good for ever: see keyring.Ring.Register.
	err := tx.query(func(r *sql.Rows) error {
		var name string
		err := r.Scan(&name)
		gone = append(gone, matrix.ServerName(name))
		return err
	}, `SELECT DISTINCT k.server FROM server_keys k WHERE k.valid_until = $1 AND k.source = k.server AND NOT (k.server SET($2))
		AND NOT EXISTS (SELECT 1 FROM departed_tenants d WHERE d.tenant = k.server)`, int64(math.MaxInt64), setOf(tx, hosted))
	if err != nil || len(gone) == 0 {
		return nil, err
	}
	rows := make([][]any, len(gone))
	for i, name := range gone {
		rows[i] = []any{string(name), tx.nowMS()}
	}
	if err := tx.bulk(`INSERT INTO departed_tenants (tenant, departed_ts)`, []string{"TEXT", "BIGINT"}, "", rows, nil); err != nil {
		return nil, err
	}
	n, err := tx.exec(`UPDATE agreements SET state = 'suspended', changed_by = '', changed_ts = $1 WHERE partner SET($2) AND state IN ('active', 'proposed')`,
		tx.nowMS(), setOf(tx, gone))
	if err != nil {
		return nil, fmt.Errorf("suspend agreements with domains that are gone: %w", err)
	}
	if n > 0 {
		err = tx.Announce(NoticeAgreement, "")
	}
	return gone, err
}
