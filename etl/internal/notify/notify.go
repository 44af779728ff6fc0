// Package notify tells people, and other programs, of vehicles' alerts: Alertmanagers, which group, silence and route
// them, and a Kafka topic. Telling never blocks and never fails: what can't be delivered now is kept within bounds, and
// an open alert is in the store, from which it is told of again.
package notify

import (
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
)

// outcome is what became of a notification.
type outcome string

const (
	sent    outcome = "sent"    // the receiver took it
	failed  outcome = "failed"  // an attempt came to nothing; there may be others
	dropped outcome = "dropped" // it was given up before the receiver took it
)

var notifyBuckets = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

type metrics struct {
	outcomes map[outcome]prometheus.Counter
	duration prometheus.Observer
	last     prometheus.Gauge
}

// newMetrics registers those of one receiver: their names are the same for all.
func newMetrics(reg prometheus.Registerer, receiver string) *metrics {
	of := prometheus.Labels{"receiver": receiver}
	total := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fleet_etl_notifications_total", ConstLabels: of,
		Help: "Alerts handed to a receiver, those that are told of again among them: sent, failed (an attempt), dropped (given up).",
	}, []string{"outcome"})
	took := promutil.Histogram("fleet_etl_notify_duration_seconds",
		"Time until a receiver took alerts, or an attempt failed.", notifyBuckets)
	took.ConstLabels = of
	duration := prometheus.NewHistogram(took)
	m := &metrics{
		outcomes: map[outcome]prometheus.Counter{},
		duration: duration,
		last: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "fleet_etl_notify_last_success_timestamp_seconds", ConstLabels: of,
			Help: "When a receiver last took what it was sent; 0 never.",
		}),
	}
	for _, o := range [...]outcome{sent, failed, dropped} {
		m.outcomes[o] = total.WithLabelValues(string(o))
	}
	reg.MustRegister(total, duration, m.last)
	return m
}

func (m *metrics) count(o outcome, alerts int) { m.outcomes[o].Add(float64(alerts)) }

// took notes one attempt on some alerts.
func (m *metrics) took(alerts int, err error, started, now time.Time) {
	m.duration.Observe(now.Sub(started).Seconds())
	if err != nil {
		m.count(failed, alerts)
		return
	}
	m.count(sent, alerts)
	m.last.Set(float64(now.UnixMilli()) / 1000)
}

// sayAgain is how often a trouble is spoken of while it lasts.
const sayAgain = 30 * time.Second

// outage tells of something that does not work: at once, and again for as long as it lasts. It belongs to one goroutine,
// or to a lock.
type outage struct {
	logger logrus.FieldLogger
	now    func() time.Time

	away, still, back string // what is said

	since, said time.Time
}

// note takes down how an attempt went.
func (o *outage) note(err error) {
	now := o.now()
	lasted := func() string { return now.Sub(o.since).Round(time.Second).String() }
	switch {
	case err == nil && o.since.IsZero():
	case err == nil:
		o.logger.WithField("after", lasted()).Info(o.back)
		o.since = time.Time{}
	case o.since.IsZero():
		o.since, o.said = now, now
		o.logger.WithField("reason", err.Error()).Warn(o.away)
	case now.Sub(o.said) >= sayAgain:
		o.said = now
		o.logger.WithFields(logrus.Fields{"reason": err.Error(), "for": lasted()}).Warn(o.still)
	}
}

func (o *outage) lasts() bool { return !o.since.IsZero() }

// jitter is a random time between a half and the whole of d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
