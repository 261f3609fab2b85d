package storage

import (
	"errors"

	"hansa/matrix"
)

// FindReceipt returns a user's receipt in a room by its type and thread. PutReceipt moves it.
func (tx *Tx) FindReceipt(room matrix.RoomID, user matrix.UserID, typ, thread string) (Receipt, bool, error) {
	list, err := tx.receipts(selectReceiptsSQL+`WHERE r.room_id = $1 AND p.user_id = $2 AND p.receipt_type = $3 AND p.thread_id = $4`,
		string(room), dbText(string(user)), typ, dbText(thread))
	if err != nil || len(list) == 0 {
		return Receipt{}, false, err
	}
	return list[0], true, nil
}

// ChangeAccountData makes a new account datum of the present one, nil where there is none; two changes of one datum never overlap.
// It does nothing when fn returns nil.
func (tx *Tx) ChangeAccountData(user matrix.UserID, room matrix.RoomID, typ string, fn func(old []byte) ([]byte, error)) error {
	// Raising the counter by nothing locks it until the transaction ends, so what is read after that is the newest.
	if _, _, err := tx.raise(0, 0); err != nil {
		return err
	}
	old, err := tx.LoadAccountDatum(user, room, typ)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	content, err := fn(old.Content)
	if err != nil || content == nil {
		return err
	}
	return tx.PutAccountData(AccountData{UserID: user, RoomID: room, Type: typ, Content: content})
}
