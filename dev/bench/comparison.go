package bench

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/fleettracing/fleet-tracing/dev/bench/table"
)

// Comparison measures ways to store records on the same inputs.
type Comparison struct {
	Inputs []Input
	Ways   []Way // the others are shown relative to the first
	Rounds int
	Log    io.Writer
}

// Input is a set of records.
type Input struct {
	Name string
	Env  []string
	Args []string // files and flags of fleet-etl load
}

// Way is a program that stores an input.
type Way struct {
	Name    string
	Schema  string   // the fleet-etl binary that makes the tables
	Command []string // prints a Report; the arguments of the input follow
	Env     []string
}

// Result is the median of the runs of a way on an input.
type Result struct {
	Cluster, Input, Way string
	Usage
}

// Run measures every way on every input once per round, each time on empty tables. Every second round runs backwards, so
// that a drift of the machine affects all ways alike. A first round does not count: the nodes compile their code in it.
func (c Comparison) Run(ctx context.Context, nodes Nodes) (results []Result, err error) {
	keyspaces := map[string]*Keyspace{} // by the binary that made it
	for _, way := range c.Ways {
		if keyspaces[way.Schema] != nil {
			continue
		}
		k, err := nodes.MakeKeyspace(ctx, fmt.Sprintf("bench_%d", len(keyspaces)), way.Schema)
		if err != nil {
			return nil, err
		}
		defer k.Session.Close()
		keyspaces[way.Schema] = k
	}
	runs := make([][]Usage, len(c.Inputs)*len(c.Ways))
	for round := range c.Rounds + 1 {
		for i := range runs {
			if round%2 == 1 {
				i = len(runs) - 1 - i
			}
			input, way := c.Inputs[i/len(c.Ways)], c.Ways[i%len(c.Ways)]
			k := keyspaces[way.Schema]
			if err := k.Empty(ctx); err != nil {
				return nil, err
			}
			cmd := k.Command(ctx, slices.Concat(input.Env, way.Env), way.Command[0], slices.Concat(way.Command[1:], input.Args)...)
			u, err := Measure(cmd, nodes)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", input.Name, way.Name, err)
			}
			fmt.Fprintf(c.Log, "round %d of %d: %s, %s: %.0f records/s\n", round, c.Rounds, input.Name, way.Name, u.PerSecond())
			if round > 0 {
				runs[i] = append(runs[i], u)
			}
		}
	}
	for i, of := range runs {
		results = append(results, Result{nodes.DCs, c.Inputs[i/len(c.Ways)].Name, c.Ways[i%len(c.Ways)].Name, medians(of)})
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

// Table shows results. A number after × is relative to the first way on the same input.
func Table(results []Result) *table.Table {
	t := &table.Table{Head: []string{"cluster", "input", "way", "records", "records/s", "×", "client CPU µs/record", "×", "nodes' CPU µs/record", "×", "writes/record", "peak MB"}}
	base := results[0]
	for _, r := range results {
		if r.Cluster != base.Cluster || r.Input != base.Input {
			base = r
		}
		writes := int64(0)
		for _, of := range r.Tables {
			writes += of.Writes
		}
		perRecord := func(r Result, seconds float64) float64 { return 1e6 * seconds / float64(r.Stored) }
		client, nodes := perRecord(r, r.CPUSeconds), perRecord(r, r.NodesCPU)
		t.Add(r.Cluster, r.Input, r.Way, r.Stored, r.PerSecond(), r.PerSecond()/base.PerSecond(), client, client/perRecord(base, base.CPUSeconds),
			nodes, nodes/perRecord(base, base.NodesCPU), float64(writes)/float64(r.Stored), float64(r.PeakMemory)/1e6)
	}
	return t
}
