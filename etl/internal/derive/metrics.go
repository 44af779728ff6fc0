package derive

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
	"github.com/fleettracing/fleet-tracing/etl/internal/rollup"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// reasons are why a device is derived anew.
var reasons = []string{"late", "shared", "taken_over", "gap"}

type metrics struct {
	alerts    *prometheus.CounterVec
	rederived map[string]prometheus.Counter
	trips     map[rollup.TripKind]prometheus.Counter
	errors    map[string]prometheus.Counter
	fold      prometheus.Observer
	rederive  prometheus.Observer
	flush     prometheus.Observer
	rollup    prometheus.Observer
	rolledUp  prometheus.Gauge
	hours     prometheus.Counter
	processes prometheus.Gauge
	open      map[telemetry.Severity]prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, d *Deriver) *metrics {
	alerts := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fleet_etl_alerts_total",
		Help: "Steps in the lives of alerts, by type, severity and transition (opened, escalated, resolved), as this process came to know them.",
	}, []string{"type", "severity", "transition"})
	for _, kind := range telemetry.AlertTypes {
		for _, severity := range telemetry.Severities {
			for _, transition := range telemetry.Transitions {
				alerts.WithLabelValues(string(kind), string(severity), string(transition))
			}
		}
	}
	rederived := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fleet_etl_derive_rederived_total",
		Help: "Devices derived anew from the store, by reason: late records, another process that has the device too, one that was taken over, gaps in what is known.",
	}, []string{"reason"})
	trips := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fleet_etl_trips_total",
		Help: "Trips and stops that ended, by kind; one that is derived anew and comes out otherwise counts again.",
	}, []string{"kind"})
	duration := prometheus.NewHistogramVec(promutil.Histogram("fleet_etl_derive_duration_seconds",
		"Time of one step of the derivation: fold (a window of records), rederive (one device from the store), flush and rollup (everything that changed).",
		cassandra.RequestBuckets), []string{"operation"})
	m := &metrics{
		alerts: alerts, rederived: map[string]prometheus.Counter{}, trips: map[rollup.TripKind]prometheus.Counter{},
		fold: duration.WithLabelValues("fold"), rederive: duration.WithLabelValues("rederive"),
		flush: duration.WithLabelValues("flush"), rollup: duration.WithLabelValues("rollup"),
		rolledUp: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "fleet_etl_rollup_last_success_timestamp_seconds",
			Help: "When hourly figures were last brought up to date, seconds since 1970.",
		}),
		hours: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fleet_etl_rollup_hours_total",
			Help: "Hours of fleets that were summed and written.",
		}),
		processes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "fleet_etl_processes",
			Help: "Processes of fleet-etl on this keyspace that show signs of life, this one included.",
		}),
	}
	open := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "fleet_etl_alerts_open",
		Help: "Open alerts of all fleets, by severity, as they are stored; every process shows the same.",
	}, []string{"severity"})
	m.open = map[telemetry.Severity]prometheus.Gauge{}
	for _, severity := range telemetry.Severities {
		m.open[severity] = open.WithLabelValues(string(severity))
	}
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fleet_etl_derive_errors_total",
		Help: "Requests of the derivation that failed, by operation: read, write, mark (who derives what). They are tried again.",
	}, []string{"operation"})
	m.errors = map[string]prometheus.Counter{}
	for _, operation := range []string{"read", "write", "mark"} {
		m.errors[operation] = failures.WithLabelValues(operation)
	}
	for _, reason := range reasons {
		m.rederived[reason] = rederived.WithLabelValues(reason)
	}
	for _, kind := range []rollup.TripKind{rollup.KindTrip, rollup.KindStop} {
		m.trips[kind] = trips.WithLabelValues(string(kind))
	}
	devices := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "fleet_etl_derive_devices",
		Help: "Devices whose state is in memory.",
	}, func() float64 { return float64(d.held()) })
	doubtful := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "fleet_etl_derive_doubtful_devices",
		Help: "Devices that wait to be derived anew from the store; see fleet_etl_derive_rederived_total for why.",
	}, func() float64 { return float64(d.doubtful()) })
	reg.MustRegister(alerts, open, failures, rederived, trips, duration, m.rolledUp, m.hours, m.processes, devices, doubtful)
	return m
}

func (m *metrics) step(s telemetry.AlertEvent) {
	m.alerts.WithLabelValues(string(s.Type), string(s.Severity), string(s.Transition)).Inc()
}
