package plugin

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// Metrics are those of the plugin, for all of its data sources together; those of each one's driver stand beside them.
type Metrics struct {
	queries    *prometheus.CounterVec
	duration   *prometheus.HistogramVec
	partitions *prometheus.CounterVec
	pages      *prometheus.CounterVec
	rows       *prometheus.CounterVec
	cache      *prometheus.CounterVec
	cuts       *prometheus.CounterVec
	errors     *prometheus.CounterVec
	refused    prometheus.Counter
	streams    prometheus.Gauge
	packets    *prometheus.CounterVec
	health     *prometheus.CounterVec
}

// reasons are why a query came to nothing: those of the store, and our own.
var reasons = append([]string{reasonInvalid, reasonForbidden, reasonDeadline, reasonConnect, reasonPlugin}, storeReasons()...)

const (
	reasonInvalid   = "invalid"   // the query is wrong
	reasonForbidden = "forbidden" // a fleet that the data source has no right on
	reasonDeadline  = "deadline"  // it took longer than the query timeout
	reasonConnect   = "connect"   // the cluster could not be connected to
	reasonPlugin    = "plugin"    // a fault of the plugin itself
)

func storeReasons() []string {
	names := make([]string, len(cassandra.Reasons))
	for i, r := range cassandra.Reasons {
		names[i] = string(r)
	}
	return names
}

// NewMetrics makes the metrics; every series is there at zero, so that a rate exists before the first query.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fleet_datasource_" + name, Help: help}, labels)
		reg.MustRegister(c)
		return c
	}
	m := &Metrics{
		queries: counter("queries_total", "Queries answered, by type and outcome (ok, cut, error).", "type", "outcome"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:                            "fleet_datasource_query_duration_seconds",
			Help:                            "Time to answer a query, by type; caches included.",
			Buckets:                         []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2, 5, 10},
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, []string{"type"}),
		partitions: counter("partitions_total", "Partitions read from Cassandra, by type of query.", "type"),
		pages:      counter("pages_total", "Pages read from Cassandra, by type of query.", "type"),
		rows:       counter("rows_total", "Rows, by type of query and stage: read from Cassandra, returned to Grafana.", "type", "stage"),
		cache:      counter("cache_requests_total", "Look-ups in the caches (latest, day, list), by outcome: hit, miss, or shared with an equal read under way.", "cache", "outcome"),
		cuts:       counter("cuts_total", "Queries whose answer was cut by a limit, with a notice, by type.", "type"),
		errors:     counter("query_errors_total", "Queries that failed, by type and reason.", "type", "reason"),
		refused:    prometheus.NewCounter(prometheus.CounterOpts{Name: "fleet_datasource_raw_refused_total", Help: "Raw statements that the guard refused."}),
		streams:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "fleet_datasource_streams", Help: "Live streams that run."}),
		packets:    counter("stream_packets_total", "Packets of live streams, by outcome (sent, failed).", "outcome"),
		health:     counter("health_checks_total", "Health checks, by outcome (ok, error).", "outcome"),
	}
	reg.MustRegister(m.duration, m.refused, m.streams)
	for _, t := range types {
		for _, outcome := range []string{"ok", "cut", "error"} {
			m.queries.WithLabelValues(t, outcome)
		}
		m.duration.WithLabelValues(t)
		m.partitions.WithLabelValues(t)
		m.pages.WithLabelValues(t)
		m.rows.WithLabelValues(t, "read")
		m.rows.WithLabelValues(t, "returned")
		m.cuts.WithLabelValues(t)
		for _, reason := range reasons {
			m.errors.WithLabelValues(t, reason)
		}
	}
	for _, cache := range []string{cacheLatest, cacheDay, cacheList} {
		for _, outcome := range []string{"hit", "miss", "shared"} {
			m.cache.WithLabelValues(cache, outcome)
		}
	}
	for _, outcome := range []string{"sent", "failed"} {
		m.packets.WithLabelValues(outcome)
	}
	for _, outcome := range []string{"ok", "error"} {
		m.health.WithLabelValues(outcome)
	}
	return m
}
