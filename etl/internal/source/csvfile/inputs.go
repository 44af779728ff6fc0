package csvfile

import (
	"context"
	"errors"
	"hash"
	"io"
	"math"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/fleettracing/fleet-tracing/etl/internal/csvline"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// inputs are the files of one command, with valid headers.
type inputs struct {
	mapping *csvline.Mapping
	files   []*file
	stdin   io.Reader
	shiftMs int64
}

// newInputs reads the header of every file, so that mistakes show before the first record. The header of standard input is
// read later: a pipe may have no data for a long time.
func newInputs(o Options) (*inputs, error) {
	mapping, err := csvline.NewMapping(o.Map, o.Set, o.Times)
	if err != nil {
		return nil, err
	}
	in := &inputs{mapping: mapping, stdin: o.Stdin, shiftMs: o.Shift.Milliseconds()}
	for _, path := range o.Files {
		f := &file{path: path}
		in.files = append(in.files, f)
		if path == Stdin {
			if in.stdin == nil {
				return nil, errors.New("read standard input: there is none: give a file")
			}
			continue
		}
		s, err := f.open(context.Background(), nil, csvline.Place{}, new(atomic.Int64))
		if err == nil {
			err = f.readHeader(s, mapping)
			s.Close()
		}
		if err != nil {
			return nil, err
		}
	}
	return in, nil
}

// fromStdin returns whether standard input is one of the files.
func (in *inputs) fromStdin() bool {
	return slices.ContainsFunc(in.files, func(f *file) bool { return f.path == Stdin })
}

// chunk is the parsed contents of one block of lines.
type chunk struct {
	file     int // index
	items    []pipeline.Item
	rejected []pipeline.Rejected
	end      csvline.Place // place of the next line
	sum      []byte        // of the bytes before it; nil: the file is not hashed
	last     bool          // end of the file; without items
}

// start is where the reading of a file begins.
type start struct {
	at   csvline.Place
	hash hash.Hash // of the bytes before it; nil: the file is not hashed
	skip bool      // the whole file
}

// each reads the files from where from returns until a file or take fails, or ctx ends. All whole lines before a read error
// reach take.
func (in *inputs) each(ctx context.Context, from func(file int) start, read *atomic.Int64, take func(chunk) error) error {
	var stdin *stream
	for _, f := range in.files {
		if f.path != Stdin {
			continue
		}
		var err error
		if stdin, err = f.open(ctx, in.stdin, csvline.Place{}, read); err != nil {
			return err
		}
		defer stdin.Close()
		if err := f.readHeader(stdin, in.mapping); err != nil {
			return err
		}
	}
	for i, f := range in.files {
		begin := from(i)
		switch {
		case begin.skip:
			f.end, f.sum = begin.at, begin.hash.Sum(nil)
			continue
		case f.path == Stdin:
			if err := in.readFile(ctx, i, stdin, take); err != nil {
				return err
			}
			continue
		}
		s, err := f.open(ctx, nil, begin.at, read)
		if err != nil {
			return err
		}
		s.Hash = begin.hash
		if begin.at.Line == 0 {
			_, err = s.Next(1) // the header
		}
		if err == nil {
			err = in.readFile(ctx, i, s, take)
		}
		s.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func fromStart(int) start { return start{} }

// readFile reads the remaining lines of a stream.
func (in *inputs) readFile(ctx context.Context, index int, s *stream, take func(chunk) error) error {
	f := in.files[index]
	parser := csvline.NewParser(f.columns)
	for ctx.Err() == nil {
		b, err := s.Next(csvline.BlockLines)
		if err == io.EOF {
			f.end, f.sum = s.At, s.sum()
			return take(chunk{file: index, end: f.end, sum: f.sum, last: true})
		}
		if err != nil {
			return f.errorAt(s.At.Line+1, err)
		}
		c := parseBlock(parser, &b, in.shiftMs)
		c.file, c.end, c.sum = index, s.At, s.sum()
		if err := take(c); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// parseBlock parses the lines of a block. It ignores blank lines.
func parseBlock(p *csvline.Parser, b *csvline.Block, shiftMs int64) chunk {
	c := chunk{items: make([]pipeline.Item, 0, b.Len())}
	for position, line := range b.Lines() {
		if strings.TrimSpace(line) == "" {
			continue
		}
		item := pipeline.Item{Position: position, Raw: line}
		if rejection := p.Parse(line, &item.Record); rejection != nil {
			fields := p.Texts(line, shiftMs)
			if rejection.Reason == telemetry.TooLarge {
				line = strings.Clone(line[:telemetry.MaxExcerpt]) // the file has all of it
			}
			c.rejected = append(c.rejected, pipeline.Rejected{Rejection: rejection, Position: position, Raw: line, Fields: fields})
			continue
		}
		item.TimeMs += shiftMs
		c.items = append(c.items, item)
	}
	return c
}

// TimeRange reads the files once and returns the smallest and largest event time of their n records, in Unix milliseconds
// before any shift; both are 0 without records. Lines that can't be parsed don't count. Records with values out of bounds
// do, so one wrong clock can extend the range. Standard input is an error, since it can't be read twice.
func TimeRange(ctx context.Context, o Options) (minMs, maxMs, n int64, err error) {
	o.Shift = 0
	in, err := newInputs(o)
	if err != nil {
		return 0, 0, 0, err
	}
	if in.fromStdin() {
		return 0, 0, 0, errors.New("find the time range of standard input: it can be read only once: save it to a file first")
	}
	minMs, maxMs = math.MaxInt64, math.MinInt64
	err = in.each(ctx, fromStart, new(atomic.Int64), func(c chunk) error {
		for i := range c.items {
			minMs, maxMs = min(minMs, c.items[i].TimeMs), max(maxMs, c.items[i].TimeMs)
		}
		n += int64(len(c.items))
		return nil
	})
	if err != nil || n == 0 {
		return 0, 0, 0, err
	}
	return minMs, maxMs, n, nil
}
