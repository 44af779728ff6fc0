package ingest

import (
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/time/rate"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/auth"
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

// volume limits records and bytes per second of each name: fleets or tokens.
type volume struct{ records, bytes *limiters }

func newVolume(perSecond float64, burst int, l Limits) volume {
	return volume{
		records: newLimiters(perSecond, burst, l.Devices),
		bytes:   newLimiters(perSecond*RecordBytes, max(burst*RecordBytes, int(l.MaxBody)), l.Devices),
	}
}

// sender is who has a rate limit: a fleet, a token or a device.
type sender struct{ limit, name string }

// The values of a sender's limit, and of the label limit.
const (
	limitFleet  = "fleet"
	limitToken  = "token"
	limitDevice = "device"
)

func (s sender) String() string {
	if s.limit == limitToken {
		return "this token"
	}
	return s.limit + " " + s.name
}

// limited is a sender with the limiters of its records and bytes.
type limited struct {
	sender
	volume
}

// senders returns whose volume a request counts for. A token of all fleets is trusted: it has a limit of its own only.
func (q *request) senders() []limited {
	token := limited{sender{limitToken, q.Grant.ID}, q.tokens}
	if q.Grant.Fleet == auth.AllFleets {
		return []limited{token}
	}
	return []limited{{sender{limitFleet, q.Grant.Fleet}, q.fleets}, token}
}

// limitRate charges the records and bytes of a request to its token and its fleet, and the records to their devices, all of them
// or none.
func (q *request) limitRate(messages []protocol.Message) error {
	var taken []*rate.Reservation
	var longest time.Duration
	var slowest sender
	charge := func(limiters *limiters, s sender, n int) {
		if limiters == nil {
			return
		}
		r := limiters.reserve(s.name, n, q.Received)
		taken = append(taken, r)
		if wait := r.DelayFrom(q.Received); wait > longest {
			longest, slowest = wait, s
		}
	}
	for _, s := range q.senders() {
		charge(s.records, s.sender, len(messages))
		charge(s.bytes, s.sender, q.size)
	}
	if q.deviceRates != nil {
		devices := map[string]int{}
		for i := range messages {
			if r := &messages[i].Record; telemetry.ValidName(r.DeviceID) {
				devices[r.FleetID+"/"+r.DeviceID]++
			}
		}
		for name, n := range devices {
			charge(q.deviceRates, sender{limitDevice, name}, n)
		}
	}
	if longest == 0 {
		return nil
	}
	for i := len(taken) - 1; i >= 0; i-- {
		taken[i].CancelAt(q.Received)
	}
	return q.rateLimited(slowest, longest)
}

func (q *request) rateLimited(s sender, wait time.Duration) error {
	q.metrics.limited.WithLabelValues(s.limit).Inc()
	if s.limit == limitFleet {
		q.limitLog.Do(func() {
			q.Logger.WithField("fleet", s.name).Warn("fleet exceeds its rate limit, its requests get status 429")
		})
	}
	return &rest.Problem{
		Kind: rest.RateLimited, Detail: "rate limit exceeded for " + s.String(), Remedy: "retry the whole request after Retry-After", RetryAfter: wait,
	}
}
