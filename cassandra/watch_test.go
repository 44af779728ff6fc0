package cassandra

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestATraceIsSummedUpFromWhatTheNodesWroteDown(t *testing.T) {
	var trace Trace
	for _, activity := range []string{ // of Cassandra 5
		"Parsing SELECT device_id FROM open_alerts_by_fleet",
		"Executing single-partition query on open_alerts_by_fleet",
		"Acquiring sstable references",
		"Skipped 0/2 non-slice-intersecting sstables, included 0 due to tombstones",
		"Merged data from memtables and 2 sstables",
		"Read 12 live rows and 340 tombstone cells",
		"Executing single-partition query on open_alerts_by_fleet",
		"Merged data from memtables and 1 sstables",
		"Read 3 live rows and 0 tombstone cells",
	} {
		trace.add(activity)
	}
	require.Equal(t, Trace{Partitions: 2, SSTables: 2, Rows: 15, Tombstones: 340}, trace)
}

func TestAWatchTellsWhatTheNodesReadForARequest(t *testing.T) {
	s, _ := realStore(t)
	now := time.Now().UnixMicro()
	for _, device := range []string{"watch-1", "watch-2", "watch-3"} {
		a := &Alert{FleetID: "watch", DeviceID: device, Type: "speed_limit", Severity: "LOW"}
		require.NoError(t, s.WriteOpenAlert(t.Context(), a, now))
	}
	require.NoError(t, s.DeleteOpenAlert(t.Context(), "watch", "watch-2", "speed_limit", now+1))

	ctx, watch := WithWatch(t.Context(), true)
	rows, err := s.OpenAlerts(ctx, "watch")
	require.NoError(t, err)
	require.Len(t, rows, 2)
	requests := watch.Requests()
	require.Len(t, requests, 1)
	require.Equal(t, []string{selectOpenAlerts}, requests[0].Statements)
	require.Equal(t, 2, requests[0].Rows)

	traces, err := s.Traces(t.Context(), watch)
	require.NoError(t, err)
	var read Trace
	for _, trace := range traces {
		require.Equal(t, selectOpenAlerts, trace.Statement)
		if !trace.Prepare {
			read = trace
		}
	}
	require.Positive(t, read.Took)
	require.Zero(t, read.Rows%2, "each replica that was asked read both")
	require.Positive(t, read.Rows)
	require.Positive(t, read.Tombstones)

	ctx, watch = WithWatch(t.Context(), false)
	_, err = s.OpenAlerts(ctx, "watch")
	require.NoError(t, err)
	require.Len(t, watch.Requests(), 1)
	traces, err = s.Traces(t.Context(), watch)
	require.NoError(t, err)
	require.Empty(t, traces, "nobody asked for one")
}

func TestStatementsOfScreensAreNotPrepared(t *testing.T) {
	s, _ := realStore(t)
	require.NoError(t, s.WriteFleet(t.Context(), "unprepared"))
	const statement = "SELECT fleet_id FROM fleets WHERE shard = 1 AND fleet_id > 'unprepared-%'"
	result, err := s.Select(t.Context(), statement, 10)
	require.NoError(t, err)
	require.Equal(t, "fleet_id", result.Columns[0].Name)
	prepared, err := s.Select(t.Context(), "SELECT query_string FROM system.prepared_statements", 100_000)
	require.NoError(t, err)
	require.NotEmpty(t, prepared.Rows, "those of the writes are there")
	require.NotContains(t, prepared.Rows, []any{unprepared + statement})
	require.NotContains(t, prepared.Rows, []any{statement})
}

func TestADayIsReadFirstAndThenAsManyAsTheLimitLikelyNeeds(t *testing.T) {
	s := &Session{config: Config{Fanout: 16}}
	for _, c := range []struct {
		name                    string
		limit, rows, days, want int
	}{
		{"without a limit all that may be read at once", 0, 0, 0, 16},
		{"the newest day alone", 1000, 0, 0, 1},
		{"a day had half of what is wanted", 1000, 500, 1, 1},
		{"a day had a tenth", 1000, 100, 1, 9},
		{"a day had next to nothing", 1000, 1, 1, 16},
		{"nothing yet: further back at a run", 1000, 0, 3, 6},
		{"nothing for long", 1000, 0, 30, 16},
		{"a few rows are missing", 1000, 999, 4, 1},
	} {
		require.Equal(t, c.want, s.wave(c.limit, c.rows, c.days), c.name)
	}
}
