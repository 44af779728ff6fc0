package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/monitoring"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

// rules let nothing raise an alert but speed.
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

// platform is everything at work: the nodes, fleet-etl, Prometheus and Alertmanager, and people who listen.
type platform struct {
	Options
	nodes   []cluster.Node
	store   cassandra.Config
	program string
	api     string // address of the IoT API
	metrics string // … and of fleet-etl's metrics

	hooks        *inbox // nil: nobody is told
	alertmanager *monitoring.Process
	prometheus   *monitoring.Process

	mu  sync.Mutex
	etl *process.Child // nil while it is killed
	log *os.File

	stopping []func(context.Context) error
}

// start brings everything up; what was started is stopped where it fails.
func start(ctx context.Context, o Options) (p *platform, err error) {
	p = &platform{Options: o}
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
	if p.nodes, err = o.Cluster.Nodes(); err != nil {
		return p, err
	}
	if shape := shapeOf(p.nodes); shape != "dc1=2,dc2=2" {
		return p, fmt.Errorf("the cluster is %s: faults need dc1=2,dc2=2", shape)
	}
	for _, n := range p.nodes {
		if n.State != cluster.Running {
			return p, fmt.Errorf("%s is %s: start it first", n, n.State)
		}
	}
	p.store = cassandra.Config{Hosts: hosts(p.nodes), Keyspace: o.Keyspace, LocalDC: "dc1", ReadConsistency: "ALL", Timeout: 20 * time.Second}
	p.program = p.usual()
	if err := p.build(ctx, p.program); err != nil {
		return p, err
	}
	if err := os.WriteFile(filepath.Join(o.Dir, "alert-rules.yml"), []byte(rules), 0o600); err != nil {
		return p, err
	}
	if p.api, p.metrics, err = freeAddresses(); err != nil {
		return p, err
	}
	if !o.Short {
		if err := p.watch(ctx); err != nil {
			return p, err
		}
	}
	if out, err := p.run(ctx, "schema", "apply"); err != nil {
		return p, fmt.Errorf("make the schema: %w:\n%s", err, process.Indent(process.LastLines(out, 10)))
	}
	if p.log, err = os.Create(filepath.Join(o.Dir, "fleet-etl.log")); err != nil {
		return p, err
	}
	p.stopping = append(p.stopping, p.stopETL)
	if err := p.startETL(); err != nil {
		return p, err
	}
	if err := within(ctx, time.Minute, "fleet-etl is ready", func() bool { return p.metric("fleet_etl_store_up") == 1 }); err != nil {
		return p, err
	}
	if p.hooks != nil {
		err = within(ctx, time.Minute, "the watchdog is heard", func() bool { _, heard := p.hooks.first(0, "firing", "FleetWatchdog"); return heard })
	}
	return p, err
}

func shapeOf(nodes []cluster.Node) string {
	var dcs []cluster.DC
	for _, n := range nodes {
		if len(dcs) == 0 || dcs[len(dcs)-1].Name != n.DC {
			dcs = append(dcs, cluster.DC{Name: n.DC})
		}
		dcs[len(dcs)-1].Nodes++
	}
	return cluster.FormatDCs(dcs)
}

func hosts(nodes []cluster.Node) (all []string) {
	for _, n := range nodes {
		all = append(all, n.CQL().String())
	}
	return all
}

// watch starts who tells people of what is wrong.
func (p *platform) watch(ctx context.Context) (err error) {
	if p.hooks, err = openInbox(); err != nil {
		return err
	}
	p.stopping = append(p.stopping, func(context.Context) error { p.hooks.close(); return nil })
	if err := p.startAlertmanager(ctx, 0); err != nil {
		return err
	}
	p.stopping = append(p.stopping, func(ctx context.Context) error { return p.alertmanager.Stop(ctx) })
	if err := p.startPrometheus(ctx, 0); err != nil {
		return err
	}
	p.stopping = append(p.stopping, func(ctx context.Context) error { return p.prometheus.Stop(ctx) })
	return nil
}

func portOf(address string) (port int) {
	_, text, _ := net.SplitHostPort(address)
	_, _ = fmt.Sscan(text, &port)
	return port
}

// startAlertmanager starts it on a port; 0 is any.
func (p *platform) startAlertmanager(ctx context.Context, port int) error {
	started, err := monitoring.StartAlertmanager(ctx, monitoring.AlertmanagerOptions{
		Options: monitoring.Options{Root: p.Root, Dir: filepath.Join(p.Dir, "alertmanager"), Port: port, Edit: hastenAlertmanager}, Webhook: p.hooks.url,
	})
	if err == nil {
		p.alertmanager = started // else the one before stays, which can be stopped again
	}
	return err
}

func (p *platform) startPrometheus(ctx context.Context, port int) error {
	var scraped []monitoring.Node
	perDC := map[string]int{}
	for _, n := range p.nodes {
		perDC[n.DC]++
		scraped = append(scraped, monitoring.Node{Address: n.Metrics().String(), DC: n.DC, Name: fmt.Sprintf("cassandra-%s-node%d", n.DC, perDC[n.DC])})
	}
	started, err := monitoring.StartPrometheus(ctx, monitoring.PrometheusOptions{
		Options:  monitoring.Options{Root: p.Root, Dir: filepath.Join(p.Dir, "prometheus"), Port: port, Edit: hasten},
		FleetETL: []string{p.metrics}, Cassandra: scraped, Alertmanager: p.alertmanager.Address, Flags: []string{"--rules.alert.resend-delay=1s"},
	})
	if err == nil {
		p.prometheus = started
	}
	return err
}

// build makes fleet-etl, with flags of go build.
func (p *platform) build(ctx context.Context, to string, flags ...string) error {
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"build", "-o", to}, flags...), "./etl")...)
	cmd.Dir = p.Root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build fleet-etl: %w:\n%s", err, process.Indent(string(out)))
	}
	return nil
}

func (p *platform) environment() []string {
	env := append(os.Environ(),
		"CASSANDRA_HOSTS="+strings.Join(hosts(p.nodes), ","), "CASSANDRA_KEYSPACE="+p.Keyspace, "CASSANDRA_DC=dc1", "CASSANDRA_REPLICATION=dc1=2,dc2=2",
		"ETL_STATE_DIR="+filepath.Join(p.Dir, "state"), "ETL_METRICS_ADDRESS=", "ETL_ALERT_RULES_FILE="+filepath.Join(p.Dir, "alert-rules.yml"),
		"ETL_HTTP_ADDRESS="+p.api, "ETL_HTTP_OPEN_FLEET=nobody", "ETL_HTTP_DEVICE_RATE=0", "ETL_HTTP_TOKEN_RATE=0",
		"ETL_SOURCES=httpapi", "ETL_PROCESSOR_FLUSH_INTERVAL=1s", "ETL_ALERT_NOTIFY_MAX_AGE=1h", "ETL_DRAIN_TIMEOUT=60s", clockVariable+"="+p.clockFile(),
		// Alerts' rules run so many times as fast as usual, and so does the canary.
		fmt.Sprintf("ETL_CANARY_INTERVAL=%s", 10*time.Second/pace),
	)
	if p.alertmanager != nil {
		env = append(env, "ETL_ALERTMANAGER_URLS=http://"+p.alertmanager.Address)
	}
	return env
}

// run gives what a command of fleet-etl printed.
func (p *platform) run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, p.program, args...)
	cmd.Env, cmd.Dir = p.environment(), p.Dir
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		return append(out.Bytes(), complaints.Bytes()...), err
	}
	return out.Bytes(), nil
}

func (p *platform) startETL() error {
	cmd := exec.Command(p.program, "run") //nolint:noctx // it is told to stop, and waited for
	cmd.Env, cmd.Dir = append(p.environment(), "ETL_METRICS_ADDRESS="+p.metrics), p.Dir
	cmd.Stdout, cmd.Stderr = p.log, p.log
	child, err := process.StartChild(cmd)
	if err != nil {
		return fmt.Errorf("start fleet-etl: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.etl = child
	return nil
}

// mend brings everything up that a fault which was not withstood has left down.
func (p *platform) mend(ctx context.Context) error {
	if err := p.Cluster.Up(ctx); err != nil {
		return err
	}
	if p.Link != nil {
		p.Link.Restore()
	}
	p.killETL()
	p.program = p.usual()
	return p.startETL()
}

// usual is the fleet-etl that runs unless a fault needs another.
func (p *platform) usual() string { return filepath.Join(p.Dir, "fleet-etl") }

func (p *platform) child() *process.Child {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.etl
}

func (p *platform) killETL() {
	if c := p.child(); c != nil {
		c.Kill()
		p.mu.Lock()
		p.etl = nil
		p.mu.Unlock()
	}
}

// stopETL asks for an orderly end, which must be one.
func (p *platform) stopETL(context.Context) error {
	c := p.child()
	if c == nil {
		return nil
	}
	p.mu.Lock()
	p.etl = nil
	p.mu.Unlock()
	if err := c.Stop(90 * time.Second); err != nil {
		return fmt.Errorf("stop fleet-etl: %w; its log says why: %s", err, p.log.Name())
	}
	return nil
}

// stop ends everything in the opposite order.
func (p *platform) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Minute)
	defer cancel()
	var errs []error
	for _, stop := range slices.Backward(p.stopping) {
		errs = append(errs, stop(ctx))
	}
	p.stopping = nil
	return errors.Join(errs...)
}

func freeAddresses() (one, other string, err error) {
	var addresses [2]string
	for i := range addresses {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return "", "", fmt.Errorf("find a free port: %w", err)
		}
		defer l.Close()
		addresses[i] = l.Addr().String()
	}
	return addresses[0], addresses[1], nil
}

// within waits until something is reached, and says what was not.
func within(ctx context.Context, patience time.Duration, what string, reached func() bool) error {
	for end := time.Now().Add(patience); !reached(); {
		if time.Now().After(end) {
			return fmt.Errorf("not reached within %s: %s", patience, what)
		}
		if err := process.Sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

var scrapes = &http.Client{Timeout: 2 * time.Second}

// metric is the sum of the series of one of fleet-etl's metrics whose line has all of labels; -1 when it can't be read.
func (p *platform) metric(name string, labels ...string) float64 {
	return monitoring.Metric(scrapes, "http://"+p.metrics+"/metrics", name, labels...)
}

func quiet() logrus.FieldLogger {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	return logger
}

func (p *platform) printf(format string, args ...any) { fmt.Fprintf(p.Out, format, args...) }
