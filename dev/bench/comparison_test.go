package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/dev/bench/table"
)

func TestTableIsRelativeToTheFirstWay(t *testing.T) {
	result := func(cluster, way string, rate, cpu float64) Result {
		return Result{Cluster: cluster, Way: way, Usage: Usage{Report{Stored: 1e6, Seconds: 1e6 / rate, CPUSeconds: cpu}, 1}}
	}
	var out strings.Builder
	s := table.Section{Tables: []*table.Table{Table([]Result{result("a", "old", 1000, 4), result("a", "new", 1500, 3), result("b", "old", 500, 1), result("b", "new", 500, 2)})}}
	require.NoError(t, s.Text(&out))
	var lines [][]string
	for line := range strings.Lines(out.String()) {
		lines = append(lines, strings.Fields(strings.ReplaceAll(line, "|", " ")))
	}
	assert.Equal(t, []string{"a", "new", "1000000", "1500", "1.5", "3", "0.75", "1", "1", "0", "0"}, lines[3])
	assert.Equal(t, "2", lines[5][6])
}

func TestGroupRowsSharesBatchesWithinAPartition(t *testing.T) {
	row := func(device, day string, second int) driverRow {
		return driverRow{device, day, time.Unix(int64(second), 0)}
	}
	rows := []driverRow{row("a", "1", 1), row("b", "1", 2), row("a", "1", 3), row("a", "2", 4), row("a", "1", 5)}
	var got []string
	for _, group := range groupRows(rows, 2) {
		text := ""
		for _, r := range group {
			text += r[0].(string) + r[1].(string) + ":" + r[2].(time.Time).UTC().Format("5") + " "
		}
		got = append(got, strings.TrimSpace(text))
	}
	assert.Equal(t, []string{"a1:1 a1:3", "a1:5", "b1:2", "a2:4"}, got)
}

func TestGeneratedRowsReadBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.csv")
	start := time.Now().Add(-time.Minute).UTC()
	var file strings.Builder
	file.WriteString("device_id,fleet_id,timestamp,lat,lon,speed_kmh,battery_pct,temp_c\n")
	for i := range 100 {
		fmt.Fprintf(&file, "random-%05d,random-%03d,%s,52.3,9.7,120,17,-3.5\n", i+1, i%10+1, start.Add(time.Duration(i)*time.Millisecond).Format(time.RFC3339Nano))
	}
	require.NoError(t, os.WriteFile(path, []byte(file.String()), 0o600))
	rows, err := readRows(path)
	require.NoError(t, err)
	require.Len(t, rows, 100)
	const ts, fleet, heading, battery = 2, 3, 7, 8
	assert.Equal(t, "random-00001", rows[0][0])
	assert.Equal(t, "random-002", rows[1][fleet])
	assert.NotNil(t, rows[0][battery])
	assert.Nil(t, rows[0][heading])
	assert.Equal(t, strings.Count(insertHistory, "?"), len(rows[0]))
	first, last := rows[0][ts].(time.Time), rows[99][ts].(time.Time)
	assert.True(t, last.After(first))
	assert.False(t, last.After(time.Now()))
}
