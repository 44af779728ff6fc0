package pipeline

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Transform is what happens to a record between source and loader.
type Transform interface {
	// Apply checks a record at the time nowMs (Unix milliseconds), completes it, and gives the hash of its payload and
	// whether it was taken before; or a rejection when it can't be stored.
	Apply(r *telemetry.Record, nowMs int64) (payload uint64, seen telemetry.Seen, rejection *telemetry.Rejection)
}

// Pipeline runs sources against one loader.
//
//	source ─┐                                   ┌─► dead letters
//	source ─┼─► queue "extract" ─► transform ───┴─► queue "load" ─► loader ─► Done
//	source ─┘
type Pipeline struct {
	Transform   Transform
	Loader      Loader
	DeadLetters DeadLetters
	Metrics     *Metrics
	Now         func() time.Time
	Queue       int // batches that each queue holds

	names names
}

type sourced struct {
	source string
	Batch
}

// Run lets the sources produce until they end, one of them fails or stop is cancelled, and returns when everything that
// they handed over is durable. When ctx ends, or the way to the store fails, it returns at once: what was not durable
// has not been reported as done.
func (p *Pipeline) Run(ctx, stop context.Context, sources ...Source) error {
	extracted := make(chan sourced, p.Queue)
	cleaned := make(chan Clean, p.Queue)
	p.Metrics.watch("extract", p.Queue, func() int { return len(extracted) })
	p.Metrics.watch("load", p.Queue, func() int { return len(cleaned) })

	caller := ctx
	g, ctx := errgroup.WithContext(ctx)
	reading, quit := context.WithCancel(ctx)
	defer quit()
	defer context.AfterFunc(stop, quit)()

	for _, source := range sources {
		p.Metrics.create(source.Name())
	}
	var broken error // of a source; what all of them read before is stored all the same
	g.Go(func() error {
		defer close(extracted)
		reads, reading := errgroup.WithContext(reading)
		for _, source := range sources {
			reads.Go(func() error {
				if err := source.Run(reading, p.emit(ctx, source.Name(), extracted)); err != nil {
					return fmt.Errorf("source %s: %w", source.Name(), err)
				}
				return nil
			})
		}
		broken = reads.Wait()
		return nil
	})
	g.Go(func() error {
		defer close(cleaned)
		for b := range extracted {
			if err := p.transform(ctx, b, cleaned); err != nil {
				return err
			}
		}
		return nil
	})
	g.Go(func() error { return p.Loader.Run(ctx, cleaned) })
	if err := g.Wait(); err != nil {
		return err
	}
	if err := caller.Err(); err != nil {
		return err // a source may have had a batch that was not taken
	}
	return broken
}

// emit gives a source its way into the pipeline. A batch that the source has when it is told to stop still goes in.
func (p *Pipeline) emit(ctx context.Context, source string, out chan<- sourced) func(Batch) error {
	idleSince := p.Now()
	return func(b Batch) error {
		now := p.Now()
		if b.Accepted.IsZero() {
			b.Accepted = now
		}
		p.Metrics.extract.Observe(now.Sub(idleSince).Seconds())
		p.Metrics.accept(source, &b)
		defer func() { idleSince = p.Now() }()
		select {
		case out <- sourced{source, b}:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// transform checks a batch's records, puts those that are refused among the dead letters and hands on the rest.
func (p *Pipeline) transform(ctx context.Context, b sourced, out chan<- Clean) error {
	started := p.Now()
	nowMs := started.UnixMilli()
	outcome := Outcome{Refused: b.Refused}
	kept := b.Items[:0]
	for i := range b.Items {
		item := b.Items[i]
		payload, seen, rejection := p.Transform.Apply(&item.Record, nowMs)
		if rejection != nil {
			outcome.Refused = append(outcome.Refused, Refused{
				Rejection: rejection, Position: item.Position, Raw: rawOf(&item), Fields: FieldsOf(&item.Record),
			})
			continue
		}
		p.Metrics.eventLag.Observe(max(0, float64(b.Accepted.UnixMilli()-item.TimeMs)/1000))
		item.Hash = payload
		p.names.settle(&item)
		switch seen {
		case telemetry.Same:
			outcome.Duplicates++
			continue
		case telemetry.Rival:
			outcome.Duplicates++
			item.Again = true
		case telemetry.New:
			outcome.Stored++
		}
		kept = append(kept, item)
	}
	clear(b.Items[len(kept):]) // which still hold on to the source's text
	if len(outcome.Refused) > 0 {
		if err := p.DeadLetters.Append(b.source, b.Origin, outcome.Refused); err != nil {
			return err
		}
	}
	p.Metrics.transformed(b.source, &outcome)
	p.Metrics.transform.Observe(p.Now().Sub(started).Seconds())

	handed := p.Now()
	clean := Clean{Items: kept, Done: func() {
		now := p.Now()
		p.Metrics.load.Observe(now.Sub(handed).Seconds())
		p.Metrics.durable(now.Sub(b.Accepted), outcome.Stored)
		if b.Done != nil {
			b.Done(outcome)
		}
	}}
	select {
	case out <- clean:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
