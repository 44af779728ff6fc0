package executor

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/backoff"
	"github.com/fleettracing/fleet-tracing/etl/internal/ratelog"
)

// retrier repeats requests until they succeed. cassandra.Reason.Advice alone decides what is worth a retry. The retrier
// decides when: after a pause with jitter, within one budget for all requests, and never while the cluster is unavailable.
type retrier struct {
	budget  *rate.Limiter // retries per second, over all requests: a cluster in trouble gets no storm on top
	first   time.Duration // pause before the first retry; doubled each time
	most    time.Duration // longest pause
	cluster *availability

	succeeded atomic.Int64 // when a request succeeded last, Unix nanoseconds
}

// do calls request until it succeeds, can't succeed or ctx ends. It calls failed for each failure.
func (r *retrier) do(ctx context.Context, request func(context.Context) error, failed func(cassandra.Reason)) error {
	return r.doWithin(ctx, 0, request, failed)
}

// doWithin is do with a limit, unless it is 0: it returns the last error when the request has failed for that long while
// others succeeded. So the fault is in what it reads. While no other request succeeds, the fault is in the cluster.
func (r *retrier) doWithin(ctx context.Context, limit time.Duration, request func(context.Context) error, failed func(cassandra.Reason)) error {
	since, failing := time.Now(), time.Duration(0)
	for pause := r.first; ; pause = min(2*pause, r.most) {
		if err := r.cluster.wait(ctx); err != nil {
			return err
		}
		err := request(ctx)
		now := time.Now()
		if err == nil {
			r.succeeded.Store(now.UnixNano())
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		reason := cassandra.ReasonOf(err)
		failed(reason)
		switch reason.Advice() {
		case cassandra.Wait:
			if err := r.cluster.probe(ctx, err, request); err != nil {
				return err
			}
			since = time.Now()
			continue
		case cassandra.GiveUp:
			return err
		}
		switch quiet := now.Sub(since); {
		case limit == 0:
		case r.succeeded.Load() >= since.UnixNano():
			failing += min(quiet, limit/2) // so that the first success after an outage is not enough
			since = now
			if failing >= limit {
				return fmt.Errorf("gave up after %s: %w", limit, err)
			}
		case quiet >= 3*limit: // longer than the time between two heartbeats
			since, failing = now, 0
		}
		if err := backoff.Sleep(ctx, backoff.Jitter(pause)); err != nil {
			return err
		}
		if err := r.budget.Wait(ctx); err != nil {
			return err
		}
	}
}

// availability is whether the cluster serves requests at all. While it does not, one request probes and all others wait,
// so that a cluster that comes back receives one request and not all of them.
type availability struct {
	pause  time.Duration // between two probes
	set    func(up bool) // of the gauge
	outage *ratelog.Outage

	mu   sync.Mutex
	back chan struct{} // closed when the cluster is back; nil while it is up
}

// wait returns when the cluster is available.
func (a *availability) wait(ctx context.Context) error {
	a.mu.Lock()
	back := a.back
	a.mu.Unlock()
	if back == nil {
		return nil
	}
	select {
	case <-back:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// probe is called by a request that found the cluster unavailable, with the error. The first such request becomes the one
// that probes, by repeating itself; the others wait. probe returns when the cluster is available.
func (a *availability) probe(ctx context.Context, err error, request func(context.Context) error) error {
	a.mu.Lock()
	if a.back != nil {
		a.mu.Unlock()
		return a.wait(ctx)
	}
	back := make(chan struct{})
	a.back = back
	a.set(false)
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		a.back = nil
		a.set(true)
		a.mu.Unlock()
		close(back)
	}()
	for {
		a.outage.Note(err)
		if err := backoff.Sleep(ctx, backoff.Jitter(a.pause)); err != nil {
			return err
		}
		err = request(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil || cassandra.ReasonOf(err).Advice() != cassandra.Wait {
			a.outage.Note(nil)
			return nil
		}
	}
}
