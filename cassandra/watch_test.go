package cassandra

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTraceSumsTheActivitiesOfNodes(t *testing.T) {
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

func TestWatchReportsWhatNodesRead(t *testing.T) {
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
	require.Zero(t, read.Rows%2, "each replica read both")
	require.Positive(t, read.Rows)
	require.Positive(t, read.Tombstones)

	ctx, watch = WithWatch(t.Context(), false)
	_, err = s.OpenAlerts(ctx, "watch")
	require.NoError(t, err)
	require.Len(t, watch.Requests(), 1)
	traces, err = s.Traces(t.Context(), watch)
	require.NoError(t, err)
	require.Empty(t, traces, "without traces")
}
