// Package csvline splits CSV files into lines, and parses each line into a record. One physical line is one record, so
// that a broken line never costs another one: quoted fields can't contain newlines.
package csvline

import (
	"bytes"
	"hash"
	"io"
	"iter"
	"strings"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// A block of lines becomes one batch.
const (
	BlockBytes = 128 << 10 // more than MaxRawLen, so that only a line above that limit exceeds a block
	BlockLines = 1000
)

// Place is a position between two lines of a file.
type Place struct {
	Offset int64 // bytes before it, decompressed
	Line   int64 // lines before it
}

// Reader splits a stream into blocks of whole lines, with one buffer of fixed size.
type Reader struct {
	in     io.Reader
	prompt bool      // return available lines instead of waiting for a full block
	At     Place     // of the next line
	Hash   hash.Hash // of the bytes before At; nil: they are not hashed
	buf    []byte
	start  int // of the data that was read but not returned
	end    int
	err    error // the error that ended the stream
	ends   []int // of the latest block, reused
}

// Block is a block of lines. All fields of its records are substrings of its text.
type Block struct {
	text string
	ends []int // end of each line in text, newline included; valid until the next block
	from Place
}

// Len returns the number of lines.
func (b *Block) Len() int { return len(b.ends) }

// Lines yields the number of each line in the file and its text without the line end.
func (b *Block) Lines() iter.Seq2[int64, string] {
	return func(yield func(int64, string) bool) {
		start := 0
		for i, end := range b.ends {
			line := strings.TrimSuffix(strings.TrimSuffix(b.text[start:end], "\n"), "\r")
			if start = end; !yield(b.from.Line+int64(i)+1, line) {
				return
			}
		}
	}
}

// NewReader returns a Reader of a stream that starts at a place of a file. If prompt is set, it returns the lines that are
// available instead of waiting for a full block.
func NewReader(in io.Reader, at Place, prompt bool) *Reader {
	return &Reader{in: in, At: at, prompt: prompt, buf: make([]byte, BlockBytes)}
}

// Next returns up to most lines. The error is io.EOF after the last line, with or without a newline. If the stream fails,
// Next omits an incomplete last line and returns the error of the stream.
func (l *Reader) Next(most int) (Block, error) {
	b := Block{from: l.At, ends: l.ends[:0]}
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
		return Block{}, l.err
	default:
		size = rest
		b.ends = append(b.ends, size)
	}
	b.text = string(l.buf[l.start : l.start+size])
	l.skip(size)
	l.At.Line += int64(len(b.ends))
	return b, nil
}

// fill moves the remaining data to the front of the buffer and reads once after it.
func (l *Reader) fill() {
	l.end = copy(l.buf, l.buf[l.start:l.end])
	l.start = 0
	n, err := l.in.Read(l.buf[l.end:])
	l.end += n
	l.err = err
}

func (l *Reader) skip(n int) {
	if l.Hash != nil {
		_, _ = l.Hash.Write(l.buf[l.start : l.start+n]) // a hash accepts everything
	}
	l.start += n
	l.At.Offset += int64(n)
}

// overlong returns the start of a line that exceeds the buffer, one byte longer than the limit of a line, and discards the
// rest of it.
func (l *Reader) overlong(b Block) (Block, error) {
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
			return Block{}, l.err
		}
		l.fill()
	}
	l.At.Line++
	return b, nil
}
