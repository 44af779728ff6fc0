// Package replay replays a recorded trace at a multiple of its own speed, as if its vehicles were on the road now.
package replay

import (
	"context"
	"fmt"
	"iter"
	"math"
	"sync/atomic"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/backoff"
	"github.com/fleettracing/fleet-tracing/etl/internal/eventorder"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Trace is a recorded trace: rejected lines first, then the records in order of time.
type Trace interface {
	Records(ctx context.Context) iter.Seq2[eventorder.Entry, error]
}

// Options say what is replayed and how fast.
type Options struct {
	Trace Trace
	Speed float64 // relative to the recording: 1 is the speed of the recording
	Total int64   // records in the trace, for Progress; 0 when unknown

	Now  func() time.Time                                 // nil is time.Now
	Wait func(ctx context.Context, d time.Duration) error // nil is backoff.Sleep
}

// The limits of a batch keep the delay of a record small.
const (
	batchSpan    = 100 * time.Millisecond // of the clock's time
	batchRecords = 1000
)

// Source replays a trace. It implements pipeline.Source.
type Source struct {
	options Options
	done    atomic.Int64
}

// New makes a source. A speed that is not a positive number is an error.
func New(o Options) (*Source, error) {
	if err := checkSpeed(o.Speed); err != nil {
		return nil, err
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Wait == nil {
		o.Wait = backoff.Sleep
	}
	return &Source{options: o}, nil
}

func checkSpeed(speed float64) error {
	if !(speed > 0) || math.IsInf(speed, 1) {
		return fmt.Errorf("--speed %g: give a number above 0, for example 1 for the speed of the recording or 10 for ten times that", speed)
	}
	return nil
}

// Name implements pipeline.Source.
func (s *Source) Name() string { return "replay" }

// Progress returns how many records were emitted, of how many; the total is 0 when unknown. It is safe for concurrent use.
func (s *Source) Progress() (done, total int64) { return s.done.Load(), s.options.Total }

// Run implements pipeline.Source. It replays the trace once. It emits the first record at once and every later one after
// the time between the two in the trace, divided by the speed; up to 100 ms later, but never earlier. After a slow
// pipeline, overdue records follow without a pause. Rejected lines are emitted at the start. An error of the trace ends
// the run.
func (s *Source) Run(ctx context.Context, emit func(pipeline.Batch) error) error {
	p := player{Source: s, emit: emit}
	err := p.play(ctx)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// player is one run.
type player struct {
	*Source
	emit    func(pipeline.Batch) error
	started bool
	start   time.Time // when the first record was due
	firstMs int64     // its event time
	batch   pipeline.Batch
	opened  time.Time // when the first record of the batch is due
	due     time.Time // when the last one is
}

func (p *player) play(ctx context.Context) error {
	for e, err := range p.options.Trace.Records(ctx) {
		if err != nil {
			return err
		}
		if err := p.add(ctx, &e); err != nil {
			return err
		}
	}
	return p.send(ctx)
}

// add adds an entry to the batch. It first sends the batch if the entry does not belong to it.
func (p *player) add(ctx context.Context, e *eventorder.Entry) error {
	var due time.Time // at once
	if e.Rejection == nil {
		if !p.started { // the first record sets the clock
			p.started, p.start, p.firstMs = true, p.options.Now(), e.TimeMs
		}
		due = p.start.Add(milliseconds(float64(e.TimeMs-p.firstMs) / p.options.Speed))
	}
	full := len(p.batch.Items)+len(p.batch.Rejected) >= batchRecords
	if full || e.Origin != p.batch.Origin || due.Sub(p.opened) > batchSpan {
		if err := p.send(ctx); err != nil {
			return err
		}
		p.batch.Origin, p.opened = e.Origin, due
	}
	p.due = due
	e.AddTo(&p.batch)
	return nil
}

func (p *player) send(ctx context.Context) error {
	n := len(p.batch.Items)
	if n+len(p.batch.Rejected) == 0 {
		return nil
	}
	now := p.options.Now()
	if ahead := p.due.Sub(now); ahead > 0 && !p.due.IsZero() {
		if err := p.options.Wait(ctx, ahead); err != nil {
			return err
		}
	}
	if !p.due.IsZero() {
		now = p.due // the latency of overdue records includes the delay
	}
	b := p.batch
	b.Sender, b.Accepted, b.Done = pipeline.Trusted, now, func(pipeline.Outcome) {}
	p.batch = pipeline.Batch{}
	if err := p.emit(b); err != nil {
		return err
	}
	p.done.Add(int64(n))
	return nil
}

// CheckPace returns an error if a trace would run into the future, where its records are rejected. firstMs and lastMs are
// the event times of its first and last record as they are sent, in Unix milliseconds; start is when the first is sent. At
// a speed above 1, event time gains on the clock, so the trace must start in the past. The error says how far it would get
// ahead, and which start or speed avoids that.
func CheckPace(firstMs, lastMs int64, start time.Time, speed float64) error {
	if err := checkSpeed(speed); err != nil {
		return err
	}
	limit := float64(telemetry.MaxAhead.Milliseconds())
	span := float64(lastMs) - float64(firstMs)
	atStart := float64(firstMs) - float64(start.UnixMilli())
	ahead := max(atStart, atStart+span-span/speed) // it changes linearly during the replay
	if ahead <= limit {
		return nil
	}
	at := func(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
	remedy := fmt.Sprintf("start with --start-at %s or before", at(firstMs-int64(math.Ceil(ahead-limit))))
	if margin := limit - atStart; margin >= 0 {
		// The gain, span - span/speed, must not exceed the margin.
		remedy += fmt.Sprintf(", or use --speed %.2f or less", math.Floor(100/(1-margin/span))/100)
	}
	return fmt.Errorf("replay %s to %s with --speed %g: it would run %s ahead of the clock, and records more than %s ahead are rejected: %s",
		at(firstMs), at(lastMs), speed, milliseconds(ahead).Round(time.Second), telemetry.MaxAhead, remedy)
}

// milliseconds returns a duration, limited to the longest one.
func milliseconds(ms float64) time.Duration {
	ns := ms * float64(time.Millisecond)
	if ns >= math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(ns)
}
