package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
)

type clusterCmd struct {
	Up     upCmd     `cmd:"" help:"Start the stopped nodes and wait until all serve. Downloads Cassandra the first time."`
	Status statusCmd `cmd:"" help:"Print nodetool status and the processes. The exit status is 1 unless all nodes are up."`
	Pids   pidsCmd   `cmd:"" help:"Print number and pid of every running node, one node per line."`
	Logs   logsCmd   `cmd:"" help:"Print the end of the log of a node."`
	Start  startCmd  `cmd:"" help:"Start a node and wait until it serves."`
	Stop   stopCmd   `cmd:"" help:"Stop a node gracefully (SIGTERM: it drains)."`
	Kill   killCmd   `cmd:"" help:"Kill a node (SIGKILL)."`
	Down   downCmd   `cmd:"" help:"Stop all nodes."`

	Nodetool nodetoolCmd `cmd:"" help:"Run nodetool on a node: nodetool NODE COMMAND…"`
}

// settings apply to all commands. The directory remembers all of them but the heap from the first start on.
type settings struct {
	Dir          string     `env:"DEV_CLUSTER_DIR" placeholder:"DIR" help:"Directory of data, logs and state (default .dev/cluster beside go.mod)."`
	Heap         int        `env:"DEV_HEAP" placeholder:"MB" help:"Java heap per node in MB (default 768)."`
	CQLPort      int        `name:"cql-port" env:"DEV_CQL_PORT" placeholder:"PORT" help:"CQL port, the same on every address (default 9042)."`
	StoragePort  int        `env:"DEV_STORAGE_PORT" placeholder:"PORT" help:"Port between the nodes (default 7000)."`
	JMXPort      int        `name:"jmx-port" env:"DEV_JMX_PORT" placeholder:"PORT" help:"JMX port of node 1 on 127.0.0.1; node 2 has the next one (default 7101)."`
	MetricsPort  int        `env:"DEV_METRICS_PORT" placeholder:"PORT" help:"Port of the metrics, the same on every address (default 7070)."`
	FirstAddress netip.Addr `env:"DEV_FIRST_ADDRESS" placeholder:"ADDRESS" help:"Address of node 1; node 2 has the next one (default 127.0.0.1)."`
}

func (s settings) open(dcs []cluster.DC, out io.Writer, places ...cluster.Place) (*cluster.Cluster, error) {
	return cluster.Open(cluster.Config{
		Dir: s.Dir, DCs: dcs, HeapMB: s.Heap, CQLPort: s.CQLPort, StoragePort: s.StoragePort, JMXPort: s.JMXPort,
		MetricsPort: s.MetricsPort, FirstAddress: s.FirstAddress, Places: places, Out: out,
	})
}

// dcsFlag parses data centers such as dc1=2,dc2=2. Empty means the default.
type dcsFlag []cluster.DC

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *dcsFlag) UnmarshalText(text []byte) (err error) {
	*d, err = cluster.ParseDCs(string(text))
	return err
}

type upCmd struct {
	DCs dcsFlag `name:"dcs" placeholder:"NAME=NODES,…" help:"Data centers and their nodes (default dc1=2,dc2=2)."`
}

func (cmd upCmd) Run(ctx context.Context, s *settings) error {
	c, err := s.open(cmd.DCs, os.Stdout)
	if err != nil {
		return err
	}
	return c.Up(ctx)
}

type statusCmd struct {
	Keyspace string `arg:"" optional:"" help:"Show the ownership in this keyspace."`
}

func (cmd statusCmd) Run(ctx context.Context, c *cluster.Cluster) error {
	down, err := c.Status(ctx, cmd.Keyspace)
	if err == nil && down > 0 {
		err = fmt.Errorf("%d nodes are not up", down)
	}
	return err
}

type pidsCmd struct{}

func (pidsCmd) Run(c *cluster.Cluster) error {
	nodes, err := c.Nodes()
	for _, n := range nodes {
		if n.PID != 0 {
			fmt.Println(n.N, n.PID)
		}
	}
	return err
}

type logsCmd struct {
	Node   int  `arg:"" help:"Number of the node, from 1."`
	Follow bool `short:"f" help:"Print new lines until Ctrl-C."`
	Lines  int  `short:"n" default:"100" help:"Number of lines."`
}

func (cmd logsCmd) Run(ctx context.Context, c *cluster.Cluster) error {
	return c.Logs(ctx, os.Stdout, cmd.Node, cmd.Lines, cmd.Follow)
}

type nodeArg struct {
	Node int `arg:"" help:"Number of the node, from 1."`
}

type startCmd struct{ nodeArg }

func (cmd startCmd) Run(ctx context.Context, c *cluster.Cluster) error { return c.Start(ctx, cmd.Node) }

type stopCmd struct{ nodeArg }

func (cmd stopCmd) Run(ctx context.Context, c *cluster.Cluster) error { return c.Stop(ctx, cmd.Node) }

type killCmd struct{ nodeArg }

func (cmd killCmd) Run(ctx context.Context, c *cluster.Cluster) error { return c.Kill(ctx, cmd.Node) }

type nodetoolCmd struct {
	nodeArg
	Args []string `arg:"" passthrough:"" help:"The nodetool command."`
}

func (cmd nodetoolCmd) Run(ctx context.Context, c *cluster.Cluster) error {
	out, err := c.Nodetool(ctx, cmd.Node, cmd.Args...)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(out)
	return err
}

type downCmd struct {
	Delete bool `help:"Also remove the data and the layout."`
}

func (cmd downCmd) Run(ctx context.Context, c *cluster.Cluster) error { return c.Down(ctx, cmd.Delete) }
