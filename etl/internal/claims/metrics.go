package claims

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
)

type metrics struct {
	instances prometheus.Gauge
	fenced    prometheus.Counter
	takenOver prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	register := promutil.With(reg)
	return &metrics{
		instances: register.Gauge("fleet_etl_instances",
			"Instances of fleet-etl on this keyspace that send heartbeats, this one included."),
		fenced: register.Counter("fleet_etl_claims_fenced_total",
			"Times that this process was taken over while paused or disconnected, and claimed its devices again."),
		takenOver: register.Counter("fleet_etl_claims_taken_over_total", "Devices taken over from instances that ended or fell silent."),
	}
}
