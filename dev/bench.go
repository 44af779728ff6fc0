package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
)

type benchCmds struct {
	Compare benchCmd     `cmd:"" default:"withargs" help:"Measure fleet-etl beside the bare driver. What bench alone does."`
	Load    benchLoadCmd `cmd:"" help:"Measure what fleet-etl bears and what that costs, with ever more load, devices, history and nodes."`
	Soak    benchSoakCmd `cmd:"" help:"Run fleet-etl under a steady load for long, and tell what grows."`
	Docs    benchDocsCmd `cmd:"" help:"Put the figures that load and soak found last into docs/performance.md."`
}

type benchCmd struct {
	Records int      `default:"400000" help:"Records of each case; cases of single statements take a fifth."`
	Repeat  int      `default:"1" help:"How often each case is measured; the median is shown."`
	DCs     []string `name:"dcs" default:"dc1=1;dc1=2,dc2=2" sep:";" help:"Clusters to measure on, one after the other."`
}

// measured is what fleet-etl bench prints for one case.
type measured struct {
	Case      string  `json:"case"`
	Input     string  `json:"input"`
	Records   int64   `json:"records"`
	Client    float64 `json:"client_cpu_seconds"`
	Server    float64 `json:"server_cpu_seconds"`
	Memory    int64   `json:"peak_memory_bytes"`
	PerSecond float64 `json:"records_per_second"`
}

// Run measures on clusters of its own, made for it and removed after it, and prints one table.
func (cmd benchCmd) Run(ctx context.Context, s *settings) error {
	root, err := cluster.RepositoryRoot()
	if err != nil {
		return err
	}
	if err := buildETL(ctx, root); err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "cluster\tinput\tcase\trecords\trecords/s\tof grouped driver\tclient CPU s/M\tserver CPU s/M\tpeak memory MB\t")
	for _, dcs := range cmd.DCs {
		results, err := cmd.on(ctx, root, dcs, *s)
		if err != nil {
			return fmt.Errorf("bench on %s: %w", dcs, err)
		}
		var grouped float64
		for _, r := range results {
			if r.Case == "driver, grouped" {
				grouped = r.PerSecond
			}
			perMillion := 1e6 / float64(r.Records)
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%.0f\t%.2f\t%.1f\t%.1f\t%.0f\t\n", dcs, r.Input, r.Case, r.Records, r.PerSecond, r.PerSecond/grouped,
				r.Client*perMillion, r.Server*perMillion, float64(r.Memory)/1e6)
		}
	}
	return w.Flush()
}

// on measures on one cluster.
func (cmd benchCmd) on(ctx context.Context, root, dcs string, s settings) (results []measured, err error) {
	err = withBenchCluster(ctx, root, dcs, s, func(nodes benchNodes) error {
		var out bytes.Buffer
		bench := nodes.command(ctx, root, "bench", "compare", "--json", "--server-pids", strings.Join(nodes.pids, ","),
			"--records", strconv.Itoa(cmd.Records), "--repeat", strconv.Itoa(cmd.Repeat))
		bench.Stdout = &out
		if err := bench.Run(); err != nil {
			return err
		}
		return json.Unmarshal(out.Bytes(), &results)
	})
	return results, err
}

func buildETL(ctx context.Context, root string) error {
	build := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(root, "bin", "fleet-etl"), "./etl")
	build.Dir, build.Stderr = root, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build fleet-etl: %w", err)
	}
	return nil
}

// benchNodes are those of a cluster that was made for a bench.
type benchNodes struct {
	dcs                  string
	localDC              string
	pids, hosts, metrics []string
}

// withBenchCluster does something while a cluster of its own is up, which it removes after it.
func withBenchCluster(ctx context.Context, root, dcs string, s settings, do func(benchNodes) error) (err error) {
	parsed, err := cluster.ParseDCs(dcs)
	if err != nil {
		return err
	}
	s.Dir = filepath.Join(root, ".dev", "bench")
	c, err := s.open(parsed, os.Stderr)
	if err != nil {
		return err
	}
	defer func() {
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		err = errors.Join(err, c.Down(down, true))
	}()
	if err := c.Up(ctx); err != nil {
		return err
	}
	nodes, err := c.Nodes()
	if err != nil {
		return err
	}
	b := benchNodes{dcs: dcs, localDC: parsed[0].Name}
	for _, n := range nodes {
		b.pids, b.hosts = append(b.pids, strconv.Itoa(n.PID)), append(b.hosts, n.CQL().String())
		b.metrics = append(b.metrics, fmt.Sprintf("http://%s/metrics", n.Metrics()))
	}
	return do(b)
}

// command is one of fleet-etl on these nodes, each of which holds everything.
func (b benchNodes) command(ctx context.Context, root string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(root, "bin", "fleet-etl"), args...)
	cmd.Env = append(os.Environ(), "CASSANDRA_HOSTS="+strings.Join(b.hosts, ","), "CASSANDRA_REPLICATION="+b.dcs, "CASSANDRA_DC="+b.localDC)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	return cmd
}
