package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/fleettracing/fleet-tracing/dev/bench"
	"github.com/fleettracing/fleet-tracing/dev/cluster"
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
	Records int      `default:"400000" help:"Records of each case. Cases of single statements store a fifth."`
	Repeat  int      `default:"1" help:"Runs of each case. The table shows the medians."`
	DCs     []string `name:"dcs" default:"dc1=1;dc1=2,dc2=2" sep:";" help:"Clusters to measure on, one after the other."`
	JSON    bool     `name:"json" help:"Print JSON."`
}

// Run compares on clusters that it starts and removes.
func (cmd benchDriverCmd) Run(ctx context.Context, s *settings) error {
	binary, err := newETL(ctx)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	comparison := bench.DriverComparison{
		Binary: binary, Records: cmd.Records, Rounds: cmd.Repeat, Log: os.Stderr,
		Driver: func(ctx context.Context, d bench.Driver) *exec.Cmd {
			write := exec.CommandContext(ctx, self, "bench", "write")
			write.Stderr = os.Stderr
			text, _ := json.Marshal(d) // of strings and numbers
			write.Stdin = strings.NewReader(string(text))
			return write
		},
	}
	var results []bench.Result
	for _, dcs := range cmd.DCs {
		err := s.withBenchNodes(ctx, dcs, func(nodes bench.Nodes) error {
			found, err := comparison.Run(ctx, nodes)
			results = append(results, found...)
			return err
		})
		if err != nil {
			return fmt.Errorf("bench on %s: %w", dcs, err)
		}
	}
	return printResults(results, cmd.JSON)
}

type benchWriteCmd struct{}

// Run writes what the bench.Driver on standard input names.
func (benchWriteCmd) Run(ctx context.Context) error {
	var d bench.Driver
	if err := json.NewDecoder(os.Stdin).Decode(&d); err != nil {
		return err
	}
	return d.Run(ctx, os.Stdout)
}

type benchCompareCmd struct {
	Old      string `required:"" placeholder:"PATH" help:"Binary to compare with."`
	New      string `placeholder:"PATH" help:"Binary to measure (default: built from this tree)."`
	Records  int    `default:"200000" help:"Records of each generated input."`
	Vehicles int    `default:"3000" help:"Vehicles of each generated input."`
	Repeat   int    `default:"3" help:"Runs of each case. The table shows the medians."`
	DCs      string `name:"dcs" default:"dc1=2,dc2=2" help:"Data centers of the cluster that is started for it."`
	Taxis    string `placeholder:"FILE" help:"wuxi_taxis.csv, loaded as one more input."`
	Only     string `placeholder:"INPUT" help:"Measure one input, such as \"random, with derived rows\"."`
	JSON     bool   `name:"json" help:"Print JSON."`
}

// Run compares the builds on a cluster that it starts and removes.
func (cmd benchCompareCmd) Run(ctx context.Context, s *settings) (err error) {
	if cmd.New == "" {
		if cmd.New, err = newETL(ctx); err != nil {
			return err
		}
	}
	comparison := bench.BuildComparison{
		Old: cmd.Old, New: cmd.New, Records: cmd.Records, Vehicles: cmd.Vehicles, Rounds: cmd.Repeat, Taxis: cmd.Taxis, Only: cmd.Only, Log: os.Stderr,
	}
	return s.withBenchNodes(ctx, cmd.DCs, func(nodes bench.Nodes) error {
		results, err := comparison.Run(ctx, nodes)
		if err != nil {
			return err
		}
		return printResults(results, cmd.JSON)
	})
}

func printResults(results []bench.Result, asJSON bool) error {
	if !asJSON {
		return bench.WriteTable(os.Stdout, results)
	}
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(results)
}

// newETL builds fleet-etl and returns its path.
func newETL(ctx context.Context) (string, error) {
	root, err := cluster.RepositoryRoot()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, "bin", "fleet-etl")
	build := exec.CommandContext(ctx, "go", "build", "-o", path, "./etl")
	build.Dir, build.Stderr = root, os.Stderr
	if err := build.Run(); err != nil {
		return "", fmt.Errorf("build fleet-etl: %w", err)
	}
	return path, nil
}

// withBenchNodes calls do with a cluster of its own, which is removed afterwards.
func (s settings) withBenchNodes(ctx context.Context, dcs string, do func(bench.Nodes) error) error {
	root, err := cluster.RepositoryRoot()
	if err != nil {
		return err
	}
	parsed, err := cluster.ParseDCs(dcs)
	if err != nil {
		return err
	}
	s.Dir = filepath.Join(root, ".dev", "bench")
	c, err := s.open(parsed, os.Stderr)
	if err != nil {
		return err
	}
	return bench.WithCluster(ctx, c, parsed, do)
}
