// Package promutil has the shape that all duration histograms share.
package promutil

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Histogram returns the options of a histogram with the given classic buckets, in the unit of its name, and with native
// buckets for servers that scrape those.
func Histogram(name, help string, buckets []float64) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
	}
}
