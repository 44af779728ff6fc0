package ingest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/spool"
)

const (
	lightBytes   = 1 << 20          // of a sender in the first lane; what it sends beyond goes to another one
	reservedPart = 8                // of the spool, one part is for the first lane
	orderWait    = 10 * time.Second // for a sender's records in the first lane, before those in its own are read
)

// lanes keep senders apart in the spool, whose entries are read in their order: a fleet must not wait behind what another
// one has queued. The entries of all senders go to the first lane. A sender with more than lightBytes there gets another
// lane, until everything it has there is stored. The records of a device stay in order, except after a restart.
type lanes struct {
	spools   []Spool
	capacity int64 // of all, bytes

	mu      sync.Mutex
	writing int64 // bytes of entries that are being appended
	senders map[string]*backlog
	acked   chan struct{} // closed at the next acknowledgment
}

// backlog is what a sender has in the spool, in bytes. Entries from before a restart are not in it.
type backlog struct {
	first, own int64 // in the first lane, and in its own
	lane       int   // its own; 0: none
}

func newLanes(spools []Spool, capacity int64) *lanes {
	return &lanes{spools: spools, capacity: capacity, senders: map[string]*backlog{}, acked: make(chan struct{})}
}

// append appends an entry of a sender.
func (l *lanes) append(ctx context.Context, sender string, entry []byte) error {
	if len(l.spools) == 1 {
		return l.spools[0].Append(ctx, entry)
	}
	size := int64(len(entry))
	lane, err := l.choose(sender, size)
	if err != nil {
		return err
	}
	err = l.spools[lane].Append(ctx, entry)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writing -= size
	if err != nil {
		l.remove(sender, lane, size)
	}
	return err
}

// choose returns the lane of the next entry of a sender.
func (l *lanes) choose(sender string, size int64) (lane int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.senders[sender]
	if b == nil {
		b = &backlog{}
		l.senders[sender] = b
	}
	free, emptiest := l.capacity-l.writing, 1
	bytes := make([]int64, len(l.spools))
	for i, s := range l.spools {
		bytes[i] = s.Bytes()
		free -= bytes[i]
		if i > 0 && bytes[i] < bytes[emptiest] {
			emptiest = i
		}
	}
	own := b.lane
	if own == 0 && b.first+size > lightBytes {
		own = emptiest
	}
	switch {
	case own > 0 && size <= free-l.capacity/reservedPart:
		b.lane = own
		b.own += size
	case b.lane == 0 && b.first+size <= free: // as much as it leaves free
		own = 0
		b.first += size
	default:
		l.forget(sender)
		l.spools[0].NoteFull()
		return 0, fmt.Errorf("%w: %d of %d bytes are free, and this sender has %d", spool.ErrFull, max(0, free), l.capacity, b.first+b.own)
	}
	l.writing += size
	return own, nil
}

// ack acknowledges an entry.
func (l *lanes) ack(sender string, lane int, number uint64, size int64) {
	l.spools[lane].Ack(number)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remove(sender, lane, size)
	close(l.acked)
	l.acked = make(chan struct{})
}

func (l *lanes) remove(sender string, lane int, size int64) {
	b := l.senders[sender]
	switch {
	case b == nil:
		return
	case lane == 0:
		b.first = max(0, b.first-size)
	case lane == b.lane:
		if b.own = max(0, b.own-size); b.own == 0 {
			b.lane = 0
		}
	}
	l.forget(sender)
}

func (l *lanes) forget(sender string) {
	if b := l.senders[sender]; *b == (backlog{}) {
		delete(l.senders, sender)
	}
}

// inOrder waits until what a sender has in the first lane is stored, before an entry of another lane is passed on. An entry
// that is never read again because its disk is damaged delays the others by orderWait once.
func (l *lanes) inOrder(ctx context.Context, sender string) {
	ctx, cancel := context.WithTimeout(ctx, orderWait)
	defer cancel()
	for {
		l.mu.Lock()
		b, acked := l.senders[sender], l.acked
		wait := b != nil && b.lane > 0 && b.first > 0
		if wait && ctx.Err() != nil {
			b.first, wait = 0, false
		}
		l.mu.Unlock()
		if !wait {
			return
		}
		select {
		case <-acked:
		case <-ctx.Done():
		}
	}
}
