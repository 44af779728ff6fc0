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
	"maps"
	"math"
	"os"
	"slices"
	"strings"
)

// DefaultMemory is the default size of the arena in bytes. Ten million records make about fifty runs.
const DefaultMemory = 32 << 20

// Sorter sorts entries externally: it spills to a directory what exceeds its memory.
type Sorter struct {
	Dir    string // directory of the temporary file; empty is the system's temporary directory
	Memory int    // bytes of encoded entries held at once; 0 is DefaultMemory
}

const (
	checkEvery  = 1024          // entries between two checks of the context
	maxMemory   = 1<<32 - 1<<20 // so that an offset into the arena fits into a ref; bytes, like the next ones
	firstArena  = 1 << 20
	writeBuffer = 256 << 10
	minReadBuf  = 4 << 10
	maxReadBuf  = 256 << 10
)

// Sort reads in to its end when the result is ranged over, then yields its entries in the given order. An error of in, of
// the temporary file or of ctx comes last. The temporary file is unlinked while in use, so that it disappears even if the
// process is killed. It is closed when the range ends.
func (s Sorter) Sort(ctx context.Context, order Order, in iter.Seq2[Entry, error]) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		w := &sorting{
			order: order, dir: s.Dir, memory: min(cmp.Or(s.Memory, DefaultMemory), maxMemory),
			numbers: map[string]uint32{}, devices: map[string]uint32{},
		}
		defer w.close()
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
	origins []string
	numbers map[string]uint32 // of the origins

	arena   []byte            // encoded entries, each after its length
	refs    []ref             // offsets of the entries
	devices map[string]uint32 // numbers of the devices in the arena

	file    *os.File // unlinked
	out     *bufio.Writer
	runs    []run
	written int64 // bytes
}

// ref points to an encoded entry in the arena. It has the main sort keys, so that few comparisons read the arena.
type ref struct {
	timeMs int64
	device uint32 // the device's number from 1; 0 for rejected text
	at     uint32
}

// Memory of a ref and of a device in bytes; a map entry takes more than its key.
const refBytes, deviceBytes = 16, 64

// run is a sorted section of the temporary file, in bytes.
type run struct{ from, size int64 }

func (s *sorting) close() {
	if s.file != nil {
		s.file.Close()
	}
}

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
		encoded = appendEntry(encoded[:0], &e, s.number(e.Origin))
		if s.held()+len(encoded) > s.memory && len(s.refs) > 0 {
			if err := s.spill(); err != nil {
				return err
			}
		}
		s.add(&e, encoded)
	}
	return ctx.Err()
}

// held returns the memory in use for entries, in bytes.
func (s *sorting) held() int {
	return len(s.arena) + refBytes*len(s.refs) + deviceBytes*len(s.devices)
}

func (s *sorting) add(e *Entry, encoded []byte) {
	r := ref{timeMs: math.MinInt64, at: uint32(len(s.arena))} // rejected text comes first
	if e.Rejection == nil {
		r.timeMs = e.TimeMs
		var known bool
		if r.device, known = s.devices[e.DeviceID]; !known {
			r.device = uint32(len(s.devices)) + 1
			s.devices[strings.Clone(e.DeviceID)] = r.device
		}
	}
	s.refs = append(s.refs, r)
	if need := len(s.arena) + binary.MaxVarintLen32 + len(encoded); need > firstArena && need > cap(s.arena) {
		s.arena = slices.Grow(s.arena, max(need, s.memory)-len(s.arena)) // at once: doubling would waste as much memory
	}
	s.arena = binary.AppendUvarint(s.arena, uint64(len(encoded)))
	s.arena = append(s.arena, encoded...)
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

// framed returns the encoded entry at an offset of the arena, after its length.
func (s *sorting) framed(at uint32) []byte {
	n, width := binary.Uvarint(s.arena[at:])
	return s.arena[at:][:width+int(n)]
}

// entry returns the encoded entry at an offset of the arena.
func (s *sorting) entry(at uint32) []byte {
	n, width := binary.Uvarint(s.arena[at:])
	return s.arena[int(at)+width:][:n]
}

func (s *sorting) sortRefs() {
	ranks := make([]int, len(s.devices)+1)
	for rank, device := range slices.Sorted(maps.Keys(s.devices)) {
		ranks[s.devices[device]] = rank
	}
	ranks[0] = -1
	slices.SortFunc(s.refs, func(a, b ref) int {
		first, second := cmp.Compare(ranks[a.device], ranks[b.device]), cmp.Compare(a.timeMs, b.timeMs)
		if s.order == ByTime {
			first, second = second, first
		}
		if c := cmp.Or(first, second); c != 0 {
			return c
		}
		return compareRest(s.entry(a.at), s.entry(b.at))
	})
}

// spill writes the arena as a sorted run and empties it.
func (s *sorting) spill() error {
	s.sortRefs()
	if err := s.writeRun(); err != nil {
		return fmt.Errorf("sort: write temporary file: %w: free disk space, or use another directory", err)
	}
	s.arena, s.refs = s.arena[:0], s.refs[:0]
	clear(s.devices)
	return nil
}

func (s *sorting) writeRun() error {
	if s.file == nil {
		f, err := os.CreateTemp(s.dir, "fleet-etl-sort-*")
		if err != nil {
			return err
		}
		s.file, s.out = f, bufio.NewWriterSize(f, writeBuffer)
		if err := os.Remove(f.Name()); err != nil {
			return err
		}
	}
	r := run{from: s.written}
	for _, ref := range s.refs {
		n, _ := s.out.Write(s.framed(ref.at)) // the writer returns its first error from Flush
		r.size += int64(n)
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
		return s.mergeRuns(give)
	}
	s.sortRefs()
	for _, ref := range s.refs {
		if err := give(s.entry(ref.at)); err != nil {
			return err
		}
	}
	return nil
}

func (s *sorting) mergeRuns(give func([]byte) error) error {
	if err := s.spill(); err != nil {
		return err
	}
	s.arena, s.refs, s.devices, s.out = nil, nil, nil, nil // the merge has its own buffers

	var heads []*runHead // in the order of their entries
	byEntry := func(a, b *runHead) int { return s.order.compare(a.entry, b.entry) }
	for _, r := range s.runs {
		head := &runHead{in: bufio.NewReaderSize(io.NewSectionReader(s.file, r.from, r.size), s.readBuffer())}
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

// readBuffer divides the memory of the arena among the runs, within useful bounds.
func (s *sorting) readBuffer() int {
	return min(max(s.memory/len(s.runs), minReadBuf), maxReadBuf)
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
