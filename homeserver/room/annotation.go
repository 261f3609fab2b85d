package room

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/storage"
)

// annotationHash is what two annotations have in common when the second one says nothing new: the same user, target, event type and
// key. It is nil for events that are no annotations.
func annotationHash(d *Draft) []byte {
	if d.StateKey != nil || !bytes.Contains(d.Content, []byte(`"m.annotation"`)) {
		return nil
	}
	var c struct {
		RelatesTo jsontext.Value `json:"m.relates_to"`
	}
	var rel struct {
		Type  string         `json:"rel_type"`
		Event matrix.EventID `json:"event_id"`
		Key   *string        `json:"key"`
	}
	lenient(d.Content, &c)
	lenient(c.RelatesTo, &rel)
	if rel.Type != "m.annotation" || rel.Event == "" || rel.Key == nil {
		return nil
	}
	h := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %q", d.RoomID, d.Sender, d.Type, rel.Event, *rel.Key))
	return h[:]
}

// checkAnnotation refuses an annotation that its sender has made before, unless that was redacted.
//
// spec: client-server-api#avoiding-duplicate-annotations
func (s *Service) checkAnnotation(ctx context.Context, d *Draft) error {
	return s.DB.Read(ctx, func(tx *storage.Tx) error { return d.newAnnotation(tx) })
}

func (d *Draft) newAnnotation(tx *storage.Tx) error {
	_, err := tx.FindAnnotation(d.annotation)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	return matrix.Errorf(http.StatusBadRequest, matrix.CodeDuplicateAnnotation, "You have annotated this event like this before.")
}

// also is what the transaction does that stores the event of a draft. Of two equal annotations at the same moment one comes too late.
func (d *Draft) also(a *storage.Append) func(*storage.Tx) error {
	if d.annotation == nil {
		return d.Also
	}
	return func(tx *storage.Tx) error {
		if err := d.newAnnotation(tx); err != nil {
			return err
		}
		if err := tx.PutAnnotation(d.annotation, a.Events[0].Event.ID); err != nil || d.Also == nil {
			return err
		}
		return d.Also(tx)
	}
}
