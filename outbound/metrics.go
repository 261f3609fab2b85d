package outbound

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	dials    *prometheus.CounterVec
	requests *prometheus.CounterVec
	seconds  prometheus.Histogram
	bytes    prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		dials: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hansa_outbound_dials_total",
			Help: "Connections to other machines by result: ok, refused (the address), unreachable, tls."}, []string{"result"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hansa_outbound_requests_total",
			Help: "Requests to other machines by result: the class of the status, or unreachable."}, []string{"result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "hansa_outbound_request_seconds",
			Help: "Time until the answer's header had arrived.", Buckets: prometheus.ExponentialBuckets(0.005, 3, 9)}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{Name: "hansa_outbound_read_bytes_total", Help: "Bytes of answers, decompressed."}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.dials, m.requests, m.seconds, m.bytes} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
