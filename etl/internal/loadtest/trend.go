package loadtest

import "math"

// Trend says whether a figure stayed where it was while the load went on.
type Trend struct {
	Name   string  `json:"name"`
	Unit   string  `json:"unit"`
	Mean   float64 `json:"mean"`
	Growth float64 `json:"growth"` // of the fitted line over the time that is looked at
	Noise  float64 `json:"noise"`  // standard error of Growth
	Flat   bool    `json:"flat"`
}

// The rule of the soak.
const (
	settling   = 3    // the first of so many parts is left out: caches fill, the collector finds its rhythm
	growing    = 0.10 // of the mean
	noiseTimes = 3    // standard errors
)

// TrendOf fits a line to the later two thirds of the samples, which are evenly spaced. The figure grows where that line
// rises by more than a tenth of the mean and by more than three times its own standard error; a fall is no growth.
func TrendOf(name, unit string, samples []float64) Trend {
	y := samples[len(samples)/settling:]
	t := Trend{Name: name, Unit: unit, Flat: true}
	n := float64(len(y))
	if n == 0 {
		return t
	}
	for _, v := range y {
		t.Mean += v / n
	}
	if n < 3 {
		return t
	}
	middle := (n - 1) / 2
	var xx, xy float64
	for i, v := range y {
		x := float64(i) - middle
		xx += x * x
		xy += x * (v - t.Mean)
	}
	slope := xy / xx
	var residual float64
	for i, v := range y {
		d := v - t.Mean - slope*(float64(i)-middle)
		residual += d * d
	}
	span := n - 1
	t.Growth = slope * span
	t.Noise = math.Sqrt(residual/(n-2)/xx) * span
	t.Flat = t.Growth <= growing*math.Abs(t.Mean) || t.Growth <= noiseTimes*t.Noise
	return t
}

// Trends are those of the figures that a soak has to keep flat.
func Trends(samples []Sample) []Trend {
	of := func(name, unit string, value func(*Sample) float64) Trend {
		y := make([]float64, len(samples))
		for i := range samples {
			y[i] = value(&samples[i])
		}
		return TrendOf(name, unit, y)
	}
	return []Trend{
		of("resident memory", "MB", func(s *Sample) float64 { return float64(s.Resident) / 1e6 }),
		of("heap in use", "MB", func(s *Sample) float64 { return float64(s.Heap) / 1e6 }),
		of("goroutines", "", func(s *Sample) float64 { return float64(s.Goroutines) }),
		of("open files", "", func(s *Sample) float64 { return float64(s.Files) }),
		of("write P50", "ms", func(s *Sample) float64 { return 1000 * s.Write.P50 }),
		of("write P95", "ms", func(s *Sample) float64 { return 1000 * s.Write.P95 }),
		of("write P99", "ms", func(s *Sample) float64 { return 1000 * s.Write.P99 }),
		of("due to readable P50", "ms", func(s *Sample) float64 { return 1000 * s.Freshness.P50 }),
		of("due to readable P95", "ms", func(s *Sample) float64 { return 1000 * s.Freshness.P95 }),
		of("due to readable P99", "ms", func(s *Sample) float64 { return 1000 * s.Freshness.P99 }),
	}
}
