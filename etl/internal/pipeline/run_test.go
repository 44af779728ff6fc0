package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// tapeSource emits its batches, then ends with err, or waits to be stopped.
type tapeSource struct {
	name    string
	batches []Batch
	err     error
	endless bool
	emitted chan int // told after each batch, where set
}

func (s *tapeSource) Name() string { return s.name }

func (s *tapeSource) Run(ctx context.Context, emit func(Batch) error) error {
	for i, b := range s.batches {
		if err := emit(b); err != nil {
			return nil
		}
		if s.emitted != nil {
			s.emitted <- i
		}
	}
	if s.endless {
		<-ctx.Done()
	}
	return s.err
}

// gatedLoader stores what it is given when gate lets it; a nil gate always does.
type gatedLoader struct {
	gate   chan struct{}
	err    error
	mu     sync.Mutex
	stored []Item
}

func (l *gatedLoader) Run(ctx context.Context, in <-chan Clean) error {
	for c := range in {
		if l.gate != nil {
			select {
			case <-l.gate:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if l.err != nil {
			return l.err
		}
		l.mu.Lock()
		l.stored = append(l.stored, c.Items...)
		l.mu.Unlock()
		c.Done()
	}
	return nil
}

type letterBox struct {
	err     error
	letters []string
}

func (b *letterBox) Append(source, origin string, refused []Refused) error {
	for _, r := range refused {
		b.letters = append(b.letters, fmt.Sprintf("%s %s:%d %s %s", source, origin, r.Position, r.Reason, r.Raw))
	}
	return b.err
}

// rules refuses devices named bad, and knows duplicates by their latitude.
type rules struct{ seen map[string]float64 }

func (x *rules) Apply(r *telemetry.Record, _ int64) (uint64, telemetry.Seen, *telemetry.Rejection) {
	if strings.HasPrefix(r.DeviceID, "bad") {
		return 0, telemetry.New, telemetry.Reject(telemetry.BadID, telemetry.FieldDeviceID, r.DeviceID, "name it well")
	}
	lat, ok := x.seen[r.DeviceID]
	x.seen[r.DeviceID] = r.Lat
	switch {
	case !ok:
		return 7, telemetry.New, nil
	case lat == r.Lat:
		return 7, telemetry.Same, nil
	default:
		return 7, telemetry.Rival, nil
	}
}

func item(position int64, device string, lat float64) Item {
	return Item{Position: position, Raw: fmt.Sprintf("raw %d", position), Record: telemetry.Record{DeviceID: device, FleetID: "f", Lat: lat, TimeMs: time.Now().Add(-time.Minute).UnixMilli()}}
}

func newPipeline(loader Loader, letters DeadLetters) (*Pipeline, *prometheus.Registry) {
	reg := prometheus.NewRegistry()
	return &Pipeline{
		Transform: &rules{seen: map[string]float64{}}, Loader: loader, DeadLetters: letters,
		Metrics: NewMetrics(reg), Now: time.Now, Queue: 2,
	}, reg
}

func TestABatchIsDoneWhenEverythingOfItIsDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loader, letters := &gatedLoader{gate: make(chan struct{})}, &letterBox{}
		p, reg := newPipeline(loader, letters)
		var outcome *Outcome
		source := &tapeSource{name: "tape", batches: []Batch{{
			Origin:  "a.csv",
			Items:   []Item{item(2, "v1", 1), item(3, "bad", 1), item(4, "v1", 1), item(5, "v1", 2)},
			Refused: []Refused{{Rejection: telemetry.Reject(telemetry.Malformed, "", "", "mend it"), Position: 6, Raw: "?"}},
			Done:    func(o Outcome) { outcome = &o },
		}}}
		ended := make(chan error, 1)
		go func() { ended <- p.Run(t.Context(), t.Context(), source) }()
		synctest.Wait()
		require.Nil(t, outcome, "nothing is done while the loader has it")
		require.Equal(t, []string{"tape a.csv:6 malformed ?", "tape a.csv:3 bad_id raw 3"}, letters.letters)

		time.Sleep(3 * time.Second)
		loader.gate <- struct{}{}
		require.NoError(t, <-ended)
		require.Equal(t, 1, outcome.Stored)
		require.Equal(t, 2, outcome.Duplicates)
		require.Len(t, outcome.Refused, 2)
		require.Len(t, loader.stored, 2, "the same record is dropped, its rival is not")
		require.False(t, loader.stored[0].Again)
		require.True(t, loader.stored[1].Again)
		require.EqualValues(t, 7, loader.stored[0].Hash)
		require.Empty(t, loader.stored[0].Raw, "the source's text is let go")

		require.Equal(t, Summary{
			Received: 5, Stored: 1, Duplicates: 2, Rejected: map[telemetry.Reason]int64{telemetry.BadID: 1, telemetry.Malformed: 1},
		}, p.Metrics.Summary())
		require.EqualValues(t, 5, testutil.ToFloat64(p.Metrics.received.WithLabelValues("tape")))
		require.EqualValues(t, 2, testutil.ToFloat64(p.Metrics.duplicate.WithLabelValues("tape")))
		require.EqualValues(t, 1, testutil.ToFloat64(p.Metrics.rejected.WithLabelValues("tape", "bad_id")))
		families, err := reg.Gather()
		require.NoError(t, err)
		for _, f := range families {
			switch f.GetName() {
			case "fleet_etl_freshness_seconds":
				require.EqualValues(t, 1, f.GetMetric()[0].GetHistogram().GetSampleCount(), "a duplicate makes nothing fresh")
				require.InDelta(t, 3, f.GetMetric()[0].GetHistogram().GetSampleSum(), 0.01)
			case "fleet_etl_event_lag_seconds":
				require.EqualValues(t, 3, f.GetMetric()[0].GetHistogram().GetSampleCount(), "of a refused record the time means nothing")
				require.InDelta(t, 3*60, f.GetMetric()[0].GetHistogram().GetSampleSum(), 0.1)
			case "fleet_etl_records_rejected_total":
				require.Len(t, f.GetMetric(), len(telemetry.Reasons), "every reason is there from the start")
			}
		}
		problems, err := testutil.GatherAndLint(reg)
		require.NoError(t, err)
		require.Empty(t, problems)
	})
}

func TestAFullQueueHoldsTheSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loader := &gatedLoader{gate: make(chan struct{})}
		p, reg := newPipeline(loader, &letterBox{})
		source := &tapeSource{name: "tape", emitted: make(chan int, 100)}
		for i := range 50 {
			source.batches = append(source.batches, Batch{Items: []Item{item(int64(i), fmt.Sprint("v", i), 1)}})
		}
		ended := make(chan error, 1)
		go func() { ended <- p.Run(t.Context(), t.Context(), source) }()
		synctest.Wait()
		// Two queues of two, one batch in the transform, one in the loader.
		require.Len(t, source.emitted, 6)
		require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP fleet_etl_queue_capacity Batches that a queue holds; when it is full its source waits.
# TYPE fleet_etl_queue_capacity gauge
fleet_etl_queue_capacity{queue="extract"} 2
fleet_etl_queue_capacity{queue="load"} 2
# HELP fleet_etl_queue_length Batches that wait in a queue; see fleet_etl_queue_capacity.
# TYPE fleet_etl_queue_length gauge
fleet_etl_queue_length{queue="extract"} 2
fleet_etl_queue_length{queue="load"} 2
`), "fleet_etl_queue_capacity", "fleet_etl_queue_length"))
		close(loader.gate)
		require.NoError(t, <-ended)
		require.Len(t, loader.stored, 50)
	})
}

func TestWhatWasHandedOverIsStoredWhenItIsToldToStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loader := &gatedLoader{gate: make(chan struct{}, 10)}
		p, _ := newPipeline(loader, &letterBox{})
		stop, quit := context.WithCancel(t.Context())
		done := 0
		sources := []Source{}
		for _, name := range []string{"one", "two"} {
			sources = append(sources, &tapeSource{name: name, endless: true, batches: []Batch{
				{Items: []Item{item(1, name, 1)}, Done: func(Outcome) { done++ }},
			}})
		}
		ended := make(chan error, 1)
		go func() { ended <- p.Run(t.Context(), stop, sources...) }()
		synctest.Wait()
		quit()
		synctest.Wait()
		require.Empty(t, ended, "it waits for the loader")
		loader.gate <- struct{}{}
		loader.gate <- struct{}{}
		require.NoError(t, <-ended)
		require.Equal(t, 2, done)
	})
}

func TestASourceThatFailsEndsTheRestInOrder(t *testing.T) {
	loader := &gatedLoader{}
	p, _ := newPipeline(loader, &letterBox{})
	err := p.Run(t.Context(), t.Context(),
		&tapeSource{name: "torn", batches: []Batch{{Items: []Item{item(1, "v1", 1)}}}, err: errors.New("line 2: torn")},
		&tapeSource{name: "whole", endless: true, batches: []Batch{{Items: []Item{item(1, "v2", 1)}}}})
	require.EqualError(t, err, "source torn: line 2: torn")
	require.Subset(t, []string{"v1", "v2"}, []string{loader.stored[0].DeviceID})
	require.Equal(t, len(loader.stored), int(p.Metrics.Summary().Stored), "what was read before is stored")
}

func TestNothingIsDoneWhenTheWayToTheStoreFails(t *testing.T) {
	for name, c := range map[string]struct {
		loader  *gatedLoader
		letters *letterBox
		want    string
	}{
		"the loader":   {&gatedLoader{err: errors.New("no store")}, &letterBox{}, "no store"},
		"dead letters": {&gatedLoader{}, &letterBox{err: errors.New("disk full")}, "disk full"},
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := newPipeline(c.loader, c.letters)
			source := &tapeSource{name: "tape", endless: true, batches: []Batch{
				{Items: []Item{item(1, "bad", 1), item(2, "v", 1)}, Done: func(Outcome) { t.Error("done, but not stored") }},
			}}
			require.EqualError(t, p.Run(t.Context(), t.Context(), source), c.want)
		})
	}
}

func TestItEndsAtOnceWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := newPipeline(&gatedLoader{gate: make(chan struct{})}, &letterBox{})
		ctx, cancel := context.WithCancel(t.Context())
		source := &tapeSource{name: "tape", endless: true, batches: []Batch{{Items: []Item{item(1, "v", 1)}}}}
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx, t.Context(), source) }()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	})
}

func TestAHardStopIsNoSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loader := &gatedLoader{gate: make(chan struct{})}
		p, _ := newPipeline(loader, &letterBox{})
		ctx, cancel := context.WithCancel(t.Context())
		source := &tapeSource{name: "tape"}
		for i := range 20 {
			source.batches = append(source.batches, Batch{Items: []Item{item(int64(i), fmt.Sprint("v", i), 1)}})
		}
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx, t.Context(), source) }()
		synctest.Wait()
		cancel()
		close(loader.gate)
		require.ErrorIs(t, <-ended, context.Canceled)
	})
}

func TestNothingBehindTheRecordsHoldsTheirText(t *testing.T) {
	loader := &gatedLoader{}
	p, _ := newPipeline(loader, &letterBox{})
	items := []Item{item(1, "v1", 1), item(2, "bad", 1), item(3, "v1", 1)}
	require.NoError(t, p.Run(t.Context(), t.Context(), &tapeSource{name: "tape", batches: []Batch{{Items: items}}}))
	require.Len(t, loader.stored, 1)
	for _, i := range items[1:] {
		require.Equal(t, Item{}, i)
	}
}
