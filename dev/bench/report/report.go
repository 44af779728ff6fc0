// Package report shows what the load test measured: as Markdown for a terminal and for docs/performance.md, with a plot
// beside each table of many rows.
package report

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/dev/bench/loadtest"
	"github.com/fleettracing/fleet-tracing/dev/bench/probe"
)

// Section is one report as a part of a document.
type Section struct {
	Name   string // of its place in the docs
	Title  string
	Facts  []string
	Tables []Table
}

// Table has its first column on the left and the others on the right.
type Table struct {
	Title string
	Head  []string
	Rows  [][]string
	Plot  *Plot // nil: none
}

// Sections shows reports in their order. Ramps on several clusters have one more section that compares them.
func Sections(reports []*loadtest.Report) ([]Section, error) {
	var all []Section
	var ramps []*loadtest.Report
	for _, r := range reports {
		if len(r.Runs) == 0 || slices.ContainsFunc(r.Runs, func(run loadtest.Run) bool { return run.Measurement == nil }) {
			return nil, fmt.Errorf("report %s: it has no runs, or one without a measurement", r.Name)
		}
		s := Section{Name: r.Name, Facts: []string{fmt.Sprintf("Measured %s: %d cores (%s), %.0f GB, load average %.1f at the start; %d node(s) on the same machine, %s, with derived rows.",
			r.Taken.UTC().Format("2006-01-02 15:04 UTC"), r.Machine.Cores, r.Machine.Processor, float64(r.Machine.Memory)/(1<<30), r.Machine.LoadAverage, r.Nodes, r.DCs)}}
		switch r.Kind {
		case loadtest.KindSteady:
			steady(&s, r)
		case loadtest.KindRamp:
			ramp(&s, r)
			ramps = append(ramps, r)
		case loadtest.KindDevices:
			devices(&s, r)
		case loadtest.KindHistory:
			history(&s, r)
		case loadtest.KindSoak:
			soak(&s, r)
		default:
			return nil, fmt.Errorf("report %s: unknown kind %q", r.Name, r.Kind)
		}
		all = append(all, s)
	}
	if len(ramps) > 1 {
		all = append(all, nodes(ramps))
	}
	return all, nil
}

func vehicles(r *loadtest.Run) string {
	return fmt.Sprintf("%s vehicles of %d fleets, each every %s", count(float64(r.Vehicles)), r.Fleets, probe.Seconds(r.Interval))
}

func steady(s *Section, r *loadtest.Report) {
	run := &r.Runs[0]
	m := run.Measurement
	s.Title = fmt.Sprintf("Steady load of %s records/s", count(m.Offered))
	s.Facts = append(s.Facts, fmt.Sprintf("%s; %s records in %s, %s/s. In the whole run %s were stored, %s rejected, %s counted in the cluster afterwards; %s writes were retried.",
		vehicles(run), count(m.Records), probe.Seconds(m.Seconds), count(m.PerSecond), count(float64(m.Stored)), count(float64(m.Rejected)), count(float64(run.Counted)), count(m.Retries)),
		outcome(run), limiting("Limiting", m))
	s.Tables = append(s.Tables, latencies(s.Name, m), durations(m), cpu("CPU time per record", m))
}

func outcome(r *loadtest.Run) string {
	if r.Saturated == "" {
		return "The load was sustained."
	}
	return "The load was **not sustained**: " + r.Saturated + "."
}

func limiting(which string, m *probe.Measurement) string {
	return fmt.Sprintf("%s: **%s** (%s).", which, m.Limiting.Name, m.Limiting.Why)
}

func latencies(name string, m *probe.Measurement) Table {
	t := Table{Title: "Latency", Head: []string{"", "per record", "rows per write", "P50", "P95", "P99", "max"}}
	t.Rows = append(t.Rows, append([]string{"record due → readable", "", ""}, quantiles(m.Latency)...))
	for _, table := range slices.Sorted(maps.Keys(m.Writes)) {
		w := m.Writes[table]
		t.Rows = append(t.Rows, append([]string{"write " + table, fmt.Sprintf("%.3f", w.Count/max(m.Records, 1)), fmt.Sprintf("%.1f", w.Rows/max(w.Count, 1))}, quantiles(w.Quantiles)...))
	}
	t.Plot = &Plot{Name: name + "-latency", Title: "Latency", X: "time (min)", Y: "latency (ms)", LogY: true}
	for _, line := range []struct {
		name string
		of   func(*probe.Sample) float64
	}{
		{"due → readable P50", func(x *probe.Sample) float64 { return x.Latency.P50 }},
		{"due → readable P99", func(x *probe.Sample) float64 { return x.Latency.P99 }},
		{"write P50", func(x *probe.Sample) float64 { return x.Write.P50 }},
		{"write P99", func(x *probe.Sample) float64 { return x.Write.P99 }},
	} {
		l := Line{Name: line.name}
		for i := range m.Samples {
			l.add(m.Samples[i].At/60, 1e3*line.of(&m.Samples[i]))
		}
		t.Plot.Lines = append(t.Plot.Lines, l)
	}
	return t
}

func quantiles(q probe.Quantiles) []string {
	return []string{probe.Seconds(q.P50), probe.Seconds(q.P95), probe.Seconds(q.P99), probe.Seconds(q.Max)}
}

func durations(m *probe.Measurement) Table {
	t := Table{Title: "Stages and requests to Cassandra, by fleet-etl's own metrics", Head: []string{"", "times", "mean"}}
	for _, d := range m.Durations {
		if d.Count >= 10 {
			t.Rows = append(t.Rows, []string{d.Name, count(d.Count), probe.Seconds(d.Mean)})
		}
	}
	return t
}

func cpu(title string, m *probe.Measurement) Table {
	t := Table{Title: title, Head: []string{"", "µs", "of fleet-etl"}}
	t.Rows = append(t.Rows, []string{"nodes, all of them", fmt.Sprintf("%.1f", m.NodesMicros()), ""}, []string{"fleet-etl", fmt.Sprintf("%.1f", m.ClientMicros()), "100 %"})
	for _, s := range m.Profile {
		if s.Share >= 0.005 {
			t.Rows = append(t.Rows, []string{"· " + s.Name, fmt.Sprintf("%.1f", s.Share*m.ClientMicros()), probe.Percent(s.Share)})
		}
	}
	return t
}

func ramp(s *Section, r *loadtest.Report) {
	slices.SortFunc(r.Runs, func(a, b loadtest.Run) int { return cmp.Compare(a.Measurement.Offered, b.Measurement.Offered) })
	s.Title = fmt.Sprintf("Ramp on %d node(s): %s records/s sustained", r.Nodes, count(r.Maximum))
	best, beyond := knee(r)
	if best == nil {
		s.Facts = append(s.Facts, "No rate that was tried is sustained.")
	} else {
		s.Facts = append(s.Facts, fmt.Sprintf("The greatest sustained rate is **%s records/s** (%s).", count(r.Maximum), vehicles(best)), limiting("There, limiting", best.Measurement))
	}
	if beyond != nil {
		s.Facts = append(s.Facts, fmt.Sprintf("At %s records/s it saturates: %s.", count(beyond.Measurement.Offered), beyond.Saturated), limiting("There, limiting", beyond.Measurement))
	}
	t := Table{Title: "Steps", Head: []string{
		"offered/s", "stored/s", "vehicles", "history write P50", "P95", "P99", "due → readable P50", "P95", "P99", "writes per record", "CPU nodes", "fleet-etl", "others", "in flight of limit", "",
	}}
	p50, p99, write := Line{Name: "due → readable P50"}, Line{Name: "due → readable P99"}, Line{Name: "history write P99"}
	for i := range r.Runs {
		run := &r.Runs[i]
		m := run.Measurement
		h := m.Writes[cassandra.TableHistory]
		c, n, o := m.Shares()
		t.Rows = append(t.Rows, []string{
			count(m.Offered), count(m.PerSecond), count(float64(run.Vehicles)), probe.Seconds(h.P50), probe.Seconds(h.P95), probe.Seconds(h.P99),
			probe.Seconds(m.Latency.P50), probe.Seconds(m.Latency.P95), probe.Seconds(m.Latency.P99), fmt.Sprintf("%.2f", m.Mutations()),
			probe.Percent(n), probe.Percent(c), probe.Percent(o), fmt.Sprintf("%.0f of %.0f", m.InFlight, m.Limit), run.Verdict(),
		})
		p50.add(m.Offered, 1e3*m.Latency.P50)
		p99.add(m.Offered, 1e3*m.Latency.P99)
		write.add(m.Offered, 1e3*h.P99)
	}
	t.Plot = &Plot{Name: s.Name + "-latency", Title: "Latency against load", X: "offered (records/s)", Y: "latency (ms)", LogX: true, LogY: true, Lines: []Line{p50, p99, write}}
	s.Tables = append(s.Tables, t)
	if best != nil {
		s.Tables = append(s.Tables, cpu(fmt.Sprintf("CPU time per record at %s records/s", count(best.Measurement.Offered)), best.Measurement))
	}
}

// knee finds the run of the greatest sustained rate, and that of the least rate that saturated.
func knee(r *loadtest.Report) (best, beyond *loadtest.Run) {
	for i := range r.Runs {
		run := &r.Runs[i]
		if run.Measurement.Offered == r.Maximum {
			best = run
		}
		if run.Saturated != "" && (beyond == nil || run.Measurement.Offered < beyond.Measurement.Offered) {
			beyond = run
		}
	}
	return best, beyond
}

func nodes(ramps []*loadtest.Report) Section {
	t := Table{Head: []string{
		"ramp", "nodes", "sustained, records/s", "saturates at", "nodes' CPU per record", "of one copy", "fleet-etl's CPU per record", "writes per record", "history write P99", "due → readable P99", "limiting beyond",
	}}
	t.Plot = &Plot{Name: "nodes", Title: "Sustained rate, all nodes on one machine", X: "nodes", Y: "sustained (records/s)", Lines: []Line{{Name: "sustained"}}}
	for _, r := range ramps {
		best, beyond := knee(r)
		if best == nil {
			continue
		}
		m := best.Measurement
		saturates, limits := "not reached", ""
		if beyond != nil {
			saturates, limits = count(beyond.Measurement.Offered), beyond.Measurement.Limiting.Name
		}
		t.Rows = append(t.Rows, []string{
			r.Name, count(float64(r.Nodes)), count(r.Maximum), saturates, micros(m.NodesMicros()), micros(m.NodesMicros() / float64(max(r.Nodes, 1))), micros(m.ClientMicros()),
			fmt.Sprintf("%.2f", m.Mutations()), probe.Seconds(m.Writes[cassandra.TableHistory].P99), probe.Seconds(m.Latency.P99), limits,
		})
		if r.Runs[0].Vehicles == r.Runs[len(r.Runs)-1].Vehicles { // the others do something else
			t.Plot.Lines[0].add(float64(r.Nodes), r.Maximum)
		}
	}
	return Section{Name: "nodes", Title: "Growth with nodes", Tables: []Table{t}}
}

func devices(s *Section, r *loadtest.Report) {
	s.Title = "Growth with devices"
	steady := Table{Title: fmt.Sprintf("Steady %s records/s", count(r.Runs[0].Measurement.Offered)), Head: []string{
		"devices", "each every", "stored/s", "fleet-etl CPU per record", "nodes' CPU per record", "writes per record", "peak memory", "history write P50", "P95", "P99", "due → readable P50", "P95", "P99", "limiting",
	}}
	loaded := Table{Title: "Loading a file, the first contact with every device included",
		Head: []string{"devices", "records", "records/s", "fleet-etl CPU per record", "nodes' CPU per record", "writes per record", "peak memory"}}
	client, server, rate := Line{Name: "fleet-etl"}, Line{Name: "nodes"}, Line{Name: "records/s"}
	for i := range r.Runs {
		run := &r.Runs[i]
		m, x := run.Measurement, float64(run.Vehicles)
		h, l := m.Writes[cassandra.TableHistory], m.Latency
		steady.Rows = append(steady.Rows, []string{
			count(x), probe.Seconds(run.Interval), count(m.PerSecond), micros(m.ClientMicros()), micros(m.NodesMicros()), fmt.Sprintf("%.2f", m.Mutations()), megabytes(m.PeakMemory),
			probe.Seconds(h.P50), probe.Seconds(h.P95), probe.Seconds(h.P99), probe.Seconds(l.P50), probe.Seconds(l.P95), probe.Seconds(l.P99), m.Limiting.Name,
		})
		client.add(x, m.ClientMicros())
		server.add(x, m.NodesMicros())
		if u := run.Load; u != nil {
			loaded.Rows = append(loaded.Rows, []string{
				count(x), count(float64(u.Records)), count(u.PerSecond), micros(u.PerRecord(u.ClientCPU)), micros(u.PerRecord(u.NodesCPU)),
				fmt.Sprintf("%.2f", float64(u.Writes)/float64(max(u.Records, 1))), megabytes(u.PeakMemory),
			})
			rate.add(x, u.PerSecond)
		}
	}
	steady.Plot = &Plot{Name: s.Name + "-cost", Title: "Cost of a record against devices", X: "devices", Y: "CPU time (µs per record)", LogX: true, Lines: []Line{server, client}}
	loaded.Plot = &Plot{Name: s.Name + "-load", Title: "Loading a file, against its devices", X: "devices", Y: "loaded (records/s)", LogX: true, Lines: []Line{rate}}
	s.Tables = append(s.Tables, steady, loaded)
}

func history(s *Section, r *loadtest.Report) {
	s.Title = "Growth with history"
	s.Facts = append(s.Facts, fmt.Sprintf("%s records/s are offered: %s.", count(r.Runs[0].Measurement.Offered), vehicles(&r.Runs[0])))
	write := Table{Title: "Writing", Head: []string{
		"days stored", "records stored", "written/s", "history write P50", "P95", "P99", "due → readable P50", "P95", "P99", "fleet-etl CPU per record", "nodes' CPU per record",
	}}
	p50, p99 := Line{Name: "P50"}, Line{Name: "P99"}
	for _, run := range r.Runs {
		m := run.Measurement
		h, l := m.Writes[cassandra.TableHistory], m.Latency
		write.Rows = append(write.Rows, []string{
			count(float64(run.Days)), count(float64(run.Before)), count(m.PerSecond), probe.Seconds(h.P50), probe.Seconds(h.P95), probe.Seconds(h.P99),
			probe.Seconds(l.P50), probe.Seconds(l.P95), probe.Seconds(l.P99), micros(m.ClientMicros()), micros(m.NodesMicros()),
		})
		p50.add(float64(run.Days), 1e3*h.P50)
		p99.add(float64(run.Days), 1e3*h.P99)
	}
	write.Plot = &Plot{Name: s.Name, Title: "History writes against the stored history", X: "days stored", Y: "latency (ms)", LogY: true, Lines: []Line{p50, p99}}
	s.Tables = append(s.Tables, write)
}

func soak(s *Section, r *loadtest.Report) {
	run := &r.Runs[0]
	m := run.Measurement
	s.Title = fmt.Sprintf("Soak of %s at %s records/s: ", time.Duration(m.Seconds*float64(time.Second)).Round(time.Second), count(m.Offered))
	if slices.ContainsFunc(r.Trends, func(t loadtest.Trend) bool { return !t.Flat }) {
		s.Title += "not flat"
	} else {
		s.Title += "flat"
	}
	s.Facts = append(s.Facts, fmt.Sprintf("%s; %s records in %d samples, %s rejected, %s writes retried, backlog of %s records at the end.",
		vehicles(run), count(m.Records), len(m.Samples), count(float64(m.Rejected)), count(m.Retries), count(m.Backlog)), outcome(run), limiting("Limiting", m))
	t := Table{Title: "Trend over the later two thirds", Head: []string{"", "mean", "growth", "its standard error", ""}}
	for _, x := range r.Trends {
		verdict := "flat"
		if !x.Flat {
			verdict = "grows"
		}
		with := func(v float64) string { return strings.TrimSpace(digits(v) + " " + x.Unit) }
		t.Rows = append(t.Rows, []string{x.Name, with(x.Mean), with(x.Growth), with(x.Error), verdict})
	}
	resident, heap := Line{Name: "resident"}, Line{Name: "heap in use"}
	for _, x := range m.Samples {
		resident.add(x.At/60, x.Resident/1e6)
		heap.add(x.At/60, x.Heap/1e6)
	}
	t.Plot = &Plot{Name: s.Name + "-memory", Title: "Memory of fleet-etl", X: "time (min)", Y: "memory (MB)", Lines: []Line{resident, heap}}
	s.Tables = append(s.Tables, t, latencies(s.Name, m), cpu("CPU time per record", m))
}

// digits shows three digits of a number, or all before its point.
func digits(v float64) string {
	if math.Abs(v) >= 100 {
		return count(v)
	}
	return fmt.Sprintf("%.3g", v)
}

func micros(v float64) string { return fmt.Sprintf("%.1f µs", v) }

func megabytes(n int64) string { return fmt.Sprintf("%.0f MB", float64(n)/1e6) }

// count shows a whole number with commas between its thousands.
func count(n float64) string {
	text := fmt.Sprintf("%.0f", n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
