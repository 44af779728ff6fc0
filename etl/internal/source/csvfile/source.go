// Package csvfile reads telemetry from CSV files, compressed or not, and from standard input. One physical line is one
// record, so that a broken line costs no other: quoted fields can't hold line ends. A checkpoint lets the same command
// go on where it was killed.
package csvfile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Options say what is read and how.
type Options struct {
	Files []string  // what Expand gave
	Stdin io.Reader // what the path "-" stands for

	Map   map[string]string    // the column of a field, by the field's name, where the two differ
	Set   map[string]string    // fixed values by field; they take the place of columns
	Times telemetry.TimeFormat // how timestamps are written
	Shift time.Duration        // added to every event time, in whole milliseconds

	// InEventOrder, when set, is called for every valid record in the order of its device's events, to derive what
	// follows from the records before it. The files are then read to their end and sorted before a record flows.
	InEventOrder func(*telemetry.Record)
	// Valid tells which records InEventOrder sees; nil is all. The others flow as they are.
	Valid func(*telemetry.Record) bool
	// SortDir is where sorting puts what doesn't fit into memory; empty is the system's temporary directory.
	SortDir string

	Checkpoint *Checkpoint      // nil starts anew and keeps nothing
	Now        func() time.Time // nil is time.Now
}

// Source reads files into batches, one file's lines in each. It implements pipeline.Source.
type Source struct {
	in         *inputs
	options    Options
	checkpoint *Checkpoint
	total      int64
	done       atomic.Int64
}

// New checks the options and reads the header of every file; that of standard input is read by Run. An error names the
// file or the setting at fault. A shift in the checkpoint of an earlier run takes the place of Options.Shift.
func New(o Options) (*Source, error) {
	s := &Source{options: o, checkpoint: cmp.Or(o.Checkpoint, &Checkpoint{})}
	if shift, ok := s.checkpoint.Shift(); ok {
		o.Shift = shift
	}
	if o.Now == nil {
		s.options.Now = time.Now
	}
	var err error
	if s.in, err = newInputs(o); err != nil {
		return nil, err
	}
	if !s.in.fromStdin() {
		for _, f := range s.in.files {
			s.total += f.size
		}
	}
	return s, nil
}

// Name is the source's label.
func (s *Source) Name() string { return "csvfile" }

// Progress tells how much of the files was read, in bytes of the files as they are on disk; with InEventOrder, how much
// of them was sent, since reading comes before. The total is 0 when it isn't known. It may be called at any time.
func (s *Source) Progress() (done, total int64) {
	done = s.done.Load()
	if s.total > 0 {
		done = min(done, s.total) // a file may have grown
	}
	return done, s.total
}

// Run reads the files one after the other from where an earlier run left them. An error names file and line. Without
// InEventOrder, all lines before a damaged part of a file have been emitted when Run returns its error.
func (s *Source) Run(ctx context.Context, emit func(pipeline.Batch) error) error {
	if err := s.checkpoint.begin(s.in.shiftMs); err != nil {
		return err
	}
	run := s.runAsRead
	if s.options.InEventOrder != nil {
		run = s.runInEventOrder
	}
	err := run(ctx, emit)
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.Is(err, errChanged):
		return fmt.Errorf("%w: delete the checkpoint %s to read everything again", err, s.checkpoint.path)
	case err != nil:
		return err
	}
	s.checkpoint.allSent()
	return nil
}

func (s *Source) runAsRead(ctx context.Context, emit func(pipeline.Batch) error) error {
	from := func(file int) (place, bool) {
		at, done := s.checkpoint.from(file)
		if done {
			s.done.Add(s.in.files[file].size)
		}
		return at, done
	}
	return s.in.each(ctx, from, &s.done, func(c chunk) error {
		p := progress{file: c.file, place: c.end, done: c.last}
		if len(c.items)+len(c.refused) == 0 {
			s.checkpoint.pass(p)
			return nil
		}
		return emit(pipeline.Batch{
			Origin:   s.in.files[c.file].path,
			Items:    c.items,
			Rejected: c.refused,
			Accepted: s.options.Now(),
			Done:     s.checkpoint.expect(p),
		})
	})
}
