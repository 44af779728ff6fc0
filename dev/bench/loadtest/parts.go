package loadtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/dev/bench"
	"github.com/fleettracing/fleet-tracing/dev/bench/probe"
)

// Kinds of reports.
const (
	KindSteady  = "steady"
	KindRamp    = "ramp"
	KindDevices = "devices"
	KindHistory = "history"
	KindSoak    = "soak"
)

// Report is the result of one part of the load test.
type Report struct {
	Kind    string        `json:"kind"`
	Name    string        `json:"name"`
	Taken   time.Time     `json:"taken"`
	Machine probe.Machine `json:"machine"`
	DCs     string        `json:"data_centers"`
	Nodes   int           `json:"nodes"`
	Runs    []Run         `json:"runs"`
	Maximum float64       `json:"maximum_per_second,omitempty"` // greatest sustained rate of a ramp
	Trends  []Trend       `json:"trends,omitempty"`
}

// Part is a measurement that makes one report.
type Part struct {
	Name string
	DCs  string // cluster that it needs
	kind string
	do   func(context.Context, *test, *Report) error
}

const (
	oneNode   = "dc1=1"
	fourNodes = "dc1=2,dc2=2"
)

// Parts lists the parts of the load test, in the order of docs/performance.md. Each takes less than eight minutes.
func Parts() []Part {
	return []Part{
		{"steady", oneNode, KindSteady, steadyLoad{2000}.do},
		{"ramp", oneNode, KindRamp, rampLoad{warm: 30 * time.Second}.do},
		{"ramp-fleet", oneNode, KindRamp, rampLoad{warm: 30 * time.Second, interval: 5 * time.Second}.do},
		{"devices", oneNode, KindDevices, growingFleet},
		{"history", oneNode, KindHistory, growingHistory},
		{"ramp-2", "dc1=2", KindRamp, rampLoad{warm: 30 * time.Second}.do},
		{"ramp-4", fourNodes, KindRamp, rampLoad{warm: time.Minute}.do},
		{"steady-4", fourNodes, KindSteady, steadyLoad{1000}.do},
	}
}

// Soak is a steady load for long.
func Soak(dcs string, rate float64, lasts, every time.Duration) Part {
	return Part{"soak", dcs, KindSoak, func(ctx context.Context, t *test, r *Report) error {
		run, err := t.run(ctx, phase{rate: rate, vehicles: 5000, warmup: 30 * time.Second, lasts: lasts, every: every})
		if err != nil {
			return err
		}
		r.Runs, r.Trends = []Run{run}, trends(run.Measurement.Samples)
		if run.Saturated != "" {
			return errSaturated
		}
		if slices.ContainsFunc(r.Trends, func(t Trend) bool { return !t.Flat }) {
			return errNotFlat
		}
		return nil
	}}
}

var (
	errNotFlat   = errors.New("soak: a trend is not flat")
	errSaturated = errors.New("soak: the load was not sustained, so its trends mean nothing; lower the rate")
)

// Run measures a part on empty tables. A report with runs is good also where there is an error.
func (p Part) Run(ctx context.Context, nodes bench.Nodes, binary string, log io.Writer) (r *Report, err error) {
	r = &Report{Kind: p.kind, Name: p.Name, Taken: time.Now(), Machine: probe.ThisMachine(), DCs: nodes.DCs, Nodes: len(nodes.Hosts)}
	dir, err := os.MkdirTemp("", "fleet-bench-")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	keyspace, err := nodes.MakeKeyspace(ctx, "fleet_bench", binary, dir)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, keyspace.Drop(ctx)) }()
	return r, p.do(ctx, &test{binary: binary, log: log, keyspace: keyspace, dir: dir}, r)
}

// manyVehicles send the load of most parts.
const manyVehicles = 1000

// steadyLoad keeps one rate.
type steadyLoad struct{ rate float64 }

func (l steadyLoad) do(ctx context.Context, t *test, r *Report) error {
	run, err := t.run(ctx, phase{rate: l.rate, vehicles: manyVehicles, warmup: 10 * time.Second, lasts: time.Minute, every: 5 * time.Second})
	if err != nil {
		return err
	}
	count := t.keyspace.Session.Query("SELECT COUNT(*) FROM " + cassandra.TableHistory).WithContext(ctx)
	if err := count.Scan(&run.Counted); err != nil {
		return fmt.Errorf("count the stored records: %w", err)
	}
	r.Runs = []Run{run}
	if run.Counted != run.Measurement.Stored {
		return fmt.Errorf("%d records are in the cluster, and %d were acknowledged", run.Counted, run.Measurement.Stored)
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
	rampWithin = 10 * time.Minute
)

func (l rampLoad) do(ctx context.Context, t *test, r *Report) (err error) {
	step := func(rate float64, lasts time.Duration) (Run, error) {
		p := phase{rate: rate, vehicles: manyVehicles, warmup: 5 * time.Second, lasts: lasts}
		if l.interval > 0 { // each vehicle sends several times before the measurement
			p.vehicles, p.warmup = max(1, int(rate*l.interval.Seconds())), 6*l.interval
		}
		if err := t.keyspace.Empty(ctx); err != nil {
			return Run{}, err
		}
		return t.run(ctx, p)
	}
	if _, err := step(firstRate, l.warm); err != nil {
		return err
	}
	began, longest := time.Now(), time.Duration(0)
	more := func() bool { return time.Since(began)+longest < rampWithin }
	r.Maximum, err = rampUp(firstRate, bisections, more, func(rate float64) (bool, error) {
		started := time.Now()
		run, err := step(rate, stepLasts)
		if err != nil {
			return false, err
		}
		longest = max(longest, time.Since(started))
		r.Runs = append(r.Runs, run)
		return run.Saturated == "", nil
	})
	return err
}

// growingFleet measures the cost of a record with ever more devices.
func growingFleet(ctx context.Context, t *test, r *Report) error {
	for _, n := range []int{100, 1000, 10_000, 100_000} {
		p := phase{rate: 2000, vehicles: n, lasts: 30 * time.Second}
		p.warmup = max(10*time.Second, p.interval()+5*time.Second) // each device sends
		if err := t.keyspace.Empty(ctx); err != nil {
			return err
		}
		run, err := t.run(ctx, p)
		if err != nil {
			return err
		}
		if run.Load, err = t.load(ctx, n, max(200_000, 5*n)); err != nil {
			return err
		}
		r.Runs = append(r.Runs, run)
	}
	return nil
}

// growingHistory measures writes with ever more days stored.
func growingHistory(ctx context.Context, t *test, r *Report) error {
	const vehicles, interval = 100, time.Minute
	newest := time.Now().Add(-time.Hour)
	oldest := time.Now().Add(-30*24*time.Hour + 3*time.Hour) // still in the retention when the last measurement ends
	stored, reached := int64(0), newest                      // from here on everything is stored
	for _, days := range []int{1, 7, 30} {
		first := newest.Add(-time.Duration(days) * 24 * time.Hour)
		if first.Before(oldest) {
			first = oldest
		}
		fill := bench.Simulation{Records: int(reached.Sub(first)/interval) * vehicles, Vehicles: vehicles, Fleets: 1, Interval: interval, Start: first}
		usage, err := bench.Measure(t.keyspace.Command(ctx, bench.WithoutDerivedRows, append(fill.Args(), "--to", "pipeline", "--report", "json")...), t.keyspace.Nodes)
		if err != nil {
			return fmt.Errorf("store %d days: %w", days, err)
		}
		stored, reached = stored+usage.Records, first
		fmt.Fprintf(t.log, "stored %d days: %d records, at %.0f/s\n", days, stored, usage.PerSecond)
		run, err := t.run(ctx, phase{rate: 1000, vehicles: vehicles, warmup: 10 * time.Second, lasts: 20 * time.Second})
		if err != nil {
			return err
		}
		run.Days, run.Before = days, stored
		r.Runs = append(r.Runs, run)
	}
	return nil
}
