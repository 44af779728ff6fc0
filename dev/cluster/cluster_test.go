package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/procfs"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/dev/process"
	"github.com/fleettracing/fleet-tracing/dev/testenv"
)

// open returns a cluster of its own for a test, on addresses and ports that no other uses, and ends it with the test.
func open(t *testing.T, cfg Config) (*Cluster, *bytes.Buffer) {
	t.Helper()
	out := &bytes.Buffer{}
	cfg.Out = out
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if !cfg.FirstAddress.IsValid() {
		cfg.FirstAddress = netip.MustParseAddr("127.0.0.31")
	}
	cfg.CQLPort, cfg.StoragePort, cfg.JMXPort = 19042, 17000, 17301
	c, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Down(context.Background(), true); err != nil {
			t.Error(err)
		}
	})
	return c, out
}

func states(t *testing.T, c *Cluster) string {
	t.Helper()
	nodes, err := c.Nodes()
	if err != nil {
		t.Fatal(err)
	}
	var s []string
	for _, n := range nodes {
		s = append(s, string(n.State))
	}
	return strings.Join(s, " ")
}

func pid(t *testing.T, c *Cluster, n int) int {
	t.Helper()
	node, err := c.Node(n)
	if err != nil {
		t.Fatal(err)
	}
	return node.PID
}

func do(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q\nlacks %q", err, part)
		}
	}
}

func wantStates(t *testing.T, c *Cluster, want string) {
	t.Helper()
	if got := states(t, c); got != want {
		t.Errorf("nodes are %s, want %s", got, want)
	}
}

func TestClusterLifecycle(t *testing.T) {
	useFakeJava(t)
	ctx := t.Context()
	c, out := open(t, Config{DCs: cassandra.Replication{"dc1": 2, "dc2": 1}})

	wantError(t, c.Start(ctx, 1), "no cluster in", "cluster up")
	do(t, "up", c.Up(ctx))
	wantStates(t, c, "running running running")
	first := pid(t, c, 1)

	do(t, "up again", c.Up(ctx))
	if pid(t, c, 1) != first {
		t.Error("a second up started node 1 again")
	}
	if down, err := c.Status(ctx, ""); err != nil || down != 0 {
		t.Errorf("status says %d down, error %v", down, err)
	}

	do(t, "kill 2", c.Kill(ctx, 2))
	wantStates(t, c, "running dead running")
	if down, err := c.Status(ctx, ""); err != nil || down != 1 {
		t.Errorf("status says %d down, error %v", down, err)
	}
	if !strings.Contains(out.String(), "DN  127.0.0.32") {
		t.Errorf("status shows no nodetool status:\n%s", out)
	}
	do(t, "kill 2 again", c.Kill(ctx, 2))

	do(t, "stop 3", c.Stop(ctx, 3))
	wantStates(t, c, "running dead stopped")
	do(t, "start 2", c.Start(ctx, 2))
	wantStates(t, c, "running running stopped")

	do(t, "pause 1", c.Pause(ctx, 1))
	wantStates(t, c, "paused running stopped")
	do(t, "resume 1", c.Resume(ctx, 1))
	wantStates(t, c, "running running stopped")
	wantError(t, c.Pause(ctx, 3), "stopped", "start it first")

	do(t, "pause 2", c.Pause(ctx, 2))
	do(t, "up", c.Up(ctx))
	wantStates(t, c, "running running running")

	do(t, "pause 2", c.Pause(ctx, 2))
	do(t, "down", c.Down(ctx, false))
	wantStates(t, c, "stopped stopped stopped")
	if err := syscall.Kill(first, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process of node 1 after down: %v, want none", err)
	}

	wantError(t, c.Kill(ctx, 4), "node 4", "nodes 1 to 3")
}

func TestAnotherProcessManagesTheCluster(t *testing.T) {
	useFakeJava(t)
	ctx := t.Context()
	c, _ := open(t, Config{DCs: cassandra.Replication{"east": 1, "west": 1}})
	do(t, "up", c.Up(ctx))

	other, err := Open(Config{Dir: c.dir})
	do(t, "open", err)
	if got, want := states(t, other), "running running"; got != want {
		t.Errorf("nodes are %s, want %s", got, want)
	}
	do(t, "up", other.Up(ctx))

	for _, tc := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"data centers", Config{DCs: cassandra.Replication{"dc1": 2}}, "data centers are east=1,west=1, not dc1=2"},
		{"address", Config{FirstAddress: netip.MustParseAddr("127.0.0.99")}, "first address is 127.0.0.31, not 127.0.0.99"},
		{"CQL port", Config{CQLPort: 9042}, "CQL port is 19042, not 9042"},
	} {
		tc.cfg.Dir = c.dir
		other, err := Open(tc.cfg)
		do(t, "open", err)
		wantError(t, other.Up(ctx), tc.want, "down --delete")
	}
	wantStates(t, c, "running running")
}

func TestUpQuotesTheErrorOfTheNode(t *testing.T) {
	useFakeJava(t)
	c, _ := open(t, Config{DCs: cassandra.Replication{"dc1": 1}, HeapMB: 8})
	wantError(t, c.Up(t.Context()), "start node 1 (127.0.0.31, dc1)", "exit status 1", "Too small maximum heap", "cassandra.log")
	wantStates(t, c, "dead")
}

func TestInterruptedUpLeavesNoProcess(t *testing.T) {
	useFakeJava(t)
	t.Setenv("FAKE_JAVA_DUMB", "1")
	c, _ := open(t, Config{DCs: cassandra.Replication{"dc1": 2}})
	ctx, interrupt := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Up(ctx) }()

	var started int
	for deadline := time.Now().Add(10 * time.Second); started == 0 && time.Now().Before(deadline); time.Sleep(process.PollEvery) {
		started = pid(t, c, 1)
	}
	if started == 0 {
		t.Fatal("node 1 was not started within 10 s")
	}
	interrupt()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("up: %v, want context.Canceled", err)
	}
	if err := syscall.Kill(started, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process of node 1 after the interrupt: %v, want none", err)
	}
}

func TestUpNamesPortsInUseBeforeTheFirstStart(t *testing.T) {
	useFakeJava(t)
	c, _ := open(t, Config{DCs: cassandra.Replication{"dc1": 2}})
	for _, addr := range []string{"127.0.0.32:19042", "127.0.0.1:17302", "127.0.0.31:7070"} {
		l, err := net.Listen("tcp", addr)
		do(t, "listen", err)
		defer l.Close()
	}
	wantError(t, c.Up(t.Context()), "127.0.0.32:19042, of node 2, is in use", "--cql-port (DEV_CQL_PORT)",
		"127.0.0.1:17302, of node 2, is in use", "--jmx-port (DEV_JMX_PORT)",
		"127.0.0.31:7070, of node 1, is in use", "--metrics-port (DEV_METRICS_PORT)")
	wantStates(t, c, "stopped stopped")
}

func TestKillSparesProcessWithReusedPID(t *testing.T) {
	useFakeJava(t)
	ctx := t.Context()
	c, _ := open(t, Config{DCs: cassandra.Replication{"dc1": 1}})
	do(t, "up", c.Up(ctx))
	do(t, "kill", c.Kill(ctx, 1))

	other := exec.Command("/bin/sleep", "60")
	do(t, "start another program", other.Start())
	defer other.Wait()
	defer other.Process.Kill()
	proc, err := procfs.NewProc(other.Process.Pid)
	do(t, "find", err)
	itself, err := proc.Stat()
	do(t, "stat", err)
	node, err := c.Node(1)
	do(t, "node", err)
	do(t, "write pid file", os.WriteFile(filepath.Join(node.Dir, "pid"), fmt.Appendf(nil, "%d %d\n", other.Process.Pid, itself.Starttime-1), 0o644))

	wantStates(t, c, "dead")
	do(t, "kill", c.Kill(ctx, 1))
	do(t, "down", c.Down(ctx, false))
	if s, err := proc.Stat(); err != nil || s.State == "Z" {
		t.Errorf("the other program was killed: state %s, error %v", s.State, err)
	}
}

func TestSecondLockWaits(t *testing.T) {
	c, out := open(t, Config{})
	unlock, err := c.lock(t.Context())
	do(t, "lock", err)

	ctx, cancel := context.WithTimeout(t.Context(), 3*process.PollEvery)
	defer cancel()
	if _, err := c.lock(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("second lock: %v, want a wait to the deadline", err)
	}
	if want := "waiting for process"; !strings.Contains(out.String(), want) {
		t.Errorf("output %q lacks %q", out, want)
	}
	unlock()
	unlock, err = c.lock(t.Context())
	do(t, "lock after unlock", err)
	unlock()
}

func TestDownWithoutClusterRemovesNothing(t *testing.T) {
	dir := t.TempDir()
	mine := filepath.Join(dir, "node1", "mine")
	do(t, "mkdir", os.MkdirAll(filepath.Dir(mine), 0o755))
	do(t, "write", os.WriteFile(mine, nil, 0o644))
	c, out := open(t, Config{Dir: dir})
	do(t, "down", c.Down(t.Context(), true))
	if _, err := os.Stat(mine); err != nil {
		t.Error(err)
	}
	if !strings.Contains(out.String(), "no cluster in "+dir) {
		t.Errorf("output %q", out)
	}
}

func TestLogs(t *testing.T) {
	useFakeJava(t)
	c, _ := open(t, Config{DCs: cassandra.Replication{"dc1": 1}})
	node, err := c.Node(1)
	do(t, "node", err)
	wantError(t, errors.New(process.Tail(node.LogFile)), "read log", node.LogFile)
	do(t, "up", c.Up(t.Context()))
	text := process.Tail(node.LogFile)
	if want := "INFO  [main] Starting listening for CQL clients"; text != want {
		t.Errorf("log %q, want %q", text, want)
	}
}

// TestRealCassandra is the one test here that runs Cassandra itself.
func TestRealCassandra(t *testing.T) {
	testenv.CassandraHosts(t) // this test starts its own node; machines that run the cluster tests have the memory
	ctx := t.Context()
	c, out := open(t, Config{DCs: cassandra.Replication{"dc1": 1}, FirstAddress: netip.MustParseAddr("127.0.0.21"), HeapMB: 512})
	do(t, "up", c.Up(ctx))
	do(t, "kill", c.Kill(ctx, 1))
	do(t, "start", c.Start(ctx, 1))
	started := pid(t, c, 1)
	if down, err := c.Status(ctx, ""); err != nil || down != 0 {
		t.Errorf("status says %d down, error %v", down, err)
	}
	do(t, "stop", c.Stop(ctx, 1))
	do(t, "down", c.Down(ctx, true))
	if err := syscall.Kill(started, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process after down: %v, want none", err)
	}
	t.Log(out)
}
