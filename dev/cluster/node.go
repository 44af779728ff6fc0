package cluster

import (
	"context"
	"embed"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/cassandra/metrics"
	"github.com/fleettracing/fleet-tracing/dev/java"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

// Node is a snapshot of a node.
type Node struct {
	N           int // 1, 2, … in the order of the data centers
	DC          string
	Name        string // as in every installation: the first one of dc1 is cassandra-dc1-node1
	Address     netip.Addr
	Network     string // network namespace; empty: the one of this process
	CQLPort     uint16
	StoragePort uint16
	JMXPort     uint16 // on 127.0.0.1
	MetricsPort uint16
	Dir         string
	LogFile     string
	State       process.State
	PID         int // 0 unless running or paused
}

func (n Node) String() string { return fmt.Sprintf("node %d (%s, %s)", n.N, n.Address, n.DC) }

// CQL returns the address for clients.
func (n Node) CQL() netip.AddrPort { return netip.AddrPortFrom(n.Address, n.CQLPort) }

// ContactPoints returns the addresses for clients, host:port.
func ContactPoints(nodes []Node) (hosts []string) {
	for _, n := range nodes {
		hosts = append(hosts, n.CQL().String())
	}
	return hosts
}

// Layout returns the number of nodes in each data center.
func Layout(nodes []Node) cassandra.Replication {
	layout := cassandra.Replication{}
	for _, n := range nodes {
		layout[n.DC]++
	}
	return layout
}

// Metrics returns the address of the metrics (HTTP, path /metrics).
func (n Node) Metrics() netip.AddrPort { return netip.AddrPortFrom(n.Address, n.MetricsPort) }

// Storage returns the address for the other nodes.
func (n Node) Storage() netip.AddrPort { return netip.AddrPortFrom(n.Address, n.StoragePort) }

// conf returns the path of a configuration file.
func (n Node) conf(name string) string { return filepath.Join(n.Dir, "conf", name) }

func (n Node) classPath(t toolchain) string { return n.conf("") + ":" + filepath.Join(t.Jars, "*") }

// observe returns n with its current state and pid.
func (n Node) observe() (Node, error) {
	var err error
	if n.State, n.PID, err = n.server(nil).State(); n.State == process.Dead {
		n.PID = 0
	}
	return n, err
}

// server describes the process of the node.
func (n Node) server(printf func(string, ...any)) process.Server {
	s := process.Server{
		Name: n.String(), Dir: n.Dir, LogFile: n.LogFile, Address: n.CQL().String(), Printf: printf,
		Ready: func(ctx context.Context) bool { return answersCQL(ctx, n.CQL()) },
	}
	if n.Network != "" {
		return s // no other program is in that network
	}
	for _, p := range []struct{ address, setting string }{
		{n.CQL().String(), "--cql-port (DEV_CQL_PORT)"},
		{n.Storage().String(), "--storage-port (DEV_STORAGE_PORT)"},
		{n.Metrics().String(), "--metrics-port (DEV_METRICS_PORT)"},
		{fmt.Sprintf("127.0.0.1:%d", n.JMXPort), "--jmx-port (DEV_JMX_PORT)"},
	} {
		s.Ports = append(s.Ports, process.Port{Address: p.address, Of: fmt.Sprintf("node %d", n.N), Setting: p.setting})
	}
	return s
}

// inNetwork returns the command line that runs a program in the network of the node.
func (n Node) inNetwork(program string, args ...string) (string, []string) {
	if n.Network == "" {
		return program, args
	}
	return "nsenter", append([]string{"--net=/run/netns/" + n.Network, program}, args...)
}

//go:embed conf
var confFiles embed.FS

var confTemplates = template.Must(template.ParseFS(confFiles, "conf/*"))

// writeConf creates the directories and writes the configuration from the templates.
func (n Node) writeConf(cfg Config, t toolchain) error {
	tmp := filepath.Join(n.Dir, "tmp")
	if err := os.RemoveAll(tmp); err != nil { // a killed node leaves extracted libraries
		return fmt.Errorf("clear %s: %w", n, err)
	}
	for _, dir := range []string{n.conf(""), tmp} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("configure %s: %w", n, err)
		}
	}
	var tokens, seeds []string
	for _, t := range cfg.tokens(n.N) {
		tokens = append(tokens, strconv.FormatInt(t, 10))
	}
	for _, other := range cfg.nodes() {
		seeds = append(seeds, other.Storage().String())
	}
	data := struct {
		Node
		toolchain
		Tokens, Seeds, Conf            string
		TokenCount, HeapMB, MemtableMB int
	}{n, t, strings.Join(tokens, ","), strings.Join(seeds, ","), n.conf(""), len(tokens), cfg.HeapMB, max(1, cfg.HeapMB/6)}

	files := map[string]string{"jmx.yml": metrics.Rules}
	for _, t := range confTemplates.Templates() {
		var text strings.Builder
		if err := t.Execute(&text, data); err != nil {
			return fmt.Errorf("configure %s: %w", n, err)
		}
		files[strings.TrimSuffix(t.Name(), ".tmpl")] = text.String()
	}
	for name, text := range files {
		if err := os.WriteFile(n.conf(name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("configure %s: %w", n, err)
		}
	}
	return nil
}

// answersCQL reports whether a node responds to OPTIONS, the CQL request that needs no session. Frames are as in section 2 of
// native_protocol_v4.spec: version, flags, stream (2), opcode, length (4).
func answersCQL(ctx context.Context, at netip.AddrPort) bool {
	const opOptions, opSupported = 0x05, 0x06
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", at.String())
	if err != nil {
		return false
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := conn.Write([]byte{0x04, 0, 0, 0, opOptions, 0, 0, 0, 0}); err != nil {
		return false
	}
	var head [9]byte
	_, err = io.ReadFull(conn, head[:])
	return err == nil && head[0] == 0x84 && head[4] == opSupported
}

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
