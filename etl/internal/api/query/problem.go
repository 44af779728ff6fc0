package query

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// problem is why a request got no answer, in words for whoever sent it.
type problem struct {
	status     int
	message    string
	field      string // what is wrong: a parameter, a part of the path, a header; may be empty
	value      string // as it came
	remedy     string
	retryAfter time.Duration // 0: asking again won't help
	err        error         // the cause, for the log alone
}

func (p *problem) Error() string {
	s := p.message
	if p.field != "" {
		s = fmt.Sprintf("%s %q: %s", p.field, p.value, s)
	}
	if p.err != nil {
		s += ": " + p.err.Error()
	}
	return s
}

func (p *problem) Unwrap() error { return p.err }

// badRequest is a parameter that can't be used.
func badRequest(field, value, message, remedy string) *problem {
	return &problem{status: http.StatusBadRequest, message: message, field: field, value: value, remedy: remedy}
}

// When to ask again: soon where another node may answer, later where the cluster is away.
const (
	retrySoon = 1 * time.Second
	retryWait = 5 * time.Second
)

// problemOf says what an error means to a client. What the store says of itself, its addresses among it, is for the log.
func (a *API) problemOf(err error) *problem {
	if p := (*problem)(nil); errors.As(err, &p) {
		return p
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return &problem{
			status: http.StatusServiceUnavailable, message: "not answered within " + a.Limits.Timeout.String(),
			remedy: "ask for a shorter range or a smaller page, or again later", retryAfter: retryWait, err: err,
		}
	}
	switch cassandra.ReasonOf(err).Advice() {
	case cassandra.Wait:
		return &problem{status: http.StatusServiceUnavailable, message: "the store is away", remedy: "ask again later", retryAfter: retryWait, err: err}
	case cassandra.Retry:
		return &problem{status: http.StatusServiceUnavailable, message: "the store did not answer", remedy: "ask again", retryAfter: retrySoon, err: err}
	default:
		return &problem{status: http.StatusInternalServerError, message: "the store could not be read", remedy: "tell the operator; the log has the reason", err: err}
	}
}

// maxShownValue is the length in bytes to which a refused value is cut.
const maxShownValue = 64

func (p *problem) write(w http.ResponseWriter) {
	type shown struct {
		Message string `json:"message"`
		Field   string `json:"field"`
		Value   string `json:"value"`
		Remedy  string `json:"remedy"`
	}
	value := strings.ToValidUTF8(p.value, "\uFFFD")
	if len(value) > maxShownValue {
		value = strings.ToValidUTF8(value[:maxShownValue], "") + "…"
	}
	h := w.Header()
	h.Set("Content-Type", jsonType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if p.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="fleet-etl"`)
	}
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(p.retryAfter.Seconds())))
	}
	w.WriteHeader(p.status)
	// A client that is gone can't be told.
	_ = json.NewEncoder(w).Encode(map[string]shown{"error": {p.message, p.field, value, p.remedy}})
}
