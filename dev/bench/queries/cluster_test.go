package queries

import (
	"io"
	"strings"
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
		Session: session, Statements: statements, Vehicles: 60, Days: 2, Now: time.Now().UTC(), Out: io.Discard,
	}
	require.NoError(t, fill.Run(t.Context()))

	m := Measure{Fill: fill, Store: store, Level: nodes.Consistency(), Repeat: 2}
	sections, err := m.Run(t.Context())
	require.NoError(t, err)
	costs := map[string]map[string]any{} // of statements, by column
	for _, group := range sections[0].Tables {
		require.Contains(t, group.Title, "key `(", "of the table")
		for _, row := range group.Rows {
			cost := map[string]any{}
			for i, column := range group.Head {
				cost[column] = row[i]
			}
			costs[strings.Trim(cost["statement"].(string), "`")] = cost
			require.Positive(t, cost["P50 ms"], cost["statement"])
		}
	}
	require.Len(t, costs, len(statements))
	for _, name := range []string{"selectHistory", "selectLatestFleet", "selectFleetAlerts", "selectDeviceAlerts", "selectTrips", "selectHours", "selectAnalytics", "selectDeviceDays", "selectDevices"} {
		require.Positive(t, costs[name]["rows"], "%s reads what was filled", name)
	}
	open := costs["selectOpenAlerts"]
	require.Positive(t, open["rows"])
	require.Positive(t, open["tombstones"], "closed alerts leave tombstones")
	require.Positive(t, open["node ms"])
	require.Equal(t, batchRows, costs["insertHistory"]["batch"])
}
