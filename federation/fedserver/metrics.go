package fedserver

import "github.com/prometheus/client_golang/prometheus"

// metrics count what other servers ask.
type metrics struct {
	requests *prometheus.CounterVec
	pdus     *prometheus.CounterVec
	edus     *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hansa_fedserver_requests_total", Help: "Requests of other servers by status."}, []string{"status"}),
		pdus:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hansa_fedserver_pdus_total", Help: "Events in transactions by what became of them."}, []string{"result"}),
		edus:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hansa_fedserver_edus_total", Help: "EDUs in transactions by what became of them."}, []string{"result"}),
	}
	if r != nil {
		r.MustRegister(m.requests, m.pdus, m.edus)
	}
	return m
}
