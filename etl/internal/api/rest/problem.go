package rest

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Kind is a type of problem. The list is closed: clients compare the type, people read the title.
type Kind struct {
	Code   string
	Status int
	Title  string
}

// The kinds.
var (
	MalformedBody       = Kind{"malformed_body", http.StatusBadRequest, "Malformed request body"}
	BadGzip             = Kind{"bad_gzip", http.StatusBadRequest, "Damaged gzip body"}
	IncompleteBody      = Kind{"incomplete_body", http.StatusBadRequest, "Incomplete request body"}
	InvalidParameter    = Kind{"invalid_parameter", http.StatusBadRequest, "Invalid parameter"}
	Unauthorized        = Kind{"unauthorized", http.StatusUnauthorized, "Missing or unknown token"}
	Forbidden           = Kind{"forbidden", http.StatusForbidden, "Insufficient rights"}
	NotFound            = Kind{"not_found", http.StatusNotFound, "Not found"}
	MethodNotAllowed    = Kind{"method_not_allowed", http.StatusMethodNotAllowed, "Method not allowed"}
	RequestTimeout      = Kind{"request_timeout", http.StatusRequestTimeout, "Request too slow"}
	TooLarge            = Kind{"too_large", http.StatusRequestEntityTooLarge, "Request too large"}
	UnsupportedType     = Kind{"unsupported_type", http.StatusUnsupportedMediaType, "Unsupported content type"}
	UnsupportedEncoding = Kind{"unsupported_encoding", http.StatusUnsupportedMediaType, "Unsupported content encoding"}
	AllRejected         = Kind{"all_rejected", http.StatusUnprocessableEntity, "Every record was rejected"}
	RateLimited         = Kind{"rate_limited", http.StatusTooManyRequests, "Rate limit exceeded"}
	Internal            = Kind{"internal", http.StatusInternalServerError, "Internal error"}
	SpoolFull           = Kind{"spool_full", http.StatusServiceUnavailable, "Spool full"}
	SpoolSlow           = Kind{"spool_slow", http.StatusServiceUnavailable, "Spool too slow"}
	SpoolFailed         = Kind{"spool_failed", http.StatusServiceUnavailable, "Spool failed"}
	Overloaded          = Kind{"overloaded", http.StatusServiceUnavailable, "Server overloaded"}
	StoreUnavailable    = Kind{"store_unavailable", http.StatusServiceUnavailable, "Store unavailable"}
	QueryTimeout        = Kind{"query_timeout", http.StatusServiceUnavailable, "Query too slow"}
	ShuttingDown        = Kind{"shutting_down", http.StatusServiceUnavailable, "Server shutting down"}
)

// Kinds lists the kinds.
var Kinds = []Kind{
	MalformedBody, BadGzip, IncompleteBody, InvalidParameter, Unauthorized, Forbidden, NotFound, MethodNotAllowed, RequestTimeout, TooLarge,
	UnsupportedType, UnsupportedEncoding, AllRejected, RateLimited, Internal, SpoolFull, SpoolSlow, SpoolFailed, Overloaded, StoreUnavailable,
	QueryTimeout, ShuttingDown,
}

// TypePrefix precedes the code in the type of a problem.
const TypePrefix = "urn:fleet-tracing:problem:"

// Problem is why a request failed, for the client.
type Problem struct {
	Kind   Kind
	Detail string // what is wrong
	Field  string // parameter, part of the path or header at fault; may be empty
	Value  string // its value as it arrived
	Remedy string // what the client can do

	RetryAfter time.Duration // 0: a retry does not help
	Cause      error         // for the log only
}

func (p *Problem) Error() string {
	s := p.Detail
	if p.Field != "" {
		s = fmt.Sprintf("%s %q: %s", p.Field, p.Value, s)
	}
	if p.Cause != nil {
		s += ": " + p.Cause.Error()
	}
	return s
}

func (p *Problem) Unwrap() error { return p.Cause }

// Invalid is the problem of a parameter that can't be used.
func Invalid(field, value, detail, remedy string) *Problem {
	return &Problem{Kind: InvalidParameter, Detail: detail, Field: field, Value: value, Remedy: remedy}
}

// Temporary is a problem that passes. The delays of the clients spread over twice the given time, so that they do not all
// return at once.
func Temporary(kind Kind, detail, remedy string, after time.Duration, cause error) *Problem {
	return &Problem{Kind: kind, Detail: detail, Remedy: remedy, RetryAfter: after + rand.N(after), Cause: cause}
}

// retryMemory is how long senders wait for memory.
const retryMemory = time.Second

// Details are the members of a problem in JSON.
type Details struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Field  string `json:"field,omitempty"`
	Value  string `json:"value,omitempty"`
	Remedy string `json:"remedy,omitempty"`
}

// maxShownValue is the length in bytes to which a value is cut.
const maxShownValue = 64

// Details returns the members that the client receives.
func (p *Problem) Details() Details {
	value := strings.ToValidUTF8(p.Value, "\uFFFD")
	if len(value) > maxShownValue {
		value = strings.ToValidUTF8(value[:maxShownValue], "") + "…"
	}
	return Details{TypePrefix + p.Kind.Code, p.Kind.Title, p.Kind.Status, p.Detail, p.Field, value, p.Remedy}
}

// WriteProblem sends a problem.
func (w *Response) WriteProblem(p *Problem) {
	if p.RetryAfter > 0 {
		seconds := max(1, int64((p.RetryAfter+time.Second-1)/time.Second))
		w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
	}
	w.WriteJSON(p.Kind.Status, ProblemType, p.Details())
}
