package csvfile

import (
	"context"
	"crypto/sha256"
	"errors"
	"iter"
	"sync/atomic"

	"github.com/fleettracing/fleet-tracing/etl/internal/csvline"
	"github.com/fleettracing/fleet-tracing/etl/internal/eventorder"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
)

// runInEventOrder sends batches of consecutive entries from one file in sorted order. Equal files give an equal order, so
// the number of an entry is a place to resume from.
func (s *Source) runInEventOrder(ctx context.Context, emit func(pipeline.Batch) error) error {
	var count int64
	stored := s.checkpoint.inOrder()
	var batch pipeline.Batch
	var number int64
	send := func() error {
		if len(batch.Items)+len(batch.Rejected) == 0 {
			return nil
		}
		batch.Sender, batch.Done = pipeline.Trusted, s.checkpoint.add(progress{inOrder: number})
		b := batch
		batch = pipeline.Batch{}
		s.done.Store(int64(float64(s.total) * float64(number) / float64(count)))
		return emit(b)
	}
	for e, err := range sortedByDevice(ctx, s.options, s.in.entries(ctx, &count)) {
		if err == nil && number == 0 {
			err = s.checkpoint.sortedFrom(s.in.files)
		}
		if err != nil {
			return err
		}
		if number < stored {
			number++
			continue
		}
		if e.Origin != batch.Origin || len(batch.Items)+len(batch.Rejected) == csvline.BlockLines {
			if err := send(); err != nil {
				return err
			}
			batch.Origin = e.Origin
		}
		number++
		e.AddTo(&batch)
	}
	s.done.Store(s.total)
	return send()
}

func hashedFromStart(int) start { return start{hash: sha256.New()} }

// errStopped means that the consumer of a range stopped.
var errStopped = errors.New("stopped")

// entries yields every line of the files in file order, and counts them.
func (in *inputs) entries(ctx context.Context, count *int64) iter.Seq2[eventorder.Entry, error] {
	return func(yield func(eventorder.Entry, error) bool) {
		err := in.each(ctx, hashedFromStart, new(atomic.Int64), func(c chunk) error {
			*count += int64(len(c.rejected) + len(c.items))
			e := eventorder.Entry{Origin: in.files[c.file].path}
			for _, r := range c.rejected {
				e.Item, e.Rejection, e.Fields = pipeline.Item{Position: r.Position, Raw: r.Raw}, r.Rejection, r.Fields
				if !yield(e, nil) {
					return errStopped
				}
			}
			e.Rejection, e.Fields = nil, nil
			for _, e.Item = range c.items {
				if !yield(e, nil) {
					return errStopped
				}
			}
			return nil
		})
		if err != nil && err != errStopped {
			yield(eventorder.Entry{}, err)
		}
	}
}

// sortedByDevice yields the entries by device and time, after InEventOrder was called for the valid records.
func sortedByDevice(ctx context.Context, o Options, in iter.Seq2[eventorder.Entry, error]) iter.Seq2[eventorder.Entry, error] {
	sorted := eventorder.Sorter{Dir: o.SortDir, DiskNote: o.DiskNote}.Sort(ctx, eventorder.ByDevice, in)
	return func(yield func(eventorder.Entry, error) bool) {
		for e, err := range sorted {
			if err == nil && e.Rejection == nil && (o.Valid == nil || o.Valid(&e.Record)) {
				o.InEventOrder(&e.Record)
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// Records reads the files to their end and yields their entries by event time, rejected lines first, after InEventOrder was
// called for the records. An error comes last. Package replay replays them.
func (s *Source) Records(ctx context.Context) iter.Seq2[eventorder.Entry, error] {
	entries := s.in.entries(ctx, new(int64))
	if s.options.InEventOrder != nil {
		entries = sortedByDevice(ctx, s.options, entries)
	}
	return eventorder.Sorter{Dir: s.options.SortDir, DiskNote: s.options.DiskNote}.Sort(ctx, eventorder.ByTime, entries)
}
