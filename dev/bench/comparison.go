package bench

import (
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

// Compare measures ways to store a file, twice, each time on empty tables. The first time does not count: the nodes
// compile their code in it. Each binary that makes tables has a keyspace of its own.
func Compare(ctx context.Context, nodes Nodes, file string, ways []Way) (results []Result, err error) {
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
	for _, round := range []string{"warm-up", "measured"} {
		results = nil
		for _, way := range ways {
			k := keyspaces[way.Schema]
			if err := k.Empty(ctx); err != nil {
				return nil, err
			}
			u, err := Measure(k.Command(ctx, way.Env, way.Command[0], append(slices.Clone(way.Command[1:]), file)...), nodes)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", way.Name, err)
			}
			fmt.Fprintf(os.Stderr, "%s: %s: %.0f records/s\n", round, way.Name, u.PerSecond())
			results = append(results, Result{nodes.DCs, way.Name, u})
		}
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
