package ingest

import (
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
)

var (
	answerEndpoints = []string{endpointTelemetry, endpointOsmAnd, endpointOwnTracks, endpointOpenAPI, endpointMounted, endpointNone}
	answerCodes     = []int{200, 400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 500, 503}
	otherCode       = "other"
	recordStatuses  = []string{statusAccepted, statusDuplicate, statusRefused, statusIgnored}
	answerBuckets   = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
)

type metrics struct {
	requests       *prometheus.CounterVec
	duration       *prometheus.HistogramVec
	records        *prometheus.CounterVec
	limited        prometheus.Counter
	appendDuration prometheus.Histogram
	appendErrors   prometheus.Counter
	unreadable     prometheus.Counter
	pending        prometheus.Gauge
	connections    prometheus.Gauge
	evicted        prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fleet_etl_http_requests_total",
			Help: "Requests to the IoT API that were answered, by endpoint and status code.",
		}, []string{"endpoint", "code"}),
		duration: prometheus.NewHistogramVec(promutil.Histogram("fleet_etl_http_request_duration_seconds",
			"Time from a request's header to the end of its answer, by endpoint.", answerBuckets), []string{"endpoint"}),
		records: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fleet_etl_http_records_total",
			Help: "Records that the IoT API answered, by protocol and status; ignored are messages that are no position.",
		}, []string{"protocol", "status"}),
		limited: counter("fleet_etl_http_rate_limited_total",
			"Requests refused because a token or a device sent more records than its rate."),
		appendDuration: prometheus.NewHistogram(promutil.Histogram("fleet_etl_http_append_duration_seconds",
			"Time until the spool had taken a request's records durably, or had not.", answerBuckets)),
		appendErrors: counter("fleet_etl_http_append_errors_total",
			"Requests whose records the spool did not take; they were answered 503."),
		unreadable: counter("fleet_etl_http_unreadable_entries_total",
			"Entries of the spool that could not be read; they are among the dead letters."),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "fleet_etl_http_pending_records",
			Help: "Records that were read from the spool and are not stored yet.",
		}),
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "fleet_etl_http_connections",
			Help: "Open connections to the IoT API.",
		}),
		evicted: counter("fleet_etl_http_connections_evicted_total",
			"Connections closed to make room for new ones, those that had been quiet for longest first."),
	}
	for _, endpoint := range answerEndpoints {
		m.duration.WithLabelValues(endpoint)
		for _, code := range answerCodes {
			m.requests.WithLabelValues(endpoint, strconv.Itoa(code))
		}
		m.requests.WithLabelValues(endpoint, otherCode)
	}
	for _, protocol := range protocols {
		for _, status := range recordStatuses {
			m.records.WithLabelValues(protocol, status)
		}
	}
	reg.MustRegister(m.requests, m.duration, m.records, m.limited, m.appendDuration, m.appendErrors, m.unreadable, m.pending, m.connections, m.evicted)
	return m
}

func (m *metrics) answered(endpoint string, status int, took time.Duration) {
	if status == 0 {
		status = 200 // nothing was written, for which package http answers 200
	}
	code := otherCode
	if slices.Contains(answerCodes, status) {
		code = strconv.Itoa(status)
	}
	m.requests.WithLabelValues(endpoint, code).Inc()
	m.duration.WithLabelValues(endpoint).Observe(took.Seconds())
}

func (m *metrics) took(protocol string, a *answer) {
	for status, n := range map[string]int{statusAccepted: a.Accepted, statusDuplicate: a.Duplicates, statusRefused: a.Refused} {
		m.records.WithLabelValues(protocol, status).Add(float64(n))
	}
}

func (m *metrics) ignored(protocol string, n int) {
	m.records.WithLabelValues(protocol, statusIgnored).Add(float64(n))
}
