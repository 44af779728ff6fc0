package loadtest

import (
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/dev/bench/probe"
	"github.com/fleettracing/fleet-tracing/dev/bench/table"
)

// example is a ramp whose greatest sustained rate is 2,000 records/s.
func example() (runs []run) {
	for _, rate := range []float64{4000, 1000, 2000} {
		m := &probe.Measurement{
			Offered: rate, PerSecond: min(rate, 3000), Seconds: 20, Records: 20 * min(rate, 3000), Cores: 2,
			Durations: []probe.Duration{{Name: "stage load", Count: 100, Mean: .1}}, Samples: []probe.Sample{{At: 10}, {At: 20}},
			Writes: map[string]probe.Writes{cassandra.TableHistory: {Quantiles: probe.Quantiles{Count: 20 * rate, P50: .001, P95: .002, P99: .003}, Rows: 20 * rate}},
		}
		r := run{phase: phase{rate: rate, vehicles: 1000, lasts: 20 * time.Second}, Measurement: m}
		if rate > 3000 {
			r.saturated = "3000 of 4000 records/s offered were stored"
		}
		runs = append(runs, r)
	}
	return runs
}

func TestReportsHavePlots(t *testing.T) {
	for title, report := range map[string]func(*table.Section, *run){
		"Steady load of 4000 records/s":               steadyReport,
		"Soak of 20s at 4000 records/s: flat":         func(s *table.Section, r *run) { assert.True(t, soakReport(s, r)) },
		"Ramp on 1 node(s): 2000 records/s sustained": func(s *table.Section, _ *run) { rampReport(s, 1, 2000, example()) },
	} {
		s := table.Section{Name: "x"}
		report(&s, &example()[0])
		assert.Equal(t, title, s.Title)
		assert.Contains(t, s.Markdown("plots"), "(plots/x-")
		for _, part := range s.Tables {
			for _, row := range part.Rows {
				assert.Len(t, row, len(part.Head), "%s, %s", title, part.Title)
			}
		}
	}
}

func TestRampReportSaysWhereItSaturates(t *testing.T) {
	s := table.Section{Name: "ramp"}
	rampReport(&s, 1, 2000, example())
	require.Len(t, s.Facts, 4)
	assert.Contains(t, s.Facts[2], "At 4000 records/s it saturates: 3000 of 4000 records/s offered were stored")
	assert.Len(t, s.Tables[0].Rows, 3)
}

func TestDocsHavePlacesForPartsOnly(t *testing.T) {
	text, err := os.ReadFile("../../../docs/performance.md")
	require.NoError(t, err)
	known := []string{"soak"}
	for _, p := range Parts() {
		known = append(known, p.Name)
	}
	places := regexp.MustCompile(`<!-- results: (.*) -->`).FindAllStringSubmatch(string(text), -1)
	require.NotEmpty(t, places)
	for _, place := range places {
		assert.Contains(t, known, place[1])
	}
}
