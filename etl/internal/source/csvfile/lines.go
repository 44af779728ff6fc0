package csvfile

import (
	"bytes"
	"io"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// A block of lines becomes one batch.
const (
	blockBytes = 128 << 10 // more than MaxRawLen, so that only a line above that limit exceeds a block
	blockLines = 1000
)

// place is a position between two lines of a file.
type place struct {
	offset int64 // bytes before it, decompressed
	line   int64 // lines before it
}

// lines splits a stream into blocks of whole lines, with one buffer of fixed size.
type lines struct {
	in     io.Reader
	prompt bool // return available lines instead of waiting for a full block
	at     place
	buf    []byte
	start  int // of the data that was read but not returned
	end    int
	err    error // the error that ended the stream
	ends   []int // of the latest block, reused
}

// block is a block of lines. All fields of its records are substrings of its text.
type block struct {
	text string
	ends []int // end of each line in text, newline included; valid until the next block
	from place
}

func newLines(in io.Reader, at place, prompt bool) *lines {
	return &lines{in: in, at: at, prompt: prompt, buf: make([]byte, blockBytes)}
}

// next returns up to most lines. The error is io.EOF after the last line, with or without a newline. If the stream fails,
// next omits an incomplete last line and returns the error of the stream.
func (l *lines) next(most int) (block, error) {
	b := block{from: l.at, ends: l.ends[:0]}
	defer func() { l.ends = b.ends }()
	size := 0
	for {
		for len(b.ends) < most {
			i := bytes.IndexByte(l.buf[l.start+size:l.end], '\n')
			if i < 0 {
				break
			}
			size += i + 1
			b.ends = append(b.ends, size)
		}
		full := len(b.ends) == most || l.prompt && size > 0 || l.start == 0 && l.end == len(l.buf)
		if full || l.err != nil {
			break
		}
		l.fill()
	}
	switch rest := l.end - l.start; {
	case size > 0:
	case rest == len(l.buf):
		return l.overlong(b)
	case l.err != io.EOF || rest == 0:
		return block{}, l.err
	default:
		size = rest
		b.ends = append(b.ends, size)
	}
	b.text = string(l.buf[l.start : l.start+size])
	l.skip(size)
	l.at.line += int64(len(b.ends))
	return b, nil
}

// fill moves the remaining data to the front of the buffer and reads once after it.
func (l *lines) fill() {
	l.end = copy(l.buf, l.buf[l.start:l.end])
	l.start = 0
	n, err := l.in.Read(l.buf[l.end:])
	l.end += n
	l.err = err
}

func (l *lines) skip(n int) {
	l.start += n
	l.at.offset += int64(n)
}

// overlong returns the start of a line that exceeds the buffer, one byte longer than the limit of a line, and discards the
// rest of it.
func (l *lines) overlong(b block) (block, error) {
	b.text = string(l.buf[:telemetry.MaxRawLen+1])
	b.ends = append(b.ends, len(b.text))
	for {
		if i := bytes.IndexByte(l.buf[l.start:l.end], '\n'); i >= 0 {
			l.skip(i + 1)
			break
		}
		l.skip(l.end - l.start)
		if l.err == io.EOF {
			break
		}
		if l.err != nil {
			return block{}, l.err
		}
		l.fill()
	}
	l.at.line++
	return b, nil
}
