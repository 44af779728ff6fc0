package eventorder

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"

	"github.com/fleettracing/fleet-tracing/etl/internal/disk"
)

// DefaultMemory is the default size of the arena in bytes. Ten million records make about fifty runs.
const DefaultMemory = 32 << 20

// Sorter sorts entries externally: it spills to a directory what exceeds its memory.
type Sorter struct {
	Dir    string // directory of the temporary file; empty is the system's temporary directory
	Memory int    // bytes of encoded entries held at once; 0 is DefaultMemory
	// DiskNote receives the error while the disk is full, during which the sort waits, and nil once it is not. It may be nil.
	DiskNote func(error)
}

const (
	checkEvery  = 1024    // entries between two checks of the context
	firstArena  = 1 << 20 // bytes, like the next ones
	entryBytes  = 24      // of the reference to an entry
	writeBuffer = 256 << 10
	minReadBuf  = 4 << 10
	maxReadBuf  = 256 << 10
)

// Sort reads in to its end when the result is ranged over, then yields its entries in the given order. An error of in, of
// the temporary file or of ctx comes last. The temporary file is unlinked while in use, so that it disappears even if the
// process is killed. It is closed when the range ends.
func (s Sorter) Sort(ctx context.Context, order Order, in iter.Seq2[Entry, error]) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		w := &sorting{order: order, dir: s.Dir, memory: cmp.Or(s.Memory, DefaultMemory), note: s.DiskNote, numbers: map[string]uint32{}}
		defer func() { _ = w.file.Close() }() // closing no file fails, and does nothing
		err := w.fill(ctx, in)
		if err == nil {
			err = w.drain(ctx, yield)
		}
		if err != nil && err != errStopped {
			yield(Entry{}, err)
		}
	}
}

// errStopped means that the consumer of the range stopped.
var errStopped = errors.New("stopped")

// sorting is a sort in progress.
type sorting struct {
	order   Order
	dir     string
	memory  int
	note    func(error)
	origins []string
	numbers map[string]uint32 // of the origins

	arena   []byte   // encoded entries
	entries [][]byte // in the arena
	held    int      // bytes in use for entries

	file    *os.File // unlinked
	out     *bufio.Writer
	runs    []run
	written int64 // bytes
}

// run is a sorted section of the temporary file, in bytes.
type run struct{ from, size int64 }

func (s *sorting) fill(ctx context.Context, in iter.Seq2[Entry, error]) error {
	var encoded []byte
	n := 0
	for e, err := range in {
		if err != nil {
			return err
		}
		if n++; n%checkEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		encoded = s.order.appendEntry(encoded[:0], &e, s.number(e.Origin))
		if s.held+len(encoded)+entryBytes > s.memory && len(s.entries) > 0 {
			if err := s.spill(ctx); err != nil {
				return err
			}
		}
		s.add(encoded)
	}
	return ctx.Err()
}

// add copies an encoded entry into the arena. Entries do not move: when the first arena is full, they stay there, and the
// next one has the size of the memory at once, because doubling would waste as much.
func (s *sorting) add(encoded []byte) {
	if len(s.arena)+len(encoded) > cap(s.arena) {
		size := s.memory
		if s.arena == nil {
			size = min(size, firstArena)
		}
		s.arena = make([]byte, 0, max(size, len(encoded)))
	}
	from := len(s.arena)
	s.arena = append(s.arena, encoded...)
	s.entries = append(s.entries, s.arena[from:])
	s.held += len(encoded) + entryBytes
}

func (s *sorting) number(origin string) uint32 {
	n, ok := s.numbers[origin]
	if !ok {
		n = uint32(len(s.origins))
		s.numbers[origin] = n
		s.origins = append(s.origins, origin)
	}
	return n
}

// spill writes the arena as a sorted run and empties it.
func (s *sorting) spill(ctx context.Context) error {
	slices.SortFunc(s.entries, compare)
	if err := s.writeRun(ctx); err != nil {
		return fmt.Errorf("sort: write temporary file: %w: free disk space, or use another directory", err)
	}
	s.arena, s.entries, s.held = s.arena[:0], s.entries[:0], 0
	return nil
}

func (s *sorting) writeRun(ctx context.Context) error {
	if s.file == nil {
		err := disk.WaitForRoom(ctx, s.note, func() (err error) {
			s.file, err = os.CreateTemp(s.dir, "fleet-etl-sort-*")
			return err
		})
		if err != nil {
			return err
		}
		s.out = bufio.NewWriterSize(disk.NewWriter(ctx, s.file, s.note), writeBuffer)
		if err := os.Remove(s.file.Name()); err != nil {
			return err
		}
	}
	r := run{from: s.written}
	for _, entry := range s.entries { // each after its length; the writer returns its first error from Flush
		width, _ := s.out.Write(binary.AppendUvarint(s.out.AvailableBuffer(), uint64(len(entry))))
		n, _ := s.out.Write(entry)
		r.size += int64(width + n)
	}
	s.runs, s.written = append(s.runs, r), r.from+r.size
	return s.out.Flush()
}

// drain yields the entries in order. It returns errStopped if yield returns false.
func (s *sorting) drain(ctx context.Context, yield func(Entry, error) bool) error {
	n := 0
	give := func(encoded []byte) error {
		if n++; n%checkEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		e, err := readEntry(encoded, s.origins)
		if err == nil && !yield(e, nil) {
			err = errStopped
		}
		return err
	}
	if len(s.runs) > 0 {
		return s.mergeRuns(ctx, give)
	}
	slices.SortFunc(s.entries, compare)
	for _, entry := range s.entries {
		if err := give(entry); err != nil {
			return err
		}
	}
	return nil
}

func (s *sorting) mergeRuns(ctx context.Context, give func([]byte) error) error {
	if err := s.spill(ctx); err != nil {
		return err
	}
	s.arena, s.entries, s.out = nil, nil, nil // the merge has its own buffers

	var heads []*runHead // in the order of their entries
	byEntry := func(a, b *runHead) int { return compare(a.entry, b.entry) }
	readBuffer := min(max(s.memory/len(s.runs), minReadBuf), maxReadBuf)
	for _, r := range s.runs {
		head := &runHead{in: bufio.NewReaderSize(io.NewSectionReader(s.file, r.from, r.size), readBuffer)}
		if err := head.next(); err != nil {
			return err
		}
		heads = append(heads, head)
	}
	slices.SortFunc(heads, byEntry)
	for len(heads) > 0 {
		head, rest := heads[0], heads[1:]
		if err := give(head.entry); err != nil {
			return err
		}
		switch err := head.next(); err {
		case nil:
			i, _ := slices.BinarySearchFunc(rest, head, byEntry)
			copy(heads, rest[:i])
			heads[i] = head
		case io.EOF:
			heads = rest
		default:
			return err
		}
	}
	return nil
}

// runHead is the next entry of a run.
type runHead struct {
	in    *bufio.Reader
	entry []byte
}

// next reads the next entry of the run. It returns io.EOF at the end.
func (h *runHead) next() error {
	n, err := binary.ReadUvarint(h.in)
	if err == io.EOF {
		return err
	}
	if err == nil {
		h.entry = slices.Grow(h.entry[:0], int(n))[:n]
		_, err = io.ReadFull(h.in, h.entry)
	}
	if err != nil {
		return fmt.Errorf("sort: read temporary file: %w", err)
	}
	return nil
}
