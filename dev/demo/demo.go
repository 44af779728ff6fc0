// Package demo runs the whole platform as local processes: a Cassandra cluster, fleet-etl with simulated vehicles and, if installed,
// Prometheus, Alertmanager and Grafana.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/monitoring"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

// Addresses of the programs. Each has its standard port.
const (
	metricsAddress = "127.0.0.1:9464"
	apiAddress     = "127.0.0.1:8080"
)

// Demo is the demo of a repository, running or not. While it runs, it holds a lock that has its pid.
type Demo struct {
	root    string // of the repository
	dir     string // .dev/demo in it
	cluster *cluster.Cluster
	out     io.Writer
	printf  func(format string, args ...any) // writes a line to out
}

// New returns the demo of the repository at root with a cluster. It starts nothing.
func New(root string, c *cluster.Cluster, out io.Writer) *Demo {
	return &Demo{root: root, dir: filepath.Join(root, ".dev", "demo"), cluster: c, out: out, printf: log.New(out, "", 0).Printf}
}

// file returns the path of a file or directory of the demo.
func (d *Demo) file(name string) string { return filepath.Join(d.dir, name) }

// tool is a monitoring program. The demo runs without a missing one.
type tool struct {
	name    string // also of its directory
	address string // host:port
	path    string
	missing error // names the remedy; nil if the program runs
}

type tools struct{ alertmanager, prometheus, grafana tool }

func (t tools) all() []tool { return []tool{t.alertmanager, t.prometheus, t.grafana} }

func (d *Demo) findTools(ctx context.Context) tools {
	t := tools{tool{name: "alertmanager", address: "127.0.0.1:9093"}, tool{name: "prometheus", address: "127.0.0.1:9090"}, tool{name: "grafana", address: "127.0.0.1:3000"}}
	t.alertmanager.path, t.alertmanager.missing = monitoring.FindAlertmanager()
	t.prometheus.path, t.prometheus.missing = monitoring.FindPrometheus()
	t.grafana.path, t.grafana.missing = monitoring.FindGrafana(ctx, filepath.Join(d.root, ".dev", "cache"), d.printf)
	return t
}

// Run starts everything, prints the progress until ctx ends, and stops everything. Down ends ctx with SIGTERM.
func (d *Demo) Run(ctx context.Context) (err error) {
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	var stops []func(context.Context) error
	defer func() {
		if ctx.Err() != nil {
			err = nil // the end of the demo is not a failure
		}
		for _, stop := range slices.Backward(stops) {
			err = errors.Join(err, stop(context.WithoutCancel(ctx)))
		}
	}()

	// Check everything that can fail before the first start.
	if err := d.stopLeft(ctx); err != nil {
		return err
	}
	t := d.findTools(ctx)
	ports := []process.Port{{Address: metricsAddress, Of: "the metrics of fleet-etl"}, {Address: apiAddress, Of: "the HTTP API"}}
	for _, tool := range t.all() {
		if tool.missing == nil {
			ports = append(ports, process.Port{Address: tool.address, Of: tool.name})
		}
	}
	if err := process.PortsFree(ports...); err != nil {
		return err
	}
	if err := d.build(ctx, &t); err != nil {
		return err
	}

	if err := d.cluster.Up(ctx); err != nil {
		return err
	}
	stops = append(stops, func(ctx context.Context) error { return d.cluster.Down(ctx, false) })
	nodes, err := d.cluster.Nodes()
	if err != nil {
		return err
	}
	var running []*process.Server
	for _, program := range []struct {
		missing error
		start   func(context.Context, tools, []cluster.Node) (*process.Server, error)
	}{
		{t.alertmanager.missing, d.startAlertmanager}, {nil, d.startETL}, {t.prometheus.missing, d.startPrometheus}, {t.grafana.missing, d.startGrafana},
	} {
		if program.missing != nil {
			continue
		}
		server, err := program.start(ctx, t, nodes)
		if err != nil {
			return err
		}
		running, stops = append(running, server), append(stops, server.Stop)
	}
	if err := d.table(nodes, t); err != nil {
		return err
	}
	return d.watch(ctx, running)
}

// lock locks the demo until unlock is called. It fails if another process runs the demo.
func (d *Demo) lock(ctx context.Context) (unlock func(), err error) {
	return process.Lock(ctx, d.dir, func(string) error { return errors.New("the demo is already running: stop it with make demo-down") })
}

// Down stops the running demo and waits for its end. If no demo runs, it stops what is left of an earlier one.
func (d *Demo) Down(ctx context.Context) error {
	running := false
	unlock, err := process.Lock(ctx, d.dir, func(holder string) error {
		if pid, err := strconv.Atoi(holder); err == nil {
			running = true
			_ = syscall.Kill(pid, syscall.SIGTERM) // if it has ended, its lock is free
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("stop the demo: %w", err)
	}
	defer unlock()
	if running {
		d.printf("the demo has stopped")
		return nil
	}
	d.printf("the demo is not running")
	return errors.Join(d.stopLeft(ctx), d.cluster.Down(ctx, false))
}

// stopLeft stops the programs of a demo that was killed.
func (d *Demo) stopLeft(ctx context.Context) (err error) {
	for _, name := range []string{"grafana", "prometheus", "fleet-etl", "alertmanager"} {
		err = errors.Join(err, process.Server{Name: name, Dir: d.file(name)}.Stop(ctx))
	}
	return err
}

func (d *Demo) program() string { return filepath.Join(d.root, "bin", "fleet-etl") }

// build builds fleet-etl, and the data source if Grafana is installed and the data source was never built.
func (d *Demo) build(ctx context.Context, t *tools) error {
	if err := d.command(ctx, "go", "build", "-o", d.program(), "./etl").Run(); err != nil {
		return fmt.Errorf("build fleet-etl: %w", err)
	}
	if t.grafana.missing != nil || monitoring.PluginBuilt(d.root) == nil {
		return nil
	}
	if _, err := exec.LookPath("npm"); err == nil {
		d.printf("building the data source, which takes one or two minutes")
		_ = d.command(ctx, "make", "plugin").Run() // prints its error, and PluginBuilt fails
	}
	if err := monitoring.PluginBuilt(d.root); err != nil {
		t.grafana.missing = fmt.Errorf("Grafana is not started: %w", err) //nolint:staticcheck // a proper name
	}
	return ctx.Err()
}

func (d *Demo) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = d.root, d.out, os.Stderr
	return cmd
}

// watch prints the progress and ended programs until ctx ends. The end of fleet-etl ends the demo, that of other programs does not.
func (d *Demo) watch(ctx context.Context, servers []*process.Server) error {
	shown := problems{}
	ticker := time.NewTicker(10 * time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		if err := d.etl().Running(); err != nil {
			return err
		}
		nodes, err := d.cluster.Nodes()
		for _, line := range append(shown.changes(nodes, err, servers), progress()) {
			d.printf("%s  %s", time.Now().Format(time.TimeOnly), line)
		}
	}
}
