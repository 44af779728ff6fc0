package probe

import (
	"maps"
	"math"
	"slices"

	dto "github.com/prometheus/client_model/go"
)

// histogram holds the positive buckets of a native histogram of Prometheus. Bucket i of schema s has values up to
// 2^(i·2^-s).
type histogram struct {
	schema  int32
	buckets map[int]float64
}

func nativeHistogram(h *dto.Histogram) histogram {
	n := histogram{schema: h.GetSchema(), buckets: map[int]float64{}}
	index, next, count := 0, 0, int64(0)
	for _, span := range h.GetPositiveSpan() {
		index += int(span.GetOffset())
		for range span.GetLength() {
			count += h.GetPositiveDelta()[next]
			n.buckets[index] = float64(count)
			index++
			next++
		}
	}
	if h.GetZeroCount() > 0 {
		n.buckets[math.MinInt32] = float64(h.GetZeroCount()) // shorter than any bucket
	}
	return n
}

// at is the histogram in a schema that is as coarse or coarser.
func (h histogram) at(schema int32) histogram {
	coarser := histogram{schema: schema, buckets: map[int]float64{}}
	shift := h.schema - schema
	for i, count := range h.buckets {
		if i != math.MinInt32 {
			i = (i-1)>>shift + 1
		}
		coarser.buckets[i] += count
	}
	return coarser
}

// plus adds another histogram some times over: 1 merges two, -1 leaves what was observed since the other.
func (h histogram) plus(other histogram, times float64) histogram {
	if other.buckets == nil {
		return h
	}
	if h.buckets == nil {
		h = histogram{schema: other.schema, buckets: map[int]float64{}}
	}
	schema := min(h.schema, other.schema)
	sum, other := h.at(schema), other.at(schema)
	for i, count := range other.buckets {
		sum.buckets[i] += times * count
	}
	return sum
}

// Quantiles of durations, in seconds. Quantiles of a histogram are exact to a tenth.
type Quantiles struct {
	Count float64 `json:"count"`
	P50   float64 `json:"p50_seconds"`
	P95   float64 `json:"p95_seconds"`
	P99   float64 `json:"p99_seconds"`
	Max   float64 `json:"max_seconds"`
}

func (h histogram) quantiles() Quantiles {
	q := Quantiles{}
	for _, count := range h.buckets {
		q.Count += max(count, 0)
	}
	at := func(share float64) float64 {
		seen := 0.0
		for _, i := range slices.Sorted(maps.Keys(h.buckets)) {
			count := max(h.buckets[i], 0)
			if seen += count; count > 0 && seen >= share*q.Count {
				inside := 1 - (seen-share*q.Count)/count
				return math.Exp2((float64(i-1) + inside) * math.Exp2(-float64(h.schema)))
			}
		}
		return 0
	}
	q.P50, q.P95, q.P99, q.Max = at(.50), at(.95), at(.99), at(1)
	return q
}
