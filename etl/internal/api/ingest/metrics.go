package ingest

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/protocol"
	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
)

var appendBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

type metrics struct {
	records        *prometheus.CounterVec
	rateLimited    prometheus.Counter
	appendDuration prometheus.Histogram
	appendErrors   prometheus.Counter
	unreadable     prometheus.Counter
	pending        prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	register := promutil.With(reg)
	m := &metrics{
		records: register.CounterVec("fleet_etl_api_records_total",
			"Records received over HTTP, by protocol and status. Ignored are messages that are not positions.", "protocol", "status"),
		rateLimited: register.Counter("fleet_etl_api_rate_limited_total",
			"Requests rejected because a token or a device exceeded its rate limit."),
		appendDuration: register.Histogram("fleet_etl_api_spool_append_duration_seconds",
			"Time until the records of a request were durable in the spool, or the append failed.", appendBuckets),
		appendErrors: register.Counter("fleet_etl_api_spool_append_errors_total",
			"Requests answered 503 because the spool did not take their records."),
		unreadable: register.Counter("fleet_etl_api_spool_unreadable_entries_total",
			"Damaged spool entries. Their bytes are in the dead-letter queue."),
		pending: register.Gauge("fleet_etl_api_pending_records", "Records read from the spool that are not stored yet."),
	}
	for _, name := range protocol.Names {
		for _, status := range []string{statusAccepted, statusDuplicate, statusRejected, statusIgnored} {
			m.records.WithLabelValues(name, status)
		}
	}
	return m
}

func (m *metrics) answered(name string, s *summary) {
	for status, n := range map[string]int{statusAccepted: s.Accepted, statusDuplicate: s.Duplicates, statusRejected: s.Rejected, statusIgnored: s.Ignored} {
		m.records.WithLabelValues(name, status).Add(float64(n))
	}
}
