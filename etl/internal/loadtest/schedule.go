// Package loadtest puts load on the pipeline and says what came of it: records that arrive by a schedule which knows
// nothing of how the pipeline fares, what was measured meanwhile, what that means, and a report of it.
package loadtest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
)

const (
	tick         = 5 * time.Millisecond // between two batches of a source that always has something
	batchRecords = 1000
	grace        = time.Second // after the end, for what was due before it
)

// Schedule hands over another source's records at their event times, which are the times at which they are due, and
// so in order. Nothing that happens behind it moves a record: what could not be handed over in time follows as soon as
// it can, and its latency counts from when it was due. It implements pipeline.Source.
type Schedule struct {
	Source   pipeline.Source
	Until    time.Time // when the last record is due
	Arrivals *Arrivals
}

// Name implements pipeline.Source.
func (s *Schedule) Name() string { return s.Source.Name() }

// Run implements pipeline.Source. What has not been handed over one second after the last record was due never is.
func (s *Schedule) Run(ctx context.Context, emit func(pipeline.Batch) error) error {
	return s.Source.Run(ctx, func(b pipeline.Batch) error {
		if len(b.Rejected) > 0 {
			return errors.New("schedule: its own records are refused")
		}
		return s.pass(ctx, b, emit)
	})
}

func (s *Schedule) pass(ctx context.Context, b pipeline.Batch, emit func(pipeline.Batch) error) error {
	for items := b.Items; len(items) > 0; {
		now := time.Now()
		if now.After(s.Until.Add(grace)) {
			s.Arrivals.missed(items)
			return nil
		}
		n := due(items, now.UnixMilli())
		if n == 0 {
			select {
			case <-time.After(max(tick, time.UnixMilli(items[0].TimeMs).Sub(now))):
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		part := items[:n:n]
		items = items[n:]
		err := emit(pipeline.Batch{
			Origin: b.Origin, Items: part, Accepted: time.UnixMilli(part[0].TimeMs), Done: s.Arrivals.expect(part),
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// due is how many of the items, no more than a batch holds, are due.
func due(items []pipeline.Item, nowMs int64) int {
	n := 0
	for n < min(len(items), batchRecords) && items[n].TimeMs <= nowMs {
		n++
	}
	return n
}

// Arrivals keeps how long records took from when they were due until they were durable and could be read.
type Arrivals struct {
	mu      sync.Mutex
	fromMs  int64 // records that were due before are no part of the measurement
	from    time.Time
	to      time.Time
	all     *hdrhistogram.Histogram
	recent  *hdrhistogram.Histogram // since it was last taken
	durable int64
	within  int64 // of them, between from and to
	unsent  int64
}

// NewArrivals makes one for the records that are due between two instants.
func NewArrivals(from, to time.Time) *Arrivals {
	return &Arrivals{fromMs: from.UnixMilli(), from: from, to: to, all: newHistogram(), recent: newHistogram()}
}

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, time.Hour.Microseconds(), 2)
}

// expect gives what is to be called when a batch is durable.
func (a *Arrivals) expect(items []pipeline.Item) func(pipeline.Outcome) {
	times := make([]int64, len(items))
	for i := range items {
		times[i] = items[i].TimeMs
	}
	return func(pipeline.Outcome) {
		now := time.Now()
		a.mu.Lock()
		defer a.mu.Unlock()
		a.durable += int64(len(times))
		if now.After(a.from) && !now.After(a.to) {
			a.within += int64(len(times))
		}
		for _, ms := range times {
			a.record(ms, now.UnixMicro())
		}
	}
}

// missed takes records that were due and never handed over. Each has waited for at least so long.
func (a *Arrivals) missed(items []pipeline.Item) {
	now := time.Now().UnixMicro()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unsent += int64(len(items))
	for i := range items {
		a.record(items[i].TimeMs, now)
	}
}

func (a *Arrivals) record(dueMs, nowUs int64) {
	took := min(max(nowUs-dueMs*1000, 1), a.all.HighestTrackableValue())
	_ = a.recent.RecordValue(took)
	if dueMs >= a.fromMs {
		_ = a.all.RecordValue(took)
	}
}

// Durable is how many records are durable.
func (a *Arrivals) Durable() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.durable
}

// PerSecond is how many records a second became durable between the two instants.
func (a *Arrivals) PerSecond() float64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return float64(a.within) / a.to.Sub(a.from).Seconds()
}

// Unsent is how many records were due and never handed over.
func (a *Arrivals) Unsent() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.unsent
}

// Freshness is how long the records of the measurement took.
func (a *Arrivals) Freshness() Quantiles {
	a.mu.Lock()
	defer a.mu.Unlock()
	return quantilesOf(a.all)
}

// takeRecent is how long those took that became durable since it was last asked.
func (a *Arrivals) takeRecent() Quantiles {
	a.mu.Lock()
	defer a.mu.Unlock()
	q := quantilesOf(a.recent)
	a.recent.Reset()
	return q
}

// Quantiles of durations, in seconds, to two digits.
type Quantiles struct {
	Count int64   `json:"count"`
	P50   float64 `json:"p50_seconds"`
	P95   float64 `json:"p95_seconds"`
	P99   float64 `json:"p99_seconds"`
	Max   float64 `json:"max_seconds"`
}

// quantilesOf reads a histogram of microseconds.
func quantilesOf(h *hdrhistogram.Histogram) Quantiles {
	at := func(q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1e6 }
	return Quantiles{Count: h.TotalCount(), P50: at(50), P95: at(95), P99: at(99), Max: float64(h.Max()) / 1e6}
}

// QuantilesOf gives the quantiles of some durations.
func QuantilesOf(times []time.Duration) Quantiles {
	h := newHistogram()
	for _, t := range times {
		_ = h.RecordValue(min(max(t.Microseconds(), 1), h.HighestTrackableValue()))
	}
	return quantilesOf(h)
}
