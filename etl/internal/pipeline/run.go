package pipeline

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
	"unique"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/fleettracing/fleet-tracing/etl/internal/fair"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Options are the parts of a pipeline.
type Options struct {
	Validator   Validator
	Writer      Writer
	DeadLetters DeadLetters
	Registerer  prometheus.Registerer
	Now         func() time.Time
	Queue       int // batches that each queue holds
}

// Pipeline runs sources against one writer.
//
//	source ─┐                                  ┌─► dead letters
//	source ─┼─► queue "extract" ─► validation ─┴─► queue "load" ─► lanes in turn ─► writer ─► Done
//	source ─┘
type Pipeline struct {
	o       Options
	metrics *metrics
	delays  *delays
	queued  *semaphore.Weighted // bytes
	names   names
}

// queueBytes bounds the texts in the queue "extract", which is also bounded by Options.Queue.
const queueBytes = 32 << 20

// itemBytes is about the memory of one record without its text, in bytes.
const itemBytes = 256

// bytes is about the memory of a batch.
func (b *Batch) bytes() int64 {
	n := itemBytes * int64(len(b.Items)+len(b.Rejected))
	for i := range b.Items {
		n += int64(len(b.Items[i].Raw))
	}
	for i := range b.Rejected {
		n += int64(len(b.Rejected[i].Raw))
	}
	return min(n, queueBytes)
}

// New makes a pipeline and registers its metrics.
func New(o Options) *Pipeline {
	return &Pipeline{
		o: o, metrics: newMetrics(o.Registerer), delays: newDelays(o.Registerer, o.Now), queued: semaphore.NewWeighted(queueBytes),
	}
}

type sourced struct {
	source string
	Batch
	memory int64 // of Pipeline.queued, until the batch has no texts any more
}

// Run is called once. It lets the sources produce until they end, one of them fails or stop is canceled, and returns when everything that
// they emitted is durable. When ctx ends, or the writer or the dead letters fail, it returns at once: Done was not called
// for what is not durable.
func (p *Pipeline) Run(ctx, stop context.Context, sources ...Source) error {
	extracted := make(chan sourced, p.o.Queue)
	validated, shared := make(chan ValidBatch, p.o.Queue), make(chan ValidBatch)
	watch(p.o.Registerer, "extract", extracted)
	watch(p.o.Registerer, "load", validated)

	caller := ctx
	g, ctx := errgroup.WithContext(ctx)
	reading, stopReading := context.WithCancel(ctx)
	defer stopReading()
	defer context.AfterFunc(stop, stopReading)()

	for _, source := range sources {
		p.metrics.create(source.Name())
	}
	var sourceErr error // does not end the group: what all sources emitted before is still stored
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
		sourceErr = reads.Wait()
		return nil
	})
	g.Go(func() error {
		defer close(validated)
		for b := range extracted {
			if err := p.validate(ctx, b, validated); err != nil {
				return err
			}
		}
		return nil
	})
	g.Go(func() error {
		defer close(shared)
		return share(ctx, validated, shared)
	})
	g.Go(func() error { return p.o.Writer.Run(ctx, shared) })
	if err := g.Wait(); err != nil {
		return err
	}
	if err := caller.Err(); err != nil {
		return err // a source may have had a batch that the pipeline did not accept
	}
	return sourceErr
}

// emit returns the function by which a source hands over batches. It accepts a batch also after the source was stopped.
func (p *Pipeline) emit(ctx context.Context, source string, out chan<- sourced) func(Batch) error {
	idleSince := p.o.Now()
	return func(b Batch) error {
		now := p.o.Now()
		if b.Accepted.IsZero() {
			b.Accepted = now
		}
		p.metrics.extract.Observe(now.Sub(idleSince).Seconds())
		p.metrics.receive(source, &b)
		defer func() { idleSince = p.o.Now() }()
		b.durable = p.delays.begin(&b)
		memory := b.bytes()
		if err := p.queued.Acquire(ctx, memory); err != nil {
			return err
		}
		p.metrics.queued.Add(float64(memory))
		select {
		case out <- sourced{source, b, memory}:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// validate checks a batch's records, makes dead letters of the rejected ones and hands the rest on.
func (p *Pipeline) validate(ctx context.Context, b sourced, out chan<- ValidBatch) error {
	started := p.o.Now()
	nowMs := started.UnixMilli()
	outcome := Outcome{Rejected: b.Rejected}
	for i := range outcome.Rejected {
		outcome.Rejected[i].Sender = cmp.Or(outcome.Rejected[i].Sender, b.Sender)
	}
	kept := b.Items[:0]
	for i := range b.Items {
		item := b.Items[i]
		item.Sender = cmp.Or(item.Sender, b.Sender)
		payload, seen, rejection := p.o.Validator.Validate(&item.Record, cmp.Or(item.AcceptedMs, nowMs))
		if rejection != nil {
			outcome.Rejected = append(outcome.Rejected, item.reject(rejection))
			continue
		}
		p.metrics.eventLag.Observe(max(0, float64(b.Accepted.UnixMilli()-item.TimeMs)/1000))
		item.Hash = payload
		p.names.intern(&item)
		switch seen {
		case telemetry.Duplicate:
			outcome.Duplicates++
			continue
		case telemetry.Conflict:
			outcome.Duplicates++
			item.Conflict = true
		case telemetry.New:
			outcome.Stored++
		}
		kept = append(kept, item)
	}
	clear(b.Items[len(kept):]) // they still refer to the source's text
	if err := p.keep(ctx, b.source, b.Origin, outcome.Rejected); err != nil {
		return err
	}
	p.queued.Release(b.memory)
	p.metrics.queued.Sub(float64(b.memory))
	p.metrics.validated(b.source, &outcome)
	p.metrics.transform.Observe(p.o.Now().Sub(started).Seconds())

	queued := p.o.Now()
	valid := ValidBatch{Items: kept, lane: b.Lane, Done: func() {
		now := p.o.Now()
		p.metrics.load.Observe(now.Sub(queued).Seconds())
		p.metrics.durable(now.Sub(b.Accepted), outcome.Stored)
		b.durable()
		if b.Done != nil {
			b.Done(outcome)
		}
	}, Reject: func(ctx context.Context, items []RejectedItem) error {
		rejected := make([]Rejected, len(items))
		conflicts := 0
		for i, r := range items {
			rejected[i] = r.reject(r.Rejection)
			text, _ := json.Marshal(rejected[i].Fields) // texts can always be encoded
			rejected[i].Raw = string(text)              // the source's text is not kept so long
			if r.Conflict {
				conflicts++
			}
		}
		if err := p.keep(ctx, b.source, b.Origin, rejected); err != nil {
			return err
		}
		outcome.Stored -= len(items) - conflicts
		outcome.Duplicates -= conflicts
		outcome.Rejected = append(outcome.Rejected, rejected...)
		p.metrics.rejectedLater(b.source, rejected, conflicts)
		return nil
	}}
	select {
	case out <- valid:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// partRecords is the size of a part of a batch, and of a turn, in records.
const partRecords = 1000

// share passes batches on, in turn by lane and in parts. So a batch waits behind one part of another lane, however much that
// one has queued. What waits of a lane is bounded by its source.
func share(ctx context.Context, in <-chan ValidBatch, out chan<- ValidBatch) error {
	q := fair.NewQueue[ValidBatch](partRecords)
	for in != nil || q.Len() > 0 {
		more := in
		var to chan<- ValidBatch
		next, ok := q.Pop()
		if ok {
			to = out
		}
		if ok && next.lane == "" || q.LenOf("") > 0 {
			more = nil
		}
		for sent := false; !sent; {
			select {
			case b, open := <-more:
				if !open {
					in, more = nil, nil
				} else {
					for _, part := range b.parts() {
						q.Push(part.lane, int64(max(1, len(part.Items))), part)
					}
				}
				sent = to == nil
			case to <- next:
				sent = true
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// parts splits a batch of a lane.
func (b ValidBatch) parts() []ValidBatch {
	if b.lane == "" || len(b.Items) <= partRecords {
		return []ValidBatch{b}
	}
	var left atomic.Int32
	whole := b.Done
	b.Done = func() {
		if left.Add(-1) == 0 {
			whole()
		}
	}
	var parts []ValidBatch
	for items := range slices.Chunk(b.Items, partRecords) {
		part := b
		part.Items = items
		parts = append(parts, part)
	}
	left.Store(int32(len(parts)))
	return parts
}

// Reject keeps records that a source rejected and that need not pass through the queues. It returns once they are durable.
func (p *Pipeline) Reject(ctx context.Context, source, origin string, rejected []Rejected) error {
	if err := p.keep(ctx, source, origin, rejected); err != nil {
		return err
	}
	p.metrics.receive(source, &Batch{Rejected: rejected})
	p.metrics.validated(source, &Outcome{Rejected: rejected})
	return nil
}

// rejectedBytes bounds the memory of dead letters that are written at once. JSON makes six bytes of a control character.
const rejectedBytes = 512 << 10

// keep makes dead letters of rejected records, some at a time.
func (p *Pipeline) keep(ctx context.Context, source, origin string, rejected []Rejected) error {
	for len(rejected) > 0 {
		n, bytes := 0, 0
		for n < len(rejected) && bytes < rejectedBytes {
			bytes += itemBytes + len(rejected[n].Raw)
			n++
		}
		if err := p.o.DeadLetters.Append(ctx, source, origin, rejected[:n]); err != nil {
			return err
		}
		rejected = rejected[n:]
	}
	return nil
}

// reject returns the dead letter of a record.
func (i *Item) reject(reason *telemetry.Rejection) Rejected {
	return Rejected{Rejection: reason, Sender: i.Sender, Position: i.Position, Raw: i.Raw, Fields: FieldsOf(&i.Record)}
}

// names replaces the strings of records by interned ones. A record's strings are slices of the source's text, and a batch
// of records must not keep that whole text in memory. Fleets and geofences repeat from one record to the next.
type names struct{ fleet, zone string }

func (n *names) intern(item *Item) {
	item.Raw = ""
	item.DeviceID = unique.Make(item.DeviceID).Value()
	if item.FleetID != n.fleet {
		n.fleet = unique.Make(item.FleetID).Value()
	}
	if item.Zone != n.zone {
		n.zone = unique.Make(item.Zone).Value()
	}
	item.FleetID, item.Zone = n.fleet, n.zone
}
