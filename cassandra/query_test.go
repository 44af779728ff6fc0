package cassandra_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

func TestSelectDoesNotPrepareStatements(t *testing.T) {
	s, _ := realStore(t)
	require.NoError(t, s.WriteFleet(t.Context(), "unprepared"))
	const statement = "SELECT fleet_id FROM fleets WHERE shard = 1 AND fleet_id > 'unprepared-%'"
	result, err := s.Select(t.Context(), statement, 10)
	require.NoError(t, err)
	require.Equal(t, "fleet_id", result.Columns[0].Name)
	prepared, err := s.Select(t.Context(), "SELECT query_string FROM system.prepared_statements", 100_000)
	require.NoError(t, err)
	require.NotEmpty(t, prepared.Rows, "the statements of writes are prepared")
	require.NotContains(t, prepared.Rows, []any{cassandra.Unprepared + statement})
	require.NotContains(t, prepared.Rows, []any{statement})
}
