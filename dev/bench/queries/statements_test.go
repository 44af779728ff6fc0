package queries

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEveryStatementHasAPurpose(t *testing.T) {
	statements, err := Statements("../../..")
	require.NoError(t, err)
	require.Greater(t, len(statements), 50)
	names := map[string]bool{}
	for _, s := range statements {
		assert.NotEmpty(t, s.Table, s.Name)
		assert.NotEmpty(t, s.Purpose, s.Name)
		assert.False(t, names[s.Name], s.Name)
		names[s.Name] = true
	}
	assert.Contains(t, statements, Statement{
		"selectFleets", "SELECT fleet_id FROM fleets WHERE shard = ?", "fleets", "the list of fleets, one of its shards",
	})
}
