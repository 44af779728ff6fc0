// Package thin makes many points few without hiding what stands out: of each stretch of time it keeps the lowest and
// the highest value. It takes points one by one, in any order, and holds no more of them than it will give back.
package downsample

import (
	"cmp"
	"math"
	"slices"
)

// Series is one series being thinned.
type Series struct {
	rows *Rows[float64]
}

// Point is a value at a time in Unix milliseconds.
type Point struct {
	TsMs  int64
	Value float64
}

// NewSeries gives back at most limit points of the range in Unix milliseconds, both ends included; a limit below 4
// means 4. Points outside the range are taken for its first or last.
func NewSeries(fromMs, toMs int64, limit int) *Series {
	return &Series{NewRows[float64](fromMs, toMs, limit, 1)}
}

// Add takes a point; one that is no number is left out.
func (s *Series) Add(tsMs int64, value float64) {
	if !math.IsNaN(value) {
		s.rows.Add(tsMs, value, value)
	}
}

// Points are the points that are left, oldest first. Up to the limit they are all points as they came.
func (s *Series) Points() []Point {
	rows := s.rows.Kept()
	points := make([]Point, len(rows))
	for i, r := range rows {
		points[i] = Point{r.TsMs, r.Value}
	}
	return points
}

// Seen is the number of points that were added.
func (s *Series) Seen() int { return s.rows.Seen() }

// Rows is rows of several values being thinned together: of each stretch of time the rows stay that hold the lowest or
// the highest of any value. V is what the caller keeps of a row.
type Rows[V any] struct {
	from, to int64
	limit    int
	width    int

	seen    int
	rows    []Row[V] // while they are no more than the limit
	buckets []bucket[V]
}

// Row is a row: its time, by which it is known, and what its caller keeps of it.
type Row[V any] struct {
	TsMs   int64
	Value  V
	values [maxWidth]float64
}

// maxWidth is the most values that a row can be thinned by.
const maxWidth = 3

type bucket[V any] struct {
	low, high [maxWidth]Row[V]
	seen      [maxWidth]bool
}

// NewRows gives back at most limit rows, thinned by up to three values each. A limit too small for one stretch of time
// is raised to that.
func NewRows[V any](fromMs, toMs int64, limit, width int) *Rows[V] {
	return &Rows[V]{from: fromMs, to: max(toMs, fromMs), limit: max(limit, 4*width), width: min(width, maxWidth)}
}

// Add takes a row. A value that is no number has no part in the choice.
func (r *Rows[V]) Add(tsMs int64, value V, values ...float64) {
	row := Row[V]{TsMs: tsMs, Value: value}
	copy(row.values[:], values[:r.width])
	r.seen++
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

// sort puts a row where it is the lowest or highest. Of equal ones the older stays, so that the order in which rows
// come makes no difference.
func (r *Rows[V]) sort(row *Row[V]) {
	span := uint64(r.to-r.from) + 1
	at := min(uint64(max(row.TsMs-r.from, 0)), span-1)
	// In floating point, since the product may not fit: a stretch more or less than a millisecond is no matter.
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

// Seen is the number of rows that were added.
func (r *Rows[V]) Seen() int { return r.seen }

// Kept is the rows that are left, oldest first, each once.
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
