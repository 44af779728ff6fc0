package ingest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/rest"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
)

// rejects are the requests without a valid record that wait for the dead-letter queue. Requests that arrive during a write share
// the next one, so a sender of many such requests does not slow down the others.
type rejects struct {
	writing chan struct{} // holds the request that writes

	mu      sync.Mutex
	waiting []*rejected
}

type rejected struct {
	pipeline.Batch
	kept chan error // buffered, because the request may be gone
}

// reject keeps a request without a valid record as dead letters. It does not enter the spool: nothing of it will be stored.
func (q *request) reject(e *entry) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(q.Context()), q.Limits.AppendTimeout)
	defer cancel()
	mine := &rejected{Batch: pipeline.Batch{Origin: e.Origin}, kept: make(chan error, 1)}
	addMessages(&mine.Batch, e)
	q.rejects.add(mine)
	for {
		select {
		case err := <-mine.kept:
			return q.unkept(err)
		case q.rejects.writing <- struct{}{}:
			q.keepRejected(ctx)
			<-q.rejects.writing
		case <-ctx.Done():
			q.rejects.remove(mine)
			return q.unkept(ctx.Err())
		}
	}
}

// keepRejected writes some of the requests that wait.
func (g *Ingest) keepRejected(ctx context.Context) {
	var origins []string
	var all []pipeline.Rejected
	group := g.rejects.next()
	for _, r := range group {
		origins, all = append(origins, r.Origin), append(all, r.Rejected...)
	}
	if len(group) == 0 {
		return
	}
	err := g.Reject(ctx, strings.Join(origins, ","), all)
	for _, r := range group {
		r.kept <- err
	}
}

// unkept is the response to a request whose dead letters were not written.
func (q *request) unkept(err error) error {
	if err == nil {
		return nil
	}
	q.metrics.appendErrors.Inc()
	const remedy = "retry the whole request after Retry-After"
	if errors.Is(err, context.DeadlineExceeded) {
		return rest.Temporary(rest.SpoolSlow, "the dead letters were not durable in time", remedy, retrySlow, err)
	}
	return rest.Temporary(rest.SpoolFailed, "the dead letters could not be written", remedy, retryFull, err)
}

func (r *rejects) add(one *rejected) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = append(r.waiting, one)
}

func (r *rejects) remove(one *rejected) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = slices.DeleteFunc(r.waiting, func(other *rejected) bool { return other == one })
}

// next returns the requests of the next write: its origin names each of them.
func (r *rejects) next() []*rejected {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(r.waiting), batchRejecting)
	group := slices.Clone(r.waiting[:n])
	r.waiting = slices.Delete(r.waiting, 0, n)
	return group
}
