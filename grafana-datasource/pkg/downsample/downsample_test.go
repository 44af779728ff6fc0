package downsample

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// series is a series of single values.
type series struct{ *Rows[float64] }

func newSeries(fromMs, toMs int64, limit int) series {
	return series{NewRows[float64](fromMs, toMs, limit, 1)}
}

func (s series) add(tsMs int64, value float64) { s.Add(tsMs, value, value) }

type point struct {
	TsMs  int64
	Value float64
}

func (s series) points() []point {
	var points []point
	for _, r := range s.Kept() {
		points = append(points, point{r.TsMs, r.Value})
	}
	return points
}

func TestFewPointsAreKept(t *testing.T) {
	s := newSeries(0, 1000, 10)
	for _, ts := range []int64{30, 10, 20} {
		s.add(ts, float64(ts))
	}
	assert.Equal(t, []point{{10, 10}, {20, 20}, {30, 30}}, s.points())
}

func TestEveryIntervalKeepsMinimumAndMaximum(t *testing.T) {
	const n, limit, to = 100_000, 1000, 999_999
	values := make([]float64, n)
	s := newSeries(0, to, limit)
	order := rand.Perm(n)
	for i := range values {
		values[i] = math.Sin(float64(i)/5000) + rand.Float64()/10
	}
	values[54_321] = 40 // a single spike
	values[77_777] = -40
	for _, i := range order {
		s.add(int64(i)*10, values[i])
	}
	points := s.points()
	require.LessOrEqual(t, len(points), limit)
	require.Greater(t, len(points), limit*9/10, "most of the limit is used")
	assert.Contains(t, points, point{543_210, 40})
	assert.Contains(t, points, point{777_770, -40})
	for i := 1; i < len(points); i++ {
		require.Less(t, points[i-1].TsMs, points[i].TsMs)
	}
	// Compare with the plain definition, interval by interval.
	const interval = n / (limit / 2)
	at := 0
	for b := range limit / 2 {
		low, high := math.Inf(1), math.Inf(-1)
		for _, v := range values[b*interval : (b+1)*interval] {
			low, high = min(low, v), max(high, v)
		}
		gotLow, gotHigh := math.Inf(1), math.Inf(-1)
		for ; at < len(points) && points[at].TsMs < int64(b+1)*interval*10; at++ {
			gotLow, gotHigh = min(gotLow, points[at].Value), max(gotHigh, points[at].Value)
		}
		require.Equal(t, low, gotLow)
		require.Equal(t, high, gotHigh)
	}
}

func TestOrderDoesNotMatter(t *testing.T) {
	values := make([]float64, 5000)
	for i := range values {
		values[i] = float64(rand.IntN(5)) // many equal values
	}
	kept := func(order []int) []point {
		s := newSeries(0, 5000, 100)
		for _, i := range order {
			s.add(int64(i), values[i])
		}
		return s.points()
	}
	assert.Equal(t, kept(rand.Perm(5000)), kept(rand.Perm(5000)))
}

func TestRowsKeepTheirPayload(t *testing.T) {
	r := NewRows[int64](0, 9999, 60, 3)
	for i := range int64(10_000) {
		speed := math.NaN()
		if i == 7000 {
			speed = 3
		}
		r.Add(i, i*2, float64(i), -float64(i), speed)
	}
	kept := r.Kept()
	require.LessOrEqual(t, len(kept), 60)
	keys := map[int64]bool{}
	for _, row := range kept {
		assert.Equal(t, row.TsMs*2, row.Value)
		assert.False(t, keys[row.Value], "each row once")
		keys[row.Value] = true
	}
	assert.True(t, keys[14_000], "the only row with a speed is its minimum and maximum")
	assert.True(t, keys[0])
	assert.True(t, keys[19_998])
}

func TestInvalidRanges(t *testing.T) {
	for _, ends := range [][2]int64{{5, 5}, {9, 3}, {math.MinInt64 / 4, math.MaxInt64 / 4}} {
		s := newSeries(ends[0], ends[1], 0)
		for i := range int64(100) {
			s.add(i, float64(i))
		}
		points := s.points()
		require.NotEmpty(t, points)
		require.LessOrEqual(t, len(points), 4)
	}
}
