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
	register := promutil.With(reg)
	duration := register.HistogramVec("fleet_etl_batch_duration_seconds",
		"Time of one batch of records in the writer, by step: plan (group and compare) and store (from then until all of it is durable).",
		cassandra.RequestBuckets, "step")
	return &metrics{
		late: register.Counter("fleet_etl_records_late_total",
			"Records older than the newest of their device. They are stored and do not change the latest position."),
		plan: duration.WithLabelValues("plan"), store: duration.WithLabelValues("store"),
	}
}
