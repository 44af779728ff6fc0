package ingest

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/rest"
	"github.com/fleettracing/fleet-tracing/etl/internal/spool"
)

// How long senders wait before they retry.
const (
	retryMemory = time.Second      // too many bodies in memory
	retrySlow   = 5 * time.Second  // the spool does not respond
	retryFull   = 15 * time.Second // the spool is full, or its disk fails
)

var errSpoolStuck = errors.New("the spool does not respond")

// append appends an entry to the spool. The append runs in a goroutine of its own, so that the request is answered in time
// even when the spool does not respond. The entry may then be durable all the same, and a retry is a duplicate.
func (q *request) append(entry []byte) error {
	started := q.Now()
	err := q.appendInTime(entry)
	q.metrics.appendDuration.Observe(q.Now().Sub(started).Seconds())
	if err == nil {
		return nil
	}
	q.metrics.appendErrors.Inc()
	switch {
	case errors.Is(err, spool.ErrFull):
		return rest.Temporary(rest.SpoolFull, "the spool is full", "retry the whole request after Retry-After", retryFull, err)
	case errors.Is(err, errSpoolStuck), errors.Is(err, context.DeadlineExceeded):
		return rest.Temporary(rest.SpoolSlow, "the records were not durable in time", "retry the whole request after Retry-After", retrySlow, err)
	default:
		return rest.Temporary(rest.SpoolFailed, "the records could not be written to the spool", "retry the whole request after Retry-After", retryFull, err)
	}
}

func (q *request) appendInTime(entry []byte) error {
	timeout := time.NewTimer(q.Limits.AppendTimeout)
	defer timeout.Stop()
	select {
	case q.slots <- struct{}{}:
	case <-timeout.C:
		return errSpoolStuck
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(q.Context()), q.Limits.AppendTimeout)
	q.memory.share()
	done := make(chan error, 1)
	q.appends.Go(func() {
		defer cancel()
		err := q.Spool.Append(ctx, entry)
		<-q.slots
		q.memory.release()
		done <- err
	})
	select {
	case err := <-done:
		return err
	case <-timeout.C:
		return errSpoolStuck
	}
}

// reservation is a request's share of the memory for bodies. It ends when both the request and its append have ended.
type reservation struct {
	bodies  *semaphore.Weighted
	bytes   int64
	holders atomic.Int32
}

func newReservation(bodies *semaphore.Weighted) *reservation {
	r := &reservation{bodies: bodies}
	r.holders.Store(1)
	return r
}

// grow reserves more bytes and reports whether they are available. It does not wait.
func (r *reservation) grow(bytes int64) bool {
	if !r.bodies.TryAcquire(bytes) {
		return false
	}
	r.bytes += bytes
	return true
}

func (r *reservation) share() { r.holders.Add(1) }

func (r *reservation) release() {
	if r.holders.Add(-1) == 0 {
		r.bodies.Release(r.bytes)
	}
}
