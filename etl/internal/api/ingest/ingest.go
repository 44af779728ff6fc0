// Package ingest receives records over HTTP. It answers a request once its records are durable in the spool, and passes
// what is in the spool to the pipeline, in order. A record leaves the spool when it is stored.
package ingest

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/semaphore"

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
}

// Options are what an Ingest needs. All fields must be set.
type Options struct {
	Spool Spool
	// Check returns why a record can't be stored, or nil. It does not change the record.
	Check func(r *telemetry.Record, nowMs int64) *telemetry.Rejection
	// Seen reports whether a durable record was seen before, for the response, and remembers it.
	Seen func(r *telemetry.Record) telemetry.Seen

	Limits     Limits
	Logger     logrus.FieldLogger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Limits bound what senders can make the server do.
type Limits struct {
	MaxBody    int64 // bytes of one request body, before and after decompression
	MaxRecords int   // records per request
	MaxBodies  int64 // bytes of all bodies in memory; more are answered 503

	TokenRate   float64 // records/s of one token; 0: unlimited
	TokenBurst  int     // records of one token at once
	DeviceRate  float64 // records/s of one device; 0: unlimited
	DeviceBurst int     // records of one device at once
	Devices     int     // devices whose rate is in memory

	AppendTimeout time.Duration // for the spool to append an entry; then the request is answered 503
	MaxPending    int           // records read from the spool and not yet stored
}

// DefaultLimits suit a few thousand records/s from some thousand devices.
func DefaultLimits() Limits {
	return Limits{
		MaxBody: 8 << 20, MaxRecords: 10_000, MaxBodies: 64 << 20,
		TokenRate: 20_000, TokenBurst: 40_000, DeviceRate: 50, DeviceBurst: 10_000, Devices: 100_000,
		AppendTimeout: 5 * time.Second, MaxPending: 100_000,
	}
}

// Ingest receives records over HTTP and passes them to the pipeline.
//
//	request ─► body ─► messages ─► rate limits ─► spool ─► response
//	                                                └─► batches ─► pipeline ─► Done
type Ingest struct {
	Options
	metrics     *metrics
	tokenRates  *limiters
	deviceRates *limiters
	bodies      *semaphore.Weighted // bytes
	pending     *semaphore.Weighted // records
}

// New makes an Ingest and registers its metrics.
func New(o Options) *Ingest {
	l := o.Limits
	return &Ingest{
		Options: o, metrics: newMetrics(o.Registerer),
		tokenRates:  newLimiters(l.TokenRate, l.TokenBurst, l.Devices),
		deviceRates: newLimiters(l.DeviceRate, l.DeviceBurst, l.Devices),
		bodies:      semaphore.NewWeighted(l.MaxBodies), pending: semaphore.NewWeighted(int64(l.MaxPending)),
	}
}
