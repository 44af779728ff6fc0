package queries

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/executor"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/frames"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/settings"
)

// panel is a statement of the dashboards.
type panel struct {
	cql    string
	board  *grafana.Dashboard
	target json.RawMessage
}

// panels reads the statements of the dashboards, each once.
func panels() (found []panel, err error) {
	boards, err := grafana.Load()
	if err != nil {
		return nil, err
	}
	for _, board := range boards {
		for _, t := range board.Targets() {
			var model struct{ CQL, QueryType string }
			if err := json.Unmarshal(t.JSON, &model); err != nil || model.QueryType != query.TypeRaw {
				continue // another data source's
			}
			if !slices.ContainsFunc(found, func(p panel) bool { return p.cql == model.CQL }) {
				found = append(found, panel{cql: model.CQL, board: board, target: t.JSON})
			}
		}
	}
	return found, nil
}

// rawReader reads for raw statements, without a cache. They need no other method.
type rawReader struct {
	executor.Reader
	store  *cassandra.Store
	tables []cassandra.Table
}

func (r rawReader) Schema(context.Context) ([]cassandra.Table, error) { return r.tables, nil }

func (r rawReader) Rows(ctx context.Context, statement string, limit int) (cassandra.Result, error) {
	return r.store.Select(ctx, statement, limit)
}

// ask runs a panel's statement and counts the rows.
func (f *Fill) ask(ctx context.Context, source *executor.Executor, p panel, from, to time.Time) (rows int, err error) {
	bound, err := p.board.Bind(p.target, grafana.Values{From: from, To: to, Variables: map[string][]string{
		"fleet": {fleetID}, "severity": cassandra.Severities, "device": {f.dense(0)},
		"compare": {f.dense(0), f.sparse(0), f.sparse(1), f.sparse(2)}, "vehicle": {f.dense(0)},
	}})
	if err != nil {
		return 0, err
	}
	var q query.Raw
	if err := json.Unmarshal(bound, &q); err != nil {
		return 0, err
	}
	q.Format, q.From, q.To, q.Interval = query.FormatTable, from, to, time.Minute
	result, err := source.Run(ctx, &q)
	if err != nil {
		return 0, err
	}
	return result.Frames[0].Rows(), nil
}

// panels are the statements of the dashboards as calls, over a day, a week and a month.
func (f *Fill) panels(store *cassandra.Store, tables []cassandra.Table) (calls []call, err error) {
	found, err := panels()
	if err != nil {
		return nil, err
	}
	defaults := &settings.Settings{MaxPartitions: 2000, MaxRows: 100_000, AllowRaw: true} // of the data source
	source := executor.New(defaults, rawReader{store: store, tables: tables}, frames.Links{}, time.Now)
	for _, p := range found {
		ranges := []time.Duration{aDay, 7 * aDay, 29 * aDay}
		if !strings.Contains(p.cql, "$__") && !strings.Contains(p.cql, "${__") {
			ranges = ranges[:1] // the time range makes no difference
		}
		for _, back := range ranges {
			calls = append(calls, call{fmt.Sprintf("`%s` %d days", p.cql, int(back/aDay)), screen, func(ctx context.Context, i int) (int, error) {
				to := f.Now.Add(time.Duration(i) * time.Second) // each refresh asks for another time
				return f.ask(ctx, source, p, to.Add(-back), to)
			}})
		}
	}
	return calls, nil
}
