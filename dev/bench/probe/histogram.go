package probe

import (
	"maps"
	"math"
	"slices"

	dto "github.com/prometheus/client_model/go"
)

// histogram counts the observations in the positive buckets of a native histogram of Prometheus, by the binary logarithm
// of a bucket's upper bound. Bounds of a coarser schema are also bounds of a finer one.
type histogram map[float64]float64

func nativeHistogram(h *dto.Histogram) histogram {
	width := math.Exp2(-float64(h.GetSchema()))
	n := histogram{math.Inf(-1): float64(h.GetZeroCount())}
	index, next, count := 0, 0, int64(0)
	for _, span := range h.GetPositiveSpan() {
		index += int(span.GetOffset())
		for range span.GetLength() {
			count += h.GetPositiveDelta()[next]
			n[float64(index)*width] = float64(count)
			index++
			next++
		}
	}
	return n
}

// add adds another histogram some times over: 1 merges two, -1 leaves what was observed since the other.
func (h histogram) add(other histogram, times float64) histogram {
	for bound, count := range other {
		h[bound] += times * count
	}
	return h
}

// Quantiles of durations, in seconds. Quantiles of a histogram are exact to a tenth.
type Quantiles struct{ Count, P50, P95, P99, Max float64 }

func (h histogram) quantiles() Quantiles {
	q := Quantiles{}
	for _, count := range h {
		q.Count += count
	}
	bounds := slices.Sorted(maps.Keys(h))
	at := func(share float64) float64 {
		seen := 0.0
		for _, bound := range bounds {
			if seen += h[bound]; seen > 0 && seen >= share*q.Count {
				return math.Exp2(bound)
			}
		}
		return 0
	}
	q.P50, q.P95, q.P99, q.Max = at(.50), at(.95), at(.99), at(1)
	return q
}
