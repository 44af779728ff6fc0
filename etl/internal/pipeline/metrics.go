package pipeline

import (
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// The classic buckets, in seconds. freshnessBuckets have a boundary on the objective of 5 s.
var (
	stageBuckets     = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}
	freshnessBuckets = []float64{.1, .25, .5, 1, 2, 5, 10, 15, 30, 60, 120, 300}
	lagBuckets       = []float64{.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 21600, 86400, 604800, 2592000}
)

// Metrics are those of a pipeline, and the same figures as a Summary for the report of a load.
type Metrics struct {
	received  *prometheus.CounterVec
	rejected  *prometheus.CounterVec
	duplicate *prometheus.CounterVec
	freshness prometheus.Histogram
	eventLag  prometheus.Histogram

	extract, transform, load prometheus.Observer

	length, capacity *prometheus.Desc

	mu      sync.Mutex
	summary Summary
	queues  map[string]queue
}

type queue struct {
	capacity int
	length   func() int
}

// Summary counts records since the start.
type Summary struct {
	Received   int64
	Stored     int64 // durable, each once
	Duplicates int64
	Rejected   map[telemetry.Reason]int64
}

// NewMetrics registers the metrics of a pipeline with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	stage := prometheus.NewHistogramVec(promutil.Histogram("fleet_etl_stage_duration_seconds",
		"Time of one batch in a stage: extract (the source), transform, load (until it is durable).", stageBuckets), []string{"stage"})
	m := &Metrics{
		received: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fleet_etl_records_received_total",
			Help: "Records that sources handed over, good and bad, by source.",
		}, []string{"source"}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fleet_etl_records_rejected_total",
			Help: "Records refused, by source and reason; they are among the dead letters.",
		}, []string{"source", "reason"}),
		duplicate: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fleet_etl_records_duplicate_total",
			Help: "Records of a device and instant that had been taken already, by source.",
		}, []string{"source"}),
		freshness: prometheus.NewHistogram(promutil.Histogram("fleet_etl_freshness_seconds",
			"Time from a record's acceptance until it can be read.", freshnessBuckets)),
		eventLag: prometheus.NewHistogram(promutil.Histogram("fleet_etl_event_lag_seconds",
			"Time from a record's event until its acceptance; a device's clock that runs ahead counts as none.", lagBuckets)),
		extract:   stage.WithLabelValues("extract"),
		transform: stage.WithLabelValues("transform"),
		load:      stage.WithLabelValues("load"),
		length: prometheus.NewDesc("fleet_etl_queue_length",
			"Batches that wait in a queue; see fleet_etl_queue_capacity.", []string{"queue"}, nil),
		capacity: prometheus.NewDesc("fleet_etl_queue_capacity",
			"Batches that a queue holds; when it is full its source waits.", []string{"queue"}, nil),
		queues:  map[string]queue{},
		summary: Summary{Rejected: map[telemetry.Reason]int64{}},
	}
	reg.MustRegister(stage, m.received, m.rejected, m.duplicate, m.freshness, m.eventLag, m)
	return m
}

// Describe implements prometheus.Collector, for the queues.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) { ch <- m.length; ch <- m.capacity }

// Collect implements prometheus.Collector, for the queues.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, q := range m.queues {
		ch <- prometheus.MustNewConstMetric(m.length, prometheus.GaugeValue, float64(q.length()), name)
		ch <- prometheus.MustNewConstMetric(m.capacity, prometheus.GaugeValue, float64(q.capacity), name)
	}
}

// Summary gives the counts so far.
func (m *Metrics) Summary() Summary {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.summary
	s.Rejected = maps.Clone(s.Rejected)
	return s
}

func (m *Metrics) watch(name string, capacity int, length func() int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queues[name] = queue{capacity, length}
}

// create makes a source's counters at zero, so that a rate exists before the first failure.
func (m *Metrics) create(source string) {
	m.received.WithLabelValues(source)
	m.duplicate.WithLabelValues(source)
	for _, reason := range telemetry.Reasons {
		m.rejected.WithLabelValues(source, string(reason))
	}
}

func (m *Metrics) accept(source string, b *Batch) {
	n := len(b.Items) + len(b.Refused)
	m.received.WithLabelValues(source).Add(float64(n))
	m.mu.Lock()
	m.summary.Received += int64(n)
	m.mu.Unlock()
}

func (m *Metrics) transformed(source string, o *Outcome) {
	if o.Duplicates > 0 {
		m.duplicate.WithLabelValues(source).Add(float64(o.Duplicates))
	}
	for i := range o.Refused {
		m.rejected.WithLabelValues(source, string(o.Refused[i].Reason)).Inc()
	}
	m.mu.Lock()
	m.summary.Duplicates += int64(o.Duplicates)
	for i := range o.Refused {
		m.summary.Rejected[o.Refused[i].Reason]++
	}
	m.mu.Unlock()
}

func (m *Metrics) durable(since time.Duration, records int) {
	for range records {
		m.freshness.Observe(since.Seconds())
	}
	m.mu.Lock()
	m.summary.Stored += int64(records)
	m.mu.Unlock()
}
