// Package stamp makes the write timestamps of derived rows. A derived row carries the time at which the process began to
// read what the row is based on: of two writers the one that read last wins.
package stamp

import (
	"sync"
	"time"
)

// Clock makes write timestamps. It is safe for concurrent use.
type Clock struct {
	now func() time.Time

	mu   sync.Mutex
	last int64
}

// New makes a clock on the time of day.
func New(now func() time.Time) *Clock { return &Clock{now: now} }

// Next returns a write timestamp in µs that no earlier call returned and that never goes back. The microsecond before it
// and the one after it belong to the caller too: a row that is deleted and written again is deleted before, and an open
// alert is written after, since another alert of its type may end at the same time.
//
// The clocks of processes differ. A process that continues the work of another makes later timestamps, see After, and
// what several processes write at once is written once more when the difference has passed.
func (c *Clock) Next() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last+3, c.now().UnixMicro())
	return c.last
}

// After makes all later timestamps greater than one that was read.
func (c *Clock) After(read int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last, read+1)
}
