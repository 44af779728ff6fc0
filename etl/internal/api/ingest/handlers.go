package ingest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/auth"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/protocol"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/rest"
	"github.com/fleettracing/fleet-tracing/etl/internal/spool"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Routes are the routes that receive records.
func (g *Ingest) Routes() []rest.Route {
	token := func(r *http.Request) string { return cmp.Or(r.PathValue("token"), r.URL.Query().Get("token")) }
	routes := []rest.Route{
		{Name: "telemetry", Method: http.MethodPost, Path: "/v1/telemetry", Right: auth.Write, Handle: g.handle((*request).telemetry)},
		{Name: "owntracks", Method: http.MethodPost, Path: "/v1/owntracks", Right: auth.Write, Token: token, Scheme: "Basic", Handle: g.handle((*request).ownTracks)},
	}
	for _, path := range []string{"/{$}", "/v1/osmand", "/v1/osmand/{token}"} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			routes = append(routes, rest.Route{Name: "osmand", Method: method, Path: path, Right: auth.Write, Token: token, Handle: g.handle((*request).osmAnd)})
		}
	}
	return routes
}

// request is a request in progress.
type request struct {
	*Ingest
	*rest.Request
	w        *rest.Response
	size     int   // of the body, bytes
	reserved int64 // memory, bytes
}

func (g *Ingest) handle(serve func(*request) error) rest.Handler {
	return func(w *rest.Response, r *rest.Request) error {
		q := &request{Ingest: g, Request: r, w: w}
		for _, s := range q.senders() {
			if wait := max(s.records.wait(s.name, r.Received), s.bytes.wait(s.name, r.Received)); wait > 0 {
				return q.rateLimited(s.sender, wait)
			}
		}
		defer func() { g.memory.Release(r.Grant.Sender(), q.reserved) }()
		return serve(q)
	}
}

// telemetry receives records in our own format.
func (q *request) telemetry() error {
	lines, err := q.contentType()
	if err != nil {
		return err
	}
	body, err := q.body()
	if err != nil {
		return err
	}
	messages, err := protocol.Telemetry(body, lines, protocol.Defaults{Fleet: q.fleet()}, q.Limits.MaxRecords)
	if err != nil {
		return q.undecodable(err)
	}
	s, err := q.accept(protocol.NameTelemetry, messages, 0, q.URL.Query().Get("verbose") == "1")
	if err != nil {
		return err
	}
	if s.Rejected == 0 || s.Rejected < len(messages) {
		q.w.WriteJSON(http.StatusOK, rest.JSONType, s)
		return nil
	}
	p := &rest.Problem{Kind: rest.AllRejected, Detail: "no record of the request can be stored", Remedy: "fix the records as results says"}
	q.w.WriteJSON(p.Kind.Status, rest.ProblemType, struct {
		rest.Details
		*summary
	}{p.Details(), s})
	return nil
}

// contentType rejects what is certainly not JSON, and reports whether there is one record per line whatever the text looks
// like. Many senders name no type, or the default of their library.
func (q *request) contentType() (lines bool, err error) {
	header := q.Header.Get("Content-Type")
	kind, _, _ := mime.ParseMediaType(header)
	switch {
	case kind == "application/x-ndjson", kind == "application/ndjson", kind == "application/jsonl", kind == "application/x-jsonlines":
		return true, nil
	case header == "", strings.Contains(kind, "json"), kind == "text/plain", kind == "application/octet-stream",
		kind == "application/x-www-form-urlencoded": // the default of curl
		return false, nil
	default:
		return false, &rest.Problem{
			Kind: rest.UnsupportedType, Detail: "the content type is not supported", Field: "Content-Type", Value: header,
			Remedy: "send application/json or application/x-ndjson",
		}
	}
}

// osmAnd receives what OsmAnd, Traccar Client and compatible devices send: one position in the parameters of the URL or of
// a form, or JSON since Traccar Client 9.
//
// These clients drop a position after any 2xx. After anything else they send it again, before all others. So a rejected
// position is answered 200: a retry would not help, and would block the positions that follow.
func (q *request) osmAnd() error {
	if q.Method == http.MethodHead {
		return &rest.Problem{Kind: rest.MethodNotAllowed, Detail: "HEAD sends no position", Field: "method", Value: q.Method, Remedy: "use GET or POST"}
	}
	body, err := q.body()
	if err != nil {
		return err
	}
	body = bytes.TrimSpace(body)
	name, ignored := protocol.NameOsmAnd, 0
	var messages []protocol.Message
	if len(body) > 0 && (body[0] == '{' || body[0] == '[') {
		name = protocol.NameTraccar
		if messages, ignored, err = protocol.Traccar(body, protocol.Defaults{Fleet: q.fleet()}, q.Limits.MaxRecords); err != nil {
			return q.undecodable(err)
		}
	} else {
		query := protocol.WithoutToken(q.URL.RawQuery)
		if form := protocol.WithoutToken(string(body)); form != "" {
			query = strings.TrimPrefix(query+"&"+form, "&")
		}
		if query == "" {
			return &rest.Problem{Kind: rest.MalformedBody, Detail: "the request has no position", Remedy: "send id, lat, lon and timestamp"}
		}
		messages = []protocol.Message{protocol.OsmAnd(query, protocol.Defaults{Fleet: q.fleet(), Time: q.Received})}
	}
	s, err := q.accept(name, messages, ignored, true)
	if err != nil {
		return err
	}
	q.w.WriteJSON(http.StatusOK, rest.JSONType, s)
	return nil
}

// ownTracks receives what the OwnTracks apps post (https://owntracks.org/booklet/tech/http/). The app drops a message after
// any 2xx with a JSON array. After anything else it sends the message again, before all others. So rejected messages and
// messages of other types have the same response as accepted ones.
func (q *request) ownTracks() error {
	body, err := q.body()
	if err != nil {
		return err
	}
	defaults := protocol.Defaults{Fleet: q.fleet(), Device: q.ownTracksDevice()}
	messages, ignored, err := protocol.OwnTracks(body, defaults, q.Limits.MaxRecords)
	if err != nil {
		return q.undecodable(err)
	}
	if _, err := q.accept(protocol.NameOwnTracks, messages, ignored, false); err != nil {
		return err
	}
	q.w.WriteJSON(http.StatusOK, rest.JSONType, []struct{}{})
	return nil
}

// ownTracksDevice is the device that headers, parameters or the login name.
func (q *request) ownTracksDevice() string {
	query := q.URL.Query()
	user, device := cmp.Or(q.Header.Get("X-Limit-U"), query.Get("u")), cmp.Or(q.Header.Get("X-Limit-D"), query.Get("d"))
	if user == "" && device != "" {
		user, _, _ = q.BasicAuth()
	}
	return protocol.BoundName(protocol.OwnTracksDevice(user, device))
}

// fleet is the fleet of records that name none: that of the token, or for a token of all fleets that of the URL.
func (q *request) fleet() string {
	if q.Grant.Fleet == auth.AllFleets {
		if named := q.URL.Query().Get(telemetry.FieldFleetID); named != "" {
			return protocol.BoundName(named)
		}
	}
	return q.Grant.DefaultFleet
}

func (q *request) undecodable(err error) *rest.Problem {
	if errors.Is(err, protocol.ErrTooMany) {
		return q.tooLarge()
	}
	return &rest.Problem{Kind: rest.MalformedBody, Detail: err.Error(), Remedy: "correct the body; nothing of the request was stored"}
}

// summary is the response of a request: what happened to its records.
type summary struct {
	Accepted   int      `json:"accepted"`
	Duplicates int      `json:"duplicates"`
	Rejected   int      `json:"rejected"`
	Ignored    int      `json:"ignored,omitempty"` // messages that are not positions
	Results    []result `json:"results"`
}

// The statuses of a record.
const (
	statusAccepted  = "accepted"
	statusDuplicate = "duplicate"
	statusRejected  = "rejected"
	statusIgnored   = "ignored" // in metrics only
)

type result struct {
	Index  int              `json:"index"`
	Status string           `json:"status"`
	Reason telemetry.Reason `json:"reason,omitempty"`
	Field  string           `json:"field,omitempty"`
	Value  string           `json:"value,omitempty"`
	Remedy string           `json:"remedy,omitempty"`
}

// accept checks the records of a request and appends them to the spool, all of them or none. A request without a valid record
// goes to the dead-letter queue at once. With verbose the summary lists every record, else only duplicates and rejected ones.
// ignored is the number of messages that are not positions.
func (q *request) accept(name string, messages []protocol.Message, ignored int, verbose bool) (*summary, error) {
	s := &summary{Ignored: ignored, Results: []result{}}
	if len(messages) == 0 {
		q.metrics.answered(name, s)
		return s, nil
	}
	if err := q.reserve(int64(len(messages)) * messageMemory); err != nil {
		return nil, err
	}
	nowMs, valid := q.Received.UnixMilli(), 0
	for i := range messages {
		m := &messages[i]
		if m.Rejection != nil {
			continue
		}
		if !q.Grant.Allows(m.Record.FleetID) {
			m.Rejection = telemetry.Reject(telemetry.ForbiddenFleet, telemetry.FieldFleetID, m.Record.FleetID,
				"this token writes to fleet "+q.Grant.Fleet+" only: leave fleet_id out, or use a token of that fleet")
			continue
		}
		if m.Rejection = q.Check(&m.Record, nowMs); m.Rejection == nil {
			if m.Rejection = q.CheckOwner(q.Grant.Fleet, &m.Record); m.Rejection == nil {
				m.Rejection = q.checkAge(&m.Record, nowMs)
			}
			if m.Rejection == nil {
				valid++
			}
		}
	}
	if err := q.limitRate(messages); err != nil {
		return nil, err
	}
	keep := q.append
	if valid == 0 {
		keep = q.reject
	}
	if err := keep(&entry{AcceptedMs: nowMs, Origin: q.ID, Sender: q.Grant.Fleet, Messages: messages}); err != nil {
		return nil, err
	}
	for i := range messages {
		m := &messages[i]
		switch {
		case m.Rejection != nil:
			s.Rejected++
			s.Results = append(s.Results, result{m.Index, statusRejected, m.Rejection.Reason, m.Rejection.Field, m.Rejection.Value, m.Rejection.Remedy})
		case q.Seen(&m.Record) != telemetry.New:
			s.Duplicates++
			s.Results = append(s.Results, result{Index: m.Index, Status: statusDuplicate})
		default:
			s.Accepted++
			if verbose {
				s.Results = append(s.Results, result{Index: m.Index, Status: statusAccepted})
			}
		}
	}
	q.metrics.answered(name, s)
	return s, nil
}

// checkAge returns why a record is too late for a token of one fleet: each late record has hours and days computed again.
func (q *request) checkAge(r *telemetry.Record, nowMs int64) *telemetry.Rejection {
	if late := q.Limits.MaxLate; late > 0 && q.Grant.Fleet != auth.AllFleets && r.TimeMs < nowMs-late.Milliseconds() {
		return telemetry.Reject(telemetry.TooLate, telemetry.FieldTimestamp, r.Time().Format(time.RFC3339),
			"send records within "+late.String()+" (ETL_API_MAX_LATE), or ask an operator to store this one (fleet-etl deadletters reprocess --reason too_late)")
	}
	return nil
}

// How long senders wait before they retry.
const (
	retrySlow = 5 * time.Second  // the spool does not respond
	retryFull = 15 * time.Second // the spool is full, or a disk fails
)

// append appends an entry to the spool. It does not wait longer than AppendTimeout, also when the client is gone: the entry
// may be durable all the same, and a retry is a duplicate.
func (q *request) append(e *entry) error {
	text, err := e.encode()
	if err != nil {
		return err
	}
	started := q.Now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(q.Context()), q.Limits.AppendTimeout)
	defer cancel()
	err = q.lanes.append(ctx, e.Sender, text)
	q.metrics.appendDuration.Observe(q.Now().Sub(started).Seconds())
	switch {
	case err == nil:
		return nil
	case errors.Is(err, spool.ErrTooLarge): // a retry would fail too
		return &rest.Problem{
			Kind: rest.TooLarge, Cause: err, Remedy: "split it into several requests",
			Detail: fmt.Sprintf("the records of the request take more than %d bytes in the spool", spool.MaxEntry),
		}
	}
	q.metrics.appendErrors.Inc()
	const remedy = "retry the whole request after Retry-After"
	switch {
	case errors.Is(err, spool.ErrFull):
		return rest.Temporary(rest.SpoolFull, "the spool is full", remedy, retryFull, err)
	case errors.Is(err, context.DeadlineExceeded):
		return rest.Temporary(rest.SpoolSlow, "the records were not durable in time", remedy, retrySlow, err)
	default:
		return rest.Temporary(rest.SpoolFailed, "the records could not be written to the spool", remedy, retryFull, err)
	}
}
