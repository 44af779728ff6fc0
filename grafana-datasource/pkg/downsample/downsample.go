// Package downsample reduces the rows of a track without losing extremes: it keeps the minimum and the maximum of each
// interval. It takes rows one by one in any order, and holds no more rows than it returns.
package downsample

import (
	"cmp"
	"math"
	"slices"
)

// Rows downsamples rows of several values together: it keeps the rows of each interval that have the minimum or the
// maximum of any value. V is the payload of a row.
type Rows[V any] struct {
	from, to int64
	limit    int
	width    int

	rows    []Row[V] // nil once there are more than limit
	buckets []bucket[V]
}

// Row is a row. Its time identifies it.
type Row[V any] struct {
	TsMs   int64
	Value  V
	values [maxWidth]float64
}

// maxWidth is the maximum number of values of a row.
const maxWidth = 3

type bucket[V any] struct {
	low, high [maxWidth]Row[V]
	seen      [maxWidth]bool
}

// NewRows makes rows of width values, at most three, in the range in Unix milliseconds, both ends included, and keeps at
// most limit of them. It raises a limit below four rows per value. Rows outside the range count to its first or last
// interval.
func NewRows[V any](fromMs, toMs int64, limit, width int) *Rows[V] {
	return &Rows[V]{from: fromMs, to: max(toMs, fromMs), limit: max(limit, 4*width), width: min(width, maxWidth)}
}

// Add adds a row. It ignores NaN values when it chooses rows.
func (r *Rows[V]) Add(tsMs int64, value V, values ...float64) {
	row := Row[V]{TsMs: tsMs, Value: value}
	copy(row.values[:], values[:r.width])
	if r.buckets != nil {
		r.sort(&row)
		return
	}
	if r.rows = append(r.rows, row); len(r.rows) > r.limit {
		r.buckets = make([]bucket[V], r.limit/(2*r.width))
		for i := range r.rows {
			r.sort(&r.rows[i])
		}
		r.rows = nil
	}
}

// sort keeps a row if it is a minimum or maximum of its interval. Of equal rows the older stays, so the order in which
// rows arrive makes no difference.
func (r *Rows[V]) sort(row *Row[V]) {
	span := uint64(r.to-r.from) + 1
	at := min(uint64(max(row.TsMs-r.from, 0)), span-1)
	// In floating point, because an integer product could overflow. Interval bounds need no millisecond precision.
	b := &r.buckets[min(int(float64(at)/float64(span)*float64(len(r.buckets))), len(r.buckets)-1)]
	for i := range r.width {
		v := row.values[i]
		if math.IsNaN(v) {
			continue
		}
		if !b.seen[i] {
			b.seen[i] = true
			b.low[i], b.high[i] = *row, *row
			continue
		}
		if low := &b.low[i]; v < low.values[i] || v == low.values[i] && row.TsMs < low.TsMs {
			*low = *row
		}
		if high := &b.high[i]; v > high.values[i] || v == high.values[i] && row.TsMs < high.TsMs {
			*high = *row
		}
	}
}

// Len is the number of rows in memory: at most the limit, and at least as many as Kept returns.
func (r *Rows[V]) Len() int { return max(len(r.rows), 2*r.width*len(r.buckets)) }

// Kept returns the kept rows, oldest first, each once. Up to the limit these are all rows.
func (r *Rows[V]) Kept() []Row[V] {
	kept := slices.Clone(r.rows)
	for i := range r.buckets {
		b := &r.buckets[i]
		for j := range r.width {
			if b.seen[j] {
				kept = append(kept, b.low[j], b.high[j])
			}
		}
	}
	slices.SortStableFunc(kept, func(a, b Row[V]) int { return cmp.Compare(a.TsMs, b.TsMs) })
	if r.buckets == nil {
		return kept
	}
	return slices.CompactFunc(kept, func(a, b Row[V]) bool { return a.TsMs == b.TsMs })
}
