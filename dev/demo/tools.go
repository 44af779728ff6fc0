package demo

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/monitoring"
)

// tools are the monitoring programs. The demo runs without the missing ones. Each error names the remedy.
type tools struct {
	prometheus, alertmanager, grafana       monitoring.Program
	noPrometheus, noAlertmanager, noGrafana error
}

func (d *Demo) findTools(ctx context.Context) (t tools) {
	t.prometheus, t.noPrometheus = monitoring.FindPrometheus()
	t.alertmanager, t.noAlertmanager = monitoring.FindAlertmanager()
	t.grafana, t.noGrafana = monitoring.FindGrafana(ctx, filepath.Join(d.root, ".dev", "cache"), d.printf)
	for _, err := range t.missing() {
		d.printf("%s\nthe demo continues without it\n\n", err)
	}
	return t
}

func (t tools) missing() (errs []error) {
	for _, err := range []error{t.noPrometheus, t.noAlertmanager, t.noGrafana} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

func (d *Demo) program() string { return filepath.Join(d.root, "bin", "fleet-etl") }

// build builds fleet-etl, and the data source if Grafana is installed and the data source was never built.
func (d *Demo) build(ctx context.Context, t *tools) error {
	if err := d.command(ctx, "go", "build", "-o", d.program(), "./etl").Run(); err != nil {
		return fmt.Errorf("build fleet-etl: %w", interrupted(ctx, err))
	}
	if t.noGrafana != nil || monitoring.PluginBuilt(d.root) == nil {
		return nil
	}
	if _, err := exec.LookPath("npm"); err == nil {
		d.printf("building the data source, which takes one or two minutes\n")
		if err := d.command(ctx, "make", "plugin").Run(); err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if err := monitoring.PluginBuilt(d.root); err != nil {
		t.noGrafana = fmt.Errorf("Grafana is not started: %w", err) //nolint:staticcheck // a proper name
		d.printf("%s\nthe demo continues without it\n\n", t.noGrafana)
	}
	return nil
}

func (d *Demo) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = d.root, d.out, os.Stderr
	return cmd
}

// interrupted returns the error of the context if it has ended, which also ended the program.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (d *Demo) options(name string, p monitoring.Program, port int) monitoring.Options {
	return monitoring.Options{Program: p, Root: d.root, Dir: d.file(name), Port: port, Out: d.out}
}

func (d *Demo) startAlertmanager(ctx context.Context, t tools) (*monitoring.Process, error) {
	if t.noAlertmanager != nil {
		return nil, nil
	}
	return monitoring.StartAlertmanager(ctx, monitoring.AlertmanagerOptions{Options: d.options("alertmanager", t.alertmanager, alertmanagerPort)})
}

func (d *Demo) startPrometheus(ctx context.Context, t tools, nodes []cluster.Node, alertmanager *monitoring.Process) (*monitoring.Process, error) {
	if t.noPrometheus != nil {
		return nil, nil
	}
	o := monitoring.PrometheusOptions{
		Options:  d.options("prometheus", t.prometheus, prometheusPort),
		FleetETL: []string{metricsAddress}, Cassandra: monitoring.Nodes(nodes), GrafanaURL: grafanaURL,
	}
	if alertmanager != nil {
		o.Alertmanager = alertmanager.Address
	}
	if t.noGrafana == nil {
		o.Grafana = fmt.Sprintf("127.0.0.1:%d", grafanaPort)
	}
	return monitoring.StartPrometheus(ctx, o)
}

func (d *Demo) startGrafana(ctx context.Context, t tools, nodes []cluster.Node, prometheus *monitoring.Process) (*monitoring.Process, error) {
	if t.noGrafana != nil {
		return nil, nil
	}
	o := monitoring.GrafanaOptions{
		Options:   d.options("grafana", t.grafana, grafanaPort),
		Cassandra: contactPoints(nodes), DC: nodes[0].DC,
		PrometheusURL: fmt.Sprintf("http://127.0.0.1:%d", prometheusPort), // if Prometheus is missing, the panels show an error
	}
	if prometheus != nil {
		o.PrometheusURL = "http://" + prometheus.Address
	}
	return monitoring.StartGrafana(ctx, o)
}

func contactPoints(nodes []cluster.Node) (hosts []string) {
	for _, n := range nodes {
		hosts = append(hosts, n.CQL().String())
	}
	return hosts
}
