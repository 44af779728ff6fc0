// Package demo runs the whole platform as local processes: a Cassandra cluster, fleet-etl with simulated vehicles and, if installed,
// Prometheus, Alertmanager and Grafana.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/monitoring"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

// Addresses and ports of the programs. Each has its standard port.
const (
	metricsAddress   = "127.0.0.1:9464"
	apiAddress       = "127.0.0.1:8080"
	prometheusPort   = 9090
	alertmanagerPort = 9093
	grafanaPort      = 3000

	grafanaURL = "http://localhost:3000"
	demoFleet  = "fleet-001"
)

// Demo is the demo of a repository, running or not. While it runs, it holds a lock that has its pid.
type Demo struct {
	root    string // of the repository
	dir     string // .dev/demo in it
	cluster *cluster.Cluster
	out     io.Writer
}

// New returns the demo of the repository at root with a cluster. It starts nothing.
func New(root string, c *cluster.Cluster, out io.Writer) *Demo {
	return &Demo{root: root, dir: filepath.Join(root, ".dev", "demo"), cluster: c, out: out}
}

func (d *Demo) printf(format string, args ...any) { fmt.Fprintf(d.out, format, args...) }

// file returns the path of a file or directory of the demo.
func (d *Demo) file(name string) string { return filepath.Join(d.dir, name) }

// Run starts everything, prints the progress until ctx ends, and stops everything. Down ends ctx with SIGTERM.
func (d *Demo) Run(ctx context.Context) (err error) {
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	defer func() {
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			err = nil // the end of the demo is not a failure
		}
	}()

	// Check everything that can fail before the first start.
	if err := d.stopLeft(ctx); err != nil {
		return err
	}
	tools := d.findTools(ctx)
	if err := tools.portsFree(); err != nil {
		return err
	}
	if err := d.build(ctx, &tools); err != nil {
		return err
	}

	// Everything is stopped in reverse order.
	nodes, stop, err := d.startCluster(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop(ctx)) }()
	alertmanager, err := d.startAlertmanager(ctx, tools)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop(ctx, alertmanager)) }()
	etl, err := d.startETL(ctx, nodes, alertmanager)
	if err != nil {
		return err
	}
	defer etl.stop(d.out)
	prometheus, err := d.startPrometheus(ctx, tools, nodes, alertmanager)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop(ctx, prometheus)) }()
	grafana, err := d.startGrafana(ctx, tools, nodes, prometheus)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop(ctx, grafana)) }()

	if err := d.table(nodes, tools, alertmanager, prometheus, grafana); err != nil {
		return err
	}
	return d.watch(ctx, nodes, etl, alertmanager, prometheus, grafana)
}

// lock locks the demo until unlock is called. It fails if another process runs the demo.
func (d *Demo) lock(ctx context.Context) (unlock func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	running := false
	unlock, err = process.Lock(ctx, d.dir, func(string) {
		running = true
		cancel()
	})
	if running {
		return nil, errors.New("the demo is already running: stop it with make demo-down")
	}
	return unlock, err
}

// Down stops the running demo and waits for its end. If no demo runs, it stops what is left of an earlier one.
func (d *Demo) Down(ctx context.Context) error {
	running := false
	unlock, err := process.Lock(ctx, d.dir, func(holder string) {
		if pid, err := strconv.Atoi(holder); err == nil {
			running = true
			_ = syscall.Kill(pid, syscall.SIGTERM) // if it has ended, its lock is free
		}
	})
	if err != nil {
		return fmt.Errorf("stop the demo: %w", err)
	}
	defer unlock()
	if running {
		d.printf("the demo has stopped\n")
		return nil
	}
	d.printf("the demo is not running\n")
	return errors.Join(d.stopLeft(ctx), d.cluster.Down(ctx, false))
}

// startCluster starts Cassandra and creates the schema.
func (d *Demo) startCluster(ctx context.Context) (nodes []cluster.Node, stop func(context.Context) error, err error) {
	if err := d.cluster.Up(ctx); err != nil {
		return nil, nil, err
	}
	stop = func(ctx context.Context) error {
		d.printf("stopping Cassandra; its data is kept for the next demo\n")
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		return d.cluster.Down(limited, false)
	}
	nodes, err = d.cluster.Nodes()
	if err == nil {
		err = d.applySchema(ctx, nodes)
	}
	if err != nil {
		return nil, nil, errors.Join(err, stop(ctx))
	}
	return nodes, stop, nil
}

// stop stops a program, which may be nil.
func (d *Demo) stop(ctx context.Context, p *monitoring.Process) error {
	if p == nil {
		return nil
	}
	d.printf("stopping %s\n", p.Name)
	return p.Stop(context.WithoutCancel(ctx))
}

// stopLeft stops the programs of a demo that was killed.
func (d *Demo) stopLeft(ctx context.Context) error {
	for _, dir := range []string{"grafana", "prometheus", "alertmanager"} {
		if err := monitoring.StopLeft(ctx, d.file(dir)); err != nil {
			return err
		}
	}
	return nil
}

func (t tools) portsFree() error {
	needed := []error{process.PortFree("the metrics of fleet-etl", metricsAddress), process.PortFree("the HTTP API", apiAddress)}
	for _, p := range []struct {
		name    string
		port    int
		missing error
	}{
		{"Prometheus", prometheusPort, t.noPrometheus}, {"Alertmanager", alertmanagerPort, t.noAlertmanager}, {"Grafana", grafanaPort, t.noGrafana},
	} {
		if p.missing == nil {
			needed = append(needed, process.PortFree(p.name, fmt.Sprintf("127.0.0.1:%d", p.port)))
		}
	}
	return errors.Join(needed...)
}
