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
	"text/tabwriter"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
)

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
	build := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(root, "bin", "fleet-etl"), "./etl")
	build.Dir, build.Stderr = root, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build fleet-etl: %w", err)
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
	parsed, err := cluster.ParseDCs(dcs)
	if err != nil {
		return nil, err
	}
	s.Dir = filepath.Join(root, ".dev", "bench")
	c, err := s.open(parsed, os.Stderr)
	if err != nil {
		return nil, err
	}
	defer func() {
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		err = errors.Join(err, c.Down(down, true))
	}()
	if err := c.Up(ctx); err != nil {
		return nil, err
	}
	nodes, err := c.Nodes()
	if err != nil {
		return nil, err
	}
	var pids, hosts []string
	for _, n := range nodes {
		pids, hosts = append(pids, strconv.Itoa(n.PID)), append(hosts, n.CQL().String())
	}
	bench := exec.CommandContext(ctx, filepath.Join(root, "bin", "fleet-etl"), "bench", "--json", "--server-pids", strings.Join(pids, ","),
		"--records", strconv.Itoa(cmd.Records), "--repeat", strconv.Itoa(cmd.Repeat))
	bench.Env = append(os.Environ(), "CASSANDRA_HOSTS="+strings.Join(hosts, ","), "CASSANDRA_REPLICATION="+dcs, "CASSANDRA_DC="+parsed[0].Name)
	var out bytes.Buffer
	bench.Stdout, bench.Stderr = &out, os.Stderr
	if err := bench.Run(); err != nil {
		return nil, err
	}
	return results, json.Unmarshal(out.Bytes(), &results)
}
