package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/auth"
	"github.com/fleettracing/fleet-tracing/etl/internal/ratelog"
)

// Options are what a Router needs. All fields must be set.
type Options struct {
	Routes     []Route
	Tokens     *auth.Tokens
	Logger     logrus.FieldLogger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Router serves routes: it authenticates requests, answers errors as problems, and counts what it answers.
type Router struct {
	Options
	mux      *http.ServeMux
	names    map[string]string // of routes, by the pattern of the mux
	metrics  *metrics
	errorLog *ratelog.Limiter
}

// NewRouter makes a router and registers its metrics.
func NewRouter(o Options) *Router {
	t := &Router{
		Options: o, mux: http.NewServeMux(), names: map[string]string{"": routeNone}, metrics: newMetrics(o.Registerer, o.Routes),
		errorLog: ratelog.NewLimiter(ratelog.Interval),
	}
	for _, route := range o.Routes {
		pattern := route.Method + " " + route.Path
		t.mux.Handle(pattern, &endpoint{t, route})
		t.names[pattern] = route.Name
	}
	return t
}

const requestIDHeader = "X-Request-Id"

// ServeHTTP implements http.Handler.
func (t *Router) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	r = withoutTrailingSlash(r)
	handler, pattern := t.mux.Handler(r)
	w, answered := t.begin(rw, pattern)
	defer answered()
	if pattern == "" {
		t.rejectRoute(w, r, handler)
		return
	}
	t.mux.ServeHTTP(w, r)
}

// Reject answers a request with a problem, whatever its route.
func (t *Router) Reject(rw http.ResponseWriter, p *Problem) {
	w, answered := t.begin(rw, "")
	defer answered()
	w.WriteProblem(p)
}

// begin gives a response its request ID. answered counts it.
func (t *Router) begin(rw http.ResponseWriter, pattern string) (w *Response, answered func()) {
	w, received := &Response{ResponseWriter: rw}, t.Now()
	w.Header().Set(requestIDHeader, uuid.Must(uuid.NewV7()).String()) // sorted by time
	return w, func() { t.metrics.answered(t.names[pattern], w.Status, t.Now().Sub(received)) }
}

// withoutTrailingSlash accepts paths with trailing slashes, because users and apps often append one to an address.
func withoutTrailingSlash(r *http.Request) *http.Request {
	path := r.URL.EscapedPath()
	trimmed := strings.TrimRight(path, "/")
	if trimmed == path || path == "/" {
		return r
	}
	r = r.Clone(r.Context())
	r.URL.RawPath = strings.TrimRight(r.URL.RawPath, "/")
	if r.URL.Path = strings.TrimRight(r.URL.Path, "/"); trimmed == "" {
		r.URL.Path, r.URL.RawPath = "/", ""
	}
	return r
}

// endpoint authenticates the requests of a route, and answers their errors.
type endpoint struct {
	*Router
	route Route
}

func (e *endpoint) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w := rw.(*Response) //nolint:forcetypeassert // Router.ServeHTTP made it
	request := &Request{Request: r, ID: w.Header().Get(requestIDHeader), Received: e.Now()}
	err := e.serve(w, request)
	if err == nil {
		return
	}
	problem := (*Problem)(nil)
	if !errors.As(err, &problem) {
		problem = &Problem{Kind: Internal, Detail: "internal error", Remedy: "ask the operator, who finds the reason in the log", Cause: err}
	}
	begun, status := w.Status != 0, problem.Kind.Status
	if r.Context().Err() != nil && (begun || errors.Is(err, context.Canceled)) {
		status = statusClientGone
	}
	if status >= http.StatusInternalServerError && e.errorLog.Allow(e.Now()) {
		e.Logger.WithError(err).WithField("route", e.route.Name).Warn("request failed")
	}
	switch {
	case begun: // only an aborted connection distinguishes half a response from a whole one
		w.Status = status
		panic(http.ErrAbortHandler)
	case status == statusClientGone:
		w.Status = status
	default:
		w.WriteProblem(problem)
	}
}

func (e *endpoint) serve(w *Response, r *Request) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
		}
	}()
	if e.route.Right != auth.Public {
		if err := e.authenticate(w, r); err != nil {
			return err
		}
	}
	return e.route.Handle(w, r)
}

// authenticate sets the grant of a request, or returns why its token does not allow it.
func (e *endpoint) authenticate(w *Response, r *Request) error {
	presented := ""
	if e.route.Token != nil {
		presented = e.route.Token(r.Request)
	}
	var known bool
	r.Grant, known = e.Tokens.Authenticate(r.Request, presented)
	switch {
	case !known:
		scheme := e.route.Scheme
		if scheme == "" {
			scheme = "Bearer"
		}
		w.Header().Set("WWW-Authenticate", scheme+` realm="fleet-tracing"`)
		return &Problem{
			Kind: Unauthorized, Detail: "the request has no token, or an unknown one", Field: "Authorization",
			Remedy: "send the header Authorization: Bearer TOKEN",
		}
	case !r.Grant.Has(e.route.Right):
		return &Problem{
			Kind: Forbidden, Detail: fmt.Sprintf("the token may not %s", e.route.Right), Field: "Authorization",
			Remedy: fmt.Sprintf("use a token with the right to %s", e.route.Right),
		}
	}
	return nil
}

// rejectRoute answers a request that no route matches. It has the status that the mux would send.
func (t *Router) rejectRoute(w *Response, r *http.Request, handler http.Handler) {
	probe := &probeWriter{header: http.Header{}}
	handler.ServeHTTP(probe, r)
	switch probe.status {
	case http.StatusMethodNotAllowed:
		allowed := probe.header.Get("Allow")
		w.Header().Set("Allow", allowed)
		w.WriteProblem(&Problem{Kind: MethodNotAllowed, Detail: "the path does not support the method", Field: "method", Value: r.Method, Remedy: "use " + allowed})
	case http.StatusNotFound:
		w.WriteProblem(&Problem{Kind: NotFound, Detail: "the path does not exist", Field: "path", Value: r.URL.Path, Remedy: "see /v1/openapi.json for the paths"})
	default: // a redirect to the clean path
		handler.ServeHTTP(w, r)
	}
}

// probeWriter records the status and header that a handler sends.
type probeWriter struct {
	header http.Header
	status int
}

func (p *probeWriter) Header() http.Header         { return p.header }
func (p *probeWriter) Write(b []byte) (int, error) { return len(b), nil }
func (p *probeWriter) WriteHeader(status int)      { p.status = status }
