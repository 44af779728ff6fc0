package loadtest

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// Kinds of reports.
const (
	KindSteady  = "steady"
	KindRamp    = "ramp"
	KindDevices = "devices"
	KindHistory = "history"
	KindSoak    = "soak"
)

// Report is what one command of the load test found.
type Report struct {
	Kind    string    `json:"kind"`
	Name    string    `json:"name"` // of this report among others of its kind
	Taken   time.Time `json:"taken"`
	Command string    `json:"command"`
	Machine Machine   `json:"machine"`
	Cluster Cluster   `json:"cluster"`
	Slo     float64   `json:"objective_seconds"` // P99 from due to readable
	Runs    []Run     `json:"runs"`
	Maximum float64   `json:"maximum_per_second,omitempty"` // of a ramp: the greatest rate that was held
	Trends  []Trend   `json:"trends,omitempty"`
}

// Cluster is the one that the load went to.
type Cluster struct {
	Nodes       int    `json:"nodes"`
	Replication string `json:"replication"`
	Copies      int    `json:"copies"`
	Write       string `json:"write_level"`
	Derive      bool   `json:"derive"`
}

// Run is one step of a report.
type Run struct {
	Vehicles    int          `json:"vehicles"`
	Fleets      int          `json:"fleets"`
	Interval    float64      `json:"interval_seconds"` // between two records of a vehicle
	Measurement *Measurement `json:"measurement"`
	Bent        string       `json:"bent,omitempty"`
	Counted     int64        `json:"records_counted,omitempty"` // in the cluster afterwards

	Load *Load `json:"load,omitempty"`

	Days   int     `json:"days_stored,omitempty"`
	Before int64   `json:"records_before,omitempty"` // stored when the measurement began
	Reads  []Reads `json:"reads,omitempty"`
}

// Load is a file loaded as fast as it goes.
type Load struct {
	Records    int64   `json:"records"`
	PerSecond  float64 `json:"records_per_second"`
	CPUSeconds float64 `json:"cpu_seconds"`
	Server     float64 `json:"server_cpu_seconds"`
	PeakMemory int64   `json:"peak_memory_bytes"`
	Writes     int64   `json:"writes"`
}

// Reads is one thing that screens read, some times over.
type Reads struct {
	Name string `json:"name"`
	Rows int    `json:"rows"` // of one read, on the average
	Quantiles
}

// Section is a part of a document: what Text, Markdown and a page show alike.
type Section struct {
	Name   string // of its place in the docs
	Title  string
	Facts  []string
	Tables []Table
	Plots  []Plot
}

// Table is one, the first column on the left and the others on the right.
type Table struct {
	Title string
	Head  []string
	Rows  [][]string
}

// Sections are those of some reports, in their order, and one more that compares ramps on several clusters.
func Sections(reports []*Report) ([]Section, error) {
	var all []Section
	var ramps []*Report
	for _, r := range reports {
		s, err := r.section()
		if err != nil {
			return nil, err
		}
		all = append(all, s)
		if r.Kind == KindRamp {
			ramps = append(ramps, r)
		}
	}
	if len(ramps) > 1 {
		all = append(all, nodesSection(ramps))
	}
	return all, nil
}

func (r *Report) section() (Section, error) {
	s := Section{Name: cmp.Or(r.Name, r.Kind), Facts: []string{r.where()}}
	if len(r.Runs) == 0 {
		return s, fmt.Errorf("report %s: it has no runs", s.Name)
	}
	for i := range r.Runs {
		if r.Runs[i].Measurement == nil {
			return s, fmt.Errorf("report %s: run %d has no measurement", s.Name, i+1)
		}
	}
	switch r.Kind {
	case KindSteady:
		r.steady(&s)
	case KindRamp:
		r.ramp(&s)
	case KindDevices:
		r.devices(&s)
	case KindHistory:
		r.history(&s)
	case KindSoak:
		r.soak(&s)
	default:
		return s, fmt.Errorf("report of kind %q: there is no such kind", r.Kind)
	}
	return s, nil
}

// where is the machine, the time and the cluster of a report.
func (r *Report) where() string {
	derive := "with"
	if !r.Cluster.Derive {
		derive = "without"
	}
	return fmt.Sprintf("Measured %s by `%s`: %d cores (%s), %.0f GB, load average %.1f at the start; %d node(s) on the same machine, %s, writes at %s, %s derivation.",
		r.Taken.UTC().Format("2006-01-02 15:04 UTC"), r.Command, r.Machine.Cores, r.Machine.Processor, float64(r.Machine.Memory)/(1<<30), r.Machine.Load,
		r.Cluster.Nodes, r.Cluster.Replication, r.Cluster.Write, derive)
}

func (r *Run) vehiclesText() string {
	return fmt.Sprintf("%s vehicles of %d fleets, each every %s", count(float64(r.Vehicles)), r.Fleets, Duration(r.Interval))
}

func (r *Report) steady(s *Section) {
	run := &r.Runs[0]
	m := run.Measurement
	s.Title = fmt.Sprintf("Steady load of %s records/s", count(m.Offered))
	s.Facts = append(s.Facts, fmt.Sprintf("%s; %s records in %s, %s/s. In the whole run %s were stored, %s refused, %s counted in the cluster afterwards; %d writes were tried again.",
		run.vehiclesText(), count(float64(m.Records)), Duration(m.Seconds), count(m.PerSecond), count(float64(m.Stored)), count(float64(m.Refused)), count(float64(run.Counted)), m.Retries),
		heldText(run), limitingText("Limiting", m))
	s.Tables = append(s.Tables, latencyTable(m), stagesTable(m), requestsTable(m), clientTable(m))
	s.Tables = append(s.Tables, serverTables(m)...)
	s.Plots = append(s.Plots, samplePlots(s.Name, m)...)
}

func heldText(r *Run) string {
	if r.Bent == "" {
		return "The load was held."
	}
	return "The load was **not held**: " + r.Bent + "."
}

func limitingText(which string, m *Measurement) string {
	return fmt.Sprintf("%s: **%s** (%s).", which, m.Limiting.Name, m.Limiting.Why)
}

func latencyTable(m *Measurement) Table {
	t := Table{Title: "Latency", Head: []string{"", "a record", "rows a write", "P50", "P95", "P99", "longest"}}
	t.Rows = append(t.Rows, append([]string{"record due → readable", "", ""}, quantileCells(m.Freshness)...))
	for _, table := range slices.Sorted(maps.Keys(m.Writes)) {
		w := m.Writes[table]
		t.Rows = append(t.Rows, append([]string{"write " + table, fmt.Sprintf("%.3f", float64(w.Count)/float64(max(m.Records, 1))), fmt.Sprintf("%.1f", w.Rows/float64(max(w.Count, 1)))},
			quantileCells(w.Quantiles)...))
	}
	return t
}

func quantileCells(q Quantiles) []string {
	return []string{Duration(q.P50), Duration(q.P95), Duration(q.P99), Duration(q.Max)}
}

func stagesTable(m *Measurement) Table {
	t := Table{Title: "Stages, on the clock", Head: []string{"", "times", "mean"}}
	for _, s := range m.Stages {
		t.Rows = append(t.Rows, []string{s.Name, count(s.Count), Duration(s.Mean)})
	}
	return t
}

// What is done more seldom than for each thousandth record is left out of tables.
const seldom = 0.001

func requestsTable(m *Measurement) Table {
	t := Table{Title: "Requests of the driver", Head: []string{"", "a record", "mean"}}
	for _, s := range m.Requests {
		if each := s.Count / float64(max(m.Records, 1)); each >= seldom {
			t.Rows = append(t.Rows, []string{s.Name, fmt.Sprintf("%.3f", each), Duration(s.Mean)})
		}
	}
	return t
}

func clientTable(m *Measurement) Table {
	t := Table{Title: "CPU time a record", Head: []string{"", "µs", "of fleet-etl's"}}
	t.Rows = append(t.Rows, []string{"nodes, all of them", fmt.Sprintf("%.1f", m.ServerMicros()), ""}, []string{"fleet-etl", fmt.Sprintf("%.1f", m.ClientMicros()), "100 %"})
	for _, s := range m.Client.Profile {
		if s.Share >= 0.005 {
			t.Rows = append(t.Rows, []string{"· " + s.Name, fmt.Sprintf("%.1f", s.Share*m.ClientMicros()), Percent(s.Share)})
		}
	}
	return t
}

func serverTables(m *Measurement) []Table {
	n := m.Nodes
	if n == nil {
		return nil
	}
	t := Table{Title: "The nodes, by their own metrics", Head: []string{"", "P50", "P99"}}
	for _, kind := range slices.Sorted(maps.Keys(n.Coordinator)) {
		if n.Requests[kind] > 0 {
			l := n.Coordinator[kind]
			t.Rows = append(t.Rows, []string{fmt.Sprintf("coordinator, %s: %.3f a record", kind, n.Requests[kind]/float64(max(m.Records, 1))), Duration(l.P50), Duration(l.P99)})
		}
	}
	for _, table := range slices.Sorted(maps.Keys(n.Local)) {
		if l := n.Local[table]; l.P99 > 0 && float64(m.Writes[table].Count) >= seldom*float64(m.Records) {
			t.Rows = append(t.Rows, []string{"write on the node itself, " + table, Duration(l.P50), Duration(l.P99)})
		}
	}
	rest := Table{Title: "and besides", Head: []string{"", ""}, Rows: [][]string{
		{"garbage collection of the nodes", Duration(n.Collection)}, {"messages dropped", count(n.Dropped)}, {"compactions that wait at the end", count(n.Compactions)},
	}}
	for _, pool := range slices.Sorted(maps.Keys(n.Pending)) {
		if n.Pending[pool] > 0 {
			rest.Rows = append(rest.Rows, []string{"tasks that wait at the end, " + pool, count(n.Pending[pool])})
		}
	}
	return []Table{t, rest}
}

func (r *Report) ramp(s *Section) {
	slices.SortFunc(r.Runs, func(a, b Run) int { return cmp.Compare(a.Measurement.Offered, b.Measurement.Offered) })
	s.Title = fmt.Sprintf("Ramp on %d node(s): %s records/s are held", r.Cluster.Nodes, count(r.Maximum))
	best, beyond := r.best(), r.beyond()
	if best == nil {
		s.Facts = append(s.Facts, "No rate that was tried is held.")
	} else {
		s.Facts = append(s.Facts, fmt.Sprintf("The greatest rate that was held is **%s records/s** (%s).", count(r.Maximum), best.vehiclesText()), limitingText("There, limiting", best.Measurement))
	}
	if beyond != nil {
		s.Facts = append(s.Facts, fmt.Sprintf("At %s records/s it bends: %s.", count(beyond.Measurement.Offered), beyond.Bent), limitingText("There, limiting", beyond.Measurement))
	}
	t := Table{Title: "Steps", Head: []string{"offered/s", "stored/s", "vehicles", "history write P50", "P95", "P99", "due → readable P50", "P95", "P99", "writes a record", "CPU nodes", "fleet-etl", "others", "in flight of limit", ""}}
	var offered, stored, p50, p95, p99, w99, server, client, others []float64
	for i := range r.Runs {
		run := &r.Runs[i]
		m := run.Measurement
		h := m.Writes[history]
		c, n, o := m.Shares()
		verdict := "held"
		if run.Bent != "" {
			verdict = "bent"
		}
		t.Rows = append(t.Rows, []string{
			count(m.Offered), count(m.PerSecond), count(float64(run.Vehicles)), Duration(h.P50), Duration(h.P95), Duration(h.P99),
			Duration(m.Freshness.P50), Duration(m.Freshness.P95), Duration(m.Freshness.P99), fmt.Sprintf("%.2f", m.Mutations()),
			Percent(n), Percent(c), Percent(o), fmt.Sprintf("%.0f of %.0f", m.Loader.InFlight, m.Loader.Limit), verdict,
		})
		offered, stored = append(offered, m.Offered), append(stored, m.PerSecond)
		p50, p95, p99, w99 = append(p50, 1e3*m.Freshness.P50), append(p95, 1e3*m.Freshness.P95), append(p99, 1e3*m.Freshness.P99), append(w99, 1e3*h.P99)
		server, client, others = append(server, 100*n), append(client, 100*c), append(others, 100*o)
	}
	s.Tables = append(s.Tables, t)
	if best != nil {
		t := clientTable(best.Measurement)
		t.Title = fmt.Sprintf("CPU time a record at %s records/s", count(best.Measurement.Offered))
		s.Tables = append(s.Tables, t)
	}
	s.Plots = append(s.Plots,
		Plot{Name: s.Name + "-throughput", Title: "Stored against offered", X: "offered (records/s)", Y: "stored (records/s)", LogX: true, LogY: true,
			Lines: []Line{{"stored", offered, stored}, {"as offered", offered, offered}}},
		Plot{Name: s.Name + "-latency", Title: "Latency against load", X: "offered (records/s)", Y: "latency (ms)", LogX: true, LogY: true,
			Lines: []Line{{"due → readable P50", offered, p50}, {"P95", offered, p95}, {"P99", offered, p99}, {"history write P99", offered, w99}}},
		Plot{Name: s.Name + "-cpu", Title: "CPU against load", X: "offered (records/s)", Y: "share of the machine's cores (%)", LogX: true,
			Lines: []Line{{"nodes", offered, server}, {"fleet-etl", offered, client}, {"others", offered, others}}})
}

// history is the table of the history.
const history = "telemetry_by_device_day"

// best is the run of the greatest rate that was held.
func (r *Report) best() *Run {
	for i := range r.Runs {
		if r.Runs[i].Measurement.Offered == r.Maximum {
			return &r.Runs[i]
		}
	}
	return nil
}

// beyond is the run of the least rate that was not held.
func (r *Report) beyond() *Run {
	var least *Run
	for i := range r.Runs {
		if run := &r.Runs[i]; run.Bent != "" && (least == nil || run.Measurement.Offered < least.Measurement.Offered) {
			least = run
		}
	}
	return least
}

func nodesSection(ramps []*Report) Section {
	s := Section{Name: "nodes", Title: "Growth with nodes"}
	t := Table{Head: []string{"ramp", "nodes", "copies", "held, records/s", "bends at", "nodes' CPU a record", "the same for one copy", "fleet-etl's CPU a record", "writes a record", "history write P99", "due → readable P99", "limiting beyond"}}
	held := map[string]*Line{} // by what was ramped
	for _, r := range ramps {
		best, beyond := r.best(), r.beyond()
		if best == nil {
			continue
		}
		m := best.Measurement
		bend, limiting := "not reached", ""
		if beyond != nil {
			bend, limiting = count(beyond.Measurement.Offered), beyond.Measurement.Limiting.Name
		}
		t.Rows = append(t.Rows, []string{
			r.Name, count(float64(r.Cluster.Nodes)), count(float64(r.Cluster.Copies)), count(r.Maximum), bend,
			fmt.Sprintf("%.1f µs", m.ServerMicros()), fmt.Sprintf("%.1f µs", m.ServerMicros()/float64(max(r.Cluster.Copies, 1))), fmt.Sprintf("%.1f µs", m.ClientMicros()),
			fmt.Sprintf("%.2f", m.Mutations()), Duration(m.Writes[history].P99), Duration(m.Freshness.P99), limiting,
		})
		kind := "every vehicle more often"
		if r.growing() {
			kind = fmt.Sprintf("more vehicles, each every %s", Duration(best.Interval))
		}
		if held[kind] == nil {
			held[kind] = &Line{Name: kind}
		}
		held[kind].X, held[kind].Y = append(held[kind].X, float64(r.Cluster.Nodes)), append(held[kind].Y, r.Maximum)
	}
	s.Tables = append(s.Tables, t)
	p := Plot{Name: "nodes", Title: "Rate that is held, all nodes on one machine", X: "nodes", Y: "held (records/s)"}
	for _, kind := range slices.Sorted(maps.Keys(held)) {
		p.Lines = append(p.Lines, *held[kind])
	}
	s.Plots = append(s.Plots, p)
	return s
}

// growing tells whether the rate of a ramp grew by more vehicles.
func (r *Report) growing() bool {
	return len(r.Runs) > 1 && r.Runs[0].Vehicles != r.Runs[len(r.Runs)-1].Vehicles
}

func (r *Report) devices(s *Section) {
	s.Title = "Growth with devices"
	steady := Table{Title: fmt.Sprintf("Steady %s records/s", count(r.Runs[0].Measurement.Offered)),
		Head: []string{"devices", "each every", "stored/s", "fleet-etl CPU a record", "nodes' CPU a record", "writes a record", "peak memory", "history write P50", "P95", "P99", "due → readable P50", "P95", "P99", "limiting"}}
	loaded := Table{Title: "Loading a file, the first contact with every device among it",
		Head: []string{"devices", "records", "records/s", "fleet-etl CPU a record", "nodes' CPU a record", "writes a record", "peak memory"}}
	var x, client, server, writes, peak, rate []float64
	for i := range r.Runs {
		run := &r.Runs[i]
		m, l := run.Measurement, run.Load
		h, f := m.Writes[history], m.Freshness
		steady.Rows = append(steady.Rows, []string{
			count(float64(run.Vehicles)), Duration(run.Interval), count(m.PerSecond), fmt.Sprintf("%.1f µs", m.ClientMicros()), fmt.Sprintf("%.1f µs", m.ServerMicros()),
			fmt.Sprintf("%.2f", m.Mutations()), megabytes(m.Client.PeakMemory), Duration(h.P50), Duration(h.P95), Duration(h.P99), Duration(f.P50), Duration(f.P95), Duration(f.P99), m.Limiting.Name,
		})
		x, client, server = append(x, float64(run.Vehicles)), append(client, m.ClientMicros()), append(server, m.ServerMicros())
		writes, peak = append(writes, m.Mutations()), append(peak, float64(m.Client.PeakMemory)/1e6)
		if l == nil {
			continue
		}
		n := float64(max(l.Records, 1))
		loaded.Rows = append(loaded.Rows, []string{
			count(float64(run.Vehicles)), count(float64(l.Records)), count(l.PerSecond), fmt.Sprintf("%.1f µs", 1e6*l.CPUSeconds/n), fmt.Sprintf("%.1f µs", 1e6*l.Server/n),
			fmt.Sprintf("%.2f", float64(l.Writes)/n), megabytes(l.PeakMemory),
		})
		rate = append(rate, l.PerSecond)
	}
	s.Tables = append(s.Tables, steady)
	s.Plots = append(s.Plots,
		Plot{Name: s.Name + "-cost", Title: "Cost of a record against devices", X: "devices", Y: "CPU time (µs a record)", LogX: true,
			Lines: []Line{{"nodes", x, server}, {"fleet-etl", x, client}}},
		Plot{Name: s.Name + "-writes", Title: "Writes against devices", X: "devices", Y: "writes a record", LogX: true, Lines: []Line{{"writes a record", x, writes}}},
		Plot{Name: s.Name + "-memory", Title: "Memory of fleet-etl against devices", X: "devices", Y: "peak memory (MB)", LogX: true, Lines: []Line{{"peak memory", x, peak}}})
	if len(rate) == len(x) {
		s.Tables = append(s.Tables, loaded)
		s.Plots = append(s.Plots, Plot{Name: s.Name + "-load", Title: "Loading a file, against its devices", X: "devices", Y: "loaded (records/s)", LogX: true, Lines: []Line{{"records/s", x, rate}}})
	}
}

func (r *Report) history(s *Section) {
	s.Title = "Growth with history"
	s.Facts = append(s.Facts, fmt.Sprintf("%s records/s are offered: %s. Reads come one after the other, while nothing is written.", count(r.Runs[0].Measurement.Offered), r.Runs[0].vehiclesText()))
	write := Table{Title: "Writing", Head: []string{"days stored", "records stored", "written/s", "history write P50", "P95", "P99", "due → readable P50", "P95", "P99", "fleet-etl CPU a record", "nodes' CPU a record"}}
	read := Table{Title: "Reading", Head: []string{"read, days stored", "rows", "P50", "P95", "P99", "longest"}}
	lines := map[string]*Line{}
	point := func(name string, x int, seconds float64) {
		if lines[name] == nil {
			lines[name] = &Line{Name: name}
		}
		lines[name].X, lines[name].Y = append(lines[name].X, float64(x)), append(lines[name].Y, 1e3*seconds)
	}
	for i := range r.Runs {
		run := &r.Runs[i]
		m := run.Measurement
		h, f := m.Writes[history], m.Freshness
		write.Rows = append(write.Rows, []string{
			count(float64(run.Days)), count(float64(run.Before)), count(m.PerSecond), Duration(h.P50), Duration(h.P95), Duration(h.P99), Duration(f.P50), Duration(f.P95), Duration(f.P99),
			fmt.Sprintf("%.1f µs", m.ClientMicros()), fmt.Sprintf("%.1f µs", m.ServerMicros()),
		})
		point("history write", run.Days, h.P95)
		for _, q := range run.Reads {
			read.Rows = append(read.Rows, append([]string{fmt.Sprintf("%s, %d", q.Name, run.Days), count(float64(q.Rows))}, quantileCells(q.Quantiles)...))
			point(q.Name, run.Days, q.P95)
		}
	}
	slices.SortStableFunc(read.Rows, func(a, b []string) int {
		x, _, _ := strings.Cut(a[0], ",")
		y, _, _ := strings.Cut(b[0], ",")
		return cmp.Compare(x, y)
	})
	s.Tables = append(s.Tables, write, read)
	p := Plot{Name: s.Name, Title: "Latency against the history that is stored", X: "days stored", Y: "P95 (ms)", LogY: true}
	for _, name := range slices.Sorted(maps.Keys(lines)) {
		p.Lines = append(p.Lines, *lines[name])
	}
	s.Plots = append(s.Plots, p)
}

func (r *Report) soak(s *Section) {
	run := &r.Runs[0]
	m := run.Measurement
	flat := !slices.ContainsFunc(r.Trends, func(t Trend) bool { return !t.Flat })
	s.Title = fmt.Sprintf("Soak of %s at %s records/s: ", time.Duration(m.Seconds*float64(time.Second)).Round(time.Second), count(m.Offered))
	if flat {
		s.Title += "flat"
	} else {
		s.Title += "not flat"
	}
	s.Facts = append(s.Facts, fmt.Sprintf("%s; %s records in %d samples, %s refused, %d writes tried again, %s never handed over.",
		run.vehiclesText(), count(float64(m.Records)), len(m.Samples), count(float64(m.Refused)), m.Retries, count(float64(m.Unsent))), heldText(run), limitingText("Limiting", m))
	t := Table{Title: "Trend over the later two thirds", Head: []string{"", "mean", "growth", "its standard error", ""}}
	for _, x := range r.Trends {
		verdict := "flat"
		if !x.Flat {
			verdict = "grows"
		}
		with := func(v float64) string { return strings.TrimSpace(digits(v) + " " + x.Unit) }
		t.Rows = append(t.Rows, []string{x.Name, with(x.Mean), with(x.Growth), with(x.Noise), verdict})
	}
	s.Tables = append(s.Tables, t, latencyTable(m), clientTable(m))
	s.Plots = append(s.Plots, samplePlots(s.Name, m)...)
	var at, rss, heap, goroutines, files []float64
	for _, x := range m.Samples {
		at, rss, heap = append(at, x.At/60), append(rss, float64(x.Resident)/1e6), append(heap, float64(x.Heap)/1e6)
		goroutines, files = append(goroutines, float64(x.Goroutines)), append(files, float64(x.Files))
	}
	s.Plots = append(s.Plots,
		Plot{Name: s.Name + "-memory", Title: "Memory of fleet-etl", X: "time (min)", Y: "memory (MB)", Lines: []Line{{"resident", at, rss}, {"heap in use", at, heap}}},
		Plot{Name: s.Name + "-handles", Title: "Goroutines and open files of fleet-etl", X: "time (min)", Y: "how many", Lines: []Line{{"goroutines", at, goroutines}, {"open files", at, files}}})
}

func samplePlots(name string, m *Measurement) []Plot {
	var at, f50, f95, f99, w50, w95, w99 []float64
	for _, x := range m.Samples {
		at = append(at, x.At/60)
		f50, f95, f99 = append(f50, 1e3*x.Freshness.P50), append(f95, 1e3*x.Freshness.P95), append(f99, 1e3*x.Freshness.P99)
		w50, w95, w99 = append(w50, 1e3*x.Write.P50), append(w95, 1e3*x.Write.P95), append(w99, 1e3*x.Write.P99)
	}
	return []Plot{
		{Name: name + "-freshness", Title: "From due to readable", X: "time (min)", Y: "latency (ms)", LogY: true, Lines: []Line{{"P50", at, f50}, {"P95", at, f95}, {"P99", at, f99}}},
		{Name: name + "-write", Title: "Writes of all tables", X: "time (min)", Y: "latency (ms)", LogY: true, Lines: []Line{{"P50", at, w50}, {"P95", at, w95}, {"P99", at, w99}}},
	}
}

// digits shows three of a number, or all before its point.
func digits(v float64) string {
	if math.Abs(v) >= 100 {
		return count(v)
	}
	return fmt.Sprintf("%.3g", v)
}

func megabytes(n int64) string { return fmt.Sprintf("%.0f MB", float64(n)/1e6) }

// count shows a number with commas between its thousands.
func count(n float64) string {
	text := fmt.Sprintf("%.0f", n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
