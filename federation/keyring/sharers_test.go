package keyring

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hansa/matrix/signing"
)

// A second name for a server is a stranger like any other (the door knows names, not keys), and somebody hears of the key they share.
func TestR346_KeyOfAnotherServer(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.t = t
		key := newKey(t)
		registry := prometheus.NewRegistry()
		registry.MustRegister(w.metrics.shared)
		counted := func() float64 {
			found, err := registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			return found[0].GetMetric()[0].GetCounter().GetValue()
		}
		w.serve(far, says(t, far, key, w.ms(time.Hour), nil))
		w.event("the first name", key, w.ms(0), true)
		if n := counted(); n != 0 {
			t.Errorf("%v alarms for one server", n)
		}
		w.serve("alias.example", says(t, "alias.example", key, w.ms(time.Hour), nil))
		if _, err := w.PublicKey(context.Background(), "alias.example", signing.KeyID(key.ID), w.ms(0)); err != nil {
			t.Fatal(err)
		}
		if n := counted(); n != 1 {
			t.Errorf("%v alarms for two servers with one key, want one", n)
		}
	})
}
