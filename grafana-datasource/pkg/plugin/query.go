package plugin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/backend/log"
	"github.com/grafana/grafana-plugin-sdk-go/backend/tracing"
	"github.com/grafana/grafana-plugin-sdk-go/data"
	"github.com/grafana/grafana-plugin-sdk-go/experimental/concurrent"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/executor"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/frames"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/memory"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/reader"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/settings"
)

const (
	// maxQueries bounds the queries of one request: each has a response, even if it fails.
	maxQueries = 200
	// concurrentQueries bounds the queries of one request that run at once. The SDK allows no more.
	concurrentQueries = 10
)

// QueryData runs the queries of a request in parallel. Each query has its own error.
func (d *Datasource) QueryData(ctx context.Context, req *backend.QueryDataRequest) (*backend.QueryDataResponse, error) {
	alerting := req.Headers["FromAlert"] == "true" || req.GetHTTPHeader("FromAlert") == "true"
	if n := len(req.Queries); n > maxQueries {
		return nil, backend.DownstreamErrorf("request: %d queries; at most %d are accepted; split the panel", n, maxQueries)
	}
	_, account, openErr := d.openAccount(ctx)
	defer closeAfter(ctx, account)
	return concurrent.QueryData(ctx, req, func(ctx context.Context, q concurrent.Query) backend.DataResponse {
		return d.query(ctx, q.DataQuery, alerting, account.Part(), openErr)
	}, concurrentQueries)
}

// decodedBytes is how many bytes a byte of JSON may take once it is decoded and parsed.
const decodedBytes = 80

// query runs one query and records its metrics, trace and log. It holds the memory of the frames.
func (d *Datasource) query(ctx context.Context, source backend.DataQuery, alerting bool, account *memory.Account, openErr error) backend.DataResponse {
	start := time.Now()
	kind, err := query.TypeInvalid, openErr
	if err == nil {
		err = account.Take(ctx, decodedBytes*len(source.JSON))
	}
	if err == nil {
		kind = query.TypeOf(source)
	}
	ctx, span := tracing.DefaultTracer().Start(ctx, "fleet query "+kind)
	defer span.End()
	logger := backend.Logger.FromContext(ctx).With("refId", source.RefID, "queryType", kind)
	ctx, cost := reader.WithCost(ctx)
	var result *executor.Result
	if err == nil {
		result, err = d.run(memory.With(ctx, account), source, alerting)
	}
	c := cost()
	d.metrics.duration.WithLabelValues(kind).Observe(time.Since(start).Seconds())
	d.metrics.partitions.WithLabelValues(kind).Add(float64(c.Partitions))
	d.metrics.pages.WithLabelValues(kind).Add(float64(c.Pages))
	d.metrics.rows.WithLabelValues(kind, "read").Add(float64(c.Rows))
	span.SetAttributes(attribute.Int("fleet.partitions", c.Partitions), attribute.Int("fleet.rows", c.Rows), attribute.Int("fleet.cache_hits", c.CacheHits))
	if err != nil {
		account.Close()
		return d.fail(ctx, kind, err, span, logger)
	}
	account.Keep(frames.Bytes(result.Frames))
	outcome := "ok"
	if len(result.Truncations) > 0 {
		outcome = "truncated"
	}
	returned := 0
	for _, frame := range result.Frames {
		returned += frame.Rows()
	}
	d.metrics.queries.WithLabelValues(kind, outcome).Inc()
	d.metrics.rows.WithLabelValues(kind, "returned").Add(float64(returned))
	logger.Debug("query done", "duration", time.Since(start), "partitions", c.Partitions, "pages", c.Pages,
		"rows", c.Rows, "returned", returned, "cacheHits", c.CacheHits, "truncations", len(result.Truncations))
	addMetadata(result, &c, source.RefID, returned)
	return backend.DataResponse{Frames: result.Frames, Status: backend.StatusOK}
}

// run parses and runs a query within the query timeout.
func (d *Datasource) run(ctx context.Context, source backend.DataQuery, alerting bool) (result *executor.Result, err error) {
	defer reader.CatchPanic(&err)
	q, err := query.Parse(source, alerting)
	if err != nil {
		return nil, err
	}
	if d.settingsErr != nil {
		return nil, d.settingsErr
	}
	ctx, cancel := context.WithTimeout(ctx, d.settings.QueryTimeout)
	defer cancel()
	return d.executor.Run(ctx, q)
}

func (d *Datasource) fail(ctx context.Context, kind string, err error, span trace.Span, logger log.Logger) backend.DataResponse {
	response, reason := d.errorResponse(ctx, err)
	d.metrics.queries.WithLabelValues(kind, "error").Inc()
	d.metrics.errors.WithLabelValues(kind, reason).Inc()
	span.SetStatus(codes.Error, reason)
	panicked, isPanic := errors.AsType[*reader.PanicError](err)
	switch {
	case isPanic:
		logger.Error("query panicked", "error", err, "stack", string(panicked.Stack))
	case reason == reasonCanceled, reason == reasonInvalid, reason == reasonForbidden:
		logger.Debug("query failed", "reason", reason, "error", err) // caused by the user, who sees the error
	default:
		logger.Warn("query failed", "reason", reason, "error", err)
	}
	return response
}

// addMetadata adds the executed statements, the cost and the truncations to the frames, for the query inspector.
func addMetadata(r *executor.Result, c *reader.Cost, refID string, returned int) {
	executed := strings.Join(c.Statements, ";\n")
	if c.More > 0 {
		executed += fmt.Sprintf(";\n… and %d more like these", c.More)
	}
	if executed != "" {
		executed += "\n"
	}
	executed += fmt.Sprintf("-- %d partition(s), %d page(s), %d row(s) read", c.Partitions, c.Pages, c.Rows)
	nodes := slices.Sorted(maps.Keys(c.Coordinators))
	if len(nodes) > 0 {
		executed += " from " + strings.Join(nodes, ", ")
	}
	executed += fmt.Sprintf("; %d from the cache, %d shared with concurrent reads", c.CacheHits, c.SharedReads)
	for _, frame := range r.Frames {
		frame.RefID = refID
		if frame.Meta == nil {
			frame.Meta = &data.FrameMeta{}
		}
		frame.Meta.ExecutedQueryString = executed
	}
	if len(r.Frames) == 0 {
		return
	}
	// Grafana shows the notices and statistics of all frames together, so the first frame has them.
	meta := r.Frames[0].Meta
	for _, notice := range r.Truncations {
		meta.Notices = append(meta.Notices, data.Notice{Severity: data.NoticeSeverityWarning, Text: notice})
	}
	stat := func(name string, value int) data.QueryStat {
		return data.QueryStat{FieldConfig: data.FieldConfig{DisplayName: name}, Value: float64(value)}
	}
	meta.Stats = []data.QueryStat{
		stat("Partitions read", c.Partitions), stat("Pages read", c.Pages), stat("Rows read", c.Rows), stat("Rows returned", returned),
		stat("Cache hits", c.CacheHits), stat("Shared reads", c.SharedReads), stat("Retries", c.Retries),
	}
	meta.Custom = map[string]any{
		"partitions": c.Partitions, "pages": c.Pages, "rows": c.Rows, "cacheHits": c.CacheHits, "shared": c.SharedReads,
		"retries": c.Retries, "coordinators": nodes,
	}
}

// statusClientClosed is the status of a request whose client has gone; net/http has no name for it.
const statusClientClosed backend.Status = 499

// remedies tell users what to do about an error of the store.
var remedies = map[cassandra.Reason]string{
	cassandra.ReasonNoHosts:      "no node is reachable; the data source keeps trying, so run the query again when the cluster is back",
	cassandra.ReasonUnavailable:  "too few replicas are up for the consistency level of the data source; check which nodes are down, or lower the level",
	cassandra.ReasonTimeout:      "the nodes did not answer in time; try again, or choose a shorter time range",
	cassandra.ReasonReadTimeout:  "the replicas did not answer in time; try again, or choose a shorter time range",
	cassandra.ReasonUnauthorized: "grant the user of the data source SELECT on the keyspace",
	cassandra.ReasonInvalid:      "the statement does not fit the schema; run fleet-etl schema check to see what is missing",
}

// errorResponse converts an error into a response that names the remedy and the source of the error, and returns the
// reason for the metrics. ctx is the context of the request.
func (d *Datasource) errorResponse(ctx context.Context, err error) (backend.DataResponse, string) {
	respond := func(reason string, status backend.Status, message string) (backend.DataResponse, string) {
		return backend.DataResponse{Error: errors.New(message), Status: status, ErrorSource: backend.ErrorSourceDownstream}, reason
	}
	needs, isMemory := errors.AsType[*memory.Error](err)
	switch {
	case isMemory && needs.Busy:
		return respond(reasonMemory, backend.StatusTooManyRequests, needs.Error())
	case isMemory:
		return respond(reasonInvalid, backend.StatusBadRequest, needs.Error())
	case is[*query.InvalidError](err), is[*executor.RejectedError](err):
		return respond(reasonInvalid, backend.StatusBadRequest, err.Error())
	case is[*settings.ForbiddenError](err):
		return respond(reasonForbidden, backend.StatusForbidden, err.Error())
	case d.settingsErr != nil && errors.Is(err, d.settingsErr):
		return respond(reasonInvalid, backend.StatusBadRequest, "settings of the data source: "+err.Error())
	case errors.Is(err, reader.ErrClosed):
		return respond(reasonCanceled, backend.StatusBadGateway, err.Error())
	case ctx.Err() != nil:
		return respond(reasonCanceled, statusClientClosed, "canceled")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return respond(reasonDeadline, backend.StatusTimeout, fmt.Sprintf("query timed out after %s; choose a shorter time range or fewer vehicles, "+
			"raise the query timeout of the data source, or check the cluster with Save & test", d.settings.QueryTimeout))
	case is[*reader.ConnectError](err):
		return respond(reasonConnect, backend.StatusBadGateway, "cannot connect to Cassandra: "+err.Error()+"; Save & test of the data source shows the failing stage")
	case is[*reader.PanicError](err):
		err = errors.New("internal plugin error; see the plugin log")
	}
	if store, ok := errors.AsType[*cassandra.Error](err); ok {
		message := store.Error()
		if remedy := remedies[store.Reason]; remedy != "" {
			message += "; " + remedy
		}
		if store.Reason == cassandra.ReasonInvalid {
			return respond(reasonSchema, backend.StatusBadRequest, message)
		}
		return respond(string(store.Reason), backend.StatusBadGateway, message)
	}
	return backend.DataResponse{Error: err, Status: backend.StatusInternal, ErrorSource: backend.ErrorSourcePlugin}, reasonPlugin
}

// is reports whether an error in the chain of err has type E.
func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}
