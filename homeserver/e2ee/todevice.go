package e2ee

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"slices"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/policy"
	"hansa/storage"
)

// maxMessageID is the longest ID of a message between servers, in code points.
const maxMessageID = 32

// everyDevice stands for all devices of a user.
const everyDevice = "*"

// Messages are the contents of to-device messages by user and device; the device `*` stands for all devices of the user that are
// not named.
type Messages map[matrix.UserID]map[matrix.DeviceID]jsontext.Value

// SendToDevice queues messages for devices and returns when they are durable, those for other servers in the outbox. A transaction ID
// is good once per device and type: a repeated request does nothing. Messages for devices that do not exist and for users whom
// policy keeps from the caller vanish alike.
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
	var parcels []parcel
	_, err = s.decided(ctx, func() (*verdict, error) {
		v, err := s.judge(ctx, by, policy.ToDeviceSend, ev, users)
		if err == nil {
			parcels, err = compact.pack(by.UserID, typ, v.far)
		}
		return v, err
	},
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
			if err := tx.PutToDevice(list); err != nil {
				return err
			}
			return s.post(tx, by.UserID.Server(), parcels)
		})
	return err
}

// post puts messages for other servers into the outbox.
func (s *Service) post(tx *storage.Tx, as matrix.ServerName, parcels []parcel) error {
	if s.Queue == nil {
		return nil
	}
	for _, p := range parcels {
		if err := s.Queue(tx, as, p.to, federation.EDUToDevice, "", p.content); err != nil {
			return err
		}
	}
	return nil
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

// parcel is the content of one EDU for another server.
type parcel struct {
	to      matrix.ServerName
	content []byte
}

// pack makes EDUs of the messages for users of other servers, none larger than those take.
//
// spec: server-server-api#send-to-device-messaging
func (m Messages) pack(sender matrix.UserID, typ string, users []matrix.UserID) ([]parcel, error) {
	var out []parcel
	for _, to := range sortedKeys(byServer(users)) {
		var open *packing
		for _, u := range byServer(users)[to] {
			for _, d := range sortedKeys(m[u]) {
				content, err := canonicaljson.Canonicalize(m[u][d], true) // transactions are signed, so all of it has to be canonical
				if err != nil {
					return nil, canonicaljson.AsMatrix(err)
				}
				if open != nil && !open.fits(u, d, content) {
					out = append(out, open.close(to))
					open = nil
				}
				if open == nil {
					open = newPacking(sender, typ)
				}
				if !open.fits(u, d, content) {
					return nil, tooLarge("A message for a user of another server may have about %d bytes at most.", maxEDU-len(open.head)-2*maxName)
				}
				open.add(u, d, content)
			}
		}
		if open != nil {
			out = append(out, open.close(to))
		}
	}
	return out, nil
}

// packing is an EDU that is being filled: {"message_id":...,"messages":{user:{device:content
type packing struct {
	head []byte // sender and type, which stand at the end
	body []byte
	user matrix.UserID
}

func newPacking(sender matrix.UserID, typ string) *packing {
	p := &packing{}
	p.head = append(canonicaljson.AppendString([]byte(`,"sender":`), string(sender)), `,"type":`...)
	p.head = append(canonicaljson.AppendString(p.head, typ), '}')
	p.body = append(canonicaljson.AppendString([]byte(`{"message_id":`), messageID()), `,"messages":{`...)
	return p
}

// messageID makes an ID of 128 random bits.
func messageID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func (p *packing) fits(user matrix.UserID, device matrix.DeviceID, content []byte) bool {
	const marks = 16 // quotes, colons and braces
	return len(p.body)+len(p.head)+len(user)+2*len(device)+len(content)+marks <= maxEDU
}

func (p *packing) add(user matrix.UserID, device matrix.DeviceID, content []byte) {
	switch {
	case p.user == user:
		p.body = append(p.body, ',')
	case p.user != "":
		p.body = append(p.body, '}', ',')
	}
	if p.user != user {
		p.body = append(canonicaljson.AppendString(p.body, string(user)), ':', '{')
		p.user = user
	}
	p.body = append(append(canonicaljson.AppendString(p.body, string(device)), ':'), content...)
}

func (p *packing) close(to matrix.ServerName) parcel {
	return parcel{to: to, content: append(append(p.body, '}', '}'), p.head...)}
}

// ReceiveToDevice takes the content of an m.direct_to_device that a server sends to a tenant, and returns when the messages are durable.
// Senders of other servers, messages that came before, users of other tenants and those whom policy keeps from the sender are dropped
// without a word. Where policy cannot
// decide, the error makes the server send it again.
//
// spec: server-server-api#send-to-device-messaging
// spec: server-server-api#send-to-device-messaging
func (s *Service) ReceiveToDevice(ctx context.Context, as, origin matrix.ServerName, content jsontext.Value) error {
	var t federation.ToDevice
	if !readEDU(content, &t) || t.Sender.Server() != origin || t.Type == "" || len(t.Type) > maxName || t.MessageID == "" ||
		utf8.RuneCountInString(t.MessageID) > maxMessageID {
		return nil
	}
	if _, err := matrix.ParseUserID(string(t.Sender)); err != nil {
		return nil
	}
	messages, err := Messages(t.Messages).compact()
	if err != nil {
		return nil
	}
	users := make([]matrix.UserID, 0, len(messages))
	for u := range messages {
		if _, err := matrix.ParseUserID(string(u)); err == nil && u.Server() == as {
			users = append(users, u)
		}
	}
	ev := &policy.Event{Type: t.Type, Encrypted: t.Type == "m.room.encrypted", Domains: []string{}}
	_, err = s.decided(ctx, func() (*verdict, error) { return s.judgeSender(ctx, t.Sender, policy.ToDeviceSend, ev, users) },
		func(tx *storage.Tx, v *verdict) error {
			if len(v.allowed) == 0 {
				return nil
			}
			first, err := tx.PutReceivedToDevice(t.Sender, t.MessageID)
			if err != nil || !first {
				return err
			}
			devices, err := tx.LoadDeviceIDs(v.allowed)
			if err != nil {
				return err
			}
			list := messages.address(t.Sender, t.Type, v.allowed, devices)
			return tx.PutToDevice(list[:min(len(list), maxMessages)])
		})
	return err
}

// judgeSender asks policy what a user of another server may do to users of this deployment. Others are left out without being asked about.
func (s *Service) judgeSender(ctx context.Context, sender matrix.UserID, point policy.Point, ev *policy.Event, users []matrix.UserID) (*verdict, error) {
	v := &verdict{refused: map[matrix.ServerName]struct{}{}}
	var err error
	if v.parties, err = s.Parties.Parties(ctx, append([]matrix.UserID{sender}, users...)); err != nil {
		return nil, err
	}
	users = slices.DeleteFunc(users, func(u matrix.UserID) bool { return v.parties[u] == nil || !v.parties[u].Local })
	in := policy.Input{Point: point, Subject: v.parties[sender], Event: ev, Request: &policy.Request{Via: "federation"},
		Server: &policy.Server{Name: string(sender.Server())}}
	return v, s.ask(ctx, v, in, users)
}
