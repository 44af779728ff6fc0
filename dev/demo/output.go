package demo

import (
	_ "embed" // of the table
	"fmt"
	"os"
	"text/tabwriter"
	"text/template"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/monitoring"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

//go:embed table.txt.tmpl
var tableText string

var tableTemplate = template.Must(template.New("table").Parse(tableText))

// table prints the running programs with their addresses and a command to try, and the missing programs.
func (d *Demo) table(nodes []cluster.Node, t tools) error {
	var password []byte
	if t.grafana.missing == nil {
		var err error
		if password, err = os.ReadFile(monitoring.PasswordFile(d.file("grafana"))); err != nil {
			return err
		}
	}
	var missing []error
	for _, tool := range t.all() {
		if tool.missing != nil {
			missing = append(missing, tool.missing)
		}
	}
	w := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	if err := tableTemplate.Execute(w, map[string]any{
		"Password": string(password), "Prometheus": t.prometheus.missing == nil, "Alertmanager": t.alertmanager.missing == nil,
		"Hosts": cluster.ContactPoints(nodes), "Metrics": nodes[0].Metrics(), "Missing": missing,
	}); err != nil {
		return err
	}
	return w.Flush()
}

// problems has the programs that do not run, so that each change is printed once.
type problems map[string]bool

func (p problems) changes(nodes []cluster.Node, err error, servers []*process.Server) (changes []string) {
	note := func(program, problem string) {
		if problem != "" && !p[program] {
			changes = append(changes, problem)
		} else if problem == "" && p[program] {
			changes = append(changes, program+" is running again")
		}
		p[program] = problem != ""
	}
	if err != nil {
		changes = append(changes, "cluster: "+err.Error())
	}
	for _, n := range nodes {
		problem := ""
		if n.State != process.Running {
			problem = fmt.Sprintf("%s is %s: `go run ./dev cluster start %d` starts it; its log: %s", n, n.State, n.N, n.LogFile)
		}
		note(n.String(), problem)
	}
	for _, server := range servers {
		problem := ""
		if err := server.Running(); err != nil {
			problem = err.Error()
		}
		note(server.Name, problem)
	}
	return changes
}

// progress returns the counters of fleet-etl since its start. A counter is -1 if fleet-etl does not answer.
func progress() string {
	count := func(name string, labels ...string) float64 {
		return monitoring.Metric("http://"+metricsAddress+"/metrics", name, labels...)
	}
	return fmt.Sprintf("%.0f records stored, %.0f late, %.0f rejected", count("fleet_etl_records_written_total", `table="telemetry_by_device_day"`),
		count("fleet_etl_records_late_total"), count("fleet_etl_records_rejected_total"))
}
