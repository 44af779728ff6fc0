package loadtest

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// modelled is a system that serves so many records a second and answers the more slowly the fuller it is.
func modelled(offered, capacity float64) *Measurement {
	m := &Measurement{Offered: offered, PerSecond: min(offered, capacity)}
	m.Freshness.P99 = 20
	if offered < capacity {
		m.Freshness.P99 = min(20, 0.2/(1-offered/capacity))
	}
	return m
}

func TestRampFindsTheKnee(t *testing.T) {
	for name, c := range map[string]struct {
		from, capacity float64
		slo            time.Duration
		knee           float64 // the greatest rate that the model holds
	}{
		"where throughput gives in":     {1000, 20_000, time.Hour, 20_000 / Held},
		"where latency does first":      {1000, 20_000, time.Second, 16_000},
		"below where it begins":         {1000, 130, time.Hour, 130 / Held},
		"at a step of the ramp":         {1000, 8_000 * Held, time.Hour, 8_000},
		"one step beyond the beginning": {1000, 1_100, time.Hour, 1_100 / Held},
	} {
		t.Run(name, func(t *testing.T) {
			var steps []float64
			maximum, err := Ramp(c.from, 5, func() bool { return true }, func(rate float64) (bool, error) {
				steps = append(steps, rate)
				return Bent(modelled(rate, c.capacity), c.slo) == "", nil
			})
			require.NoError(t, err)
			assert.LessOrEqual(t, maximum, c.knee*1.000001)
			assert.InEpsilon(t, c.knee, maximum, 1.0/32, "five halvings of a gap from one power of two to the next")
			assert.LessOrEqual(t, len(steps), 12)
		})
	}
}

func TestRampEndsInTime(t *testing.T) {
	steps := 0
	maximum, err := Ramp(1000, 3, func() bool { return steps < 4 }, func(float64) (bool, error) { steps++; return true, nil })
	require.NoError(t, err)
	assert.Equal(t, 8000.0, maximum)
	assert.Equal(t, 4, steps)
}

func TestRampOfASystemThatHoldsNothingEnds(t *testing.T) {
	steps := 0
	maximum, err := Ramp(1000, 3, func() bool { return true }, func(float64) (bool, error) { steps++; return false, nil })
	require.NoError(t, err)
	assert.Zero(t, maximum)
	assert.Equal(t, 10, steps, "1,000 down to 1")
}

func TestRampPassesAnErrorOn(t *testing.T) {
	broken := errors.New("no cluster")
	maximum, err := Ramp(1000, 3, func() bool { return true }, func(rate float64) (bool, error) {
		if rate > 2000 {
			return false, broken
		}
		return true, nil
	})
	require.ErrorIs(t, err, broken)
	assert.Equal(t, 2000.0, maximum)
}

func TestBentSaysWhy(t *testing.T) {
	assert.Empty(t, Bent(modelled(1000, 20_000), 5*time.Second))
	assert.Equal(t, "9000 of 10000 records/s offered were stored, less than 95 %", Bent(modelled(10_000, 9_000), 5*time.Second))
	assert.Contains(t, Bent(modelled(19_900, 20_000), 5*time.Second), "above the objective of 5.00 s")
}
