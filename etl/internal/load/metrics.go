package load

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
)

// writtenTables are the tables that the loader writes, for itself and for who follows it.
var writtenTables = append([]string{
	cassandra.TableHistory, cassandra.TableLatest, cassandra.TableLatestByFleet, cassandra.TableDevices, cassandra.TableFleets,
}, cassandra.DerivedTables...)

type metrics struct {
	written  map[string]prometheus.Counter
	duration map[string]prometheus.Observer
	errors   *prometheus.CounterVec
	retries  prometheus.Counter
	late     prometheus.Counter
	plan     prometheus.Observer
	store    prometheus.Observer
	storeUp  prometheus.Gauge

	mu     sync.Mutex
	counts counts
}

// counts are the same figures for the report of a load.
type counts struct {
	rows    map[string]int64
	errors  map[cassandra.Reason]int64
	retries int64
}

func newMetrics(reg prometheus.Registerer, limit *limiter) *metrics {
	written := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fleet_etl_records_written_total",
		Help: "Rows written, by table; rows of the history are records. A record that was taken before is not counted again.",
	}, []string{"table"})
	duration := prometheus.NewHistogramVec(promutil.Histogram("fleet_etl_write_duration_seconds",
		"Time of one write (a mutation of one partition) from its start to its acknowledgement, retries included, by table.",
		cassandra.RequestBuckets), []string{"table"})
	window := prometheus.NewHistogramVec(promutil.Histogram("fleet_etl_load_window_duration_seconds",
		"Time of one window of records in the loader, by step: plan (group and compare) and store (from then until all of it is durable).",
		cassandra.RequestBuckets), []string{"step"})
	m := &metrics{
		counts:   counts{rows: map[string]int64{}, errors: map[cassandra.Reason]int64{}},
		written:  map[string]prometheus.Counter{},
		duration: map[string]prometheus.Observer{},
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fleet_etl_write_errors_total",
			Help: "Writes that failed, by table and reason. Those that can succeed are tried again: see fleet_etl_write_retries_total.",
		}, []string{"table", "reason"}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fleet_etl_write_retries_total",
			Help: "Writes that were tried again. They show in fleet_etl_write_duration_seconds as slow ones.",
		}),
		late: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fleet_etl_records_late_total",
			Help: "Records older than their device's newest; they are stored but move nothing on the map.",
		}),
		plan:  window.WithLabelValues("plan"),
		store: window.WithLabelValues("store"),
		storeUp: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "fleet_etl_store_up",
			Help: "1 while the cluster takes writes, 0 while the loader waits for it.",
		}),
	}
	m.storeUp.Set(1)
	for _, table := range writtenTables {
		m.written[table] = written.WithLabelValues(table)
		m.duration[table] = duration.WithLabelValues(table)
		for _, reason := range cassandra.Reasons {
			m.errors.WithLabelValues(table, string(reason))
		}
	}
	inFlight := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "fleet_etl_writes_in_flight",
		Help: "Writes under way; the bound is fleet_etl_writes_in_flight_limit.",
	}, func() float64 { n, _ := limit.state(); return float64(n) })
	inFlightLimit := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "fleet_etl_writes_in_flight_limit",
		Help: "Bound on writes under way. It falls when the cluster is slow and rises while it keeps up.",
	}, func() float64 { _, n := limit.state(); return float64(n) })
	reg.MustRegister(written, duration, window, m.errors, m.retries, m.late, m.storeUp, inFlight, inFlightLimit)
	return m
}

func (m *metrics) failed(table string, reason cassandra.Reason) {
	again := reason.Advice() != cassandra.GiveUp
	m.errors.WithLabelValues(table, string(reason)).Inc()
	if again {
		m.retries.Inc()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts.errors[reason]++
	if again {
		m.counts.retries++
	}
}

func (m *metrics) wrote(table string, rows int, took time.Duration) {
	m.duration[table].Observe(took.Seconds())
	m.written[table].Add(float64(rows))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts.rows[table] += int64(rows)
}

func (m *metrics) setStoreUp(up bool) {
	if up {
		m.storeUp.Set(1)
	} else {
		m.storeUp.Set(0)
	}
}
