package loadtest

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/fleettracing/fleet-tracing/dev/bench/probe"
)

func TestTrendOf(t *testing.T) {
	noise := rand.New(rand.NewPCG(1, 2))
	series := func(n int, value func(i int) float64) []float64 {
		y := make([]float64, n)
		for i := range y {
			y[i] = value(i)
		}
		return y
	}
	for name, c := range map[string]struct {
		samples []float64
		flat    bool
	}{
		"constant":                       {series(60, func(int) float64 { return 31 }), true},
		"noise around one value":         {series(60, func(int) float64 { return 100 + 20*noise.NormFloat64() }), true},
		"a leak in noise":                {series(60, func(i int) float64 { return 100 + float64(i) + 5*noise.NormFloat64() }), false},
		"a leak of a goroutine a minute": {series(60, func(i int) float64 { return 50 + float64(i) }), false},
		"a leak of less than a tenth":    {series(60, func(i int) float64 { return 1000 + float64(i) }), true},
		"settling at the beginning":      {series(60, func(i int) float64 { return 100 - 80/float64(1+i*i) }), true},
		"a fall":                         {series(60, func(i int) float64 { return 200 - float64(i) }), true},
		"more than a tenth, but noise":   {series(12, func(i int) float64 { return []float64{10, 30}[i%2] + float64(i)/4 }), true},
		"one sample":                     {[]float64{7}, true},
		"no sample":                      {nil, true},
		"always zero":                    {series(20, func(int) float64 { return 0 }), true},
	} {
		t.Run(name, func(t *testing.T) {
			got := trendOf(c.samples)
			assert.Equal(t, c.flat, got.flat, "%+v", got)
		})
	}
	leak := trendOf(series(61, func(i int) float64 { return float64(i) }))
	assert.InEpsilon(t, 40, leak.growth, 1e-9, "from sample 20 to sample 60")
	assert.InEpsilon(t, 40, leak.mean, 1e-9)
}

func TestTrendsNameGrowingNumbers(t *testing.T) {
	taken := make([]probe.Sample, 30)
	for i := range taken {
		taken[i] = probe.Sample{At: float64(i), Resident: 200e6, Heap: 90e6, Goroutines: float64(40 + 2*i), Files: 20}
	}
	var grow []any
	found, flat := trends(samples(taken))
	for _, row := range found.Rows {
		if row[4] != "flat" {
			grow = append(grow, row[0])
		}
	}
	assert.Equal(t, []any{"goroutines"}, grow)
	assert.False(t, flat)
}
