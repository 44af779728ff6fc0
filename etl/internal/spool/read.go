package spool

import (
	"os"

	"github.com/sirupsen/logrus"
)

// readable returns where the next entry is read, or when there is none, a channel that is closed when there is.
func (s *Spool) readable() (at readRange, more <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return readRange{}, nil, ErrClosed
	}
	for s.readPos.segment == nil || s.readPos.offset == s.readPos.segment.size {
		following := s.segmentAfter(s.readPos.segment)
		if following == nil {
			return readRange{}, s.appended, nil
		}
		s.readPos = position{segment: following, number: following.first}
	}
	return readRange{s.readPos, s.readPos.segment.size, s.readPos.segment.end}, nil, nil
}

// readRange is the position of an entry and the end of its segment, as far as that may be read.
type readRange struct {
	position
	size int64
	end  uint64
}

// segmentAfter returns the segment after one that may be finished, or nil.
func (s *Spool) segmentAfter(g *segment) *segment {
	for _, following := range s.segments {
		if g == nil || following.first > g.first {
			return following
		}
	}
	return nil
}

// read reads the entry at a position and moves on. ok is false when corruption left no entry there.
func (s *Spool) read(at readRange) (payload []byte, number uint64, ok bool, err error) {
	g := at.segment
	if s.file == nil || s.file.Name() != g.path {
		s.closeReader()
		if s.file, err = os.Open(g.path); err != nil {
			s.metrics.failed("read")
			return nil, 0, false, err
		}
	}
	at.offset = g.skipCorrupt(at.offset)
	e, err := g.readEntry(s.file, at.offset, at.size, at.number, at.end)
	switch err {
	case nil:
	case errCorrupt:
		if err := s.skip(at); err != nil {
			return nil, 0, false, err
		}
		return nil, 0, false, nil
	default:
		s.metrics.failed("read")
		return nil, 0, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readPos = position{g, at.offset + e.size, e.number + 1}
	s.unacked.Add(readEntry{number: e.number, timeMs: e.timeMs, end: s.readPos})
	return e.payload, e.number, true, nil
}

// skip skips a range that became corrupt after the spool was opened.
func (s *Spool) skip(at readRange) error {
	g := at.segment
	to, err := g.find(s.file, at.offset+1, at.size, at.number, at.end)
	if err != nil {
		s.metrics.failed("read")
		return err
	}
	after := position{g, to, at.number}
	if to < 0 {
		after = position{g, at.size, at.end}
	}
	s.logCorruption(g, at.offset, after.offset, at.number)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readPos = after
	s.moveCursor(position{})
	return nil
}

// logCorruption logs a range in which accepted entries are lost, from the one with the given number on.
func (s *Spool) logCorruption(g *segment, from, to int64, number uint64) {
	s.metrics.corrupt.Inc()
	s.logger.WithFields(logrus.Fields{"file": g.path, "from_byte": from, "to_byte": to, "from_entry": number}).
		Error("spool segment corrupt, accepted entries are lost: check the disk, and let devices send this time range again")
}

func (s *Spool) closeReader() {
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
}

// oldestMs returns when the first unacknowledged entry was written, in Unix milliseconds; ok is false when there is none.
func (s *Spool) oldestMs() (ms int64, ok bool) {
	s.mu.Lock()
	if e, ok := s.unacked.Oldest(); ok {
		s.mu.Unlock()
		return e.timeMs, true
	}
	at := s.readPos
	if at.segment == nil || at.offset == at.segment.size {
		if at = (position{segment: s.segmentAfter(at.segment)}); at.segment == nil || at.segment.size == 0 {
			s.mu.Unlock()
			return 0, false
		}
	}
	s.mu.Unlock()
	f, err := os.Open(at.segment.path)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	header := make([]byte, headerBytes)
	if _, err := f.ReadAt(header, at.segment.skipCorrupt(at.offset)); err != nil {
		return 0, false
	}
	return parseHeader(header).timeMs, true
}
