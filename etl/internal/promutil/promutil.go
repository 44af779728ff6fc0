// Package promutil makes the metrics of a package: registered, and with the shape that all duration histograms share.
package promutil

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Factory makes metrics and registers them with one registerer.
type Factory struct{ auto promauto.Factory }

// With returns the factory of a registerer. With nil the metrics are not registered.
func With(reg prometheus.Registerer) Factory { return Factory{promauto.With(reg)} }

// Counter makes a counter.
func (f Factory) Counter(name, help string) prometheus.Counter {
	return f.auto.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

// CounterVec makes a counter for each combination of label values.
func (f Factory) CounterVec(name, help string, labels ...string) *prometheus.CounterVec {
	return f.auto.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

// Counters makes a counter for each of the values of a label.
func Counters[L ~string](f Factory, name, help, label string, values ...L) map[L]prometheus.Counter {
	vec, counters := f.CounterVec(name, help, label), map[L]prometheus.Counter{}
	for _, value := range values {
		counters[value] = vec.WithLabelValues(string(value))
	}
	return counters
}

// Gauge makes a gauge.
func (f Factory) Gauge(name, help string) prometheus.Gauge {
	return f.auto.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
}

// GaugeVec makes a gauge for each combination of label values.
func (f Factory) GaugeVec(name, help string, labels ...string) *prometheus.GaugeVec {
	return f.auto.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
}

// GaugeFunc makes a gauge that is read from a function.
func (f Factory) GaugeFunc(name, help string, value func() float64) {
	f.auto.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
}

// Histogram makes a histogram with the given classic buckets, in the unit of its name.
func (f Factory) Histogram(name, help string, buckets []float64) prometheus.Histogram {
	return f.auto.NewHistogram(histogram(name, help, buckets))
}

// HistogramVec makes a histogram for each combination of label values.
func (f Factory) HistogramVec(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return f.auto.NewHistogramVec(histogram(name, help, buckets), labels)
}

// histogram has native buckets too, for servers that scrape those.
func histogram(name, help string, buckets []float64) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
	}
}
