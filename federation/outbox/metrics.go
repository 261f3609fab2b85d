package outbox

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hansa/federation"
)

// metrics count what is sent. What waits is looked at when somebody asks.
type metrics struct {
	transactions, pdus                               *prometheus.CounterVec
	edus, retries, quarantined, forgotten, dropped   prometheus.Counter
	seconds                                          prometheus.Histogram
	destinations, lagPositions, lagSeconds, inFlight *prometheus.Desc
	serial                                           atomic.Int64
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "hansa_outbox_" + name, Help: help})
	}
	desc := func(name, help, label string) *prometheus.Desc {
		return prometheus.NewDesc("hansa_outbox_"+name, help, []string{label}, nil)
	}
	return &metrics{
		transactions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hansa_outbox_transactions_total",
			Help: "Transactions to other servers, by result: ok, failed."}, []string{"result"}),
		pdus: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hansa_outbox_pdus_total",
			Help: "Events that other servers have got, by what they said: ok, refused."}, []string{"result"}),
		edus:        counter("edus_total", "EDUs that other servers have got."),
		retries:     counter("retries_total", "Failures after which a transaction is tried again."),
		quarantined: counter("quarantined_total", "Items that a server refused over and over and that were put aside."),
		forgotten:   counter("forgotten_total", "Queues that were dropped because the server is no partner any more."),
		dropped:     counter("dropped_total", "Ephemeral EDUs that were not sent because too many waited, or the server did not answer."),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "hansa_outbox_send_seconds", Help: "Time until a server had taken a transaction.",
			Buckets: prometheus.ExponentialBuckets(0.005, 3, 9)}),
		destinations: desc("destinations_count", "Servers, by state: idle, live, waiting after a failure, behind.", "state"),
		lagPositions: desc("lag_positions", "The largest distance to the newest position of the log, by state.", "state"),
		lagSeconds:   desc("lag_seconds", "The longest time that something waits, by state.", "state"),
		inFlight:     desc("sending_count", "Transactions under way, by the pool of the server: fast, slow, dead, late.", "pool"),
	}
}

// sent counts a transaction that arrived.
func (m *metrics) sent(t federation.Transaction, bad int) {
	m.pdus.WithLabelValues("ok").Add(float64(len(t.PDUs) - min(bad, len(t.PDUs))))
	m.pdus.WithLabelValues("refused").Add(float64(bad))
	m.edus.Add(float64(len(t.EDUs)))
}

func (m *metrics) register(r prometheus.Registerer, o *Outbox) error {
	for _, c := range []prometheus.Collector{m.transactions, m.pdus, m.edus, m.retries, m.quarantined, m.forgotten, m.dropped, m.seconds, queues{o}} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// queues collects how much waits.
type queues struct{ o *Outbox }

// Describe implements prometheus.Collector.
func (q queues) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{q.o.metrics.destinations, q.o.metrics.lagPositions, q.o.metrics.lagSeconds, q.o.metrics.inFlight} {
		ch <- d
	}
}

// lag is how much waits for the servers in one state.
type lag struct {
	servers, positions int64
	wait               time.Duration
}

// Collect implements prometheus.Collector.
func (q queues) Collect(ch chan<- prometheus.Metric) {
	states := map[string]*lag{"idle": {}, "live": {}, "waiting": {}, "behind": {}}
	var running [pools]int
	if s := q.o.current(); s != nil {
		s.mu.Lock()
		now := q.o.Now()
		for _, d := range s.dests {
			l := states[d.phase()]
			l.servers++
			if d.pending() {
				from := d.row.Pos
				if len(d.queue) > 0 && !d.behind {
					from = d.queue[0].pos - 1
				}
				l.positions, l.wait = max(l.positions, s.pos-from), max(l.wait, now.Sub(d.since))
			}
		}
		running = s.running
		s.mu.Unlock()
	}
	gauge := func(d *prometheus.Desc, value float64, label string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, label)
	}
	for name, l := range states {
		gauge(q.o.metrics.destinations, float64(l.servers), name)
		gauge(q.o.metrics.lagPositions, float64(l.positions), name)
		gauge(q.o.metrics.lagSeconds, l.wait.Seconds(), name)
	}
	for pool, name := range []string{fast: "fast", slow: "slow", dead: "dead", late: "late"} {
		gauge(q.o.metrics.inFlight, float64(running[pool]), name)
	}
}

// phase is the state of a destination as people know it. The caller holds session.mu.
func (d *destination) phase() string {
	switch {
	case d.row.Failures > 0:
		return "waiting"
	case d.behind:
		return "behind"
	case d.pending():
		return "live"
	}
	return "idle"
}
