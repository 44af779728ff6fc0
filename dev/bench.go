package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/bench"
	"github.com/fleettracing/fleet-tracing/dev/bench/table"
)

type benchCmds struct {
	Driver benchDriverCmd `cmd:"" default:"withargs" help:"Compare fleet-etl with the bare driver. The default."`
	Load   benchLoadCmd   `cmd:"" help:"Measure fleet-etl under load, and its cost with ever more load, devices, history and nodes."`
	Soak   benchSoakCmd   `cmd:"" help:"Measure whether memory, handles and latency stay flat under a steady load."`
	Docs   benchDocsCmd   `cmd:"" help:"Write the newest reports of load and soak into docs/performance.md."`
	Write  benchWriteCmd  `cmd:"" hidden:"" help:"Write a file with the bare driver, in this process."`
}

type benchDriverCmd struct {
	Records int    `default:"200000" help:"Records of each case."`
	Rounds  int    `default:"1" help:"Times that each case is measured; the median counts."`
	Input   string `enum:"simulated,random" default:"simulated" help:"simulated vehicles, or random speeds and battery levels, which raise many alerts."`
	Old     string `placeholder:"PATH" help:"Another fleet-etl to measure beside this one, with and without derived rows."`
}

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
	ways := []bench.Way{{Name: "driver", Schema: binary, Command: []string{self, "bench", "write"}}}
	load := func(name, binary string, env ...string) {
		ways = append(ways, bench.Way{Name: name, Schema: binary, Command: []string{binary, "load", "--report", "json"}, Env: env})
	}
	load("fleet-etl, batch", binary, bench.WithoutDerivedRows)
	load("fleet-etl, batch, with derived rows", binary)
	if cmd.Old != "" {
		load("old fleet-etl, batch", cmd.Old, bench.WithoutDerivedRows)
		load("old fleet-etl, batch, with derived rows", cmd.Old)
	} else {
		load("fleet-etl, async", binary, "ETL_BATCH_ROWS=1", bench.WithoutDerivedRows)
	}
	var results []bench.Result
	for _, dcs := range []string{"dc1=1", "dc1=2,dc2=2"} {
		err := s.withBenchNodes(ctx, root, dcs, func(nodes bench.Nodes) error {
			file := filepath.Join(nodes.Dir, "records.csv")
			write := bench.Simulation{Records: cmd.Records, Vehicles: 1000, Interval: 5 * time.Second}.Write
			if cmd.Input == "random" {
				write = bench.Random{Records: cmd.Records, Vehicles: 3000}.Write
			}
			if err := write(ctx, binary, file); err != nil {
				return err
			}
			found, err := bench.Compare(ctx, nodes, file, ways, max(1, cmd.Rounds))
			results = append(results, found...)
			return err
		})
		if err != nil {
			return fmt.Errorf("bench on %s: %w", dcs, err)
		}
	}
	return (&table.Section{Tables: []*table.Table{bench.Table(results)}}).Text(os.Stdout)
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
	s.Dir, s.DataCenters = root.path(".dev", "bench"), dcs
	c, err := s.open(os.Stderr)
	if err != nil {
		return err
	}
	return bench.WithCluster(ctx, c, dcs, do)
}
