package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/cassandra/schema"
	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/testenv"
)

// The short form of make chaos: the faults that need nothing but a running cluster.
func TestPlatformSurvivesFaults(t *testing.T) {
	testenv.CassandraHosts(t)
	c, err := cluster.Open(cluster.Config{Dir: os.Getenv("DEV_CLUSTER_DIR")})
	require.NoError(t, err)
	nodes, err := c.Nodes()
	require.NoError(t, err)
	if !fits(nodes) {
		testenv.Missing(t, testenv.Cassandra, fmt.Sprintf("the cluster is %v: start one with dc1=2,dc2=2", nodes))
	}
	root, err := cluster.RepositoryRoot()
	require.NoError(t, err)
	o := Options{Cluster: c, Root: root, Dir: t.TempDir(), Keyspace: fmt.Sprintf("test_%08x", rand.Uint32()), Short: true, Seed: rand.Uint64(), Out: lines{t}}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		assert.NoError(t, c.Up(ctx))
		assert.NoError(t, schema.Drop(ctx, storeOf(nodes, o.Keyspace), quiet()))
	})
	require.NoError(t, Run(t.Context(), o), "seed %d", o.Seed)
}

// lines writes the progress of Run to the log of a test.
type lines struct{ t *testing.T }

func (l lines) Write(text []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(text)))
	return len(text), nil
}

func TestOnlyAcceptedRecordsCountAsAcknowledged(t *testing.T) {
	requests := 0
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		body, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		assert.Equal(t, 3, strings.Count(string(body), "\n"))
		if requests == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, `{"results":[{"index":0,"status":"accepted"},{"index":1,"status":"rejected","reason":"malformed"},{"index":2,"status":"rejected","reason":"future"}]}`)
	}))
	defer api.Close()
	l := newLoad("f", strings.TrimPrefix(api.URL, "http://"))
	v := vehicle{id: "f-000"}
	records := []record{v.next(1000, false), v.next(2000, false)}
	lines := []line{{text: records[0].line("f"), record: &records[0]}, {text: "{", reason: "malformed"}, {text: records[1].line("f"), record: &records[1]}}

	require.False(t, l.deliver(t.Context(), lines), "503 acknowledges nothing")
	require.Empty(t, l.accepted)
	require.True(t, l.deliver(t.Context(), lines))
	assert.Equal(t, records[:1], l.accepted)
	assert.Equal(t, records[1:], l.rejected)
	assert.Equal(t, []string{"{"}, l.rejectedRaw)
	require.NoError(t, l.unexpected)

	lines[1].reason = "lat_range"
	l.deliver(t.Context(), lines)
	require.ErrorContains(t, l.unexpected, "with reason lat_range")
}

func TestRecordDiffersFromEveryOther(t *testing.T) {
	v := vehicle{id: "f-000"}
	r := v.next(time.Now().UnixMilli(), false)
	row := func(change func(*cassandra.Telemetry)) cassandra.Telemetry {
		battery := int32(r.battery)
		x := cassandra.Telemetry{Lat: r.lat, Lon: r.lon, SpeedKmh: &r.speed, BatteryPct: &battery, TempC: &r.temp}
		change(&x)
		return x
	}
	other, none := 1.5, int32(-1)
	assert.True(t, r.is(row(func(*cassandra.Telemetry) {})))
	for name, change := range map[string]func(*cassandra.Telemetry){
		"lat": func(x *cassandra.Telemetry) { x.Lat++ }, "lon": func(x *cassandra.Telemetry) { x.Lon++ },
		"speed": func(x *cassandra.Telemetry) { x.SpeedKmh = &other }, "no speed": func(x *cassandra.Telemetry) { x.SpeedKmh = nil },
		"battery": func(x *cassandra.Telemetry) { x.BatteryPct = &none }, "temperature": func(x *cassandra.Telemetry) { x.TempC = &other },
	} {
		assert.False(t, r.is(row(change)), name)
	}
}

func TestRulesAreSpedUp(t *testing.T) {
	root, err := cluster.RepositoryRoot()
	require.NoError(t, err)
	replaced := func(dir, file string, pairs map[string][]string) (text, fast string) {
		content, err := os.ReadFile(filepath.Join(root, dir, file))
		require.NoError(t, err)
		for i, old := range pairs[file] {
			if i%2 == 0 {
				assert.Contains(t, string(content), old)
			}
		}
		return string(content), strings.NewReplacer(pairs[file]...).Replace(string(content))
	}
	text, fast := replaced("prometheus", "rules/cause-alerts.yml", faster)
	for _, kept := range []string{"for: 1m", "for: 2m", "[5m]", "[10m]", "15m", "> 120\n", "> 300\n", "> 60\n"} {
		assert.Contains(t, text, kept)
		assert.NotContains(t, fast, kept)
	}
	assert.Contains(t, fast, "[75s:5s]")
	assert.NotRegexp(t, `(for: |\[|:|offset )\d+(m|h)\b`, fast)
	_, budgets := replaced("prometheus", "rules/slo-alerts.yml", faster)
	assert.NotRegexp(t, `for: \d+m`, budgets)
	_, prometheus := replaced("prometheus", "prometheus.yml", faster)
	assert.NotContains(t, prometheus, "15s")
	replaced("prometheus", "rules/recording.yml", faster)
	_, alertmanager := replaced("prometheus/alertmanager", "alertmanager.yml", fasterAlertmanager)
	assert.NotRegexp(t, `group_(wait|interval): \d+(m|0s)`, strings.ReplaceAll(alertmanager, "group_wait: 0s", ""))
}

func TestClockOfBuildCanBeSet(t *testing.T) {
	dir := t.TempDir()
	overlay, err := clockOverlay(t.Context(), dir)
	require.NoError(t, err)
	source, program := filepath.Join(dir, "main.go"), filepath.Join(dir, "program")
	require.NoError(t, os.WriteFile(source, []byte("package main\n\nimport \"time\"\n\nfunc main() {\n\tfor range 100 {\n\t\t<-time.After(time.Millisecond)\n\t}\n\tprintln(time.Now().Unix())\n}\n"), 0o600))
	out, err := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlay, "-o", program, source).CombinedOutput()
	require.NoError(t, err, "%s", out)
	p := platform{Options: Options{Dir: dir}}
	for _, seconds := range []int64{0, 2700, -2700} {
		require.NoError(t, p.setClock(time.Duration(seconds)*time.Second))
		cmd := exec.CommandContext(t.Context(), program)
		cmd.Env = append(os.Environ(), clockVariable+"="+p.clockFile())
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		printed, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
		require.NoError(t, err)
		assert.InDelta(t, time.Now().Unix()+seconds, printed, 5)
	}
}

func TestReportHasTables(t *testing.T) {
	var text strings.Builder
	report(&text, []*scenario{
		{fault: fault{name: "poison", title: "Poison", injects: "invalid lines"}, lasted: 10 * time.Second, detected: 4250 * time.Millisecond,
			resolved: 6 * time.Second, acknowledged: 12, stored: 12, peakRSS: 64e6, alerts: []string{"A fired"}, notes: []string{"some rejected"}},
		{fault: fault{name: "disk-full", title: "Disk"}, skipped: errors.New("it needs root")},
		{fault: fault{name: "dc-down", title: "DC", injects: "a kill."}, failed: errors.New("a\nb")},
	})
	for _, line := range []string{
		"| Poison | held | 10.0 s | 4.2 s | 0.0 s | 0.0 s | 0.0 s | 6.0 s | 64 MB |\n",
		"| Poison | 12 | 12 | 0 | 0 | 0 | 0 | 0 | 0 |\n",
		"| Disk | skipped: it needs root |",
		"- **Poison** (`poison`): invalid lines.\n  Alerts: A fired.\n  some rejected.\n",
		"- **DC** (`dc-down`): a kill.\n  Failed: a; b.\n",
	} {
		assert.Contains(t, text.String(), line)
	}
}

func TestDiskIsFilledToTheLastByte(t *testing.T) {
	if !isRoot() {
		testenv.Missing(t, testenv.Root, "root is needed to mount a small file system")
	}
	nodes := make([]cluster.Node, nodeOfSmallDisk)
	nodes[nodeOfSmallDisk-1].Dir = filepath.Join(t.TempDir(), "node4")
	folder, unmount, err := MountSmall(nodes, 3<<20)
	require.NoError(t, err)
	defer func() { assert.NoError(t, unmount()) }()
	require.NoError(t, fill(filepath.Join(folder, "filler")))
	require.ErrorIs(t, os.WriteFile(filepath.Join(folder, "more"), make([]byte, 5000), 0o600), syscall.ENOSPC)
	require.NoError(t, os.Remove(filepath.Join(folder, "filler")))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "more"), make([]byte, 5000), 0o600))
}
