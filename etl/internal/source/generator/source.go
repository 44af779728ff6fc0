package generator

import (
	"context"
	"fmt"
	"math"
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
	opts := s.opts.Options
	if s.opts.Pace {
		opts.Start = s.wall()
	}
	sim, err := New(opts)
	if err != nil {
		return err
	}
	f := feed{sim: sim, now: s.opts.Now, emit: emit}
	if s.opts.Pace {
		err = s.pace(ctx, &f)
	} else {
		err = f.stream(ctx)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// wall is the time without its monotonic part, which would leave out the time that a machine sleeps.
func (s *Source) wall() time.Time { return s.opts.Now().Round(0) }

// pace emits each record when its time has come.
func (s *Source) pace(ctx context.Context, f *feed) error {
	for ctx.Err() == nil {
		now := int64(s.wall().Sub(f.sim.opts.Start))
		f.sim.skip(now - int64(patience))
		if err := f.batch(now, 0); err != nil {
			return err
		}
		at, more := f.sim.due()
		switch {
		case !more:
			return nil
		case at > now:
			if err := s.opts.Wait(ctx, max(beat, time.Duration(at-now))); err != nil {
				return err
			}
		}
	}
	return nil
}

// feed turns one run of a simulator into batches.
type feed struct {
	sim      *Simulator
	now      func() time.Time
	emit     func(pipeline.Batch) error
	position int64 // of the last record, counted from 1
	text     []byte
}

// stream emits everything as fast as it is taken.
func (f *feed) stream(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := f.batch(math.MaxInt64, batchSize); err != nil {
			return err
		}
		if _, more := f.sim.due(); !more {
			return nil
		}
	}
	return nil
}

// batch emits what is due by an instant, in nanoseconds after the start, but no more than a batch holds. Batches belong
// to the pipeline, so each has an array of its own, made for so many records.
func (f *feed) batch(by int64, room int) error {
	b := pipeline.Batch{Origin: sourceName, Items: make([]pipeline.Item, 0, room), Done: func(pipeline.Outcome) {}}
	var e Emission
	for range batchSize {
		if !f.sim.nextBy(&e, by) {
			break
		}
		f.add(&b, &e)
	}
	if len(b.Items)+len(b.Rejected) == 0 {
		return nil
	}
	b.Accepted = f.now()
	return f.emit(b)
}

// add puts an emission into a batch. Broken ones have a text, which is what they would have been on the wire; those
// that no Record can hold are rejected here, as by any source that reads text.
func (f *feed) add(b *pipeline.Batch, e *Emission) {
	f.position++
	raw := ""
	if e.Broken() {
		f.text = encoder(appendJSON).line(f.text[:0], e)
		raw = string(f.text)
	}
	if e.Damaged() {
		b.Rejected = append(b.Rejected, pipeline.Rejected{Rejection: rejection(e), Position: f.position, Raw: raw})
		return
	}
	b.Items = append(b.Items, pipeline.Item{Record: e.Record, Position: f.position, Raw: raw})
}

// rejection is what a reader of the text would say.
func rejection(e *Emission) *telemetry.Rejection {
	switch {
	case e.Cut:
		return telemetry.Reject(e.Reason, "", "", "send whole JSON objects, this one ends in the middle")
	case e.Text == "":
		return telemetry.Reject(e.Reason, e.Field, "", "give it in every record")
	case e.Field == telemetry.FieldTimestamp:
		return telemetry.Reject(e.Reason, e.Field, e.Text, "give RFC 3339, epoch seconds or milliseconds")
	default:
		return telemetry.Reject(e.Reason, e.Field, e.Text, "give a decimal number")
	}
}
