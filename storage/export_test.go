package storage

import "context"

// Tamper runs a statement past all methods, as somebody with access to the database could.
func Tamper(db *DB, q string) error {
	return db.Update(context.Background(), func(tx *Tx) error { _, err := tx.exec(q); return err })
}

// Exec runs a statement inside a transaction.
func Exec(tx *Tx, q string) error { _, err := tx.exec(q); return err }

// URLOf is where a database is.
func URLOf(db *DB) string { return db.opts.URL }

// IsolationOf is the isolation level of a transaction on PostgreSQL.
func IsolationOf(tx *Tx) string { return SettingOf(tx, "transaction_isolation") }

// SettingOf is a setting of a transaction on PostgreSQL.
func SettingOf(tx *Tx, name string) string {
	var v string
	if err := tx.row(`SELECT current_setting($1)`, []any{name}, &v); err != nil {
		return err.Error()
	}
	return v
}

// TurnSQL prepares what a turn begins with.
func TurnSQL() string { return turnSQL() }

// NewsSQL is the statement of Tx.ReadNews for PostgreSQL.
func NewsSQL() string { return postgresDialect().query(newsSQL) }

// LogEventsSQL is the one of Tx.ReadLog that reads events.
const LogEventsSQL = logEventsSQL

// SubmitLate hands the writer something that it does not look for any more.
func SubmitLate(db *DB) error {
	j := &job{fn: func(*Tx) error { return nil }, done: make(chan error, 1)}
	db.jobs <- j
	return db.result(j)
}

// Queued is how much waits for the writer.
func Queued(db *DB) int { return len(db.jobs) }

// Gather lets a batch of messages wait for company where batches are of usual messages and the others have come already. It returns how large
// the batch became.
func Gather(usual, batch, others int) int {
	messages := make([]*job, batch+others)
	for i := range messages {
		messages[i] = &job{ap: &Append{Events: make([]NewEvent, 1)}}
	}
	q := queue{db: &DB{jobs: make(chan *job, others)}}
	q.went(usual)
	for _, j := range messages[batch:] {
		q.db.jobs <- j
	}
	return len(q.gather(messages[:batch:batch]))
}
