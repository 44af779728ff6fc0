package queries

import (
	"context"
	"io"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/dev/bench"
	"github.com/fleettracing/fleet-tracing/dev/testenv/platform"
)

func TestFillAndMeasureASmallFleet(t *testing.T) {
	config := platform.Keyspace(t)
	store, err := cassandra.Open(t.Context(), config, platform.Quiet(), nil)
	require.NoError(t, err)
	defer store.Close()
	nodes := bench.Nodes{LocalDC: config.LocalDC, Hosts: config.Hosts}
	session, err := nodes.Connect(config.Keyspace)
	require.NoError(t, err)
	defer session.Close()
	statements, err := Statements("../../..")
	require.NoError(t, err)
	fill := &Fill{
		Session: session, Statements: statements, Fleet: Fleet{Vehicles: 60, Days: 2}, Now: time.Now().UTC(), State: filepath.Join(t.TempDir(), "filled"), Out: io.Discard,
	}
	require.NoError(t, fill.Run(t.Context()))
	started := time.Now()
	require.NoError(t, fill.Run(t.Context()))
	require.Less(t, time.Since(started), time.Second, "everything is filled")

	m := Measure{Fill: fill, Store: store, Level: nodes.Consistency(), Repeat: 2, Out: io.Discard, TableStats: func(context.Context) ([]byte, error) {
		return []byte(`{"total_number_of_tables": 1, "fleet": {"tables": {"fleets": {"space_used_live": "2048", "number_of_partitions_estimate": 3}}}}`), nil
	}}
	r, err := m.Run(t.Context())
	require.NoError(t, err)
	require.Len(t, r.Statements, len(statements))
	cost := func(name string) StatementCost {
		return r.Statements[slices.IndexFunc(r.Statements, func(s StatementCost) bool { return s.Name == name })]
	}
	for _, s := range r.Statements {
		require.Positive(t, s.P50, s.Name)
		require.NotEmpty(t, s.Key, s.Name)
	}
	for _, name := range []string{"selectHistory", "selectLatestFleet", "selectFleetAlerts", "selectDeviceAlerts", "selectTrips", "selectHours", "selectAnalytics", "selectDeviceDays", "selectDevices"} {
		require.Positive(t, cost(name).Rows, "%s reads what was filled", name)
	}
	open := cost("selectOpenAlerts")
	require.Positive(t, open.Rows)
	require.Positive(t, open.Tombstones, "closed alerts leave tombstones")
	require.Positive(t, open.Node)
	require.Equal(t, batchRows, cost("insertHistory").Batch)
	require.NotEmpty(t, r.Panels)
	require.Contains(t, r.Tables, TableSize{Name: "fleets", Partitions: 3, Bytes: "2048"})
	require.Contains(t, r.Markdown(), "| `fleets` | 3 | 0 B | 0 B | 0 | 2.0 KiB |")
}
