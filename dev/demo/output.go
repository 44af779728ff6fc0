package demo

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/monitoring"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

// table prints the running programs with their addresses and a command to try, and the missing programs.
func (d *Demo) table(nodes []cluster.Node, t tools) error {
	w := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	row := func(program, address, try string) { fmt.Fprintf(w, "%s\t%s\t%s\n", program, address, try) }
	fmt.Fprintln(w)
	row("PROGRAM", "ADDRESS", "TRY")
	if t.noGrafana == nil {
		password, err := os.ReadFile(monitoring.PasswordFile(d.file("grafana")))
		if err != nil {
			return err
		}
		row("Grafana, read-only", grafanaURL, grafanaURL+"/d/fleet-realtime")
		row("  as administrator", grafanaURL+"/login", "user admin, password "+string(password))
	}
	if t.noPrometheus == nil {
		row("Prometheus", prometheusURL, prometheusURL+"/alerts")
	}
	if t.noAlertmanager == nil {
		row("Alertmanager", alertmanagerURL, alertmanagerURL+"/#/alerts")
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
	for _, err := range []error{t.noPrometheus, t.noAlertmanager, t.noGrafana} {
		if err != nil {
			d.printf("\nnot running: %s", err)
		}
	}
	d.printf("\nPress Ctrl-C here, or run make demo-down in another terminal, to stop the demo.")
	return nil
}

// states has the last printed state of each program, so that each change is printed once.
type states struct {
	nodes   map[int]process.State
	servers []*process.Server
}

func newStates(nodes []cluster.Node, servers []*process.Server) *states {
	s := &states{nodes: map[int]process.State{}, servers: servers}
	for _, n := range nodes {
		s.nodes[n.N] = process.Running
	}
	return s
}

func (s *states) changes(nodes []cluster.Node, err error) (changes []string) {
	if err != nil {
		changes = append(changes, "cluster: "+err.Error())
	}
	for _, n := range nodes {
		if n.State == s.nodes[n.N] {
			continue
		}
		s.nodes[n.N] = n.State
		if n.State == process.Running {
			changes = append(changes, fmt.Sprintf("%s is running again", n))
			continue
		}
		changes = append(changes, fmt.Sprintf("%s is %s: `go run ./dev cluster start %d` starts it; its log: %s", n, n.State, n.N, n.LogFile))
	}
	var left []*process.Server
	for _, server := range s.servers {
		if err := server.Running(); err != nil {
			changes = append(changes, err.Error())
			continue
		}
		left = append(left, server)
	}
	s.servers = left
	return changes
}

// progress returns the counters of fleet-etl since its start. A counter is -1 if fleet-etl does not answer.
func progress() string {
	count := func(name string, labels ...string) float64 {
		return monitoring.Metric(&http.Client{Timeout: 5 * time.Second}, "http://"+metricsAddress+"/metrics", name, labels...)
	}
	return fmt.Sprintf("%.0f records stored, %.0f late, %.0f rejected", count("fleet_etl_records_written_total", `table="telemetry_by_device_day"`),
		count("fleet_etl_records_late_total"), count("fleet_etl_records_rejected_total"))
}
