package loadtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/procfs"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/dev/bench"
	"github.com/fleettracing/fleet-tracing/dev/bench/table"
)

// Part is a measurement that makes one report.
type Part struct {
	Name string
	DCs  string // cluster that it needs
	do   func(context.Context, *test, *table.Section) error
}

const oneNode = "dc1=1"

// Parts lists the parts of the load test, in the order of docs/performance.md. Each takes less than eight minutes.
func Parts() []Part {
	const fourNodes = "dc1=2,dc2=2"
	return []Part{
		{"steady", oneNode, steadyLoad{2000}.do},
		{"ramp", oneNode, rampLoad{warm: 30 * time.Second}.do},
		{"ramp-fleet", oneNode, rampLoad{warm: 30 * time.Second, interval: 5 * time.Second}.do},
		{"devices", oneNode, growingFleet},
		{"history", oneNode, growingHistory},
		{"ramp-2", "dc1=2", rampLoad{warm: 30 * time.Second}.do},
		{"ramp-4", fourNodes, rampLoad{warm: time.Minute}.do},
		{"steady-4", fourNodes, steadyLoad{1000}.do},
	}
}

// Soak is a steady load for long.
func Soak(rate float64, lasts time.Duration) Part {
	return Part{"soak", oneNode, func(ctx context.Context, t *test, s *table.Section) error {
		r, err := t.run(ctx, phase{rate: rate, vehicles: 5000, warmup: 30 * time.Second, lasts: lasts, every: time.Minute})
		if err != nil {
			return err
		}
		flat := soakReport(s, &r)
		if r.saturated != "" {
			return errors.New("soak: the load was not sustained, so its trends mean nothing; lower the rate")
		}
		if !flat {
			return errors.New("soak: a trend is not flat")
		}
		return nil
	}}
}

// Run measures a part on empty tables. A report with tables is good also where there is an error.
func (p Part) Run(ctx context.Context, nodes bench.Nodes, binary string) (s *table.Section, err error) {
	fact, err := conditions(nodes)
	s = &table.Section{Name: p.Name, Facts: []string{fact}}
	if err != nil {
		return s, err
	}
	keyspace, err := nodes.MakeKeyspace(ctx, "fleet_bench", binary)
	if err != nil {
		return s, err
	}
	defer keyspace.Session.Close()
	if err := keyspace.Empty(ctx); err != nil {
		return s, err
	}
	return s, p.do(ctx, &test{binary, keyspace}, s)
}

// conditions describes the machine and the cluster.
func conditions(nodes bench.Nodes) (string, error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return "", err
	}
	cpus, cpuErr := fs.CPUInfo()
	memory, memoryErr := fs.Meminfo()
	load, loadErr := fs.LoadAvg()
	if err := errors.Join(cpuErr, memoryErr, loadErr); err != nil {
		return "", err
	}
	return fmt.Sprintf("Measured %s: %d cores (%s), %.0f GB, load average %.1f at the start; %d node(s) on the same machine, %s, with derived rows.",
		time.Now().UTC().Format("2006-01-02 15:04 UTC"), len(cpus), strings.TrimSpace(cpus[0].ModelName), float64(*memory.MemTotal)/(1<<20), load.Load1, len(nodes.Hosts), nodes.DCs), nil
}

// manyVehicles send the load of most parts.
const manyVehicles = 1000

// steadyLoad keeps one rate.
type steadyLoad struct{ rate float64 }

func (l steadyLoad) do(ctx context.Context, t *test, s *table.Section) error {
	r, err := t.run(ctx, phase{rate: l.rate, vehicles: manyVehicles, warmup: 10 * time.Second, lasts: time.Minute, every: 5 * time.Second})
	if err != nil {
		return err
	}
	steadyReport(s, &r)
	counted := int64(0)
	count := t.keyspace.Session.Query("SELECT COUNT(*) FROM " + cassandra.TableHistory).WithContext(ctx)
	if err := count.Scan(&counted); err != nil {
		return fmt.Errorf("count the stored records: %w", err)
	}
	if counted != r.report.Stored {
		return fmt.Errorf("%d records are in the cluster, and %d were acknowledged", counted, r.report.Stored)
	}
	return nil
}

// rampLoad raises the rate step by step.
type rampLoad struct {
	warm     time.Duration // a first step that does not count: nodes compile their code
	interval time.Duration // of each vehicle, so that a higher rate is more vehicles; 0: a higher rate of the same vehicles
}

const (
	firstRate  = 1000
	stepLasts  = 20 * time.Second
	bisections = 3
)

func (l rampLoad) do(ctx context.Context, t *test, s *table.Section) error {
	step := func(rate float64, lasts time.Duration) (run, error) {
		p := phase{rate: rate, vehicles: manyVehicles, warmup: 5 * time.Second, lasts: lasts}
		if l.interval > 0 { // each vehicle sends several times before the measurement
			p.vehicles, p.warmup = max(1, int(rate*l.interval.Seconds())), 6*l.interval
		}
		if err := t.keyspace.Empty(ctx); err != nil {
			return run{}, err
		}
		return t.run(ctx, p)
	}
	if _, err := step(firstRate, l.warm); err != nil {
		return err
	}
	var runs []run
	maximum, err := rampUp(firstRate, bisections, func(rate float64) (bool, error) {
		r, err := step(rate, stepLasts)
		if err != nil {
			return false, err
		}
		runs = append(runs, r)
		return r.saturated == "", nil
	})
	if len(runs) > 0 {
		rampReport(s, len(t.keyspace.Nodes.Hosts), maximum, runs)
	}
	return err
}

// growingFleet measures the cost of a record with ever more devices.
func growingFleet(ctx context.Context, t *test, s *table.Section) error {
	const rate = 2000
	s.Title = fmt.Sprintf("Growth with devices, at %d records/s", rate)
	costs := newCosts("Cost of a record against devices", "devices")
	costs.Plot = &table.Plot{Name: s.Name + "-cost", Columns: costColumns, Y: "CPU time (µs per record)", LogX: true}
	for _, n := range []int{100, 1000, 10_000, 100_000} {
		p := phase{rate: rate, vehicles: n, lasts: 30 * time.Second}
		p.warmup = max(10*time.Second, p.interval()+5*time.Second) // each device sends
		if err := t.keyspace.Empty(ctx); err != nil {
			return err
		}
		r, err := t.run(ctx, p)
		if err != nil {
			return err
		}
		addCosts(costs, n, &r)
		s.Tables = []*table.Table{costs}
	}
	return nil
}

// growingHistory measures writes with ever more days stored.
func growingHistory(ctx context.Context, t *test, s *table.Section) error {
	const rate = 1000
	s.Title = fmt.Sprintf("Growth with history, at %d records/s", rate)
	costs := newCosts("Writes against the stored history", "days stored")
	costs.Plot = &table.Plot{Name: s.Name, Columns: writeColumns, Y: "latency (ms)", LogY: true}
	const vehicles, interval = 100, time.Minute
	reached := time.Now().Add(-time.Hour)                    // from here on everything is stored
	oldest := time.Now().Add(-30*24*time.Hour + 3*time.Hour) // still in the retention when the last measurement ends
	newest := reached
	file := filepath.Join(t.keyspace.Nodes.Dir, "history.csv")
	defer os.Remove(file)
	for _, days := range []int{1, 7, 30} {
		first := newest.Add(-time.Duration(days) * 24 * time.Hour)
		if first.Before(oldest) {
			first = oldest
		}
		fill := bench.Simulation{Records: int(reached.Sub(first)/interval) * vehicles, Vehicles: vehicles, Interval: interval, Start: first}
		if err := fill.Write(ctx, t.binary, file); err != nil {
			return err
		}
		usage, err := bench.Measure(t.keyspace.Command(ctx, []string{bench.WithoutDerivedRows}, t.binary, "load", "--report", "json", file), t.keyspace.Nodes)
		if err != nil {
			return fmt.Errorf("store %d days: %w", days, err)
		}
		reached = first
		fmt.Fprintf(os.Stderr, "stored %d days: %d records, at %.0f/s\n", days, usage.Stored, usage.PerSecond())
		r, err := t.run(ctx, phase{rate: rate, vehicles: vehicles, warmup: 10 * time.Second, lasts: 20 * time.Second})
		if err != nil {
			return err
		}
		addCosts(costs, days, &r)
		s.Tables = []*table.Table{costs}
	}
	return nil
}
