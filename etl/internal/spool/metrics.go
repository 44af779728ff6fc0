package spool

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
)

// syncBuckets are the classic buckets of fsync times, in seconds.
var syncBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}

// operations are what may fail on disk.
var operations = []string{"create", "write", "sync", "read", "mark", "remove"}

type metrics struct {
	gauges  []prometheus.Collector
	full    prometheus.Counter
	corrupt prometheus.Counter
	errors  *prometheus.CounterVec
	sync    prometheus.Histogram
}

func newMetrics(s *Spool) *metrics {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	m := &metrics{
		gauges: []prometheus.Collector{
			gauge("fleet_etl_spool_bytes", "Bytes of entries in the spool that are not done; see fleet_etl_spool_capacity_bytes.",
				func() float64 { return float64(s.Bytes()) }),
			gauge("fleet_etl_spool_capacity_bytes", "Bytes that the spool holds at the most; when it is full, requests are answered with 503.",
				func() float64 { return float64(s.o.MaxBytes) }),
			gauge("fleet_etl_spool_entries", "Entries in the spool that are not done: accepted requests whose records are not in the store yet.",
				func() float64 { return float64(s.count()) }),
			gauge("fleet_etl_spool_oldest_seconds", "Age of the oldest entry in the spool that is not done; 0 when there is none.", s.oldestSeconds),
			gauge("fleet_etl_spool_drain_seconds", "Time in which the spool would be empty at the pace of the last minute; 0 when it is empty, +Inf when nothing moves.", s.drainSeconds),
		},
		full: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fleet_etl_spool_full_total",
			Help: "Entries that were turned away because the spool or its disk was full.",
		}),
		corrupt: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fleet_etl_spool_corrupt_total",
			Help: "Places of the spool found torn or damaged. One torn entry after a crash costs nothing; the log tells of any other.",
		}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fleet_etl_spool_errors_total",
			Help: "Failed operations of the spool on its disk, by operation (create, write, sync, read, mark, remove).",
		}, []string{"operation"}),
		sync: prometheus.NewHistogram(promutil.Histogram("fleet_etl_spool_sync_duration_seconds",
			"Time that an fsync of the spool takes. All requests that come meanwhile share the next one.", syncBuckets)),
	}
	for _, operation := range operations {
		m.errors.WithLabelValues(operation)
	}
	return m
}

func (m *metrics) register(reg prometheus.Registerer) {
	reg.MustRegister(m.gauges...)
	reg.MustRegister(m.full, m.corrupt, m.errors, m.sync)
}

func (m *metrics) failed(operation string) { m.errors.WithLabelValues(operation).Inc() }

func (s *Spool) count() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entries
}

func (s *Spool) oldestSeconds() float64 {
	ms, ok := s.oldestMs()
	if !ok {
		return 0
	}
	return max(0, float64(s.now().UnixMilli()-ms)/1000)
}

func (s *Spool) drainSeconds() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == 0 {
		return 0
	}
	now := s.now()
	over := min(paceSeconds, max(1, now.Sub(s.opened).Seconds()))
	done := s.pace.sum(now)
	if done == 0 {
		return math.Inf(1)
	}
	return float64(s.held) * over / float64(done)
}

const paceSeconds = 60

// pace is the bytes that were done in each of the last seconds.
type pace struct {
	seconds [paceSeconds]struct{ unix, bytes int64 }
}

func (p *pace) add(now time.Time, bytes int64) {
	if bytes == 0 {
		return
	}
	at := &p.seconds[now.Unix()%paceSeconds]
	if at.unix != now.Unix() {
		at.unix, at.bytes = now.Unix(), 0
	}
	at.bytes += bytes
}

// sum gives the bytes of the last minute.
func (p *pace) sum(now time.Time) (bytes int64) {
	for _, at := range p.seconds {
		if age := now.Unix() - at.unix; age >= 0 && age < paceSeconds {
			bytes += at.bytes
		}
	}
	return bytes
}
