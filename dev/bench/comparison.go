package bench

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/fleettracing/fleet-tracing/dev/bench/table"
)

// Comparison measures ways to store the records of a file.
type Comparison struct {
	File   string
	Binary string // the fleet-etl that makes the tables
	Ways   []Way  // the others are shown relative to the first
	Rounds int
	Log    io.Writer
}

// Way is a program that stores a file.
type Way struct {
	Name    string
	Command []string // prints a Report; the path of the file follows
	Env     []string
}

// Result is the median of the runs of a way on a cluster.
type Result struct {
	Cluster, Way string
	Usage
}

// Run measures every way once per round, each time on empty tables. Every second round runs backwards, so that a drift of
// the machine affects all ways alike. A first round does not count: the nodes compile their code in it.
func (c Comparison) Run(ctx context.Context, nodes Nodes) (results []Result, err error) {
	k, err := nodes.MakeKeyspace(ctx, "bench", c.Binary)
	if err != nil {
		return nil, err
	}
	defer k.Session.Close()
	runs := make([][]Usage, len(c.Ways))
	for round := range c.Rounds + 1 {
		for i := range runs {
			if round%2 == 1 {
				i = len(runs) - 1 - i
			}
			way := c.Ways[i]
			if err := k.Empty(ctx); err != nil {
				return nil, err
			}
			u, err := Measure(k.Command(ctx, way.Env, way.Command[0], append(slices.Clone(way.Command[1:]), c.File)...), nodes)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", way.Name, err)
			}
			fmt.Fprintf(c.Log, "round %d of %d: %s: %.0f records/s\n", round, c.Rounds, way.Name, u.PerSecond())
			if round > 0 {
				runs[i] = append(runs[i], u)
			}
		}
	}
	for i, of := range runs {
		results = append(results, Result{nodes.DCs, c.Ways[i].Name, medians(of)})
	}
	return results, nil
}

// medians takes the median of each number on its own.
func medians(runs []Usage) Usage {
	m := runs[0]
	m.Seconds = median(runs, func(u Usage) float64 { return u.Seconds })
	m.CPUSeconds = median(runs, func(u Usage) float64 { return u.CPUSeconds })
	m.NodesCPU = median(runs, func(u Usage) float64 { return u.NodesCPU })
	m.PeakMemory = int64(median(runs, func(u Usage) float64 { return float64(u.PeakMemory) }))
	return m
}

// median is the lower one of two.
func median(runs []Usage, of func(Usage) float64) float64 {
	values := make([]float64, len(runs))
	for i, u := range runs {
		values[i] = of(u)
	}
	slices.Sort(values)
	return values[(len(values)-1)/2]
}

// Table shows results. A number after × is relative to the first way on the same cluster.
func Table(results []Result) *table.Table {
	t := &table.Table{Head: []string{"cluster", "way", "records", "records/s", "×", "client CPU µs/record", "×", "nodes' CPU µs/record", "×", "writes/record", "peak MB"}}
	base := results[0]
	for _, r := range results {
		if r.Cluster != base.Cluster {
			base = r
		}
		writes := int64(0)
		for _, of := range r.Tables {
			writes += of.Writes
		}
		perRecord := func(r Result, seconds float64) float64 { return 1e6 * seconds / float64(r.Stored) }
		client, nodes := perRecord(r, r.CPUSeconds), perRecord(r, r.NodesCPU)
		t.Add(r.Cluster, r.Way, r.Stored, r.PerSecond(), r.PerSecond()/base.PerSecond(), client, client/perRecord(base, base.CPUSeconds),
			nodes, nodes/perRecord(base, base.NodesCPU), float64(writes)/float64(r.Stored), float64(r.PeakMemory)/1e6)
	}
	return t
}
