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

	found, err := panels()
	require.NoError(t, err)
	require.NotEmpty(t, found)
	asked := map[string]bool{}
	for _, p := range found {
		asked[p.cql] = true
		require.True(t, strings.Contains(string(text), "| `"+p.cql+"` "), "%s: %s", p.asked, remedy)
	}
	for line := range lines {
		if statement, ok := strings.CutPrefix(line, "| `SELECT"); ok {
			statement, _, _ = strings.Cut("SELECT"+statement, "`")
			require.True(t, asked[statement], "no panel asks %s any more: %s", statement, remedy)
		}
	}
}

func TestCostIsComparedWithTheBudgetOfItsKind(t *testing.T) {
	require.Empty(t, Cost{Kind: screen, P95: 49}.over())
	require.Equal(t, "P95 over 50 ms", Cost{Kind: screen, P95: 51}.over())
	require.Empty(t, Cost{Kind: export, P95: 51}.over())
	require.Equal(t, "P95 over 1000 ms", Cost{Kind: rare, P95: 1001}.over())
}

func TestQuantileTakesTheNearestRank(t *testing.T) {
	values := []float64{5, 1, 4, 2, 3}
	require.Equal(t, 3.0, quantile(values, 0.5))
	require.Equal(t, 5.0, quantile(values, 0.95))
	require.Equal(t, 0.0, quantile(nil, 0.5))
}

func TestIntoReplacesTheTables(t *testing.T) {
	path := t.TempDir() + "/queries.md"
	require.NoError(t, os.WriteFile(path, []byte("# Queries\n"+beginMark+"\nold\n"+endMark+"\nrest\n"), 0o600))
	report := Report{Statements: []StatementCost{{
		Statement: Statement{Name: "selectReady", CQL: "SELECT 1", Purpose: "p", Table: "fleets"}, Key: "(shard), fleet_id", P50: 1.25, Rows: 1,
	}}}
	require.NoError(t, report.Into(path))
	require.NoError(t, report.Into(path), "again")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NotContains(t, string(text), "old")
	require.Equal(t, 1, strings.Count(string(text), "| `selectReady` | p | 1.2 |"))
	require.True(t, strings.HasSuffix(string(text), endMark+"\nrest\n"))
}
