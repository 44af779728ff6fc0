package demo

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/monitoring"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

func (d *Demo) options(t tool) monitoring.Options {
	return monitoring.Options{Program: t.path, Root: d.root, Dir: d.file(t.name), Address: t.address, Out: d.out}
}

func (d *Demo) startAlertmanager(ctx context.Context, t tools, _ []cluster.Node) (*process.Server, error) {
	return monitoring.StartAlertmanager(ctx, monitoring.AlertmanagerOptions{Options: d.options(t.alertmanager)})
}

func (d *Demo) startPrometheus(ctx context.Context, t tools, nodes []cluster.Node) (*process.Server, error) {
	o := monitoring.PrometheusOptions{Options: d.options(t.prometheus), FleetETL: metricsAddress, Cassandra: nodes}
	if t.alertmanager.missing == nil {
		o.Alertmanager = t.alertmanager.address
	}
	if t.grafana.missing == nil {
		o.Grafana = t.grafana.address
	}
	return monitoring.StartPrometheus(ctx, o)
}

func (d *Demo) startGrafana(ctx context.Context, t tools, nodes []cluster.Node) (*process.Server, error) {
	return monitoring.StartGrafana(ctx, d.grafanaOptions(t, nodes))
}

func (d *Demo) grafanaOptions(t tools, nodes []cluster.Node) monitoring.GrafanaOptions {
	return monitoring.GrafanaOptions{
		Options: d.options(t.grafana), Cassandra: cluster.ContactPoints(nodes), DC: nodes[0].DC,
		PrometheusURL: "http://" + t.prometheus.address, // if Prometheus is missing, the panels show an error
		Anonymous:     true,                             // the table says so
	}
}

func (d *Demo) etl() process.Server {
	return process.Server{
		Name: "fleet-etl", Dir: d.file("fleet-etl"), LogFile: d.file("fleet-etl.log"), Address: metricsAddress, Printf: d.printf,
		Ready: func(ctx context.Context) bool { return process.AnswersHTTP(ctx, "http://"+metricsAddress+"/-/ready") },
	}
}

// startETL creates the schema and starts fleet-etl.
func (d *Demo) startETL(ctx context.Context, t tools, nodes []cluster.Node) (*process.Server, error) {
	apply := d.command(ctx, d.program(), "schema", "apply")
	apply.Env = cassandraSettings(nodes)
	if err := apply.Run(); err != nil {
		return nil, fmt.Errorf("create the schema: %w", err)
	}
	cmd := exec.Command(d.program(), "run") //nolint:noctx // the server is stopped
	cmd.Dir, cmd.Env = d.root, d.environment(nodes, t.alertmanager)
	etl := d.etl()
	return &etl, etl.Start(ctx, cmd)
}

// environment returns all settings of fleet-etl.
func (d *Demo) environment(nodes []cluster.Node, alertmanager tool) []string {
	own := []string{
		"ETL_STATE_DIR=" + d.file("state"),
		"ETL_SOURCES=generator,api", "ETL_API_ADDRESS=" + apiAddress, "ETL_API_OPEN_FLEET=fleet-001",
		"ETL_GRAFANA_URL=http://localhost:3000",
		"ETL_GEOFENCES_FILES=" + filepath.Join(d.root, "data", "geofences.geojson"),
		"ETL_ALERT_RULES_FILE=" + filepath.Join(d.root, "data", "alert-rules.yml"),
	}
	if alertmanager.missing == nil {
		own = append(own, "ETL_ALERTMANAGER_URLS=http://"+alertmanager.address)
	}
	return append(own, cassandraSettings(nodes)...)
}

// cassandraSettings returns the settings of fleet-etl for the cluster. The environment of the caller overrides them.
func cassandraSettings(nodes []cluster.Node) []string {
	replication := cluster.Layout(nodes)
	for dc, nodes := range replication {
		replication[dc] = min(2, nodes)
	}
	return append([]string{
		"CASSANDRA_HOSTS=" + strings.Join(cluster.ContactPoints(nodes), ","), "CASSANDRA_DC=" + nodes[0].DC, "CASSANDRA_REPLICATION=" + replication.String(),
	}, os.Environ()...)
}
