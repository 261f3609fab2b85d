package storage

import (
	"database/sql"

	"hansa/matrix"
)

// ServerKey is one signing key of a server. The same ID with other bytes is another key with a period of its own.
type ServerKey struct {
	Server matrix.ServerName
	KeyID  string
	Public []byte
	// ValidFrom and ValidUntil are the period in ms in which events may be signed with it; ValidFrom is 0 where it is not known.
	ValidFrom, ValidUntil int64
	// Old says that it signs nothing new any more.
	Old bool
	// Source is the server that said so: Server itself, or a notary.
	Source matrix.ServerName
	// FetchedTS is when it was said last.
	FetchedTS int64
}

// ServerKeyAnswer is the signed answer of a server about its keys.
type ServerKeyAnswer struct {
	Server     matrix.ServerName
	Answer     []byte
	ValidUntil int64
	FetchedTS  int64
}

// PutServerKeys stores keys, replacing what was known of the same bytes.
func (tx *Tx) PutServerKeys(keys []ServerKey) error {
	rows := make([][]any, len(keys))
	for i, k := range keys {
		rows[i] = []any{string(k.Server), k.KeyID, k.Public, k.ValidFrom, k.ValidUntil, boolInt(k.Old), string(k.Source), k.FetchedTS}
	}
	return tx.bulk(`INSERT INTO server_keys (server, key_id, public_key, valid_from, valid_until, old, source, fetched_ts)`,
		[]string{"TEXT", "TEXT", "BYTEA", "BIGINT", "BIGINT", "BIGINT", "TEXT", "BIGINT"},
		`ON CONFLICT (server, key_id, public_key) DO UPDATE SET valid_from = excluded.valid_from, valid_until = excluded.valid_until,
			old = excluded.old, source = excluded.source, fetched_ts = excluded.fetched_ts`, rows, nil)
}

// LoadServerKeys returns everything that is known of the keys of a server, the newest first.
func (tx *Tx) LoadServerKeys(server matrix.ServerName) ([]ServerKey, error) {
	var out []ServerKey
	err := tx.query(func(rows *sql.Rows) error {
		k := ServerKey{Server: server}
		var old int64
		var source string
		if err := rows.Scan(&k.KeyID, &k.Public, &k.ValidFrom, &k.ValidUntil, &old, &source, &k.FetchedTS); err != nil {
			return err
		}
		k.Old, k.Source = old != 0, matrix.ServerName(source)
		out = append(out, k)
		return nil
	}, `SELECT key_id, public_key, valid_from, valid_until, old, source, fetched_ts FROM server_keys WHERE server = $1
		ORDER BY fetched_ts DESC, valid_until DESC, key_id, public_key`, string(server))
	return out, err
}

// PutServerKeyAnswer stores what a server says about its keys, for those who ask us as a notary.
func (tx *Tx) PutServerKeyAnswer(a ServerKeyAnswer) error {
	_, err := tx.exec(`INSERT INTO server_key_answers (server, answer, valid_until, fetched_ts) VALUES ($1, $2, $3, $4)
		ON CONFLICT (server) DO UPDATE SET answer = excluded.answer, valid_until = excluded.valid_until, fetched_ts = excluded.fetched_ts`,
		string(a.Server), a.Answer, a.ValidUntil, a.FetchedTS)
	return err
}

// FindServerKeyAnswer returns the newest answer of a server about its keys, or ErrNotFound.
func (tx *Tx) FindServerKeyAnswer(server matrix.ServerName) (*ServerKeyAnswer, error) {
	a := &ServerKeyAnswer{Server: server}
	err := tx.row(`SELECT answer, valid_until, fetched_ts FROM server_key_answers WHERE server = $1`, []any{string(server)}, &a.Answer, &a.ValidUntil, &a.FetchedTS)
	if err != nil {
		return nil, err
	}
	return a, nil
}

// PruneServerKeys deletes the keys that were fetched longest ago until at most n are left, and as many answers; those of the servers in
// keep stay. It reports how many keys went.
func (tx *Tx) PruneServerKeys(n int64, keep []matrix.ServerName) (int64, error) {
	var have int64
	if err := tx.row(`SELECT COUNT(*) FROM server_keys`, nil, &have); err != nil || have <= n {
		return 0, err
	}
	gone, err := tx.exec(`DELETE FROM server_keys WHERE NOT (server SET($1)) AND fetched_ts <=
		(SELECT fetched_ts FROM server_keys ORDER BY fetched_ts LIMIT 1 OFFSET $2)`, setOf(tx, keep), have-n-1)
	if err != nil {
		return 0, err
	}
	_, err = tx.exec(`DELETE FROM server_key_answers WHERE server NOT IN (SELECT server FROM server_keys)`)
	return gone, err
}
