package spool

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/etl/internal/disk"
)

const lockFile = "lock"

// lockDir takes the directory for this process. The system lets go of it when the process ends, however it does.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("directory %s is in use by another process: end it, or give this one a directory of its own", dir)
		}
		return nil, fmt.Errorf("lock directory %s: %w", dir, err)
	}
	return f, nil
}

// makeDir makes a directory such that it is there after a crash.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	return disk.SyncDir(filepath.Dir(dir))
}

// recover finds the segments and the mark, and what in them is still to be given. New entries go to a new segment.
func (s *Spool) recover() error {
	var err error
	if s.mark, err = s.loadMark(); err != nil {
		return err
	}
	s.mark = max(1, s.mark)
	s.saved = s.mark
	found, err := s.findSegments()
	if err != nil {
		return err
	}
	s.next = s.mark
	for i, g := range found {
		last := i == len(found)-1
		limit := uint64(math.MaxUint64)
		if !last {
			limit = found[i+1].first
		}
		if limit <= s.mark {
			s.finished = append(s.finished, g)
			continue
		}
		offset, err := s.scan(g, limit)
		if err != nil {
			return err
		}
		s.next = max(s.next, g.end)
		if g.end <= s.mark || g.size == 0 {
			s.finished = append(s.finished, g)
			continue
		}
		if len(s.segments) == 0 {
			s.at = position{g, offset, max(s.mark, g.first)}
			s.markOffset = offset
		}
		s.segments = append(s.segments, g)
		s.held += g.size - offset
		s.entries += int64(g.end - max(s.mark, g.first))
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
			return nil, fmt.Errorf("files %s and %s both begin with entry %d: move the one away that does not belong there",
				found[i-1].path, found[i].path, found[i].first)
		}
	}
	return found, nil
}

// scan reads a segment through and finds its end: the last entry before limit. It gives the offset of the first entry that is
// not done. The last segment, whose limit is the greatest number, may have a torn tail; that is cut off.
func (s *Spool) scan(g *segment, limit uint64) (marked int64, err error) {
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
	in := &window{file: f, buf: make([]byte, 256<<10)}
	offset := int64(0)
	var damage *hole // before offset, with entries that may have been done
	for offset < size && g.end < limit {
		to := min(limit, g.end+uint64((size-g.size)/headerBytes)+1) // as many as have room behind the last intact entry
		e, err := g.readEntry(in, offset, size, g.end, to)
		if err == errDamaged {
			found, err := g.find(in, offset+1, size, g.end, to)
			if err != nil {
				return 0, err
			}
			if found < 0 {
				break
			}
			damage = &hole{offset, found}
			g.holes = append(g.holes, *damage)
			offset = found
			continue
		}
		if err != nil {
			return 0, err
		}
		if damage != nil && e.number > s.mark {
			s.sayDamaged(g, damage.from, damage.to, max(g.end, s.mark))
		}
		damage = nil
		if e.number < s.mark {
			marked = offset + e.size
		}
		offset += e.size
		g.end, g.size = e.number+1, offset
	}
	switch {
	case last && offset < size:
		s.metrics.corrupt.Inc()
		s.logger.WithFields(logrus.Fields{"file": g.path, "at_byte": offset, "bytes": size - offset}).
			Warn("spool segment ended in a torn entry, which nobody was told is safe; it was cut off")
		if err := f.Truncate(g.size); err != nil {
			return 0, g.errorAt(offset, err)
		}
	case !last && g.end < limit && limit > s.mark:
		s.sayDamaged(g, offset, size, max(g.end, s.mark))
	}
	if last {
		if err := f.Sync(); err != nil { // what the process before wrote last may not be on disk, and will be given
			return 0, g.errorAt(offset, err)
		}
	}
	return marked, nil
}

// window reads a file that doesn't change a piece at a time, for who reads it from its beginning to its end.
type window struct {
	file io.ReaderAt
	buf  []byte
	from int64
	n    int64
}

// ReadAt implements io.ReaderAt.
func (w *window) ReadAt(p []byte, offset int64) (int, error) {
	if len(p) > len(w.buf) {
		return w.file.ReadAt(p, offset)
	}
	if offset < w.from || offset+int64(len(p)) > w.from+w.n {
		n, err := w.file.ReadAt(w.buf, offset)
		w.from, w.n = offset, int64(n)
		if n < len(p) {
			return copy(p, w.buf[:n]), err
		}
	}
	return copy(p, w.buf[offset-w.from:]), nil
}
