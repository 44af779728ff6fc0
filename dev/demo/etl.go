package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/monitoring"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

func (d *Demo) log() string { return d.file("fleet-etl.log") }

// cassandraSettings returns the settings of fleet-etl for the cluster. The environment of the caller overrides them.
func cassandraSettings(nodes []cluster.Node) []string {
	perDC := map[string]int{}
	var dcs []string
	for _, n := range nodes {
		if perDC[n.DC] == 0 {
			dcs = append(dcs, n.DC)
		}
		perDC[n.DC]++
	}
	var replication []string
	for _, dc := range dcs {
		replication = append(replication, fmt.Sprintf("%s=%d", dc, min(2, perDC[dc])))
	}
	return append([]string{
		"CASSANDRA_HOSTS=" + strings.Join(contactPoints(nodes), ","), "CASSANDRA_DC=" + dcs[0], "CASSANDRA_REPLICATION=" + strings.Join(replication, ","),
	}, os.Environ()...)
}

func (d *Demo) applySchema(ctx context.Context, nodes []cluster.Node) error {
	apply := d.command(ctx, d.program(), "schema", "apply")
	apply.Env = cassandraSettings(nodes)
	if err := apply.Run(); err != nil {
		return fmt.Errorf("create the schema: %w", interrupted(ctx, err))
	}
	return nil
}

// environment returns all settings of fleet-etl.
func (d *Demo) environment(nodes []cluster.Node, alertmanager *monitoring.Process) []string {
	own := []string{
		"ETL_STATE_DIR=" + d.file("state"),
		"ETL_SOURCES=generator,api", "ETL_API_ADDRESS=" + apiAddress, "ETL_API_OPEN_FLEET=" + demoFleet,
		"ETL_GRAFANA_URL=" + grafanaURL,
	}
	if alertmanager != nil {
		own = append(own, "ETL_ALERTMANAGER_URLS=http://"+alertmanager.Address)
	}
	for variable, file := range map[string]string{"ETL_GEOFENCES_FILES": "geofences.geojson", "ETL_ALERT_RULES_FILE": "alert-rules.yml"} {
		path := filepath.Join(d.root, "data", file)
		if _, err := os.Stat(path); err == nil {
			own = append(own, variable+"="+path)
		}
	}
	return append(own, cassandraSettings(nodes)...)
}

// child is a program that ends together with the demo.
type child struct {
	name string
	*process.Child
}

// startETL starts fleet-etl and returns when it is ready.
func (d *Demo) startETL(ctx context.Context, nodes []cluster.Node, alertmanager *monitoring.Process) (*child, error) {
	log, err := os.Create(d.log())
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()      // the child has its own
	cmd := exec.Command(d.program(), "run") //nolint:noctx // ended by stop
	cmd.Env, cmd.Stdout, cmd.Stderr = d.environment(nodes, alertmanager), log, log
	running, err := process.StartChild(cmd)
	if err != nil {
		return nil, fmt.Errorf("start fleet-etl: %w", err)
	}
	c := &child{"fleet-etl", running}
	if err := c.waitReady(ctx); err != nil {
		c.stop(d.out)
		return nil, err
	}
	return c, nil
}

// stop ends the program, which stores its buffers first.
func (c *child) stop(out io.Writer) {
	fmt.Fprintf(out, "stopping %s\n", c.name)
	_ = c.Stop(40 * time.Second) // the log has the error
}

// ended returns an error with the exit status, once Done is closed.
func (c *child) ended() error {
	status := "exit status 0"
	if c.Err != nil {
		status = c.Err.Error()
	}
	return fmt.Errorf("%s ended: %s; its log: .dev/demo/fleet-etl.log", c.name, status)
}

func (c *child) waitReady(ctx context.Context) error {
	for range 300 {
		if get(ctx, "/-/ready", func(io.Reader) error { return nil }) == nil {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-c.Done:
			return c.ended()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.New("fleet-etl is not ready after 30 s; its log: .dev/demo/fleet-etl.log")
}

// get requests a path of the metrics server of fleet-etl.
func get(ctx context.Context, path string, read func(io.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+metricsAddress+path, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, response.Status)
	}
	return read(response.Body)
}
