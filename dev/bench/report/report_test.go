package report

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/dev/bench"
	"github.com/fleettracing/fleet-tracing/dev/bench/loadtest"
	"github.com/fleettracing/fleet-tracing/dev/bench/probe"
)

// example is a report whose greatest sustained rate is 2,000 records/s.
func example(kind, name string, nodes int) *loadtest.Report {
	r := &loadtest.Report{
		Kind: kind, Name: name, Taken: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC), DCs: "dc1=1", Nodes: nodes, Maximum: 2000,
		Trends: []loadtest.Trend{{Name: "goroutines", Mean: 40, Flat: true}},
	}
	for i, rate := range []float64{4000, 1000, 2000} {
		m := &probe.Measurement{
			Offered: rate, PerSecond: min(rate, 3000), Seconds: 20, Records: 20 * min(rate, 3000), Cores: 2, Profile: []probe.Share{{Name: "driver", Share: 1}},
			Durations: []probe.Duration{{Name: "stage load", Count: 100, Mean: .1}}, Samples: []probe.Sample{{At: 10}, {At: 20}},
			Writes: map[string]probe.Writes{cassandra.TableHistory: {Quantiles: probe.Quantiles{Count: 20 * rate, P50: .001, P95: .002, P99: .003}, Rows: 20 * rate}},
		}
		run := loadtest.Run{Vehicles: 1000, Fleets: 10, Interval: 1000 / rate, Measurement: m, Load: &bench.Usage{Records: 1}, Days: 1 + i}
		if rate > 3000 {
			run.Saturated = "3000 of 4000 records/s offered were stored"
		}
		r.Runs = append(r.Runs, run)
	}
	return r
}

func TestEveryKindHasASection(t *testing.T) {
	for kind, title := range map[string]string{
		loadtest.KindSteady: "Steady load of 4,000 records/s", loadtest.KindDevices: "Growth with devices", loadtest.KindHistory: "Growth with history",
		loadtest.KindSoak: "Soak of 20s at 4,000 records/s: flat", loadtest.KindRamp: "Ramp on 1 node(s): 2,000 records/s sustained",
	} {
		sections, err := Sections([]*loadtest.Report{example(kind, kind, 1)})
		require.NoError(t, err)
		require.Len(t, sections, 1)
		assert.Equal(t, title, sections[0].Title)
		assert.Contains(t, sections[0].Markdown(""), "### "+title)
		plots := 0
		for _, table := range sections[0].Tables {
			for _, row := range table.Rows {
				assert.Len(t, row, len(table.Head), "%s, %s", kind, table.Title)
			}
			if table.Plot != nil {
				plots++
			}
		}
		assert.Positive(t, plots)
	}
}

func TestRampsOnSeveralClustersAreCompared(t *testing.T) {
	sections, err := Sections([]*loadtest.Report{example(loadtest.KindRamp, "ramp-1", 1), example(loadtest.KindRamp, "ramp-4", 4)})
	require.NoError(t, err)
	require.Len(t, sections, 3)
	assert.Equal(t, "nodes", sections[2].Name)
	rows := sections[2].Tables[0].Rows
	assert.Equal(t, [][]string{{"ramp-1", "1", "2,000", "4,000"}, {"ramp-4", "4", "2,000", "4,000"}}, [][]string{rows[0][:4], rows[1][:4]})
	assert.Contains(t, sections[0].Facts[3], "At 4,000 records/s it saturates: 3000 of 4000 records/s offered were stored")
}

func TestPlotsAreSVGWithTheirLabels(t *testing.T) {
	sections, err := Sections([]*loadtest.Report{example(loadtest.KindRamp, "ramp", 1)})
	require.NoError(t, err)
	p := sections[0].Tables[0].Plot
	svg, err := p.svg()
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
	for _, label := range []string{p.Title, p.X, p.Y, p.Lines[0].Name, "1,000"} {
		assert.Contains(t, text.String(), label)
	}
}

func TestWriteIntoReplacesSections(t *testing.T) {
	page := filepath.Join(t.TempDir(), "performance.md")
	sections := []Section{
		{Name: "ramp", Title: "Ramp", Tables: []Table{{Head: []string{"a", "b"}, Rows: [][]string{{"1", "2"}}, Plot: &Plot{Name: "ramp-latency", Title: "Latency"}}}},
		{Name: "soak"},
	}
	require.NoError(t, os.WriteFile(page, []byte("before\n<!-- results: ramp -->\nold\n<!-- end of results -->\nafter\n"), 0o600))
	for range 2 {
		without, err := WriteInto(page, sections, "plots")
		require.NoError(t, err)
		assert.Equal(t, []string{"soak"}, without)
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		assert.Equal(t, "before\n<!-- results: ramp -->\n\n### Ramp\n\n| a | b |\n|---|---:|\n| 1 | 2 |\n\n![Latency](plots/ramp-latency.svg)\n\n<!-- end of results -->\nafter\n", string(text))
	}
	assert.FileExists(t, filepath.Join(filepath.Dir(page), "plots", "ramp-latency.svg"))
}

func TestIncompleteReportsAreErrors(t *testing.T) {
	for want, r := range map[string]*loadtest.Report{
		"report a: it has no runs":           {Kind: loadtest.KindRamp, Name: "a"},
		"without a measurement":              {Kind: loadtest.KindSoak, Name: "b", Runs: []loadtest.Run{{}}},
		`report c: unknown kind "something"`: example("something", "c", 1),
	} {
		_, err := Sections([]*loadtest.Report{r})
		assert.ErrorContains(t, err, want)
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[float64]string{0: "0", 999: "999", 1000: "1,000", 123456.4: "123,456", 12345678: "12,345,678", -1000: "-1,000", -100: "-100"} {
		assert.Equal(t, want, count(n))
	}
}

func TestDocsHavePlacesForPartsOnly(t *testing.T) {
	text, err := os.ReadFile("../../../docs/performance.md")
	require.NoError(t, err)
	known := []string{"nodes", loadtest.KindSoak}
	for _, p := range loadtest.Parts() {
		known = append(known, p.Name)
	}
	places := regexp.MustCompile(`<!-- results: (.*) -->`).FindAllStringSubmatch(string(text), -1)
	require.NotEmpty(t, places)
	for _, place := range places {
		assert.Contains(t, known, place[1])
	}
}
