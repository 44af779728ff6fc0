package loadtest

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/dev/bench/probe"
)

// modeled is a system with a capacity, whose latency grows with its load.
func modeled(offered, capacity float64) *probe.Measurement {
	m := &probe.Measurement{Offered: offered, PerSecond: min(offered, capacity)}
	m.Latency.P99 = 20
	if offered < capacity {
		m.Latency.P99 = min(20, 0.2/(1-offered/capacity))
	}
	return m
}

func TestRampFindsTheKnee(t *testing.T) {
	for name, c := range map[string]struct {
		from, capacity float64
		knee           float64 // the greatest rate that the model sustains
	}{
		"latency gives way first":   {1000, 20_000, 19_200},
		"below the first step":      {1000, 130, 124.8},
		"at a step of the ramp":     {1000, 8_000 / 0.96, 8_000},
		"just above the first step": {1000, 1_100, 1_056},
	} {
		t.Run(name, func(t *testing.T) {
			var steps []float64
			maximum, err := rampUp(c.from, 5, func(rate float64) (bool, error) {
				steps = append(steps, rate)
				return saturated(modeled(rate, c.capacity)) == "", nil
			})
			require.NoError(t, err)
			assert.LessOrEqual(t, maximum, c.knee*1.000001)
			assert.InEpsilon(t, c.knee, maximum, 1.0/32, "five halvings of a gap from one power of two to the next")
			assert.LessOrEqual(t, len(steps), 12)
		})
	}
}

func TestRampOfASystemThatHoldsNothingEnds(t *testing.T) {
	steps := 0
	maximum, err := rampUp(1000, 3, func(float64) (bool, error) { steps++; return false, nil })
	require.NoError(t, err)
	assert.Zero(t, maximum)
	assert.Equal(t, 10, steps, "1,000 down to 1")
}

func TestRampPassesAnErrorOn(t *testing.T) {
	broken := errors.New("no cluster")
	maximum, err := rampUp(1000, 3, func(rate float64) (bool, error) {
		if rate > 2000 {
			return false, broken
		}
		return true, nil
	})
	require.ErrorIs(t, err, broken)
	assert.Equal(t, 2000.0, maximum)
}

func TestSaturatedGivesTheReason(t *testing.T) {
	assert.Empty(t, saturated(modeled(1000, 20_000)))
	assert.Equal(t, "9000 of 10000 records/s offered were stored, less than 95 %", saturated(modeled(10_000, 9_000)))
	assert.Contains(t, saturated(modeled(19_900, 20_000)), "above the objective of 5.00 s")
}

func TestBottleneck(t *testing.T) {
	measured := func(busy, client, nodes, inFlight, limit, extract, load float64) *probe.Measurement {
		return &probe.Measurement{
			Seconds: 10, Cores: 2, Busy: busy, ClientCPU: 20 * client, NodesCPU: 20 * nodes,
			InFlight: inFlight, Limit: limit, MaxLimit: 128, Queues: map[string]float64{"extract": extract, "load": load},
		}
	}
	for name, c := range map[string]struct {
		m    *probe.Measurement
		want string
	}{
		"an idle machine":          {measured(.40, .10, .30, 3, 16, 0, 0), "nothing is full"},
		"the nodes' CPU":           {measured(.97, .20, .75, 120, 128, 1, 1), "CPU of the machine, most of it the nodes'"},
		"our CPU":                  {measured(.97, .70, .20, 2, 16, 1, 0), "CPU of the machine, most of it fleet-etl's"},
		"other programs":           {measured(.97, .20, .30, 2, 16, 0, 0), "CPU of the machine, most of it other programs'"},
		"our CPU, nodes elsewhere": {measured(.87, .86, 0, 2, 16, 1, 0), "CPU of fleet-etl"},
		"our own limit":            {measured(.50, .10, .20, 126, 128, 1, 1), "ETL_MAX_IN_FLIGHT"},
		"slow answers":             {measured(.50, .10, .20, 10, 10.5, 1, 1), "answers of the nodes"},
		"validation":               {measured(.55, .50, .05, 2, 16, .95, .1), "validation"},
		"writer":                   {measured(.55, .50, .05, 2, 16, 1, .95), "planning in the writer"},
		"a limit that is unread":   {measured(.40, .10, .30, 0, 0, 0, 0), "nothing is full"},
	} {
		t.Run(name, func(t *testing.T) {
			name, why := bottleneck(c.m)
			assert.Equal(t, c.want, name)
			assert.NotEmpty(t, why)
		})
	}
}
