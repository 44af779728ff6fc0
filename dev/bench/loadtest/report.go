package loadtest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/dev/bench/probe"
	"github.com/fleettracing/fleet-tracing/dev/bench/table"
)

func (r *run) vehiclesFact() string {
	return fmt.Sprintf("%d vehicles, each every %s", r.vehicles, r.interval())
}

func (r *run) outcomeFact() string {
	if r.saturated == "" {
		return "The load was sustained."
	}
	return "The load was **not sustained**: " + r.saturated + "."
}

func (r *run) limitingFact() string {
	name, why := bottleneck(r.Measurement)
	return fmt.Sprintf("Limiting at %.0f records/s: **%s** (%s).", r.rate, name, why)
}

func milliseconds(q probe.Quantiles) []any { return []any{1e3 * q.P50, 1e3 * q.P95, 1e3 * q.P99} }

// latency shows the quantiles of all tables, and what fleet-etl measures itself.
func (r *run) latency() []*table.Table {
	t := &table.Table{Title: "Latency", Head: []string{"", "per record", "rows per write", "P50 ms", "P95 ms", "P99 ms", "max ms"}}
	add := func(name string, perRecord, rows any, q probe.Quantiles) {
		t.Add(append(append([]any{name, perRecord, rows}, milliseconds(q)...), 1e3*q.Max)...)
	}
	add("record due → readable", "", "", r.Latency)
	for _, name := range slices.Sorted(maps.Keys(r.Writes)) {
		w := r.Writes[name]
		add("write "+name, w.Count/max(r.Records, 1), w.Rows/max(w.Count, 1), w.Quantiles)
	}
	stages := &table.Table{Title: "Stages and requests to Cassandra, by fleet-etl's own metrics", Head: []string{"", "times", "mean ms"}}
	for _, d := range r.Durations {
		if d.Count >= 10 {
			stages.Add(d.Name, d.Count, 1e3*d.Mean)
		}
	}
	return []*table.Table{t, stages}
}

// samples shows how numbers went on over time.
func samples(all []probe.Sample) *table.Table {
	t := &table.Table{Head: []string{
		"time (min)", "resident memory MB", "heap in use MB", "goroutines", "open files", "write P50 ms", "write P99 ms", "due → readable P50 ms", "due → readable P99 ms",
	}}
	for _, s := range all {
		t.Add(s.At/60, s.Resident/1e6, s.Heap/1e6, s.Goroutines, s.Files, 1e3*s.Write.P50, 1e3*s.Write.P99, 1e3*s.Latency.P50, 1e3*s.Latency.P99)
	}
	return t
}

func steadyReport(s *table.Section, r *run) {
	s.Title = fmt.Sprintf("Steady load of %.0f records/s", r.rate)
	s.Facts = append(s.Facts, fmt.Sprintf("%s; %.0f records in %.0f s, %.0f/s. In the whole run %d were stored, %d rejected; %.0f writes were retried.",
		r.vehiclesFact(), r.Records, r.Seconds, r.PerSecond, r.report.Stored, r.report.Rejected, r.Retries), r.outcomeFact(), r.limitingFact())
	over := samples(r.Samples)
	over.Title = "Latency over time"
	over.Plot = &table.Plot{Name: s.Name + "-latency", Columns: []int{5, 6, 7, 8}, Y: "latency (ms)", LogY: true, Only: true}
	s.Tables = append(r.latency(), over)
}

func soakReport(s *table.Section, r *run) (flat bool) {
	over := samples(r.Samples)
	over.Title = "Memory of fleet-etl"
	over.Plot = &table.Plot{Name: s.Name + "-memory", Columns: []int{1, 2}, Y: "memory (MB)", Only: true}
	trend, flat := trends(over)
	verdict := map[bool]string{true: "flat", false: "not flat"}[flat]
	s.Title = fmt.Sprintf("Soak of %s at %.0f records/s: %s", time.Duration(r.Seconds*float64(time.Second)).Round(time.Second), r.rate, verdict)
	s.Facts = append(s.Facts, fmt.Sprintf("%s; %.0f records in %d samples, %d rejected, %.0f writes retried.",
		r.vehiclesFact(), r.Records, len(r.Samples), r.report.Rejected, r.Retries), r.outcomeFact(), r.limitingFact())
	s.Tables = append([]*table.Table{trend, over}, r.latency()...)
	return flat
}

// Columns of a table of costs that plots draw.
var (
	writeColumns   = []int{4, 6}
	latencyColumns = []int{4, 6, 7, 9}
	costColumns    = []int{11, 12}
)

// newCosts makes a table whose rows are loads. The first column tells them apart.
func newCosts(title, first string) *table.Table {
	return &table.Table{Title: title, Head: []string{
		first, "stored/s", "vehicles", "each every s", "history write P50 ms", "P95 ms", "history write P99 ms",
		"due → readable P50 ms", "P95 ms", "due → readable P99 ms", "writes per record", "nodes' CPU µs per record", "fleet-etl's CPU µs per record", "peak MB", "limiting", "",
	}}
}

func addCosts(t *table.Table, first any, r *run) {
	verdict := "sustained"
	if r.saturated != "" {
		verdict = "saturated"
	}
	limiting, _ := bottleneck(r.Measurement)
	row := []any{first, r.PerSecond, r.vehicles, r.interval().Seconds()}
	row = append(row, milliseconds(r.Writes[cassandra.TableHistory].Quantiles)...)
	row = append(row, milliseconds(r.Latency)...)
	t.Add(append(row, r.Mutations(), r.PerRecord(r.NodesCPU), r.PerRecord(r.ClientCPU), float64(r.report.PeakMemory)/1e6, limiting, verdict)...)
}

func rampReport(s *table.Section, nodes int, maximum float64, runs []run) {
	slices.SortFunc(runs, func(a, b run) int { return cmp.Compare(a.rate, b.rate) })
	s.Title = fmt.Sprintf("Ramp on %d node(s): %.0f records/s sustained", nodes, maximum)
	steps := newCosts("Latency against load", "offered (records/s)")
	steps.Plot = &table.Plot{Name: s.Name + "-latency", Columns: latencyColumns, Y: "latency (ms)", LogX: true, LogY: true}
	saturates := false
	for i := range runs {
		r := &runs[i]
		addCosts(steps, r.rate, r)
		switch {
		case r.rate == maximum:
			s.Facts = append(s.Facts, fmt.Sprintf("The greatest sustained rate is **%.0f records/s** (%s).", maximum, r.vehiclesFact()), r.limitingFact())
		case r.saturated != "" && !saturates:
			saturates = true
			s.Facts = append(s.Facts, fmt.Sprintf("At %.0f records/s it saturates: %s.", r.rate, r.saturated), r.limitingFact())
		}
	}
	s.Tables = []*table.Table{steps}
}
