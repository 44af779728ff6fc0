package query

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The classes of answers, as metrics call them.
const (
	class2xx      = "2xx"
	class3xx      = "3xx"
	class4xx      = "4xx"
	class5xx      = "5xx"
	classCanceled = "canceled" // the client went away before the answer
)

var classes = []string{class2xx, class3xx, class4xx, class5xx, classCanceled}

func classOf(status int) string {
	switch {
	case status < http.StatusMultipleChoices: // 0 is what the server makes 200
		return class2xx
	case status < http.StatusBadRequest:
		return class3xx
	case status < http.StatusInternalServerError:
		return class4xx
	default:
		return class5xx
	}
}

// durationBuckets have a boundary on the limit of a request, 10 s.
var durationBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}

type metrics struct {
	requests     *prometheus.CounterVec
	duration     *prometheus.HistogramVec
	hits, misses prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, cache string) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fleet_etl_api_read_requests_total",
			Help: "Requests of the read API, by route and class of the answer; canceled is a client that went away.",
		}, []string{"route", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "fleet_etl_api_read_duration_seconds",
			Help:    "Time from a request of the read API to the end of its answer, by route.",
			Buckets: durationBuckets, NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
		}, []string{"route"}),
	}
	hits := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fleet_etl_api_cache_hits_total",
		Help: "Reads that the cache answered, by cache.",
	}, []string{"cache"})
	misses := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fleet_etl_api_cache_misses_total",
		Help: "Reads that the cache did not answer, a cache that is away among them, by cache.",
	}, []string{"cache"})
	m.hits, m.misses = hits.WithLabelValues(cache), misses.WithLabelValues(cache)
	names := []string{routeOther}
	for _, route := range Routes {
		names = append(names, route.Name)
	}
	for _, name := range names {
		m.duration.WithLabelValues(name)
		for _, class := range classes {
			m.requests.WithLabelValues(name, class)
		}
	}
	reg.MustRegister(m.requests, m.duration, hits, misses)
	return m
}

func (m *metrics) request(route, class string, took time.Duration) {
	if class == "" {
		class = class5xx // a panic, which the server answers by cutting the connection
	}
	m.requests.WithLabelValues(route, class).Inc()
	m.duration.WithLabelValues(route).Observe(took.Seconds())
}

func (m *metrics) cache(hit bool) {
	if hit {
		m.hits.Inc()
	} else {
		m.misses.Inc()
	}
}
