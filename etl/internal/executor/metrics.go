package executor

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
)

// tables lists the tables that fleet-etl writes while it stores records.
var tables = append([]string{
	cassandra.TableHistory, cassandra.TableLatest, cassandra.TableLatestByFleet, cassandra.TableDevices, cassandra.TableFleets, cassandra.TableOwners,
}, cassandra.DerivedTables...)

type metrics struct {
	written  map[string]prometheus.Counter
	duration map[string]prometheus.Observer
	errors   *prometheus.CounterVec
	retries  prometheus.Counter
	up       prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, limit *limiter) *metrics {
	register := promutil.With(reg)
	written := promutil.Counters(register, "fleet_etl_records_written_total",
		"Rows written, by table. Rows of telemetry_by_device_day are records; duplicates are not counted.", "table", tables...)
	duration := register.HistogramVec("fleet_etl_write_duration_seconds",
		"Time of one write (a mutation of one partition) from its start to its acknowledgment, retries included, by table.",
		cassandra.RequestBuckets, "table")
	m := &metrics{
		written:  written,
		duration: map[string]prometheus.Observer{},
		errors: register.CounterVec("fleet_etl_write_errors_total",
			"Requests that failed, by table and reason. Requests that can succeed are retried: see fleet_etl_write_retries_total.", "table", "reason"),
		retries: register.Counter("fleet_etl_write_retries_total",
			"Requests that were retried. They show in fleet_etl_write_duration_seconds as slow writes."),
		up: register.Gauge("fleet_etl_store_up",
			"1 while the cluster accepts writes, 0 while writes are paused because it is unavailable."),
	}
	m.up.Set(1)
	for _, table := range tables {
		m.duration[table] = duration.WithLabelValues(table)
		for _, reason := range cassandra.Reasons {
			m.errors.WithLabelValues(table, string(reason))
		}
	}
	register.GaugeFunc("fleet_etl_writes_in_flight",
		"Writes in flight; the bound is fleet_etl_writes_in_flight_limit.", func() float64 { n, _ := limit.state(); return float64(n) })
	register.GaugeFunc("fleet_etl_writes_in_flight_limit",
		"Bound on writes in flight. It falls while the cluster is slow and rises while the cluster keeps up.", func() float64 { _, n := limit.state(); return float64(n) })
	return m
}

func (m *metrics) failed(table string, reason cassandra.Reason) {
	m.errors.WithLabelValues(table, string(reason)).Inc()
	if reason.Advice() != cassandra.GiveUp {
		m.retries.Inc()
	}
}

func (m *metrics) wrote(table string, rows int, took time.Duration) {
	m.duration[table].Observe(took.Seconds())
	m.written[table].Add(float64(rows))
}

// countOf returns the value of a counter.
func countOf(c prometheus.Counter) int64 {
	var m dto.Metric
	_ = c.Write(&m) // a counter of this package is valid
	return int64(m.GetCounter().GetValue())
}

func (m *metrics) setUp(up bool) {
	if up {
		m.up.Set(1)
	} else {
		m.up.Set(0)
	}
}
