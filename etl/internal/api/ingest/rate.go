package ingest

import (
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/time/rate"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/protocol"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/rest"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// limiters are rate limiters by name, in a bounded cache. An evicted one starts again with its full burst, which costs less
// than remembering every name that was ever sent.
type limiters struct {
	rate   rate.Limit
	burst  int
	byName *otter.Cache[string, *rate.Limiter]
}

// newLimiters makes limiters of so many records or bytes per second. 0 is unlimited: nil.
func newLimiters(perSecond float64, burst, names int) *limiters {
	if perSecond <= 0 {
		return nil
	}
	return &limiters{rate: rate.Limit(perSecond), burst: burst, byName: otter.Must(&otter.Options[string, *rate.Limiter]{
		MaximumSize: names, Executor: func(evict func()) { evict() }, // in time to know which names are in use, also on a busy machine
	})}
}

func (l *limiters) of(name string) *rate.Limiter {
	one, _ := l.byName.ComputeIfAbsent(name, func() (*rate.Limiter, bool) { return rate.NewLimiter(l.rate, l.burst), false })
	return one
}

// wait is how long it takes until one record or byte is allowed.
func (l *limiters) wait(name string, now time.Time) time.Duration {
	if l == nil {
		return 0
	}
	missing := 1 - l.of(name).TokensAt(now)
	if missing <= 0 {
		return 0
	}
	return time.Duration(missing / float64(l.rate) * float64(time.Second))
}

// reserve takes records or bytes from a name's allowance. A request that is larger than the burst takes the whole burst, because
// otherwise it would never be allowed.
func (l *limiters) reserve(name string, n int, now time.Time) *rate.Reservation {
	return l.of(name).ReserveN(now, min(n, l.burst))
}

// limitRate charges the records of a request to its token and their devices, and its bytes to its token, all of them or none.
func (q *request) limitRate(messages []protocol.Message) error {
	var taken []*rate.Reservation
	var longest time.Duration
	sender := "this token"
	charge := func(limiters *limiters, name, what string, n int) {
		r := limiters.reserve(name, n, q.Received)
		taken = append(taken, r)
		if wait := r.DelayFrom(q.Received); wait > longest {
			longest, sender = wait, what
		}
	}
	if q.tokenRates != nil {
		charge(q.tokenRates, q.Grant.ID, sender, len(messages))
		charge(q.tokenBytes, q.Grant.ID, sender, q.size)
	}
	if q.deviceRates != nil {
		devices := map[string]int{}
		for i := range messages {
			if r := &messages[i].Record; telemetry.ValidName(r.DeviceID) {
				devices[r.FleetID+"/"+r.DeviceID]++
			}
		}
		for name, n := range devices {
			charge(q.deviceRates, name, "device "+name, n)
		}
	}
	if longest == 0 {
		return nil
	}
	for i := len(taken) - 1; i >= 0; i-- {
		taken[i].CancelAt(q.Received)
	}
	return rateLimited(sender, longest)
}

func rateLimited(sender string, wait time.Duration) error {
	return &rest.Problem{Kind: rest.RateLimited, Detail: "rate limit exceeded for " + sender, Remedy: "retry the whole request after Retry-After", RetryAfter: wait}
}
