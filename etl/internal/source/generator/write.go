package generator

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Counts is what was written, in lines.
type Counts struct {
	Good      int                      // distinct valid records, including late ones
	Late      int                      // valid records that arrive late
	Duplicate int                      // second copies of valid records
	Broken    map[telemetry.Reason]int // broken records by reason
}

// Lines is how many records were written in all, not counting a header.
func (c Counts) Lines() int {
	n := c.Good + c.Duplicate
	for _, broken := range c.Broken {
		n += broken
	}
	return n
}

func (c *Counts) add(e *Emission) {
	switch {
	case e.Broken():
		c.Broken[e.Reason]++
	case e.Duplicate:
		c.Duplicate++
	default:
		c.Good++
		if e.Late {
			c.Late++
		}
	}
}

// WriteCSV writes what a simulator yields as CSV: a header, the fields in their order, timestamps in
// RFC 3339 UTC with milliseconds, absent fields empty. It ends with the simulator, or with an error when ctx ends or w fails.
// The counts are valid in any case.
func WriteCSV(ctx context.Context, w io.Writer, s *Simulator) (Counts, error) {
	return write(ctx, w, s, appendCSV, []byte(strings.Join(fields, ",")+"\n"))
}

// WriteNDJSON is WriteCSV with one JSON object a line, as AppendJSON makes it.
func WriteNDJSON(ctx context.Context, w io.Writer, s *Simulator) (Counts, error) {
	return write(ctx, w, s, appendJSON, nil)
}

// writeSize is how many bytes are handed to the writer at once.
const writeSize = 64 << 10

func write(ctx context.Context, w io.Writer, s *Simulator, encode encoder, buf []byte) (Counts, error) {
	counts := Counts{Broken: map[telemetry.Reason]int{}}
	handOver := func() error {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("write after %d records: %w", counts.Lines(), err)
		}
		if _, err := w.Write(buf); err != nil {
			return fmt.Errorf("write after %d records: %w", counts.Lines(), err)
		}
		buf = buf[:0]
		return nil
	}
	var e Emission
	for s.Next(&e) {
		buf = append(encode.line(buf, &e), '\n')
		counts.add(&e)
		if len(buf) >= writeSize {
			if err := handOver(); err != nil {
				return counts, err
			}
		}
	}
	return counts, handOver()
}
