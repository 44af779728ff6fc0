package cluster

import (
	"context"
	"path/filepath"

	"github.com/fleettracing/fleet-tracing/dev/java"
)

const (
	cassandraVersion = "5.0.9"
	exporterVersion  = "1.0.1"
)

var program = java.Program{
	Name: "Cassandra", Version: cassandraVersion,
	Dependencies: []java.Artifact{{Group: "org.apache.cassandra", Name: "cassandra-all", Version: cassandraVersion}},
	Runs:         func(major int) bool { return major == 17 || major == 11 },
	On:           "17 (or 11)",
}

// exporter is the Java agent that serves the metrics of a node. It contains shaded copies of libraries, and stays out of the class
// path.
var exporter = java.Program{
	Name: "JMX-exporter", Version: exporterVersion,
	Dependencies: []java.Artifact{{Group: "io.prometheus.jmx", Name: "jmx_prometheus_javaagent", Version: exporterVersion}},
}

// toolchain has the files that run a node.
type toolchain struct {
	Java     string
	Jars     string // directory of the Cassandra jars
	Exporter string // jar of the metrics agent
}

func (c *Cluster) toolchain(ctx context.Context) (toolchain, error) {
	path, err := program.Find(ctx)
	if err != nil {
		return toolchain{}, err
	}
	jars, err := program.Jars(ctx, c.printf)
	if err != nil {
		return toolchain{}, err
	}
	agent, err := exporter.Jars(ctx, c.printf)
	return toolchain{Java: path, Jars: jars, Exporter: filepath.Join(agent, exporter.Dependencies[0].Name+"-"+exporterVersion+".jar")}, err
}
