package cassandra

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/gocql/gocql"
)

// Reason is why a request failed. The set is closed: it is a label of metrics.
type Reason string

// Values of Reason.
const (
	ReasonNone         Reason = ""
	ReasonNoHosts      Reason = "no_hosts"      // no node can be reached
	ReasonConnection   Reason = "connection"    // the connection broke with the request in flight
	ReasonTimeout      Reason = "timeout"       // no answer within Config.Timeout
	ReasonUnavailable  Reason = "unavailable"   // the coordinator sees too few live replicas for the consistency level
	ReasonWriteTimeout Reason = "write_timeout" // too few replicas answered the coordinator in time
	ReasonReadTimeout  Reason = "read_timeout"
	ReasonOverloaded   Reason = "overloaded" // the node sheds load
	ReasonFailure      Reason = "failure"    // a replica failed to process the request
	ReasonServer       Reason = "server"     // the node is starting up or has an internal error
	ReasonNotFound     Reason = "not_found"
	ReasonInvalid      Reason = "invalid"      // the statement does not fit the schema
	ReasonUnauthorized Reason = "unauthorized" // the login or its rights
	ReasonCanceled     Reason = "canceled"     // the caller canceled the request
	ReasonOther        Reason = "other"
)

// Reasons lists every reason of a failed request, to create metrics at zero.
var Reasons = []Reason{
	ReasonNoHosts, ReasonConnection, ReasonTimeout, ReasonUnavailable, ReasonWriteTimeout, ReasonReadTimeout,
	ReasonOverloaded, ReasonFailure, ReasonServer, ReasonNotFound, ReasonInvalid, ReasonUnauthorized, ReasonCanceled, ReasonOther,
}

// Advice is what to do about a failed request. All requests of this package are idempotent.
type Advice int

// Values of Advice.
const (
	GiveUp Advice = iota // a retry fails the same way, or the caller has canceled
	Retry                // a retry is likely to succeed soon
	Wait                 // the cluster is unavailable: hold back all requests until it recovers
)

// Advice is the one place that decides what to retry.
func (r Reason) Advice() Advice {
	switch r {
	case ReasonNoHosts, ReasonUnavailable:
		// Every request fails: retries would only add load while the nodes come back.
		return Wait
	case ReasonConnection, ReasonTimeout, ReasonWriteTimeout, ReasonReadTimeout, ReasonOverloaded, ReasonFailure, ReasonServer:
		// The write may have succeeded: writing the same cells with the same timestamps twice changes nothing.
		return Retry
	default:
		return GiveUp
	}
}

// TooFewReplicas reports whether a read failed because too few replicas answered. It may succeed at a lower level.
func (r Reason) TooFewReplicas() bool {
	return r == ReasonUnavailable || r == ReasonReadTimeout || r == ReasonFailure
}

// Error is a failed request.
type Error struct {
	Op     string // for example "write telemetry_by_device_day"
	Reason Reason
	Err    error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s: %v", e.Op, e.Reason, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// ErrNotFound is wrapped by the error of a read of one row that does not exist.
var ErrNotFound = errors.New("not found")

// ReasonOf returns the reason of an error of this package, and ReasonNone for nil.
func ReasonOf(err error) Reason {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Reason
	}
	return classify(err)
}

// Permanent reports whether a request failed because of its own rows: it fails again, and others need not.
func Permanent(err error) bool {
	e := (*Error)(nil)
	return errors.As(err, &e) && (e.Reason == ReasonInvalid || e.Reason == ReasonOther)
}

func opError(op string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, gocql.ErrNotFound) {
		return &Error{Op: op, Reason: ReasonNotFound, Err: ErrNotFound}
	}
	return &Error{Op: op, Reason: classify(err), Err: err}
}

func classify(err error) Reason {
	switch {
	case err == nil:
		return ReasonNone
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return ReasonCanceled
	case errors.Is(err, gocql.ErrNotFound), errors.Is(err, ErrNotFound):
		return ReasonNotFound
	case errors.Is(err, gocql.ErrTimeoutNoResponse):
		return ReasonTimeout
	case errors.Is(err, gocql.ErrNoConnections), errors.Is(err, gocql.ErrNoConnectionsStarted), errors.Is(err, gocql.ErrUnavailable):
		return ReasonNoHosts
	case errors.Is(err, gocql.ErrConnectionClosed), errors.Is(err, gocql.ErrTooManyTimeouts),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe), errors.Is(err, net.ErrClosed):
		return ReasonConnection
	case errors.Is(err, gocql.ErrNoStreams):
		return ReasonOverloaded // every stream of the connection is in use
	}
	if e := gocql.RequestError(nil); errors.As(err, &e) {
		return cmp.Or(codeReasons[e.Code()], ReasonOther)
	}
	if e := net.Error(nil); errors.As(err, &e) {
		return ReasonConnection
	}
	return ReasonOther
}

// codeReasons are the reasons of the server's error codes.
var codeReasons = map[int]Reason{
	gocql.ErrCodeUnavailable: ReasonUnavailable, gocql.ErrCodeOverloaded: ReasonOverloaded,
	gocql.ErrCodeWriteTimeout: ReasonWriteTimeout, gocql.ErrCodeCASWriteUnknown: ReasonWriteTimeout, gocql.ErrCodeReadTimeout: ReasonReadTimeout,
	gocql.ErrCodeWriteFailure: ReasonFailure, gocql.ErrCodeReadFailure: ReasonFailure, gocql.ErrCodeCDCWriteFailure: ReasonFailure,
	gocql.ErrCodeServer: ReasonServer, gocql.ErrCodeBootstrapping: ReasonServer, gocql.ErrCodeTruncate: ReasonServer,
	gocql.ErrCodeCredentials: ReasonUnauthorized, gocql.ErrCodeUnauthorized: ReasonUnauthorized,
	gocql.ErrCodeSyntax: ReasonInvalid, gocql.ErrCodeInvalid: ReasonInvalid, gocql.ErrCodeConfig: ReasonInvalid,
	gocql.ErrCodeProtocol: ReasonInvalid, gocql.ErrCodeFunctionFailure: ReasonInvalid,
}
