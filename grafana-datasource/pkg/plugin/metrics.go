package plugin

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/reader"
)

// Metrics are the metrics of all data sources together. Each data source also registers the metrics of its driver.
type Metrics struct {
	queries       *prometheus.CounterVec
	duration      *prometheus.HistogramVec
	partitions    *prometheus.CounterVec
	pages         *prometheus.CounterVec
	rows          *prometheus.CounterVec
	errors        *prometheus.CounterVec
	streams       prometheus.Gauge
	streamPackets *prometheus.CounterVec
	healthChecks  *prometheus.CounterVec
	cacheRequests *prometheus.CounterVec
	memory        prometheus.Gauge
}

// The reasons for failed queries, beside the reasons of the store.
const (
	reasonInvalid   = "invalid"   // the query is invalid
	reasonForbidden = "forbidden" // the data source may not read the fleet
	reasonDeadline  = "deadline"  // the query took longer than the query timeout
	reasonConnect   = "connect"   // no connection to the cluster
	reasonSchema    = "schema"    // the statement does not fit the schema; the store calls it invalid
	reasonMemory    = "memory"    // other requests hold the query memory
	reasonPlugin    = "plugin"    // a bug of the plugin
	reasonCanceled  = string(cassandra.ReasonCanceled)
)

func reasons() []string {
	names := []string{reasonInvalid, reasonForbidden, reasonDeadline, reasonConnect, reasonSchema, reasonMemory, reasonPlugin}
	for _, r := range cassandra.Reasons {
		if r != cassandra.ReasonInvalid {
			names = append(names, string(r))
		}
	}
	return names
}

// NewMetrics registers the metrics and creates every series at zero, so that rates exist before the first query.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	auto := promauto.With(reg)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return auto.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &Metrics{
		queries: counter("fleet_datasource_queries_total", "Queries by type and outcome (ok, truncated, error).", "type", "outcome"),
		duration: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name:                            "fleet_datasource_query_duration_seconds",
			Help:                            "Duration of queries by type, including cached results.",
			Buckets:                         []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2, 5, 10},
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, []string{"type"}),
		partitions:    counter("fleet_datasource_partitions_total", "Partitions read from Cassandra by query type.", "type"),
		pages:         counter("fleet_datasource_pages_total", "Result pages read from Cassandra by query type.", "type"),
		rows:          counter("fleet_datasource_rows_total", "Rows by query type and stage: read from Cassandra, returned to Grafana.", "type", "stage"),
		errors:        counter("fleet_datasource_query_errors_total", "Failed queries by type and reason.", "type", "reason"),
		streams:       auto.NewGauge(prometheus.GaugeOpts{Name: "fleet_datasource_streams", Help: "Live streams in progress."}),
		streamPackets: counter("fleet_datasource_stream_packets_total", "Packets of live streams by outcome (sent, failed).", "outcome"),
		healthChecks:  counter("fleet_datasource_health_checks_total", "Health checks by outcome (ok, error).", "outcome"),
		cacheRequests: reader.NewRequests(reg),
		memory: auto.NewGauge(prometheus.GaugeOpts{Name: "fleet_datasource_query_memory_bytes",
			Help: "Query memory in use by all requests in progress: the estimated size of their rows and frames."}),
	}
	for _, t := range append([]string{query.TypeInvalid}, query.Types...) {
		for _, outcome := range []string{"ok", "truncated", "error"} {
			m.queries.WithLabelValues(t, outcome)
		}
		m.duration.WithLabelValues(t)
		m.partitions.WithLabelValues(t)
		m.pages.WithLabelValues(t)
		m.rows.WithLabelValues(t, "read")
		m.rows.WithLabelValues(t, "returned")
		for _, reason := range reasons() {
			m.errors.WithLabelValues(t, reason)
		}
	}
	m.streamPackets.WithLabelValues("sent")
	m.streamPackets.WithLabelValues("failed")
	m.healthChecks.WithLabelValues("ok")
	m.healthChecks.WithLabelValues("error")
	return m
}
