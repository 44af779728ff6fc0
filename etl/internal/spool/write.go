package spool

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/fleettracing/fleet-tracing/etl/internal/disk"
)

// group is the entries that are written at once.
type group struct {
	entries []byte
	count   int
	taken   chan struct{} // closed when it takes no more
	written chan struct{} // closed when err holds
	err     error
}

func newGroup(buf []byte) *group {
	return &group{entries: buf[:0], taken: make(chan struct{}), written: make(chan struct{})}
}

// takes tells whether an entry of such a size has room in a group of at most so many bytes.
func (g *group) takes(size, most int64) bool {
	return g.count == 0 || int64(len(g.entries))+size <= most
}

func (g *group) add(payload []byte) {
	g.entries = appendEntry(g.entries, payload)
	g.count++
}

// write writes one group after the other until the spool is closed.
func (s *Spool) write() {
	for closing := false; ; {
		select {
		case <-s.wake:
		case <-s.closing:
			closing = true
		}
		for {
			g := s.take()
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

// take gives the group that was gathered, and begins another; nil when there is none.
func (s *Spool) take() *group {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gathering
	if g.count == 0 {
		return nil
	}
	s.gathering, s.spare = newGroup(s.spare), nil
	close(g.taken)
	return g
}

// unsynced is a failed fsync. What it should have brought to disk may be lost though a second one would succeed, so the
// same entries are written again elsewhere.
type unsynced struct{ error }

func (u unsynced) Unwrap() error { return u.error }

// commit brings a group to disk. After an error none of its entries will be given.
func (s *Spool) commit(g *group) error {
	err := s.commitOnce(g)
	if lost := (unsynced{}); errors.As(err, &lost) {
		s.logger.WithError(err).Warn("spool segment could not be synced; writing its last entries to a new one")
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
		s.mu.Lock()
		s.seal()
		s.settle()
		s.mu.Unlock()
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
		s.cutBack(err)
		return err
	}
	started := s.now()
	err := s.out.Sync()
	s.metrics.sync.Observe(s.now().Sub(started).Seconds())
	if err != nil {
		s.metrics.failed("sync")
		_ = s.out.Truncate(s.active.size) // what stays there is passed over: the next segment begins with the same number
		s.mu.Lock()
		s.seal()
		s.mu.Unlock()
		return unsynced{err}
	}
	s.leftover = ""

	s.mu.Lock()
	defer s.mu.Unlock()
	s.active.size += size
	s.next += uint64(g.count)
	s.active.end = s.next
	s.reserved -= size
	s.held += size
	s.entries += int64(g.count)
	close(s.appended)
	s.appended = make(chan struct{})
	return nil
}

// cutBack takes away what a failed write may have left.
func (s *Spool) cutBack(cause error) {
	if err := s.out.Truncate(s.active.size); err != nil {
		s.logger.WithError(errors.Join(cause, err)).Warn("spool segment could not be cut back after a failed write; going on in a new one")
		s.mu.Lock()
		s.seal()
		s.mu.Unlock()
	}
}

// begin makes a new segment the active one.
func (s *Spool) begin() error {
	if err := s.removeLeftover(); err != nil {
		return err
	}
	g := newSegment(s.path, s.next)
	s.leftover = g.path // until it holds an entry
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

// seal ends the active segment, if there is one. Its entries are on disk already.
func (s *Spool) seal() {
	if s.active == nil {
		return
	}
	_ = s.out.Close() // each write was synced
	if s.active.size == 0 {
		s.segments = s.segments[:len(s.segments)-1]
	}
	s.active, s.out = nil, nil
}

// removeLeftover removes a segment that holds no entry, so that there are never two that begin with the same number.
func (s *Spool) removeLeftover() error {
	if s.leftover == "" {
		return nil
	}
	if err := os.Remove(s.leftover); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := disk.SyncDir(s.dir); err != nil {
		return err
	}
	s.leftover = ""
	return nil
}
