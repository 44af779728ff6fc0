package load

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// retrier repeats writes until they succeed. What is worth repeating is decided by cassandra.Reason.Advice alone; here
// is when: after a pause with jitter, within one budget for all writes, and not at all while the store is away.
type retrier struct {
	budget *rate.Limiter // retries a second, over all writes: a store in trouble gets no storm on top
	first  time.Duration // the pause before the first retry; doubled each time
	most   time.Duration // the longest pause
	store  *availability
}

// do calls write until it succeeds, can't succeed or ctx ends. failed is told of each failure.
func (r *retrier) do(ctx context.Context, write func(context.Context) error, failed func(cassandra.Reason)) error {
	for pause := r.first; ; pause = min(2*pause, r.most) {
		if err := r.store.wait(ctx); err != nil {
			return err
		}
		err := write(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		reason := cassandra.ReasonOf(err)
		failed(reason)
		switch reason.Advice() {
		case cassandra.Wait:
			if err := r.store.probe(ctx, reason, write); err != nil {
				return err
			}
			continue
		case cassandra.GiveUp:
			return err
		}
		if err := sleep(ctx, jitter(pause)); err != nil {
			return err
		}
		if err := r.budget.Wait(ctx); err != nil {
			return err
		}
	}
}

// jitter is a random time between a half and the whole of d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// availability is whether the store takes writes at all. When it doesn't, everybody waits while one write in turn
// asks, so that a store that comes back meets one request and not all of them.
type availability struct {
	pause  time.Duration // between two questions
	remind time.Duration // between two log lines while it is away
	now    func() time.Time
	logger logrus.FieldLogger
	set    func(up bool) // tells the gauge

	mu   sync.Mutex
	back chan struct{} // closed when the store is back; nil while it is up
}

// wait returns when the store is up.
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

// probe is called by a write that found the store away. The first such write becomes the one that asks, by trying its
// own write again and again; the others wait. It returns when the store is up.
func (a *availability) probe(ctx context.Context, reason cassandra.Reason, write func(context.Context) error) error {
	a.mu.Lock()
	if a.back != nil {
		a.mu.Unlock()
		return a.wait(ctx)
	}
	back := make(chan struct{})
	a.back = back
	a.set(false)
	a.mu.Unlock()
	since, said := a.now(), a.now()
	a.logger.WithField("reason", string(reason)).Warn("store is away; waiting until it takes writes again")
	defer func() {
		a.mu.Lock()
		a.back = nil
		a.set(true)
		a.mu.Unlock()
		close(back)
	}()
	for {
		if err := sleep(ctx, jitter(a.pause)); err != nil {
			return err
		}
		err := write(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if reason = cassandra.ReasonOf(err); err == nil || reason.Advice() != cassandra.Wait {
			a.logger.WithField("away", a.now().Sub(since).Round(time.Millisecond).String()).Info("store takes writes again")
			return nil
		}
		if a.now().Sub(said) >= a.remind {
			said = a.now()
			a.logger.WithFields(logrus.Fields{"reason": string(reason), "away": said.Sub(since).Round(time.Second).String()}).
				Warn("store is still away")
		}
	}
}
