package csvfile

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync/atomic"

	"github.com/fleettracing/fleet-tracing/etl/internal/eventorder"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// runInEventOrder sends batches of neighbours in the sorted order that come from one file. The order is the same
// whenever the files are, so a number in it is a place from which to go on.
func (s *Source) runInEventOrder(ctx context.Context, emit func(pipeline.Batch) error) error {
	var count int64
	entries := counted(s.in.entries(ctx), &count)
	stored := s.checkpoint.inOrder()
	var batch pipeline.Batch
	var number int64
	send := func() error {
		if len(batch.Items)+len(batch.Rejected) == 0 {
			return nil
		}
		batch.Accepted, batch.Done = s.options.Now(), s.checkpoint.expect(progress{inOrder: number})
		b := batch
		batch = pipeline.Batch{}
		s.done.Store(int64(float64(s.total) * float64(number) / float64(count)))
		return emit(b)
	}
	for e, err := range deriving(ctx, s.options, entries) {
		if err != nil {
			return err
		}
		if number < stored {
			number++
			continue
		}
		if e.Origin != batch.Origin || len(batch.Items)+len(batch.Rejected) == blockLines {
			if err := send(); err != nil {
				return err
			}
			batch.Origin = e.Origin
		}
		number++
		if e.Rejection != nil {
			batch.Rejected = append(batch.Rejected, pipeline.Rejected{
				Rejection: e.Rejection, Position: e.Position, Raw: e.Raw, Fields: s.in.apart(e.Origin, e.Raw, e.Rejection),
			})
		} else {
			batch.Items = append(batch.Items, e.Item)
		}
	}
	s.done.Store(s.total)
	return send()
}

// apart takes a refused line of a file apart once more: sorting keeps only the line.
func (in *inputs) apart(origin, raw string, why *telemetry.Rejection) map[string]string {
	i := slices.IndexFunc(in.files, func(f *file) bool { return f.path == origin })
	if i < 0 || why.Reason == telemetry.TooLarge { // only its beginning is left
		return nil
	}
	p := lineParser{columns: in.files[i].columns}
	return p.apart(raw, in.shiftMs)
}

// errLeft says that a range was left.
var errLeft = errors.New("left")

// entries is every line of the files, as they stand there.
func (in *inputs) entries(ctx context.Context) iter.Seq2[eventorder.Entry, error] {
	return func(yield func(eventorder.Entry, error) bool) {
		err := in.each(ctx, fromStart, new(atomic.Int64), func(c chunk) error {
			e := eventorder.Entry{Origin: in.files[c.file].path}
			for _, r := range c.refused {
				e.Item, e.Rejection = pipeline.Item{Position: r.Position, Raw: r.Raw}, r.Rejection
				if !yield(e, nil) {
					return errLeft
				}
			}
			e.Rejection = nil
			for _, e.Item = range c.items {
				if !yield(e, nil) {
					return errLeft
				}
			}
			return nil
		})
		if err != nil && err != errLeft {
			yield(eventorder.Entry{}, err)
		}
	}
}

// counted counts what passes.
func counted(in iter.Seq2[eventorder.Entry, error], n *int64) iter.Seq2[eventorder.Entry, error] {
	return func(yield func(eventorder.Entry, error) bool) {
		for e, err := range in {
			*n++
			if !yield(e, err) {
				return
			}
		}
	}
}

// deriving gives the entries by device and time, after InEventOrder has seen the valid records.
func deriving(ctx context.Context, o Options, in iter.Seq2[eventorder.Entry, error]) iter.Seq2[eventorder.Entry, error] {
	sorted := eventorder.Sorter{Dir: o.SortDir}.Sort(ctx, eventorder.ByDevice, in)
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

// Trace is the records of files in order of time, after InEventOrder has seen them, and first of all what the files
// have that is no record. It is what package replay plays.
type Trace struct {
	in      *inputs
	options Options
}

// NewTrace checks the options and reads the headers as New does. It keeps no checkpoint.
func NewTrace(o Options) (*Trace, error) {
	in, err := newInputs(o)
	if err != nil {
		return nil, err
	}
	return &Trace{in, o}, nil
}

// Records reads the files to their end and gives what they hold. An error comes last.
func (t *Trace) Records(ctx context.Context) iter.Seq2[eventorder.Entry, error] {
	entries := t.in.entries(ctx)
	if t.options.InEventOrder != nil {
		entries = deriving(ctx, t.options, entries)
	}
	return eventorder.Sorter{Dir: t.options.SortDir}.Sort(ctx, eventorder.ByTime, entries)
}
