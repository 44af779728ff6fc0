package bench

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/fleettracing/fleet-tracing/dev/bench/table"
)

// Way is a program that stores a file.
type Way struct {
	Name    string
	Schema  string   // the fleet-etl binary that makes its tables
	Command []string // prints a Report; the path of the file follows
	Env     []string
}

// Result is what a way cost on a cluster.
type Result struct {
	Cluster, Way string
	Usage
}

// Compare measures ways to store a file, in turn and in each round on empty tables, and returns the median round of each
// way. A round before them does not count: the nodes compile their code in it. Each binary that makes tables has a
// keyspace of its own.
func Compare(ctx context.Context, nodes Nodes, file string, ways []Way, rounds int) ([]Result, error) {
	keyspaces := map[string]*Keyspace{}
	for _, way := range ways {
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
	usages := make([][]Usage, len(ways))
	for round := range rounds + 1 {
		for i, way := range ways {
			k := keyspaces[way.Schema]
			if err := k.Empty(ctx); err != nil {
				return nil, err
			}
			u, err := Measure(k.Command(ctx, way.Env, way.Command[0], append(slices.Clone(way.Command[1:]), file)...), nodes)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", way.Name, err)
			}
			name := "warm-up"
			if round > 0 {
				name = fmt.Sprintf("round %d of %d", round, rounds)
				usages[i] = append(usages[i], u)
			}
			fmt.Fprintf(os.Stderr, "%s: %s: %.0f records/s\n", name, way.Name, u.PerSecond())
		}
	}
	var results []Result
	for i, way := range ways {
		slices.SortFunc(usages[i], func(a, b Usage) int { return cmp.Compare(a.PerSecond(), b.PerSecond()) })
		results = append(results, Result{nodes.DCs, way.Name, usages[i][(rounds-1)/2]})
	}
	return results, nil
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
