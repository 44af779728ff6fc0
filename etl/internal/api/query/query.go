// Package query returns fleets, devices, latest positions, tracks, alerts and hourly statistics, as JSON, CSV and GPX, and
// resolves alerts. A cache stands in front of its reads.
package query

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/auth"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/cache"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/rest"
	"github.com/fleettracing/fleet-tracing/etl/internal/fair"
	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
)

// Store is what the API reads. *cassandra.Store is one.
type Store interface {
	Fleets(ctx context.Context) ([]string, error)
	Devices(ctx context.Context, fleetID string, size int, page string) (cassandra.Page[cassandra.Device], error)
	LatestPage(ctx context.Context, fleetID, after string, limit int) (cassandra.Page[cassandra.Telemetry], error)
	FleetsOf(ctx context.Context, deviceID string, fleets []string) ([]string, error)
	History(ctx context.Context, q cassandra.HistoryQuery) ([]cassandra.Telemetry, error)
	Alerts(ctx context.Context, q cassandra.AlertQuery) ([]cassandra.Alert, error)
	ResolveAlert(ctx context.Context, a *cassandra.Alert, writeTimeUs int64) error
	OpenAlertsOfDevice(ctx context.Context, fleetID, deviceID string) ([]cassandra.Alert, error)
	DeleteOpenAlert(ctx context.Context, fleetID, deviceID, alertType string, writeTimeUs int64) error
	Analytics(ctx context.Context, fleetID string, first, last cassandra.Day) ([]cassandra.AnalyticsRow, error)
}

// Options are what an API needs.
type Options struct {
	// Store returns the store, or false until it has been reached.
	Store func() (Store, bool)

	Cache    cache.Cache // nil: none
	Now      func() time.Time
	Logger   logrus.FieldLogger
	Registry prometheus.Registerer
	Limits   Limits
}

// Limits bound what a request may cost. A zero field takes the default in its comment.
type Limits struct {
	Rows          int           // rows per page, default of limit; 1,000
	MaxRows       int           // rows per page, maximum; 10,000
	InFlight      int           // reads of the store in progress; 32. A sender gets at most as many as it leaves free
	Waiting       int           // reads of one sender that wait for their turn; 100
	Timeout       time.Duration // of one request, or of one part of a stream; 10 s
	StreamTimeout time.Duration // of a whole stream; 5 min
}

func (l Limits) withDefaults() Limits {
	l.Rows, l.MaxRows = cmp.Or(l.Rows, 1000), cmp.Or(l.MaxRows, 10_000)
	l.InFlight, l.Waiting = cmp.Or(l.InFlight, 32), cmp.Or(l.Waiting, 100)
	l.Timeout, l.StreamTimeout = cmp.Or(l.Timeout, 10*time.Second), cmp.Or(l.StreamTimeout, 5*time.Minute)
	l.Rows = min(l.Rows, l.MaxRows)
	return l
}

// API answers queries.
type API struct {
	Options
	loader *cache.Loader
	slots  *fair.Slots // one per read in progress
	waited map[outcome]prometheus.Observer
	memory *rest.Memory // of responses that are being sent
}

// The memory of responses that are being sent, in bytes: of all, and of one stream.
const (
	responseMemory = 64 << 20
	streamMemory   = 4 << 20
)

// New makes an API and registers its metrics.
func New(o Options) *API {
	o.Limits = o.Limits.withDefaults()
	a := &API{
		Options: o, loader: cache.NewLoader(o.Cache, o.Limits.Timeout, o.Registry),
		slots: fair.NewSlots(int64(o.Limits.InFlight), o.Limits.Waiting), waited: map[outcome]prometheus.Observer{},
		memory: rest.NewMemory(responseMemory, "responses", o.Registry),
	}
	register := promutil.With(o.Registry)
	register.GaugeFunc("fleet_etl_api_reads", "Reads of the store in progress for the API, at most 32. A fleet gets at most as many as it leaves free.",
		func() float64 { return float64(a.slots.Used()) })
	waited := register.HistogramVec("fleet_etl_api_read_wait_seconds",
		"Time that a read of the store waited for its turn, by outcome: started, limited (status 429: its fleet or token has too many reads in progress), "+
			"overloaded (status 503: all of them have) or abandoned by the client.", cassandra.RequestBuckets, "outcome")
	for _, o := range []outcome{started, limited, overloaded, abandoned} {
		a.waited[o] = waited.WithLabelValues(string(o))
	}
	return a
}

// outcome is what became of a read that waited for its turn.
type outcome string

const (
	started    outcome = "started"
	limited    outcome = "limited"
	overloaded outcome = "overloaded"
	abandoned  outcome = "abandoned"
)

// Close ends the reads in progress. Call it after the shutdown of the server.
func (a *API) Close() { a.loader.Close() }

// Routes are the routes that read, and the one that resolves an alert.
//
//	list    ─► cache ─► equal requests share a read ─► store ─► JSON, CSV, GPX
//	resolve ─► store
func (a *API) Routes() []rest.Route {
	return []rest.Route{
		serveList(a, a.fleets()), serveList(a, a.devices()), serveList(a, a.latest()), serveList(a, a.track()), serveList(a, a.alerts()), serveList(a, a.analytics()),
		{Name: "resolve", Method: http.MethodPost, Path: "/v1/alerts/{alert}/resolve", Right: auth.Write, Handle: func(w *rest.Response, r *rest.Request) error {
			return a.problem(a.resolve(w, r))
		}},
	}
}

// slowReader is how long a client may take to read a response, or one part of a stream.
const slowReader = 30 * time.Second

// withStore calls do with the store, as one of the reads in progress of a sender, and with the time limit of a request.
func (a *API) withStore(ctx context.Context, sender string, do func(ctx context.Context, store Store) error) error {
	store, ok := a.Store()
	if !ok {
		return rest.Temporary(rest.StoreUnavailable, "the store has not been reached yet", retryLater, retryWait, nil)
	}
	ctx, cancel := context.WithTimeout(ctx, a.Limits.Timeout)
	defer cancel()
	if err := a.turn(ctx, sender); err != nil {
		return err
	}
	defer a.slots.Release(sender, 1)
	return do(ctx, store)
}

// turn waits for the turn of a sender, for at most half of the time limit of a request.
func (a *API) turn(ctx context.Context, sender string) error {
	begin := a.Now()
	ctx, cancel := context.WithTimeout(ctx, a.Limits.Timeout/2)
	defer cancel()
	err := a.slots.Acquire(ctx, sender, 1)
	is, kind, of := started, rest.Overloaded, ""
	switch {
	case errors.Is(err, context.Canceled):
		is = abandoned
	case errors.Is(err, fair.ErrWaiting), errors.Is(err, fair.ErrLimit):
		is, kind, of = limited, rest.RateLimited, " of this fleet or token"
	case err != nil:
		is = overloaded
	}
	a.waited[is].Observe(a.Now().Sub(begin).Seconds())
	if err != nil {
		return rest.Temporary(kind, "too many reads"+of+" are in progress", retryLater, retrySoon, err)
	}
	return nil
}

// When to retry: soon if another node may answer, later if the cluster is unavailable.
const (
	retrySoon  = 1 * time.Second
	retryWait  = 5 * time.Second
	retryLater = "retry after Retry-After"
)

// problem is what an error means for the client. The text of the store's error, which contains addresses, is for the log.
func (a *API) problem(err error) error {
	if p := (*rest.Problem)(nil); err == nil || errors.As(err, &p) {
		return err
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return rest.Temporary(rest.QueryTimeout, "no result within "+a.Limits.Timeout.String(),
			"ask for a shorter range or a smaller page, or retry after Retry-After", retryWait, err)
	}
	switch cassandra.ReasonOf(err).Advice() {
	case cassandra.Wait:
		return rest.Temporary(rest.StoreUnavailable, "the store is unavailable", retryLater, retryWait, err)
	case cassandra.Retry:
		return rest.Temporary(rest.StoreUnavailable, "the store did not respond", retryLater, retrySoon, err)
	default:
		return &rest.Problem{Kind: rest.Internal, Detail: "the store could not be read", Remedy: "ask the operator, who finds the reason in the log", Cause: err}
	}
}

func otherFleet(fleet string) *rest.Problem {
	return &rest.Problem{Kind: rest.Forbidden, Detail: "the token belongs to another fleet", Field: "fleet", Value: fleet, Remedy: "use a token of this fleet"}
}
