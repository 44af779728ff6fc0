package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"

	"github.com/fleettracing/fleet-tracing/dev/bench"
	"github.com/fleettracing/fleet-tracing/dev/bench/table"
)

type benchCmds struct {
	Driver  benchDriverCmd  `cmd:"" default:"withargs" help:"Compare fleet-etl with the bare driver. The default."`
	Compare benchCompareCmd `cmd:"" help:"Compare two builds of fleet-etl, in alternating runs."`
	Load    benchLoadCmd    `cmd:"" help:"Measure fleet-etl under load, and its cost with ever more load, devices, history and nodes."`
	Soak    benchSoakCmd    `cmd:"" help:"Measure whether memory, handles and latency stay flat under a steady load."`
	Docs    benchDocsCmd    `cmd:"" help:"Write the newest reports of load and soak into docs/performance.md."`
	Write   benchWriteCmd   `cmd:"" hidden:"" help:"Write a file with the bare driver, in this process."`
}

type benchDriverCmd struct {
	Records int `default:"200000" help:"Records of each case."`
	Repeat  int `default:"1" help:"Runs of each case. The table shows the medians."`
}

// benchVehicles is the number of vehicles that the bare driver and fleet-etl store records of.
const benchVehicles = 1000

// Run compares on a cluster of one node and on one of four, which it starts and removes.
func (cmd benchDriverCmd) Run(ctx context.Context, s *settings, root repository) error {
	binary, err := newETL(ctx, root)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	load := loadCommand(binary)
	comparison := bench.Comparison{Rounds: cmd.Repeat, Log: os.Stderr, Ways: []bench.Way{
		{Name: "driver", Schema: binary, Command: []string{self, "bench", "write"}},
		{Name: "fleet-etl, batch", Schema: binary, Command: load, Env: bench.WithoutDerivedRows},
		{Name: "fleet-etl, batch, with derived rows", Schema: binary, Command: load},
		{Name: "fleet-etl, async", Schema: binary, Command: load, Env: append([]string{"ETL_WRITE_MODE=async"}, bench.WithoutDerivedRows...)},
	}}
	var results []bench.Result
	for _, dcs := range []string{"dc1=1", "dc1=2,dc2=2"} {
		err := s.withBenchNodes(ctx, root, dcs, func(nodes bench.Nodes) error {
			file, err := bench.Realistic(ctx, binary, nodes.Dir, cmd.Records, benchVehicles)
			if err != nil {
				return err
			}
			comparison.Inputs = []bench.Input{{Name: "realistic", Args: []string{file}}}
			found, err := comparison.Run(ctx, nodes)
			results = append(results, found...)
			return err
		})
		if err != nil {
			return fmt.Errorf("bench on %s: %w", dcs, err)
		}
	}
	return printResults(results)
}

// benchWriteCmd gets its settings as fleet-etl does.
type benchWriteCmd struct {
	Hosts    []string `env:"CASSANDRA_HOSTS" required:""`
	DC       string   `env:"CASSANDRA_DC" required:""`
	Keyspace string   `env:"CASSANDRA_KEYSPACE" required:""`
	File     string   `arg:""`
}

// Run writes a file.
func (cmd benchWriteCmd) Run(ctx context.Context) error {
	return bench.WriteWithDriver(ctx, bench.Nodes{Hosts: cmd.Hosts, LocalDC: cmd.DC}, cmd.Keyspace, cmd.File, os.Stdout)
}

type benchCompareCmd struct {
	Old   string `required:"" placeholder:"PATH" help:"Binary to compare with."`
	New   string `placeholder:"PATH" help:"Binary to measure (default: built from this tree)."`
	Taxis string `placeholder:"FILE" help:"wuxi_taxis.csv, loaded as one more input."`

	Records int    `default:"200000" help:"Records of each generated input."`
	Repeat  int    `default:"3" help:"Runs of each input. The table shows the medians."`
	Only    string `placeholder:"INPUT" help:"Measure one input, such as \"random, with derived rows\"."`
}

// Run compares the builds on a cluster of four nodes that it starts and removes.
func (cmd benchCompareCmd) Run(ctx context.Context, s *settings, root repository) (err error) {
	if cmd.New == "" {
		if cmd.New, err = newETL(ctx, root); err != nil {
			return err
		}
	}
	return s.withBenchNodes(ctx, root, "dc1=2,dc2=2", func(nodes bench.Nodes) error {
		inputs, err := bench.Inputs(ctx, cmd.New, nodes.Dir, cmd.Records, 3000, cmd.Taxis)
		if err != nil {
			return err
		}
		if cmd.Only != "" {
			inputs = slices.DeleteFunc(inputs, func(i bench.Input) bool { return i.Name != cmd.Only })
			if len(inputs) == 0 {
				return fmt.Errorf("--only %q: no such input; without --only all are measured", cmd.Only)
			}
		}
		results, err := bench.Comparison{Inputs: inputs, Rounds: cmd.Repeat, Log: os.Stderr, Ways: []bench.Way{
			{Name: "old", Schema: cmd.Old, Command: loadCommand(cmd.Old)}, {Name: "new", Schema: cmd.New, Command: loadCommand(cmd.New)},
		}}.Run(ctx, nodes)
		if err != nil {
			return err
		}
		return printResults(results)
	})
}

func loadCommand(binary string) []string { return []string{binary, "load", "--report", "json"} }

func printResults(results []bench.Result) error {
	return (&table.Section{Tables: []*table.Table{bench.Table(results)}}).Text(os.Stdout)
}

// newETL builds fleet-etl and returns its path.
func newETL(ctx context.Context, root repository) (string, error) {
	path := root.path("bin", "fleet-etl")
	build := exec.CommandContext(ctx, "go", "build", "-o", path, "./etl")
	build.Dir, build.Stderr = string(root), os.Stderr
	if err := build.Run(); err != nil {
		return "", fmt.Errorf("build fleet-etl: %w", err)
	}
	return path, nil
}

// withBenchNodes calls do with a cluster of its own, which is removed afterwards.
func (s settings) withBenchNodes(ctx context.Context, root repository, dcs string, do func(bench.Nodes) error) error {
	s.Dir = root.path(".dev", "bench")
	c, err := s.open(dcs, os.Stderr)
	if err != nil {
		return err
	}
	return bench.WithCluster(ctx, c, dcs, do)
}
