package query

import (
	"sync"
	"time"
)

// breaker keeps callers from what failed several times in a row. After a pause it lets one of them try.
type breaker struct {
	now      func() time.Time
	failures int
	pause    time.Duration

	mu     sync.Mutex
	failed int       // in a row
	until  time.Time // end of the pause; zero: there is none
	trying bool      // one is let through at the end of a pause
}

// change is what a report did to a breaker.
type change int

const (
	unchanged change = iota
	opened
	closed
)

// allow tells whether to go on; whoever does must report, or say that it is unknown.
func (b *breaker) allow() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.until.IsZero():
		return true
	case b.trying || b.now().Before(b.until):
		return false
	default:
		b.trying = true
		return true
	}
}

func (b *breaker) report(ok bool) change {
	b.mu.Lock()
	defer b.mu.Unlock()
	wasOpen := !b.until.IsZero()
	b.trying = false
	switch {
	case ok:
		b.failed, b.until = 0, time.Time{}
		if wasOpen {
			return closed
		}
	case wasOpen:
		b.until = b.now().Add(b.pause)
	default:
		if b.failed++; b.failed >= b.failures {
			b.until = b.now().Add(b.pause)
			return opened
		}
	}
	return unchanged
}

// unknown is the report of a try that told nothing.
func (b *breaker) unknown() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trying = false
}

func (b *breaker) open() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.until.IsZero()
}
