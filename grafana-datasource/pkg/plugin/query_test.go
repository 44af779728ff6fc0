package plugin

import (
	"testing"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/data"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/executor"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/reader"
)

func TestQueriesOfARequestFailAlone(t *testing.T) {
	d := newTestDatasource(t, &fakeStore{}, map[string]any{})
	responses := run(t, d, map[string]string{
		"A": `{"queryType":"everything"}`,
		"B": `{"queryType":"latest","fleets":["south"]}`,
		"C": `{"queryType":"devices"}`, // the fake store panics
		"D": `{"queryType":"latest","limit":1}`,
		"E": `{`,
	})
	require.ErrorContains(t, responses["A"].Error, `query type "everything": unknown`)
	assert.Equal(t, backend.StatusBadRequest, responses["A"].Status)
	require.NoError(t, responses["B"].Error)
	assert.Equal(t, 1, responses["B"].Frames[0].Rows())
	require.EqualError(t, responses["C"].Error, "internal plugin error; see the plugin log")
	assert.Equal(t, backend.ErrorSourcePlugin, responses["C"].ErrorSource)
	assert.Equal(t, []data.Notice{{Severity: data.NoticeSeverityWarning, Text: "Only 1 of 2 vehicles: the row limit. Raise the limit, or add a filter."}}, responses["D"].Frames[0].Meta.Notices)

	for labels, want := range map[[2]string]float64{
		{query.TypeInvalid, "error"}: 2, {query.TypeLatest, "ok"}: 1, {query.TypeLatest, "truncated"}: 1, {query.TypeLatest, "error"}: 0, {query.TypeDevices, "error"}: 1,
	} {
		assert.Equal(t, want, testutil.ToFloat64(d.metrics.queries.WithLabelValues(labels[0], labels[1])), labels)
	}
	assert.Equal(t, 2.0, testutil.ToFloat64(d.metrics.errors.WithLabelValues(query.TypeInvalid, reasonInvalid)))
	assert.Equal(t, 1.0, testutil.ToFloat64(d.metrics.errors.WithLabelValues(query.TypeDevices, reasonPlugin)))
	assert.Equal(t, 2.0, testutil.ToFloat64(d.metrics.rows.WithLabelValues(query.TypeLatest, "returned")))
}

func TestARequestHasAtMost200Queries(t *testing.T) {
	d := newTestDatasource(t, &fakeStore{}, map[string]any{})
	_, err := d.QueryData(t.Context(), &backend.QueryDataRequest{Queries: make([]backend.DataQuery, 201)})
	require.EqualError(t, err, "request: 201 queries; at most 200 are accepted; split the panel")
	assert.True(t, backend.IsDownstreamError(err))
}

func TestAlertRulesGetNumericFrames(t *testing.T) {
	d := newTestDatasource(t, &fakeStore{}, map[string]any{})
	for _, headers := range []map[string]string{{"FromAlert": "true"}, {"http_FromAlert": "true"}} {
		response, err := d.QueryData(t.Context(), &backend.QueryDataRequest{Headers: headers, Queries: []backend.DataQuery{dataQuery("A", `{}`)}})
		require.NoError(t, err)
		assert.Equal(t, data.FrameTypeNumericLong, response.Responses["A"].Frames[0].Meta.Type)
	}
}

func TestInvalidSettingsFailEveryQuery(t *testing.T) {
	d := newTestDatasource(t, &fakeStore{}, map[string]any{"queryTimeout": "soon"})
	r := run(t, d, map[string]string{"A": `{}`})["A"]
	require.ErrorContains(t, r.Error, `settings of the data source: Query timeout "soon"`)
	assert.Equal(t, backend.StatusBadRequest, r.Status)
}

func TestRejectedStatementsAreCounted(t *testing.T) {
	d := newTestDatasource(t, &fakeStore{}, map[string]any{})
	r := run(t, d, map[string]string{"A": `{"queryType":"raw","cql":"DROP TABLE t"}`})["A"]
	require.ErrorContains(t, r.Error, "only SELECT is allowed")
	assert.Equal(t, 1.0, testutil.ToFloat64(d.metrics.errors.WithLabelValues(query.TypeRaw, reasonInvalid)))
}

func TestEverySeriesExistsAtZero(t *testing.T) {
	m := newTestDatasource(t, &fakeStore{}, map[string]any{}).metrics
	types := len(query.Types) + 1
	assert.Equal(t, 3*types, testutil.CollectAndCount(m.queries))
	assert.Equal(t, types*(6+len(cassandra.Reasons)), testutil.CollectAndCount(m.errors))
	assert.Equal(t, types, testutil.CollectAndCount(m.duration))
	assert.Equal(t, 2*types, testutil.CollectAndCount(m.rows))
}

func TestMetadataDescribesTheQuery(t *testing.T) {
	c := &reader.Cost{CacheHits: 1, SharedReads: 2, ReadTotals: cassandra.ReadTotals{
		Partitions: 3, Pages: 4, Rows: 5, Retries: 1, Statements: []string{"SELECT a", "SELECT b"}, More: 7, Coordinators: map[string]int{"n2": 1, "n1": 1}}}
	r := &executor.Result{Frames: data.Frames{data.NewFrame("a"), data.NewFrame("b")}, Truncations: []string{"Only a part."}}
	addMetadata(r, c, "A", 9)
	meta := r.Frames[0].Meta
	assert.Equal(t, "SELECT a;\nSELECT b;\n… and 7 more like these\n-- 3 partition(s), 4 page(s), 5 row(s) read from n1, n2; 1 from the cache, 2 shared with concurrent reads", meta.ExecutedQueryString)
	assert.Equal(t, "Only a part.", meta.Notices[0].Text)
	assert.Equal(t, 9.0, meta.Stats[3].Value)
	assert.Equal(t, "A", r.Frames[1].RefID)
	assert.Equal(t, meta.ExecutedQueryString, r.Frames[1].Meta.ExecutedQueryString)
	assert.Empty(t, r.Frames[1].Meta.Notices, "Grafana shows the notices of all frames")
	addMetadata(&executor.Result{}, c, "A", 0) // no frames
}
