package generator

import (
	"context"
	"fmt"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/backoff"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const (
	sourceName = "generator"
	batchSize  = 1000
	beat       = 100 * time.Millisecond // between two batches of a paced source that always has something
	patience   = time.Second            // how late a paced record may be emitted; older ones are skipped
)

// SourceOptions say what a Source simulates and when.
type SourceOptions struct {
	Options // Records ends the source; a paced one starts when Run does and pays no regard to Start

	// Pace makes each vehicle report once per Interval of real time, at the present. Without it records come as fast
	// as they are taken, with simulated times from Start on.
	Pace bool

	Now  func() time.Time                                 // nil is time.Now
	Wait func(ctx context.Context, d time.Duration) error // sleeps until d is over or ctx ends; nil is a timer
}

// Source is simulated vehicles as a source of the pipeline.
type Source struct{ opts SourceOptions }

// NewSource checks the options and makes a source.
func NewSource(opts SourceOptions) (*Source, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Wait == nil {
		opts.Wait = backoff.Sleep
	}
	if opts.Pace {
		opts.Start = opts.Now()
	}
	if err := opts.check(); err != nil {
		return nil, fmt.Errorf("generator options: %w", err)
	}
	return &Source{opts: opts}, nil
}

// Name implements pipeline.Source.
func (s *Source) Name() string { return sourceName }

// Run implements pipeline.Source. It ends when ctx does, or after Records good records with all that belongs to them.
//
// A paced source emits what is due every 100 ms, in batches of 1000 at most. When emit blocks or the machine sleeps, what
// is overdue by more than one second is skipped: vehicles drive on, but their records are missing, as in a tunnel. Skipped
// records don't count towards Records. Late records that were delayed before are still sent.
func (s *Source) Run(ctx context.Context, emit func(pipeline.Batch) error) error {
	// Without its monotonic part, which would leave out the time that a machine sleeps.
	wall := func() time.Time { return s.opts.Now().Round(0) }
	opts := s.opts.Options
	if s.opts.Pace {
		opts.Start = wall()
	}
	sim, err := New(opts)
	if err != nil {
		return err
	}
	var position int64
	for ctx.Err() == nil {
		now := int64(never - 1) // without a pace, everything is due
		if s.opts.Pace {
			now = int64(wall().Sub(opts.Start))
			sim.skip(now - int64(patience))
		}
		b := nextBatch(sim, now, &position)
		if len(b.Items)+len(b.Rejected) > 0 {
			b.Accepted = s.opts.Now()
			err = emit(b)
		}
		at := sim.due()
		if err == nil && at == never {
			return nil
		}
		if err == nil && at > now {
			err = s.opts.Wait(ctx, max(beat, time.Duration(at-now)))
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// nextBatch returns what is due by an instant, in nanoseconds after the start, but no more than a batch holds. Positions
// continue from the given one. Broken records have a text: what they would have been on the wire. A record that is damaged
// as a text is rejected here, as by any source that reads text.
func nextBatch(sim *Simulator, by int64, position *int64) pipeline.Batch {
	b := pipeline.Batch{Origin: sourceName, Done: func(pipeline.Outcome) {}}
	var e Emission
	for n := 0; n < batchSize && sim.nextBy(&e, by); n++ {
		*position++
		var raw []byte
		if e.Broken() {
			raw = appendJSON(nil, &e)
		}
		if e.Damaged() {
			_, rejection := telemetry.ParseJSON(raw, "")
			b.Rejected = append(b.Rejected, pipeline.Rejected{Rejection: rejection, Position: *position, Raw: string(raw)})
			continue
		}
		b.Items = append(b.Items, pipeline.Item{Record: e.Record, Position: *position, Raw: string(raw)})
	}
	return b
}
