package load

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

func TestMetricsExistBeforeTheFirstWriteAndAreWellNamed(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	w := NewWriter(nil, Options{
		Mode: Batch, WindowRecords: 100, Linger: time.Second, BatchRows: 100, MaxInFlight: 8, RetryRate: 1, DevicesKept: 10,
	}, silent(), reg, time.Now)
	for metric, want := range map[string]int{
		"fleet_etl_records_written_total":        len(writtenTables),
		"fleet_etl_write_duration_seconds":       len(writtenTables),
		"fleet_etl_write_errors_total":           len(writtenTables) * len(cassandra.Reasons),
		"fleet_etl_write_retries_total":          1,
		"fleet_etl_records_late_total":           1,
		"fleet_etl_store_up":                     1,
		"fleet_etl_writes_in_flight":             1,
		"fleet_etl_writes_in_flight_limit":       1,
		"fleet_etl_load_window_duration_seconds": 2,
	} {
		n, err := testutil.GatherAndCount(reg, metric)
		require.NoError(t, err)
		assert.Equal(t, want, n, metric)
	}
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	assert.Empty(t, problems)
	assert.Equal(t, 1.0, testutil.ToFloat64(w.metrics.storeUp), "up until it is known to be away")
	assert.Equal(t, 8, limitOf(w.limit), "the limit starts no higher than it may be")
}

func TestFailedWritesAreCounted(t *testing.T) {
	m := newMetrics(prometheus.NewPedanticRegistry(), newLimiter(1, 1, 1, time.Second, time.Now))
	m.failed(cassandra.TableHistory, cassandra.ReasonTimeout)
	m.failed(cassandra.TableHistory, cassandra.ReasonTimeout)
	m.failed(cassandra.TableHistory, cassandra.ReasonRefused)
	m.failed(cassandra.TableLatest, cassandra.ReasonUnavailable)
	w := &Writer{metrics: m}
	assert.Equal(t, map[string]int64{"timeout": 2, "refused": 1, "unavailable": 1}, w.Errors())
	assert.Equal(t, int64(3), w.Retries(), "what is given up is not tried again")
	assert.Equal(t, 3.0, testutil.ToFloat64(m.retries))
	assert.Equal(t, 2.0, testutil.ToFloat64(m.errors.WithLabelValues(cassandra.TableHistory, "timeout")))
	m.wrote(cassandra.TableHistory, 7, time.Second)
	m.wrote(cassandra.TableHistory, 0, time.Second) // rivals alone
	assert.Equal(t, map[string]int64{cassandra.TableHistory: 7}, w.Rows())
	assert.Equal(t, 7.0, testutil.ToFloat64(m.written[cassandra.TableHistory]))
}
