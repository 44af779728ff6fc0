package queries

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// docs/queries.md must have every statement as it is today: a new or changed one has to be measured.
func TestDocumentHasEveryStatement(t *testing.T) {
	text, err := os.ReadFile("../../../docs/queries.md")
	require.NoError(t, err)
	statements, err := Statements("../../..")
	require.NoError(t, err)
	const remedy = "run make queries"
	lines := map[string]bool{}
	for _, line := range strings.Split(string(text), "\n") {
		lines[line] = true
	}
	for _, s := range statements {
		require.True(t, strings.Contains(string(text), "| `"+s.Name+"` | "+s.Purpose+" |"), "%s: %s", s.Name, remedy)
		require.True(t, lines[s.CQL], "%s: %s", s.CQL, remedy)
		delete(lines, s.CQL)
	}
	for line := range lines {
		require.False(t, statementForm.MatchString(line), "package cassandra has no statement %s: %s", line, remedy)
	}
}

func TestQuantileTakesTheNearestRank(t *testing.T) {
	values := []float64{5, 1, 4, 2, 3}
	require.Equal(t, 3.0, quantile(values, 0.5))
	require.Equal(t, 5.0, quantile(values, 0.95))
	require.Equal(t, 0.0, quantile(nil, 0.5))
}
