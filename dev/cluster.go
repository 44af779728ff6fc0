package main

import (
	"context"
	"fmt"
	"io"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/dev/cluster"
)

type clusterCmd struct {
	Up     upCmd     `cmd:"" help:"Start the stopped nodes and wait until all serve. Downloads Cassandra the first time."`
	Status statusCmd `cmd:"" help:"Print nodetool status and the processes. The exit status is 1 unless all nodes are up."`
	Start  startCmd  `cmd:"" help:"Start a node and wait until it serves."`
	Stop   stopCmd   `cmd:"" help:"Stop a node gracefully (SIGTERM: it drains)."`
	Kill   killCmd   `cmd:"" help:"Kill a node (SIGKILL)."`
	Down   downCmd   `cmd:"" help:"Stop all nodes."`

	Nodetool nodetoolCmd `cmd:"" help:"Run nodetool on a node: nodetool NODE COMMAND…"`
}

// settings apply to all commands. The directory remembers them from the first start on.
type settings struct {
	cluster.Config
	DataCenters string `name:"dcs" placeholder:"NAME=NODES,…" help:"Data centers and their nodes (default dc1=2,dc2=2)."`
}

// open opens the cluster. It writes a line per event to out.
func (s settings) open(out io.Writer) (c *cluster.Cluster, err error) {
	if s.DataCenters != "" {
		if s.DCs, err = cassandra.ParseReplication(s.DataCenters); err != nil {
			return nil, fmt.Errorf("--dcs, the nodes of each data center: %w", err)
		}
	}
	s.Out = out
	return cluster.Open(s.Config)
}

type upCmd struct{}

func (upCmd) Run(ctx context.Context, c *cluster.Cluster) error { return c.Up(ctx) }

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
	fmt.Printf("%s", out)
	return err
}

type downCmd struct {
	Delete bool `help:"Also remove the data and the layout."`
}

func (cmd downCmd) Run(ctx context.Context, c *cluster.Cluster) error { return c.Down(ctx, cmd.Delete) }
