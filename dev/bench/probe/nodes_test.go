package probe

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCompareNodes(t *testing.T) {
	var scrapes atomic.Int64
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := scrapes.Add(1)
		fmt.Fprintf(w, `# TYPE cassandra_client_requests_total counter
cassandra_client_requests_total{request="write"} %d
# TYPE cassandra_client_request_latency_seconds gauge
cassandra_client_request_latency_seconds{quantile="0.5",request="write"} 0.001
cassandra_client_request_latency_seconds{quantile="0.99",request="write"} 0.00%d
# TYPE cassandra_table_write_latency_seconds gauge
cassandra_table_write_latency_seconds{keyspace="fleet_iot",quantile="0.99",table="telemetry_by_device_day"} 0.0001
cassandra_table_write_latency_seconds{keyspace="other",quantile="0.99",table="telemetry_by_device_day"} 9
# TYPE jvm_gc_collection_seconds summary
jvm_gc_collection_seconds_count{gc="G1"} 1
jvm_gc_collection_seconds_sum{gc="G1"} 0.5
`, 1000*n, n)
	}))
	defer node.Close()
	before, err := scrapeAll(t.Context(), []string{node.URL})
	require.NoError(t, err)
	after, err := scrapeAll(t.Context(), []string{node.URL})
	require.NoError(t, err)
	f := compareNodes(before, after, "fleet_iot")
	assert.Equal(t, 1000.0, f.Requests["write"])
	assert.Equal(t, Latency{P50: .001, P99: .002}, f.Coordinator["write"])
	assert.Equal(t, map[string]Latency{"telemetry_by_device_day": {P99: .0001}}, f.Local)
	assert.Zero(t, f.Collection)
}

func TestAnUnreachableNodeIsNamed(t *testing.T) {
	_, err := scrapeAll(t.Context(), []string{"http://127.0.0.1:1/metrics"})
	assert.ErrorContains(t, err, "read metrics: Get \"http://127.0.0.1:1/metrics\"")
}
