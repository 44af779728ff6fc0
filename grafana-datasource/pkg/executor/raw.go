package executor

import (
	"context"
	"slices"

	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/cql"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/frames"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/memory"
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
	// Statements wait for each other, so that they do not fail because others hold the memory.
	weight := min(int64(x.rawLimit(q, plan))*rawRowBytes, int64(x.settings.QueryBytes/2))
	if err := x.rawRows.Acquire(ctx, weight); err != nil {
		return memory.Waited(err, x.settings.QueryBytes)
	}
	defer x.rawRows.Release(weight)
	result, err := x.readRaw(ctx, q, plan)
	if err != nil {
		return err
	}
	result.Rows = matchRows(q.Filters, result)
	var frame *data.Frame
	switch q.Format {
	case query.FormatTimeSeries:
		frame, err = frames.RawSeries(ctx, result)
	case query.FormatLogs:
		frame, err = frames.RawLogs(ctx, result)
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

// rawRowBytes is the assumed size of a row of a statement that waits.
const rawRowBytes = 1 << 10

// rawLimit is how many rows a statement may return.
func (x *execution) rawLimit(q *query.Raw, plan cql.Plan) int {
	most := q.RowLimit(x.settings.MaxRows)
	if plan.Limit > 0 {
		most = min(most, plan.Limit)
	}
	return most
}

// firstBatch is how many statements of a plan run before the number of their rows is known.
const firstBatch = 8

// readRaw runs the statements of a plan in batches that double, until their rows exceed the row limit, reach the limit of
// the statement, or use up the memory of the request. Running all statements at once would read up to the limit from each.
// The statements of a batch share the memory. One that needs more than its share runs again, alone.
func (x *execution) readRaw(ctx context.Context, q *query.Raw, plan cql.Plan) (cassandra.Result, error) {
	most := x.rawLimit(q, plan)
	var result cassandra.Result
	done, alone := 0, false
	for !result.Full && done < len(plan.Statements) && len(result.Rows) <= most && (plan.Limit == 0 || len(result.Rows) < plan.Limit) {
		size := min(max(done, firstBatch), concurrentPartitions)
		if alone {
			size = 1
		}
		batch := plan.Statements[done:min(done+size, len(plan.Statements))]
		share := memory.Left(ctx) / len(batch)
		parts, err := forEach(ctx, concurrentPartitions, batch, func(ctx context.Context, statement string) (cassandra.Result, error) {
			return x.reader.Rows(ctx, statement, most, share)
		})
		if err != nil {
			return result, err
		}
		alone = false
		for _, part := range parts {
			if alone = part.Full && len(batch) > 1; alone {
				break
			}
			if err := memory.Take(ctx, part.Bytes); err != nil {
				return result, err
			}
			result.Columns = part.Columns
			result.Rows = append(result.Rows, part.Rows...)
			result.More, result.Full = result.More || part.More, part.Full
			done++
		}
	}
	if len(result.Rows) > most {
		result.Rows, result.More = result.Rows[:most], true
	}
	switch {
	case result.Full && len(result.Rows) < most:
		x.truncated("Only the first %d rows: the query memory of one request. Select fewer columns, add conditions, or a LIMIT; "+
			"an administrator can raise Query memory in the data source.", len(result.Rows))
	case result.More && most != plan.Limit:
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
