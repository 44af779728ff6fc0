package demo

import (
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/monitoring"
)

// table prints the running programs with their addresses and a command to try, and the missing programs.
func (d *Demo) table(nodes []cluster.Node, t tools, alertmanager, prometheus, grafana *monitoring.Process) error {
	w := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	row := func(program, address, try string) { fmt.Fprintf(w, "%s\t%s\t%s\n", program, address, try) }
	fmt.Fprintln(w)
	row("PROGRAM", "ADDRESS", "TRY")
	if grafana != nil {
		password, err := os.ReadFile(monitoring.PasswordFile(d.file("grafana")))
		if err != nil {
			return err
		}
		row("Grafana, read-only", grafana.URL, grafana.URL+"/d/fleet-realtime")
		row("  as administrator", grafana.URL+"/login", "user admin, password "+string(password))
	}
	if prometheus != nil {
		row("Prometheus", prometheus.URL, prometheus.URL+"/alerts")
	}
	if alertmanager != nil {
		row("Alertmanager", alertmanager.URL, alertmanager.URL+"/#/alerts")
	}
	metrics := "http://" + metricsAddress
	row("fleet-etl, streaming", metrics+"/metrics", "curl -s "+metrics+"/metrics | grep ^fleet_etl_records")
	row("  readiness", metrics+"/-/ready", "go run ./dev cluster kill 2")
	row("HTTP API, without authentication", "http://"+apiAddress, fmt.Sprintf("curl -s http://%s/v1/fleets/%s/latest?limit=2", apiAddress, demoFleet))
	row(fmt.Sprintf("Cassandra, %d nodes", len(nodes)), strings.Join(contactPoints(nodes), " "), "go run ./dev cluster status fleet_iot")
	row("  metrics", fmt.Sprintf("http://%s/metrics …", nodes[0].Metrics()), fmt.Sprintf("curl -s http://%s/metrics | grep ^cassandra", nodes[0].Metrics()))
	row("Logs", ".dev/demo/fleet-etl.log, .dev/demo/*/log", "tail -f .dev/demo/fleet-etl.log")
	row("Load a file", "", "bin/fleet-etl load data/sample_telemetry.csv --end-at now")
	if err := w.Flush(); err != nil {
		return err
	}
	for _, err := range t.missing() {
		d.printf("\nnot running: %s\n", err)
	}
	d.printf("\nPress Ctrl-C here, or run make demo-down in another terminal, to stop the demo.\n")
	return nil
}
