// Package query answers what is stored over HTTP: fleets, devices, newest fixes, tracks, alerts and hourly figures,
// as JSON, CSV and GPX, and marks alerts as resolved. It is mounted on the server that takes telemetry in, and a cache
// stands in front of its reads.
package query

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/singleflight"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/httpserve"
)

// Registry is the store's lists of fleets and devices, and the map.
type Registry interface {
	Fleets(ctx context.Context) ([]string, error)
	Devices(ctx context.Context, fleetID string, size int, page string) (cassandra.Page[cassandra.Device], error)
	LatestOfFleet(ctx context.Context, fleetID string) ([]cassandra.Telemetry, error)
}

// Tracks is the store's history.
type Tracks interface {
	History(ctx context.Context, q cassandra.HistoryQuery) (cassandra.Page[cassandra.Telemetry], error)
}

// Alerts is the store's alerts.
type Alerts interface {
	Alerts(ctx context.Context, q cassandra.AlertQuery) ([]cassandra.Alert, error)
	ResolveAlert(ctx context.Context, a *cassandra.Alert, writeTimeUs int64) error
	OpenAlertsOfDevice(ctx context.Context, fleetID, deviceID string) ([]cassandra.Alert, error)
	DeleteOpenAlert(ctx context.Context, fleetID, deviceID, alertType string, writeTimeUs int64) error
}

// Figures is the store's hourly figures.
type Figures interface {
	Analytics(ctx context.Context, fleetID string, first, last cassandra.Day) ([]cassandra.Hour, error)
}

// Store is what is read; *cassandra.Store is one.
type Store interface {
	Registry
	Tracks
	Alerts
	Figures
}

// AllFleets is the fleet of a token that is good for all of them.
const AllFleets = "*"

// Options is what an API is made of.
type Options struct {
	// Store gives the store, or false while it has not been reached yet.
	Store func() (Store, bool)

	// Authorize tells what the bearer of a request may do: in which fleet, AllFleets for every one, whether read and
	// write. ok is false where nobody is known by the request's token.
	Authorize func(r *http.Request) (fleet string, read, write, ok bool)

	Cache    Cache // nil: none
	Now      func() time.Time
	Logger   logrus.FieldLogger
	Registry prometheus.Registerer
	Limits   Limits
}

// Limits bounds what a request may cost. A zero field takes the default that its comment names.
type Limits struct {
	Rows          int           // rows of a page that names no limit; 1,000
	MaxRows       int           // rows of a page at the most; 10,000
	InFlight      int           // reads of the store under way at once; 32
	Timeout       time.Duration // of one request, or of one part of a streamed one; 10 s
	StreamTimeout time.Duration // of a streamed answer as a whole; 5 min
}

func (l Limits) withDefaults() Limits {
	setDefault(&l.Rows, 1000)
	setDefault(&l.MaxRows, 10_000)
	setDefault(&l.InFlight, 32)
	setDefault(&l.Timeout, 10*time.Second)
	setDefault(&l.StreamTimeout, 5*time.Minute)
	l.Rows = min(l.Rows, l.MaxRows)
	return l
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// API is the read side of the IoT API.
type API struct {
	Options
	metrics *metrics
	slots   chan struct{} // a place for each read under way
	flights singleflight.Group

	life    context.Context // of reads that several requests wait for; ends with Close
	end     context.CancelFunc
	running sync.WaitGroup
	said    httpserve.Complaint
}

// New makes an API and registers its metrics.
func New(o Options) *API {
	o.Limits = o.Limits.withDefaults()
	a := &API{Options: o, metrics: newMetrics(o.Registry, cacheName(o.Cache)), slots: make(chan struct{}, o.Limits.InFlight)}
	a.life, a.end = context.WithCancel(context.Background())
	return a
}

// Close ends the reads that nobody waits for any more. Call it when the server has been shut down.
func (a *API) Close() {
	a.end()
	a.running.Wait()
}

// Mount adds the routes to a server's.
//
//	GET  /v1/fleets                   ─┐
//	GET  /v1/fleets/{fleet}/devices    │
//	GET  /v1/fleets/{fleet}/latest     │ authorise ─► cache ─► equal requests joined ─► store ─► JSON, CSV, GPX
//	GET  /v1/devices/{device}/track    │
//	GET  /v1/fleets/{fleet}/alerts     │
//	GET  /v1/fleets/{fleet}/analytics ─┘
//	POST /v1/alerts/{alert}/resolve    ─► authorise ─► store
func (a *API) Mount(mux *http.ServeMux) {
	routes := map[string]http.HandlerFunc{
		routeFleets:    serveList(a, a.fleets()),
		routeDevices:   serveList(a, a.devices()),
		routeLatest:    serveList(a, a.latest()),
		routeTrack:     serveList(a, a.track()),
		routeAlerts:    serveList(a, a.alerts()),
		routeAnalytics: serveList(a, a.analytics()),
		routeResolve:   a.watch(routeResolve, a.resolve),
	}
	for _, route := range Routes {
		mux.HandleFunc(route.Method+" "+route.Path, routes[route.Name])
		mux.HandleFunc(route.Path, a.watch(routeOther, wrongMethod(route)))
	}
	for _, folder := range []string{"/v1/fleets/", "/v1/devices/", "/v1/alerts/"} {
		mux.HandleFunc(folder, a.watch(routeOther, func(_ *answer, r *http.Request) error {
			return &problem{status: http.StatusNotFound, message: "no such route", field: "path", value: r.URL.Path, remedy: "see openapi.yaml for those that there are"}
		}))
	}
}

// Route is one route of the API.
type Route struct {
	Name   string // as metrics call it
	Method string
	Path   string // in the form of http.ServeMux and of OpenAPI
}

// The routes, as metrics call them.
const (
	routeFleets    = "fleets"
	routeDevices   = "devices"
	routeLatest    = "latest"
	routeTrack     = "track"
	routeAlerts    = "alerts"
	routeAnalytics = "analytics"
	routeResolve   = "resolve"
	routeOther     = "other" // no route, or not that method
)

// Routes is every route.
var Routes = []Route{
	{routeFleets, http.MethodGet, "/v1/fleets"},
	{routeDevices, http.MethodGet, "/v1/fleets/{fleet}/devices"},
	{routeLatest, http.MethodGet, "/v1/fleets/{fleet}/latest"},
	{routeTrack, http.MethodGet, "/v1/devices/{device}/track"},
	{routeAlerts, http.MethodGet, "/v1/fleets/{fleet}/alerts"},
	{routeAnalytics, http.MethodGet, "/v1/fleets/{fleet}/analytics"},
	{routeResolve, http.MethodPost, "/v1/alerts/{alert}/resolve"},
}

func wrongMethod(route Route) func(*answer, *http.Request) error {
	allowed := route.Method
	if allowed == http.MethodGet {
		allowed = "GET, HEAD"
	}
	return func(w *answer, r *http.Request) error {
		w.Header().Set("Allow", allowed)
		return &problem{status: http.StatusMethodNotAllowed, message: "this route takes another method", field: "method", value: r.Method, remedy: "use " + allowed}
	}
}

// answer is a response under way.
type answer struct{ httpserve.Response }

// slowReader is how long a client may take to read an answer, or one part of a streamed one.
const slowReader = 30 * time.Second

// expectReader gives the client time to read what is written next.
func (w *answer) expectReader() {
	// A writer without deadlines has no connection that could be slow.
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(slowReader))
}

// watch counts and times a route, and tells the client what went wrong.
func (a *API) watch(name string, serve func(*answer, *http.Request) error) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		started := a.Now()
		w := &answer{httpserve.Response{ResponseWriter: rw}}
		class := ""
		defer func() { a.metrics.request(name, class, a.Now().Sub(started)) }()
		err := serve(w, r)
		class = classOf(w.Status)
		switch {
		case err == nil:
		case r.Context().Err() != nil:
			class = classCanceled // nobody is there to be told
		case w.Status != 0:
			class = class5xx
			a.complain(name, err)
		default:
			p := a.problemOf(err)
			if p.status >= http.StatusInternalServerError {
				a.complain(name, err)
			}
			w.expectReader()
			p.write(w)
			class = classOf(p.status)
			return
		}
		if err != nil && w.Status != 0 {
			// Half an answer is out. Cutting the connection is all that can tell it from a whole one.
			panic(http.ErrAbortHandler)
		}
	}
}

// complain logs what an operator should know; a store that is away is not worth a line for each request.
func (a *API) complain(route string, err error) {
	if a.said.Due(a.Now()) {
		a.Logger.WithField("route", route).WithError(err).Warn("read was not answered")
	}
}

// grant is what the bearer of a request may see and do.
type grant struct {
	fleet       string
	read, write bool
}

func (g grant) all() bool                { return g.fleet == AllFleets }
func (g grant) covers(fleet string) bool { return g.all() || g.fleet == fleet }

func (a *API) authorise(r *http.Request) (grant, error) {
	fleet, read, write, ok := a.Authorize(r)
	switch {
	case !ok:
		return grant{}, &problem{status: http.StatusUnauthorized, message: "no valid token", field: "Authorization", remedy: "send the header Authorization: Bearer TOKEN"}
	case fleet == "": // never the fleet of rows that have none
		return grant{}, &problem{status: http.StatusForbidden, message: "the token is for no fleet", field: "Authorization", remedy: "use a token of a fleet"}
	}
	return grant{fleet, read, write}, nil
}

func (a *API) mayRead(r *http.Request) (grant, error) {
	g, err := a.authorise(r)
	if err == nil && !g.read {
		err = &problem{status: http.StatusForbidden, message: "the token has no right to read", field: "Authorization", remedy: "use one that has"}
	}
	return g, err
}

func otherFleet(fleet string) *problem {
	return &problem{status: http.StatusForbidden, message: "the token is for another fleet", field: "fleet", value: fleet, remedy: "use a token of this fleet"}
}

// reach gives the store and a place among the reads under way, which leave gives back.
func (a *API) reach(ctx context.Context) (store Store, leave func(), err error) {
	store, ok := a.Store()
	if !ok {
		return nil, nil, &problem{status: http.StatusServiceUnavailable, message: "the store has not been reached yet", remedy: "ask again later", retryAfter: retryWait}
	}
	select {
	case a.slots <- struct{}{}:
		return store, func() { <-a.slots }, nil
	case <-ctx.Done():
		return nil, nil, &problem{status: http.StatusServiceUnavailable, message: "too many reads are under way", remedy: "ask again later", retryAfter: retrySoon, err: ctx.Err()}
	}
}
