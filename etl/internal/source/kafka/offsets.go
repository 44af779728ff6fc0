package kafka

import (
	"context"
	"slices"
	"sync"

	"github.com/fleettracing/fleet-tracing/etl/internal/ack"
)

// unknown is an offset that is not known yet.
const unknown = -1

type topicPartition struct {
	topic  string
	number int32
}

// partition is one assignment of a partition to this consumer. A partition that is assigned again is another value, so
// that records of the earlier assignment can neither be emitted nor committed under the new one.
type partition struct {
	topicPartition

	// The mutex of the offsetTracker guards the rest.
	durable   int64 // all records before it are durable; at first where reading begins, or unknown
	epoch     int32 // leader epoch of the last of them
	committed int64 // last committed offset; at first where reading begins, or unknown
	end       int64 // offset up to which records can be read, which is before the first open transaction, or unknown
	inFlight  ack.Tracker[offset]
	closed    bool // being revoked, or no longer assigned
}

// offset is the end of an in-flight range: the records that were emitted together, from the previous range up to next.
type offset struct {
	next  int64
	epoch int32
}

// offsetTracker tracks which records of the assigned partitions are durable. A committed offset says that every record
// before it is done, so it may only be the end of an unbroken run of durable records.
type offsetTracker struct {
	mu       sync.Mutex
	assigned map[topicPartition]*partition
	acked    chan struct{} // closed at the next ack; nil while nothing waits for one
}

func newOffsetTracker() *offsetTracker {
	return &offsetTracker{assigned: map[topicPartition]*partition{}}
}

// assign adds partitions.
func (t *offsetTracker) assign(parts map[string][]int32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for topic, numbers := range parts {
		for _, number := range numbers {
			id := topicPartition{topic, number}
			if t.assigned[id] == nil {
				t.assigned[id] = &partition{topicPartition: id, durable: unknown, committed: unknown, end: unknown}
			}
		}
	}
}

// each calls do for all assigned partitions, with the mutex locked.
func (t *offsetTracker) each(do func(p *partition)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.assigned {
		do(p)
	}
}

// find returns an assigned partition, or nil.
func (t *offsetTracker) find(topic string, number int32) *partition {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.assigned[topicPartition{topic, number}]
}

// begin adds the in-flight range of records from first that ends before next. ok is false when the partition is no longer
// assigned: another consumer reads the records.
func (t *offsetTracker) begin(p *partition, first, next int64, epoch int32) (number uint64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.closed {
		return 0, false
	}
	if p.inFlight.Released() == 0 && p.inFlight.Len() == 0 { // the first one
		p.durable, p.committed = first, first
	}
	return p.inFlight.Add(offset{next, epoch}), true
}

// ack records that an in-flight range is durable. Ranges become durable in any order.
func (t *offsetTracker) ack(p *partition, number uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p.inFlight.Ack(number, func(o offset) {
		if o.next > p.durable { // the offsets of a truncated log go back
			p.durable, p.epoch = o.next, o.epoch
		}
	})
	if t.acked != nil {
		close(t.acked)
		t.acked = nil
	}
}

// close lets no further in-flight range begin in these partitions. It returns the assigned ones.
func (t *offsetTracker) close(parts map[string][]int32) []*partition {
	return t.closeIf(func(p *partition) bool { return slices.Contains(parts[p.topic], p.number) })
}

// closeAll closes every assigned partition.
func (t *offsetTracker) closeAll() []*partition {
	return t.closeIf(func(*partition) bool { return true })
}

func (t *offsetTracker) closeIf(match func(*partition) bool) (closed []*partition) {
	t.each(func(p *partition) {
		if match(p) {
			p.closed = true
			closed = append(closed, p)
		}
	})
	return closed
}

// remove ends the assignment of partitions: nothing of theirs is committed from now on.
func (t *offsetTracker) remove(parts []*partition) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range parts {
		if t.assigned[p.topicPartition] == p {
			delete(t.assigned, p.topicPartition)
		}
	}
}

// wait waits until these partitions have no range in flight, or ctx ends. It returns the number of ranges that still are.
func (t *offsetTracker) wait(ctx context.Context, parts []*partition) int {
	for {
		t.mu.Lock()
		inFlight := 0
		for _, p := range parts {
			inFlight += p.inFlight.Len()
		}
		if inFlight > 0 && t.acked == nil {
			t.acked = make(chan struct{})
		}
		acked := t.acked
		t.mu.Unlock()
		if inFlight == 0 {
			return 0
		}
		select {
		case <-acked:
		case <-ctx.Done():
			return inFlight
		}
	}
}

// uncommitted returns the offsets that are durable and not committed, of the assigned partitions.
func (t *offsetTracker) uncommitted() map[*partition]offset {
	offsets := map[*partition]offset{}
	t.each(func(p *partition) {
		if p.durable > p.committed {
			offsets[p] = offset{p.durable, p.epoch}
		}
	})
	return offsets
}

// setCommitted records that the offset next is committed.
func (t *offsetTracker) setCommitted(p *partition, next int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p.committed = max(p.committed, next)
}

// setEnd records where a partition ends.
func (t *offsetTracker) setEnd(p *partition, end int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p.end = max(p.end, end)
}

// measured records where a partition ends and, if it has given no record yet, where reading begins.
func (p *partition) measured(first, end int64) {
	p.end = max(p.end, end)
	if p.durable == unknown {
		p.durable, p.committed = first, first
	}
}
