package queries

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// TestTheDocumentHasEveryStatement keeps docs/queries.md from going stale: a statement that is new or has changed has to
// be measured.
func TestTheDocumentHasEveryStatement(t *testing.T) {
	text, err := os.ReadFile("../../docs/queries.md")
	require.NoError(t, err)
	const remedy = "run make queries"
	lines := map[string]bool{}
	rows := 0
	for _, line := range strings.Split(string(text), "\n") {
		lines[line] = true
		if strings.HasPrefix(line, "| `select") || strings.HasPrefix(line, "| `insert") || strings.HasPrefix(line, "| `update") ||
			strings.HasPrefix(line, "| `delete") || strings.HasPrefix(line, "| `add") || strings.HasPrefix(line, "| `remove") {
			rows++
		}
	}
	for _, s := range cassandra.Statements {
		require.Contains(t, string(text), "| `"+s.Name+"` | "+s.Purpose+" |", "%s: %s", s.Name, remedy)
		require.True(t, lines[s.CQL], "%s: %s", s.CQL, remedy)
	}
	require.Equal(t, len(cassandra.Statements), rows, "statements that are gone: %s", remedy)

	found, err := panels()
	require.NoError(t, err)
	require.NotEmpty(t, found)
	asked := map[string]bool{}
	for _, p := range found {
		asked[p.cql] = true
		require.Contains(t, string(text), "| `"+p.cql+"` ", "%s: %s", p.asked, remedy)
	}
	for line := range lines {
		if statement, ok := strings.CutPrefix(line, "| `SELECT"); ok {
			statement, _, _ = strings.Cut("SELECT"+statement, "`")
			require.True(t, asked[statement], "no panel asks %s any more: %s", statement, remedy)
		}
	}
}

func TestAReportFindsWhatIsBeyondABudget(t *testing.T) {
	for _, c := range []struct {
		name string
		cost Cost
		want string
	}{
		{"quick", Cost{Kind: screen, P95: 49, Rows: 1000, Tombstones: 100}, ""},
		{"slow for a screen", Cost{Kind: screen, P95: 51}, "P95 over 50 ms"},
		{"as slow, and nobody waits", Cost{Kind: background, P95: 51}, ""},
		{"a tenth of what is read are tombstones", Cost{Kind: screen, Rows: 5000, Tombstones: 500}, ""},
		{"more", Cost{Kind: screen, Rows: 5000, Tombstones: 501}, "tombstones"},
		{"a few tombstones and no row", Cost{Kind: background, Tombstones: 100}, ""},
		{"both", Cost{Kind: export, P95: 1001, Tombstones: 101}, "P95 over 1000 ms, tombstones"},
	} {
		c.cost.judge()
		require.Equal(t, c.want, c.cost.Over, c.name)
	}
}

func TestQuantilesAreOfTheNearestRank(t *testing.T) {
	values := []float64{5, 1, 4, 2, 3}
	require.Equal(t, 3.0, quantile(values, 0.5))
	require.Equal(t, 5.0, quantile(values, 0.95))
	require.Equal(t, 0.0, quantile(nil, 0.5))
}

func TestTheTablesTakeThePlaceOfThoseBefore(t *testing.T) {
	path := t.TempDir() + "/queries.md"
	require.NoError(t, os.WriteFile(path, []byte("# Queries\n"+beginMark+"\nold\n"+endMark+"\nrest\n"), 0o600))
	report := Report{Statements: []StatementCost{{Name: "selectReady", CQL: "SELECT 1", Purpose: "p", Table: "fleets", Key: "(shard), fleet_id", P50: 1.25, Rows: 1}}}
	require.NoError(t, report.Into(path))
	require.NoError(t, report.Into(path), "again")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NotContains(t, string(text), "old")
	require.Equal(t, 1, strings.Count(string(text), "| `selectReady` | p | 1.2 |"))
	require.True(t, strings.HasSuffix(string(text), endMark+"\nrest\n"))
}
