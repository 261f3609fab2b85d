package storage

import "context"

// Tamper runs a statement past all methods, as somebody with access to the database could.
func Tamper(db *DB, q string) error {
	return db.Update(context.Background(), func(tx *Tx) error { _, err := tx.exec(q); return err })
}

// Exec runs a statement inside a transaction.
func Exec(tx *Tx, q string) error { _, err := tx.exec(q); return err }
