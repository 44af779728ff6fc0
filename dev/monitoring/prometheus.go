package monitoring

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

// PrometheusOptions configure the targets and the Alertmanager of Prometheus. An empty address adds no target.
type PrometheusOptions struct {
	Options
	FleetETL     string // host:port of the metrics
	Cassandra    []Node
	Alertmanager string // host:port
	Grafana      string // host:port

	// Flags are further flags. Prometheus discovers its Alertmanager after five seconds and sends earlier alerts a minute later.
	// Tests set --rules.alert.resend-delay=1s.
	Flags []string
}

// Node is a Cassandra node.
type Node struct {
	Address string // host:port of its metrics
	DC      string
	Name    string // for example cassandra-dc1-node1
}

// Nodes gives the nodes of a cluster the names of every installation: the first one of dc1 is cassandra-dc1-node1.
func Nodes(nodes []cluster.Node) (all []Node) {
	perDC := map[string]int{}
	for _, n := range nodes {
		perDC[n.DC]++
		all = append(all, Node{Address: n.Metrics().String(), DC: n.DC, Name: fmt.Sprintf("cassandra-%s-node%d", n.DC, perDC[n.DC])})
	}
	return all
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
		cassandra += fmt.Sprintf("%s  labels: {dc: %q, node: %q}\n", one(n.Address), n.DC, n.Name)
	}
	return map[string]string{
		"fleet-etl.yml":    one(o.FleetETL),
		"cassandra.yml":    cassandra,
		"alertmanager.yml": one(o.Alertmanager),
		"grafana.yml":      one(o.Grafana),
		"prometheus.yml":   one(o.address()),
	}
}

// configure copies prometheus/ and writes the target files.
func (o PrometheusOptions) configure() error {
	if err := copyConfig(filepath.Join(o.Root, "prometheus"), o.config(), o.Edit); err != nil {
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

// copyConfig replaces the directory to by a copy of from. Edits, which may be nil, change the text of each file in turn.
func copyConfig(from, to string, edits ...func(file, text string) string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o700); err != nil { // it may contain secrets
		return err
	}
	source := os.DirFS(from)
	return fs.WalkDir(source, ".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return os.MkdirAll(filepath.Join(to, file), 0o755)
		}
		content, err := fs.ReadFile(source, file)
		if err != nil {
			return err
		}
		text := string(content)
		for _, edit := range edits {
			if edit != nil {
				text = edit(file, text)
			}
		}
		return os.WriteFile(filepath.Join(to, file), []byte(text), 0o644)
	})
}

// StartPrometheus starts Prometheus with prometheus/ of the repository and returns when it is ready.
func StartPrometheus(ctx context.Context, o PrometheusOptions) (*process.Server, error) {
	err := o.complete(ctx, FindPrometheus)
	if err == nil {
		err = o.configure()
	}
	if err != nil {
		return nil, fmt.Errorf("configure Prometheus: %w", err)
	}
	return o.start(ctx, "Prometheus", "/-/ready", append([]string{
		"--config.file=" + filepath.Join(o.config(), "prometheus.yml"),
		"--storage.tsdb.path=" + o.data(),
		"--storage.tsdb.retention.time=31d", // the error budgets cover 30 days
		"--web.listen-address=" + o.address(),
		"--web.external-url=" + o.url(),
		"--web.enable-lifecycle", // POST /-/reload
	}, o.Flags...), nil)
}
