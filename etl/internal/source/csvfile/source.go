// Package csvfile reads telemetry from CSV files, compressed or not, and from standard input. Package csvline parses the
// lines. With a checkpoint, the same command resumes after a crash.
package csvfile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/disk"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Options are the settings of a Source.
type Options struct {
	Files []string  // result of Expand
	Stdin io.Reader // input of the path "-"

	Map   map[string]string    // column by field, if the names differ
	Set   map[string]string    // constant values by field; they replace columns
	Times telemetry.TimeFormat // format of timestamps
	Shift time.Duration        // added to every event time, in whole milliseconds

	Target []string // where the records go and what changes the result there; a Checkpoint is of one target

	// InEventOrder, if set, is called for every valid record in the event order of its device, to compute values from
	// earlier records. The source then reads and sorts all files before it emits the first record.
	InEventOrder func(*telemetry.Record)
	// Valid selects the records for InEventOrder; nil selects all. The others are emitted unchanged.
	Valid func(*telemetry.Record) bool
	// SortDir is the directory of temporary files for sorting; empty is the system's temporary directory.
	SortDir string
	// DiskNote receives the error while the disk of the checkpoint or of temporary files is full, during which the source waits,
	// and nil once it is not. It may be nil.
	DiskNote func(error)

	Checkpoint *Checkpoint // nil starts at the beginning and stores no progress
}

// Source reads files into batches; each batch has lines of one file. It implements pipeline.Source.
type Source struct {
	in         *inputs
	options    Options
	checkpoint *Checkpoint
	total      int64
	done       atomic.Int64
}

// New checks the options and reads the header of every file; Run reads that of standard input. An error names the file or
// the setting. The shift in the checkpoint of an earlier run overrides Options.Shift.
func New(o Options) (*Source, error) {
	s := &Source{options: o, checkpoint: cmp.Or(o.Checkpoint, &Checkpoint{})}
	if shift, ok := s.checkpoint.Shift(); ok {
		o.Shift = shift
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

// Name implements pipeline.Source.
func (s *Source) Name() string { return "csvfile" }

// Progress returns how much of the files was read, in bytes on disk, or with InEventOrder how much of them was sent. The total
// is 0 if unknown. It is safe for concurrent use.
func (s *Source) Progress() (done, total int64) {
	done = s.done.Load()
	if s.total > 0 {
		done = min(done, s.total) // a file may have grown
	}
	return done, s.total
}

// Run reads the files one after the other and resumes where an earlier run stopped. An error names file and line. Without
// InEventOrder, Run emits all lines before a damaged part of a file. A file that changes during Run is an error at the end.
func (s *Source) Run(ctx context.Context, emit func(pipeline.Batch) error) error {
	begin := func() error { return s.checkpoint.begin(s.in.shiftMs) }
	if err := disk.WaitForRoom(ctx, s.options.DiskNote, begin); err != nil {
		return err
	}
	run := s.runAsRead
	if s.options.InEventOrder != nil {
		run = s.runInEventOrder
	}
	err := run(ctx, emit)
	if err == nil {
		err = s.in.checkUnchanged(ctx)
	}
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
	from := func(file int) start {
		begin := s.checkpoint.from(file)
		if begin.skip {
			s.done.Add(s.in.files[file].size)
		}
		return begin
	}
	return s.in.each(ctx, from, &s.done, func(c chunk) error {
		done := s.checkpoint.add(progress{file: c.file, place: c.end, sum: c.sum, done: c.last})
		if len(c.items)+len(c.rejected) == 0 {
			done(pipeline.Outcome{})
			return nil
		}
		return emit(pipeline.Batch{
			Origin:   s.in.files[c.file].path,
			Sender:   pipeline.Trusted,
			Items:    c.items,
			Rejected: c.rejected,
			Done:     done,
		})
	})
}
