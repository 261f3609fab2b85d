package e2ee

import (
	"context"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

const (
	// loadLimit is how many messages one response brings.
	loadLimit = 100
	// everyDevice stands for all devices of a user.
	everyDevice = "*"
)

// Messages are the contents of to-device messages by user and device; the device `*` stands for all devices of the user that are
// not named.
type Messages map[matrix.UserID]map[matrix.DeviceID]jsontext.Value

// SendToDevice queues messages for devices of local users and returns when they are durable. A transaction ID is good once per
// device and type: a repeated request does nothing. Messages for devices that do not exist, for users of servers that are not
// hosted here, and for users whom policy keeps from the caller vanish alike.
//
// spec: client-server-api#put_matrixclientv3sendtodeviceeventtypetxnid
func (s *Service) SendToDevice(ctx context.Context, by Caller, typ, txn string, messages Messages) error {
	if typ == "" || len(typ) > maxName {
		return matrix.InvalidParam("The type of a message has 1 to %d bytes.", maxName)
	}
	if txn == "" || len(txn) > maxName {
		return matrix.InvalidParam("A transaction ID has 1 to %d bytes.", maxName)
	}
	users, err := userIDs(messages)
	if err != nil {
		return err
	}
	compact, err := messages.compact()
	if err != nil {
		return err
	}
	ev := &policy.Event{Type: typ, Encrypted: typ == "m.room.encrypted", Domains: []string{}}
	_, err = s.decided(ctx, func() (*verdict, error) { return s.judge(ctx, by, policy.ToDeviceSend, ev, users) },
		func(tx *storage.Tx, v *verdict) error {
			first, err := tx.PutTxn(by.UserID, by.DeviceID, "sendToDevice/"+typ, txn, "")
			if err != nil || !first {
				return err
			}
			devices, err := tx.LoadDeviceIDs(v.allowed)
			if err != nil {
				return err
			}
			list := compact.address(by.UserID, typ, v.allowed, devices)
			if len(list) > maxMessages {
				return tooLarge("A request may make at most %d messages.", maxMessages)
			}
			return tx.PutToDevice(list)
		})
	return err
}

// compact checks the contents of messages and returns them without white space.
func (m Messages) compact() (Messages, error) {
	out := make(Messages, len(m))
	n := 0
	for user, devices := range m {
		out[user] = make(map[matrix.DeviceID]jsontext.Value, len(devices))
		if n += len(devices); n > maxMessages {
			return nil, tooLarge("A request may hold at most %d messages.", maxMessages)
		}
		for device, content := range devices {
			if len(content) > maxMessage {
				return nil, tooLarge("A message may have at most %d bytes.", maxMessage)
			}
			c := content.Clone()
			if err := c.Compact(); err != nil || c.Kind() != '{' {
				return nil, matrix.BadJSON("The content of a message must be an object.")
			}
			out[user][device] = c
		}
	}
	return out, nil
}

// address makes the messages for those devices that there are.
func (m Messages) address(sender matrix.UserID, typ string, users []matrix.UserID, devices map[matrix.UserID][]matrix.DeviceID) []storage.ToDevice {
	var out []storage.ToDevice
	for _, u := range users {
		for _, d := range devices[u] {
			content, ok := m[u][d]
			if !ok {
				content, ok = m[u][everyDevice]
			}
			if ok {
				out = append(out, storage.ToDevice{UserID: u, DeviceID: d, Sender: sender, Type: typ, Content: content})
			}
		}
	}
	return out
}

// LoadToDevice returns the messages that wait for a device after one position and up to another, at most 100, in order. through is
// the position up to which these are all there are: upto, or less when more wait. A response that names a later position as its end
// would lose the rest. Messages of senders whom policy keeps from the user by now are left out.
func (s *Service) LoadToDevice(ctx context.Context, user matrix.UserID, device matrix.DeviceID, after, upto int64) (list []storage.ToDevice, through int64, err error) {
	st, err := s.state(ctx, user, device, false)
	if err != nil {
		return nil, 0, err
	}
	if st.first == 0 || st.last <= after || st.first > upto {
		return nil, upto, nil
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		list, err = tx.LoadToDevice(user, device, after, upto, loadLimit+1)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	through = upto
	if len(list) > loadLimit {
		list = list[:loadLimit]
		through = list[loadLimit-1].Pos
	}
	list, err = s.screen(ctx, user, list)
	return list, through, err
}

// screen leaves out the messages of senders with whom the user has no contact any more.
func (s *Service) screen(ctx context.Context, user matrix.UserID, list []storage.ToDevice) ([]storage.ToDevice, error) {
	senders := []matrix.UserID{user}
	for _, m := range list {
		if !slices.Contains(senders, m.Sender) {
			senders = append(senders, m.Sender)
		}
	}
	if len(senders) == 1 {
		return list, nil
	}
	parties, err := s.Parties.Parties(ctx, senders)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list, func(m storage.ToDevice) bool {
		return m.Sender != user && !s.Policy.Contact(parties[m.Sender], parties[user])
	}), nil
}

// AckToDevice forgets the messages that a device has acknowledged by asking for what comes after a position. It costs nothing
// where nothing waits.
//
// spec: client-server-api#send-to-device-messaging
func (s *Service) AckToDevice(ctx context.Context, user matrix.UserID, device matrix.DeviceID, upto int64) error {
	st, err := s.state(ctx, user, device, false)
	if err != nil || st.first == 0 || st.first > upto {
		return err
	}
	if err := s.DB.Update(ctx, func(tx *storage.Tx) error {
		_, err := tx.DeleteToDevice(user, device, upto)
		return err
	}); err != nil || s.Stream == nil {
		return err
	}
	s.watch.acked(user, device, upto)
	return nil
}

// acked notes that no message up to a position waits for a device.
func (w *watch) acked(user matrix.UserID, device matrix.DeviceID, upto int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	st := w.find(user, device)
	switch {
	case st == nil || st.first == 0 || st.first > upto:
	case st.last <= upto:
		st.first, st.last = 0, 0
	default:
		st.first = upto + 1
	}
}
