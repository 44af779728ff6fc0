package claims

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	instances prometheus.Gauge
	fenced    prometheus.Counter
	takenOver prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		instances: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "fleet_etl_instances",
			Help: "Instances of fleet-etl on this keyspace that send heartbeats, this one included.",
		}),
		fenced: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fleet_etl_claims_fenced_total",
			Help: "Times that this process was taken over while paused or disconnected, and claimed its devices again.",
		}),
		takenOver: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fleet_etl_claims_taken_over_total",
			Help: "Devices taken over from instances that ended or fell silent.",
		}),
	}
	reg.MustRegister(m.instances, m.fenced, m.takenOver)
	return m
}
