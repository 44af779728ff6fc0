package cluster

import (
	"context"
	"embed"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra/metrics"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

// State is the state of a node.
type State string

// The states.
const (
	Running State = "running"
	Paused  State = "paused"  // by Pause
	Stopped State = "stopped" // by Stop or Down, or never started
	Dead    State = "dead"    // killed, crashed, or running when the machine stopped
)

// Node is a snapshot of a node.
type Node struct {
	N           int // 1, 2, … in the order of the data centers
	DC          string
	Address     netip.Addr
	Network     string // network namespace; empty: the one of this process
	CQLPort     int
	StoragePort int
	JMXPort     int // on 127.0.0.1
	MetricsPort int
	Dir         string
	LogFile     string
	State       State
	PID         int // 0 unless running or paused
}

func (n Node) String() string { return fmt.Sprintf("node %d (%s, %s)", n.N, n.Address, n.DC) }

// CQL returns the address for clients.
func (n Node) CQL() netip.AddrPort { return netip.AddrPortFrom(n.Address, uint16(n.CQLPort)) }

// Metrics returns the address of the metrics (HTTP, path /metrics).
func (n Node) Metrics() netip.AddrPort { return netip.AddrPortFrom(n.Address, uint16(n.MetricsPort)) }

func (n Node) confDir() string { return filepath.Join(n.Dir, "conf") }
func (n Node) tmpDir() string  { return filepath.Join(n.Dir, "tmp") }
func (n Node) rules() string   { return filepath.Join(n.confDir(), "jmx.yml") }
func (n Node) pidFile() string { return filepath.Join(n.Dir, "pid") }

// observe returns n with its current state and pid, and its process.
func (n Node) observe() (Node, process.Process, error) {
	p, err := process.Read(n.pidFile())
	if err != nil {
		return n, p, fmt.Errorf("%s: %w", n, err)
	}
	letter, alive, err := p.State()
	if err != nil {
		return n, p, fmt.Errorf("%s: %w", n, err)
	}
	n.PID = p.PID
	switch {
	case alive && letter == 'T':
		n.State = Paused
	case alive:
		n.State = Running
	case p.PID == 0:
		n.State = Stopped
	default:
		n.State, n.PID = Dead, 0
	}
	return n, p, nil
}

//go:embed conf
var confFiles embed.FS

var confTemplates = template.Must(template.ParseFS(confFiles, "conf/*.tmpl"))

// writeConf creates the directories and writes the configuration from the templates.
func (n Node) writeConf(l layout, heapMB int) error {
	// A killed node leaves extracted libraries.
	if err := os.RemoveAll(n.tmpDir()); err != nil {
		return fmt.Errorf("clear %s: %w", n, err)
	}
	for _, dir := range []string{n.confDir(), n.tmpDir()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("configure %s: %w", n, err)
		}
	}
	var tokens, seeds []string
	for _, t := range l.tokens(n.N) {
		tokens = append(tokens, strconv.FormatInt(t, 10))
	}
	for _, other := range l.nodes("") {
		seeds = append(seeds, netip.AddrPortFrom(other.Address, uint16(other.StoragePort)).String())
	}
	data := struct {
		Node
		Tokens, Seeds string
		TokenCount    int
		MemtableMB    int
	}{n, strings.Join(tokens, ","), strings.Join(seeds, ","), len(tokens), max(1, heapMB/6)}

	for _, t := range confTemplates.Templates() {
		var text strings.Builder
		if err := t.Execute(&text, data); err != nil {
			return fmt.Errorf("configure %s: %w", n, err)
		}
		path := filepath.Join(n.confDir(), strings.TrimSuffix(t.Name(), ".tmpl"))
		if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
			return fmt.Errorf("configure %s: %w", n, err)
		}
	}
	for _, name := range []string{"logback.xml", "logback-tools.xml"} {
		text, err := confFiles.ReadFile("conf/" + name)
		if err == nil {
			err = os.WriteFile(filepath.Join(n.confDir(), name), text, 0o644)
		}
		if err != nil {
			return fmt.Errorf("configure %s: %w", n, err)
		}
	}
	if err := os.WriteFile(n.rules(), []byte(metrics.Rules), 0o644); err != nil {
		return fmt.Errorf("configure %s: %w", n, err)
	}
	return nil
}

// daemon describes the process of the node.
func (n Node) daemon() process.Daemon {
	return process.Daemon{
		Name: n.String(), PIDFile: n.pidFile(), LogFile: n.LogFile, KeepLog: 64 << 20, ReadyWithin: readyWithin, Excerpt: firstError,
		Ready: func(ctx context.Context) bool { return answersCQL(ctx, n.CQL()) },
	}
}

// start starts the process and returns when the node answers CQL.
func (n Node) start(ctx context.Context, t toolchain, heapMB int) (process.Process, error) {
	name, args := n.inNetwork(t.java, n.serverArgs(t, heapMB))
	cmd := exec.Command(name, args...) //nolint:noctx // it outlives the caller
	cmd.Dir = n.Dir                    // for crash reports of the JVM
	return n.daemon().Start(ctx, cmd)
}

// inNetwork returns the command line that runs a program in the network of the node.
func (n Node) inNetwork(program string, args []string) (string, []string) {
	if n.Network == "" {
		return program, args
	}
	return "nsenter", append([]string{"--net=/run/netns/" + n.Network, program}, args...)
}

// end ends the process with a signal and returns its pid when its ports are free; 0 if it was not running.
func (n Node) end(ctx context.Context, sig syscall.Signal, within time.Duration) (pid int, err error) {
	return n.daemon().End(ctx, sig, within, func() error { return portsFree([]Node{n}) })
}

// pause sends SIGSTOP or SIGCONT and returns when the kernel has changed the state.
func (n Node) pause(ctx context.Context, sig syscall.Signal, want State) error {
	n, p, err := n.observe()
	if err != nil {
		return err
	}
	if n.PID == 0 {
		return fmt.Errorf("make %s %s: it is %s: start it first", n, want, n.State)
	}
	if err := p.Signal(sig); err != nil {
		return fmt.Errorf("make %s %s: %w", n, want, err)
	}
	for n.State != want {
		if err := process.Sleep(ctx, process.PollEvery); err != nil {
			return fmt.Errorf("make %s %s: %w", n, want, err)
		}
		if n, _, err = n.observe(); err != nil {
			return err
		}
		if n.PID == 0 {
			return fmt.Errorf("make %s %s: it has ended", n, want)
		}
	}
	return nil
}
