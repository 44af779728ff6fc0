package executor

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

func TestMetricsStartAtZeroAndAreWellNamed(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	logger, _ := logtest.NewNullLogger()
	x := New(Options{MaxInFlight: 8, RetryRate: 1}, logger, reg, time.Now)
	for metric, want := range map[string]int{
		"fleet_etl_records_written_total":  len(tables),
		"fleet_etl_write_duration_seconds": len(tables),
		"fleet_etl_write_errors_total":     len(tables) * len(cassandra.Reasons),
		"fleet_etl_write_retries_total":    1,
		"fleet_etl_store_up":               1,
		"fleet_etl_writes_in_flight":       1,
		"fleet_etl_writes_in_flight_limit": 1,
	} {
		n, err := testutil.GatherAndCount(reg, metric)
		require.NoError(t, err)
		assert.Equal(t, want, n, metric)
	}
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	assert.Empty(t, problems)
	assert.Equal(t, 1.0, testutil.ToFloat64(x.metrics.up), "up until it is known to be unavailable")
	assert.Equal(t, 8, limitOf(x.limit), "the limit starts at most at its maximum")
}

func TestFailedRequestsAreCounted(t *testing.T) {
	m := newMetrics(prometheus.NewPedanticRegistry(), newLimiter(1, 1, 1, time.Second, time.Now))
	m.failed(cassandra.TableHistory, cassandra.ReasonTimeout)
	m.failed(cassandra.TableHistory, cassandra.ReasonTimeout)
	m.failed(cassandra.TableHistory, cassandra.ReasonInvalid)
	m.failed(cassandra.TableLatest, cassandra.ReasonUnavailable)
	x := &Executor{metrics: m}
	assert.Equal(t, map[string]int64{"timeout": 2, "invalid": 1, "unavailable": 1}, x.Errors())
	assert.Equal(t, int64(3), x.Retries(), "a write that can't succeed is not retried")
	assert.Equal(t, 3.0, testutil.ToFloat64(m.retries))
	assert.Equal(t, 2.0, testutil.ToFloat64(m.errors.WithLabelValues(cassandra.TableHistory, "timeout")))
	m.wrote(cassandra.TableHistory, 7, time.Second)
	m.wrote(cassandra.TableHistory, 0, time.Second) // only conflicting duplicates
	assert.Equal(t, int64(7), x.Rows(cassandra.TableHistory))
	assert.Equal(t, 7.0, testutil.ToFloat64(m.written[cassandra.TableHistory]))
}
