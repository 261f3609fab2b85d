package account

import "github.com/prometheus/client_golang/prometheus"

// metrics count what an operator wants to see of accounts.
type metrics struct {
	passwords *prometheus.CounterVec // by result
	refused   *prometheus.CounterVec // by limit
	loads     prometheus.Counter
}

// newMetrics makes the metrics and registers them, if there is where.
func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		passwords: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hansa_account_passwords_total",
			Help: "Passwords that were tried, by result: right or wrong."}, []string{"result"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hansa_account_limited_total",
			Help: "Requests that were refused by a limit, by limit."}, []string{"limit"}),
		loads: prometheus.NewCounter(prometheus.CounterOpts{Name: "hansa_account_session_loads_total",
			Help: "Sessions that were read from the database because they were not in memory."}),
	}
	if r != nil {
		r.MustRegister(m.passwords, m.refused, m.loads)
	}
	return m
}

func (m *metrics) proved(right bool) {
	if right {
		m.passwords.WithLabelValues("right").Inc()
	} else {
		m.passwords.WithLabelValues("wrong").Inc()
	}
}
