package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/bench"
	"github.com/fleettracing/fleet-tracing/dev/bench/loadtest"
	"github.com/fleettracing/fleet-tracing/dev/bench/table"
)

// resultsDir keeps reports until bench docs reads them.
func resultsDir(root repository) string { return root.path(".dev", "bench-results") }

type benchLoadCmd struct {
	Only []string `placeholder:"PART,…" enum:"steady,ramp,ramp-fleet,devices,history,ramp-2,ramp-4,steady-4" help:"Measure these parts only: ${enum}."`
}

// Run measures part by part. Parts in a row share their cluster.
func (cmd benchLoadCmd) Run(ctx context.Context, s *settings, root repository) error {
	parts := slices.DeleteFunc(loadtest.Parts(), func(p loadtest.Part) bool { return len(cmd.Only) > 0 && !slices.Contains(cmd.Only, p.Name) })
	for len(parts) > 0 {
		n := 1
		for n < len(parts) && parts[n].DCs == parts[0].DCs {
			n++
		}
		if err := s.measureParts(ctx, root, parts[:n]); err != nil {
			return err
		}
		parts = parts[n:]
	}
	return nil
}

type benchSoakCmd struct {
	For  time.Duration `default:"1h" help:"Duration of the load."`
	Rate float64       `default:"1000" help:"Records per second."`
}

// Run measures the trends of a long load.
func (cmd benchSoakCmd) Run(ctx context.Context, s *settings, root repository) error {
	return s.measureParts(ctx, root, []loadtest.Part{loadtest.Soak(cmd.Rate, cmd.For)})
}

// measureParts measures parts on one cluster. It prints each report, and saves it.
func (s settings) measureParts(ctx context.Context, root repository, parts []loadtest.Part) error {
	binary, err := newETL(ctx, root)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(resultsDir(root), 0o755); err != nil {
		return err
	}
	return s.withBenchNodes(ctx, root, parts[0].DCs, func(nodes bench.Nodes) error {
		for _, part := range parts {
			fmt.Fprintf(os.Stderr, "%s bench %s\n", time.Now().Format(time.TimeOnly), part.Name)
			report, err := part.Run(ctx, nodes, binary)
			if len(report.Tables) > 0 {
				err = errors.Join(err, writeJSON(filepath.Join(resultsDir(root), part.Name+".json"), report), report.Text(os.Stdout))
			}
			if err != nil {
				return fmt.Errorf("bench %s: %w", part.Name, err)
			}
		}
		return nil
	})
}

func writeJSON(file string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

type benchDocsCmd struct{}

// Run puts the newest reports into the docs.
func (benchDocsCmd) Run(root repository) error {
	files, err := filepath.Glob(filepath.Join(resultsDir(root), "*.json"))
	if err != nil || len(files) == 0 {
		return errors.Join(err, fmt.Errorf("no reports in %s: run make bench-load or make soak first", resultsDir(root)))
	}
	sections := make([]table.Section, len(files))
	for i, file := range files {
		text, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(text, &sections[i])
		}
		if err != nil {
			return fmt.Errorf("read the report %s: %w", file, err)
		}
	}
	return table.WriteInto(root.path("docs", "performance.md"), sections, "performance")
}
