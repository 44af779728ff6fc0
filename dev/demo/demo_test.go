package demo

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/monitoring"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func demo(t *testing.T) (*Demo, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	d := New(t.TempDir(), nil, &out)
	require.NoError(t, os.MkdirAll(d.dir, 0o755))
	return d, &out
}

// nodes returns nodes of a cluster with these data centers, in order.
func nodes(dcs ...string) (all []cluster.Node) {
	address := netip.MustParseAddr("127.0.0.1")
	for i, dc := range dcs {
		all = append(all, cluster.Node{N: i + 1, DC: dc, Address: address, CQLPort: 9042, MetricsPort: 7070, State: process.Running})
		address = address.Next()
	}
	return all
}

func TestEnvironmentOfFleetETL(t *testing.T) {
	d, _ := demo(t)
	t.Setenv("ETL_SOURCES", "kafka")
	env := d.environment(nodes("dc1", "dc1", "dc1", "dc2"), tool{address: "127.0.0.1:9093"})
	for _, want := range []string{
		"CASSANDRA_HOSTS=127.0.0.1:9042,127.0.0.2:9042,127.0.0.3:9042,127.0.0.4:9042", "CASSANDRA_DC=dc1", "CASSANDRA_REPLICATION=dc1=2,dc2=1",
		"ETL_ALERTMANAGER_URLS=http://127.0.0.1:9093", "ETL_GRAFANA_URL=http://localhost:3000",
	} {
		assert.Contains(t, env, want)
	}
	own, users := -1, -1
	for i, v := range env {
		switch v {
		case "ETL_SOURCES=generator,api":
			own = i
		case "ETL_SOURCES=kafka":
			users = i
		}
	}
	assert.Less(t, own, users, "the environment of the user overrides: the last value counts")
	assert.Contains(t, env, "ETL_GEOFENCES_FILES="+filepath.Join(d.root, "data", "geofences.geojson"))

	env = d.environment(nodes("dc1"), tool{missing: errors.New("not installed")})
	assert.NotContains(t, strings.Join(env, "\n"), "ETL_ALERTMANAGER_URLS", "there is no Alertmanager")
}

func TestDownStopsTheRunningDemo(t *testing.T) {
	d, _ := demo(t)
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM) // as main does
	defer stop()
	unlock, err := d.lock(ctx)
	require.NoError(t, err)
	_, err = d.lock(ctx)
	require.ErrorContains(t, err, "the demo is already running")
	require.NoError(t, ctx.Err(), "a second demo does not stop the first")

	var out bytes.Buffer
	down := make(chan error)
	go func() { down <- New(d.root, nil, &out).Down(t.Context()) }()
	<-ctx.Done()
	select {
	case err := <-down:
		t.Fatalf("down returned before the end of the demo: %v", err)
	default:
	}
	unlock()
	require.NoError(t, <-down)
	assert.Equal(t, "the demo has stopped\n", out.String())
}

func TestEachChangeIsPrintedOnce(t *testing.T) {
	all := nodes("dc1", "dc2")
	p := problems{}
	assert.Empty(t, p.changes(all, nil, nil))
	all[1].State = process.Dead
	changed := p.changes(all, nil, nil)
	require.Len(t, changed, 1)
	assert.Contains(t, changed[0], "node 2 (127.0.0.2, dc2) is dead: `go run ./dev cluster start 2` starts it")
	assert.Empty(t, p.changes(all, nil, nil))
	all[1].State = process.Running
	assert.Equal(t, []string{"node 2 (127.0.0.2, dc2) is running again"}, p.changes(all, nil, nil))
	assert.Equal(t, []string{"cluster: no such file"}, p.changes(nil, errors.New("no such file"), nil))
}

func TestTable(t *testing.T) {
	d, out := demo(t)
	require.NoError(t, os.MkdirAll(d.file("grafana"), 0o755))
	require.NoError(t, os.WriteFile(monitoring.PasswordFile(d.file("grafana")), []byte("secret"), 0o600))
	missing := tools{alertmanager: tool{missing: errors.New("Alertmanager is not installed: get it")}}
	require.NoError(t, d.table(nodes("dc1", "dc2"), missing))
	for _, want := range []string{
		"http://localhost:3000/d/fleet-realtime", "user admin, password secret", "http://localhost:9090/alerts", "Cassandra, 2 nodes",
		"127.0.0.1:9042 127.0.0.2:9042", "not running: Alertmanager is not installed: get it\n",
	} {
		assert.Contains(t, out.String(), want)
	}
	assert.NotContains(t, out.String(), "9093")
}

// Only the demo lets visitors in without a login, on this machine only, and says so.
func TestGrafanaWithoutLoginIsAnnounced(t *testing.T) {
	const said = "view Grafana without a login"
	d, out := demo(t)
	found := tools{grafana: tool{name: "grafana", address: "127.0.0.1:3000"}}
	options := d.grafanaOptions(found, nodes("dc1"))
	assert.True(t, options.Anonymous)
	assert.True(t, strings.HasPrefix(options.Address, "127.0.0.1:"), options.Address)
	require.NoError(t, os.MkdirAll(d.file("grafana"), 0o755))
	require.NoError(t, os.WriteFile(monitoring.PasswordFile(d.file("grafana")), []byte("secret"), 0o600))
	require.NoError(t, d.table(nodes("dc1"), found))
	assert.Contains(t, out.String(), said)

	out.Reset()
	require.NoError(t, d.table(nodes("dc1"), tools{grafana: tool{missing: errors.New("not installed")}}))
	assert.NotContains(t, out.String(), said)
}
