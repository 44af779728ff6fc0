package loadtest

import (
	"fmt"
	"time"
)

// Held is the share of the offered records that have to be durable while they are offered. In a step of 20 s the rest
// is a backlog of a second.
const Held = 0.95

// Bent tells why latency has bent under a measured load, or nothing where it has not.
func Bent(m *Measurement, slo time.Duration) string {
	switch {
	case m.PerSecond < Held*m.Offered:
		return fmt.Sprintf("%.0f of %.0f records/s offered were stored, less than %.0f %%", m.PerSecond, m.Offered, 100*Held)
	case m.Freshness.P99 > slo.Seconds():
		return fmt.Sprintf("P99 from due to readable was %s, above the objective of %s", Duration(m.Freshness.P99), Duration(slo.Seconds()))
	}
	return ""
}

// Ramp looks for the greatest rate that is held: it doubles the rate from where it begins until one is not held (or
// halves it until one is), and then halves the gap between the two so many times. It ends early when more says that
// there is no time for another step.
func Ramp(from float64, bisections int, more func() bool, held func(rate float64) (bool, error)) (maximum float64, err error) {
	var low, high float64 // held, and not held; 0 where there is none yet
	for rate := from; more() && rate >= 1; {
		ok, err := held(rate)
		if err != nil {
			return low, err
		}
		if ok {
			low = rate
		} else {
			high = rate
		}
		switch {
		case high == 0:
			rate *= 2
		case low == 0:
			rate /= 2
		case bisections > 0:
			bisections--
			rate = (low + high) / 2
		default:
			return low, nil
		}
	}
	return low, nil
}
