package pipeline_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
)

const delayMetric = "fleet_etl_ingest_delay_seconds"

// late returns the values of the metric by fleet.
func (h *harness) late(t *testing.T) map[string]float64 {
	t.Helper()
	late := map[string]float64{}
	for name, value := range h.values(t) {
		if labels, is := strings.CutPrefix(name, delayMetric); is {
			late[strings.TrimSuffix(strings.TrimPrefix(labels, `{fleet="`), `"}`)] = value
		}
	}
	return late
}

func ofFleet(fleet string, accepted time.Time) pipeline.Batch {
	i := item("truck-"+fleet, 0)
	i.FleetID = fleet
	return pipeline.Batch{Items: []pipeline.Item{i}, Accepted: accepted}
}

func TestOnlyFleetsWithLateRecordsAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		stored := 0
		h := newHarness(each(func(b pipeline.ValidBatch) error { <-release; b.Done(); stored++; return nil }), 1)
		now := time.Now()
		wait := run(h, t.Context(), t.Context(), emitting("fake", ofFleet("suzhou", now.Add(-2*time.Minute)), ofFleet("wuxi", now), ofFleet("_canary", now.Add(-time.Hour)),
			ofFleet("not valid", now.Add(-time.Hour)), ofFleet("hefei", now)))
		synctest.Wait()
		assert.Equal(t, map[string]float64{"suzhou": 120}, h.late(t), "the others wait for less than the SLO allows")
		time.Sleep(10 * time.Second)
		assert.Equal(t, map[string]float64{"suzhou": 130, "wuxi": 10, "hefei": 10}, h.late(t), "also what waits for a place in a queue")

		release <- struct{}{}
		synctest.Wait()
		require.Equal(t, 1, stored)
		time.Sleep(20 * time.Second)
		assert.Equal(t, map[string]float64{"suzhou": 130, "wuxi": 30, "hefei": 30}, h.late(t), "a scrape still sees the delay that has ended")
		time.Sleep(20 * time.Second)
		assert.Equal(t, map[string]float64{"wuxi": 50, "hefei": 50}, h.late(t))
		close(release)
		require.NoError(t, wait())
		time.Sleep(time.Minute)
		assert.Empty(t, h.late(t))
	})
}

func TestSeriesOfLateFleetsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		h := newHarness(each(func(b pipeline.ValidBatch) error { <-release; b.Done(); return nil }), 2000)
		var batches []pipeline.Batch
		for i := range 1500 {
			batches = append(batches, ofFleet(fmt.Sprint("fleet-", i), time.Now().Add(-time.Duration(i)*time.Second)))
		}
		wait := run(h, t.Context(), t.Context(), emitting("fake", batches...))
		synctest.Wait()
		late := h.late(t)
		assert.Len(t, late, 1000)
		assert.Contains(t, late, "fleet-1499", "the longest delays")
		assert.NotContains(t, late, "fleet-400")
		close(release)
		require.NoError(t, wait())
		assert.Len(t, h.late(t), 1000, "in memory too")
	})
}
