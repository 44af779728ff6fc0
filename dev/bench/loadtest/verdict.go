package loadtest

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/stat"

	"github.com/fleettracing/fleet-tracing/dev/bench/probe"
	"github.com/fleettracing/fleet-tracing/dev/bench/table"
)

// sustainedShare is the share of the offered records that become readable while they are offered. In a step of 20 s the
// rest is a backlog of one second.
const sustainedShare = 0.95

// objective is the P99 from due to readable that a sustained load keeps, in seconds.
const objective = 5.0

// saturated gives the reason why a load was not sustained, or nothing.
func saturated(m *probe.Measurement) string {
	switch {
	case m.PerSecond < sustainedShare*m.Offered:
		return fmt.Sprintf("%.0f of %.0f records/s offered were stored, less than %.0f %%", m.PerSecond, m.Offered, 100*sustainedShare)
	case m.Latency.P99 > objective:
		return fmt.Sprintf("P99 from due to readable was %.2f s, above the objective of %.2f s", m.Latency.P99, objective)
	}
	return ""
}

// rampUp looks for the greatest sustained rate. It doubles the rate until one saturates (or halves it until one does
// not), and then halves the gap between the two a few times.
func rampUp(from float64, bisections int, sustained func(rate float64) (bool, error)) (maximum float64, err error) {
	var low, high float64 // sustained, and saturated; 0 where there is none yet
	for rate := from; rate >= 1; {
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
// are slow; the queue before validation is full and the next is not; the queue before the writer is full. why has the
// numbers behind it.
func bottleneck(m *probe.Measurement) (name, why string) {
	all := m.Seconds * float64(m.Cores)
	client, nodes := m.ClientCPU/all, m.NodesCPU/all
	others := max(0, m.Busy-client-nodes)
	inFlight := m.InFlight / max(m.Limit, 1)
	extract, load := m.Queues["extract"], m.Queues["load"]
	name = "nothing is full"
	switch {
	case m.Busy >= busyMachine && others > max(client, nodes):
		name = "CPU of the machine, most of it other programs'"
	case m.Busy >= busyMachine && client > nodes:
		name = "CPU of the machine, most of it fleet-etl's"
	case m.Busy >= busyMachine:
		name = "CPU of the machine, most of it the nodes'"
	case client >= busyProcess:
		name = "CPU of fleet-etl"
	case inFlight >= full && m.Limit >= full*m.MaxLimit:
		name = "ETL_MAX_IN_FLIGHT"
	case inFlight >= full:
		name = "answers of the nodes"
	case extract >= full && load < full:
		name = "validation"
	case load >= full:
		name = "planning in the writer"
	}
	return name, fmt.Sprintf("cores %.0f %% busy: nodes %.0f %%, fleet-etl %.0f %%, others %.0f %%; %.0f writes in flight of %.0f, at most %.0f; queues %.0f %% and %.0f %% full",
		100*m.Busy, 100*nodes, 100*client, 100*others, m.InFlight, m.Limit, m.MaxLimit, 100*extract, 100*load)
}

// trend says whether a number stayed where it was while the load went on.
type trend struct {
	mean          float64
	growth        float64 // of the fitted line
	standardError float64 // of the growth
	flat          bool
}

// The rule of the soak.
const (
	settling       = 3    // the first of so many parts does not count: caches fill
	growing        = 0.10 // of the mean
	standardErrors = 3
)

// trendOf fits a line to the later two thirds of evenly spaced samples. The number grows where the line rises by more
// than a tenth of the mean and by more than three standard errors.
func trendOf(samples []float64) trend {
	y := samples[len(samples)/settling:]
	t := trend{flat: true}
	if len(y) == 0 {
		return t
	}
	t.mean = stat.Mean(y, nil)
	n := float64(len(y))
	if n < 3 {
		return t
	}
	x := make([]float64, len(y))
	for i := range x {
		x[i] = float64(i)
	}
	at0, slope := stat.LinearRegression(x, y, nil, false)
	residual := 0.0
	for i := range y {
		off := y[i] - at0 - slope*x[i]
		residual += off * off
	}
	t.growth = slope * (n - 1)
	t.standardError = math.Sqrt(residual/(n-2)/(stat.Variance(x, nil)*(n-1))) * (n - 1)
	t.flat = t.growth <= growing*math.Abs(t.mean) || t.growth <= standardErrors*t.standardError
	return t
}

// trends shows the trend of every column of samples but the first, which is the time.
func trends(samples *table.Table) (t *table.Table, flat bool) {
	t = &table.Table{Title: "Trend over the later two thirds", Head: []string{"", "mean", "growth", "its standard error", ""}}
	flat = true
	for column, name := range samples.Head[1:] {
		y := make([]float64, len(samples.Rows))
		for i, row := range samples.Rows {
			y[i] = row[column+1].(float64)
		}
		of := trendOf(y)
		verdict := "flat"
		if !of.flat {
			verdict, flat = "grows", false
		}
		t.Add(name, of.mean, of.growth, of.standardError, verdict)
	}
	return t, flat
}
