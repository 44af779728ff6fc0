package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"syscall"

	"github.com/fleettracing/fleet-tracing/etl/internal/disk"
)

// group is the entries of one write.
type group struct {
	entries []byte
	count   int
	sealed  chan struct{} // closed when it accepts no more
	written chan struct{} // closed when err is set
	err     error
}

func newGroup(buf []byte) *group {
	return &group{entries: buf[:0], sealed: make(chan struct{}), written: make(chan struct{})}
}

// fits reports whether an entry of the given size fits when the group is limited to max bytes.
func (g *group) fits(size, max int64) bool {
	return g.count == 0 || int64(len(g.entries))+size <= max
}

func (g *group) add(payload []byte) {
	g.entries = appendEntry(g.entries, payload)
	g.count++
}

// writeLoop writes one group after the other until the spool is closed.
func (s *Spool) writeLoop() {
	for closing := false; ; {
		select {
		case <-s.wake:
		case <-s.closing:
			closing = true
		}
		for {
			g := s.nextGroup()
			if g == nil {
				break
			}
			if g.err = s.commit(g); g.err != nil {
				s.mu.Lock()
				s.reserved -= int64(len(g.entries))
				s.mu.Unlock()
			}
			if cap(g.entries) <= 2*groupBytes {
				s.spare = g.entries
			}
			close(g.written)
		}
		if closing {
			return
		}
	}
}

// nextGroup returns the group with the waiting entries, and begins another; nil when none wait.
func (s *Spool) nextGroup() *group {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gathering
	if g.count == 0 {
		return nil
	}
	s.gathering, s.spare = newGroup(s.spare), nil
	close(g.sealed)
	return g
}

// errSync is a failed fsync. Its data may be lost even if the next fsync succeeds, so the entries are written again to
// another segment.
var errSync = errors.New("fsync")

// commit writes a group to disk. After an error, Next returns none of its entries.
func (s *Spool) commit(g *group) error {
	err := s.commitOnce(g)
	if errors.Is(err, errSync) {
		s.logger.WithError(err).Warn("spool segment fsync failed, writing its last entries to a new segment")
		err = s.commitOnce(g)
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

func (s *Spool) commitOnce(g *group) error {
	size := int64(len(g.entries))
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
	stamp(g.entries, s.active.salt, s.next, now.UnixMilli())
	if _, err := s.out.WriteAt(g.entries, s.active.size); err != nil {
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
	s.next += uint64(g.count)
	s.active.end = s.next
	s.reserved -= size
	s.used += size
	s.entries += int64(g.count)
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
