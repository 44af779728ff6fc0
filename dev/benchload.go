package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
)

// loadPart is one report of the load test: the cluster that it is made on and what fleet-etl bench is given.
type loadPart struct {
	name, dcs string
	args      []string
}

// loadParts are in the order in which the docs show them. Each stays below eight minutes, its cluster's start among them.
var loadParts = []loadPart{
	{"steady", "dc1=1", []string{"steady"}},
	{"ramp", "dc1=1", []string{"ramp"}},
	{"ramp-fleet", "dc1=1", []string{"ramp", "--interval", "5s", "--warmup", "30s"}},
	{"devices", "dc1=1", []string{"devices"}},
	{"history", "dc1=1", []string{"history"}},
	{"ramp-2", "dc1=2", []string{"ramp"}},
	{"ramp-4", "dc1=2,dc2=2", []string{"ramp", "--warm", "1m"}},
	{"steady-4", "dc1=2,dc2=2", []string{"steady", "--rate", "1000"}},
}

const (
	partLimit = 15 * time.Minute
	soakName  = "soak"
)

// resultsDir is where reports are kept until docs takes them.
func resultsDir(root string) string { return filepath.Join(root, ".dev", "bench-results") }

type benchLoadCmd struct {
	Only []string `placeholder:"PART,…" help:"Measure these parts alone: steady, ramp, ramp-fleet, devices, history, ramp-2, ramp-4, steady-4."`
}

// Run measures part by part. Parts in a row share their cluster.
func (cmd benchLoadCmd) Run(ctx context.Context, s *settings) error {
	parts, err := cmd.parts()
	if err != nil {
		return err
	}
	root, err := cluster.RepositoryRoot()
	if err != nil {
		return err
	}
	if err := buildETL(ctx, root); err != nil {
		return err
	}
	for len(parts) > 0 {
		n := 1
		for n < len(parts) && parts[n].dcs == parts[0].dcs {
			n++
		}
		err := withBenchCluster(ctx, root, parts[0].dcs, *s, func(nodes benchNodes) error {
			for _, part := range parts[:n] {
				if err := nodes.report(ctx, root, part, partLimit); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		parts = parts[n:]
	}
	return nil
}

func (cmd benchLoadCmd) parts() (parts []loadPart, err error) {
	if len(cmd.Only) == 0 {
		return loadParts, nil
	}
	for _, name := range cmd.Only {
		i := slices.IndexFunc(loadParts, func(p loadPart) bool { return p.name == name })
		if i < 0 {
			return nil, fmt.Errorf("--only %s: there is no such part; see --help", name)
		}
		parts = append(parts, loadParts[i])
	}
	return parts, nil
}

// report measures one part and saves what it found as JSON and as a page, its samples and its log. The nodes' own
// figures of tables are there for the platform's keyspace alone, so that is the one that is made, and dropped.
func (b benchNodes) report(ctx context.Context, root string, part loadPart, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := os.MkdirAll(resultsDir(root), 0o755); err != nil {
		return err
	}
	file := filepath.Join(resultsDir(root), part.name)
	log, err := os.Create(file + ".log")
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(os.Stderr, "%s bench %s\n", time.Now().Format(time.TimeOnly), part.name)
	bench := b.command(ctx, root, slices.Concat([]string{"bench"}, part.args, []string{
		"--name", part.name, "--json", file + ".json", "--html", file + ".html", "--csv", file + ".csv", "--keyspace", "fleet_iot",
		"--server-pids", strings.Join(b.pids, ","), "--node-metrics", strings.Join(b.metrics, ","),
	})...)
	bench.Stderr = io.MultiWriter(os.Stderr, log)
	if err := bench.Run(); err != nil {
		return fmt.Errorf("bench %s: %w", part.name, err)
	}
	return nil
}

type benchSoakCmd struct {
	For   time.Duration `default:"1h" help:"Time of the load."`
	Rate  float64       `default:"1000" help:"Records a second."`
	Every time.Duration `default:"1m" help:"Time between two samples."`
	DCs   string        `name:"dcs" default:"dc1=1" help:"Cluster to load."`
}

// Run soaks on a cluster of its own.
func (cmd benchSoakCmd) Run(ctx context.Context, s *settings) error {
	root, err := cluster.RepositoryRoot()
	if err != nil {
		return err
	}
	if err := buildETL(ctx, root); err != nil {
		return err
	}
	part := loadPart{soakName, cmd.DCs, []string{
		"soak", "--for", cmd.For.String(), "--every", cmd.Every.String(), "--rate", strconv.FormatFloat(cmd.Rate, 'f', -1, 64),
	}}
	return withBenchCluster(ctx, root, cmd.DCs, *s, func(nodes benchNodes) error {
		return nodes.report(ctx, root, part, cmd.For+partLimit)
	})
}

type benchDocsCmd struct{}

// Run renders what was found last: the page of the docs, its plots, and one page of all.
func (benchDocsCmd) Run(ctx context.Context) error {
	root, err := cluster.RepositoryRoot()
	if err != nil {
		return err
	}
	if err := buildETL(ctx, root); err != nil {
		return err
	}
	page := filepath.Join(resultsDir(root), "performance.html")
	args := []string{"bench", "report", "--docs", "docs/performance.md", "--svg", "docs/performance", "--html", page}
	found := 0
	for _, part := range append(slices.Clone(loadParts), loadPart{name: soakName}) {
		file := filepath.Join(resultsDir(root), part.name+".json")
		if _, err := os.Stat(file); err == nil {
			args, found = append(args, file), found+1
		}
	}
	if found == 0 {
		return fmt.Errorf("there are no figures in %s: run make bench-load or make soak first", resultsDir(root))
	}
	report := exec.CommandContext(ctx, filepath.Join(root, "bin", "fleet-etl"), args...)
	report.Dir, report.Stderr = root, os.Stderr
	if err := report.Run(); err != nil {
		return fmt.Errorf("bench report: %w", err)
	}
	fmt.Printf("docs/performance.md has the figures of %d reports; all of them as one page: %s\n", found, page)
	return nil
}
