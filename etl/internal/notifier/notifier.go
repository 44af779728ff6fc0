// Package notifier sends vehicles' alerts to Alertmanagers, which group, silence and route them, and to a Kafka topic.
// Notify never blocks and never fails: undelivered notifications wait in bounded buffers, and open alerts are read from
// the store and sent again.
package notifier

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Receiver is notified of state changes of alerts, events of one alert in order. Notify must not block.
type Receiver interface {
	Notify(events []telemetry.AlertEvent)
}

// Receivers notifies each of several receivers.
type Receivers []Receiver

// Notify implements Receiver. Without events it does nothing.
func (r Receivers) Notify(events []telemetry.AlertEvent) {
	if len(events) == 0 {
		return
	}
	for _, receiver := range r {
		receiver.Notify(events)
	}
}

// outcome is the result of a notification.
type outcome string

const (
	sent    outcome = "sent"
	failed  outcome = "failed"  // one attempt; it may be repeated
	dropped outcome = "dropped" // given up before the receiver accepted it
)

var durationBuckets = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

type metrics struct {
	outcomes    map[outcome]prometheus.Counter
	duration    prometheus.Observer
	lastSuccess prometheus.Gauge
}

// newMetrics registers the metrics of one receiver. The receivers' metrics share their names.
func newMetrics(reg prometheus.Registerer, receiver string) *metrics {
	register := promutil.With(prometheus.WrapRegistererWith(prometheus.Labels{"receiver": receiver}, reg))
	return &metrics{
		outcomes: promutil.Counters(register, "fleet_etl_notifications_total",
			"Alert notifications by outcome (sent, failed, dropped), resends included. Each failed attempt counts.", "outcome", sent, failed, dropped),
		duration: register.Histogram("fleet_etl_notify_duration_seconds",
			"Time from sending notifications until the receiver accepted them or the attempt failed.", durationBuckets),
		lastSuccess: register.Gauge("fleet_etl_notify_last_success_timestamp_seconds",
			"Unix time of the last attempt that the receiver accepted; 0 if there was none."),
	}
}

func (m *metrics) count(o outcome, alerts int) { m.outcomes[o].Add(float64(alerts)) }

// attempt records one attempt to send some alerts.
func (m *metrics) attempt(alerts int, err error, started, now time.Time) {
	m.duration.Observe(now.Sub(started).Seconds())
	if err != nil {
		m.count(failed, alerts)
		return
	}
	m.count(sent, alerts)
	m.lastSuccess.Set(float64(now.UnixMilli()) / 1000)
}
