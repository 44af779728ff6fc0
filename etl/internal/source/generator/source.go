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
	beat       = 100 * time.Millisecond // between two batches while there is always something to emit
	patience   = time.Second            // how late a record may be emitted; older ones are skipped
)

// Source is simulated vehicles as a source of the pipeline.
type Source struct{ opts Options }

// NewSource checks the options and makes a source, which ends after Records valid records. Each vehicle reports once per
// Interval of real time, from when Run begins: Start is ignored.
func NewSource(opts Options) (*Source, error) {
	opts.Start = time.Now()
	if err := opts.check(); err != nil {
		return nil, fmt.Errorf("generator options: %w", err)
	}
	return &Source{opts}, nil
}

// Name implements pipeline.Source.
func (s *Source) Name() string { return sourceName }

// Run implements pipeline.Source. It ends when ctx does, or after Records good records with all that belongs to them.
//
// It emits what is due every 100 ms, in batches of 1000 at most. When emit blocks or the machine sleeps, what is overdue by
// more than one second is skipped: vehicles drive on, but their records are missing, as in a tunnel. Skipped records don't
// count towards Records. Late records that were delayed before are still sent.
func (s *Source) Run(ctx context.Context, emit func(pipeline.Batch) error) error {
	opts := s.opts
	opts.Start = time.Now().Round(0) // the monotonic clock would leave out the time that a machine sleeps
	sim, err := New(opts)
	if err != nil {
		return err
	}
	var position int64
	for ctx.Err() == nil {
		now := int64(time.Since(opts.Start))
		sim.skip(now - int64(patience))
		b := nextBatch(sim, now, &position)
		if len(b.Items)+len(b.Rejected) > 0 {
			b.Accepted = time.Now()
			err = emit(b)
		}
		at := sim.due()
		if err == nil && at == never {
			return nil
		}
		if err == nil && at > now {
			err = backoff.Sleep(ctx, max(beat, time.Duration(at-now)))
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
	b := pipeline.Batch{Origin: sourceName, Sender: pipeline.Trusted, Done: func(pipeline.Outcome) {}}
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
