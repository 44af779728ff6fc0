// Package rest serves routes: it authenticates requests, and answers errors as RFC 9457 problem details.
package rest

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/auth"
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

	route    string // label in metrics
	received time.Time
}

// WriteHeader implements http.ResponseWriter.
func (w *Response) WriteHeader(status int) {
	if w.Status == 0 {
		w.Status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *Response) Write(b []byte) (int, error) {
	if w.Status == 0 {
		w.Status = http.StatusOK
	}
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
