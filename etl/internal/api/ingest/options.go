package ingest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Journal keeps what was accepted until it is stored.
type Journal interface {
	// Append returns when the entry is durable; with an error for which Options.Full holds when there is no room.
	Append(ctx context.Context, entry []byte) error
	// Next gives the entries in order, those that were not done before a restart again, and waits for one. The entry
	// belongs to the caller.
	Next(ctx context.Context) (entry []byte, number uint64, err error)
	// Done lets go of an entry. It does not block.
	Done(number uint64)
}

// Options are what a Source needs and how it works. Listener, Journal, Check and Tokens must be set.
type Options struct {
	Listener net.Listener // Run closes it
	TLS      *tls.Config  // nil is plain HTTP
	Tokens   *Tokens

	Journal Journal
	Full    func(error) bool // tells that the journal has no room; nil: no error means that

	// Check gives the reason for which a record can't be stored, nil when it can. It is called by many goroutines at
	// once and leaves the record as it is.
	Check func(r *telemetry.Record, nowMs int64) *telemetry.Rejection
	// Seen tells whether a record was taken before, and remembers it: for the answer only. It is called by many
	// goroutines at once, for records that are durable. nil: every record is new.
	Seen func(r *telemetry.Record) telemetry.Seen

	Limits Limits

	// Mount adds routes to the server; Describe is the OpenAPI document (JSON) of them, whose paths and components join
	// ours. Both may be nil.
	Mount    func(mux *http.ServeMux)
	Describe []byte

	Logger     logrus.FieldLogger
	Registerer prometheus.Registerer
	Now        func() time.Time // nil is time.Now
}

// Limits bound what senders can make the server do.
type Limits struct {
	MaxBody    int64 // bytes of one request's body, packed and unpacked
	MaxRecords int   // records of one request
	MaxBodies  int64 // bytes of all bodies in memory at once; beyond it requests are answered 503

	TokenRate   float64 // records a second under one token; 0 is no limit
	TokenBurst  int     // records that may come at once under it
	DeviceRate  float64 // records a second of one device; 0 is no limit
	DeviceBurst int
	Devices     int // devices whose rate is remembered

	MaxConnections int           // beyond it the connection that has been quiet for longest is closed
	HeaderTimeout  time.Duration // for a request's header
	ReadTimeout    time.Duration // for the whole request
	WriteTimeout   time.Duration // from the header until the answer is written: more than ReadTimeout and AppendTimeout
	IdleTimeout    time.Duration // between two requests on one connection

	AppendTimeout time.Duration // for the journal to take an entry; beyond it requests are answered 503
	MaxAppends    int           // entries on their way into the journal at once
	MaxPending    int           // records handed to the pipeline and not yet stored
	Grace         time.Duration // for requests under way when the source is told to stop
}

// DefaultLimits suit a few thousand records a second from some thousand devices.
func DefaultLimits() Limits {
	return Limits{
		MaxBody: 8 << 20, MaxRecords: 10_000, MaxBodies: 64 << 20,
		TokenRate: 20_000, TokenBurst: 40_000, DeviceRate: 50, DeviceBurst: 10_000, Devices: 100_000,
		MaxConnections: 5_000, HeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second,
		WriteTimeout: 60 * time.Second, IdleTimeout: 2 * time.Minute,
		AppendTimeout: 5 * time.Second, MaxAppends: 512, MaxPending: 100_000, Grace: 5 * time.Second,
	}
}

func (o *Options) check() error {
	switch {
	case o.Listener == nil:
		return errors.New("no listener")
	case o.Journal == nil:
		return errors.New("no journal")
	case o.Check == nil:
		return errors.New("no check")
	case o.Tokens == nil:
		return errors.New("no tokens: load a file of them, or open the API to everybody on purpose")
	case o.Logger == nil || o.Registerer == nil:
		return errors.New("no logger or no registerer")
	}
	return o.Limits.check()
}

func (l *Limits) check() error {
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"MaxBody", l.MaxBody}, {"MaxRecords", int64(l.MaxRecords)}, {"MaxConnections", int64(l.MaxConnections)},
		{"HeaderTimeout", int64(l.HeaderTimeout)}, {"ReadTimeout", int64(l.ReadTimeout)}, {"IdleTimeout", int64(l.IdleTimeout)},
		{"AppendTimeout", int64(l.AppendTimeout)}, {"MaxAppends", int64(l.MaxAppends)}, {"MaxPending", int64(l.MaxPending)},
		{"Devices", int64(l.Devices)},
	} {
		if n.value <= 0 {
			return fmt.Errorf("limit %s %d: give more than 0", n.name, n.value)
		}
	}
	switch {
	case l.MaxBodies < l.MaxBody:
		return fmt.Errorf("limit MaxBodies %d: give at least MaxBody, %d", l.MaxBodies, l.MaxBody)
	case l.WriteTimeout <= l.ReadTimeout+l.AppendTimeout:
		return fmt.Errorf("limit WriteTimeout %s: give more than ReadTimeout and AppendTimeout together, %s", l.WriteTimeout, l.ReadTimeout+l.AppendTimeout)
	case l.TokenRate > 0 && l.TokenBurst < 1:
		return fmt.Errorf("limit TokenBurst %d: give at least 1", l.TokenBurst)
	case l.DeviceRate > 0 && l.DeviceBurst < 1:
		return fmt.Errorf("limit DeviceBurst %d: give at least 1", l.DeviceBurst)
	}
	return nil
}
