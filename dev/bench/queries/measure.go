package queries

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gocql/gocql"
	"gonum.org/v1/gonum/stat"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/dev/bench/table"
)

// Measure runs everything on a filled keyspace.
type Measure struct {
	Fill   *Fill
	Store  *cassandra.Store
	Level  gocql.Consistency // of the statements
	Repeat int
	Only   string // part of the names to run; empty: all
}

// Run measures statements and calls, and returns the sections of the document.
func (m *Measure) Run(ctx context.Context) ([]table.Section, error) {
	tables, err := m.Store.Schema(ctx)
	if err != nil {
		return nil, err
	}
	fact := fmt.Sprintf("Measured %s: %d vehicles over %d days in one fleet. %d of them send every %s, the others every hour.",
		time.Now().UTC().Format("2006-01-02 15:04 UTC"), m.Fill.Vehicles, m.Fill.Days, denseVehicles, denseEvery)
	statements, err := m.statements(ctx, tables)
	if err != nil {
		return nil, err
	}
	calls, err := m.calls(ctx)
	return []table.Section{
		{Name: "statements", Title: "Statements", Facts: []string{fact}, Tables: statements},
		{Name: "calls", Title: "Calls", Tables: []*table.Table{calls}},
	}, err
}

// cost is what the callers of repeated runs wait, in milliseconds, and the largest number of rows.
type cost struct {
	rows     int
	p50, p95 float64
}

// A run is repeated at least so often, and no longer than this.
const (
	fewest  = 3
	longest = 6 * time.Second
)

func (m *Measure) repeat(ctx context.Context, name string, run func(ctx context.Context, i int) (rows int, err error)) (c cost, err error) {
	var took []float64
	for i, begun := 0, time.Now(); i < m.Repeat && (i < fewest || time.Since(begun) < longest); i++ {
		started := time.Now()
		rows, err := run(ctx, i)
		if err != nil {
			return c, fmt.Errorf("%s: %w", name, err)
		}
		took = append(took, milliseconds(time.Since(started)))
		c.rows = max(c.rows, rows)
	}
	c.p50, c.p95 = quantile(took, 0.5), quantile(took, 0.95)
	fmt.Fprintf(m.Fill.Out, "%8.1f %8.1f ms  %6d rows  %s\n", c.p50, c.p95, c.rows, name)
	return c, nil
}

// statements has a table for each table of the keyspace.
func (m *Measure) statements(ctx context.Context, tables []cassandra.Table) (groups []*table.Table, err error) {
	of := map[string]*table.Table{}
	for _, st := range m.Fill.Statements {
		if !strings.Contains(st.Name, m.Only) {
			continue
		}
		t := of[st.Table]
		if t == nil {
			t = &table.Table{Title: fmt.Sprintf("**`%s`**, key `%s`", st.Table, keyOf(tables, st.Table)), Head: []string{
				"statement", "for", "P50 ms", "P95 ms", "node ms", "rows", "tombstones", "SSTables", "batch",
			}}
			of[st.Table], groups = t, append(groups, t)
		}
		if err := m.statement(ctx, st, t); err != nil {
			return nil, err
		}
	}
	return groups, nil
}

// traced is how many requests of a statement are traced. Traces slow requests down, so the times come from others.
const traced = 5

func (m *Measure) statement(ctx context.Context, st Statement, t *table.Table) error {
	var of traces
	for i := range traced {
		if _, err := exec(ctx, m.Fill.Session, st.CQL, m.Level, &of, m.Fill.requests(st, i)...); err != nil {
			return fmt.Errorf("%s: %w", st.Name, err)
		}
	}
	found, err := of.read(ctx, m.Fill.Session)
	if err != nil {
		return err
	}
	var node []float64
	var most trace
	for _, one := range found {
		node = append(node, milliseconds(one.took))
		most = trace{0, max(most.sstables, one.sstables), max(most.rows, one.rows), max(most.tombstones, one.tombstones)}
	}
	c, err := m.repeat(ctx, st.Name, func(ctx context.Context, i int) (int, error) {
		return exec(ctx, m.Fill.Session, st.CQL, m.Level, nil, m.Fill.requests(st, traced+i)...)
	})
	t.Add("`"+st.Name+"`", st.Purpose, c.p50, c.p95, quantile(node, 0.5), most.rows, most.tombstones, most.sstables, len(m.Fill.requests(st, 0)))
	t.Code = append(t.Code, st.CQL)
	return err
}

func keyOf(tables []cassandra.Table, name string) string {
	i := slices.IndexFunc(tables, func(t cassandra.Table) bool { return t.Name == name })
	if i < 0 {
		return ""
	}
	return strings.Join(append([]string{"(" + strings.Join(tables[i].PartitionKey, ", ") + ")"}, tables[i].ClusteringKey...), ", ")
}

func (m *Measure) calls(ctx context.Context) (*table.Table, error) {
	t := &table.Table{Head: []string{"call", "rows", "P50 ms", "P95 ms", "budget ms"}}
	for _, c := range m.Fill.calls(m.Store) {
		if strings.Contains(c.name, m.Only) {
			found, err := m.repeat(ctx, c.name, c.run)
			if err != nil {
				return nil, err
			}
			t.Add(c.name, found.rows, found.p50, found.p95, milliseconds(c.budget))
		}
	}
	return t, nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// quantile takes the nearest rank.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	return stat.Quantile(q, stat.Empirical, slices.Sorted(slices.Values(values)), nil)
}
