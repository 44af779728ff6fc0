// Package plugin is the data source: it answers Grafana's queries, health checks, resources and streams from the
// Cassandra cluster, by way of package cassandra.
package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/backend/instancemgmt"
	"github.com/grafana/grafana-plugin-sdk-go/backend/resource/httpadapter"
	"github.com/grafana/grafana-plugin-sdk-go/backend/tracing"
	"github.com/grafana/grafana-plugin-sdk-go/data"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// Datasource is one data source as it is configured: Grafana makes a new one whenever its settings change.
type Datasource struct {
	backend.CallResourceHandler

	uid, name string
	settings  settings
	wrong     error // what is wrong with the settings
	reader    *reader
	hub       *hub
	metrics   *Metrics
	now       func() time.Time
}

var (
	_ backend.QueryDataHandler      = (*Datasource)(nil)
	_ backend.CheckHealthHandler    = (*Datasource)(nil)
	_ backend.StreamHandler         = (*Datasource)(nil)
	_ instancemgmt.InstanceDisposer = (*Datasource)(nil)
)

// Factory makes data sources that share metrics. Wrong settings are no error here: each query and the health check tell
// them, where people look.
func Factory(reg prometheus.Registerer, m *Metrics) func(context.Context, backend.DataSourceInstanceSettings) (instancemgmt.Instance, error) {
	return func(_ context.Context, source backend.DataSourceInstanceSettings) (instancemgmt.Instance, error) {
		return New(source, reg, m)
	}
}

// errDisposed is what is asked of a data source that a newer one has taken over from.
var errDisposed = errors.New("the settings of the data source have changed; try again")

// New makes a data source. It connects when the first query comes.
func New(source backend.DataSourceInstanceSettings, reg prometheus.Registerer, m *Metrics) (*Datasource, error) {
	s, wrong := parseSettings(source)
	d := &Datasource{uid: source.UID, name: source.Name, settings: s, wrong: wrong, metrics: m, now: time.Now}
	var err error
	driver := prometheus.WrapRegistererWith(prometheus.Labels{"datasource": source.UID, "generation": source.Updated.UTC().Format("20060102T150405")},
		prometheus.WrapRegistererWithPrefix("fleet_datasource_", reg))
	if d.reader, err = newReader(&d.settings, m, driverLogger(source.UID), driver, d.now); err != nil {
		return nil, err
	}
	d.hub = newHub(d)
	d.CallResourceHandler = httpadapter.New(d.routes())
	return d, nil
}

// Dispose ends the streams and the session. Grafana calls it once a newer data source has taken over.
func (d *Datasource) Dispose() {
	d.hub.close()
	d.reader.close()
}

// QueryData answers the queries of a request side by side. Each has its own error: one that is wrong costs the others
// nothing.
func (d *Datasource) QueryData(ctx context.Context, req *backend.QueryDataRequest) (*backend.QueryDataResponse, error) {
	response := backend.NewQueryDataResponse()
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(queriesAtOnce)
	alerting := req.Headers["FromAlert"] == "true" || req.GetHTTPHeader("FromAlert") == "true"
	for _, q := range req.Queries {
		g.Go(func() error {
			answer := d.answer(ctx, q, alerting)
			mu.Lock()
			defer mu.Unlock()
			response.Responses[q.RefID] = answer
			return nil
		})
	}
	_ = g.Wait() // answers carry their errors
	return response, nil
}

// queriesAtOnce bounds the queries of one request; what they read at once is bounded for the data source as a whole.
const queriesAtOnce = 16

// answer runs one query and gives its frames, with what it cost, or its error.
func (d *Datasource) answer(ctx context.Context, source backend.DataQuery, alerting bool) (response backend.DataResponse) {
	start := time.Now()
	q, err := parseQuery(source, alerting)
	kind := typeLatest
	if q != nil && slices.Contains(types, q.queryType) {
		kind = q.queryType
	}
	ctx, span := tracing.DefaultTracer().Start(ctx, "fleet query "+kind)
	defer span.End()
	logger := backend.Logger.FromContext(ctx).With("refId", source.RefID, "queryType", kind)
	defer func() {
		if p := recover(); p != nil { // one query must not take the plugin, and all others, with it
			logger.Error("query panicked", "panic", p, "stack", string(debug.Stack()))
			d.metrics.errors.WithLabelValues(kind, reasonPlugin).Inc()
			d.metrics.queries.WithLabelValues(kind, "error").Inc()
			response = backend.DataResponse{Error: errors.New("the plugin has a fault here; its log tells where"), Status: backend.StatusInternal, ErrorSource: backend.ErrorSourcePlugin}
		}
	}()
	c := &cost{}
	var a answer
	if err == nil {
		err = d.wrong
	}
	if err == nil {
		limited, cancel := context.WithTimeout(ctx, d.settings.queryTimeout)
		a, err = d.run(limited, q, c)
		cancel()
	}
	took := time.Since(start)
	d.metrics.duration.WithLabelValues(kind).Observe(took.Seconds())
	d.metrics.partitions.WithLabelValues(kind).Add(float64(c.Partitions))
	d.metrics.pages.WithLabelValues(kind).Add(float64(c.Pages))
	d.metrics.rows.WithLabelValues(kind, "read").Add(float64(c.Rows))
	span.SetAttributes(attribute.Int("fleet.partitions", c.Partitions), attribute.Int("fleet.rows", c.Rows), attribute.Int("fleet.cache_hits", c.hits))
	if err != nil {
		response, reason := d.failure(ctx, err)
		d.metrics.queries.WithLabelValues(kind, "error").Inc()
		d.metrics.errors.WithLabelValues(kind, reason).Inc()
		span.SetStatus(codes.Error, reason)
		log := logger.Warn
		if reason == string(cassandra.ReasonCanceled) || reason == reasonInvalid || reason == reasonForbidden {
			log = logger.Debug // a person's doing, and the person is told
		}
		log("query failed", "reason", reason, "error", err, "took", took, "partitions", c.Partitions)
		return response
	}
	outcome := "ok"
	if len(a.cuts) > 0 {
		outcome = "cut"
		d.metrics.cuts.WithLabelValues(kind).Inc()
	}
	d.metrics.queries.WithLabelValues(kind, outcome).Inc()
	returned := 0
	for _, frame := range a.frames {
		returned += frame.Rows()
	}
	d.metrics.rows.WithLabelValues(kind, "returned").Add(float64(returned))
	logger.Debug("query answered", "took", took, "partitions", c.Partitions, "pages", c.Pages, "rows", c.Rows, "returned", returned, "cacheHits", c.hits, "cuts", len(a.cuts))
	describe(a, q, c, returned)
	return backend.DataResponse{Frames: a.frames, Status: backend.StatusOK}
}

// answer is the frames of a query and what a limit cut off them.
type answer struct {
	frames data.Frames
	cuts   []string
}

func (a *answer) cut(format string, args ...any) {
	if notice := fmt.Sprintf(format, args...); !slices.Contains(a.cuts, notice) {
		a.cuts = append(a.cuts, notice)
	}
}

func (d *Datasource) run(ctx context.Context, q *query, c *cost) (answer, error) {
	switch q.queryType {
	case typeLatest:
		return d.latest(ctx, q, c)
	case typeTrack:
		return d.track(ctx, q, c)
	case typeAnalytics:
		return d.analytics(ctx, q, c)
	case typeAlerts:
		return d.alerts(ctx, q, c)
	case typeDevices:
		return d.devices(ctx, q, c)
	case typeFleets:
		return d.fleets(ctx, q, c)
	case typeGeofences:
		return d.geofences(ctx, q, c)
	case typeRaw:
		return d.raw(ctx, q, c)
	default:
		return d.variable(ctx, q, c)
	}
}

// fleetsOf is the fleets that a query asks for: those it names, which must be allowed, or all that are.
func (d *Datasource) fleetsOf(ctx context.Context, q *query, c *cost) ([]string, error) {
	if len(q.Fleets) == 0 {
		return d.reader.fleets(ctx, c)
	}
	fleets := slices.Clone(q.Fleets)
	slices.Sort(fleets)
	for _, fleet := range fleets {
		if !d.settings.allows(fleet) {
			return nil, forbidden(fleet, &d.settings)
		}
	}
	return slices.Compact(fleets), nil
}

// within cuts a list of fleets to what the limit of partitions lets be read.
func (d *Datasource) within(fleets []string, partitionsEach int, a *answer) []string {
	most := max(d.settings.maxPartitions/partitionsEach, 1)
	if len(fleets) <= most {
		return fleets
	}
	a.cut("Only the first %d of %d fleets: the data source reads at most %d partitions a query. Choose fewer fleets.", most, len(fleets), d.settings.maxPartitions)
	return fleets[:most]
}

// each reads something for every fleet side by side and gives the results in the order of the fleets.
func each[T any](ctx context.Context, fleets []string, read func(context.Context, string) (T, error)) ([]T, error) {
	return sideBySide(ctx, fleetsAtOnce, fleets, read)
}

// fleetsAtOnce and partsAtOnce bound goroutines; the reads that are under way are bounded for the data source as a whole.
const (
	fleetsAtOnce = 16
	partsAtOnce  = 64
)

// sideBySide reads every part, n at once at the most, and gives the results in their order.
func sideBySide[P, T any](ctx context.Context, n int, parts []P, read func(context.Context, P) (T, error)) ([]T, error) {
	results := make([]T, len(parts))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(n)
	for i, part := range parts {
		g.Go(func() (err error) {
			results[i], err = read(ctx, part)
			return err
		})
	}
	return results, g.Wait()
}

// describe puts what a query cost, what it really ran and what was cut off into the frames' metadata.
func describe(a answer, q *query, c *cost, returned int) {
	if len(a.frames) == 0 {
		return
	}
	executed := strings.Join(c.Statements, ";\n")
	if c.More > 0 {
		executed += fmt.Sprintf(";\n… and %d more of the kind", c.More)
	}
	if executed != "" {
		executed += "\n"
	}
	executed += fmt.Sprintf("-- %d partition(s), %d page(s), %d row(s) read", c.Partitions, c.Pages, c.Rows)
	if nodes := c.coordinators(); len(nodes) > 0 {
		executed += " from " + strings.Join(nodes, ", ")
	}
	executed += fmt.Sprintf("; %d from the cache, %d shared with equal reads under way", c.hits, c.shared)
	stat := func(name string, value int) data.QueryStat {
		return data.QueryStat{FieldConfig: data.FieldConfig{DisplayName: name}, Value: float64(value)}
	}
	stats := []data.QueryStat{
		stat("Partitions read", c.Partitions), stat("Pages read", c.Pages), stat("Rows read", c.Rows), stat("Rows returned", returned),
		stat("Cache hits", c.hits), stat("Shared reads", c.shared), stat("Retries", c.Retries),
	}
	notices := make([]data.Notice, len(a.cuts))
	for i, cut := range a.cuts {
		notices[i] = data.Notice{Severity: data.NoticeSeverityWarning, Text: cut}
	}
	for i, frame := range a.frames {
		frame.RefID = q.refID
		if frame.Meta == nil {
			frame.Meta = &data.FrameMeta{}
		}
		frame.Meta.ExecutedQueryString = executed
		if i == 0 { // Grafana shows the notices and figures of all frames together
			frame.Meta.Notices = append(frame.Meta.Notices, notices...)
			frame.Meta.Stats = stats
			frame.Meta.Custom = map[string]any{
				"partitions": c.Partitions, "pages": c.Pages, "rows": c.Rows, "cacheHits": c.hits, "shared": c.shared,
				"retries": c.Retries, "coordinators": c.coordinators(),
			}
		}
	}
}

// failure turns an error into an answer: what happened, what to do, whose fault it is.
func (d *Datasource) failure(ctx context.Context, err error) (response backend.DataResponse, reason string) {
	answer := func(reason string, status backend.Status, source backend.ErrorSource, message string) (backend.DataResponse, string) {
		return backend.DataResponse{Error: errors.New(message), Status: status, ErrorSource: source}, reason
	}
	var wrongQuery *invalidError
	var noRight *forbiddenError
	var noConnection *connectError
	switch {
	case errors.As(err, &wrongQuery):
		return answer(reasonInvalid, backend.StatusBadRequest, backend.ErrorSourceDownstream, err.Error())
	case errors.As(err, &noRight):
		return answer(reasonForbidden, backend.StatusForbidden, backend.ErrorSourceDownstream, err.Error())
	case d.wrong != nil && errors.Is(err, d.wrong):
		return answer(reasonInvalid, backend.StatusBadRequest, backend.ErrorSourceDownstream, "settings of the data source: "+err.Error())
	case errors.Is(err, errDisposed):
		return answer(string(cassandra.ReasonCanceled), backend.StatusBadGateway, backend.ErrorSourceDownstream, err.Error())
	case ctx.Err() != nil: // nobody waits any more
		return answer(string(cassandra.ReasonCanceled), 499, backend.ErrorSourceDownstream, "cancelled")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return answer(reasonDeadline, backend.StatusTimeout, backend.ErrorSourceDownstream,
			fmt.Sprintf("no answer within %s, the query timeout of the data source; take a shorter range or fewer vehicles, raise the timeout, or see whether the cluster is well (Save & test)", d.settings.queryTimeout))
	case errors.As(err, &noConnection):
		return answer(reasonConnect, backend.StatusBadGateway, backend.ErrorSourceDownstream, "Cassandra can't be used: "+err.Error()+". Save & test of the data source tells at which stage it fails")
	}
	var failed *cassandra.Error
	if !errors.As(err, &failed) {
		return answer(reasonPlugin, backend.StatusInternal, backend.ErrorSourcePlugin, err.Error())
	}
	remedy := map[cassandra.Reason]string{
		cassandra.ReasonNoHosts:      "no node can be reached now; the data source goes on trying, so repeat the query when the cluster is back",
		cassandra.ReasonUnavailable:  "too few replicas live for the consistency of the data source; see which nodes are down, or lower it",
		cassandra.ReasonTimeout:      "the nodes didn't answer in time; repeat it, or take a shorter range",
		cassandra.ReasonReadTimeout:  "the replicas didn't answer in time; repeat it, or take a shorter range",
		cassandra.ReasonUnauthorized: "give the user of the data source the right to read the keyspace",
		cassandra.ReasonInvalid:      "the statement doesn't fit the schema; fleet-etl schema check tells what a table lacks",
	}[failed.Reason]
	status := backend.StatusBadGateway
	if failed.Reason == cassandra.ReasonInvalid {
		status = backend.StatusBadRequest
	}
	message := failed.Error()
	if remedy != "" {
		message += "; " + remedy
	}
	return answer(string(failed.Reason), status, backend.ErrorSourceDownstream, message)
}

// writeJSON answers a resource.
func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // whoever asked may be gone
}
