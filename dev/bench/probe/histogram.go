package probe

import (
	"maps"
	"math"
	"slices"

	dto "github.com/prometheus/client_model/go"
)

// histogram is a native histogram of Prometheus. Its buckets are by the binary logarithm of their upper bounds: bounds of
// a coarser schema are also bounds of a finer one.
type histogram struct {
	count, sum float64
	buckets    map[float64]float64
}

func nativeHistogram(h *dto.Histogram) histogram {
	width := math.Exp2(-float64(h.GetSchema()))
	n := histogram{float64(h.GetSampleCount()), h.GetSampleSum(), map[float64]float64{math.Inf(-1): float64(h.GetZeroCount())}}
	index, next, count := 0, 0, int64(0)
	for _, span := range h.GetPositiveSpan() {
		index += int(span.GetOffset())
		for range span.GetLength() {
			count += h.GetPositiveDelta()[next]
			n.buckets[float64(index)*width] = float64(count)
			index++
			next++
		}
	}
	return n
}

// plus adds another histogram some times over: 1 merges two, -1 leaves what was observed since the other.
func (h histogram) plus(other histogram, times float64) histogram {
	sum := histogram{h.count + times*other.count, h.sum + times*other.sum, map[float64]float64{}}
	maps.Copy(sum.buckets, h.buckets)
	for bound, count := range other.buckets {
		sum.buckets[bound] += times * count
	}
	return sum
}

// Quantiles of durations, in seconds. Quantiles of a histogram are exact to a tenth.
type Quantiles struct{ Count, P50, P95, P99, Max float64 }

func (h histogram) quantiles() Quantiles {
	bounds := slices.Sorted(maps.Keys(h.buckets))
	at := func(share float64) float64 {
		seen := 0.0
		for _, bound := range bounds {
			if seen += h.buckets[bound]; seen > 0 && seen >= share*h.count {
				return math.Exp2(bound)
			}
		}
		return 0
	}
	return Quantiles{h.count, at(.50), at(.95), at(.99), at(1)}
}
