package appservices

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	transactions, events, failures *prometheus.CounterVec
	seconds                        prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, s *Service) (*metrics, error) {
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"bridge"})
	}
	m := &metrics{
		transactions: counter("hansa_appservices_transactions_total", "Transactions that a bridge has confirmed."),
		events:       counter("hansa_appservices_events_total", "Events that a bridge has been told of."),
		failures:     counter("hansa_appservices_failures_total", "Transactions that a bridge has not confirmed; they are tried again."),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "hansa_appservices_transaction_seconds", Help: "How long bridges took to answer a transaction.",
			Buckets: []float64{0.005, 0.02, 0.1, 0.5, 2, 10, 40}}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.transactions, m.events, m.failures, m.seconds, newLag(s)} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// lag tells how far bridges are behind, at the moment when somebody asks.
type lag struct {
	s               *Service
	behind, failing *prometheus.Desc
}

func newLag(s *Service) *lag {
	return &lag{s: s,
		behind: prometheus.NewDesc("hansa_appservices_behind_positions", "How many positions of the log a bridge that this node serves has yet to be told of.",
			[]string{"bridge"}, nil),
		failing: prometheus.NewDesc("hansa_appservices_failing_seconds", "For how long a bridge has not taken what it is told; more than some minutes is an alarm.",
			[]string{"bridge"}, nil)}
}

// Describe implements prometheus.Collector.
func (l *lag) Describe(out chan<- *prometheus.Desc) {
	out <- l.behind
	out <- l.failing
}

// Collect implements prometheus.Collector.
func (l *lag) Collect(out chan<- prometheus.Metric) {
	now, newest := l.s.Now(), l.s.Stream.Position()
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	for id, rd := range l.s.readers {
		if rd.ended || !rd.holds.Load() {
			continue
		}
		out <- prometheus.MustNewConstMetric(l.behind, prometheus.GaugeValue, float64(max(0, newest-rd.pos.Load())), id)
		failing := 0.0
		if since := rd.failing.Load(); since != 0 {
			failing = max(0, now.Sub(time.UnixMilli(since)).Seconds())
		}
		out <- prometheus.MustNewConstMetric(l.failing, prometheus.GaugeValue, failing, id)
	}
}
