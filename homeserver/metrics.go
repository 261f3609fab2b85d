package homeserver

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"hansa/homeserver/room"
	"hansa/storage"
)

// registerMetrics puts what the process, the database and the log tell about themselves into the registry.
func (s *Server) registerMetrics() error {
	counter := func(name, help string, value func(storage.Stats) int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(value(s.DB.Stats())) })
	}
	audits := func(result string, value func(room.Audits) int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "hansa_room_audits_total", ConstLabels: prometheus.Labels{"result": result},
			Help: "Audits of the state of rooms, by result: right, mended, contradictory or failed."}, func() float64 { return float64(value(s.Rooms.Audits())) })
	}
	for _, c := range []prometheus.Collector{
		audits("right", func(a room.Audits) int64 { return a.Right }), audits("mended", func(a room.Audits) int64 { return a.Mended }),
		audits("contradictory", func(a room.Audits) int64 { return a.Contradictory }), audits("failed", func(a room.Audits) int64 { return a.Failed }),
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
