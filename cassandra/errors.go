package cassandra

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/gocql/gocql"
)

// Reason says in one word why a request came to nothing. The list is closed: it is the label of metrics.
type Reason string

// The reasons.
const (
	ReasonNone         Reason = ""
	ReasonNoHosts      Reason = "no_hosts"      // no node can be reached
	ReasonConnection   Reason = "connection"    // the connection broke while the request was under way
	ReasonTimeout      Reason = "timeout"       // no answer within Config.Timeout
	ReasonUnavailable  Reason = "unavailable"   // the coordinator knows too few live replicas for the level
	ReasonWriteTimeout Reason = "write_timeout" // too few replicas answered the coordinator in time
	ReasonReadTimeout  Reason = "read_timeout"
	ReasonOverloaded   Reason = "overloaded" // the node asks for less
	ReasonFailure      Reason = "failure"    // a replica failed at it
	ReasonServer       Reason = "server"     // the node is starting up, or met an error of its own
	ReasonNotFound     Reason = "not_found"
	ReasonRefused      Reason = "refused"      // the statement is wrong for this schema
	ReasonUnauthorized Reason = "unauthorized" // the login or its rights
	ReasonCanceled     Reason = "canceled"     // the caller gave up
	ReasonOther        Reason = "other"
)

// Reasons is every reason of a failed request, so that metrics can be created at zero.
var Reasons = []Reason{
	ReasonNoHosts, ReasonConnection, ReasonTimeout, ReasonUnavailable, ReasonWriteTimeout, ReasonReadTimeout,
	ReasonOverloaded, ReasonFailure, ReasonServer, ReasonNotFound, ReasonRefused, ReasonUnauthorized, ReasonCanceled, ReasonOther,
}

// Advice is what to do about a failed request that is idempotent, as all of this package's are.
type Advice int

// The advices.
const (
	GiveUp Advice = iota // it will fail the same way again, or nobody waits for it
	Retry                // another try soon may well succeed: another node, or the same when it is less busy
	Wait                 // the cluster can't serve it now: hold back everything until it can
)

// Advice decides, in this one place, what is worth another try.
func (r Reason) Advice() Advice {
	switch r {
	case ReasonNoHosts, ReasonUnavailable:
		// Not one request's bad luck: the nodes are away. Trying harder would only add load to their return.
		return Wait
	case ReasonConnection, ReasonTimeout, ReasonWriteTimeout, ReasonReadTimeout, ReasonOverloaded, ReasonFailure, ReasonServer:
		// The write may have happened; writing the same cells with the same timestamps again changes nothing.
		return Retry
	default:
		return GiveUp
	}
}

// TooFewReplicas tells whether a read failed for want of replicas that answer: a lower level may do with those that do.
func (r Reason) TooFewReplicas() bool {
	return r == ReasonUnavailable || r == ReasonReadTimeout || r == ReasonFailure
}

// Error is a failed request: where it happened and why.
type Error struct {
	Op     string // for example "write telemetry_by_device_day"
	Reason Reason
	Err    error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s: %v", e.Op, e.Reason, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// ErrNotFound is what a read of one row wraps when there is none.
var ErrNotFound = errors.New("not found")

// ReasonOf is the reason of an error of this package; ReasonNone for nil.
func ReasonOf(err error) Reason {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Reason
	}
	return classify(err)
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
		return ReasonOverloaded // our side of it: every stream of the connection is in use
	}
	if e := gocql.RequestError(nil); errors.As(err, &e) {
		return classifyCode(e.Code())
	}
	if e := net.Error(nil); errors.As(err, &e) {
		return ReasonConnection
	}
	return ReasonOther
}

func classifyCode(code int) Reason {
	switch code {
	case gocql.ErrCodeUnavailable:
		return ReasonUnavailable
	case gocql.ErrCodeOverloaded:
		return ReasonOverloaded
	case gocql.ErrCodeWriteTimeout:
		return ReasonWriteTimeout
	case gocql.ErrCodeReadTimeout:
		return ReasonReadTimeout
	case gocql.ErrCodeWriteFailure, gocql.ErrCodeReadFailure, gocql.ErrCodeCDCWriteFailure:
		return ReasonFailure
	case gocql.ErrCodeServer, gocql.ErrCodeBootstrapping, gocql.ErrCodeTruncate:
		return ReasonServer
	case gocql.ErrCodeCredentials, gocql.ErrCodeUnauthorized:
		return ReasonUnauthorized
	case gocql.ErrCodeSyntax, gocql.ErrCodeInvalid, gocql.ErrCodeConfig, gocql.ErrCodeProtocol, gocql.ErrCodeFunctionFailure:
		return ReasonRefused
	default:
		return ReasonOther
	}
}
