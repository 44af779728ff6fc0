package spool

import (
	"encoding/binary"
	"os"
	"slices"

	"github.com/sirupsen/logrus"
)

// readable returns where the next entry is read, or when there is none, a channel that is closed when there is.
func (s *Spool) readable() (at position, more <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return position{}, nil, ErrClosed
	}
	for s.readPos.segment == nil || s.readPos.offset == s.readPos.segment.size {
		// The segment that was read last may be finished.
		following := slices.IndexFunc(s.segments, func(g *segment) bool { return s.readPos.segment == nil || g.first > s.readPos.segment.first })
		if following < 0 {
			return position{}, s.appended, nil
		}
		s.readPos = position{segment: s.segments[following], number: s.segments[following].first}
	}
	return s.readPos, nil, nil
}

// readAhead is a part of a segment in memory.
type readAhead struct {
	segment *segment
	offset  int64
	bytes   []byte
}

// read reads the entry at a position and moves on. It skips what became corrupt after the spool was opened. ok is false when
// that leaves no entry in the segment.
func (s *Spool) read(at position) (e entry, ok bool, err error) {
	g, skipped := at.segment, int64(0)
	s.mu.Lock()
	size, end := g.size, g.end
	s.mu.Unlock()
	if s.ahead.segment == g && s.ahead.offset == at.offset {
		e, ok = g.parse(s.ahead.bytes, at.number, end)
	}
	if !ok {
		if s.ahead.segment != g || s.ahead.offset != at.offset || at.offset+int64(len(s.ahead.bytes)) < size {
			text, err := readFile(g, at.offset, size)
			if err := s.unreadable(g, err); err != nil {
				return entry{}, false, err
			}
			s.ahead = readAhead{g, at.offset, text}
		}
		e, skipped, ok = g.find(s.ahead.bytes, at.number, end)
	}
	after := position{g, at.offset + skipped + e.size, e.number + 1}
	if !ok {
		after = position{g, size, end}
	}
	if _, known := slices.BinarySearch(g.corrupt, at.offset); (skipped > 0 || !ok) && !known {
		s.logCorruption(g, at.offset, after.offset-e.size, at.number)
	}
	s.ahead.bytes = s.ahead.bytes[after.offset-s.ahead.offset:]
	s.ahead.offset = after.offset
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readPos = after
	if ok {
		s.unacked.Add(after)
	} else {
		s.moveCursor(position{})
	}
	return e, ok, nil
}

// readFile reads a range of a segment. After an error, the bytes that were not read are 0.
func readFile(g *segment, from, to int64) ([]byte, error) {
	f, err := os.Open(g.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text := make([]byte, to-from)
	_, err = f.ReadAt(text, from)
	return text, err
}

// logCorruption logs a range in which accepted entries are lost, from the one with the given number on.
func (s *Spool) logCorruption(g *segment, from, to int64, number uint64) {
	s.metrics.corrupt.Inc()
	s.logger.WithFields(logrus.Fields{"file": g.path, "from_byte": from, "to_byte": to, "from_entry": number}).
		Error("spool segment corrupt, accepted entries are lost: check the disk, and let devices send this time range again")
}

// oldestSeconds returns the age of the first unacknowledged entry; 0 when there is none, or its age can't be read.
func (s *Spool) oldestSeconds() float64 {
	s.mu.Lock()
	if s.entries == 0 {
		s.mu.Unlock()
		return 0
	}
	g, offset, from, to := s.segments[0], s.cursorOffset, s.cursor, s.segments[0].end
	s.mu.Unlock()
	header, err := readFile(g, offset, offset+headerBytes)
	if err != nil {
		return 0
	}
	if number := binary.LittleEndian.Uint64(header[atNumber:]); number < from || number >= to {
		return 0 // it is corrupt
	}
	return max(0, float64(s.now().UnixMilli()-int64(binary.LittleEndian.Uint64(header[atTime:])))/1000)
}
