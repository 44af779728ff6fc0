package loadtest

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func aRamp(name string, nodes int) *Report {
	r := &Report{Kind: KindRamp, Name: name, Taken: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC), Command: "fleet-etl bench ramp", Cluster: Cluster{Nodes: nodes, Copies: nodes}, Maximum: 2000}
	for _, rate := range []float64{4000, 1000, 2000} {
		m := modelled(rate, 3000)
		m.Seconds, m.Cores, m.Records = 20, 2, int64(m.PerSecond*20)
		m.Writes = map[string]Writes{history: {Quantiles{Count: m.Records, P50: .001, P95: .002, P99: .003}, float64(m.Records)}}
		m.Client.Profile = []Share{{"driver", 0.7}, {"transform", 0.3}}
		m.Limiting = Bottleneck(m)
		run := Run{Vehicles: 1000, Fleets: 10, Interval: 1000 / rate, Measurement: m}
		run.Bent = Bent(m, 5*time.Second)
		r.Runs = append(r.Runs, run)
	}
	return r
}

func TestSectionsCompareRampsOnSeveralClusters(t *testing.T) {
	sections, err := Sections([]*Report{aRamp("ramp-1", 1), aRamp("ramp-4", 4)})
	require.NoError(t, err)
	require.Len(t, sections, 3)
	assert.Equal(t, "nodes", sections[2].Name)
	assert.Equal(t, [][]string{{"ramp-1", "1", "1", "2,000", "4,000"}, {"ramp-4", "4", "4", "2,000", "4,000"}},
		[][]string{sections[2].Tables[0].Rows[0][:5], sections[2].Tables[0].Rows[1][:5]})
	assert.Contains(t, sections[0].Facts[3], "At 4,000 records/s it bends: 3000 of 4000 records/s offered were stored")
	for _, s := range sections {
		for _, table := range s.Tables {
			for _, row := range table.Rows {
				assert.Len(t, row, len(table.Head), "%s, %s", s.Name, table.Title)
			}
		}
	}
}

func TestEveryKindHasItsSection(t *testing.T) {
	for kind, title := range map[string]string{
		KindSteady: "Steady load of 4,000 records/s", KindDevices: "Growth with devices", KindHistory: "Growth with history", KindSoak: "Soak of 20s at 4,000 records/s: flat",
	} {
		r := aRamp("", 1)
		r.Kind, r.Trends = kind, []Trend{{Name: "goroutines", Mean: 40, Flat: true}}
		for i := range r.Runs {
			run := &r.Runs[i]
			run.Load, run.Days, run.Reads = &Load{Records: 1}, 1+i, []Reads{{Name: "map"}}
			run.Measurement.Samples = []Sample{{At: 10}, {At: 20}}
			run.Measurement.Nodes = &NodeFigures{Requests: map[string]float64{"write": 1}, Coordinator: map[string]Level{"write": {}}, Local: map[string]Level{history: {P99: 1}}}
		}
		sections, err := Sections([]*Report{r})
		require.NoError(t, err)
		assert.Equal(t, kind, sections[0].Name)
		assert.Equal(t, title, sections[0].Title)
		for _, table := range sections[0].Tables {
			for _, row := range table.Rows {
				assert.Len(t, row, len(table.Head), "%s, %s", kind, table.Title)
			}
		}
		var text, page strings.Builder
		require.NoError(t, WriteText(&text, sections))
		assert.Contains(t, text.String(), title)
		require.NoError(t, WriteHTML(&page, sections))
		assert.Equal(t, len(sections[0].Plots), strings.Count(page.String(), "<svg"))
	}
}

func TestPlotsAreSVGWithTheirLabels(t *testing.T) {
	sections, err := Sections([]*Report{aRamp("ramp", 1)})
	require.NoError(t, err)
	for _, p := range sections[0].Plots {
		svg, err := p.SVG()
		require.NoError(t, err)
		d := xml.NewDecoder(strings.NewReader(svg))
		var text strings.Builder
		for {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			if words, ok := token.(xml.CharData); ok {
				text.Write(words)
			}
		}
		for _, label := range []string{p.Title, p.X, p.Y, p.Lines[0].Name, "1,000", "2,000"} {
			assert.Contains(t, text.String(), label, p.Name)
		}
	}
}

func TestAPageNeedsNothingElse(t *testing.T) {
	sections, err := Sections([]*Report{aRamp("ramp", 1)})
	require.NoError(t, err)
	var b strings.Builder
	require.NoError(t, WriteHTML(&b, sections))
	assert.Equal(t, 3, strings.Count(b.String(), "<svg"))
	assert.NotContains(t, b.String(), "src=")
	assert.NotContains(t, b.String(), "href=\"http")
	assert.Contains(t, b.String(), "2,000 records/s are held")
}

func TestPlaceRefreshesAPage(t *testing.T) {
	sections := []Section{{Name: "ramp", Title: "Ramp", Tables: []Table{{Head: []string{"a", "b"}, Rows: [][]string{{"1", "2"}}}}, Plots: []Plot{{Name: "ramp-latency", Title: "Latency"}}}, {Name: "soak"}}
	const page = "before\n<!-- figures: ramp -->\nold\n<!-- end of figures -->\nafter\n"
	const want = "before\n<!-- figures: ramp -->\n\n### Ramp\n\n| a | b |\n|---|---:|\n| 1 | 2 |\n\n![Latency](performance/ramp-latency.svg)\n\n<!-- end of figures -->\nafter\n"
	placed, without := Place(page, sections, "performance")
	assert.Equal(t, want, placed)
	assert.Equal(t, []string{"soak"}, without)
	again, _ := Place(placed, sections, "performance")
	assert.Equal(t, want, again)
}

func TestAReportWithoutMeasurementsIsRefused(t *testing.T) {
	_, err := Sections([]*Report{{Kind: KindRamp}})
	assert.ErrorContains(t, err, "report ramp: it has no runs")
	_, err = Sections([]*Report{{Kind: KindSoak, Runs: []Run{{}}}})
	assert.ErrorContains(t, err, "run 1 has no measurement")
	_, err = Sections([]*Report{{Kind: "other", Runs: aRamp("x", 1).Runs}})
	assert.ErrorContains(t, err, "there is no such kind")
}

func TestCount(t *testing.T) {
	for n, want := range map[float64]string{0: "0", 999: "999", 1000: "1,000", 123456.4: "123,456", 12345678: "12,345,678", -1000: "-1,000", -100: "-100"} {
		assert.Equal(t, want, count(n))
	}
}
