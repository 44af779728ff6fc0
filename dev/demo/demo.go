// Package demo runs the whole platform as processes of this machine: a Cassandra cluster, fleet-etl with made-up vehicles,
// and Prometheus, Alertmanager and Grafana as far as this machine has them.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/monitoring"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

// Where the parts are found, as section 6 of the design says.
const (
	metricsAddress   = "127.0.0.1:9464"
	apiAddress       = "127.0.0.1:8080"
	prometheusPort   = 9090
	alertmanagerPort = 9093
	grafanaPort      = 3000

	grafanaURL = "http://localhost:3000"
	demoFleet  = "fleet-001"
)

// Demo is the demo of a repository, whether it runs or not. Whoever connects to its socket asks it to end, and sees it end
// when the connection closes.
type Demo struct {
	root    string // of the repository
	dir     string // .dev/demo in it
	cluster *cluster.Cluster
	out     io.Writer
}

// New returns the demo of the repository at root, on a cluster. It starts nothing.
func New(root string, c *cluster.Cluster, out io.Writer) *Demo {
	return &Demo{root: root, dir: filepath.Join(root, ".dev", "demo"), cluster: c, out: out}
}

func (d *Demo) printf(format string, args ...any) { fmt.Fprintf(d.out, format, args...) }

// file is the path of a file or folder of the demo.
func (d *Demo) file(name string) string { return filepath.Join(d.dir, name) }

// Run starts everything, shows what flows until ctx ends or Down is called, and stops everything.
func (d *Demo) Run(ctx context.Context) (err error) {
	if err := os.MkdirAll(d.dir, 0o750); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended, err := d.listen(cancel)
	if err != nil {
		return err
	}
	defer ended()
	defer func() {
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			err = nil // it only says that the demo was ended
		}
	}()

	// What can be known before anything is started.
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

	// From here on each part is stopped in the opposite order.
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

// startCluster starts Cassandra and makes the schema.
func (d *Demo) startCluster(ctx context.Context) (nodes []cluster.Node, stop func(context.Context) error, err error) {
	if err := d.cluster.Up(ctx); err != nil {
		return nil, nil, err
	}
	stop = func(ctx context.Context) error {
		d.printf("stopping the cluster; its data stays for the next demo\n")
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

// stop stops a program, which may be none.
func (d *Demo) stop(ctx context.Context, p *monitoring.Process) error {
	if p == nil {
		return nil
	}
	d.printf("stopping %s\n", p.Name)
	return p.Stop(context.WithoutCancel(ctx))
}

// stopLeft ends what a demo that was killed itself has left running.
func (d *Demo) stopLeft(ctx context.Context) error {
	for _, dir := range []string{"grafana", "prometheus", "alertmanager"} {
		if err := monitoring.StopLeft(ctx, d.file(dir)); err != nil {
			return err
		}
	}
	return nil
}

func (t tools) portsFree() error {
	needed := []error{process.PortFree("fleet-etl's metrics", metricsAddress), process.PortFree("the IoT API", apiAddress)}
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
