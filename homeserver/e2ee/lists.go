package e2ee

import (
	"context"
	"math"
	"slices"

	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

// DeviceLists says whose keys a client must ask for again, and with whom it shares no room any more.
type DeviceLists struct {
	Changed []matrix.UserID `json:"changed"`
	Left    []matrix.UserID `json:"left"`
}

// KeyChanges returns what has changed since a position for a viewer: whose devices or keys changed of those who share a room, whose
// keys the viewer signed, who came to share a room, and who shares none any more. Users whom policy keeps from the viewer are left out.
// What has changed after the end of the list that a client asked for is told as well, lest what changed twice is missing.
//
// spec: client-server-api#get_matrixclientv3keyschanges
func (s *Service) KeyChanges(ctx context.Context, viewer matrix.UserID, from int64) (DeviceLists, error) {
	var changed, left []matrix.UserID
	err := s.DB.View(ctx, func(tx *storage.Tx) (err error) {
		if changed, err = tx.LoadSharedDeviceChanges(viewer, from, math.MaxInt64); err != nil {
			return err
		}
		came, ceased, err := tx.LoadSharingChanges(viewer, from)
		changed, left = append(changed, came...), ceased
		return err
	})
	if err != nil {
		return DeviceLists{}, err
	}
	var out DeviceLists
	if out.Changed, err = s.visible(ctx, viewer, changed); err != nil {
		return DeviceLists{}, err
	}
	out.Left, err = s.visible(ctx, viewer, left)
	return out, err
}

// visible leaves out the users whom policy keeps from a viewer, and returns the others sorted, each once. As in everything that is told
// of a room, it is enough that one of the two may reach the other.
func (s *Service) visible(ctx context.Context, viewer matrix.UserID, users []matrix.UserID) ([]matrix.UserID, error) {
	if len(users) == 0 {
		return []matrix.UserID{}, nil
	}
	slices.Sort(users)
	users = slices.Compact(users)
	parties, err := s.Parties.Parties(ctx, append([]matrix.UserID{viewer}, users...))
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(users, func(u matrix.UserID) bool {
		if u != viewer && err == nil {
			var ok bool
			ok, err = s.either(parties[viewer], parties[u])
			return !ok
		}
		return err != nil
	}), err
}

// either tells whether one of two may know of the other. No answer is an error: what is left out now would never come again.
func (s *Service) either(a, b *policy.Party) (bool, error) {
	if s.Policy.Contact(a, b) || s.Policy.Contact(b, a) {
		return true, nil
	}
	there, back := s.Policy.ContactDecision(a, b), s.Policy.ContactDecision(b, a)
	for _, d := range []policy.Decision{there, back} {
		if d.Err != nil && !there.Allow && !back.Allow {
			return false, d.Error()
		}
	}
	return there.Allow || back.Allow, nil
}

// DropDevices forgets the keys of devices. It runs in the transaction that removes the devices.
func (s *Service) DropDevices(tx *storage.Tx, user matrix.UserID, devices []matrix.DeviceID) error {
	n, err := tx.ForgetDeviceKeys(user, devices)
	if err != nil {
		return err
	}
	if err := tx.AnnounceOneTimeKeys([]matrix.UserID{user}); err != nil || n == 0 {
		return err
	}
	return tx.TouchDeviceList(user)
}

// DropUser forgets every key, signature and backup of a user. It runs in the transaction that closes the account.
func (s *Service) DropUser(tx *storage.Tx, user matrix.UserID) error {
	if err := tx.ForgetUserKeys(user); err != nil {
		return err
	}
	if err := tx.AnnounceOneTimeKeys([]matrix.UserID{user}); err != nil {
		return err
	}
	return tx.TouchDeviceList(user)
}
