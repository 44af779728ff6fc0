package generator

import "container/heap"

// held is a record that arrives late, or again. It is small: a fleet of 100,000 vehicles may have as many in flight.
type held struct {
	at      int64  // when it arrives, nanoseconds after the start
	seq     uint64 // in which order records of one instant arrive
	vehicle int32  // index of the vehicle
	kind    heldKind
	damage  uint64 // what is broken, for brokenKind
	reading reading
}

type heldKind uint8

const (
	lateKind heldKind = iota
	duplicateKind
	brokenKind
)

func (h held) before(o held) bool { return h.at < o.at || h.at == o.at && h.seq < o.seq }

func (s *Simulator) hold(h held) {
	s.seq++
	h.seq = s.seq
	heap.Push(&s.held, h)
}

// release emits a held record.
func (s *Simulator) release(e *Emission, h held) {
	s.fill(e, &s.vehicles[h.vehicle], h.at, &h.reading)
	switch h.kind {
	case lateKind:
		e.Late = true
	case duplicateKind:
		e.Duplicate = true
	case brokenKind:
		breakIt(e, h.damage)
	}
}
