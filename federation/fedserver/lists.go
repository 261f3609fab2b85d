package fedserver

import (
	"bufio"
	"fmt"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/homeserver/reply"
)

// events is a member of an answer that is a list of events.
type events[T ~[]byte] struct {
	name string
	list []T
}

// writeEvents writes an answer with lists of events that may be long, and with other members. The events are canonical JSON already: they
// are neither looked at nor copied again.
func writeEvents[T ~[]byte](w http.ResponseWriter, rest map[string]any, lists ...events[T]) error {
	tail, err := json.Marshal(rest, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	if tail = tail[1:]; len(rest) > 0 {
		tail = append([]byte{','}, tail...)
	}
	size := 1 + max(len(lists)-1, 0) + len(tail)
	for _, l := range lists {
		size += len(`"":[]`) + len(l.name) + max(len(l.list)-1, 0)
		for _, e := range l.list {
			size += len(e)
		}
	}
	conn := reply.Begin(w, http.StatusOK, size)
	defer reply.End(conn)
	out := bufio.NewWriterSize(w, 32<<10)
	separator := byte('{')
	for _, l := range lists {
		_ = out.WriteByte(separator) // the errors of a Writer stay; Flush returns them
		_, _ = out.WriteString(strconv.Quote(l.name) + ":")
		separator = '['
		for _, e := range l.list {
			_ = out.WriteByte(separator)
			_, _ = out.Write(e)
			separator = ','
		}
		if len(l.list) == 0 {
			_ = out.WriteByte('[')
		}
		_ = out.WriteByte(']')
		separator = ','
	}
	_, _ = out.Write(tail)
	_ = out.Flush() // when the other server went away, there is nobody to tell
	return nil
}
