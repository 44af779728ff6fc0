package ingest

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/httpserve"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// The endpoints, as the metrics name them.
const (
	endpointTelemetry = "telemetry"
	endpointOsmAnd    = "osmand"
	endpointOwnTracks = "owntracks"
	endpointOpenAPI   = "openapi"
	endpointMounted   = "mounted" // routes of Options.Mount
	endpointNone      = "none"    // no such path
)

const requestIDHeader = "X-Request-Id"

func (s *Source) route() {
	handle := func(pattern string, serve func(*call) *problem) {
		s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			c := &call{Source: s, w: w, r: r, id: w.Header().Get(requestIDHeader), now: s.Now(), lease: newLease(s.bodies)}
			defer c.lease.drop()
			if p := serve(c); p != nil {
				p.write(w)
			}
		})
	}
	handle("POST /v1/telemetry", (*call).telemetry)
	for _, path := range []string{"/{$}", "/v1/osmand", "/v1/osmand/{token}"} {
		handle("GET "+path, (*call).osmand)
		handle("POST "+path, (*call).osmand)
	}
	handle("POST /v1/owntracks", (*call).owntracks)
	handle("GET /v1/openapi.json", (*call).openapi)
	if s.Mount != nil {
		s.Mount(s.mux)
	}
}

var endpoints = map[string]string{
	"POST /v1/telemetry": endpointTelemetry,
	"GET /{$}":           endpointOsmAnd, "POST /{$}": endpointOsmAnd,
	"GET /v1/osmand": endpointOsmAnd, "POST /v1/osmand": endpointOsmAnd,
	"GET /v1/osmand/{token}": endpointOsmAnd, "POST /v1/osmand/{token}": endpointOsmAnd,
	"POST /v1/owntracks":   endpointOwnTracks,
	"GET /v1/openapi.json": endpointOpenAPI,
	"":                     endpointNone,
}

// ServeHTTP implements http.Handler.
func (s *Source) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	started := s.Now()
	answer := &httpserve.Response{ResponseWriter: w}
	w.Header().Set(requestIDHeader, s.ids.next(started))
	handler, pattern := s.mux.Handler(r)
	endpoint, ours := endpoints[pattern]
	if !ours {
		endpoint = endpointMounted
	}
	defer func() { s.metrics.answered(endpoint, answer.Status, s.Now().Sub(started)) }()
	switch {
	case !s.requests.enter():
		unavailable("shutting_down", "the server is being stopped: send it again", time.Second).write(answer)
		return
	case pattern == "":
		defer s.requests.leave()
		s.refuseRoute(answer, r, handler)
	default:
		defer s.requests.leave()
		s.mux.ServeHTTP(answer, r)
	}
}

// refuseRoute answers where there is no such path or method, as the mux would, but in the form of our other answers.
func (s *Source) refuseRoute(w http.ResponseWriter, r *http.Request, handler http.Handler) {
	probe := &probeWriter{header: http.Header{}}
	handler.ServeHTTP(probe, r)
	switch probe.status {
	case http.StatusMethodNotAllowed:
		allowed := probe.header.Get("Allow")
		w.Header().Set("Allow", allowed)
		refuse(http.StatusMethodNotAllowed, "method_not_allowed", "%s is not for %s here: use %s", r.URL.Path, r.Method, allowed).write(w)
	case http.StatusNotFound:
		refuse(http.StatusNotFound, "not_found", "there is nothing at this path; /v1/openapi.json lists what there is").write(w)
	default: // a redirect to the clean path
		handler.ServeHTTP(w, r)
	}
}

// probeWriter learns what a handler would answer.
type probeWriter struct {
	header http.Header
	status int
}

func (p *probeWriter) Header() http.Header         { return p.header }
func (p *probeWriter) Write(b []byte) (int, error) { return len(b), nil }
func (p *probeWriter) WriteHeader(status int)      { p.status = status }

// call is one request under way.
type call struct {
	*Source
	w     http.ResponseWriter
	r     *http.Request
	id    string
	now   time.Time // when it came
	grant Grant
	lease *lease
}

// problem is an answer to a request of which nothing was taken.
type problem struct {
	status     int
	Code       string `json:"error"`
	Message    string `json:"message"`
	retryAfter time.Duration
}

func refuse(status int, code, format string, args ...any) *problem {
	return &problem{status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

// unavailable is for faults that pass. Senders come back spread over twice the time, not all at once.
func unavailable(code, message string, after time.Duration) *problem {
	return &problem{
		status: http.StatusServiceUnavailable, Code: code, Message: message,
		retryAfter: after + time.Duration(mathrand.Int64N(int64(after))),
	}
}

func (p *problem) write(w http.ResponseWriter) {
	if p.retryAfter > 0 {
		seconds := max(1, int64((p.retryAfter+time.Second-1)/time.Second))
		w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
	}
	writeJSON(w, p.status, p)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the peer may be gone: it will ask again
}

// authenticate finds out under whose token the request comes; presented is a token from its address, if there is one.
func (c *call) authenticate(presented, scheme string) *problem {
	grant, known := c.Tokens.authenticate(c.r, presented)
	switch {
	case !known:
		c.w.Header().Set("WWW-Authenticate", scheme+` realm="fleet"`)
		return refuse(http.StatusUnauthorized, "unauthorized", "no token, or one that is not known: send it as Authorization: Bearer TOKEN")
	case !grant.Write:
		return refuse(http.StatusForbidden, "forbidden", "this token may only read: use one that may write")
	}
	c.grant = grant
	if wait := c.tokenRates.wait(grant.ID, c.now); wait > 0 {
		c.metrics.limited.Inc()
		return tooFast("this token", wait)
	}
	return nil
}

// fleet is that of records that name none: the token's, or where a token is for all of them, the address's.
func (c *call) fleet() string {
	if c.grant.Fleet == AllFleets {
		if named := c.r.URL.Query().Get(telemetry.FieldFleetID); named != "" {
			return bounded(named)
		}
	}
	return c.grant.Default
}

func tooFast(who string, wait time.Duration) *problem {
	p := refuse(http.StatusTooManyRequests, "too_many_requests", "%s sends more records than its limit: send them again later, all of this request", who)
	p.retryAfter = wait
	return p
}

// received is one record of a request, or the reason why it is none.
type received struct {
	index     int
	record    telemetry.Record
	rejection *telemetry.Rejection
	raw       string // as it came
}

// answer is what became of the records of a request.
type answer struct {
	Accepted   int      `json:"accepted"`
	Duplicates int      `json:"duplicates"`
	Refused    int      `json:"refused"`
	Ignored    int      `json:"ignored,omitempty"` // messages that are no position
	Results    []result `json:"results"`
}

// The statuses of a record.
const (
	statusAccepted  = "accepted"
	statusDuplicate = "duplicate"
	statusRefused   = "refused"
	statusIgnored   = "ignored" // in metrics
)

type result struct {
	Index  int              `json:"index"`
	Status string           `json:"status"`
	Reason telemetry.Reason `json:"reason,omitempty"`
	Field  string           `json:"field,omitempty"`
	Value  string           `json:"value,omitempty"`
	Remedy string           `json:"remedy,omitempty"`
}

// take checks the records of a request and puts them into the journal, all of them or none. The answer lists every
// record only when it is asked to.
func (c *call) take(protocol string, records []received, verbose bool) (*answer, *problem) {
	a := &answer{Results: []result{}}
	if len(records) == 0 {
		return a, nil
	}
	nowMs := c.now.UnixMilli()
	for i := range records {
		r := &records[i]
		if r.rejection != nil {
			continue
		}
		if !c.grant.Allows(r.record.FleetID) {
			r.rejection = telemetry.Reject(telemetry.UnknownFleet, telemetry.FieldFleetID, r.record.FleetID,
				"this token writes to fleet "+c.grant.Fleet+" only: leave fleet_id out, or use a token of that fleet")
			continue
		}
		r.rejection = c.Check(&r.record, nowMs)
	}
	if p := c.admit(records); p != nil {
		return nil, p
	}
	e := entry{at: c.now, origin: c.id, protocol: protocol, records: records}
	text, err := e.encode()
	if err != nil {
		return nil, refuse(http.StatusInternalServerError, "internal", "the records can't be written down: %v", err)
	}
	if p := c.append(text); p != nil {
		return nil, p
	}
	for i := range records {
		r := &records[i]
		status := statusAccepted
		switch {
		case r.rejection != nil:
			a.Refused++
			status = statusRefused
			a.Results = append(a.Results, result{r.index, status, r.rejection.Reason, r.rejection.Field, r.rejection.Value, r.rejection.Remedy})
		case c.Seen(&r.record) != telemetry.New:
			a.Duplicates++
			status = statusDuplicate
			a.Results = append(a.Results, result{Index: r.index, Status: status})
		default:
			a.Accepted++
			if verbose {
				a.Results = append(a.Results, result{Index: r.index, Status: status})
			}
		}
	}
	c.metrics.took(protocol, a)
	return a, nil
}

// ids makes identities of requests: unlike any other, and sorted by time.
type ids struct {
	process string
	count   *atomic.Uint32
}

func newIDs() ids {
	var b [3]byte
	_, _ = rand.Read(b[:]) // it never fails
	return ids{hex.EncodeToString(b[:]), new(atomic.Uint32)}
}

func (i ids) next(now time.Time) string {
	var b [12]byte
	binary.BigEndian.PutUint64(b[:], uint64(now.UnixMilli())<<16)
	binary.BigEndian.PutUint32(b[6:], i.count.Add(1))
	return hex.EncodeToString(b[:10]) + i.process
}
