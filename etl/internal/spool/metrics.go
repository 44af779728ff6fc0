package spool

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
)

// syncBuckets are the classic buckets of fsync durations, in seconds.
var syncBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}

// operations are the disk operations that may fail.
var operations = []string{"create", "write", "sync", "read", "cursor", "remove"}

type metrics struct {
	full    prometheus.Counter
	corrupt prometheus.Counter
	errors  map[string]prometheus.Counter
	sync    prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	register := promutil.With(reg)
	return &metrics{
		full: register.Counter("fleet_etl_spool_full_total", "Entries that were rejected because the spool or its disk was full."),
		corrupt: register.Counter("fleet_etl_spool_corrupt_total",
			"Torn or corrupt ranges found in the spool. A torn entry after a crash is harmless; the log names every other range."),
		errors: promutil.Counters(register, "fleet_etl_spool_errors_total",
			"Failed disk operations of the spool, by operation (create, write, sync, read, cursor, remove).", "operation", operations...),
		sync: register.Histogram("fleet_etl_spool_sync_duration_seconds",
			"Duration of an fsync of the spool. Requests that arrive meanwhile share the next one.", syncBuckets),
	}
}

// registerGauges registers the gauges, which read the state of an open spool.
func (s *Spool) registerGauges(reg prometheus.Registerer) {
	gauge := promutil.With(reg).GaugeFunc
	gauge("fleet_etl_spool_bytes", "Bytes in the spool from the first unacknowledged entry on, up to fleet_etl_spool_capacity_bytes.",
		func() float64 { return float64(s.Bytes()) })
	gauge("fleet_etl_spool_capacity_bytes", "Capacity of the spool in bytes. While it is full, the API answers 503.",
		func() float64 { return float64(s.o.MaxBytes) })
	gauge("fleet_etl_spool_entries", "Entries in the spool: accepted requests whose records may not be in the store yet.", func() float64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return float64(s.entries)
	})
	gauge("fleet_etl_spool_oldest_seconds", "Age of the oldest unacknowledged entry in the spool; 0 when there is none.", s.oldestSeconds)
}

func (m *metrics) failed(operation string) { m.errors[operation].Inc() }

func (s *Spool) oldestSeconds() float64 {
	ms, ok := s.oldestMs()
	if !ok {
		return 0
	}
	return max(0, float64(s.now().UnixMilli()-ms)/1000)
}
