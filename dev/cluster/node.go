package cluster

import (
	"context"
	"embed"
	"errors"
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

// State is what a node does.
type State string

// The states.
const (
	Running State = "running"
	Paused  State = "paused"  // by Pause
	Stopped State = "stopped" // by Stop or Down, or never started
	Dead    State = "dead"    // ended in any other way: killed, crashed, or the machine went down
)

// Node is one node of the cluster as it was when it was asked for.
type Node struct {
	N           int // 1, 2, … in the order of the data centres
	DC          string
	Address     netip.Addr
	Network     string // name of the network namespace that it is in; empty: ours
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

// CQL is where the node serves clients.
func (n Node) CQL() netip.AddrPort { return netip.AddrPortFrom(n.Address, uint16(n.CQLPort)) }

// Metrics is where the node serves its metrics, over HTTP under /metrics.
func (n Node) Metrics() netip.AddrPort { return netip.AddrPortFrom(n.Address, uint16(n.MetricsPort)) }

func (n Node) confDir() string { return filepath.Join(n.Dir, "conf") }
func (n Node) tmpDir() string  { return filepath.Join(n.Dir, "tmp") }
func (n Node) rules() string   { return filepath.Join(n.confDir(), "jmx.yml") }
func (n Node) pidFile() string { return filepath.Join(n.Dir, "pid") }

// observe returns n with its state and pid of now, and the process behind them.
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

// writeConf makes the node's directories and its configuration anew, so that they follow this program's templates.
func (n Node) writeConf(l layout, heapMB int) error {
	// What a killed node had unpacked there is of no use to the next.
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

// launch starts the node's process, which outlives ours, and returns it with the place in the log where its own lines
// begin. It does not wait until the node serves.
func (n Node) launch(t toolchain, heapMB int) (p process.Process, logFrom int64, err error) {
	name, args := n.inNetwork(t.java, n.serverArgs(t, heapMB))
	cmd := exec.Command(name, args...)
	cmd.Dir = n.Dir // where a crashing JVM leaves its report
	p, logFrom, err = process.Launch(cmd, n.LogFile, keepLogs, func(p process.Process) error { return p.Write(n.pidFile()) })
	if err != nil {
		err = fmt.Errorf("launch %s: %w", n, err)
	}
	return p, logFrom, err
}

// inNetwork is a command line that runs a program where the node is.
func (n Node) inNetwork(program string, args []string) (string, []string) {
	if n.Network == "" {
		return program, args
	}
	return "nsenter", append([]string{"--net=/run/netns/" + n.Network, program}, args...)
}

// waitReady returns when the node answers CQL. It fails as soon as the process ends, with what the node itself said of
// the reason, and after readyWithin.
func (n Node) waitReady(ctx context.Context, p process.Process, logFrom int64) error {
	limited, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for {
		_, alive, err := p.State()
		if err != nil {
			return fmt.Errorf("start %s: %w", n, err)
		}
		if !alive {
			how := p.Reap()
			if how != "" {
				how = " (" + how + ")"
			}
			return fmt.Errorf("start %s: java ended%s before it answered CQL; it said:\n%s\nwhole log: %s",
				n, how, process.Indent(complaint(n.LogFile, logFrom)), n.LogFile)
		}
		if answersCQL(limited, n.CQL()) {
			return nil
		}
		if process.Sleep(limited, 2*process.PollEvery) == nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("start %s: %w", n, err)
		}
		return fmt.Errorf("start %s: no CQL on %s within %s: is the machine overloaded? Its log ends:\n%s\nwhole log: %s",
			n, n.CQL(), readyWithin, process.Indent(complaint(n.LogFile, logFrom)), n.LogFile)
	}
}

// end makes the node's process end by sig and returns its pid when it is gone and its ports are free, or 0 where none
// ran. A node that sig asked to end in order counts as stopped from then on, one that was killed as dead.
func (n Node) end(ctx context.Context, sig syscall.Signal, within time.Duration) (pid int, err error) {
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	n, p, err := n.observe()
	if err != nil {
		return 0, err
	}
	if n.PID != 0 {
		signals := []syscall.Signal{sig}
		if n.State == Paused && sig != syscall.SIGKILL {
			signals = append(signals, syscall.SIGCONT) // a paused process hears the first only when it goes on
		}
		for _, s := range signals {
			if err := p.Signal(s); err != nil {
				return 0, fmt.Errorf("end %s: %w", n, err)
			}
		}
		if err := p.WaitGone(limited); err != nil {
			if ctx.Err() != nil {
				return 0, fmt.Errorf("end %s: %w", n, ctx.Err())
			}
			return 0, fmt.Errorf("end %s: pid %d still runs %s after signal %s: try `go run ./dev cluster kill %d`",
				n, p.PID, within, sig, n.N)
		}
		for {
			err := portsFree([]Node{n})
			if err == nil {
				break
			}
			if process.Sleep(limited, process.PollEvery) != nil {
				return 0, fmt.Errorf("end %s: it is gone, but %w", n, err)
			}
		}
	}
	if sig != syscall.SIGKILL {
		if err := os.Remove(n.pidFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, fmt.Errorf("end %s: %w", n, err)
		}
	}
	return n.PID, nil
}

// pause stops or continues the node's process by sig and returns when the kernel has done so.
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
