package rest

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
)

// routeNone is the route label of requests that no route matches.
const routeNone = "none"

// statusClientGone is the status of a request whose client disconnected before the response.
const statusClientGone = 499

// The status codes that have a label value of their own.
var codes = []int{200, 304, 400, 401, 403, 404, 405, 408, 413, 415, 422, 429, statusClientGone, 500, 503}

const otherCode = "other"

// durationBuckets have a boundary at the time limit of a query, 10 s. Streams take up to 5 min.
var durationBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}

type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer, routes []Route) *metrics {
	register := promutil.With(reg)
	m := &metrics{
		requests: register.CounterVec("fleet_etl_api_requests_total",
			"Requests to the HTTP API, by route and status code. 499 is a client that disconnected before the response.", "route", "code"),
		duration: register.HistogramVec("fleet_etl_api_request_duration_seconds",
			"Time from the header of a request to the end of the response, by route.", durationBuckets, "route"),
	}
	for _, route := range append([]Route{{Name: routeNone}}, routes...) {
		m.duration.WithLabelValues(route.Name)
		for _, code := range codes {
			m.requests.WithLabelValues(route.Name, strconv.Itoa(code))
		}
		m.requests.WithLabelValues(route.Name, otherCode)
	}
	return m
}

func (m *metrics) answered(route string, status int, took time.Duration) {
	if status == 0 {
		status = http.StatusOK // of a handler that wrote nothing
	}
	code := otherCode
	if slices.Contains(codes, status) {
		code = strconv.Itoa(status)
	}
	m.requests.WithLabelValues(route, code).Inc()
	m.duration.WithLabelValues(route).Observe(took.Seconds())
}
