// Package backoff has the pauses between attempts: a sleep that ends with its context, and jitter that keeps processes
// which failed together from retrying together.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Sleep pauses for d. When ctx ends first, Sleep returns its error at once.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Jitter returns a random duration between half of d and d.
func Jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
