package executor

import (
	"context"
	"slices"

	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/cql"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/frames"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
)

// maxMacroDays bounds the days that the macro $__days lists.
const maxMacroDays = 4000

// RejectedError is a raw statement that the query validator rejects.
type RejectedError struct{ err error }

func (e *RejectedError) Error() string { return "raw CQL: " + e.err.Error() }
func (e *RejectedError) Unwrap() error { return e.err }

// raw runs a SELECT statement that a user wrote: validated, split into one statement per partition, and run in parallel.
func (x *execution) raw(ctx context.Context, q *query.Raw) error {
	tables, err := x.reader.Schema(ctx)
	if err != nil {
		return err
	}
	plan, err := x.planRaw(q, tables)
	if err != nil {
		return &RejectedError{err}
	}
	result, err := x.readRaw(ctx, q, plan)
	if err != nil {
		return err
	}
	result.Rows = matchRows(q.Filters, result)
	var frame *data.Frame
	switch q.Format {
	case query.FormatTimeSeries:
		frame, err = frames.RawSeries(result)
	case query.FormatLogs:
		frame, err = frames.RawLogs(result)
	default:
		frame = frames.RawTable(result)
	}
	x.Frames = data.Frames{frame}
	return err
}

func (x *execution) planRaw(q *query.Raw, tables []cassandra.Table) (cql.Plan, error) {
	statement, err := cql.Expand(q.CQL, cql.Range{From: q.From, To: q.To, Interval: q.Interval, MaxDays: min(x.settings.MaxPartitions, maxMacroDays)})
	if err != nil {
		return cql.Plan{}, err
	}
	known := make([]cql.Table, len(tables))
	for i, t := range tables {
		known[i] = cql.Table{Name: t.Name, PartitionKey: t.PartitionKey}
	}
	return cql.Validate(statement, known, cql.Rules{
		Keyspace: x.settings.Cluster.Keyspace, AllowFiltering: x.settings.AllowFiltering, MaxPartitions: x.settings.MaxPartitions,
		Fleets: x.settings.Access.Fleets(),
	})
}

// firstBatch is how many statements of a plan run before the number of their rows is known.
const firstBatch = 8

// readRaw runs the statements of a plan in batches that double, until their rows exceed the row limit or reach the limit
// of the statement. Running all statements at once would read up to the limit from each.
func (x *execution) readRaw(ctx context.Context, q *query.Raw, plan cql.Plan) (cassandra.Result, error) {
	most := q.RowLimit(x.settings.MaxRows)
	if plan.Limit > 0 {
		most = min(most, plan.Limit)
	}
	var result cassandra.Result
	done := 0
	for done < len(plan.Statements) && len(result.Rows) <= most && (plan.Limit == 0 || len(result.Rows) < plan.Limit) {
		batch := plan.Statements[done:min(done+max(done, firstBatch), done+concurrentPartitions, len(plan.Statements))]
		parts, err := forEach(ctx, concurrentPartitions, batch, func(ctx context.Context, statement string) (cassandra.Result, error) {
			return x.reader.Rows(ctx, statement, most)
		})
		if err != nil {
			return result, err
		}
		for _, part := range parts {
			result.Columns = part.Columns
			result.Rows = append(result.Rows, part.Rows...)
			result.More = result.More || part.More
		}
		done += len(batch)
	}
	if len(result.Rows) > most {
		result.Rows, result.More = result.Rows[:most], true
	}
	if result.More && most != plan.Limit {
		x.truncated("Only the first %d rows: the row limit. Add conditions, or a LIMIT.", most)
	}
	return result, nil
}

// matchRows returns the rows that pass all filters. Of columns with equal names, filters apply to the first.
func matchRows(filters []query.Filter, r cassandra.Result) [][]any {
	columns := query.Columns[[]any]{}
	for j, c := range slices.Backward(r.Columns) {
		columns[c.Name] = func(row *[]any) query.Cell {
			text := frames.RawText((*row)[j])
			if number, ok := frames.RawNumber((*row)[j]); ok {
				return query.TextAndNumber(text, number)
			}
			return query.Text(text)
		}
	}
	return keep(r.Rows, func(row *[]any) bool { return query.Match(filters, columns, row) })
}
