package loadtest

import (
	"fmt"
	"math"

	"github.com/fleettracing/fleet-tracing/dev/bench/probe"
)

// sustainedShare is the share of the offered records that become readable while they are offered. In a step of 20 s the
// rest is a backlog of one second.
const sustainedShare = 0.95

// saturated gives the reason why a load was not sustained, or nothing.
func saturated(m *probe.Measurement) string {
	switch {
	case m.PerSecond < sustainedShare*m.Offered:
		return fmt.Sprintf("%.0f of %.0f records/s offered were stored, less than %.0f %%", m.PerSecond, m.Offered, 100*sustainedShare)
	case m.Latency.P99 > Objective.Seconds():
		return fmt.Sprintf("P99 from due to readable was %s, above the objective of %s", probe.Seconds(m.Latency.P99), probe.Seconds(Objective.Seconds()))
	}
	return ""
}

// rampUp looks for the greatest sustained rate. It doubles the rate until one saturates (or halves it until one does
// not), and then halves the gap between the two a few times. It ends early when more reports no time for another step.
func rampUp(from float64, bisections int, more func() bool, sustained func(rate float64) (bool, error)) (maximum float64, err error) {
	var low, high float64 // sustained, and saturated; 0 where there is none yet
	for rate := from; more() && rate >= 1; {
		ok, err := sustained(rate)
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

// From these shares on something is full.
const (
	busyMachine = 0.90 // of all cores
	busyProcess = 0.85 // of all cores
	full        = 0.90 // of a bound
)

// bottleneck is the first of these that holds: the cores of the machine are busy, with their largest user; fleet-etl
// uses most of them; its writes in flight reach their limit, which is ETL_MAX_IN_FLIGHT or a lower one because answers
// are slow; the queue before validation is full and the next is not; the queue before the writer is full.
func bottleneck(m *probe.Measurement) probe.Verdict {
	client, nodes, others := m.Shares()
	verdict := func(name, why string, args ...any) probe.Verdict {
		return probe.Verdict{Name: name, Why: fmt.Sprintf(why, args...)}
	}
	inFlight := m.InFlight / max(m.Limit, 1)
	extract, load := m.Queues["extract"], m.Queues["load"]
	switch {
	case m.Busy >= busyMachine:
		name := "CPU of the machine, most of it the nodes'"
		switch {
		case others > max(client, nodes):
			name = "CPU of the machine, most of it other programs'"
		case client > nodes:
			name = "CPU of the machine, most of it fleet-etl's"
		}
		return verdict(name, "cores %s busy: nodes %s, fleet-etl %s, others %s", probe.Percent(m.Busy), probe.Percent(nodes), probe.Percent(client), probe.Percent(others))
	case client >= busyProcess:
		return verdict("CPU of fleet-etl", "it uses %s of the cores", probe.Percent(client))
	case inFlight >= full && m.Limit >= full*m.MaxLimit:
		return verdict("ETL_MAX_IN_FLIGHT", "%.0f writes in flight of at most %.0f", m.InFlight, m.Limit)
	case inFlight >= full:
		return verdict("answers of the nodes", "%.0f writes in flight of %.0f; the limiter lowered the limit from %.0f because answers are slow", m.InFlight, m.Limit, m.MaxLimit)
	case extract >= full && load < full:
		return verdict("validation", "its queue is %s full, the writer's %s", probe.Percent(extract), probe.Percent(load))
	case load >= full:
		return verdict("planning in the writer", "its queue is %s full, and only %s of the allowed writes are in flight", probe.Percent(load), probe.Percent(inFlight))
	}
	return verdict("nothing is full", "cores %s busy, writes in flight %s of their limit, queues %s and %s", probe.Percent(m.Busy), probe.Percent(inFlight), probe.Percent(extract), probe.Percent(load))
}

// Trend says whether a number stayed where it was while the load went on.
type Trend struct {
	Name   string  `json:"name"`
	Unit   string  `json:"unit"`
	Mean   float64 `json:"mean"`
	Growth float64 `json:"growth"`         // of the fitted line
	Error  float64 `json:"standard_error"` // of the growth
	Flat   bool    `json:"flat"`
}

// The rule of the soak.
const (
	settling       = 3    // the first of so many parts does not count: caches fill
	growing        = 0.10 // of the mean
	standardErrors = 3
)

// trendOf fits a line to the later two thirds of evenly spaced samples. The number grows where the line rises by more
// than a tenth of the mean and by more than three standard errors.
func trendOf(name, unit string, samples []float64) Trend {
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
	var xx, xy, residual float64
	for i, v := range y {
		x := float64(i) - middle
		xx += x * x
		xy += x * (v - t.Mean)
	}
	slope := xy / xx
	for i, v := range y {
		d := v - t.Mean - slope*(float64(i)-middle)
		residual += d * d
	}
	t.Growth = slope * (n - 1)
	t.Error = math.Sqrt(residual/(n-2)/xx) * (n - 1)
	t.Flat = t.Growth <= growing*math.Abs(t.Mean) || t.Growth <= standardErrors*t.Error
	return t
}

// trends looks at everything that has to stay flat.
func trends(samples []probe.Sample) (all []Trend) {
	for _, of := range []struct {
		name, unit string
		value      func(*probe.Sample) float64
	}{
		{"resident memory", "MB", func(s *probe.Sample) float64 { return s.Resident / 1e6 }},
		{"heap in use", "MB", func(s *probe.Sample) float64 { return s.Heap / 1e6 }},
		{"goroutines", "", func(s *probe.Sample) float64 { return s.Goroutines }},
		{"open files", "", func(s *probe.Sample) float64 { return s.Files }},
		{"write P50", "ms", func(s *probe.Sample) float64 { return 1000 * s.Write.P50 }},
		{"write P99", "ms", func(s *probe.Sample) float64 { return 1000 * s.Write.P99 }},
		{"due to readable P50", "ms", func(s *probe.Sample) float64 { return 1000 * s.Latency.P50 }},
		{"due to readable P99", "ms", func(s *probe.Sample) float64 { return 1000 * s.Latency.P99 }},
	} {
		y := make([]float64, len(samples))
		for i := range samples {
			y[i] = of.value(&samples[i])
		}
		all = append(all, trendOf(of.name, of.unit, y))
	}
	return all
}
