package live

import (
	"context"
	"sync"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// Broadcaster reads each watched fleet once per interval, however many streams watch it.
type Broadcaster struct {
	read     func(ctx context.Context, fleet string) ([]cassandra.Telemetry, error)
	interval time.Duration
	timeout  time.Duration // of one read

	mu     sync.Mutex
	closed bool
	feeds  map[string]*feed
	wg     sync.WaitGroup
}

// feed is the reader of one fleet and its subscribers.
type feed struct {
	cancel      context.CancelFunc
	subscribers map[chan Snapshot]bool
}

// Snapshot is the latest record of each device of a fleet, or the error after which the fleet counts as unreadable.
type Snapshot struct {
	Rows []cassandra.Telemetry
	Err  error
}

// NewBroadcaster makes a broadcaster that calls read for each watched fleet, with a timeout.
func NewBroadcaster(read func(context.Context, string) ([]cassandra.Telemetry, error), interval, timeout time.Duration) *Broadcaster {
	return &Broadcaster{read: read, interval: interval, timeout: timeout, feeds: map[string]*feed{}}
}

// Subscribe returns the snapshots of a fleet from now on. A slow subscriber misses older snapshots. The caller must
// call cancel. The channel is closed when the broadcaster is.
func (b *Broadcaster) Subscribe(fleet string) (snapshots <-chan Snapshot, cancel func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	subscriber := make(chan Snapshot, 1)
	if b.closed {
		close(subscriber)
		return subscriber, func() {}
	}
	f := b.feeds[fleet]
	if f == nil {
		ctx, cancel := context.WithCancel(context.Background())
		f = &feed{cancel: cancel, subscribers: map[chan Snapshot]bool{}}
		b.feeds[fleet] = f
		b.wg.Go(func() { b.run(ctx, fleet, f) })
	}
	f.subscribers[subscriber] = true
	return subscriber, func() { b.unsubscribe(fleet, f, subscriber) }
}

func (b *Broadcaster) unsubscribe(fleet string, f *feed, subscriber chan Snapshot) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(f.subscribers, subscriber)
	if len(f.subscribers) == 0 {
		f.cancel()
		if b.feeds[fleet] == f {
			delete(b.feeds, fleet)
		}
	}
}

// maxFailures is how many reads of a fleet may fail in a row before its streams end and Grafana restarts them.
const maxFailures = 5

// run reads a fleet every interval until ctx ends.
func (b *Broadcaster) run(ctx context.Context, fleet string, f *feed) {
	tick := time.NewTicker(b.interval)
	defer tick.Stop()
	failures := 0
	for {
		readCtx, cancel := context.WithTimeout(ctx, b.timeout)
		rows, err := b.read(readCtx, fleet)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			failures = 0
			b.send(f, Snapshot{Rows: rows})
		} else if failures++; failures >= maxFailures {
			failures = 0
			b.send(f, Snapshot{Err: err})
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (b *Broadcaster) send(f *feed, s Snapshot) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for subscriber := range f.subscribers {
		select {
		case subscriber <- s:
		default: // the subscriber has not taken the older snapshot: replace it
			select {
			case <-subscriber:
			default:
			}
			subscriber <- s
		}
	}
}

// Close ends all subscriptions and waits for their reads.
func (b *Broadcaster) Close() {
	b.mu.Lock()
	b.closed = true
	for fleet, f := range b.feeds {
		f.cancel()
		for subscriber := range f.subscribers {
			close(subscriber)
			delete(f.subscribers, subscriber)
		}
		delete(b.feeds, fleet)
	}
	b.mu.Unlock()
	b.wg.Wait()
}
