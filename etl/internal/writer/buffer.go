package writer

import (
	"context"
	"iter"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Batch is records that are planned and written together. The larger it is, the more rows share a partition and the fewer
// latest rows the same records need.
type Batch struct {
	parts   []pipeline.ValidBatch
	records int
	opened  time.Time // when its first part came
}

func (b *Batch) add(c pipeline.ValidBatch, now time.Time) {
	if len(b.parts) == 0 {
		b.opened = now
	}
	b.parts = append(b.parts, c)
	b.records += max(1, len(c.Items)) // a part without records takes room too
}

// items yields every item of the batch, in order.
func (b *Batch) items() iter.Seq[*pipeline.Item] {
	return func(yield func(*pipeline.Item) bool) {
		for _, c := range b.parts {
			for i := range c.Items {
				if !yield(&c.Items[i]) {
					return
				}
			}
		}
	}
}

// Records yields every record of the batch, in order.
func (b *Batch) Records() iter.Seq[*telemetry.Record] {
	return func(yield func(*telemetry.Record) bool) {
		for item := range b.items() {
			if !yield(&item.Record) {
				return
			}
		}
	}
}

// Done acknowledges the batch to its sources. Call it once, when every record is durable.
func (b *Batch) Done() {
	for _, c := range b.parts {
		c.Done()
	}
}

// Buffer gathers records into batches.
type Buffer struct {
	Records int              // records at which a batch is full
	Linger  time.Duration    // how long a batch waits for more records
	Now     func() time.Time // clock
}

// Run fills batches from in until in is closed. A batch that has waited for Linger is sent as soon as out is ready, and
// grows until then: while the store is slow, batches become larger and writes fewer.
func (b Buffer) Run(ctx context.Context, in <-chan pipeline.ValidBatch, out chan<- *Batch) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	current := &Batch{}
	for {
		var ready chan<- *Batch // nil, so never chosen, until the batch may be sent
		var more <-chan pipeline.ValidBatch
		var due <-chan time.Time
		if current.records < b.Records {
			more = in
		}
		if len(current.parts) > 0 {
			if age := b.Now().Sub(current.opened); more == nil || age >= b.Linger {
				ready = out
			} else {
				timer.Reset(b.Linger - age)
				due = timer.C
			}
		}
		select {
		case c, ok := <-more:
			if ok {
				current.add(c, b.Now())
				continue
			}
			if len(current.parts) == 0 {
				return nil
			}
			select {
			case out <- current:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		case ready <- current:
			current = &Batch{}
		case <-due:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
