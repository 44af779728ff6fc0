package executor

import (
	"context"
	"slices"
	"sync"
	"time"
)

// limiter bounds the writes in flight and adapts the bound to the load that the cluster can bear: one more after each full
// round of good responses, a fifth fewer when the cluster is slow or overloaded (additive increase, multiplicative
// decrease, as in TCP). Without this bound the writes would queue in the nodes, where they cost memory and time out.
type limiter struct {
	min, max float64
	slow     time.Duration // a response that takes longer counts as overload
	now      func() time.Time

	mu       sync.Mutex
	limit    float64
	inFlight int
	lowered  time.Time // one decrease per slow response: the responses of one burst count once
	waiting  []chan struct{}
}

func newLimiter(start, minimum, maximum int, slow time.Duration, now func() time.Time) *limiter {
	return &limiter{min: float64(minimum), max: float64(maximum), limit: float64(start), slow: slow, now: now}
}

// acquire waits for a place.
func (l *limiter) acquire(ctx context.Context) error {
	l.mu.Lock()
	if l.inFlight < int(l.limit) && len(l.waiting) == 0 {
		l.inFlight++
		l.mu.Unlock()
		return nil
	}
	place := make(chan struct{})
	l.waiting = append(l.waiting, place)
	l.mu.Unlock()
	select {
	case <-place:
		return nil
	case <-ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		if i := slices.Index(l.waiting, place); i >= 0 {
			l.waiting = slices.Delete(l.waiting, i, i+1)
			return ctx.Err()
		}
		l.inFlight-- // the place was granted at the same moment
		l.admit()
		return ctx.Err()
	}
}

// release returns the place.
func (l *limiter) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inFlight--
	l.admit()
}

// observe adapts the bound to one response.
func (l *limiter) observe(took time.Duration, overload bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch now := l.now(); {
	case overload || took > l.slow:
		if now.Sub(l.lowered) >= l.slow {
			l.limit = max(l.min, l.limit*0.8)
			l.lowered = now
		}
	case float64(l.inFlight) >= l.limit-1: // a bound that is not reached has not been tested
		l.limit = min(l.max, l.limit+1/l.limit)
		l.admit()
	}
}

func (l *limiter) admit() {
	for len(l.waiting) > 0 && l.inFlight < int(l.limit) {
		close(l.waiting[0])
		l.waiting = l.waiting[1:]
		l.inFlight++
	}
}

func (l *limiter) state() (inFlight, limit int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inFlight, int(l.limit)
}
