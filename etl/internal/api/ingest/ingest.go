// Package ingest receives records over HTTP. It answers a request once its records are durable in the spool, and passes
// what is in the spool to the pipeline, in order. A record leaves the spool when it is stored.
package ingest

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/protocol"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/rest"
	"github.com/fleettracing/fleet-tracing/etl/internal/fair"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
	"github.com/fleettracing/fleet-tracing/etl/internal/ratelog"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Spool stores accepted records until they are in the store. *spool.Spool is one.
type Spool interface {
	// Append returns when the entry, which belongs to the spool, is durable, or when ctx ends. It returns spool.ErrFull when
	// the entry does not fit.
	Append(ctx context.Context, entry []byte) error
	// Next returns the entries in order and waits for one. After a restart it returns unacknowledged entries again. The
	// caller owns the entry.
	Next(ctx context.Context) (entry []byte, number uint64, err error)
	// Ack acknowledges an entry, which then need not be kept. It does not block.
	Ack(number uint64)
	// Bytes returns how much of its capacity is used.
	Bytes() int64
	// NoteFull counts an entry that the caller rejected because it has no space for it.
	NoteFull()
}

// Options are what an Ingest needs. All fields but Lanes must be set.
type Options struct {
	Spool Spool
	Lanes []Spool // more spools, to keep senders apart; see lanes
	// Check returns why a record can't be stored, or nil. It does not change the record.
	Check func(r *telemetry.Record, nowMs int64) *telemetry.Rejection
	// CheckOwner returns why the sender, a fleet or pipeline.Trusted, can't write a record of another fleet's device, as far
	// as it is known without a read. A record whose owner is not known yet is judged when it is stored.
	CheckOwner func(sender string, r *telemetry.Record) *telemetry.Rejection
	// Seen reports whether a durable record was seen before, for the response, and remembers it.
	Seen func(r *telemetry.Record) telemetry.Seen
	// Reject keeps the records of requests that were rejected whole. It returns when they are durable, or when ctx ends.
	Reject func(ctx context.Context, origin string, rejected []pipeline.Rejected) error

	Limits     Limits
	Logger     logrus.FieldLogger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Limits bound what senders can make the server do.
type Limits struct {
	MaxBody    int64 // bytes of one request body, before and after decompression
	MaxRecords int   // records per request
	MaxMemory  int64 // bytes of memory of all requests in progress; at least twice LargestRequest

	FleetRate   float64 // records/s of the tokens of one fleet, with RecordBytes each; 0: unlimited
	FleetBurst  int     // records of one fleet at once
	TokenRate   float64 // records/s of one token, with RecordBytes each; 0: unlimited
	TokenBurst  int     // records of one token at once
	DeviceRate  float64 // records/s of one device; 0: unlimited
	DeviceBurst int     // records of one device at once
	Devices     int     // devices whose rate is in memory

	MaxLate time.Duration // how old the records of a fleet's token may be; 0: unlimited

	AppendTimeout time.Duration // for the spool to append an entry; then the request is answered 503
	MaxPending    int64         // bytes of memory of the records of one lane that are read from the spool and not yet stored; all have twice as much
	SpoolBytes    int64         // bytes of all lanes of the spool
}

// RecordBytes is the mean size of a record, in bytes, up to which only the number of records is limited.
const RecordBytes = 1024

// LargestRequest returns the memory of the largest request, in bytes.
func (l *Limits) LargestRequest() int64 {
	return gzipMemory + bodyMemory*l.MaxBody + messageMemory*int64(l.MaxRecords)
}

// DefaultLimits suit a few thousand records/s from some thousand devices.
func DefaultLimits() Limits {
	return Limits{
		MaxBody: 8 << 20, MaxRecords: 10_000, MaxMemory: 64 << 20,
		FleetRate: 20_000, FleetBurst: 40_000, TokenRate: 20_000, TokenBurst: 40_000, DeviceRate: 50, DeviceBurst: 10_000, Devices: 100_000,
		AppendTimeout: 5 * time.Second, MaxPending: 32 << 20,
	}
}

// Ingest receives records over HTTP and passes them to the pipeline.
//
//	request ─► body ─► messages ─► rate limits ─► spool ─► response
//	                                                └─► batches ─► pipeline ─► Done
type Ingest struct {
	Options
	metrics     *metrics
	fleets      volume
	tokens      volume
	deviceRates *limiters
	limitLog    rate.Sometimes
	memory      *rest.Memory // of requests
	lanes       *lanes
	pending     *fair.Slots // bytes, by lane
	rejects     rejects
}

// New makes an Ingest and registers its metrics.
func New(o Options) *Ingest {
	l := o.Limits
	return &Ingest{
		Options: o, metrics: newMetrics(o.Registerer),
		fleets:      newVolume(l.FleetRate, l.FleetBurst, l),
		tokens:      newVolume(l.TokenRate, l.TokenBurst, l),
		limitLog:    rate.Sometimes{Interval: ratelog.Interval},
		deviceRates: newLimiters(l.DeviceRate, l.DeviceBurst, l.Devices),
		memory:      rest.NewMemory(l.MaxMemory, "requests", o.Registerer), lanes: newLanes(append([]Spool{o.Spool}, o.Lanes...), l.SpoolBytes),
		pending: fair.NewSlots(2*l.MaxPending, 0),

		rejects: rejects{writing: make(chan struct{}, 1)},
	}
}

var appendBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

type metrics struct {
	records        *prometheus.CounterVec
	limited        *prometheus.CounterVec
	appendDuration prometheus.Histogram
	appendErrors   prometheus.Counter
	unreadable     prometheus.Counter
	pending        prometheus.Gauge
	pendingBytes   prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	register := promutil.With(reg)
	m := &metrics{
		records: register.CounterVec("fleet_etl_api_records_total",
			"Records received over HTTP, by protocol and status. Ignored are messages that are not positions.", "protocol", "status"),
		limited: register.CounterVec("fleet_etl_api_rate_limited_requests_total",
			"Requests answered 429 because of a rate limit, by what has the limit: fleet, token or device.", "limit"),
		appendDuration: register.Histogram("fleet_etl_api_spool_append_duration_seconds",
			"Time until the records of a request were durable in the spool, or the append failed.", appendBuckets),
		appendErrors: register.Counter("fleet_etl_api_spool_append_errors_total",
			"Requests answered 503 because the spool, or the dead-letter queue, did not take their records."),
		unreadable: register.Counter("fleet_etl_api_spool_unreadable_entries_total",
			"Damaged spool entries. Their bytes are in the dead-letter queue."),
		pending: register.Gauge("fleet_etl_api_pending_records", "Records read from the spool that are not stored yet."),
		pendingBytes: register.Gauge("fleet_etl_api_pending_bytes",
			"Memory of the records read from the spool that are not stored yet, in bytes. At 32 MiB of one fleet, and at 64 MiB, reading waits."),
	}
	for _, limit := range []string{limitFleet, limitToken, limitDevice} {
		m.limited.WithLabelValues(limit)
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
