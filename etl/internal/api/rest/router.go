// Package rest serves routes: it authenticates requests, and answers errors as RFC 9457 problem details.
package rest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/auth"
	"github.com/fleettracing/fleet-tracing/etl/internal/ratelog"
)

// The media types of responses.
const (
	JSONType    = "application/json"
	ProblemType = "application/problem+json"
)

// Route is one method and path of the API. The server authenticates a request before it calls Handle.
type Route struct {
	Name   string // label in metrics
	Method string // GET also serves HEAD
	Path   string // pattern of http.ServeMux, without a trailing slash
	Right  auth.Right

	// Token finds a token outside the Authorization header. nil: there is none.
	Token func(*http.Request) string
	// Scheme is the authentication scheme that a response 401 asks for. Empty: Bearer.
	Scheme string

	Handle Handler
}

// Handler answers a request. The server answers an error as the Problem that it wraps, or else as an internal error. After
// the response has begun, an error aborts the connection, so that the client does not take half a response for a whole one.
type Handler func(w *Response, r *Request) error

// Request is an authenticated request.
type Request struct {
	*http.Request
	ID       string    // unique; the client receives it as X-Request-Id
	Received time.Time // when the header arrived
	Grant    auth.Grant
}

// Response is a response that knows its status.
type Response struct {
	http.ResponseWriter
	Status int // 0 until the header is sent

	request  *http.Request
	known    bool   // the request has a token
	route    string // label in metrics
	received time.Time
}

// WriteHeader implements http.ResponseWriter.
func (w *Response) WriteHeader(status int) {
	w.start(status)
	w.ResponseWriter.WriteHeader(status)
}

// restOfBody is how long a sender without a valid token may take for the rest of its body. A sender that does not read before it
// has sent everything receives the response.
const restOfBody = time.Second

// start notes the status. Without a token, an error and a request with a body end the connection: the server would wait for the
// rest of the body, and a peer that sends none would hold the connection for as long.
func (w *Response) start(status int) {
	if w.Status != 0 {
		return
	}
	w.Status = status
	if !w.known && (status >= http.StatusBadRequest || w.request.ContentLength != 0) {
		w.Header().Set("Connection", "close")
		_ = http.NewResponseController(w.ResponseWriter).SetReadDeadline(time.Now().Add(restOfBody)) // a writer without deadlines has no connection
	}
}

// Write implements http.ResponseWriter.
func (w *Response) Write(b []byte) (int, error) {
	w.start(http.StatusOK)
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *Response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// ExtendDeadline gives the client this much more time to read what is written next.
func (w *Response) ExtendDeadline(d time.Duration) {
	// A writer without deadlines has no connection that could be slow.
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(d))
}

// WriteJSON sends a value that must not be cached.
func (w *Response) WriteJSON(status int, contentType string, v any) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}

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
	metrics  *metrics
	errorLog rate.Sometimes
}

// NewRouter makes a router and registers its metrics.
func NewRouter(o Options) *Router {
	t := &Router{Options: o, mux: http.NewServeMux(), metrics: newMetrics(o.Registerer, o.Routes), errorLog: rate.Sometimes{Interval: ratelog.Interval}}
	for _, route := range o.Routes {
		t.mux.HandleFunc(route.Method+" "+route.Path, func(w http.ResponseWriter, r *http.Request) {
			t.answer(w.(*Response), r, route) //nolint:forcetypeassert // ServeHTTP made it
		})
	}
	return t
}

const requestIDHeader = "X-Request-Id"

// ServeHTTP implements http.Handler.
func (t *Router) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w := t.begin(rw, r)
	defer t.end(w)
	r = withoutTrailingSlash(r)
	if handler, pattern := t.mux.Handler(r); pattern == "" {
		handler.ServeHTTP(&rejection{Response: w, request: r}, r)
		return
	}
	t.mux.ServeHTTP(w, r)
}

// Reject answers a request with a problem, whatever its route.
func (t *Router) Reject(rw http.ResponseWriter, r *http.Request, p *Problem) {
	w := t.begin(rw, r)
	defer t.end(w)
	w.WriteProblem(p)
}

// begin gives a response its request ID. IDs are unique, and sorted by time.
func (t *Router) begin(rw http.ResponseWriter, r *http.Request) *Response {
	w := &Response{ResponseWriter: rw, request: r, route: routeNone, received: t.Now()}
	w.Header().Set(requestIDHeader, uuid.Must(uuid.NewV7()).String())
	return w
}

// end counts a response.
func (t *Router) end(w *Response) { t.metrics.answered(w.route, w.Status, t.Now().Sub(w.received)) }

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

// answer serves a request of a route, and answers its error.
func (t *Router) answer(w *Response, r *http.Request, route Route) {
	w.route = route.Name
	err := t.serve(w, &Request{Request: r, ID: w.Header().Get(requestIDHeader), Received: w.received}, route)
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
	if status >= http.StatusInternalServerError {
		t.errorLog.Do(func() { t.Logger.WithError(err).WithField("route", route.Name).Warn("request failed") })
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

func (t *Router) serve(w *Response, r *Request, route Route) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
		}
	}()
	if route.Right != auth.Public {
		if err := t.authenticate(w, r, route); err != nil {
			return err
		}
	}
	return route.Handle(w, r)
}

// authenticate sets the grant of a request, or returns why its token does not allow it.
func (t *Router) authenticate(w *Response, r *Request, route Route) error {
	presented := ""
	if route.Token != nil {
		presented = route.Token(r.Request)
	}
	r.Grant, w.known = t.Tokens.Authenticate(r.Request, presented)
	switch {
	case !w.known:
		w.Header().Set("WWW-Authenticate", cmp.Or(route.Scheme, "Bearer")+` realm="fleet-tracing"`)
		return &Problem{
			Kind: Unauthorized, Detail: "the request has no token, or an unknown one", Field: "Authorization",
			Remedy: "send the header Authorization: Bearer TOKEN",
		}
	case !r.Grant.Has(route.Right):
		return &Problem{
			Kind: Forbidden, Detail: fmt.Sprintf("the token may not %s", route.Right), Field: "Authorization",
			Remedy: fmt.Sprintf("use a token with the right to %s", route.Right),
		}
	}
	return nil
}

// rejection is the response to a request that no route matches. It turns the error of the mux into a problem, and passes
// anything else on: a redirect to the clean path.
type rejection struct {
	*Response
	request *http.Request
}

// WriteHeader implements http.ResponseWriter.
func (w *rejection) WriteHeader(status int) {
	switch status {
	case http.StatusMethodNotAllowed:
		w.WriteProblem(&Problem{
			Kind: MethodNotAllowed, Detail: "the path does not support the method", Field: "method", Value: w.request.Method, Remedy: "use " + w.Header().Get("Allow"),
		})
	case http.StatusNotFound:
		w.WriteProblem(&Problem{Kind: NotFound, Detail: "the path does not exist", Field: "path", Value: w.request.URL.Path, Remedy: "see /v1/openapi.json for the paths"})
	default:
		w.Response.WriteHeader(status)
	}
}

// Write implements http.ResponseWriter. It drops the text of an error.
func (w *rejection) Write(b []byte) (int, error) {
	if w.Status >= http.StatusBadRequest {
		return len(b), nil
	}
	return w.Response.Write(b)
}
