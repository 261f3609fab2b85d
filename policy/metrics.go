package policy

import (
	"errors"
	"io"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
)

// metrics counts what the engine does. Labels are points and outcomes, never users or rooms.
type metrics struct {
	decisions *prometheus.CounterVec
	contacts  *prometheus.CounterVec
	errors    *prometheus.CounterVec
	reloads   *prometheus.CounterVec
	active    prometheus.Gauge
	degraded  prometheus.Gauge
	byPoint   map[Point]*pointMetrics
	contactOK prometheus.Counter
	contactNo prometheus.Counter
}

type pointMetrics struct{ memo, allowed, denied prometheus.Counter }

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hansa_policy_decisions_total",
			Help: "Decisions by point and outcome; outcome memo is an allowed act that was known already."}, []string{"point", "outcome"}),
		contacts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hansa_policy_contacts_total",
			Help: "Look-ups in the contact matrix."}, []string{"outcome"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hansa_policy_errors_total",
			Help: "Decisions that could not be made, by point and kind (evaluation, deadline, record)."}, []string{"point", "kind"}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hansa_policy_reloads_total",
			Help: "Attempts to load a set of rules."}, []string{"outcome"}),
		active: prometheus.NewGauge(prometheus.GaugeOpts{Name: "hansa_policy_active_since_seconds",
			Help: "When the active set of rules and data became active."}),
		degraded: prometheus.NewGauge(prometheus.GaugeOpts{Name: "hansa_policy_refused_set",
			Help: "1 while the files on disk are not what is active, because they were refused."}),
		byPoint: map[Point]*pointMetrics{},
	}
	for _, p := range Points() {
		m.byPoint[p.Point] = &pointMetrics{
			memo:    m.decisions.WithLabelValues(string(p.Point), "memo"),
			allowed: m.decisions.WithLabelValues(string(p.Point), "allowed"),
			denied:  m.decisions.WithLabelValues(string(p.Point), "denied"),
		}
	}
	m.contactOK, m.contactNo = m.contacts.WithLabelValues("allowed"), m.contacts.WithLabelValues("denied")
	if r != nil {
		r.MustRegister(m.decisions, m.contacts, m.errors, m.reloads, m.active, m.degraded)
	}
	return m
}

func (m *metrics) decided(d *Decision) {
	p := m.byPoint[d.Point]
	switch {
	case p == nil:
	case !d.Allow:
		p.denied.Inc()
	case d.Memo:
		p.memo.Inc()
	default:
		p.allowed.Inc()
	}
}

func (m *metrics) failed(p Point, err error) {
	kind := "evaluation"
	switch {
	case errors.Is(err, ErrDeadline):
		kind = "deadline"
	case errors.Is(err, ErrRecord):
		kind = "record"
	}
	if m.byPoint[p] == nil {
		p = "unknown"
	}
	m.errors.WithLabelValues(string(p), kind).Inc()
}

func (m *metrics) contact(ok bool) {
	if ok {
		m.contactOK.Inc()
	} else {
		m.contactNo.Inc()
	}
}

func (m *metrics) activated(t time.Time) { m.active.Set(float64(t.Unix())) }

func (m *metrics) reloaded(ok bool) {
	if ok {
		m.reloads.WithLabelValues("active").Inc()
		m.degraded.Set(0)
	} else {
		m.reloads.WithLabelValues("refused").Inc()
		m.degraded.Set(1)
	}
}

func discardLog() *logrus.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return logrus.NewEntry(l)
}
