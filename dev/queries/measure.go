package queries

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// Report is what was measured.
type Report struct {
	Taken      time.Time         `json:"taken"`
	Fleet      Fleet             `json:"fleet"`
	Calls      []Cost            `json:"calls"`
	Panels     []Cost            `json:"panels"`
	Statements []StatementCost   `json:"statements"`
	Tables     []TableSize       `json:"tables"`
	Prepared   PreparedByScreens `json:"prepared"`
}

// Cost is what a use of the store cost. Times are milliseconds, as the caller sees them, without tracing; the rest is of
// one run, from the nodes' traces.
type Cost struct {
	Name       string  `json:"name"`
	Kind       kind    `json:"kind"`
	Requests   int     `json:"requests"`
	Rows       int     `json:"rows"`
	Tombstones int     `json:"tombstones"`
	SSTables   int     `json:"sstables"`
	First      float64 `json:"first_ms"` // traced, and with caches as a restart leaves them
	P50        float64 `json:"p50_ms"`
	P95        float64 `json:"p95_ms"`
	Over       string  `json:"over,omitempty"` // what is beyond a budget
}

// StatementCost is what one request of a statement cost, over all calls that make it.
type StatementCost struct {
	Name       string  `json:"name"`
	CQL        string  `json:"cql"`
	Purpose    string  `json:"purpose"`
	Table      string  `json:"table"`
	Key        string  `json:"key"`
	Requests   int     `json:"requests"`
	Entries    int     `json:"entries"` // of the largest batch
	Bytes      int     `json:"bytes"`   // that it sent
	Rows       int     `json:"rows"`    // of the largest answer
	Nodes      int     `json:"nodes"`
	Tombstones int     `json:"tombstones"` // of the traced request that read most
	SSTables   int     `json:"sstables"`
	Server     float64 `json:"server_ms"` // the median of the coordinators' times in the traces
	P50        float64 `json:"p50_ms"`
	P95        float64 `json:"p95_ms"`
}

// PreparedByScreens is what the statements of the dashboards left with the nodes.
type PreparedByScreens struct {
	Statements int `json:"statements"` // different texts that were sent
	Prepared   int `json:"prepared"`   // that the nodes keep as prepared
}

// Measure runs every statement.
type Measure struct {
	Store     *cassandra.Store
	Fleet     Fleet
	Now       time.Time // that the calls go by
	Repeat    int
	Only      string                                              // part of the names of the calls to run; empty: all
	TableJSON func(ctx context.Context) (json.RawMessage, error)  // nodetool tablestats -F json of one node
	Prepared  func(ctx context.Context) (prepared int, err error) // statements that a node keeps
	Settle    func(ctx context.Context) error                     // flushes memtables, and waits for compactions
	Out       io.Writer
}

// Run measures all calls, then all panels.
func (m *Measure) Run(ctx context.Context) (*Report, error) {
	s, err := newSample(ctx, m.Store, m.Now)
	if err != nil {
		return nil, err
	}
	if err := m.Settle(ctx); err != nil {
		return nil, err
	}
	r := &Report{Taken: time.Now().UTC(), Fleet: m.Fleet}
	by := map[string]*tally{}
	for _, c := range slices.Concat(s.reads(), s.writes()) {
		if !strings.Contains(c.name, m.Only) {
			continue
		}
		cost, err := m.cost(ctx, c, by)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		r.Calls = append(r.Calls, cost)
		fmt.Fprintf(m.Out, "%-55s %8.1f %8.1f ms  %6d rows %6d tombstones %s\n", cost.Name, cost.P50, cost.P95, cost.Rows, cost.Tombstones, cost.Over)
	}
	if err := m.panels(ctx, s, r); err != nil {
		return nil, err
	}
	tables, err := m.Store.Schema(ctx)
	if err != nil {
		return nil, err
	}
	for _, statement := range cassandra.Statements {
		t := by[statement.CQL]
		if t == nil {
			if m.Only == "" {
				return nil, fmt.Errorf("statement %s was not run by any call: add one to calls.go", statement.Name)
			}
			continue
		}
		r.Statements = append(r.Statements, t.cost(statement, tables))
		delete(by, statement.CQL)
	}
	for text := range by {
		return nil, fmt.Errorf("statement %q is not in cassandra.Statements", text)
	}
	r.Tables, err = m.tables(ctx, tables)
	return r, err
}

// tally gathers the requests of a statement.
type tally struct {
	took, server                          []float64
	entries, bytes, rows                  int
	nodes, tombstones, sstables, requests int
}

func (m *Measure) cost(ctx context.Context, c call, by map[string]*tally) (Cost, error) {
	cost := Cost{Name: c.name, Kind: c.kind}
	of := func(statement string) *tally {
		if by[statement] == nil {
			by[statement] = &tally{}
		}
		return by[statement]
	}
	// The first run is traced, and of another device than any later one.
	times := cmp.Or(c.times, m.Repeat)
	watching, watch := cassandra.WithWatch(ctx, true)
	started := time.Now()
	if err := c.run(watching, times); err != nil {
		return cost, err
	}
	cost.First = milliseconds(time.Since(started))
	traces, err := m.Store.Traces(ctx, watch)
	if err != nil {
		return cost, err
	}
	for _, trace := range traces {
		if trace.Prepare {
			continue
		}
		cost.Rows += trace.Rows
		cost.Tombstones += trace.Tombstones
		cost.SSTables = max(cost.SSTables, trace.SSTables)
		t := of(trace.Statement)
		t.server = append(t.server, milliseconds(trace.Took))
		t.nodes, t.tombstones, t.sstables = max(t.nodes, trace.Nodes), max(t.tombstones, trace.Tombstones), max(t.sstables, trace.SSTables)
	}
	for _, request := range watch.Requests() {
		cost.Requests++
		for _, statement := range request.Statements {
			of(statement)
		}
	}
	var took []float64
	begun := time.Now()
	for i := range times {
		if i >= fewest && time.Since(begun) > longest {
			break // what takes so long needs no many runs to be known as slow
		}
		watching, watch := cassandra.WithWatch(ctx, false)
		started := time.Now()
		if err := c.run(watching, i); err != nil {
			return cost, err
		}
		took = append(took, milliseconds(time.Since(started)))
		for _, request := range watch.Requests() {
			for _, statement := range request.Statements {
				t := of(statement)
				t.requests++
				t.took = append(t.took, milliseconds(request.Took))
				t.entries, t.bytes, t.rows = max(t.entries, request.Entries), max(t.bytes, request.Bytes), max(t.rows, request.Rows)
			}
		}
	}
	cost.P50, cost.P95 = quantile(took, 0.5), quantile(took, 0.95)
	cost.judge()
	return cost, nil
}

// A call is run as often as was asked for, unless that takes long.
const (
	fewest  = 3
	longest = 6 * time.Second
)

// tombstonesAllowed go unnoticed: reading as many takes a node less than a millisecond.
const tombstonesAllowed = 100

func (c *Cost) judge() {
	var over []string
	if budget := milliseconds(budgets[c.Kind]); c.P95 > budget {
		over = append(over, fmt.Sprintf("P95 over %.0f ms", budget))
	}
	if c.Tombstones > max(tombstonesAllowed, c.Rows/10) {
		over = append(over, "tombstones")
	}
	c.Over = strings.Join(over, ", ")
}

func (t *tally) cost(s cassandra.Statement, tables []cassandra.Table) StatementCost {
	c := StatementCost{
		Name: s.Name, CQL: s.CQL, Purpose: s.Purpose, Table: s.Table(), Requests: t.requests, Entries: t.entries, Bytes: t.bytes, Rows: t.rows,
		Nodes: t.nodes, Tombstones: t.tombstones, SSTables: t.sstables, Server: quantile(t.server, 0.5), P50: quantile(t.took, 0.5), P95: quantile(t.took, 0.95),
	}
	if i := slices.IndexFunc(tables, func(table cassandra.Table) bool { return table.Name == c.Table }); i >= 0 {
		c.Key = keyOf(tables[i])
	}
	return c
}

func keyOf(t cassandra.Table) string {
	key := "(" + strings.Join(t.PartitionKey, ", ") + ")"
	if len(t.ClusteringKey) > 0 {
		key += ", " + strings.Join(t.ClusteringKey, ", ")
	}
	return key
}

// panels asks what the dashboards ask, over a day, a week and a month.
func (m *Measure) panels(ctx context.Context, s *sample, r *Report) error {
	found, err := panels()
	if err != nil {
		return err
	}
	tables, err := m.Store.Schema(ctx)
	if err != nil {
		return err
	}
	before, err := m.Prepared(ctx)
	if err != nil {
		return err
	}
	texts := map[string]bool{}
	for _, p := range found {
		ranges := []time.Duration{aDay, 7 * aDay, 29 * aDay}
		if !strings.Contains(p.cql, "$__") && !strings.Contains(p.cql, "${__") {
			ranges = ranges[:1] // of no range: the same each time
		}
		for _, back := range ranges {
			name := fmt.Sprintf("%s; %d days", p.cql, int(back/aDay))
			if !strings.Contains(name, m.Only) {
				continue
			}
			c := call{name: name, kind: screen, times: max(m.Repeat/4, 5), run: func(ctx context.Context, i int) error {
				// Each refresh asks for another moment.
				to := s.now.Add(time.Duration(i) * time.Second)
				plan, err := p.plan(s, tables, to.Add(-back), to)
				if err != nil {
					return err
				}
				for _, statement := range plan.Statements {
					texts[statement] = true
				}
				return ask(ctx, m.Store, plan)
			}}
			cost, err := m.cost(ctx, c, map[string]*tally{})
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			r.Panels = append(r.Panels, cost)
			fmt.Fprintf(m.Out, "%8.1f %8.1f ms  %6d rows %6d tombstones %s  %s\n", cost.P50, cost.P95, cost.Rows, cost.Tombstones, cost.Over, cost.Name)
		}
	}
	after, err := m.Prepared(ctx)
	r.Prepared = PreparedByScreens{Statements: len(texts), Prepared: after - before}
	return err
}

// TableSize is what a node has of a table.
type TableSize struct {
	Name             string  `json:"name"`
	Partitions       int     `json:"partitions"`
	LargestBytes     int     `json:"largest_partition_bytes"`
	MeanBytes        int     `json:"mean_partition_bytes"`
	SSTables         int     `json:"sstables"`
	Bytes            int     `json:"bytes"`
	CompressionRatio float64 `json:"compression_ratio"`
}

func (m *Measure) tables(ctx context.Context, tables []cassandra.Table) ([]TableSize, error) {
	text, err := m.TableJSON(ctx)
	if err != nil {
		return nil, err
	}
	var stats map[string]json.RawMessage
	if err := json.Unmarshal(text, &stats); err != nil {
		return nil, fmt.Errorf("nodetool tablestats: %w", err)
	}
	var sizes []TableSize
	for _, keyspace := range stats {
		var k struct {
			Tables map[string]struct {
				SSTables   int     `json:"sstable_count"`
				Space      string  `json:"space_used_live"`
				Partitions int     `json:"number_of_partitions_estimate"`
				Largest    int     `json:"compacted_partition_maximum_bytes"`
				Mean       int     `json:"compacted_partition_mean_bytes"`
				Ratio      float64 `json:"sstable_compression_ratio"`
			} `json:"tables"`
		}
		if json.Unmarshal(keyspace, &k) != nil || k.Tables == nil {
			continue // a total
		}
		for _, t := range tables {
			got := k.Tables[t.Name]
			bytes := 0
			_, _ = fmt.Sscan(got.Space, &bytes) // a number in a text
			sizes = append(sizes, TableSize{t.Name, got.Partitions, got.Largest, got.Mean, got.SSTables, bytes, got.Ratio})
		}
	}
	return sizes, nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// quantile is the nearest rank.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[max(int(math.Ceil(q*float64(len(sorted))))-1, 0)]
}
