package e2ee

import (
	"context"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

// everyDevice stands for all devices of a user.
const everyDevice = "*"

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
