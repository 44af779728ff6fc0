package platform

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/cassandra/schema"
	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

// readyWithin bounds the start and the stop of a program, which take seconds on an idle machine.
const readyWithin = 2 * time.Minute

// FleetETL builds fleet-etl and returns its path.
func FleetETL(ctx context.Context) (path string, err error) {
	return Build(ctx, "fleet-etl", nil, "./etl")
}

// Build builds a program with arguments of go build, relative to the repository, and returns its path. The tests of all packages
// share the program, and build one at a time. The Go tool skips the build if the program is up to date.
func Build(ctx context.Context, name string, env []string, args ...string) (path string, err error) {
	root, err := cluster.RepositoryRoot()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, ".dev", "test-bin")
	unlock, err := process.Lock(ctx, dir, func(string) error { return nil })
	if err != nil {
		return "", err
	}
	defer unlock()
	path = filepath.Join(dir, name)
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-o", path}, args...)...)
	cmd.Dir, cmd.Env = root, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return path, nil
}

// ETL is a fleet-etl with its own state directory and addresses, on the keyspace of the tests. While it runs, it simulates ten
// vehicles that send each second, and serves the HTTP API to one fleet without tokens.
type ETL struct {
	Config       cassandra.Config
	Dir          string
	Metrics, API string // host:port

	t       testing.TB
	program string
	env     []string
}

// NewETL takes the keyspace of the tests. It also creates keyspace fleet_iot, because the nodes export metrics of its tables only.
// env has further settings of fleet-etl.
func NewETL(t testing.TB, openFleet, alertRules string, env ...string) *ETL {
	addresses, err := process.FreeAddresses(2)
	require.NoError(t, err)
	e := &ETL{t: t, Config: Keyspace(t), Dir: t.TempDir(), Metrics: addresses[0], API: addresses[1]}
	e.program, err = FleetETL(t.Context())
	require.NoError(t, err)
	standard := e.Config
	standard.Keyspace = "fleet_iot"
	require.NoError(t, schema.Apply(t.Context(), standard, Replication(t), Quiet()))

	rules := filepath.Join(e.Dir, "alert-rules.yml")
	require.NoError(t, os.WriteFile(rules, []byte(alertRules), 0o600))
	e.env = append(os.Environ(),
		"CASSANDRA_HOSTS="+strings.Join(e.Config.Hosts, ","), "CASSANDRA_KEYSPACE="+e.Config.Keyspace, "CASSANDRA_DC="+e.Config.LocalDC,
		"ETL_STATE_DIR="+e.Dir, "ETL_METRICS_ADDRESS="+e.Metrics, "ETL_SOURCES=generator,api", "ETL_API_ADDRESS="+e.API,
		"ETL_API_OPEN_FLEET="+openFleet, "ETL_GENERATOR_VEHICLES=10", "ETL_GENERATOR_INTERVAL=1s", "ETL_CANARY_INTERVAL=2s",
		"ETL_PROCESSOR_FLUSH_INTERVAL=1s", "ETL_ALERT_RULES_FILE="+rules,
	)
	e.env = append(e.env, env...)
	return e
}

// Do runs a command, which must succeed.
func (e *ETL) Do(args ...string) {
	begun := time.Now()
	cmd := exec.CommandContext(e.t.Context(), e.program, args...)
	cmd.Env = e.env
	out, err := cmd.CombinedOutput()
	require.NoError(e.t, err, "fleet-etl %s\n%s", strings.Join(args, " "), out)
	e.t.Logf("fleet-etl %s took %.1f s", args[0], time.Since(begun).Seconds())
}

// Run starts fleet-etl and returns when it is ready. The end of the test stops it.
func (e *ETL) Run() {
	path := filepath.Join(e.Dir, "fleet-etl.log")
	log, err := os.Create(path)
	require.NoError(e.t, err)
	defer log.Close()                     // the child process has its own descriptor
	cmd := exec.Command(e.program, "run") //nolint:noctx // stopped below
	cmd.Env, cmd.Stdout, cmd.Stderr = e.env, log, log
	child, err := process.StartChild(cmd)
	require.NoError(e.t, err)
	e.t.Cleanup(func() {
		assert.NoError(e.t, child.Stop(readyWithin), "fleet-etl stops without an error")
		if e.t.Failed() {
			e.t.Log("fleet-etl", process.Tail(path))
		}
	})
	require.Eventually(e.t, func() bool { return process.AnswersHTTP(e.t.Context(), "http://"+e.Metrics+"/-/ready") },
		readyWithin, 100*time.Millisecond, "fleet-etl is ready")
}
