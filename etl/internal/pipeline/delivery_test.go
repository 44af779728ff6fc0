package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// run starts a pipeline and gives the way to wait for what it returns.
func run(r *rig, ctx, stop context.Context, sources ...pipeline.Source) (wait func() error) {
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx, stop, sources...) }()
	return func() error { return <-ended }
}

func TestEachBatchIsDoneByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var handed []pipeline.Clean
		release := make(chan struct{})
		r := newRig(loader(func(_ context.Context, in <-chan pipeline.Clean) error {
			for c := range in {
				handed = append(handed, c)
			}
			<-release
			return nil
		}), 4)
		var j journal
		batch := func(name string) pipeline.Batch {
			return batchOf(name, func(o pipeline.Outcome) { j.note("%s: %d stored", name, o.Stored) })
		}
		wait := run(r, t.Context(), t.Context(), emitting("fake", batch("a"), batch("b"), batch("c")))

		synctest.Wait()
		require.Len(t, handed, 3)
		assert.Empty(t, j.all(), "nothing is durable yet")
		handed[1].Done()
		assert.Equal(t, []string{"b: 1 stored"}, j.all(), "one is, and not the one before it")
		handed[0].Done()
		handed[2].Done()
		assert.Equal(t, []string{"b: 1 stored", "a: 1 stored", "c: 1 stored"}, j.all())
		close(release)
		require.NoError(t, wait())
		assert.Len(t, j.all(), 3, "each once")
	})
}

func TestRefusedRecordsAreDeadLettersBeforeTheBatchIsDone(t *testing.T) {
	beyond := func() pipeline.Item {
		i := item("truck-1", 0)
		i.Lat, i.Position, i.Raw = 91, 12, "truck-1,wuxi,…,91,120.25"
		return i
	}
	for name, c := range map[string]struct {
		items   []pipeline.Item
		refused []pipeline.Refused
		want    int
	}{
		"beside a good one":        {items: []pipeline.Item{item("truck-2", 0), beyond()}, want: 1},
		"alone":                    {items: []pipeline.Item{beyond()}, want: 1},
		"by the source":            {refused: []pipeline.Refused{{Rejection: telemetry.Reject(telemetry.Malformed, "", "", "mend it")}}, want: 1},
		"by source and transform":  {items: []pipeline.Item{beyond()}, refused: []pipeline.Refused{{Rejection: telemetry.Reject(telemetry.TooLarge, "", "", "less")}}, want: 2},
		"two neighbours of a good": {items: []pipeline.Item{beyond(), item("truck-2", 0), beyond()}, want: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var j journal
				r := newRig(storing(), 4)
				r.letters.append = func() { j.note("dead letters") }
				for i := range c.items { // their time is that of the bubble
					c.items[i].TimeMs = time.Now().UnixMilli()
				}
				require.NoError(t, r.Run(t.Context(), t.Context(), emitting("fake", pipeline.Batch{
					Origin: "file.csv", Items: c.items, Refused: c.refused,
					Done: func(o pipeline.Outcome) { j.note("done, %d refused", len(o.Refused)) },
				})))
				assert.Equal(t, []string{"dead letters", fmt.Sprintf("done, %d refused", c.want)}, j.all())
				require.Len(t, r.letters.all, 1)
				assert.Equal(t, "fake", r.letters.all[0].source)
				assert.Equal(t, "file.csv", r.letters.all[0].origin)
				assert.Len(t, r.letters.all[0].refused, c.want)
			})
		})
	}
}

func TestABatchWithoutRefusedLeavesNoDeadLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(storing(), 4)
		require.NoError(t, r.Run(t.Context(), t.Context(), emitting("fake", batchOf("truck-1", nil))))
		assert.Empty(t, r.letters.all)
	})
}

func TestADeadLetterHasTheRecordAsItCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		withText, without := item("truck-1", 0), item("truck-2", 0)
		withText.Lat, withText.Raw, withText.Position = 91, `{"lat": 91, "colour": "red"}`, 4
		without.Lat, without.Zone = 92, "depot"
		without.SpeedKmh, without.HeadingDeg = telemetry.Some(0.0), telemetry.Some(90.0)
		without.BatteryPct, without.TempC = telemetry.Some(int32(0)), telemetry.Some(-1.5)
		without.AccuracyM = telemetry.Some(7.5)
		sparse := item("truck-3", 0)
		sparse.Lat = 93
		r := newRig(storing(), 4)
		require.NoError(t, r.Run(t.Context(), t.Context(), emitting("fake", pipeline.Batch{Items: []pipeline.Item{withText, without, sparse}})))
		refused := r.letters.all[0].refused
		require.Len(t, refused, 3)
		assert.Equal(t, withText.Raw, refused[0].Raw)
		assert.Equal(t, int64(4), refused[0].Position)
		assert.JSONEq(t, fmt.Sprintf(`{"device_id": "truck-2", "fleet_id": "wuxi", "timestamp": %d, "lat": 92, "lon": 120.25, "zone": "depot",
			"speed_kmh": 0, "heading_deg": 90, "battery_pct": 0, "temp_c": -1.5, "accuracy_m": 7.5}`, without.TimeMs), refused[1].Raw)
		assert.JSONEq(t, fmt.Sprintf(`{"device_id": "truck-3", "fleet_id": "wuxi", "timestamp": %d, "lat": 93, "lon": 120.25}`, sparse.TimeMs), refused[2].Raw)
	})
}

// A window of records is as large as the records, not as the file that they were cut from.
func TestRecordsHoldOnToNoneOfTheirText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text := strings.Repeat("truck-1,wuxi,depot\n", 2)
		i := item("", 0)
		i.Raw, i.DeviceID, i.FleetID, i.Zone = text[:18], text[:7], text[8:12], text[13:18]
		r := newRig(each(func(c pipeline.Clean) error {
			got := c.Items[0]
			assert.Empty(t, got.Raw)
			assert.Equal(t, []string{"truck-1", "wuxi", "depot"}, []string{got.DeviceID, got.FleetID, got.Zone})
			from := uintptr(unsafe.Pointer(unsafe.StringData(text)))
			for _, name := range []string{got.DeviceID, got.FleetID, got.Zone} {
				at := uintptr(unsafe.Pointer(unsafe.StringData(name)))
				assert.False(t, at >= from && at < from+uintptr(len(text)), "%s is still a piece of the text", name)
			}
			c.Done()
			return nil
		}), 4)
		require.NoError(t, r.Run(t.Context(), t.Context(), emitting("fake", pipeline.Batch{Items: []pipeline.Item{i}})))
		assert.Equal(t, int64(1), r.Metrics.Summary().Stored)
	})
}

func TestABatchInHandAtTheStopStillGoesIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop, cancel := context.WithCancel(t.Context())
		r := newRig(each(func(c pipeline.Clean) error {
			time.Sleep(time.Minute) // slow: everything is still on its way at the stop
			c.Done()
			return nil
		}), 2)
		var j journal
		batch := func(name string) pipeline.Batch {
			return batchOf(name, func(o pipeline.Outcome) { j.note("%s: %d stored", name, o.Stored) })
		}
		wait := run(r, t.Context(), stop, source{"fake", func(ctx context.Context, emit func(pipeline.Batch) error) error {
			for _, name := range []string{"a", "b", "c"} {
				if err := emit(batch(name)); err != nil {
					return err
				}
			}
			<-ctx.Done()
			return emit(batch("in-hand-at-the-stop"))
		}})
		synctest.Wait()
		assert.Empty(t, j.all())
		cancel()
		require.NoError(t, wait())
		assert.Equal(t, []string{"a: 1 stored", "b: 1 stored", "c: 1 stored", "in-hand-at-the-stop: 1 stored"}, j.all())
	})
}

func TestStopBeforeTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop, cancel := context.WithCancel(t.Context())
		cancel()
		r := newRig(storing(), 1)
		ended := false
		require.NoError(t, r.Run(t.Context(), stop, source{"fake", func(ctx context.Context, _ func(pipeline.Batch) error) error {
			<-ctx.Done()
			ended = true
			return nil
		}}))
		assert.True(t, ended)
	})
}

func TestAPipelineWithoutSourcesEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		require.NoError(t, newRig(storing(), 1).Run(t.Context(), t.Context()))
	})
}

var errBroken = errors.New("broken")

// endless is a source that hands over batches until it can't, some of them with a record that is refused, and notes
// that it was let go.
func endless(t *testing.T, name string, ended *atomic.Int64) source {
	return source{name, func(ctx context.Context, emit func(pipeline.Batch) error) error {
		defer ended.Add(1)
		for i := 0; ; i++ {
			b := batchOf(fmt.Sprintf("%s-%d", name, i), never(t))
			if i == 1 {
				b.Items[0].Lat = 91
			}
			if err := emit(b); err != nil {
				<-ctx.Done()
				return nil
			}
		}
	}}
}

func TestSourcesThatWaitAreLetGoWhenTheWayToTheStoreFails(t *testing.T) {
	for name, c := range map[string]struct {
		loader  loader
		letters error
		cancel  bool
		want    error
	}{
		"the loader fails at once":     {loader: func(context.Context, <-chan pipeline.Clean) error { return errBroken }, want: errBroken},
		"the loader fails at a batch":  {loader: each(func(pipeline.Clean) error { return errBroken }), want: errBroken},
		"the loader fails after a day": {loader: failingLater, want: errBroken},
		"dead letters can't be kept":   {loader: idle, letters: errBroken, want: errBroken},
		"ctx ends":                     {loader: idle, cancel: true, want: context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				r := newRig(c.loader, 2)
				r.letters.err = c.letters
				var ended atomic.Int64
				wait := run(r, ctx, t.Context(), endless(t, "a", &ended), endless(t, "b", &ended))
				synctest.Wait()
				if c.cancel {
					assert.Zero(t, ended.Load(), "both sources wait for a place")
					cancel()
				}
				require.ErrorIs(t, wait(), c.want)
				assert.Equal(t, int64(2), ended.Load(), "the sources were let go")
				assert.Zero(t, r.Metrics.Summary().Stored)
			})
		})
	}
}

// failingLater takes everything for a while before it fails.
func failingLater(ctx context.Context, in <-chan pipeline.Clean) error {
	day := time.After(24 * time.Hour)
	for taken := 0; ; {
		more := in
		if taken == 5 {
			more = nil
		}
		select {
		case <-more:
			taken++
		case <-day:
			return errBroken
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// What a broken source read before is stored all the same, and so is what the others did.
func TestABatchInHandWhenAnotherSourceFailsStillGoesIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		r := newRig(each(func(c pipeline.Clean) error {
			time.Sleep(time.Minute)
			c.Done()
			return nil
		}), 2)
		done := func(name string) func(pipeline.Outcome) { return func(pipeline.Outcome) { j.note("%s", name) } }
		err := r.Run(t.Context(), t.Context(),
			source{"good", func(ctx context.Context, emit func(pipeline.Batch) error) error {
				if err := emit(batchOf("good", done("good"))); err != nil {
					return err
				}
				<-ctx.Done()
				return emit(batchOf("last", done("last")))
			}},
			source{"torn", func(_ context.Context, emit func(pipeline.Batch) error) error {
				if err := emit(batchOf("torn", done("torn"))); err != nil {
					return err
				}
				return errBroken
			}},
		)
		require.ErrorIs(t, err, errBroken)
		assert.ErrorContains(t, err, "source torn: ")
		got := j.all()
		slices.Sort(got)
		assert.Equal(t, []string{"good", "last", "torn"}, got)
	})
}

func TestThePipelineRunsUntilItsLastSourceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(storing(), 2)
		finish := make(chan struct{})
		wait := run(r, t.Context(), t.Context(),
			emitting("short", batchOf("truck-1", nil)),
			source{"long", func(_ context.Context, emit func(pipeline.Batch) error) error {
				<-finish
				for i := range 3 {
					if err := emit(batchOf(fmt.Sprint("late-", i), nil)); err != nil {
						return err
					}
				}
				return nil
			}},
		)
		synctest.Wait()
		assert.Equal(t, int64(1), r.Metrics.Summary().Stored)
		close(finish)
		require.NoError(t, wait())
		assert.Equal(t, int64(4), r.Metrics.Summary().Stored)
		assert.Equal(t, 1.0, r.value(t, `fleet_etl_records_received_total{source="short"}`))
		assert.Equal(t, 3.0, r.value(t, `fleet_etl_records_received_total{source="long"}`))
	})
}

// Two sources see one memory of duplicates; the record counts for the source that had it second.
func TestADuplicateFromAnotherSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(storing(), 2)
		again := source{"second", func(_ context.Context, emit func(pipeline.Batch) error) error {
			synctest.Wait() // until the first is through
			return emit(batchOf("truck-1", nil))
		}}
		require.NoError(t, r.Run(t.Context(), t.Context(), emitting("first", batchOf("truck-1", nil)), again))
		assert.Zero(t, r.value(t, `fleet_etl_records_duplicate_total{source="first"}`))
		assert.Equal(t, 1.0, r.value(t, `fleet_etl_records_duplicate_total{source="second"}`))
	})
}
