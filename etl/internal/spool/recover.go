package spool

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/etl/internal/disk"
)

// makeDir creates a directory durably.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	return disk.SyncDir(filepath.Dir(dir))
}

// recover loads the cursor and finds the segments with unacknowledged entries. New entries go to a new segment.
func (s *Spool) recover() error {
	var err error
	if s.cursor, err = s.loadCursor(); err != nil {
		return err
	}
	s.cursor = max(1, s.cursor)
	s.savedCursor = s.cursor
	found, err := s.findSegments()
	if err != nil {
		return err
	}
	s.next = s.cursor
	for i, g := range found {
		last := i == len(found)-1
		limit := uint64(math.MaxUint64)
		if !last {
			limit = found[i+1].first
		}
		if limit <= s.cursor {
			s.finished = append(s.finished, g)
			continue
		}
		offset, err := s.scan(g, limit)
		if err != nil {
			return err
		}
		s.next = max(s.next, g.end)
		if g.end <= s.cursor || g.size == 0 {
			s.finished = append(s.finished, g)
			continue
		}
		if len(s.segments) == 0 {
			s.readPos = position{g, offset, max(s.cursor, g.first)}
			s.cursorOffset = offset
		}
		s.segments = append(s.segments, g)
		s.used += g.size - offset
		s.entries += int64(g.end - max(s.cursor, g.first))
	}
	return s.removeFinished()
}

func (s *Spool) findSegments() ([]*segment, error) {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var found []*segment
	for _, f := range files {
		if first, salt, ok := parseSegmentName(f.Name()); ok {
			found = append(found, &segment{path: s.path(f.Name()), first: first, salt: salt, end: first})
		}
	}
	slices.SortFunc(found, func(a, b *segment) int { return cmp.Compare(a.first, b.first) })
	for i := 1; i < len(found); i++ {
		if found[i].first == found[i-1].first {
			return nil, fmt.Errorf("files %s and %s both start with entry %d: move the wrong one away",
				found[i-1].path, found[i].path, found[i].first)
		}
	}
	return found, nil
}

// scan reads a segment and finds its end, the last entry before limit, and its corrupt ranges. It returns the offset of the
// first unacknowledged entry. The last segment, whose limit is the greatest number, may have a torn tail; scan truncates it.
func (s *Spool) scan(g *segment, limit uint64) (cursorOffset int64, err error) {
	f, err := os.OpenFile(g.path, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	size := info.Size()
	last := limit == math.MaxUint64
	in := &blockReader{file: f, buf: make([]byte, 256<<10)}
	offset := int64(0)
	var corrupt *corruptRange // before offset; its entries may be acknowledged
	for offset < size && g.end < limit {
		to := min(limit, g.end+uint64((size-g.size)/headerBytes)+1) // as many as fit after the last intact entry
		e, err := g.readEntry(in, offset, size, g.end, to)
		if err == errCorrupt {
			found, err := g.find(in, offset+1, size, g.end, to)
			if err != nil {
				return 0, err
			}
			if found < 0 {
				break
			}
			corrupt = &corruptRange{offset, found}
			g.corrupt = append(g.corrupt, *corrupt)
			offset = found
			continue
		}
		if err != nil {
			return 0, err
		}
		if corrupt != nil && e.number > s.cursor {
			s.logCorruption(g, corrupt.from, corrupt.to, max(g.end, s.cursor))
		}
		corrupt = nil
		if e.number < s.cursor {
			cursorOffset = offset + e.size
		}
		offset += e.size
		g.end, g.size = e.number+1, offset
	}
	switch {
	case last && offset < size:
		s.metrics.corrupt.Inc()
		s.logger.WithFields(logrus.Fields{"file": g.path, "at_byte": offset, "bytes": size - offset}).
			Warn("spool segment ends in a torn entry that was never acknowledged to its sender, truncating it")
		if err := f.Truncate(g.size); err != nil {
			return 0, g.errorAt(offset, err)
		}
	case !last && g.end < limit && limit > s.cursor:
		s.logCorruption(g, offset, size, max(g.end, s.cursor))
	}
	if last {
		if err := f.Sync(); err != nil { // the last writes of the previous process may not be on disk, and Next will return them
			return 0, g.errorAt(offset, err)
		}
	}
	return cursorOffset, nil
}

// blockReader reads a file in blocks, for sequential reads of a file that does not change.
type blockReader struct {
	file io.ReaderAt
	buf  []byte
	from int64
	n    int64
}

// ReadAt implements io.ReaderAt.
func (r *blockReader) ReadAt(p []byte, offset int64) (int, error) {
	if len(p) > len(r.buf) {
		return r.file.ReadAt(p, offset)
	}
	if offset < r.from || offset+int64(len(p)) > r.from+r.n {
		n, err := r.file.ReadAt(r.buf, offset)
		r.from, r.n = offset, int64(n)
		if n < len(p) {
			return copy(p, r.buf[:n]), err
		}
	}
	return copy(p, r.buf[offset-r.from:]), nil
}
