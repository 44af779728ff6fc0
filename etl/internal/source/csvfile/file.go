package csvfile

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync/atomic"

	"github.com/fleettracing/fleet-tracing/etl/internal/csvline"
)

// file is one input.
type file struct {
	path    string        // as given by the user
	size    int64         // bytes on disk when it was opened; 0 for standard input
	end     csvline.Place // where the reading ended
	sum     []byte        // of the bytes before it
	columns *csvline.Columns
}

// name returns the name of the file for messages.
func (f *file) name() string {
	if f.path == Stdin {
		return "standard input"
	}
	return "file " + f.path
}

// errorAt adds the file and line to a read error.
func (f *file) errorAt(line int64, err error) error {
	return fmt.Errorf("read %s line %d: %w", f.name(), line, explain(err))
}

// explain adds the remedy for damaged data, and removes what errorAt adds.
func explain(err error) error {
	var corrupt flate.CorruptInputError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: the gzip data is cut short: replace it with the complete file and run the command again", err)
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.As(err, &corrupt):
		return fmt.Errorf("%w: the gzip data is damaged: replace it with an intact file and run the command again", err)
	default:
		return cause(err)
	}
}

// stream is an open file, decompressed.
type stream struct {
	*csvline.Reader
	io.Closer
}

// open opens the file at the given place. It adds the bytes read from disk to read.
func (f *file) open(ctx context.Context, stdin io.Reader, at csvline.Place, read *atomic.Int64) (*stream, error) {
	var raw io.ReadCloser
	if f.path == Stdin {
		raw = interruptible(ctx, stdin)
	} else {
		opened, info, err := openRegular(f.path)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", f.name(), err)
		}
		raw, f.size = opened, info.Size()
	}
	text, err := decompress(ctx, raw, at.Offset, read)
	if err != nil {
		raw.Close()
		return nil, f.errorAt(at.Line+1, err)
	}
	return &stream{csvline.NewReader(text, at, f.path == Stdin), raw}, nil
}

// sum returns the hash of the bytes before the next line, or nil if they are not hashed.
func (s *stream) sum() []byte {
	if s.Hash == nil {
		return nil
	}
	return s.Hash.Sum(nil)
}

// checkUnchanged reads the files again, and returns an error if one has contents that differ from the loaded ones.
func (in *inputs) checkUnchanged(ctx context.Context) error {
	for _, f := range in.files {
		if f.path == Stdin {
			continue
		}
		again, whole, err := hashFile(ctx, f.path, f.end.Offset)
		switch {
		case err != nil && err != errChanged:
			return fmt.Errorf("check whether %s has changed: %w", f.name(), explain(err))
		case err != nil || !whole || !bytes.Equal(again.Sum(nil), f.sum):
			return fmt.Errorf("%s was changed while it was loaded: run the command again once nothing writes to it", f.name())
		}
	}
	return nil
}

// hashFile hashes the first n bytes of a file, decompressed. whole reports whether the file ends there. The error is
// errChanged if the file is shorter, or if it is longer and no line ends there.
func hashFile(ctx context.Context, path string, n int64) (h hash.Hash, whole bool, err error) {
	f, _, err := openRegular(path)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	text, err := decompress(ctx, f, 0, new(atomic.Int64))
	if err != nil {
		return nil, false, err
	}
	h = sha256.New()
	last, err := copyN(ctx, h, text, n)
	if err != nil {
		return nil, false, err
	}
	_, err = io.ReadFull(text, make([]byte, 1))
	switch {
	case err == io.EOF:
		return h, true, nil
	case err == nil && n > 0 && last != '\n':
		return nil, false, errChanged
	}
	return h, false, err
}

// readHeader reads the first line of a stream and finds the fields in it.
func (f *file) readHeader(s *stream, mapping *csvline.Mapping) error {
	first, err := s.Next(1)
	if err == io.EOF {
		return fmt.Errorf("read %s: it is empty: the first line must name the columns", f.name())
	}
	if err != nil {
		return f.errorAt(1, err)
	}
	for _, line := range first.Lines() {
		f.columns, err = mapping.Header(line)
	}
	if err != nil {
		return fmt.Errorf("read %s line 1: %w", f.name(), err)
	}
	return nil
}

var gzipMagic = []byte{0x1f, 0x8b}

// decompress returns the contents of raw from the offset. It detects gzip by the first bytes: names may mislead, and
// standard input has none.
func decompress(ctx context.Context, raw io.Reader, offset int64, read *atomic.Int64) (io.Reader, error) {
	counted := &counter{raw, read}
	magic := make([]byte, len(gzipMagic))
	n, err := io.ReadFull(counted, magic)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, err
	}
	whole := io.MultiReader(bytes.NewReader(magic[:n]), counted)
	if bytes.Equal(magic, gzipMagic) {
		text, err := gzip.NewReader(bufio.NewReaderSize(whole, 64<<10))
		if err != nil {
			return nil, err
		}
		last, err := copyN(ctx, io.Discard, text, offset)
		if err == nil && offset > 0 && last != '\n' {
			err = errChanged
		}
		return text, err
	}
	if seeker, ok := raw.(io.Seeker); ok && offset > 0 {
		read.Add(offset - int64(n))
		_, err := seeker.Seek(offset, io.SeekStart)
		return counted, err
	}
	return whole, nil
}

// errChanged means that a file differs from the one that an earlier run read.
var errChanged = errors.New("no line ends where an earlier run stopped: the file was changed")

// copyN copies n bytes, and returns the last one. The error is errChanged if there are fewer.
func copyN(ctx context.Context, w io.Writer, r io.Reader, n int64) (last lastByte, err error) {
	const step = 1 << 20
	for w = io.MultiWriter(w, &last); n > 0; n -= min(n, step) {
		if ctx.Err() != nil {
			return last, ctx.Err()
		}
		if _, err := io.CopyN(w, r, min(n, step)); err == io.EOF {
			return last, errChanged
		} else if err != nil {
			return last, err
		}
	}
	return last, nil
}

// lastByte is the last byte that was written to it.
type lastByte byte

func (l *lastByte) Write(p []byte) (int, error) {
	*l = lastByte(p[len(p)-1]) // a copy writes no empty slice
	return len(p), nil
}

// counter adds the bytes read through it to a shared sum.
type counter struct {
	io.Reader
	sum *atomic.Int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.sum.Add(int64(n))
	return n, err
}

// interruptible reads r until ctx ends. A read from a terminal or a pipe can't be canceled, so a goroutine does it. If ctx
// ends during such a read, the goroutine ends with the next byte or with the process. Close stops it too.
func interruptible(ctx context.Context, r io.Reader) io.ReadCloser {
	out, in := io.Pipe()
	go func() {
		_, err := io.Copy(in, r)
		in.CloseWithError(err)
	}()
	context.AfterFunc(ctx, func() { out.CloseWithError(ctx.Err()) })
	return out
}
