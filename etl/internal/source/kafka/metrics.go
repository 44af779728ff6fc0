package kafka

import (
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	commits    *prometheus.CounterVec
	rebalances *prometheus.CounterVec
	errors     *prometheus.CounterVec
	skipped    *prometheus.CounterVec

	partitions, position, lag *prometheus.Desc
	ledger                    atomic.Pointer[ledger] // of the run under way
}

// The closed sets of label values.
const (
	commitDone, commitFailed = "done", "failed"

	assigned, revoked, lost = "assigned", "revoked", "lost"

	errUnreachable, errRefused, errGroup, errDataLoss, errOther = "unreachable", "refused", "group", "data_loss", "other"

	skipTombstone, skipEmpty = "tombstone", "empty"
)

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help, label string, values ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		for _, value := range values {
			c.WithLabelValues(value)
		}
		reg.MustRegister(c)
		return c
	}
	m := &metrics{
		commits: counter("fleet_etl_kafka_commits_total",
			"Commits of offsets, by result; what a failed one would have committed is committed by a later one.", "result", commitDone, commitFailed),
		rebalances: counter("fleet_etl_kafka_rebalances_total",
			"Changes of the partitions that the consumer group leaves to this process, by event.", "event", assigned, revoked, lost),
		errors: counter("fleet_etl_kafka_fetch_errors_total",
			"Errors on the way to records, by reason: a broker that does not answer, a refusal, the group, records that Kafka lost.",
			"reason", errUnreachable, errRefused, errGroup, errDataLoss, errOther),
		skipped: counter("fleet_etl_kafka_values_skipped_total",
			"Values without a record in them, by reason; they are passed over.", "reason", skipTombstone, skipEmpty),
		partitions: prometheus.NewDesc("fleet_etl_kafka_partitions",
			"Partitions that the consumer group leaves to this process.", nil, nil),
		position: prometheus.NewDesc("fleet_etl_kafka_position",
			"Offset up to which everything of a partition is durable.", []string{"topic", "partition"}, nil),
		lag: prometheus.NewDesc("fleet_etl_kafka_lag_records",
			"Records of a partition that are not durable yet; the end of the partition is read every 10 s.", []string{"topic", "partition"}, nil),
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

// Collect implements prometheus.Collector, for the partitions: those that are ours now, and no others.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	var all []standing
	if l := m.ledger.Load(); l != nil {
		all = l.standings()
	}
	ch <- prometheus.MustNewConstMetric(m.partitions, prometheus.GaugeValue, float64(len(all)))
	for _, s := range all {
		number := strconv.Itoa(int(s.number))
		if s.position != unknown {
			ch <- prometheus.MustNewConstMetric(m.position, prometheus.GaugeValue, float64(s.position), s.topic, number)
		}
		if s.position != unknown && s.end != unknown {
			ch <- prometheus.MustNewConstMetric(m.lag, prometheus.GaugeValue, float64(max(0, s.end-s.position)), s.topic, number)
		}
	}
}
