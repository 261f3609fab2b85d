package appservices

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"

	"hansa/matrix"
)

// transaction is what a bridge is told of at one time.
type transaction struct {
	// end is the position that it goes up to.
	end int64
	// events, ephemeral and toDevice are JSON.
	events, ephemeral, toDevice [][]byte
	// devices are those of the messages, which need not wait any more once the bridge has them.
	devices []deviceUpto
	size    int
}

type deviceUpto struct {
	user   matrix.UserID
	device matrix.DeviceID
	pos    int64
}

func (t *transaction) empty() bool { return len(t.events)+len(t.ephemeral)+len(t.toDevice) == 0 }

// full tells whether more would be too much.
func (t *transaction) full(u tune) bool {
	return len(t.events)+len(t.ephemeral)+len(t.toDevice) >= u.events || t.size >= u.bytes
}

func (t *transaction) add(list *[][]byte, one []byte) {
	*list = append(*list, one)
	t.size += len(one)
}

// body is the body of the request.
func (t *transaction) body() []byte {
	out := make([]byte, 0, t.size+256)
	out = appendList(append(out, `{"events":`...), t.events)
	if len(t.ephemeral) > 0 {
		out = appendList(append(out, `,"ephemeral":`...), t.ephemeral)
		out = appendList(append(out, `,"de.sorunome.msc2409.ephemeral":`...), t.ephemeral)
	}
	if len(t.toDevice) > 0 {
		out = appendList(append(out, `,"de.sorunome.msc2409.to_device":`...), t.toDevice)
	}
	return append(out, '}')
}

func appendList(dst []byte, list [][]byte) []byte {
	dst = append(dst, '[')
	for i, b := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, b...)
	}
	return append(dst, ']')
}

// id is the transaction ID: the same for the same content at the same place, and another one where, before a retry, policy or a
// redaction has taken something away.
//
// spec: application-service-api#pushing-events
func (t *transaction) id(pos int64) string {
	h := sha256.New()
	for _, list := range [][][]byte{t.events, t.ephemeral, t.toDevice} {
		_, _ = h.Write([]byte{0}) // never fails
		for _, b := range list {
			_, _ = h.Write(b)
			_, _ = h.Write([]byte{0})
		}
	}
	return strconv.FormatInt(pos, 10) + "-" + strconv.FormatInt(t.end, 10) + "-" + hex.EncodeToString(h.Sum(nil)[:9])
}
