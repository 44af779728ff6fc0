// Command dev runs what a developer needs around the programs of this repository as local processes, without Docker.
package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
)

type cli struct {
	Settings settings `embed:""`

	Cluster     clusterCmd     `cmd:"" help:"Run a real Cassandra cluster as local processes."`
	Demo        demoCmd        `cmd:"" help:"Run the whole platform: a cluster, a streaming fleet-etl, and Prometheus, Alertmanager and Grafana where there are. Ctrl-C ends it."`
	Down        demoDownCmd    `cmd:"" help:"End the demo that runs, or what one left behind."`
	WithCluster withClusterCmd `cmd:"" help:"Run a command while a cluster is up; a cluster that was not up before is stopped after it."`
	Kafka       kafkaCmd       `cmd:"" help:"Run a real Kafka broker as a local process."`
	WithKafka   withKafkaCmd   `cmd:"" help:"Run a command while a Kafka broker is up; one that was not up before is stopped after it."`
	Bench       benchCmds      `cmd:"" help:"Measure fleet-etl on clusters that are made for it."`
	Report      reportCmd      `cmd:"" help:"Render docs/performance.md, resilience.md and architecture.md into one PDF. Needs Chromium and npm."`
	Queries     queriesCmd     `cmd:"" help:"Fill a keyspace with 30 days of 10,000 vehicles, run every CQL statement on it, and write what each costs."`
	Chaos       chaosCmd       `cmd:"" help:"Break a running platform on purpose, one fault after the other, and hold it to what it promises."`
}

type clusterCmd struct {
	Up     upCmd     `cmd:"" help:"Start the nodes that do not run, and wait until all serve. Fetches Cassandra the first time."`
	Status statusCmd `cmd:"" help:"Print nodetool status and the processes. Exit status 1 unless all nodes are up."`
	Pids   pidsCmd   `cmd:"" help:"Print the number and the pid of every running node, one node a line."`
	Logs   logsCmd   `cmd:"" help:"Print the end of a node's log."`
	Start  startCmd  `cmd:"" help:"Start one node and wait until it serves."`
	Stop   stopCmd   `cmd:"" help:"Stop one node in order (SIGTERM: it drains)."`
	Kill   killCmd   `cmd:"" help:"Kill one node (SIGKILL), as a crash does."`
	Down   downCmd   `cmd:"" help:"Stop all nodes."`

	Nodetool nodetoolCmd `cmd:"" help:"Run Cassandra's nodetool on a node: nodetool NODE COMMAND…"`
}

// settings but the heap are remembered by up in the directory, so the other commands need none but the directory.
type settings struct {
	Dir          string     `env:"DEV_CLUSTER_DIR" placeholder:"DIR" help:"Where data, logs and state live (default .dev/cluster beside go.mod)."`
	Heap         int        `env:"DEV_HEAP" placeholder:"MB" help:"Java heap of each node that is started, in MB (default 768)."`
	CQLPort      int        `name:"cql-port" env:"DEV_CQL_PORT" placeholder:"PORT" help:"CQL port, the same on every address (default 9042)."`
	StoragePort  int        `env:"DEV_STORAGE_PORT" placeholder:"PORT" help:"Port between the nodes (default 7000)."`
	JMXPort      int        `name:"jmx-port" env:"DEV_JMX_PORT" placeholder:"PORT" help:"JMX port of node 1 on 127.0.0.1; node 2 has the next (default 7101)."`
	MetricsPort  int        `env:"DEV_METRICS_PORT" placeholder:"PORT" help:"Port of the nodes' metrics, the same on every address (default 7070)."`
	FirstAddress netip.Addr `env:"DEV_FIRST_ADDRESS" placeholder:"ADDRESS" help:"Address of node 1; node 2 has the next (default 127.0.0.1)."`
}

func (s settings) open(dcs []cluster.DC, out io.Writer, places ...cluster.Place) (*cluster.Cluster, error) {
	return cluster.Open(cluster.Config{
		Dir: s.Dir, DCs: dcs, HeapMB: s.Heap, CQLPort: s.CQLPort, StoragePort: s.StoragePort, JMXPort: s.JMXPort,
		MetricsPort: s.MetricsPort, FirstAddress: s.FirstAddress, Places: places, Out: out,
	})
}

type upCmd struct {
	DCs string `name:"dcs" placeholder:"NAME=NODES,…" help:"Data centres and their nodes (default dc1=2,dc2=2)."`
}

func (cmd upCmd) Run(ctx context.Context, s *settings) error {
	var dcs []cluster.DC
	if cmd.DCs != "" {
		var err error
		if dcs, err = cluster.ParseDCs(cmd.DCs); err != nil {
			return err
		}
	}
	c, err := s.open(dcs, os.Stdout)
	if err != nil {
		return err
	}
	return c.Up(ctx)
}

type statusCmd struct {
	Keyspace string `arg:"" optional:"" help:"Show ownership in this keyspace."`
}

func (cmd statusCmd) Run(ctx context.Context, s *settings) error {
	c, err := s.open(nil, os.Stdout)
	if err != nil {
		return err
	}
	down, err := c.Status(ctx, cmd.Keyspace)
	if err == nil && down > 0 {
		err = fmt.Errorf("nodes that are not up: %d", down)
	}
	return err
}

type pidsCmd struct{}

func (pidsCmd) Run(s *settings) error {
	c, err := s.open(nil, os.Stdout)
	if err != nil {
		return err
	}
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
	Follow bool `short:"f" help:"Go on with what is added."`
	Lines  int  `short:"n" default:"100" help:"How many lines to begin with."`
}

func (cmd logsCmd) Run(ctx context.Context, s *settings) error {
	c, err := s.open(nil, os.Stdout)
	if err != nil {
		return err
	}
	return c.Logs(ctx, os.Stdout, cmd.Node, cmd.Lines, cmd.Follow)
}

type nodeArg struct {
	Node int `arg:"" help:"Number of the node, from 1."`
}

type startCmd struct{ nodeArg }

func (cmd startCmd) Run(ctx context.Context, s *settings) error {
	c, err := s.open(nil, os.Stdout)
	if err != nil {
		return err
	}
	return c.Start(ctx, cmd.Node)
}

type stopCmd struct{ nodeArg }

func (cmd stopCmd) Run(ctx context.Context, s *settings) error {
	c, err := s.open(nil, os.Stdout)
	if err != nil {
		return err
	}
	return c.Stop(ctx, cmd.Node)
}

type killCmd struct{ nodeArg }

func (cmd killCmd) Run(ctx context.Context, s *settings) error {
	c, err := s.open(nil, os.Stdout)
	if err != nil {
		return err
	}
	return c.Kill(ctx, cmd.Node)
}

type nodetoolCmd struct {
	nodeArg
	Args []string `arg:"" passthrough:"" help:"What nodetool is to do."`
}

func (cmd nodetoolCmd) Run(ctx context.Context, s *settings) error {
	c, err := s.open(nil, os.Stdout)
	if err != nil {
		return err
	}
	out, err := c.Nodetool(ctx, cmd.Node, cmd.Args...)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(out)
	return err
}

type downCmd struct {
	Delete bool `help:"Remove the data and the layout, too."`
}

func (cmd downCmd) Run(ctx context.Context, s *settings) error {
	c, err := s.open(nil, os.Stdout)
	if err != nil {
		return err
	}
	return c.Down(ctx, cmd.Delete)
}

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var c cli
	k := kong.Parse(&c, kong.Name("dev"), kong.ShortUsageOnError(),
		kong.Description("Runs what a developer needs around Fleet Tracing as local processes, without Docker."),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(&c.Settings))
	if err := k.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "dev:", err)
		return 1
	}
	return 0
}
