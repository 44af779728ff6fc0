package queries

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/gocql/gocql"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// Report is the result of a measurement. Times are in milliseconds.
type Report struct {
	Taken      time.Time       `json:"taken"`
	Fleet      Fleet           `json:"fleet"`
	Statements []StatementCost `json:"statements"`
	Calls      []Cost          `json:"calls"`
	Panels     []Cost          `json:"panels"`
	Tables     []TableSize     `json:"tables"`
}

// Cost is the cost of a use of the store, as the caller sees it.
type Cost struct {
	Name string  `json:"name"`
	Kind kind    `json:"kind"`
	Rows int     `json:"rows"` // of the largest result
	P50  float64 `json:"p50_ms"`
	P95  float64 `json:"p95_ms"`
}

// over is what exceeds the budget.
func (c Cost) over() string {
	if budget := milliseconds(budgets[c.Kind]); c.P95 > budget {
		return fmt.Sprintf("P95 over %.0f ms", budget)
	}
	return ""
}

// StatementCost is the cost of one request of a statement.
type StatementCost struct {
	Statement
	Key        string  `json:"key"`
	Batch      int     `json:"batch"` // rows of a request
	Rows       int     `json:"rows"`  // read by all replicas, in the traced request that read most
	Tombstones int     `json:"tombstones"`
	SSTables   int     `json:"sstables"`
	Node       float64 `json:"node_ms"` // median of the coordinators' times in the traces
	P50        float64 `json:"p50_ms"`
	P95        float64 `json:"p95_ms"`
}

// TableSize is what a node stores of a table.
type TableSize struct {
	Name         string `json:"name"`
	Partitions   int    `json:"number_of_partitions_estimate"`
	LargestBytes int    `json:"compacted_partition_maximum_bytes"`
	MeanBytes    int    `json:"compacted_partition_mean_bytes"`
	SSTables     int    `json:"sstable_count"`
	Bytes        string `json:"space_used_live"` // a number
}

// Measure runs everything on a filled keyspace.
type Measure struct {
	Fill   *Fill
	Store  *cassandra.Store
	Level  gocql.Consistency // of the statements
	Repeat int
	Only   string // part of the names to run; empty: all
	Out    io.Writer

	// TableStats is nodetool tablestats -F json of one node.
	TableStats func(ctx context.Context) ([]byte, error)
}

// traced is how many requests of a statement are traced. Traces slow requests down, so the times come from others.
const traced = 5

// A call runs as often as it is repeated, unless that takes long.
const (
	fewest  = 3
	longest = 6 * time.Second
)

// Run measures statements, calls and panels.
func (m *Measure) Run(ctx context.Context) (*Report, error) {
	s := sample{m.Fill.Fleet, m.Fill.Now}
	tables, err := m.Store.Schema(ctx)
	if err != nil {
		return nil, err
	}
	r := &Report{Taken: time.Now().UTC(), Fleet: m.Fill.Fleet}
	for _, statement := range m.Fill.Statements {
		if strings.Contains(statement.Name, m.Only) {
			cost, err := m.statement(ctx, s, statement)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", statement.Name, err)
			}
			cost.Key = keyOf(tables, statement.Table)
			r.Statements = append(r.Statements, cost)
		}
	}
	if r.Calls, err = m.costs(ctx, s.calls(m.Store)); err != nil {
		return nil, err
	}
	panels, err := s.panels(m.Store, tables)
	if err == nil {
		r.Panels, err = m.costs(ctx, panels)
	}
	if err != nil {
		return nil, err
	}
	r.Tables, err = m.sizes(ctx, tables)
	return r, err
}

func (m *Measure) statement(ctx context.Context, s sample, st Statement) (StatementCost, error) {
	cost := StatementCost{Statement: st, Batch: len(s.rows(st, 0, m.Fill))}
	var of traces
	for i := range traced {
		if _, err := exec(ctx, m.Fill.Session, st.CQL, m.Level, &of, s.rows(st, i, m.Fill)...); err != nil {
			return cost, err
		}
	}
	found, err := of.read(ctx, m.Fill.Session)
	if err != nil {
		return cost, err
	}
	var node, took []float64
	for _, t := range found {
		node = append(node, milliseconds(t.took))
		cost.Rows, cost.Tombstones, cost.SSTables = max(cost.Rows, t.rows), max(cost.Tombstones, t.tombstones), max(cost.SSTables, t.sstables)
	}
	for i := range m.Repeat {
		rows := s.rows(st, traced+i, m.Fill)
		started := time.Now()
		if _, err := exec(ctx, m.Fill.Session, st.CQL, m.Level, nil, rows...); err != nil {
			return cost, err
		}
		took = append(took, milliseconds(time.Since(started)))
	}
	cost.Node, cost.P50, cost.P95 = quantile(node, 0.5), quantile(took, 0.5), quantile(took, 0.95)
	fmt.Fprintf(m.Out, "%-28s %8.1f %8.1f ms  %6d rows %6d tombstones\n", st.Name, cost.P50, cost.P95, cost.Rows, cost.Tombstones)
	return cost, nil
}

func (m *Measure) costs(ctx context.Context, calls []call) (costs []Cost, err error) {
	for _, c := range calls {
		if !strings.Contains(c.name, m.Only) {
			continue
		}
		cost := Cost{Name: c.name, Kind: c.kind}
		var took []float64
		begun := time.Now()
		for i := range m.Repeat {
			if i >= fewest && time.Since(begun) > longest {
				break
			}
			started := time.Now()
			rows, err := c.run(ctx, i)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			took = append(took, milliseconds(time.Since(started)))
			cost.Rows = max(cost.Rows, rows)
		}
		cost.P50, cost.P95 = quantile(took, 0.5), quantile(took, 0.95)
		costs = append(costs, cost)
		fmt.Fprintf(m.Out, "%8.1f %8.1f ms  %6d rows  %s  %s\n", cost.P50, cost.P95, cost.Rows, cost.over(), cost.Name)
	}
	return costs, nil
}

func keyOf(tables []cassandra.Table, name string) string {
	i := slices.IndexFunc(tables, func(t cassandra.Table) bool { return t.Name == name })
	if i < 0 {
		return ""
	}
	return strings.Join(append([]string{"(" + strings.Join(tables[i].PartitionKey, ", ") + ")"}, tables[i].ClusteringKey...), ", ")
}

func (m *Measure) sizes(ctx context.Context, tables []cassandra.Table) (sizes []TableSize, err error) {
	text, err := m.TableStats(ctx)
	if err != nil {
		return nil, err
	}
	var stats map[string]json.RawMessage // keyspaces and totals
	if err := json.Unmarshal(text, &stats); err != nil {
		return nil, fmt.Errorf("nodetool tablestats: %w", err)
	}
	for _, part := range stats {
		var keyspace struct{ Tables map[string]TableSize }
		if json.Unmarshal(part, &keyspace) != nil || keyspace.Tables == nil {
			continue
		}
		for _, t := range tables {
			size := keyspace.Tables[t.Name]
			size.Name = t.Name
			sizes = append(sizes, size)
		}
	}
	return sizes, nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// quantile takes the nearest rank.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[max(int(math.Ceil(q*float64(len(sorted))))-1, 0)]
}
