package bench

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMediansOfEachNumber(t *testing.T) {
	runs := []Usage{{Seconds: 3, PerSecond: 100, ClientCPU: 1}, {Seconds: 1, PerSecond: 300, ClientCPU: 3}, {Seconds: 2, PerSecond: 200, ClientCPU: 2}}
	assert.Equal(t, Usage{Seconds: 2, PerSecond: 200, ClientCPU: 2}, medians(runs))
	assert.Equal(t, 100.0, medians(runs[:2]).PerSecond, "the lower of two")
}

func TestTableIsRelativeToTheBaseOfACase(t *testing.T) {
	result := func(input, name string, rate, cpu float64) Result {
		return Result{Cluster: "dc1=1", Input: input, Case: name, Base: "old", Usage: Usage{Records: 1e6, PerSecond: rate, ClientCPU: cpu, NodesCPU: 1}}
	}
	var out strings.Builder
	require.NoError(t, WriteTable(&out, []Result{result("a", "old", 1000, 4), result("a", "new", 1500, 3), result("b", "old", 500, 1), result("b", "new", 500, 2)}))
	lines := strings.Split(out.String(), "\n")
	assert.Equal(t, []string{"dc1=1", "a", "new", "1000000", "1500", "1.50", "3.0", "0.75", "1.0", "1.00", "0.00", "0", "old"}, strings.Fields(lines[2]))
	assert.Equal(t, "2.00", strings.Fields(lines[4])[7])
}

func TestGroupRowsSharesBatchesWithinAPartition(t *testing.T) {
	row := func(device, day string, second int) driverRow {
		return driverRow{device: device, day: day, ts: time.Unix(int64(second), 0)}
	}
	rows := []driverRow{row("a", "1", 1), row("b", "1", 2), row("a", "1", 3), row("a", "2", 4), row("a", "1", 5)}
	var got []string
	for _, group := range groupRows(rows, 2) {
		text := ""
		for _, r := range group {
			text += r.device + r.day + ":" + r.ts.UTC().Format("5") + " "
		}
		got = append(got, strings.TrimSpace(text))
	}
	assert.Equal(t, []string{"a1:1 a1:3", "a1:5", "b1:2", "a2:4"}, got)
}

func TestGeneratedRowsReadBack(t *testing.T) {
	path := within(t.TempDir(), "random")
	require.NoError(t, writeRandom(path, 100, 10, 2))
	rows, err := readRows(path)
	require.NoError(t, err)
	require.Len(t, rows, 100)
	assert.Equal(t, "random-00001", rows[0].device)
	assert.Equal(t, "random-002", rows[1].fleet)
	assert.NotNil(t, rows[0].battery)
	assert.Nil(t, rows[0].heading)
	assert.True(t, rows[99].ts.After(rows[0].ts))
	assert.False(t, rows[99].ts.After(time.Now()))

	sorted := within(t.TempDir(), "sorted")
	require.NoError(t, sortByDevice(path, sorted))
	rows, err = readRows(sorted)
	require.NoError(t, err)
	require.Len(t, rows, 100)
	assert.Equal(t, rows[0].device, rows[9].device)
}
