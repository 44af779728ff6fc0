package ingest

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// How long senders are asked to wait.
const (
	retryBusy  = time.Second      // too much at once
	retryStuck = 5 * time.Second  // the journal does not answer
	retryFull  = 15 * time.Second // the journal has no room, or its disk is in trouble
)

var errStuck = errors.New("the journal does not answer")

// append puts an entry into the journal. A journal that does not come back is waited for by a goroutine of its own, so
// that the request is answered in time; the entry may then be durable all the same, and what is sent again is a duplicate.
func (c *call) append(entry []byte) *problem {
	started := c.Now()
	err := c.appendInTime(entry)
	c.metrics.appendDuration.Observe(c.Now().Sub(started).Seconds())
	if err == nil {
		return nil
	}
	c.metrics.appendErrors.Inc()
	if c.complained.Due(c.Now()) {
		c.Logger.WithError(err).Warn("the journal takes no records; senders are asked to come again")
	}
	switch {
	case c.Full(err):
		return unavailable("journal_full", "there is no room left to keep records: send it again later", retryFull)
	case errors.Is(err, errStuck), errors.Is(err, context.DeadlineExceeded):
		return unavailable("journal_busy", "the records could not be kept in time: send it again later", retryStuck)
	default:
		return unavailable("journal_failed", "the records could not be kept: send it again later", retryFull)
	}
}

func (c *call) appendInTime(entry []byte) error {
	timeout := time.NewTimer(c.Limits.AppendTimeout)
	defer timeout.Stop()
	select {
	case c.slots <- struct{}{}:
	case <-timeout.C:
		return errStuck
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.r.Context()), c.Limits.AppendTimeout)
	c.lease.share()
	done := make(chan error, 1)
	c.appends.Add(1)
	go func() {
		defer c.appends.Done()
		defer cancel()
		err := c.Journal.Append(ctx, entry)
		<-c.slots
		c.lease.drop()
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-timeout.C:
		return errStuck
	}
}

// lease is a request's share of the memory for bodies. It ends when the request and its append both have.
type lease struct {
	bodies  *semaphore.Weighted
	bytes   int64
	holders atomic.Int32
}

func newLease(bodies *semaphore.Weighted) *lease {
	l := &lease{bodies: bodies}
	l.holders.Store(1)
	return l
}

// grow asks for so many bytes more, and does not wait for them.
func (l *lease) grow(bytes int64) bool {
	if !l.bodies.TryAcquire(bytes) {
		return false
	}
	l.bytes += bytes
	return true
}

func (l *lease) share() { l.holders.Add(1) }

func (l *lease) drop() {
	if l.holders.Add(-1) == 0 {
		l.bodies.Release(l.bytes)
	}
}
