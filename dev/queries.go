package main

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/cassandra/schema"
	"github.com/fleettracing/fleet-tracing/dev/bench"
	"github.com/fleettracing/fleet-tracing/dev/bench/queries"
	"github.com/fleettracing/fleet-tracing/dev/bench/table"
	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

type queriesCmd struct {
	Vehicles int    `default:"10000" help:"Vehicles of the fleet."`
	Days     int    `default:"30" help:"Days that are filled, up to now."`
	Fill     bool   `default:"true" negatable:"" help:"Fill the keyspace first."`
	Only     string `placeholder:"TEXT" help:"Measure only statements and calls with this in their names."`
	Write    bool   `help:"Write the results into docs/queries.md, too."`
}

const queriesKeyspace = "fleet_queries"

// Run fills a keyspace on a cluster of one node, and measures every statement.
func (cmd queriesCmd) Run(ctx context.Context, s *settings, root repository) error {
	s.Dir, s.DataCenters = root.path(".dev", "queries", "cluster"), "dc1=1"
	c, err := s.open(os.Stderr)
	if err != nil {
		return err
	}
	return whileUp(ctx, c, func() error {
		nodes, err := c.Nodes()
		if err != nil {
			return err
		}
		sections, err := cmd.measure(ctx, c, string(root), bench.Nodes{DCs: "dc1=1", LocalDC: "dc1", Hosts: cluster.ContactPoints(nodes)})
		if err != nil {
			return err
		}
		for i := range sections {
			err = errors.Join(err, sections[i].Text(os.Stdout))
		}
		if err == nil && cmd.Write {
			err = table.WriteInto(root.path(queries.Document), sections, "")
		}
		return err
	})
}

func (cmd queriesCmd) measure(ctx context.Context, c *cluster.Cluster, root string, nodes bench.Nodes) ([]table.Section, error) {
	statements, err := queries.Statements(root)
	if err != nil {
		return nil, err
	}
	logger := &logrus.Logger{Out: io.Discard}
	config := cassandra.Config{Hosts: nodes.Hosts, Keyspace: queriesKeyspace, LocalDC: nodes.LocalDC, Timeout: 20 * time.Second}
	if err := schema.Apply(ctx, config, cassandra.Replication{nodes.LocalDC: 1}, logger); err != nil {
		return nil, err
	}
	store, err := cassandra.Open(ctx, config, logger, nil)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	session, err := nodes.Connect(queriesKeyspace)
	if err != nil {
		return nil, err
	}
	defer session.Close()
	fill := &queries.Fill{
		Session: session, Statements: statements, Vehicles: cmd.Vehicles, Days: cmd.Days, Now: time.Now().UTC(), Out: os.Stderr,
	}
	if cmd.Fill {
		if err := fill.Run(ctx); err != nil {
			return nil, err
		}
	}
	// Reads go to files, and compactions have half a minute to end.
	if _, err := c.Nodetool(ctx, 1, "flush"); err != nil {
		return nil, err
	}
	if err := process.Sleep(ctx, 30*time.Second); err != nil {
		return nil, err
	}
	m := queries.Measure{Fill: fill, Store: store, Level: nodes.Consistency(), Repeat: 40, Only: cmd.Only}
	return m.Run(ctx)
}
