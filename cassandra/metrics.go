package cassandra

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gocql/gocql"
	"github.com/prometheus/client_golang/prometheus"
)

// RequestBuckets are the classic buckets of request durations, in seconds. Every threshold of an alert rule is a boundary.
var RequestBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}

// observer counts every request that the driver sends to a node, retries included.
type observer struct {
	duration *prometheus.HistogramVec // by operation and table
	errors   *prometheus.CounterVec   // by operation, table and reason
	hosts    *prometheus.CounterVec   // by node, data center and outcome
	connects *prometheus.CounterVec   // by outcome

	lastConnect atomic.Pointer[error] // of the last failed connection, for the error of a failed start
}

func newObserver() *observer {
	o := &observer{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:                            "cassandra_request_duration_seconds",
			Help:                            "Time from a CQL request to its response, by operation (read, write) and table.",
			Buckets:                         RequestBuckets,
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, []string{"operation", "table"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cassandra_request_errors_total",
			Help: "Failed CQL requests, by operation, table and reason. cassandra_requests_total has the node.",
		}, []string{"operation", "table", "reason"}),
		hosts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cassandra_requests_total",
			Help: "CQL requests by coordinator, its data center and outcome (ok, error). Each retry counts.",
		}, []string{"host", "dc", "outcome"}),
		connects: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cassandra_connects_total",
			Help: "Connections opened to nodes, by outcome (ok, error).",
		}, []string{"outcome"}),
	}
	for _, outcome := range []string{"ok", "error"} {
		o.connects.WithLabelValues(outcome)
	}
	for _, table := range tables {
		for _, operation := range []string{"read", "write"} {
			o.duration.WithLabelValues(operation, table)
			for _, reason := range Reasons {
				o.errors.WithLabelValues(operation, table, string(reason))
			}
		}
	}
	return o
}

// ObserveQuery implements gocql.QueryObserver.
func (o *observer) ObserveQuery(ctx context.Context, q gocql.ObservedQuery) {
	statsOf(ctx).addAnswer(q)
	o.observe(q.Statement, q.Host, q.End.Sub(q.Start), q.Err)
}

// ObserveBatch implements gocql.BatchObserver. A batch writes one partition, so one table.
func (o *observer) ObserveBatch(ctx context.Context, b gocql.ObservedBatch) {
	if len(b.Statements) > 0 {
		o.observe(b.Statements[0], b.Host, b.End.Sub(b.Start), b.Err)
	}
}

// ObserveConnect implements gocql.ConnectObserver.
func (o *observer) ObserveConnect(c gocql.ObservedConnect) {
	o.connects.WithLabelValues(outcome(c.Err)).Inc()
	if c.Err != nil {
		o.lastConnect.Store(&c.Err)
	}
}

func (o *observer) lastConnectError() error {
	if err := o.lastConnect.Load(); err != nil {
		return *err
	}
	return nil
}

func (o *observer) observe(statement string, host *gocql.HostInfo, took time.Duration, err error) {
	operation, table := describe(statement)
	if table == "" {
		return // a system table
	}
	o.duration.WithLabelValues(operation, table).Observe(took.Seconds())
	if err != nil {
		o.errors.WithLabelValues(operation, table, string(classify(err))).Inc()
	}
	if host != nil {
		o.hosts.WithLabelValues(host.ConnectAddress().String(), host.DataCenter(), outcome(err)).Inc()
	}
}

func outcome(err error) string {
	if err != nil {
		return "error"
	}
	return "ok"
}

// describe returns the operation and the table of a statement. The table is empty if it is not a table of the keyspace.
func describe(statement string) (operation, table string) {
	verb, rest, _ := strings.Cut(strings.TrimPrefix(statement, unprepared), " ")
	switch verb {
	case "SELECT":
		operation = "read"
		_, rest, _ = strings.Cut(rest, " FROM ")
	case "INSERT", "DELETE":
		operation = "write"
		_, rest, _ = strings.Cut(rest, " ")
	case "UPDATE":
		operation = "write"
	}
	name, _, _ := strings.Cut(rest, " ")
	for _, table := range tables {
		if name == table {
			return operation, table
		}
	}
	return operation, ""
}
