package hourly

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
)

type metrics struct {
	duration prometheus.Histogram
	last     prometheus.Gauge
	hours    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		duration: prometheus.NewHistogram(promutil.Histogram("fleet_etl_rollup_duration_seconds",
			"Time of one roll-up: all hours of fleets that changed.", cassandra.RequestBuckets)),
		last: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "fleet_etl_rollup_last_success_timestamp_seconds",
			Help: "Time at which hourly statistics were last up to date, in seconds since 1970.",
		}),
		hours: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fleet_etl_rollup_hours_total",
			Help: "Hours of fleets that were summed and written.",
		}),
	}
	reg.MustRegister(m.duration, m.last, m.hours)
	return m
}
