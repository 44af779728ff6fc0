package loadtest

import "fmt"

// Verdict names what limits, and the figures that say so.
type Verdict struct {
	Name string `json:"name"`
	Why  string `json:"why"`
}

// From these shares on something is full.
const (
	busyMachine = 0.90 // of all cores
	busyProcess = 0.85 // of the cores that Go runs on
	full        = 0.90 // of a bound
)

// Bottleneck names what limits a load, by the first of these that holds:
//
//  1. The machine's cores are busy for 90 % or more. The largest user of them is named.
//  2. fleet-etl takes 85 % or more of the cores.
//  3. The writes under way fill 90 % or more of their limit. Where that stands at ETL_MAX_IN_FLIGHT, the setting limits;
//     where the limiter holds it below, the nodes' answers do.
//  4. The queue before the transform is 90 % full, and that before the loader is not: the transform, which is one goroutine.
//  5. The queue before the loader is 90 % full: the loader's planning of windows, and what it waits for.
//
// Where none holds, nothing is full.
func Bottleneck(m *Measurement) Verdict {
	client, server, others := m.Shares()
	inFlight := 0.0
	if m.Loader.Limit > 0 {
		inFlight = m.Loader.InFlight / m.Loader.Limit
	}
	extract, load := m.Loader.Queues["extract"], m.Loader.Queues["load"]
	switch {
	case m.Busy >= busyMachine:
		name := "CPU of the machine, most of it the nodes'"
		switch {
		case others > max(client, server):
			name = "CPU of the machine, most of it other programs'"
		case client > server:
			name = "CPU of the machine, most of it fleet-etl's"
		}
		return Verdict{name, fmt.Sprintf("cores %s busy: nodes %s, fleet-etl %s, others %s", Percent(m.Busy), Percent(server), Percent(client), Percent(others))}
	case client >= busyProcess:
		return Verdict{"CPU of fleet-etl", fmt.Sprintf("it takes %s of the cores", Percent(client))}
	case inFlight >= full && m.Loader.Limit >= full*float64(m.Loader.Most):
		return Verdict{"ETL_MAX_IN_FLIGHT", fmt.Sprintf("%.0f writes under way of %.0f that may be", m.Loader.InFlight, m.Loader.Limit)}
	case inFlight >= full:
		return Verdict{"answers of the nodes", fmt.Sprintf("%.0f writes under way of %.0f that the limiter lets be, below ETL_MAX_IN_FLIGHT=%d, because answers are slow", m.Loader.InFlight, m.Loader.Limit, m.Loader.Most)}
	case extract >= full && load < full:
		return Verdict{"transform", fmt.Sprintf("its queue is %s full, the loader's %s", Percent(extract), Percent(load))}
	case load >= full:
		return Verdict{"planning of windows in the loader", fmt.Sprintf("its queue is %s full, and only %s of the writes that may be are under way", Percent(load), Percent(inFlight))}
	}
	return Verdict{"nothing is full", fmt.Sprintf("cores %s busy, writes under way %s of their limit, queues %s and %s", Percent(m.Busy), Percent(inFlight), Percent(extract), Percent(load))}
}

// Percent shows a share.
func Percent(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }
