package writer

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
)

type metrics struct {
	late  prometheus.Counter
	plan  prometheus.Observer
	store prometheus.Observer
}

func newMetrics(reg prometheus.Registerer) *metrics {
	duration := prometheus.NewHistogramVec(promutil.Histogram("fleet_etl_batch_duration_seconds",
		"Time of one batch of records in the writer, by step: plan (group and compare) and store (from then until all of it is durable).",
		cassandra.RequestBuckets), []string{"step"})
	m := &metrics{
		late: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fleet_etl_records_late_total",
			Help: "Records older than the newest of their device. They are stored and do not change the latest position.",
		}),
		plan: duration.WithLabelValues("plan"), store: duration.WithLabelValues("store"),
	}
	reg.MustRegister(duration, m.late)
	return m
}
