package storage

import (
	"database/sql"
	"errors"

	"hansa/matrix"
)

// nearestWindow is how many events around the place where a time belongs are compared.
const nearestWindow = 200

// FindNearest returns the visible event of a room closest to a time in ms, at or after it (Forward) or at or before it (Backward); nil where
// there is none. Clocks of servers differ a little, so that the order of the events is nearly, not quite, that of their times: the place is
// found by halving, and the events around it are compared.
func (tx *Tx) FindNearest(room matrix.RoomID, ts int64, dir Direction) (*Event, error) {
	first, last, err := tx.span(room)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	low, high := first, last+1 // the first event that is not before the time is in [low, high]
	for low < high {
		mid := low + (high-low)/2
		pos, at, err := tx.timeAt(room, mid)
		switch {
		case errors.Is(err, ErrNotFound):
			high = mid
		case err != nil:
			return nil, err
		case at < ts:
			low = pos + 1
		default:
			high = mid
		}
	}
	before, err := tx.LoadPage(room, low-1, Backward, nearestWindow)
	if err != nil {
		return nil, err
	}
	after, err := tx.LoadPage(room, low-1, Forward, nearestWindow)
	if err != nil {
		return nil, err
	}
	var best *Event
	for _, e := range append(before, after...) {
		switch d := e.OriginServerTS - ts; {
		case dir == Forward && d < 0, dir == Backward && d > 0:
		case best == nil, abs(d) < abs(best.OriginServerTS-ts):
			best = e
		}
	}
	return best, nil
}

func abs(n int64) int64 { return max(n, -n) }

// span returns the first and the last position of the visible events of a room.
func (tx *Tx) span(room matrix.RoomID) (first, last int64, err error) {
	var low, high sql.NullInt64
	err = tx.row(`SELECT (SELECT e.pos FROM events e WHERE e.room_num = r.room_num`+visibleSQL+`ORDER BY e.pos LIMIT 1),
		(SELECT e.pos FROM events e WHERE e.room_num = r.room_num`+visibleSQL+`ORDER BY e.pos DESC LIMIT 1) FROM rooms r WHERE r.room_id = $1`,
		[]any{string(room)}, &low, &high)
	if err == nil && !low.Valid {
		err = ErrNotFound
	}
	return low.Int64, high.Int64, err
}

// timeAt returns the first visible event of a room at or after a position.
func (tx *Tx) timeAt(room matrix.RoomID, pos int64) (at, ts int64, err error) {
	err = tx.row(`SELECT e.pos, e.origin_server_ts FROM events e JOIN rooms r ON r.room_num = e.room_num WHERE r.room_id = $1 AND e.pos >= $2`+
		visibleSQL+`ORDER BY e.pos LIMIT 1`, []any{string(room), pos}, &at, &ts)
	return at, ts, err
}
