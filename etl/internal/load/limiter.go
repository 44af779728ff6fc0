package load

import (
	"context"
	"sync"
	"time"
)

// limiter bounds the requests under way and adapts the bound to what the cluster bears: one more for each full round
// of good answers, a fifth fewer when it is slow or says that it is too much (additive increase, multiplicative
// decrease, as in TCP). Without a bound of our own the requests would queue in the nodes, where they cost memory and
// time out.
type limiter struct {
	min, max float64
	slow     time.Duration // an answer that takes longer counts as too much
	now      func() time.Time

	mu       sync.Mutex
	limit    float64
	inFlight int
	lowered  time.Time // one decrease per slow answer time: the answers of one burst say the same thing once
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
		for i, w := range l.waiting {
			if w == place {
				l.waiting = append(l.waiting[:i], l.waiting[i+1:]...)
				return ctx.Err()
			}
		}
		l.inFlight-- // the place was given at the same moment
		l.admit()
		return ctx.Err()
	}
}

// release gives the place back.
func (l *limiter) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inFlight--
	l.admit()
}

// observe learns from one answer.
func (l *limiter) observe(took time.Duration, tooMuch bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch now := l.now(); {
	case tooMuch || took > l.slow:
		if now.Sub(l.lowered) >= l.slow {
			l.limit = max(l.min, l.limit*0.8)
			l.lowered = now
		}
	case float64(l.inFlight) >= l.limit-1: // a bound that isn't reached has not been tested
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
