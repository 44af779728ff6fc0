package plugin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/backend/log"
	"github.com/grafana/grafana-plugin-sdk-go/backend/tracing"
	"github.com/grafana/grafana-plugin-sdk-go/data"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/executor"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/reader"
)

// concurrentQueries bounds the queries of one request that run at once.
const concurrentQueries = 16

// QueryData runs the queries of a request in parallel. Each query has its own error.
func (d *Datasource) QueryData(ctx context.Context, req *backend.QueryDataRequest) (*backend.QueryDataResponse, error) {
	response := backend.NewQueryDataResponse()
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(concurrentQueries)
	alerting := req.Headers["FromAlert"] == "true" || req.GetHTTPHeader("FromAlert") == "true"
	for _, q := range req.Queries {
		g.Go(func() error {
			result := d.query(ctx, q, alerting)
			mu.Lock()
			defer mu.Unlock()
			response.Responses[q.RefID] = result
			return nil
		})
	}
	_ = g.Wait() // the responses have the errors
	return response, nil
}

// query runs one query and records its metrics, trace and log.
func (d *Datasource) query(ctx context.Context, source backend.DataQuery, alerting bool) backend.DataResponse {
	start := time.Now()
	kind := query.TypeOf(source)
	ctx, span := tracing.DefaultTracer().Start(ctx, "fleet query "+kind)
	defer span.End()
	logger := backend.Logger.FromContext(ctx).With("refId", source.RefID, "queryType", kind)
	ctx, cost := reader.WithCost(ctx)
	result, err := d.run(ctx, source, alerting)
	c := cost()
	d.observe(kind, time.Since(start), &c, span)
	if err != nil {
		return d.fail(ctx, kind, err, span, logger)
	}
	outcome := "ok"
	if len(result.Truncations) > 0 {
		outcome = "truncated"
		d.metrics.truncations.WithLabelValues(kind).Inc()
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

func (d *Datasource) observe(kind string, duration time.Duration, c *reader.Cost, span trace.Span) {
	d.metrics.duration.WithLabelValues(kind).Observe(duration.Seconds())
	d.metrics.partitions.WithLabelValues(kind).Add(float64(c.Partitions))
	d.metrics.pages.WithLabelValues(kind).Add(float64(c.Pages))
	d.metrics.rows.WithLabelValues(kind, "read").Add(float64(c.Rows))
	span.SetAttributes(attribute.Int("fleet.partitions", c.Partitions), attribute.Int("fleet.rows", c.Rows), attribute.Int("fleet.cache_hits", c.CacheHits))
}

func (d *Datasource) fail(ctx context.Context, kind string, err error, span trace.Span, logger log.Logger) backend.DataResponse {
	response, reason := d.errorResponse(ctx, err)
	var rejected *executor.RejectedError
	if errors.As(err, &rejected) {
		d.metrics.rawRejected.Inc()
	}
	d.metrics.queries.WithLabelValues(kind, "error").Inc()
	d.metrics.errors.WithLabelValues(kind, reason).Inc()
	span.SetStatus(codes.Error, reason)
	var panicked *reader.PanicError
	switch {
	case errors.As(err, &panicked):
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
	if nodes := c.CoordinatorNames(); len(nodes) > 0 {
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
		"retries": c.Retries, "coordinators": c.CoordinatorNames(),
	}
}
