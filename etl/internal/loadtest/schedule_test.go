package loadtest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
)

// recorded are records at their times, a batch of them.
type recorded []int64

func (recorded) Name() string { return "recorded" }

func (r recorded) Run(_ context.Context, emit func(pipeline.Batch) error) error {
	items := make([]pipeline.Item, len(r))
	for i := range r {
		items[i].TimeMs = r[i]
	}
	return emit(pipeline.Batch{Items: items})
}

// every gives the times of n records, one each step from an instant on.
func every(from time.Time, step time.Duration, n int) recorded {
	times := make(recorded, n)
	for i := range times {
		times[i] = from.Add(time.Duration(i) * step).UnixMilli()
	}
	return times
}

func TestScheduleSendsWhatIsDueAndNothingBefore(t *testing.T) {
	begin := time.Now().Truncate(time.Millisecond)
	s := &Schedule{Source: every(begin, 2*time.Millisecond, 100), Until: begin.Add(200 * time.Millisecond), Arrivals: NewArrivals(begin, begin.Add(time.Minute))}
	sent := 0
	require.NoError(t, s.Run(t.Context(), func(b pipeline.Batch) error {
		now := time.Now().UnixMilli()
		assert.Equal(t, b.Items[0].TimeMs, b.Accepted.UnixMilli())
		for _, item := range b.Items {
			assert.LessOrEqual(t, item.TimeMs, now)
		}
		sent += len(b.Items)
		b.Done(pipeline.Outcome{})
		return nil
	}))
	assert.Equal(t, 100, sent)
	assert.GreaterOrEqual(t, time.Since(begin), 198*time.Millisecond)
	assert.Equal(t, int64(100), s.Arrivals.Durable())
	assert.Zero(t, s.Arrivals.Unsent())
}

// A pipeline that stands still for a while must show in the latency of every record that was due meanwhile.
func TestScheduleCountsLatencyFromWhenRecordsWereDue(t *testing.T) {
	begin := time.Now().Truncate(time.Millisecond)
	s := &Schedule{Source: every(begin, time.Millisecond, 300), Until: begin.Add(300 * time.Millisecond), Arrivals: NewArrivals(begin, begin.Add(time.Minute))}
	var once sync.Once
	require.NoError(t, s.Run(t.Context(), func(b pipeline.Batch) error {
		once.Do(func() { time.Sleep(200 * time.Millisecond) })
		b.Done(pipeline.Outcome{})
		return nil
	}))
	f := s.Arrivals.Freshness()
	assert.Equal(t, int64(300), f.Count)
	assert.Greater(t, f.P50, 0.03, "two thirds of the records were due while the pipeline stood")
	assert.Greater(t, f.P95, 0.15)
	assert.Greater(t, f.Max, 0.195)
}

func TestScheduleGivesUpWhatCannotBeHandedOverAndCountsIt(t *testing.T) {
	begin := time.Now().Add(-3 * time.Second).Truncate(time.Millisecond)
	s := &Schedule{Source: every(begin, time.Millisecond, 50), Until: begin.Add(50 * time.Millisecond), Arrivals: NewArrivals(begin, begin.Add(time.Minute))}
	require.NoError(t, s.Run(t.Context(), func(pipeline.Batch) error {
		t.Error("a record was sent long after the end")
		return nil
	}))
	assert.Equal(t, int64(50), s.Arrivals.Unsent())
	f := s.Arrivals.Freshness()
	assert.Equal(t, int64(50), f.Count)
	assert.Greater(t, f.P50, 2.9)
}

func TestArrivalsLeaveTheWarmUpOut(t *testing.T) {
	begin := time.Now().Truncate(time.Millisecond)
	a := NewArrivals(begin.Add(-time.Second), begin.Add(time.Minute))
	for _, ago := range []time.Duration{5 * time.Second, 500 * time.Millisecond} {
		a.expect([]pipeline.Item{itemAt(begin.Add(-ago))})(pipeline.Outcome{})
	}
	assert.Equal(t, int64(2), a.Durable())
	f := a.Freshness()
	assert.Equal(t, int64(1), f.Count)
	assert.InDelta(t, 0.5, f.P99, 0.1)
	assert.Equal(t, int64(2), a.takeRecent().Count)
	assert.Zero(t, a.takeRecent().Count)
}

func TestArrivalsCountWhatBecomesDurableInTime(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		from, to time.Duration
		want     float64
	}{{-10 * time.Second, time.Minute, 2.0 / 70}, {-10 * time.Second, -5 * time.Second, 0}, {time.Minute, 2 * time.Minute, 0}} {
		a := NewArrivals(now.Add(c.from), now.Add(c.to))
		a.expect([]pipeline.Item{itemAt(now), itemAt(now)})(pipeline.Outcome{})
		assert.InDelta(t, c.want, a.PerSecond(), 1e-9)
	}
}

func itemAt(at time.Time) (item pipeline.Item) {
	item.TimeMs = at.UnixMilli()
	return item
}

func TestQuantilesOf(t *testing.T) {
	var times []time.Duration
	for i := range 1000 {
		times = append(times, time.Duration(i*7%1000+1)*time.Millisecond)
	}
	q := QuantilesOf(times)
	assert.Equal(t, int64(1000), q.Count)
	assert.InEpsilon(t, .500, q.P50, .01)
	assert.InEpsilon(t, .950, q.P95, .01)
	assert.InEpsilon(t, .990, q.P99, .01)
	assert.InEpsilon(t, 1.0, q.Max, .01)
}
