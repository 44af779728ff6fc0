package pipeline

import (
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// The classic buckets, in seconds. freshnessBuckets have a boundary at 5 s, the threshold of the SLO.
var (
	stageBuckets     = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}
	freshnessBuckets = []float64{.1, .25, .5, 1, 2, 5, 10, 15, 30, 60, 120, 300}
	lagBuckets       = []float64{.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 21600, 86400, 604800, 2592000}
)

// metrics are the metrics of a pipeline, and the same counts as a Summary.
type metrics struct {
	received  *prometheus.CounterVec
	rejected  *prometheus.CounterVec
	duplicate *prometheus.CounterVec
	freshness prometheus.Histogram
	eventLag  prometheus.Histogram
	queued    prometheus.Gauge

	extract, transform, load prometheus.Observer

	mu      sync.Mutex
	summary Summary
}

// Summary counts records since the start.
type Summary struct {
	Received   int64
	Stored     int64 // durable, each counted once
	Duplicates int64
	Rejected   map[telemetry.Reason]int64
}

func newMetrics(reg prometheus.Registerer) *metrics {
	register := promutil.With(reg)
	stage := register.HistogramVec("fleet_etl_stage_duration_seconds",
		"Time that one batch spends in a stage: extract (the source reads it), transform (validation), load (until it is durable).", stageBuckets, "stage")
	extract := promutil.With(prometheus.WrapRegistererWith(prometheus.Labels{"queue": "extract"}, reg))
	extract.GaugeFunc("fleet_etl_queue_capacity_bytes",
		"Largest memory of the records that wait in a queue, in bytes. While it is full, the sources wait.", func() float64 { return queueBytes })
	return &metrics{
		received: register.CounterVec("fleet_etl_records_received_total",
			"Records that sources read, including rejected and duplicate ones, by source.", "source"),
		rejected: register.CounterVec("fleet_etl_records_rejected_total",
			"Records that were rejected and became dead letters, by source and reason.", "source", "reason"),
		duplicate: register.CounterVec("fleet_etl_records_duplicate_total",
			"Records whose device and time were seen before, by source.", "source"),
		freshness: register.Histogram("fleet_etl_freshness_seconds",
			"Time from accepting a record until it can be read.", freshnessBuckets),
		eventLag: register.Histogram("fleet_etl_event_lag_seconds",
			"Time from the event of a record until it is accepted; 0 when the device's clock is ahead.", lagBuckets),
		queued: extract.Gauge("fleet_etl_queue_bytes",
			"Memory of the records that wait in a queue, in bytes, up to fleet_etl_queue_capacity_bytes. Records in the queue load have no texts any more."),
		extract:   stage.WithLabelValues("extract"),
		transform: stage.WithLabelValues("transform"),
		load:      stage.WithLabelValues("load"),
		summary:   Summary{Rejected: map[telemetry.Reason]int64{}},
	}
}

// watch registers the metrics of a queue.
func watch[T any](reg prometheus.Registerer, name string, queue chan T) {
	register := promutil.With(prometheus.WrapRegistererWith(prometheus.Labels{"queue": name}, reg))
	register.GaugeFunc("fleet_etl_queue_length",
		"Batches that wait in a queue, up to fleet_etl_queue_capacity.", func() float64 { return float64(len(queue)) })
	register.GaugeFunc("fleet_etl_queue_capacity",
		"Largest number of batches that a queue holds. While it is full, the stage before it waits.", func() float64 { return float64(cap(queue)) })
}

// Summary returns the counts since the start.
func (p *Pipeline) Summary() Summary {
	p.metrics.mu.Lock()
	defer p.metrics.mu.Unlock()
	s := p.metrics.summary
	s.Rejected = maps.Clone(s.Rejected)
	return s
}

// create makes a source's counters at zero, so that rates are defined before the first failure.
func (m *metrics) create(source string) {
	m.received.WithLabelValues(source)
	m.duplicate.WithLabelValues(source)
	for _, reason := range telemetry.Reasons {
		m.rejected.WithLabelValues(source, string(reason))
	}
}

func (m *metrics) receive(source string, b *Batch) {
	n := len(b.Items) + len(b.Rejected)
	m.received.WithLabelValues(source).Add(float64(n))
	m.mu.Lock()
	m.summary.Received += int64(n)
	m.mu.Unlock()
}

func (m *metrics) validated(source string, o *Outcome) {
	m.duplicate.WithLabelValues(source).Add(float64(o.Duplicates))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.summary.Duplicates += int64(o.Duplicates)
	m.countRejected(source, o.Rejected)
}

// rejectedLater counts records that were valid. Some of them were counted as duplicates.
func (m *metrics) rejectedLater(source string, rejected []Rejected, duplicates int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.summary.Duplicates -= int64(duplicates)
	m.countRejected(source, rejected)
}

func (m *metrics) countRejected(source string, rejected []Rejected) {
	for i := range rejected {
		reason := rejected[i].Reason
		m.rejected.WithLabelValues(source, string(reason)).Inc()
		m.summary.Rejected[reason]++
	}
}

func (m *metrics) durable(since time.Duration, records int) {
	for range records {
		m.freshness.Observe(since.Seconds())
	}
	m.mu.Lock()
	m.summary.Stored += int64(records)
	m.mu.Unlock()
}
