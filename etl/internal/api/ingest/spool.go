package ingest

import (
	"context"
	"errors"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/rest"
	"github.com/fleettracing/fleet-tracing/etl/internal/spool"
)

// How long senders wait before they retry.
const (
	retryMemory = time.Second      // too many bodies in memory
	retrySlow   = 5 * time.Second  // the spool does not respond
	retryFull   = 15 * time.Second // the spool is full, or its disk fails
)

// append appends an entry to the spool. It does not wait longer than AppendTimeout, also when the client is gone: the entry
// may be durable all the same, and a retry is a duplicate.
func (q *request) append(entry []byte) error {
	started := q.Now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(q.Context()), q.Limits.AppendTimeout)
	defer cancel()
	err := q.Spool.Append(ctx, entry)
	q.metrics.appendDuration.Observe(q.Now().Sub(started).Seconds())
	if err == nil {
		return nil
	}
	q.metrics.appendErrors.Inc()
	const remedy = "retry the whole request after Retry-After"
	switch {
	case errors.Is(err, spool.ErrFull):
		return rest.Temporary(rest.SpoolFull, "the spool is full", remedy, retryFull, err)
	case errors.Is(err, context.DeadlineExceeded):
		return rest.Temporary(rest.SpoolSlow, "the records were not durable in time", remedy, retrySlow, err)
	default:
		return rest.Temporary(rest.SpoolFailed, "the records could not be written to the spool", remedy, retryFull, err)
	}
}
