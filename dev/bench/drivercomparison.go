package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

// DriverComparison compares fleet-etl with the bare driver.
type DriverComparison struct {
	Binary  string // fleet-etl
	Records int    // of each case; cases of single statements store a fifth
	Rounds  int
	Log     io.Writer

	// Driver is the command that runs a Driver in a process of its own, so that its CPU time and memory are its own.
	Driver func(ctx context.Context, d Driver) *exec.Cmd
}

// The bare driver's parallel requests, and the rows of its batches (the default of ETL_BATCH_ROWS).
const (
	driverInFlight = 64
	driverRows     = 100
	driverVehicles = 1000
)

// Run measures on these nodes.
func (c DriverComparison) Run(ctx context.Context, nodes Nodes) (results []Result, err error) {
	dir, err := os.MkdirTemp("", "fleet-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	k, err := nodes.MakeKeyspace(ctx, "fleet_bench", c.Binary, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, k.Drop(ctx)) }()
	var cases []Case
	for _, size := range []int{c.Records, c.Records / 5} {
		interleaved, sorted := within(dir, fmt.Sprintf("interleaved-%d", size)), within(dir, fmt.Sprintf("sorted-%d", size))
		if err := (Simulation{Records: size, Vehicles: driverVehicles, Fleets: 1}).Write(ctx, c.Binary, interleaved); err != nil {
			return nil, err
		}
		if err := sortByDevice(interleaved, sorted); err != nil {
			return nil, err
		}
		form, mode := Grouped, "batch"
		if size != c.Records {
			form, mode = Single, "async"
		}
		for _, in := range []struct{ name, file string }{{"interleaved", interleaved}, {"sorted", sorted}} {
			base := "driver, " + form
			add := func(name string, command func(context.Context) *exec.Cmd) {
				cases = append(cases, Case{Input: in.name, Name: name, Base: base, empty: k.Empty, command: command})
			}
			load := func(env ...string) func(context.Context) *exec.Cmd {
				env = append(env, "ETL_WRITE_MODE="+mode)
				return func(ctx context.Context) *exec.Cmd { return k.Command(ctx, env, "load", "--report", "json", in.file) }
			}
			add(base, func(ctx context.Context) *exec.Cmd {
				return c.Driver(ctx, Driver{Nodes: nodes, Keyspace: k.Name, File: in.file, Form: form, InFlight: driverInFlight, Rows: driverRows})
			})
			add("fleet-etl, "+mode, load(WithoutDerivedRows...))
			if form == Grouped {
				add("fleet-etl, "+mode+", with derived rows", load())
			}
		}
	}
	return runCases(ctx, nodes, cases, c.Rounds, c.Log)
}
