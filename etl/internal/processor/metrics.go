package processor

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
	"github.com/fleettracing/fleet-tracing/etl/internal/rollup"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

type metrics struct {
	alerts     *prometheus.CounterVec
	recomputed map[string]prometheus.Counter
	trips      map[rollup.TripKind]prometheus.Counter
	apply      prometheus.Observer
	recompute  prometheus.Observer
	flush      prometheus.Observer
	open       *prometheus.GaugeVec // by severity
}

func newMetrics(reg prometheus.Registerer, p *Processor) *metrics {
	register := promutil.With(reg)
	alerts := register.CounterVec("fleet_etl_alerts_total",
		"Changes of alerts that this process found, by type, severity and transition (opened, escalated, resolved).", "type", "severity", "transition")
	for _, kind := range telemetry.AlertTypes {
		for _, severity := range telemetry.Severities {
			for _, transition := range telemetry.Transitions {
				alerts.WithLabelValues(string(kind), string(severity), string(transition))
			}
		}
	}
	recomputed := promutil.Counters(register, "fleet_etl_recomputed_devices_total",
		"Devices recomputed from stored records, by reason: late records, shared with another instance, taken over from one, "+
			"fenced while paused or disconnected, gap in what is known, open alerts that expire.",
		"reason", reasonLate, reasonShared, reasonTakenOver, reasonFenced, reasonGap, reasonExpiring)
	trips := promutil.Counters(register, "fleet_etl_trips_total",
		"Trips and stops written with an end, by kind. One that a recomputation changes counts again.", "kind", rollup.KindTrip, rollup.KindStop)
	duration := register.HistogramVec("fleet_etl_processor_duration_seconds",
		"Time of one operation of the processor: apply (a batch of records), recompute (one device from the store) and flush (everything that changed).",
		cassandra.RequestBuckets, "operation")
	open := register.GaugeVec("fleet_etl_alerts_open",
		"Stored open alerts of all fleets, by severity. Every process exports the same values.", "severity")
	for _, severity := range telemetry.Severities {
		open.WithLabelValues(string(severity))
	}
	register.GaugeFunc("fleet_etl_processor_devices", "Devices whose state is in memory.", func() float64 { return float64(p.loaded()) })
	register.GaugeFunc("fleet_etl_processor_dirty_devices",
		"Devices that wait to be recomputed from the store; fleet_etl_recomputed_devices_total has the reasons.", func() float64 { return float64(p.dirty()) })
	register.GaugeFunc("fleet_etl_processor_failed_devices",
		"Devices that are skipped because their derived rows can't be read or written. Each is tried again every 5 minutes.", func() float64 { return float64(p.failed()) })
	register.GaugeFunc("fleet_etl_processor_unreadable_partitions",
		"Partitions of the open alerts and latest positions of fleets that are skipped because they can't be read. Each is tried again every 5 minutes.",
		func() float64 { return float64(p.unreadable.count()) })
	return &metrics{
		alerts: alerts, recomputed: recomputed, trips: trips, open: open,
		apply: duration.WithLabelValues("apply"), recompute: duration.WithLabelValues("recompute"), flush: duration.WithLabelValues("flush"),
	}
}

func (m *metrics) alert(event telemetry.AlertEvent) {
	m.alerts.WithLabelValues(string(event.Type), string(event.Severity), string(event.Transition)).Inc()
}
