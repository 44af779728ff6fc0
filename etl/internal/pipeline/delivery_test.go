package pipeline_test

import (
	"context"
	"encoding/json"
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

// run starts a pipeline and returns a function that waits for its result.
func run(h *harness, ctx, stop context.Context, sources ...pipeline.Source) (wait func() error) {
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx, stop, sources...) }()
	return func() error { return <-ended }
}

func TestBatchesAreDoneIndependently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var received []pipeline.ValidBatch
		release := make(chan struct{})
		h := newHarness(writer(func(_ context.Context, in <-chan pipeline.ValidBatch) error {
			for b := range in {
				received = append(received, b)
			}
			<-release
			return nil
		}), 4)
		var log events
		batch := func(name string) pipeline.Batch {
			return batchOf(name, func(o pipeline.Outcome) { log.add("%s: %d stored", name, o.Stored) })
		}
		wait := run(h, t.Context(), t.Context(), emitting("fake", batch("a"), batch("b"), batch("c")))

		synctest.Wait()
		require.Len(t, received, 3)
		assert.Empty(t, log.all(), "nothing is durable yet")
		received[1].Done()
		assert.Equal(t, []string{"b: 1 stored"}, log.all(), "only the second batch is durable")
		received[0].Done()
		received[2].Done()
		assert.Equal(t, []string{"b: 1 stored", "a: 1 stored", "c: 1 stored"}, log.all())
		close(release)
		require.NoError(t, wait())
		assert.Len(t, log.all(), 3, "Done is called once per batch")
	})
}

func TestBatchIsDoneWhenAllItsRecordsAreDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := make(chan struct{})
		var stored []pipeline.Item
		h := newHarness(each(func(b pipeline.ValidBatch) error {
			<-store
			stored = append(stored, b.Items...)
			b.Done()
			return nil
		}), 2)
		valid, beyond := item("truck-1", 60), item("truck-2", 60)
		valid.Raw, beyond.Raw, beyond.Lat, beyond.Position = "valid", "beyond", 91, 3
		conflict := valid
		conflict.Lat = 32
		var outcome *pipeline.Outcome
		wait := run(h, t.Context(), t.Context(), emitting("fake", pipeline.Batch{
			Origin:   "a.csv",
			Items:    []pipeline.Item{valid, beyond, valid, conflict},
			Rejected: []pipeline.Rejected{{Rejection: telemetry.Reject(telemetry.Malformed, "", "", "fix it"), Position: 6, Raw: "?"}},
			Done:     func(o pipeline.Outcome) { outcome = &o },
		}))
		synctest.Wait()
		require.Nil(t, outcome, "the writer has not stored the batch yet")
		require.Len(t, h.deadLetters.all, 1)
		var rejected []string
		for _, r := range h.deadLetters.all[0].rejected {
			rejected = append(rejected, fmt.Sprintf("%d %s %s", r.Position, r.Reason, r.Raw))
		}
		require.Equal(t, []string{"6 malformed ?", "3 lat_range beyond"}, rejected)

		time.Sleep(3 * time.Second)
		close(store)
		require.NoError(t, wait())
		require.Equal(t, 1, outcome.Stored)
		require.Equal(t, 2, outcome.Duplicates)
		require.Len(t, outcome.Rejected, 2)
		require.Len(t, stored, 2, "the duplicate is dropped, the conflict is not")
		require.False(t, stored[0].Conflict)
		require.True(t, stored[1].Conflict)
		require.Equal(t, stored[0].PayloadHash(), stored[0].Hash)
		require.Empty(t, stored[0].Raw)

		require.Equal(t, pipeline.Summary{
			Received: 5, Stored: 1, Duplicates: 2, Rejected: map[telemetry.Reason]int64{telemetry.LatRange: 1, telemetry.Malformed: 1},
		}, h.Summary())
		require.Equal(t, 2.0, h.value(t, `fleet_etl_records_duplicate_total{source="fake"}`))
		require.Equal(t, 1.0, h.value(t, "fleet_etl_freshness_seconds_count"), "duplicates do not count")
		require.InDelta(t, 3, h.value(t, "fleet_etl_freshness_seconds_sum"), 0.01)
		require.Equal(t, 3.0, h.value(t, "fleet_etl_event_lag_seconds_count"), "the time of a rejected record does not count")
		require.InDelta(t, 3*60, h.value(t, "fleet_etl_event_lag_seconds_sum"), 0.1)
	})
}

// The writer finds that a record's sender may not store it.
func TestWriterRejectsValidRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(each(func(b pipeline.ValidBatch) error {
			var rejected []pipeline.RejectedItem
			for i := range b.Items[1:] {
				rejected = append(rejected, pipeline.RejectedItem{Item: &b.Items[i+1], Rejection: telemetry.Reject(telemetry.WrongFleet, "device_id", "", "ask")})
			}
			if err := b.Reject(t.Context(), rejected); err != nil {
				return err
			}
			b.Items = b.Items[:1]
			b.Done()
			return nil
		}), 1)
		one, two := item("truck-1", 60), item("truck-2", 60)
		two.Raw, two.Position, two.Sender = "truck-2;52;13", 7, "mine"
		conflict := two
		conflict.Lat = 32
		var outcome pipeline.Outcome
		require.NoError(t, h.Run(t.Context(), t.Context(), emitting("fake", pipeline.Batch{
			Origin: "a.csv", Sender: pipeline.Trusted, Items: []pipeline.Item{one, two, conflict}, Done: func(o pipeline.Outcome) { outcome = o },
		})))
		require.Len(t, h.deadLetters.all, 1)
		rejected := h.deadLetters.all[0].rejected
		require.Len(t, rejected, 2)
		require.Equal(t, "mine", rejected[0].Sender)
		require.Equal(t, int64(7), rejected[0].Position)
		require.Equal(t, pipeline.FieldsOf(&two.Record)["timestamp"], rejected[0].Fields["timestamp"])
		var raw map[string]string
		require.NoError(t, json.Unmarshal([]byte(rejected[0].Raw), &raw), "the source's text is gone, so it has the fields")
		require.Equal(t, "truck-2", raw["device_id"])
		require.Equal(t, 1, outcome.Stored)
		require.Zero(t, outcome.Duplicates)
		require.Len(t, outcome.Rejected, 2)
		require.Equal(t, pipeline.Summary{Received: 3, Stored: 1, Rejected: map[telemetry.Reason]int64{telemetry.WrongFleet: 2}}, h.Summary(), "each record counts once")
		require.Equal(t, 2.0, h.value(t, `fleet_etl_records_rejected_total{reason="wrong_fleet",source="fake"}`))
	})
}

// A record has the sender of its own, or that of its batch.
func TestRecordsHaveASender(t *testing.T) {
	var senders []string
	h := newHarness(each(func(b pipeline.ValidBatch) error {
		for _, item := range b.Items {
			senders = append(senders, item.Sender)
		}
		b.Done()
		return nil
	}), 1)
	one, two, bad := item("truck-1", 60), item("truck-2", 60), item("truck-3", 60)
	two.Sender, bad.Lat = "mine", 91
	require.NoError(t, h.Run(t.Context(), t.Context(), emitting("fake", pipeline.Batch{
		Sender: pipeline.Trusted, Items: []pipeline.Item{one, two, bad},
		Rejected: []pipeline.Rejected{{Rejection: telemetry.Reject(telemetry.Malformed, "", "", "fix it")}},
	})))
	require.Equal(t, []string{pipeline.Trusted, "mine"}, senders)
	for _, r := range h.deadLetters.all[0].rejected {
		require.Equal(t, pipeline.Trusted, r.Sender)
	}
}

func TestFullQueueBlocksSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := make(chan struct{})
		h := newHarness(each(func(b pipeline.ValidBatch) error { <-store; b.Done(); return nil }), 2)
		emitted := 0
		wait := run(h, t.Context(), t.Context(), source{"fake", func(_ context.Context, emit func(pipeline.Batch) error) error {
			for i := range 50 {
				if err := emit(batchOf(fmt.Sprint("truck-", i), nil)); err != nil {
					return err
				}
				emitted++
			}
			return nil
		}})
		synctest.Wait()
		require.Equal(t, 7, emitted, "two queues of two batches, one batch in validation, one in its turn, one in the writer")
		for metric, want := range map[string]float64{
			`fleet_etl_queue_capacity{queue="extract"}`: 2, `fleet_etl_queue_capacity{queue="load"}`: 2,
			`fleet_etl_queue_length{queue="extract"}`: 2, `fleet_etl_queue_length{queue="load"}`: 2,
		} {
			require.Equal(t, want, h.value(t, metric), metric)
		}
		close(store)
		require.NoError(t, wait())
		require.EqualValues(t, 50, h.Summary().Stored)
	})
}

// One lane's backlog stands before a batch of another lane by one part.
func TestLanesTakeTurnsAtTheWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := make(chan struct{})
		var stored []string
		h := newHarness(each(func(b pipeline.ValidBatch) error {
			<-store
			stored = append(stored, fmt.Sprint(b.Items[0].DeviceID, " ", len(b.Items)))
			b.Done()
			return nil
		}), 2)
		done := 0
		wait := run(h, t.Context(), t.Context(), source{"fake", func(_ context.Context, emit func(pipeline.Batch) error) error {
			for i := range 20 {
				flood := pipeline.Batch{Lane: "flood", Done: func(pipeline.Outcome) { done++ }}
				for j := range 2500 {
					flood.Items = append(flood.Items, item("flood", i*2500+j))
				}
				if err := emit(flood); err != nil {
					return err
				}
			}
			return emit(pipeline.Batch{Lane: "other", Items: []pipeline.Item{item("truck-1", 0)}})
		}})
		synctest.Wait() // 50,000 records of one lane wait before the record of the other
		close(store)
		require.NoError(t, wait())
		require.Contains(t, stored[:5], "truck-1 1", "behind one part in the writer, one that waits for it, and one turn")
		require.EqualValues(t, 50_001, h.Summary().Stored)
		require.Equal(t, 20, done, "each batch once")
	})
}

func TestQueueIsBoundedInBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(storing(), 100)
		gate := make(chan struct{})
		h.deadLetters.onAppend = func() { <-gate }
		emitted := 0
		wait := run(h, t.Context(), t.Context(), source{"fake", func(_ context.Context, emit func(pipeline.Batch) error) error {
			for range 10 {
				large := pipeline.Rejected{Rejection: telemetry.Reject(telemetry.Malformed, "", "", "fix it"), Raw: strings.Repeat("x", 10<<20)}
				if err := emit(pipeline.Batch{Rejected: []pipeline.Rejected{large}}); err != nil {
					return err
				}
				emitted++
			}
			return nil
		}})
		synctest.Wait()
		require.Equal(t, 3, emitted, "a fourth would exceed 32 MiB")
		require.InDelta(t, 30<<20, h.value(t, `fleet_etl_queue_bytes{queue="extract"}`), 1<<10)
		close(gate)
		require.NoError(t, wait())
		require.EqualValues(t, 10, h.Summary().Received)
		require.Zero(t, h.value(t, `fleet_etl_queue_bytes{queue="extract"}`))
	})
}

// The source and the writer both return nil although batches were dropped.
func TestHardStopReturnsError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := make(chan struct{})
		h := newHarness(writer(func(ctx context.Context, in <-chan pipeline.ValidBatch) error {
			for b := range in {
				<-store
				b.Done()
			}
			return nil
		}), 2)
		ctx, cancel := context.WithCancel(t.Context())
		wait := run(h, ctx, t.Context(), source{"fake", func(_ context.Context, emit func(pipeline.Batch) error) error {
			for i := range 20 {
				if emit(batchOf(fmt.Sprint("truck-", i), nil)) != nil {
					return nil
				}
			}
			return nil
		}})
		synctest.Wait()
		cancel()
		close(store)
		require.ErrorIs(t, wait(), context.Canceled)
	})
}

// The array behind a batch's items is longer than what remains of them.
func TestDroppedRecordsDoNotReferToTheirText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		items := []pipeline.Item{item("truck-1", 0), item("truck-2", 0), item("truck-1", 0)}
		items[1].Lat = 91
		for i := range items {
			items[i].Raw = "text"
		}
		require.NoError(t, newHarness(storing(), 2).Run(t.Context(), t.Context(), emitting("fake", pipeline.Batch{Items: items})))
		for _, i := range items[1:] {
			require.Equal(t, pipeline.Item{}, i)
		}
	})
}

func TestRejectedRecordsAreDeadLettersBeforeDone(t *testing.T) {
	beyond := func() pipeline.Item {
		i := item("truck-1", 0)
		i.Lat, i.Position, i.Raw = 91, 12, "truck-1,wuxi,…,91,120.25"
		return i
	}
	for name, c := range map[string]struct {
		items    []pipeline.Item
		rejected []pipeline.Rejected
		want     int
	}{
		"beside a valid one":      {items: []pipeline.Item{item("truck-2", 0), beyond()}, want: 1},
		"alone":                   {items: []pipeline.Item{beyond()}, want: 1},
		"by the source":           {rejected: []pipeline.Rejected{{Rejection: telemetry.Reject(telemetry.Malformed, "", "", "fix it")}}, want: 1},
		"by source and validator": {items: []pipeline.Item{beyond()}, rejected: []pipeline.Rejected{{Rejection: telemetry.Reject(telemetry.TooLarge, "", "", "less")}}, want: 2},
		"around a valid one":      {items: []pipeline.Item{beyond(), item("truck-2", 0), beyond()}, want: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log events
				h := newHarness(storing(), 4)
				h.deadLetters.onAppend = func() { log.add("dead letters") }
				for i := range c.items { // they were made outside of the synctest bubble
					c.items[i].TimeMs = time.Now().UnixMilli()
				}
				require.NoError(t, h.Run(t.Context(), t.Context(), emitting("fake", pipeline.Batch{
					Origin: "file.csv", Items: c.items, Rejected: c.rejected,
					Done: func(o pipeline.Outcome) { log.add("done, %d rejected", len(o.Rejected)) },
				})))
				assert.Equal(t, []string{"dead letters", fmt.Sprintf("done, %d rejected", c.want)}, log.all())
				require.Len(t, h.deadLetters.all, 1)
				assert.Equal(t, "fake", h.deadLetters.all[0].source)
				assert.Equal(t, "file.csv", h.deadLetters.all[0].origin)
				assert.Len(t, h.deadLetters.all[0].rejected, c.want)
			})
		})
	}
}

// A record that was accepted two hours ago, when it was not too old, is stored now.
func TestAcceptedRecordIsCheckedAtTheTimeOfItsAcceptance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hour := int(time.Hour.Seconds())
		waited, ahead, late := item("truck-1", 30*24*hour+hour), item("truck-2", 2*hour-200), item("truck-3", 30*24*hour+hour)
		at := time.Now().Add(-2 * time.Hour).UnixMilli()
		waited.AcceptedMs, ahead.AcceptedMs = at, at
		h := newHarness(storing(), 2)
		require.NoError(t, h.Run(t.Context(), t.Context(), emitting("a", pipeline.Batch{Items: []pipeline.Item{waited, ahead, late}})))
		require.Equal(t, pipeline.Summary{Received: 3, Stored: 2, Rejected: map[telemetry.Reason]int64{telemetry.TooOld: 1}}, h.Summary())
	})
}

func TestManyDeadLettersAreWrittenInPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pipeline.Batch{Origin: "request"}
		for i := range 100 {
			b.Rejected = append(b.Rejected, pipeline.Rejected{
				Rejection: telemetry.Reject(telemetry.Malformed, "", "", "fix it"), Position: int64(i), Raw: strings.Repeat("\x01", telemetry.MaxJSON),
			})
		}
		outcome := pipeline.Outcome{}
		b.Done = func(o pipeline.Outcome) { outcome = o }
		h := newHarness(storing(), 4)
		require.NoError(t, h.Run(t.Context(), t.Context(), emitting("fake", b)))
		require.GreaterOrEqual(t, len(h.deadLetters.all), 3)
		next := int64(0)
		for _, a := range h.deadLetters.all {
			require.LessOrEqual(t, len(a.rejected)*telemetry.MaxJSON, 528<<10)
			for _, r := range a.rejected {
				require.Equal(t, next, r.Position, "in order")
				next++
			}
		}
		require.EqualValues(t, 100, next)
		require.Len(t, outcome.Rejected, 100)
	})
}

func TestSourceRejectsWithoutTheQueues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(writer(idle), 1)
		rejected := []pipeline.Rejected{{Rejection: telemetry.Reject(telemetry.Malformed, "", "", "fix it"), Raw: "x"}}
		require.NoError(t, h.Reject(t.Context(), "api", "request", rejected))
		require.Equal(t, []appended{{"api", "request", rejected}}, h.deadLetters.all)
		require.Equal(t, pipeline.Summary{Received: 1, Rejected: map[telemetry.Reason]int64{telemetry.Malformed: 1}}, h.Summary())
		require.Equal(t, 1.0, h.value(t, `fleet_etl_records_rejected_total{reason="malformed",source="api"}`))

		h.deadLetters.err = errors.New("no space left on device")
		require.ErrorContains(t, h.Reject(t.Context(), "api", "request", rejected), "no space left")
		require.EqualValues(t, 1, h.Summary().Received, "it was not kept, and comes again")
	})
}

func TestBatchWithoutRejectedRecordsAppendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(storing(), 4)
		require.NoError(t, h.Run(t.Context(), t.Context(), emitting("fake", batchOf("truck-1", nil))))
		assert.Empty(t, h.deadLetters.all)
	})
}

func TestDeadLetterHasTheRawRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		withText, without := item("truck-1", 0), item("truck-2", 0)
		withText.Lat, withText.Raw, withText.Position, withText.Sender = 91, `{"lat": 91, "color": "red"}`, 4, "wuxi"
		without.Lat, without.Zone = 92, "depot"
		without.SpeedKmh, without.HeadingDeg = telemetry.Some(0.0), telemetry.Some(90.0)
		without.BatteryPct, without.TempC = telemetry.Some(int32(0)), telemetry.Some(-1.5)
		without.AccuracyM = telemetry.Some(7.5)
		sparse := item("truck-3", 0)
		sparse.Lat = 93
		h := newHarness(storing(), 4)
		require.NoError(t, h.Run(t.Context(), t.Context(), emitting("fake", pipeline.Batch{Items: []pipeline.Item{withText, without, sparse}})))
		rejected := h.deadLetters.all[0].rejected
		require.Len(t, rejected, 3)
		assert.Equal(t, withText.Raw, rejected[0].Raw)
		assert.Equal(t, int64(4), rejected[0].Position)
		assert.Equal(t, "wuxi", rejected[0].Sender)
		assert.Equal(t, map[string]string{
			"device_id": "truck-2", "fleet_id": "wuxi", "timestamp": pipeline.TimeText(without.TimeMs), "lat": "92", "lon": "120.25", "zone": "depot",
			"speed_kmh": "0", "heading_deg": "90", "battery_pct": "0", "temp_c": "-1.5", "accuracy_m": "7.5",
		}, rejected[1].Fields)
		assert.Equal(t, map[string]string{
			"device_id": "truck-3", "fleet_id": "wuxi", "timestamp": pipeline.TimeText(sparse.TimeMs), "lat": "93", "lon": "120.25",
		}, rejected[2].Fields)
	})
}

// Valid records must not keep the memory of the text that they were parsed from.
func TestRecordsDoNotReferToTheirText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text := strings.Repeat("truck-1,wuxi,depot\n", 2)
		i := item("", 0)
		i.Raw, i.DeviceID, i.FleetID, i.Zone = text[:18], text[:7], text[8:12], text[13:18]
		h := newHarness(each(func(b pipeline.ValidBatch) error {
			got := b.Items[0]
			assert.Empty(t, got.Raw)
			assert.Equal(t, []string{"truck-1", "wuxi", "depot"}, []string{got.DeviceID, got.FleetID, got.Zone})
			from := uintptr(unsafe.Pointer(unsafe.StringData(text)))
			for _, name := range []string{got.DeviceID, got.FleetID, got.Zone} {
				at := uintptr(unsafe.Pointer(unsafe.StringData(name)))
				assert.False(t, at >= from && at < from+uintptr(len(text)), "%s still refers to the text", name)
			}
			b.Done()
			return nil
		}), 4)
		require.NoError(t, h.Run(t.Context(), t.Context(), emitting("fake", pipeline.Batch{Items: []pipeline.Item{i}})))
		assert.Equal(t, int64(1), h.Summary().Stored)
	})
}

func TestBatchEmittedAfterStopIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop, cancel := context.WithCancel(t.Context())
		h := newHarness(each(func(b pipeline.ValidBatch) error {
			time.Sleep(time.Minute) // slow: nothing is stored yet at the stop
			b.Done()
			return nil
		}), 2)
		var log events
		batch := func(name string) pipeline.Batch {
			return batchOf(name, func(o pipeline.Outcome) { log.add("%s: %d stored", name, o.Stored) })
		}
		wait := run(h, t.Context(), stop, source{"fake", func(ctx context.Context, emit func(pipeline.Batch) error) error {
			for _, name := range []string{"a", "b", "c"} {
				if err := emit(batch(name)); err != nil {
					return err
				}
			}
			<-ctx.Done()
			return emit(batch("emitted-after-stop"))
		}})
		synctest.Wait()
		assert.Empty(t, log.all())
		cancel()
		require.NoError(t, wait())
		assert.Equal(t, []string{"a: 1 stored", "b: 1 stored", "c: 1 stored", "emitted-after-stop: 1 stored"}, log.all())
	})
}

func TestStopBeforeStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop, cancel := context.WithCancel(t.Context())
		cancel()
		h := newHarness(storing(), 1)
		ended := false
		require.NoError(t, h.Run(t.Context(), stop, source{"fake", func(ctx context.Context, _ func(pipeline.Batch) error) error {
			<-ctx.Done()
			ended = true
			return nil
		}}))
		assert.True(t, ended)
	})
}

func TestPipelineWithoutSourcesEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		require.NoError(t, newHarness(storing(), 1).Run(t.Context(), t.Context()))
	})
}

var errBroken = errors.New("broken")

// endless is a source that emits batches, one of them with a rejected record, until emit fails. It counts that it ended.
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

func TestSourcesEndWhenWriterOrDeadLettersFail(t *testing.T) {
	for name, c := range map[string]struct {
		writer      writer
		deadLetters error
		cancel      bool
		want        error
	}{
		"the writer fails at once":     {writer: func(context.Context, <-chan pipeline.ValidBatch) error { return errBroken }, want: errBroken},
		"the writer fails at a batch":  {writer: each(func(pipeline.ValidBatch) error { return errBroken }), want: errBroken},
		"the writer fails after a day": {writer: failingLater, want: errBroken},
		"dead letters can't be kept":   {writer: idle, deadLetters: errBroken, want: errBroken},
		"ctx ends":                     {writer: idle, cancel: true, want: context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				h := newHarness(c.writer, 2)
				h.deadLetters.err = c.deadLetters
				var ended atomic.Int64
				wait := run(h, ctx, t.Context(), endless(t, "a", &ended), endless(t, "b", &ended))
				synctest.Wait()
				if c.cancel {
					assert.Zero(t, ended.Load(), "both sources wait for the queue")
					cancel()
				}
				require.ErrorIs(t, wait(), c.want)
				assert.Equal(t, int64(2), ended.Load(), "both sources ended")
				assert.Zero(t, h.Summary().Stored)
			})
		})
	}
}

// failingLater accepts five batches and fails a day later.
func failingLater(ctx context.Context, in <-chan pipeline.ValidBatch) error {
	day := time.After(24 * time.Hour)
	for accepted := 0; ; {
		more := in
		if accepted == 5 {
			more = nil
		}
		select {
		case <-more:
			accepted++
		case <-day:
			return errBroken
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// A failing source ends the others, and what all of them emitted is still stored.
func TestBatchEmittedAfterAnotherSourceFailedIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log events
		h := newHarness(each(func(b pipeline.ValidBatch) error {
			time.Sleep(time.Minute)
			b.Done()
			return nil
		}), 2)
		done := func(name string) func(pipeline.Outcome) { return func(pipeline.Outcome) { log.add("%s", name) } }
		err := h.Run(t.Context(), t.Context(),
			source{"valid", func(ctx context.Context, emit func(pipeline.Batch) error) error {
				if err := emit(batchOf("valid", done("valid"))); err != nil {
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
		got := log.all()
		slices.Sort(got)
		assert.Equal(t, []string{"last", "torn", "valid"}, got)
	})
}

func TestPipelineRunsUntilItsLastSourceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(storing(), 2)
		finish := make(chan struct{})
		wait := run(h, t.Context(), t.Context(),
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
		assert.Equal(t, int64(1), h.Summary().Stored)
		close(finish)
		require.NoError(t, wait())
		assert.Equal(t, int64(4), h.Summary().Stored)
		assert.Equal(t, 1.0, h.value(t, `fleet_etl_records_received_total{source="short"}`))
		assert.Equal(t, 3.0, h.value(t, `fleet_etl_records_received_total{source="long"}`))
	})
}

// All sources share one deduplicator. The record counts for the source that emitted it second.
func TestDuplicateFromAnotherSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(storing(), 2)
		again := source{"second", func(_ context.Context, emit func(pipeline.Batch) error) error {
			synctest.Wait() // until the first is stored
			return emit(batchOf("truck-1", nil))
		}}
		require.NoError(t, h.Run(t.Context(), t.Context(), emitting("first", batchOf("truck-1", nil)), again))
		assert.Zero(t, h.value(t, `fleet_etl_records_duplicate_total{source="first"}`))
		assert.Equal(t, 1.0, h.value(t, `fleet_etl_records_duplicate_total{source="second"}`))
	})
}
