package stream

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics is what the stream tells operators.
type metrics struct {
	looks    *prometheus.CounterVec
	messages *prometheus.CounterVec
	refused  prometheus.Counter
	taken    prometheus.Counter
	lost     prometheus.Counter
	panics   *prometheus.CounterVec
	disabled *prometheus.GaugeVec
}

func newMetrics(r prometheus.Registerer, s *Stream) (*metrics, error) {
	m := &metrics{
		looks: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hansa_stream_looks_total",
			Help: "Looks into the database for what other nodes have written, by cause: hint (a node said so), poll, gap or request (a client has seen more, or is about to be refused)."}, []string{"cause"}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hansa_stream_nats_messages_total",
			Help: "Messages over NATS by direction (in, out) and kind (position, lease, relay)."}, []string{"direction", "kind"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "hansa_stream_nats_refused_total",
			Help: "Messages over NATS that no node of this cell has sent, or that came twice."}),
		taken: prometheus.NewCounter(prometheus.CounterOpts{Name: "hansa_stream_leases_taken_total", Help: "Leases of followers that this node took."}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{Name: "hansa_stream_leases_lost_total",
			Help: "Leases of followers that this node lost without giving them back."}),
		panics:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hansa_stream_job_panics_total", Help: "Panics in jobs that run beside requests, by job."}, []string{"job"}),
		disabled: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "hansa_stream_jobs_disabled_bool", Help: "1 for a job that was switched off because it has panicked in the same way three times in a row."}, []string{"job"}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.looks, m.messages, m.refused, m.taken, m.lost, m.panics, m.disabled,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "hansa_stream_leases_held_count", Help: "Leases of followers that this node holds."},
			func() float64 { return float64(s.keeper.count()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "hansa_stream_nats_connected_bool",
			Help: "1 while NATS is connected, 0 while it is not or none is configured: then news of other nodes come by polling."}, func() float64 {
			if s.bus != nil && s.bus.connected() {
				return 1
			}
			return 0
		}),
	} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
