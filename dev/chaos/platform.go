package chaos

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/monitoring"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

// rules let speed raise alerts only.
const rules = `
defaults:
  speed_limit: {enabled: true, limit: 80, for: 2s}
  battery_low: {enabled: false}
  temperature: {enabled: false}
  geofence_enter: {enabled: false}
  geofence_exit: {enabled: false}
  geofence_dwell: {enabled: false}
  device_offline: {enabled: false}
  device_stuck: {enabled: false}
`

// platform is the running system: Cassandra, fleet-etl and, in the long form, Prometheus and Alertmanager with a webhook receiver.
type platform struct {
	Options
	nodes   []cluster.Node
	store   cassandra.Config // reads at level ALL
	program string           // fleet-etl
	etl     *instance

	inbox        *inbox // nil in the short form
	alertmanager process.Server
	prometheus   process.Server

	cleanups []func(context.Context) error // in the order of the starts
}

// start starts everything. If it fails, it stops what it started.
func start(ctx context.Context, o Options) (p *platform, err error) {
	p = &platform{Options: o, program: filepath.Join(o.Dir, "fleet-etl")}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.stop(ctx))
		}
	}()
	if err := os.RemoveAll(o.Dir); err != nil {
		return p, err
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return p, err
	}
	nodes, err := o.Cluster.Nodes()
	if err != nil {
		return p, err
	}
	p.nodes, p.store = nodes, storeOf(nodes, o.Keyspace)
	if !fits(nodes) {
		return p, fmt.Errorf("the cluster is %v: faults need dc1=2,dc2=2", nodes)
	}
	if err := errors.Join(p.setClock(0), p.build(ctx)); err != nil {
		return p, err
	}
	if err := os.WriteFile(filepath.Join(o.Dir, "alert-rules.yml"), []byte(rules), 0o644); err != nil {
		return p, err
	}
	if err := p.writeTokens(); err != nil {
		return p, err
	}
	if p.etl, err = p.newInstance("fleet-etl", here); err != nil {
		return p, err
	}
	if !o.Short {
		if err := p.startMonitoring(ctx); err != nil {
			return p, err
		}
	}
	if _, err := p.command(ctx, "schema", "apply"); err != nil {
		return p, err
	}
	p.cleanup(func(context.Context) error { return p.etl.stop() })
	if err := p.etl.start(); err != nil {
		return p, err
	}
	if err := waitFor(ctx, time.Minute, "fleet-etl is connected to Cassandra", p.etl.storeUp); err != nil {
		return p, err
	}
	if p.inbox != nil {
		err = waitFor(ctx, time.Minute, "the watchdog fires", func() bool {
			fired, _ := p.inbox.times(0, "FleetWatchdog")
			return !fired.IsZero()
		})
	}
	return p, err
}

const allFleets = "*"

// tokenOf returns the API token of a fleet.
func tokenOf(fleet string) string { return "token-of-" + fleet }

func (p *platform) tokensFile() string { return filepath.Join(p.Dir, "tokens") }

func (p *platform) writeTokens() error {
	var lines strings.Builder
	for _, fleet := range []string{allFleets, honestFleet, hostileFleet} {
		fmt.Fprintf(&lines, "%s %x read,write\n", fleet, sha256.Sum256([]byte(tokenOf(fleet))))
	}
	return os.WriteFile(p.tokensFile(), []byte(lines.String()), 0o600)
}

// fits reports whether the cluster has two data centers of two nodes.
func fits(nodes []cluster.Node) bool {
	return cluster.Layout(nodes).String() == "dc1=2,dc2=2"
}

// storeOf returns the configuration to read a keyspace at level ALL.
func storeOf(nodes []cluster.Node, keyspace string) cassandra.Config {
	return cassandra.Config{Hosts: cluster.ContactPoints(nodes), Keyspace: keyspace, LocalDC: "dc1", ReadConsistency: "ALL", Timeout: 20 * time.Second}
}

func (p *platform) cleanup(do func(context.Context) error) { p.cleanups = append(p.cleanups, do) }

// stop runs the cleanups in reverse order.
func (p *platform) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Minute)
	defer cancel()
	var errs []error
	for _, do := range slices.Backward(p.cleanups) {
		errs = append(errs, do(ctx))
	}
	p.cleanups = nil
	return errors.Join(errs...)
}

func (p *platform) startMonitoring(ctx context.Context) error {
	p.inbox = openInbox()
	p.cleanup(func(context.Context) error { p.inbox.server.Close(); return nil })
	if err := p.startAlertmanager(ctx); err != nil {
		return err
	}
	p.cleanup(func(ctx context.Context) error { return p.alertmanager.Stop(ctx) })
	if err := p.startPrometheus(ctx); err != nil {
		return err
	}
	p.cleanup(func(ctx context.Context) error { return p.prometheus.Stop(ctx) })
	return nil
}

// options has the address of the previous start, if there was one.
func (p *platform) options(name string, previous process.Server, replace map[string][]string) monitoring.Options {
	return monitoring.Options{Root: p.Root, Dir: filepath.Join(p.Dir, name), Address: previous.Address, Replace: replace}
}

func (p *platform) startAlertmanager(ctx context.Context) error {
	started, err := monitoring.StartAlertmanager(ctx, monitoring.AlertmanagerOptions{
		Options: p.options("alertmanager", p.alertmanager, fasterAlertmanager), Webhook: p.inbox.server.URL,
	})
	if err == nil {
		p.alertmanager = *started // else keep the previous one, which stop accepts
	}
	return err
}

func (p *platform) startPrometheus(ctx context.Context) error {
	started, err := monitoring.StartPrometheus(ctx, monitoring.PrometheusOptions{
		Options:  p.options("prometheus", p.prometheus, faster),
		FleetETL: p.etl.metrics, Cassandra: p.nodes, Alertmanager: p.alertmanager.Address, Flags: []string{"--rules.alert.resend-delay=1s"},
	})
	if err == nil {
		p.prometheus = *started
	}
	return err
}

// build builds fleet-etl. The build of the long form has a clock that can be set.
func (p *platform) build(ctx context.Context) error {
	args := []string{"build", "-o", p.program}
	if !p.Short {
		overlay, err := clockOverlay(ctx, p.Dir)
		if err != nil {
			return err
		}
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./etl")...)
	cmd.Dir = p.Root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build fleet-etl: %w:\n%s", err, process.Indent(string(out)))
	}
	return nil
}

// command runs a command of fleet-etl and returns its output.
func (p *platform) command(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, p.program, args...)
	cmd.Env, cmd.Dir = p.etl.environment(), p.Dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("fleet-etl %s: %w:\n%s", args[0], err, process.Indent(process.LastLines(append(stdout.Bytes(), stderr.Bytes()...), 10)))
	}
	return stdout.Bytes(), err
}

// exitStatus returns the exit status in an error of command, or 0.
func exitStatus(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

// waitFor polls until a condition holds. The error names the condition.
func waitFor(ctx context.Context, timeout time.Duration, what string, condition func() bool) error {
	for end := time.Now().Add(timeout); !condition(); {
		if time.Now().After(end) {
			return fmt.Errorf("not reached within %s: %s", timeout, what)
		}
		if err := process.Sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func quiet() logrus.FieldLogger { return &logrus.Logger{Out: io.Discard} }

func (p *platform) printf(format string, args ...any) { fmt.Fprintf(p.Out, format, args...) }

// speedup divides the durations of the alerting rules, so that alerts fire after seconds instead of minutes.
const speedup = 12

// faster has the replacements in prometheus/. Error budget alerts never fire: Prometheus has known the platform for a short time
// only, so every fault spends the whole budget.
var faster = map[string][]string{
	// A scrape of a node reads many thousands of MBeans. Every 2 s, four nodes keep two processors busy and all scrapes time out.
	"prometheus.yml": {
		"scrape_interval: 15s", "scrape_interval: 2s", "evaluation_interval: 15s", "evaluation_interval: 1s",
		"    scrape_timeout: 10s", "    scrape_interval: 4s\n    scrape_timeout: 4s",
	},
	"rules/recording.yml":  {"interval: 1m", "interval: 5s"},
	"rules/slo-alerts.yml": {"for: 2m", "for: 2h", "for: 15m", "for: 2h"},
	"rules/cause-alerts.yml": {
		"for: 1m\n", "for: 5s\n", "for: 2m\n", "for: 10s\n", "for: 5m\n", "for: 25s\n", "for: 10m\n", "for: 50s\n", "for: 15m\n", "for: 75s\n",
		"[1m", "[5s", "[2m", "[10s", "[3m", "[15s", "[5m", "[25s", "[10m", "[50s", "[15m", "[75s", "[30m", "[150s", "[1h", "[300s", "[6h", "[1800s",
		":1m]", ":5s]", "offset 10m", "offset 50s", "offset 6h", "offset 1800s", ") > 60\n", ") > 5\n", ") > 120\n", ") > 10\n", ") > 300\n", ") > 25\n",
	},
}

// fasterAlertmanager has the replacements in prometheus/alertmanager. They keep the order of the group waits: critical alerts are
// sent before others.
var fasterAlertmanager = map[string][]string{
	"alertmanager.yml": {
		"group_wait: 30s", "group_wait: 2s", "group_wait: 10s", "group_wait: 1s",
		"group_interval: 1m", "group_interval: 1s", "group_interval: 5m", "group_interval: 2s",
	},
}
