package pipeline_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// rate() needs the zero before the first failure.
func TestEveryMetricExistsBeforeTheFirstRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(storing(), 3)
		stop, cancel := context.WithCancel(t.Context())
		wait := run(h, t.Context(), stop, source{"quiet", func(ctx context.Context, _ func(pipeline.Batch) error) error {
			<-ctx.Done()
			return nil
		}})
		synctest.Wait()
		want := map[string]float64{
			`fleet_etl_records_received_total{source="quiet"}`:  0,
			`fleet_etl_records_duplicate_total{source="quiet"}`: 0,
			`fleet_etl_freshness_seconds_count`:                 0,
			`fleet_etl_event_lag_seconds_count`:                 0,
			`fleet_etl_queue_length{queue="extract"}`:           0,
			`fleet_etl_queue_length{queue="load"}`:              0,
			`fleet_etl_queue_capacity{queue="extract"}`:         3,
			`fleet_etl_queue_capacity{queue="load"}`:            3,
			`fleet_etl_queue_bytes{queue="extract"}`:            0,
			`fleet_etl_queue_capacity_bytes{queue="extract"}`:   32 << 20,
		}
		for _, stage := range []string{"extract", "transform", "load"} {
			want[`fleet_etl_stage_duration_seconds_count{stage="`+stage+`"}`] = 0
		}
		for _, reason := range telemetry.Reasons {
			want[fmt.Sprintf(`fleet_etl_records_rejected_total{reason="%s",source="quiet"}`, reason)] = 0
		}
		got := h.values(t)
		for name, value := range want {
			v, ok := got[name]
			assert.True(t, ok, "no metric %s", name)
			assert.Equal(t, value, v, name)
		}
		problems, err := testutil.GatherAndLint(h.reg)
		require.NoError(t, err)
		assert.Empty(t, problems)
		cancel()
		require.NoError(t, wait())
	})
}

func TestRejectedRecordsAreCountedBySourceAndReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		future, zero := item("truck-1", -3600), item("truck-2", 0)
		zero.Lat, zero.Lon = 0, 0
		malformed := pipeline.Rejected{Rejection: telemetry.Reject(telemetry.Malformed, "lat", "x", "give a number")}
		h := newHarness(storing(), 2)
		require.NoError(t, h.Run(t.Context(), t.Context(),
			emitting("a", pipeline.Batch{Items: []pipeline.Item{future, zero, item("truck-3", 0)}, Rejected: []pipeline.Rejected{malformed, malformed}}),
			emitting("b", pipeline.Batch{Items: []pipeline.Item{future}}),
		))
		for metric, want := range map[string]float64{
			`fleet_etl_records_received_total{source="a"}`:                        5,
			`fleet_etl_records_received_total{source="b"}`:                        1,
			`fleet_etl_records_rejected_total{reason="future",source="a"}`:        1,
			`fleet_etl_records_rejected_total{reason="future",source="b"}`:        1,
			`fleet_etl_records_rejected_total{reason="zero_position",source="a"}`: 1,
			`fleet_etl_records_rejected_total{reason="malformed",source="a"}`:     2,
			`fleet_etl_records_rejected_total{reason="malformed",source="b"}`:     0,
			`fleet_etl_records_rejected_total{reason="unknown_fleet",source="a"}`: 0,
			`fleet_etl_records_duplicate_total{source="a"}`:                       0,
			`fleet_etl_freshness_seconds_count`:                                   1,
			`fleet_etl_stage_duration_seconds_count{stage="extract"}`:             2,
			`fleet_etl_stage_duration_seconds_count{stage="transform"}`:           2,
			`fleet_etl_stage_duration_seconds_count{stage="load"}`:                2,
		} {
			assert.Equal(t, want, h.value(t, metric), metric)
		}
		assert.Equal(t, pipeline.Summary{Received: 6, Stored: 1, Rejected: map[telemetry.Reason]int64{
			telemetry.Future: 2, telemetry.ZeroPosition: 1, telemetry.Malformed: 2,
		}}, h.Summary())
	})
}

func TestDurationMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The writer takes 2 s per batch, the source takes 3 s to read one.
		h := newHarness(each(func(b pipeline.ValidBatch) error {
			time.Sleep(2 * time.Second)
			b.Done()
			return nil
		}), 2)
		require.NoError(t, h.Run(t.Context(), t.Context(), source{"fake", func(_ context.Context, emit func(pipeline.Batch) error) error {
			time.Sleep(3 * time.Second)
			b := batchOf("truck-1", nil)
			b.Items = append(b.Items, item("truck-2", 10), item("truck-3", -60), item("truck-1", 0)) // the last is a duplicate
			if err := emit(b); err != nil {
				return err
			}
			time.Sleep(3 * time.Second)
			earlier := batchOf("truck-4", nil)
			earlier.Accepted = time.Now().Add(-time.Second) // a request that was accepted 1 s ago
			return emit(earlier)
		}}))
		for metric, want := range map[string]float64{
			"fleet_etl_event_lag_seconds_count":                       5,
			"fleet_etl_event_lag_seconds_sum":                         10, // a clock that is ahead counts as no lag
			"fleet_etl_freshness_seconds_count":                       4,  // the duplicate does not count
			"fleet_etl_freshness_seconds_sum":                         3*2 + (1 + 2),
			`fleet_etl_stage_duration_seconds_count{stage="extract"}`: 2,
			`fleet_etl_stage_duration_seconds_sum{stage="extract"}`:   6,
			`fleet_etl_stage_duration_seconds_count{stage="load"}`:    2,
			`fleet_etl_stage_duration_seconds_sum{stage="load"}`:      4,
		} {
			assert.InDelta(t, want, h.value(t, metric), 1e-9, metric)
		}
	})
}

// While emit waits for the queue, the source is not at work.
func TestExtractTimeExcludesWaitingForTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(each(func(b pipeline.ValidBatch) error {
			time.Sleep(time.Minute)
			b.Done()
			return nil
		}), 1)
		var batches []pipeline.Batch
		for i := range 10 {
			batches = append(batches, batchOf(fmt.Sprint("truck-", i), nil))
		}
		require.NoError(t, h.Run(t.Context(), t.Context(), emitting("fake", batches...)))
		assert.Zero(t, h.value(t, `fleet_etl_stage_duration_seconds_sum{stage="extract"}`))
		assert.Equal(t, 10.0, h.value(t, `fleet_etl_stage_duration_seconds_count{stage="extract"}`))
	})
}

func TestSummaryIsACopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(storing(), 1)
		s := h.Summary()
		s.Rejected[telemetry.Future] = 7
		assert.Empty(t, h.Summary().Rejected)
	})
}
