package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"

	"github.com/fleettracing/fleet-tracing/etl/internal/disk"
)

// appending is an entry that Append waits for.
type appending struct {
	entry   []byte
	written chan error // buffered, because Append may be gone
}

// writeLoop writes one group of entries after the other until the spool is closed.
func (s *Spool) writeLoop() {
	var waiting []appending
	var group []byte
	for {
		if len(waiting) == 0 {
			select {
			case a := <-s.appends:
				waiting = append(waiting, a)
			case <-s.closing:
				return
			}
		}
		count := 0
		for group = group[:0]; count < len(waiting); {
			next := waiting[count].entry
			if count > 0 && int64(len(group)+headerBytes+len(next)) > min(groupBytes, s.o.SegmentBytes) {
				break
			}
			group = appendEntry(group, next)
			if count++; count == len(waiting) {
				select {
				case a := <-s.appends: // it arrived during the write before
					waiting = append(waiting, a)
				default:
				}
			}
		}
		err := s.commit(group, count)
		for _, a := range waiting[:count] {
			a.written <- err
		}
		waiting = slices.Delete(waiting, 0, count)
		if cap(group) > 2*groupBytes {
			group = nil
		}
	}
}

// errSync is a failed fsync. Its data may be lost even if the next fsync succeeds, so the entries are written again to
// another segment.
var errSync = errors.New("fsync")

// commit writes a group of entries to disk. After an error, Next returns none of them.
func (s *Spool) commit(group []byte, count int) error {
	err := s.commitOnce(group, count)
	if errors.Is(err, errSync) {
		s.logger.WithError(err).Warn("spool segment fsync failed, writing its last entries to a new segment")
		err = s.commitOnce(group, count)
	}
	if err != nil {
		s.release(int64(len(group)))
	}
	if disk.Full(err) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

func (s *Spool) commitOnce(group []byte, count int) error {
	size := int64(len(group))
	if s.active != nil && s.active.size > 0 && s.active.size+size > s.o.SegmentBytes {
		s.seal()
	}
	if s.active == nil {
		if err := s.begin(); err != nil {
			s.metrics.failed("create")
			return err
		}
	}
	now := s.now()
	stamp(group, s.active.salt, s.next, now.UnixMilli())
	if _, err := s.out.WriteAt(group, s.active.size); err != nil {
		s.metrics.failed("write")
		if failed := s.out.Truncate(s.active.size); failed != nil { // it removes what the write may have left
			s.logger.WithError(errors.Join(err, failed)).Warn("spool segment truncation after a failed write failed, continuing in a new segment")
			s.seal()
		}
		return err
	}
	started := s.now()
	err := s.out.Sync()
	s.metrics.sync.Observe(s.now().Sub(started).Seconds())
	if err != nil {
		s.metrics.failed("sync")
		_ = s.out.Truncate(s.active.size) // entries that remain there are ignored: the next segment starts with the same number
		s.seal()
		return fmt.Errorf("%w: %w", errSync, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active.size += size
	s.next += uint64(count)
	s.active.end = s.next
	s.reserved -= size
	s.used += size
	s.entries += int64(count)
	close(s.appended)
	s.appended = make(chan struct{})
	return nil
}

// begin starts a new active segment.
func (s *Spool) begin() error {
	if err := s.removeEmpty(); err != nil {
		return err
	}
	g := s.newSegment(s.next, rand.Uint64())
	out, err := s.create(g.path)
	if err != nil {
		return err
	}
	if err := disk.SyncDir(s.dir); err != nil {
		_ = out.Close()
		return err
	}
	s.out = out
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active = g
	s.segments = append(s.segments, g)
	return nil
}

// removeEmpty removes segments that failed before they held an entry, so that no two segments start with the same number.
func (s *Spool) removeEmpty() error {
	empty, err := fs.Glob(os.DirFS(s.dir), fmt.Sprintf("%020d-*%s", s.next, segmentSuffix))
	for _, name := range empty {
		err = errors.Join(err, os.Remove(s.path(name)))
	}
	if len(empty) > 0 {
		err = errors.Join(err, disk.SyncDir(s.dir))
	}
	return err
}

// seal closes the active segment, if there is one. Its entries are on disk already.
func (s *Spool) seal() {
	if s.out != nil {
		_ = s.out.Close() // each write was synced; without s.mu, because a broken disk may block
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active != nil && s.active.size == 0 {
		s.segments = s.segments[:len(s.segments)-1]
	}
	s.active, s.out = nil, nil
	s.moveCursor(position{})
}
