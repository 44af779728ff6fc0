package queries

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/cql"
)

// panel is a statement of the dashboards.
type panel struct {
	cql    string
	asked  []string // by "dashboard: panel"
	board  *grafana.Dashboard
	target json.RawMessage
}

// panels reads the statements of the dashboards, each once.
func panels() ([]*panel, error) {
	boards, err := grafana.Load()
	if err != nil {
		return nil, err
	}
	var found []*panel
	for _, board := range boards {
		targets, err := board.Targets()
		if err != nil {
			return nil, err
		}
		for _, t := range targets {
			var model struct {
				CQL       string `json:"cql"`
				QueryType string `json:"queryType"`
			}
			if err := json.Unmarshal(t.JSON, &model); err != nil || model.QueryType != "raw" {
				continue // another data source's
			}
			title := fmt.Sprintf("%s: %s", board.Title, t.Panel.Title)
			i := slices.IndexFunc(found, func(p *panel) bool { return p.cql == model.CQL })
			if i < 0 {
				i = len(found)
				found = append(found, &panel{cql: model.CQL, board: board, target: t.JSON})
			}
			if !slices.Contains(found[i].asked, title) {
				found[i].asked = append(found[i].asked, title)
			}
		}
	}
	return found, nil
}

// The default limits of the data source.
const (
	rowsOfPanel  = 100_000
	partsOfPanel = 2000
	readsAtOnce  = 32
)

// plan splits a panel's statement by partition, as the data source does.
func (p *panel) plan(s sample, tables []cassandra.Table, from, to time.Time) (cql.Plan, error) {
	bound, err := p.board.Bind(p.target, grafana.Values{From: from, To: to, Variables: map[string][]string{
		"fleet": {fleetID}, "severity": cassandra.Severities, "device": {s.dense(0)},
		"compare": {s.dense(0), s.sparse(0), s.sparse(1), s.sparse(2)}, "vehicle": {s.dense(0)},
	}})
	if err != nil {
		return cql.Plan{}, err
	}
	var model struct {
		CQL string `json:"cql"`
	}
	if err := json.Unmarshal(bound, &model); err != nil {
		return cql.Plan{}, err
	}
	statement, err := cql.Expand(model.CQL, cql.Range{From: from, To: to, Interval: time.Minute, MaxDays: partsOfPanel})
	if err != nil {
		return cql.Plan{}, err
	}
	known := make([]cql.Table, len(tables))
	for i, t := range tables {
		known[i] = cql.Table{Name: t.Name, PartitionKey: t.PartitionKey}
	}
	plan, err := cql.Validate(statement, known, cql.Rules{MaxPartitions: partsOfPanel, FleetColumn: "fleet_id"})
	if err != nil {
		return plan, fmt.Errorf("%s: %w", strings.Join(p.asked, ", "), err)
	}
	return plan, nil
}

// ask runs a panel's statements as the data source does, and counts the rows.
func ask(ctx context.Context, store *cassandra.Store, plan cql.Plan) (rows int, err error) {
	for done := 0; ; {
		n := plan.NextBatch(done, rows, rowsOfPanel, readsAtOnce)
		if n == 0 {
			return rows, nil
		}
		counts := make([]int, n)
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(readsAtOnce)
		for i, statement := range plan.Statements[done : done+n] {
			g.Go(func() error {
				result, err := store.Select(ctx, statement, rowsOfPanel)
				counts[i] = len(result.Rows)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return rows, err
		}
		for _, count := range counts {
			rows += count
		}
		done += n
	}
}

// panels are the statements of the dashboards as calls, over a day, a week and a month.
func (s sample) panels(store *cassandra.Store, tables []cassandra.Table) (calls []call, err error) {
	found, err := panels()
	if err != nil {
		return nil, err
	}
	for _, p := range found {
		ranges := []time.Duration{aDay, 7 * aDay, 29 * aDay}
		if !strings.Contains(p.cql, "$__") && !strings.Contains(p.cql, "${__") {
			ranges = ranges[:1] // the time range makes no difference
		}
		for _, back := range ranges {
			calls = append(calls, call{fmt.Sprintf("%s; %d days", p.cql, int(back/aDay)), screen, func(ctx context.Context, i int) (int, error) {
				to := s.now.Add(time.Duration(i) * time.Second) // each refresh asks for another time
				plan, err := p.plan(s, tables, to.Add(-back), to)
				if err != nil {
					return 0, err
				}
				return ask(ctx, store, plan)
			}})
		}
	}
	return calls, nil
}
