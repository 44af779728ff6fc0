package ingest

import (
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// limiters are rate limiters by name, those used last up to a bound. One that is forgotten begins anew with its whole
// burst, which costs less than remembering every name that was ever sent.
type limiters struct {
	rate  rate.Limit
	burst int
	half  int

	mu         sync.Mutex
	young, old map[string]*rate.Limiter
}

// newLimiters makes limiters of so many records a second, nil when that is 0.
func newLimiters(perSecond float64, burst, names int) *limiters {
	if perSecond <= 0 {
		return nil
	}
	return &limiters{rate: rate.Limit(perSecond), burst: burst, half: max(1, names/2), young: map[string]*rate.Limiter{}}
}

func (l *limiters) of(name string) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if one, ok := l.young[name]; ok {
		return one
	}
	one, ok := l.old[name]
	if !ok {
		one = rate.NewLimiter(l.rate, l.burst)
	}
	if len(l.young) >= l.half {
		l.old, l.young = l.young, make(map[string]*rate.Limiter, l.half)
	}
	l.young[strings.Clone(name)] = one
	return one
}

// wait is how long it takes until one record may come.
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

// reserve takes so many records out of a name's allowance. A request that is larger than the burst takes all of it: it
// would never pass otherwise.
func (l *limiters) reserve(name string, records int, now time.Time) *rate.Reservation {
	return l.of(name).ReserveN(now, min(records, l.burst))
}

// admit charges the records of a request to its token and their devices, all of them or none.
func (c *call) admit(records []received) *problem {
	var taken []*rate.Reservation
	var longest time.Duration
	who := "this token"
	charge := func(limiters *limiters, name, what string, n int) {
		r := limiters.reserve(name, n, c.now)
		taken = append(taken, r)
		if wait := r.DelayFrom(c.now); wait > longest {
			longest, who = wait, what
		}
	}
	if c.tokenRates != nil {
		charge(c.tokenRates, c.grant.ID, who, len(records))
	}
	if c.deviceRates != nil {
		devices := map[string]int{}
		for i := range records {
			if r := &records[i].record; telemetry.ValidName(r.DeviceID) {
				devices[r.FleetID+"/"+r.DeviceID]++
			}
		}
		for name, n := range devices {
			charge(c.deviceRates, name, "device "+name, n)
		}
	}
	if longest == 0 {
		return nil
	}
	for i := len(taken) - 1; i >= 0; i-- {
		taken[i].CancelAt(c.now)
	}
	c.metrics.limited.Inc()
	return tooFast(who, longest)
}
