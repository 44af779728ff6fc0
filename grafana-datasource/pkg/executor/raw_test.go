package executor

import (
	"fmt"
	"strings"
	"testing"

	"github.com/grafana/grafana-plugin-sdk-go/data"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/settings"
)

func rawResult(n int) cassandra.Result {
	r := cassandra.Result{Columns: []cassandra.ResultColumn{{Name: "zone", Type: "text"}, {Name: "n", Type: "int"}, {Name: "ts", Type: "timestamp"}}}
	for i := range n {
		r.Rows = append(r.Rows, []any{[]string{"depot", "port"}[i%2], int64(i), monday})
	}
	return r
}

func TestRawReadsOneStatementPerPartition(t *testing.T) {
	f := &fakeReader{rows: rawResult(2)}
	r := run(t, newExecutor(f), &query.Raw{Common: common("table"), CQL: "SELECT zone, n FROM t WHERE k IN (1, 2)"})
	assert.ElementsMatch(t, []string{"schema", "SELECT zone, n FROM t WHERE k = 1", "SELECT zone, n FROM t WHERE k = 2"}, f.reads)
	assert.Equal(t, []string{"depot", "port", "depot", "port"}, texts(t, r, "zone"))
	assert.Empty(t, r.Truncations)
}

func TestRawLimits(t *testing.T) {
	f := &fakeReader{rows: rawResult(3)}
	q := &query.Raw{Common: common("table"), CQL: "SELECT zone FROM t WHERE k IN (1, 2)"}
	q.Limit = 4
	r := run(t, newExecutor(f), q)
	assert.Len(t, texts(t, r, "zone"), 4)
	assert.Equal(t, []string{"Only the first 4 rows: the row limit. Add conditions, or a LIMIT."}, r.Truncations)
	q.CQL += " LIMIT 2"
	r = run(t, newExecutor(f), q)
	assert.Len(t, texts(t, r, "zone"), 2)
	assert.Empty(t, r.Truncations, "the limit of the statement has no notice")
}

func TestRawReadsPartitionsInGrowingBatches(t *testing.T) {
	keys := make([]string, 90)
	for i := range keys {
		keys[i] = fmt.Sprint(i)
	}
	statement := "SELECT zone FROM t WHERE k IN (" + strings.Join(keys, ", ") + ")"
	for _, c := range []struct {
		name              string
		rows, limit, want int
		statement         string
	}{
		{"the first batch exceeds the limit", 3, 20, 8, statement},
		{"one more row would show that there are others", 1, 8, 16, statement},
		{"no rows", 0, 100, 90, statement},
		{"the limit of the statement", 1, 100, 8, statement + " LIMIT 8"},
	} {
		f := &fakeReader{rows: rawResult(c.rows)}
		q := &query.Raw{Common: common("table"), CQL: c.statement}
		q.Limit = c.limit
		run(t, newExecutor(f), q)
		assert.Len(t, f.reads, 1+c.want, c.name) // and the schema
	}
}

func TestRawFormats(t *testing.T) {
	f := &fakeReader{rows: rawResult(2)}
	for format, want := range map[string]data.FrameType{
		query.FormatTable: data.FrameTypeTable, query.FormatTimeSeries: data.FrameTypeTimeSeriesWide, query.FormatLogs: data.FrameTypeLogLines,
	} {
		r := run(t, newExecutor(f), &query.Raw{Common: common(format), CQL: "SELECT * FROM t WHERE k = 1"})
		assert.Equal(t, want, r.Frames[0].Meta.Type)
	}
}

func TestRawRejections(t *testing.T) {
	e := newExecutor(&fakeReader{}, "north")
	for statement, want := range map[string]string{
		"DROP TABLE t":                                    `raw CQL: statement begins with "DROP": only SELECT is allowed`,
		"SELECT * FROM t WHERE $__nothing":                "raw CQL: macro $__nothing: unknown",
		"SELECT * FROM t WHERE k = 1":                     "it has no fleet in its key",
		"SELECT * FROM by_fleet WHERE fleet_id = 'south'": "not allowed for this data source",
	} {
		_, err := e.Run(t.Context(), &query.Raw{Common: common("table"), CQL: statement})
		var rejected *RejectedError
		require.ErrorAs(t, err, &rejected)
		require.ErrorContains(t, err, want)
	}
	e.settings.AllowRaw = false
	_, err := e.Run(t.Context(), &query.Raw{Common: common("table"), CQL: "SELECT 1"})
	var forbidden *settings.ForbiddenError
	require.ErrorAs(t, err, &forbidden)
}

func TestEqualQueriesFilterSharedRows(t *testing.T) {
	shared := rawResult(1000)
	filters := parsedFilters(t, `{"key":"zone","operator":"=","value":"port"},{"key":"n","operator":"<","value":"500"}`)
	var g errgroup.Group
	for range 8 {
		g.Go(func() error {
			if rows := matchRows(filters, shared); len(rows) != 250 {
				return fmt.Errorf("%d rows pass", len(rows))
			}
			return nil
		})
	}
	require.NoError(t, g.Wait())
	assert.Equal(t, []any{"depot", int64(0), monday}, shared.Rows[0], "the shared rows are unchanged")
	assert.Len(t, matchRows(nil, shared), 1000)
	assert.Len(t, matchRows(parsedFilters(t, `{"key":"other","operator":"=","value":"x"}`), shared), 1000)
}

func parsedFilters(t *testing.T, filters string) []query.Filter {
	t.Helper()
	q, err := query.Parse(dataQuery(`{"filters":[`+filters+`]}`), false)
	require.NoError(t, err)
	return q.Base().Filters
}
