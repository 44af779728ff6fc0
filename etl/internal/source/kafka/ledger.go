package kafka

import (
	"context"
	"sync"
)

// unknown is an offset that nobody has told us yet.
const unknown = -1

// partition is one partition for as long as the group leaves it to us. One that comes back is another value, so that
// what was read before can neither be handed over nor committed under the new assignment.
type partition struct {
	topic  string
	number int32

	// The ledger's mutex guards the rest.
	first     int64 // where we began, as far as known
	durable   int64 // all records before it are durable, or unknown
	epoch     int32 // of the leader that gave the last of them
	committed int64 // what the group knows of it, or unknown
	end       int64 // offset that the next record in the partition will have, or unknown
	open      []*span
	closed    bool // being revoked, or gone
}

// span is the records that were handed over together: everything from the span before it up to next.
type span struct {
	of    *partition
	next  int64
	epoch int32
	done  bool
}

type place struct {
	topic  string
	number int32
}

// ledger keeps, for each partition that is ours, which records are durable. A group's offset says that everything before
// it is done with, so it may only ever stand at the end of an unbroken run of durable records.
type ledger struct {
	mu      sync.Mutex
	ours    map[place]*partition
	changed chan struct{} // closed at the next change, where somebody waits for one
}

func newLedger() *ledger { return &ledger{ours: map[place]*partition{}} }

// assign takes over partitions.
func (l *ledger) assign(parts map[string][]int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for topic, numbers := range parts {
		for _, number := range numbers {
			at := place{topic, number}
			if l.ours[at] == nil {
				l.ours[at] = &partition{topic: topic, number: number, first: unknown, durable: unknown, committed: unknown, end: unknown}
			}
		}
	}
}

// find gives a partition of ours, or nil.
func (l *ledger) find(topic string, number int32) *partition {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ours[place{topic, number}]
}

// begin opens the span of records from first that ends before next. It is nil where the partition is no longer ours:
// the records are somebody else's then.
func (l *ledger) begin(p *partition, first, next int64, epoch int32) *span {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.closed {
		return nil
	}
	if p.durable == unknown {
		p.durable, p.first = first, first
	}
	s := &span{of: p, next: next, epoch: epoch}
	p.open = append(p.open, s)
	return s
}

// done notes that a span's records are durable, in whatever order spans become so.
func (l *ledger) done(s *span) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.done = true
	p := s.of
	for len(p.open) > 0 && p.open[0].done {
		if p.open[0].next > p.durable { // a log that was cut short may have begun anew
			p.durable, p.epoch = p.open[0].next, p.open[0].epoch
		}
		p.open[0] = nil
		p.open = p.open[1:]
	}
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// close lets no further span begin in these partitions and gives those of them that are ours.
func (l *ledger) close(parts map[string][]int32) []*partition {
	l.mu.Lock()
	defer l.mu.Unlock()
	var closed []*partition
	for topic, numbers := range parts {
		for _, number := range numbers {
			if p := l.ours[place{topic, number}]; p != nil {
				p.closed = true
				closed = append(closed, p)
			}
		}
	}
	return closed
}

// closeAll is close for all that is ours.
func (l *ledger) closeAll() []*partition {
	l.mu.Lock()
	defer l.mu.Unlock()
	var closed []*partition
	for _, p := range l.ours {
		p.closed = true
		closed = append(closed, p)
	}
	return closed
}

// forget drops partitions: nothing of theirs is committed from now on.
func (l *ledger) forget(parts []*partition) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range parts {
		if at := (place{p.topic, p.number}); l.ours[at] == p {
			delete(l.ours, at)
		}
	}
}

// settle waits until no span of these partitions is open, or ctx ends, and gives the number of those that still are.
func (l *ledger) settle(ctx context.Context, parts []*partition) int {
	for {
		l.mu.Lock()
		open := 0
		for _, p := range parts {
			open += len(p.open)
		}
		if open > 0 && l.changed == nil {
			l.changed = make(chan struct{})
		}
		changed := l.changed
		l.mu.Unlock()
		if open == 0 {
			return 0
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return open
		}
	}
}

// due is what is durable and not yet committed, of partitions that are ours.
func (l *ledger) due() map[*partition]span {
	l.mu.Lock()
	defer l.mu.Unlock()
	due := map[*partition]span{}
	for _, p := range l.ours {
		if p.durable > p.committed && p.durable > p.first {
			due[p] = span{next: p.durable, epoch: p.epoch}
		}
	}
	return due
}

// commit notes that the group knows of everything before next.
func (l *ledger) commit(p *partition, next int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.committed = max(p.committed, next)
}

// reaches notes where a partition ends.
func (l *ledger) reaches(p *partition, end int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.end = max(p.end, end)
}

// from notes where reading began in a partition that has given no record yet.
func (l *ledger) from(topic string, number int32, offset int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.ours[place{topic, number}]; p != nil && p.first == unknown {
		p.first = offset
	}
}

// standing is how far a partition is.
type standing struct {
	place
	position, end int64 // or unknown
}

func (l *ledger) standings() []standing {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]standing, 0, len(l.ours))
	for at, p := range l.ours {
		s := standing{place: at, position: p.durable, end: p.end}
		if s.position == unknown {
			s.position = p.first
		}
		all = append(all, s)
	}
	return all
}
