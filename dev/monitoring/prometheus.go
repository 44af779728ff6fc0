package monitoring

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

// PrometheusOptions configure the targets and the Alertmanager of Prometheus. An empty address adds no target.
type PrometheusOptions struct {
	Options
	FleetETL     string // host:port of the metrics
	Cassandra    []cluster.Node
	Alertmanager string // host:port
	Grafana      string // host:port

	// Flags are further flags. Prometheus discovers its Alertmanager after five seconds and sends earlier alerts a minute later.
	// Tests set --rules.alert.resend-delay=1s.
	Flags []string
}

// targets returns the files of prometheus/targets. They are lists for file_sd_configs.
func (o PrometheusOptions) targets() map[string]string {
	one := func(address string) string {
		if address == "" {
			return "[]\n"
		}
		return fmt.Sprintf("- targets: [%q]\n", address)
	}
	cassandra := "[]\n"
	for i, n := range o.Cassandra {
		if i == 0 {
			cassandra = ""
		}
		cassandra += fmt.Sprintf("%s  labels: {dc: %q, node: %q}\n", one(n.Metrics().String()), n.DC, n.Name)
	}
	return map[string]string{
		"fleet-etl.yml":    one(o.FleetETL),
		"cassandra.yml":    cassandra,
		"alertmanager.yml": one(o.Alertmanager),
		"grafana.yml":      one(o.Grafana),
		"prometheus.yml":   one(o.Address),
	}
}

// configure copies prometheus/ and writes the target files.
func (o *PrometheusOptions) configure() error {
	if err := o.copyConfig("prometheus"); err != nil {
		return err
	}
	dir := filepath.Join(o.config(), "targets")
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755)); err != nil {
		return err
	}
	for name, text := range o.targets() {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// StartPrometheus starts Prometheus with prometheus/ of the repository and returns when it is ready.
func StartPrometheus(ctx context.Context, o PrometheusOptions) (*process.Server, error) {
	if err := o.prepare("Prometheus", FindPrometheus, o.configure); err != nil {
		return nil, err
	}
	return o.start(ctx, "Prometheus", "/-/ready", append([]string{
		"--config.file=" + filepath.Join(o.config(), "prometheus.yml"),
		"--storage.tsdb.path=" + o.data(),
		"--storage.tsdb.retention.time=31d", // the error budgets cover 30 days
		"--web.listen-address=" + o.Address,
		"--web.external-url=" + o.url(),
	}, o.Flags...), nil)
}
