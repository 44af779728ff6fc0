package probe

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// observed is a native histogram of so many resolutions, with 1 to 1,000 ms in it so many times.
func observed(t *testing.T, factor float64, times int) histogram {
	t.Helper()
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "h", NativeHistogramBucketFactor: factor})
	for range times {
		for ms := range 1000 {
			h.Observe(float64(ms+1) / 1000)
		}
	}
	var m dto.Metric
	require.NoError(t, h.Write(&m))
	return nativeHistogram(m.Histogram)
}

func TestQuantilesOfANativeHistogram(t *testing.T) {
	for _, factor := range []float64{1.1, 1.3} {
		q := observed(t, factor, 1).quantiles()
		assert.EqualValues(t, 1000, q.Count)
		for got, want := range map[float64]float64{q.P50: .5, q.P95: .95, q.P99: .99, q.Max: 1} {
			assert.InEpsilon(t, want, got, factor-1)
		}
	}
	assert.Equal(t, Quantiles{}, histogram{}.quantiles())
}

func TestHistogramsOfSeveralResolutionsAddUp(t *testing.T) {
	sum := observed(t, 1.1, 1).plus(observed(t, 1.5, 2), 1)
	assert.EqualValues(t, 3000, sum.quantiles().Count)
	assert.InEpsilon(t, .5, sum.quantiles().P50, .5)
	since := observed(t, 1.1, 3).plus(observed(t, 1.1, 2), -1)
	assert.EqualValues(t, 1000, since.quantiles().Count)
	assert.Equal(t, observed(t, 1.1, 1).quantiles(), since.quantiles())
	assert.EqualValues(t, 1000, histogram{}.plus(observed(t, 1.1, 1), 1).quantiles().Count)
	assert.EqualValues(t, 1000, observed(t, 1.1, 1).plus(histogram{}, -1).quantiles().Count)
}
