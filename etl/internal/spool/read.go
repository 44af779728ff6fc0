package spool

import (
	"os"

	"github.com/sirupsen/logrus"
)

// readable gives the place of the next entry, or when there is none, a channel that is closed when there is.
func (s *Spool) readable() (at place, more <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return place{}, nil, ErrClosed
	}
	for s.at.segment == nil || s.at.offset == s.at.segment.size {
		following := s.segmentBehind(s.at.segment)
		if following == nil {
			return place{}, s.appended, nil
		}
		s.at = position{segment: following, number: following.first}
	}
	return place{s.at, s.at.segment.size, s.at.segment.end}, nil, nil
}

// place is where an entry is read, with how far its segment may be read.
type place struct {
	position
	size int64
	end  uint64
}

// segmentBehind gives the segment that follows on one that may be done, or nil.
func (s *Spool) segmentBehind(g *segment) *segment {
	for _, following := range s.segments {
		if g == nil || following.first > g.first {
			return following
		}
	}
	return nil
}

// read reads the entry at a place and moves on. Where there is none any more, because of damage, ok is false.
func (s *Spool) read(at place) (payload []byte, number uint64, ok bool, err error) {
	g := at.segment
	if s.file == nil || s.file.Name() != g.path {
		s.closeReader()
		if s.file, err = os.Open(g.path); err != nil {
			s.metrics.failed("read")
			return nil, 0, false, err
		}
	}
	at.offset = g.behindHole(at.offset)
	e, err := g.readEntry(s.file, at.offset, at.size, at.number, at.end)
	switch err {
	case nil:
	case errDamaged:
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
	s.at = position{g, at.offset + e.size, e.number + 1}
	s.given = append(s.given, given{number: e.number, timeMs: e.timeMs, behind: s.at})
	return e.payload, e.number, true, nil
}

// skip passes over damage that came since the spool was opened.
func (s *Spool) skip(at place) error {
	g := at.segment
	to, err := g.find(s.file, at.offset+1, at.size, at.number, at.end)
	if err != nil {
		s.metrics.failed("read")
		return err
	}
	behind := position{g, to, at.number}
	if to < 0 {
		behind = position{g, at.size, at.end}
	}
	s.sayDamaged(g, at.offset, behind.offset, at.number)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = behind
	s.settle()
	return nil
}

// sayDamaged tells of damage that hit entries which senders were told are safe, from the one with the number on.
func (s *Spool) sayDamaged(g *segment, from, to int64, number uint64) {
	s.metrics.corrupt.Inc()
	s.logger.WithFields(logrus.Fields{"file": g.path, "from_byte": from, "to_byte": to, "from_entry": number}).
		Error("spool segment is damaged: entries that were accepted are lost; check the disk, and have devices send the time around this again")
}

func (s *Spool) closeReader() {
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
}

// oldestMs is when the first entry that is not done was written, in Unix milliseconds; ok is false when there is none.
func (s *Spool) oldestMs() (ms int64, ok bool) {
	s.mu.Lock()
	if len(s.given) > 0 {
		ms = s.given[0].timeMs
		s.mu.Unlock()
		return ms, true
	}
	at := s.at
	if at.segment == nil || at.offset == at.segment.size {
		if at = (position{segment: s.segmentBehind(at.segment)}); at.segment == nil || at.segment.size == 0 {
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
	if _, err := f.ReadAt(header, at.segment.behindHole(at.offset)); err != nil {
		return 0, false
	}
	return parseHeader(header).timeMs, true
}
