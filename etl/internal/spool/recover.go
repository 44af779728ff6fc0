package spool

import (
	"cmp"
	"errors"
	"fmt"
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
	if s.saved, err = s.loadMarks(); err != nil {
		return err
	}
	s.cursor = max(1, s.saved.cursor)
	found, err := s.findSegments()
	if err != nil {
		return err
	}
	s.next = max(s.cursor, s.saved.durable)
	for i, g := range found {
		limit := uint64(math.MaxUint64)
		if i+1 < len(found) {
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
			found = append(found, s.newSegment(first, salt))
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
// first unacknowledged entry. The last segment, whose limit is the greatest number, may have a torn tail; scan truncates it
// unless it is corruption of synced entries. What the disk does not read is corrupt, too.
func (s *Spool) scan(g *segment, limit uint64) (cursorOffset int64, err error) {
	text, err := os.ReadFile(g.path)
	if err := s.unreadable(g, err); err != nil {
		return 0, err
	}
	size, last := int64(len(text)), limit == math.MaxUint64
	for g.end < limit {
		e, skipped, ok := g.find(text[g.size:], g.end, limit)
		if !ok {
			break
		}
		from := g.size + skipped
		if skipped > 0 {
			g.corrupt = append(g.corrupt, g.size)
			if e.number > s.cursor { // else the entries in it may be acknowledged
				s.logCorruption(g, g.size, from, max(g.end, s.cursor))
			}
		}
		if g.end <= s.cursor {
			cursorOffset = from
		}
		g.end, g.size = e.number+1, from+e.size
	}
	switch {
	case last && (g.end < s.saved.durable || g.unreadable): // also where the file ends between two entries
		if s.cursor < s.saved.durable {
			s.logCorruption(g, g.size, size, max(g.end, s.cursor))
		}
	case last:
		if g.size < size {
			s.logger.WithFields(logrus.Fields{"file": g.path, "at_byte": g.size, "bytes": size - g.size}).
				Warn("spool segment ends in a torn entry, truncating it; its sender was answered only if the disk lost what it had synced")
		}
		// The last writes of the previous process may not be on disk, and Next will return them.
		if err := truncateAndSync(g.path, g.size); err != nil {
			return 0, fmt.Errorf("truncate file %s to %d bytes: %w: check the disk", g.path, g.size, err)
		}
	case g.end < limit && limit > s.cursor:
		s.logCorruption(g, g.size, size, max(g.end, s.cursor))
	}
	return cursorOffset, nil
}

func truncateAndSync(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Sync(), f.Close())
}
