package storage

import "hansa/matrix"

// FindAnnotation returns the annotation that was stored under a hash, or ErrNotFound where there is none or it was redacted.
func (tx *Tx) FindAnnotation(hash []byte) (matrix.EventID, error) {
	var id string
	err := tx.row(`SELECT a.event_id FROM annotations a JOIN events e ON e.event_id = a.event_id WHERE a.hash = $1 AND e.redacted_by IS NULL`,
		[]any{hash}, &id)
	return matrix.EventID(id), err
}

// PutAnnotation stores which event is the annotation of a hash.
func (tx *Tx) PutAnnotation(hash []byte, id matrix.EventID) error {
	_, err := tx.exec(`INSERT INTO annotations (hash, event_id) VALUES ($1, $2) ON CONFLICT (hash) DO UPDATE SET event_id = excluded.event_id`,
		hash, string(id))
	return err
}
