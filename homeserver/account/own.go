package account

import (
	"context"
	"errors"
	"net/http"
	"unicode/utf8"

	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

// maxDeviceName is the longest display name of a device, in bytes.
const maxDeviceName = 256

func asMatrix(err error) *matrix.Error {
	var e *matrix.Error
	errors.As(err, &e)
	return e
}

func checkDeviceName(name string) error {
	if len(name) > maxDeviceName || !utf8.ValidString(name) {
		return matrix.InvalidParam("The display name of a device may have at most %d bytes.", maxDeviceName)
	}
	return nil
}

// DeviceInfo is a device as its owner sees it.
type DeviceInfo struct {
	DeviceID    matrix.DeviceID `json:"device_id"`
	DisplayName string          `json:"display_name"` // also when empty: matrix-nio refuses a list without it
	LastSeenIP  string          `json:"last_seen_ip,omitempty"`
	LastSeenTS  int64           `json:"last_seen_ts,omitzero"`
	// UserAgent is not in the specification; admins and clients that know of it show it.
	UserAgent string `json:"org.hansa.last_seen_user_agent,omitempty"`
}

func deviceInfo(d storage.Device) DeviceInfo {
	return DeviceInfo{DeviceID: d.DeviceID, DisplayName: d.DisplayName, LastSeenIP: d.LastSeenIP, LastSeenTS: d.LastSeenTS, UserAgent: d.LastSeenAgent}
}

// Devices lists the caller's devices.
func (s *Service) Devices(ctx context.Context, by Caller) ([]DeviceInfo, error) {
	out := []DeviceInfo{}
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		list, err := tx.LoadDevices(by.UserID)
		for _, d := range list {
			out = append(out, deviceInfo(d))
		}
		return err
	})
	return out, err
}

// Device returns one of the caller's devices.
func (s *Service) Device(ctx context.Context, by Caller, id matrix.DeviceID) (DeviceInfo, error) {
	var d storage.Device
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		d, err = tx.LoadDevice(by.UserID, id)
		return err
	})
	return deviceInfo(d), find(err, "You have no device of this ID.")
}

// RenameDevice sets the display name of one of the caller's devices; nil leaves it as it is. Others who see the device see it, too.
func (s *Service) RenameDevice(ctx context.Context, by Caller, id matrix.DeviceID, name *string) error {
	if name == nil {
		_, err := s.Device(ctx, by, id)
		return err
	}
	if err := checkDeviceName(*name); err != nil {
		return err
	}
	return s.DB.Update(ctx, func(tx *storage.Tx) error {
		ok, err := tx.RenameDevice(by.UserID, id, *name)
		if err != nil {
			return err
		}
		if !ok {
			return matrix.NotFound("You have no device of this ID.")
		}
		return tx.TouchDeviceList(by.UserID)
	})
}

// DeleteDevices removes devices of the caller and ends their sessions, once the caller has confirmed it. Devices that are not there
// are gone already.
func (s *Service) DeleteDevices(ctx context.Context, by Caller, p Proof, devices []matrix.DeviceID) error {
	if len(devices) > 1000 {
		return matrix.InvalidParam("At most 1000 devices can be deleted at a time.")
	}
	if by.Bridge == nil { // spec: application-service-api#device-management
		if err := s.Confirm(ctx, by, p); err != nil {
			return err
		}
	}
	if len(devices) == 0 {
		return nil
	}
	return s.dropDevices(ctx, by.UserID, devices)
}

// ChangePassword gives the caller another password, once the caller has confirmed it with the present one. The session of the caller
// stays; all other devices are removed if logout says so.
//
// spec: client-server-api#password-management
func (s *Service) ChangePassword(ctx context.Context, by Caller, p Proof, password string, logout bool) error {
	if password == "" {
		return matrix.Errorf(http.StatusBadRequest, matrix.CodeMissingParam, "The member new_password is missing.")
	}
	if err := checkNew(password); err != nil {
		return err
	}
	if err := s.Confirm(ctx, by, p); err != nil {
		return err
	}
	if err := s.act(ctx, by, policy.AccountManage, &policy.Account{Username: by.UserID.Localpart(), Field: "password", Via: "client"}); err != nil {
		return err
	}
	return s.setPassword(ctx, by.UserID, password, by.DeviceID, logout)
}

// Deactivate closes the caller's account for good, once the caller has confirmed it. With erase, account data and filters go as well, and those
// who come into a room later are not told what the account has sent there.
// Leaving the rooms is for membership, which follows the session notices or is called after this.
//
// spec: client-server-api#account-deactivation
func (s *Service) Deactivate(ctx context.Context, by Caller, p Proof, erase bool) error {
	if err := s.Confirm(ctx, by, p); err != nil {
		return err
	}
	if err := s.act(ctx, by, policy.AccountManage, &policy.Account{Username: by.UserID.Localpart(), Field: "deactivate", Via: "client"}); err != nil {
		return err
	}
	return s.close(ctx, by.UserID, erase)
}

// close closes an account for good. Closing it again removes what may have been left.
func (s *Service) close(ctx context.Context, id matrix.UserID, erase bool) error {
	err := s.DB.UpdateShared(ctx, func(tx *storage.Tx) error {
		if _, err := tx.DeactivateUser(id); err != nil {
			return err
		}
		if _, err := tx.DeleteTokens(id, ""); err != nil {
			return err
		}
		if err := s.drop(tx, id, nil, ""); err != nil {
			return err
		}
		if _, err := tx.DeleteProfileField(id, ""); err != nil {
			return err
		}
		if erase {
			if err := tx.EraseAccount(id); err != nil {
				return err
			}
		}
		for _, hook := range s.OnClose {
			if err := hook(tx, id, erase); err != nil {
				return err
			}
		}
		for _, n := range []string{storage.NoticeSession, storage.NoticeParty, storage.NoticeProfile} {
			if err := tx.Announce(n, string(id)); err != nil {
				return err
			}
		}
		return nil
	})
	s.Invalidate(id)
	if err == nil {
		s.log.WithField("user_id", id).Info("account closed")
	}
	return err
}
