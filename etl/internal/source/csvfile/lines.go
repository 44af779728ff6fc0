package csvfile

import (
	"bytes"
	"io"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// A block of lines becomes one batch.
const (
	blockBytes = 128 << 10 // more than MaxRawLen, so that only a line that is too long can be longer than a block
	blockLines = 1000
)

// place is a point between two lines of a file.
type place struct {
	offset int64 // bytes before it, uncompressed
	line   int64 // lines before it
}

// lines cuts a stream into blocks of whole lines, in one buffer whatever the length of a line.
type lines struct {
	in     io.Reader
	prompt bool // give what is there rather than wait until a block is full
	at     place
	buf    []byte
	start  int // of what was read and not given yet
	end    int
	err    error // why there is nothing more to read
	ends   []int // of the latest block, to use its memory again
}

// block is some lines of a file. Its text is one string, of which every field of its records is a part.
type block struct {
	text string
	ends []int // where each line ends in text, its line end included; good until the next block
	from place
}

func newLines(in io.Reader, at place, prompt bool) *lines {
	return &lines{in: in, at: at, prompt: prompt, buf: make([]byte, blockBytes)}
}

// next gives up to most lines. Its error is io.EOF after the last line of a stream that ended well, be there an end to
// that line or not. When the stream broke, an incomplete last line is left out, and the error is what broke it.
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
	l.pass(size)
	l.at.line += int64(len(b.ends))
	return b, nil
}

// fill moves what is left to the front of the buffer and reads once behind it.
func (l *lines) fill() {
	l.end = copy(l.buf, l.buf[l.start:l.end])
	l.start = 0
	n, err := l.in.Read(l.buf[l.end:])
	l.end += n
	l.err = err
}

func (l *lines) pass(n int) {
	l.start += n
	l.at.offset += int64(n)
}

// overlong gives the start of a line that the buffer doesn't hold, one byte longer than a line may be, and passes over
// the rest of it.
func (l *lines) overlong(b block) (block, error) {
	b.text = string(l.buf[:telemetry.MaxRawLen+1])
	b.ends = append(b.ends, len(b.text))
	for {
		if i := bytes.IndexByte(l.buf[l.start:l.end], '\n'); i >= 0 {
			l.pass(i + 1)
			break
		}
		l.pass(l.end - l.start)
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
