package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/queries"
)

type queriesCmd struct {
	DCs        string        `name:"dcs" default:"dc1=1" placeholder:"NAME=NODES,…" help:"Data centres of the cluster that is made for it, with a replica on each node."`
	Keyspace   string        `default:"fleet_queries" help:"Keyspace that is filled."`
	Vehicles   int           `default:"10000" help:"Vehicles of the fleet."`
	Every      time.Duration `default:"1h" help:"Time between two fixes of most of them."`
	Dense      int           `default:"10" help:"Vehicles that send often."`
	DenseEvery time.Duration `default:"10s" help:"Time between two fixes of those."`
	Days       int           `default:"30" help:"Days that are filled, up to now."`
	For        time.Duration `default:"1h" help:"How long to fill at the most; the same command goes on."`
	Fill       bool          `default:"true" negatable:"" help:"Fill; without it, what is there is measured."`
	FillOnly   bool          `help:"Don't measure."`
	Keep       bool          `help:"Leave the cluster running."`
	At         time.Time     `placeholder:"TIME" help:"Ask as if it were this time: for what was filled some days ago (default now)."`
	Repeat     int           `default:"40" help:"How often each statement is run for its times."`
	Only       string        `placeholder:"TEXT" help:"Run only the calls and panels with this in their names."`
	Out        string        `placeholder:"DIR" help:"Where queries.md and queries.json are written (default .dev/queries)."`
	Write      bool          `help:"Write the tables into docs/queries.md as well."`
}

// Run fills a keyspace, runs every statement on it and writes what each cost.
func (cmd queriesCmd) Run(ctx context.Context, s *settings) error {
	root, err := cluster.RepositoryRoot()
	if err != nil {
		return err
	}
	dir := filepath.Join(root, ".dev", "queries")
	if s.Dir == "" {
		s.Dir = filepath.Join(dir, "cluster")
	}
	if cmd.Out == "" {
		cmd.Out = dir
	}
	dcs, err := cluster.ParseDCs(cmd.DCs)
	if err != nil {
		return err
	}
	c, err := s.open(dcs, os.Stderr)
	if err != nil {
		return err
	}
	return whileUp(ctx, c, cmd.Keep, func(nodes []cluster.Node) error {
		return cmd.onNodes(ctx, c, root, dir, dcs[0].Name, contactPoints(nodes))
	})
}

// onNodes fills the keyspace and measures.
func (cmd queriesCmd) onNodes(ctx context.Context, c *cluster.Cluster, root, dir, localDC string, hosts []string) error {
	replication, err := cassandra.ParseReplication(cmd.DCs)
	if err != nil {
		return err
	}
	logger := logrus.New()
	logger.SetLevel(logrus.WarnLevel)
	cfg := cassandra.Config{Hosts: hosts, Keyspace: cmd.Keyspace, LocalDC: localDC, Timeout: 20 * time.Second}
	if err := cassandra.ApplySchema(ctx, cfg, replication, logger); err != nil {
		return err
	}
	store, err := cassandra.Open(ctx, cfg, logger, nil)
	if err != nil {
		return err
	}
	defer store.Close()
	if !cmd.Fill {
		return cmd.measure(ctx, c, store, filepath.Join(root, "docs", "queries.md"))
	}
	fill := queries.Fill{Store: store, Fleet: cmd.fleet(), State: filepath.Join(dir, cmd.Keyspace+".filled"), Out: os.Stderr}
	if done, err := fill.Run(ctx, time.Now().Add(cmd.For)); err != nil || !done || cmd.FillOnly {
		return err
	}
	return cmd.measure(ctx, c, store, filepath.Join(root, "docs", "queries.md"))
}

func (cmd queriesCmd) measure(ctx context.Context, c *cluster.Cluster, store *cassandra.Store, document string) error {
	if cmd.At.IsZero() {
		cmd.At = time.Now()
	}
	m := queries.Measure{
		Store: store, Now: cmd.At.UTC(), Fleet: cmd.fleet(), Repeat: cmd.Repeat, Only: cmd.Only, Out: os.Stderr,
		TableJSON: func(ctx context.Context) (json.RawMessage, error) {
			return c.Nodetool(ctx, 1, "tablestats", "-F", "json", cmd.Keyspace)
		},
		Prepared: func(ctx context.Context) (int, error) {
			prepared, err := store.Select(ctx, "SELECT prepared_id FROM system.prepared_statements", 1_000_000)
			return len(prepared.Rows), err
		},
		Settle: func(ctx context.Context) error { return settle(ctx, c) },
	}
	report, err := m.Run(ctx)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile(filepath.Join(cmd.Out, "queries.json"), append(text, '\n'), 0o644),
		os.WriteFile(filepath.Join(cmd.Out, "queries.md"), []byte(report.Markdown()), 0o644)); err != nil {
		return err
	}
	if cmd.Write {
		return report.Into(document)
	}
	return nil
}

// settle flushes what is in memory, so that reads go to files, and waits until the nodes have no compaction to do.
func settle(ctx context.Context, c *cluster.Cluster) error {
	nodes, err := c.Nodes()
	if err != nil {
		return err
	}
	for _, n := range nodes {
		for _, command := range []string{"flush", "invalidatekeycache"} {
			if _, err := c.Nodetool(ctx, n.N, command); err != nil {
				return err
			}
		}
		for until := time.Now().Add(settleWithin); ; {
			out, err := c.Nodetool(ctx, n.N, "compactionstats")
			if err != nil {
				return err
			}
			if idle.Match(out) || time.Now().After(until) {
				break
			}
			select {
			case <-time.After(2 * time.Second):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// settleWithin is how long compactions are waited for.
const settleWithin = 30 * time.Second

var idle = regexp.MustCompile(`(?m)^pending tasks:?\s+0\s*$`)

func (cmd queriesCmd) fleet() queries.Fleet {
	return queries.Fleet{Vehicles: cmd.Vehicles, Every: cmd.Every, Dense: cmd.Dense, DenseEvery: cmd.DenseEvery, Days: cmd.Days}
}
