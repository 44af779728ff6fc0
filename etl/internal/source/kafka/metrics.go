package kafka

import (
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
)

type metrics struct {
	commits    map[string]prometheus.Counter
	rebalances map[string]prometheus.Counter
	errors     map[string]prometheus.Counter
	skipped    map[string]prometheus.Counter

	partitions, position, lag *prometheus.Desc
	offsets                   atomic.Pointer[offsetTracker] // of the current run
}

// The closed sets of label values.
const (
	commitDone, commitFailed = "done", "failed"

	eventAssigned, eventRevoked, eventLost = "assigned", "revoked", "lost"

	errUnreachable, errDenied, errGroup, errDataLoss, errTooLarge, errOther = "unreachable", "denied", "group", "data_loss", "too_large", "other"

	skipTombstone, skipEmpty, skipMarker = "tombstone", "empty", "marker"
)

func newMetrics(reg prometheus.Registerer) *metrics {
	register := promutil.With(reg)
	m := &metrics{
		commits: promutil.Counters(register, "fleet_etl_kafka_commits_total",
			"Offset commits, by result. The next commit repeats a failed one.", "result", commitDone, commitFailed),
		rebalances: promutil.Counters(register, "fleet_etl_kafka_rebalances_total",
			"Changes of the partitions assigned to this process, by event.", "event", eventAssigned, eventRevoked, eventLost),
		errors: promutil.Counters(register, "fleet_etl_kafka_fetch_errors_total",
			"Errors while consuming, by reason: unreachable brokers, denied access, the consumer group, records lost by Kafka, batches that decompress to more than 64 MiB.",
			"reason", errUnreachable, errDenied, errGroup, errDataLoss, errTooLarge, errOther),
		skipped: promutil.Counters(register, "fleet_etl_kafka_values_skipped_total",
			"Values without a record, by reason (tombstone, empty, marker of a transaction). They are skipped.", "reason", skipTombstone, skipEmpty, skipMarker),
		partitions: prometheus.NewDesc("fleet_etl_kafka_partitions",
			"Partitions assigned to this process.", nil, nil),
		position: prometheus.NewDesc("fleet_etl_kafka_position",
			"Offset before which every record of a partition is durable.", []string{"topic", "partition"}, nil),
		lag: prometheus.NewDesc("fleet_etl_kafka_lag_records",
			"Records of a partition that are not durable yet. The end of the partition is read every 10 s.", []string{"topic", "partition"}, nil),
	}
	reg.MustRegister(m)
	return m
}

// Describe implements prometheus.Collector, for the partitions.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.partitions
	ch <- m.position
	ch <- m.lag
}

// Collect implements prometheus.Collector, for the partitions that are assigned now.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	assigned := 0
	if t := m.offsets.Load(); t != nil {
		t.each(func(p *partition) {
			assigned++
			if p.durable == unknown {
				return
			}
			number := strconv.Itoa(int(p.number))
			ch <- prometheus.MustNewConstMetric(m.position, prometheus.GaugeValue, float64(p.durable), p.topic, number)
			if p.end != unknown {
				ch <- prometheus.MustNewConstMetric(m.lag, prometheus.GaugeValue, float64(max(0, p.end-p.durable)), p.topic, number)
			}
		})
	}
	ch <- prometheus.MustNewConstMetric(m.partitions, prometheus.GaugeValue, float64(assigned))
}
