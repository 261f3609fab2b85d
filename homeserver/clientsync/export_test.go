package clientsync

import (
	"hansa/matrix"
	"hansa/storage"
)

// CrowdAfter is crowdAfter for a room as it was at a position, when its head was the given one.
func CrowdAfter(tx *storage.Tx, room *storage.Room, after matrix.UserID, upto int64) ([]matrix.UserID, []*storage.Event, error) {
	return crowdAfter(tx, &roomNews{id: room.ID, root: room.Head.StateRoot}, after, upto)
}
