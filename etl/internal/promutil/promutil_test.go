package promutil

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestHistogramHasClassicAndNativeBuckets(t *testing.T) {
	reg := prometheus.NewRegistry()
	With(reg).Histogram("test_duration_seconds", "A test.", []float64{.1, 1}).Observe(.5)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := families[0].GetMetric()[0].GetHistogram()
	if len(got.GetBucket()) != 2 || got.GetBucket()[1].GetCumulativeCount() != 1 {
		t.Errorf("classic buckets %v", got.GetBucket())
	}
	if len(got.GetPositiveSpan()) == 0 {
		t.Error("no native buckets")
	}
}
