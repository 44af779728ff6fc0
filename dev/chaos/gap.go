package chaos

import (
	"sync"
	"time"
)

// gap measures the longest time between two events.
type gap struct {
	mu      sync.Mutex
	last    time.Time
	longest time.Duration
}

// reset starts the measurement now.
func (g *gap) reset() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last, g.longest = time.Now(), 0
}

func (g *gap) event() {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	g.last, g.longest = now, max(g.longest, now.Sub(g.last))
}

// times returns the time since the last event, and the longest time between two events since reset, up to now.
func (g *gap) times() (sinceLast, longest time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	sinceLast = time.Since(g.last)
	return sinceLast, max(g.longest, sinceLast)
}
