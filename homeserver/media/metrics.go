package media

import "github.com/prometheus/client_golang/prometheus"

// metrics count what an operator wants to see of media.
type metrics struct {
	uploads    *prometheus.CounterVec // by result
	bytes      prometheus.Counter
	thumbnails *prometheus.CounterVec // by result
	damaged    prometheus.Counter
	orphans    prometheus.Counter
	fetches    *prometheus.CounterVec // by result
}

// newMetrics makes the metrics and registers them, if there is where.
func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		uploads: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hansa_media_uploads_total",
			Help: "Uploads, by result: stored or refused."}, []string{"result"}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{Name: "hansa_media_upload_bytes_total", Help: "Bytes of the uploads that were stored."}),
		thumbnails: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hansa_media_thumbnails_total",
			Help: "Thumbnails that were asked for and not there, by result: made, failed or busy."}, []string{"result"}),
		damaged: prometheus.NewCounter(prometheus.CounterOpts{Name: "hansa_media_damaged_total",
			Help: "Files that were missing or did not have the content they were stored with."}),
		orphans: prometheus.NewCounter(prometheus.CounterOpts{Name: "hansa_media_orphans_total", Help: "Files that were removed because nothing refers to them."}),
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hansa_media_fetches_total",
			Help: "Downloads of media of other servers, by result: stored or failed."}, []string{"result"}),
	}
	if r != nil {
		r.MustRegister(m.uploads, m.bytes, m.thumbnails, m.damaged, m.orphans, m.fetches)
	}
	return m
}
