package homeserver

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"hansa/storage"
)

// registerMetrics puts what the process, the database and the log tell about themselves into the registry.
func (s *Server) registerMetrics() error {
	counter := func(name, help string, value func(storage.Stats) int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(value(s.DB.Stats())) })
	}
	audits := func(name, help string, value func(audited, mended int64) int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(value(s.Rooms.Audited())) })
	}
	for _, c := range []prometheus.Collector{
		audits("hansa_room_audits_total", "How often the state of a room was made anew and compared with what is stored.", func(audited, _ int64) int64 { return audited }),
		audits("hansa_room_mended_total", "How often it was not the same, and was set right.", func(_, mended int64) int64 { return mended }),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		counter("hansa_storage_reads_total", "SELECT statements outside write transactions.", func(st storage.Stats) int64 { return st.Reads }),
		counter("hansa_storage_statements_total", "Statements inside write transactions, without BEGIN and COMMIT.", func(st storage.Stats) int64 { return st.Statements }),
		counter("hansa_storage_commits_total", "Write transactions.", func(st storage.Stats) int64 { return st.Commits }),
		counter("hansa_storage_events_total", "Events appended.", func(st storage.Stats) int64 { return st.Events }),
		counter("hansa_storage_failovers_total", "How often another database server, or another timeline of it, answered than before.", func(st storage.Stats) int64 { return st.Failovers }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "hansa_storage_epoch", Help: "How often the database has gone back in time."},
			func() float64 { return float64(s.DB.Seen().Mark().Epoch) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "hansa_stream_position_count", Help: "The newest position of the log that this node has heard of."},
			func() float64 { return float64(s.Stream.Position()) }),
	} {
		if err := s.Metrics.Register(c); err != nil {
			return err
		}
	}
	return nil
}
