package table

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func example() *Table {
	t := &Table{Title: "Latency against load", Head: []string{"offered/s", "P50 ms", "P99 ms"}}
	t.Add(1000, 1.5, 20.25)
	t.Add(64000, 0.0, 251.4)
	t.Plot = &Plot{Name: "ramp-latency", Columns: []int{1, 2}, Y: "latency (ms)", LogX: true, LogY: true}
	return t
}

func TestPlotsAreSVGWithTheirLabels(t *testing.T) {
	svg, err := example().svg()
	require.NoError(t, err)
	var text strings.Builder
	for d := xml.NewDecoder(strings.NewReader(string(svg))); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if words, ok := token.(xml.CharData); ok {
			text.Write(words)
		}
	}
	for _, label := range []string{"Latency against load", "offered/s", "latency (ms)", "P50 ms", "P99 ms", "10000"} {
		assert.Contains(t, text.String(), label)
	}
}

func TestTextIsAligned(t *testing.T) {
	s := Section{Title: "Ramp", Facts: []string{"A fact."}, Tables: []*Table{example()}}
	var out strings.Builder
	require.NoError(t, s.Text(&out))
	assert.Equal(t, `### Ramp

A fact.

Latency against load:

| offered/s | P50 ms | P99 ms |
| ---       | ---:   | ---:   |
| 1000      | 1.5    | 20.2   |
| 64000     | 0      | 251    |

`, out.String())
}

func TestWriteIntoReplacesSections(t *testing.T) {
	page := filepath.Join(t.TempDir(), "performance.md")
	code := &Table{Head: []string{"a", "b"}, Code: []string{"SELECT 1"}}
	code.Add("x|y", 12345.6)
	samples := example()
	samples.Plot.Only = true
	sections := []Section{{Name: "ramp", Title: "Ramp", Tables: []*Table{code, samples}}, {Name: "soak"}}
	text, err := json.Marshal(sections)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &sections), "as reports are kept")
	require.NoError(t, os.WriteFile(page, []byte("before\n<!-- results: ramp -->\nold\n<!-- end of results -->\nafter\n"), 0o600))
	for range 2 {
		require.NoError(t, WriteInto(page, sections, "plots"))
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		assert.Equal(t, "before\n<!-- results: ramp -->\n\n### Ramp\n\n| a | b |\n| --- | ---: |\n| x\\|y | 12346 |\n\n```sql\nSELECT 1\n```\n\n"+
			"Latency against load:\n\n![Latency against load](plots/ramp-latency.svg)\n\n<!-- end of results -->\nafter\n", string(text))
	}
	assert.FileExists(t, filepath.Join(filepath.Dir(page), "plots", "ramp-latency.svg"))
}
