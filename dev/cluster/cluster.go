// Package cluster runs an Apache Cassandra cluster as local processes, without containers: for developers through `go run ./dev
// cluster`, and for tests through this API, which can also kill, stop and pause nodes.
//
// All state is in the directory of the cluster, so every process can manage nodes that another one started.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/dev/process"
)

// Cluster is a cluster in a directory; its nodes may be running or stopped. Its methods are safe for concurrent use, also by several
// processes: methods that change nodes wait for each other.
type Cluster struct {
	dir       string
	requested Config
	printf    func(format string, args ...any) // writes a line to requested.Out
}

// Open returns a cluster. It starts no node.
func Open(cfg Config) (*Cluster, error) {
	if cfg.Dir == "" {
		root, err := RepositoryRoot()
		if err != nil {
			return nil, fmt.Errorf("open cluster: %w, or set --dir (DEV_CLUSTER_DIR)", err)
		}
		cfg.Dir = filepath.Join(root, ".dev", "cluster")
	}
	var err error
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, fmt.Errorf("open cluster: %w", err)
	}
	if cfg.Out == nil {
		cfg.Out = io.Discard
	}
	c := &Cluster{dir: cfg.Dir, requested: cfg, printf: log.New(cfg.Out, "", 0).Printf}
	if _, _, err := c.config(); err != nil {
		return nil, fmt.Errorf("open cluster: %w", err)
	}
	return c, nil
}

// lock locks the cluster until unlock is called. Test packages run in parallel: the second one finds the nodes running.
func (c *Cluster) lock(ctx context.Context) (unlock func(), err error) {
	return process.Lock(ctx, c.dir, func(holder string) error {
		c.printf("waiting for process %s, which changes the cluster in %s", holder, c.dir)
		return nil
	})
}

// config returns the configuration in the directory, or the requested one if the directory has none. It reads the file each time,
// because another process may have created or deleted the cluster.
func (c *Cluster) config() (cfg Config, remembered bool, err error) {
	cfg, remembered, err = readConfig(c.dir)
	if err != nil {
		return Config{}, false, err
	}
	if !remembered {
		cfg = c.requested
	}
	cfg = cfg.over(defaults)
	cfg.Dir = c.dir
	return cfg, remembered, cfg.validate()
}

// Nodes returns the nodes in order, with their current states.
func (c *Cluster) Nodes() ([]Node, error) {
	cfg, _, err := c.config()
	if err != nil {
		return nil, err
	}
	nodes := cfg.nodes()
	for i := range nodes {
		if nodes[i], err = nodes[i].observe(); err != nil {
			return nil, err
		}
	}
	return nodes, nil
}

// Node returns node n, counted from 1, with its current state.
func (c *Cluster) Node(n int) (Node, error) {
	nodes, err := c.Nodes()
	if err != nil {
		return Node{}, err
	}
	if n < 1 || n > len(nodes) {
		return Node{}, fmt.Errorf("node %d: the cluster in %s has nodes 1 to %d", n, c.dir, len(nodes))
	}
	return nodes[n-1], nil
}

// Runs reports whether a node runs.
func (c *Cluster) Runs() (bool, error) {
	nodes, err := c.Nodes()
	return slices.ContainsFunc(nodes, func(n Node) bool { return n.PID != 0 }), err
}

// Up starts every stopped node, one after the other, and returns when all nodes answer CQL and see each other up. If it fails or ctx
// ends, it kills the nodes that it started.
func (c *Cluster) Up(ctx context.Context) error { return c.start(ctx, 0) }

// Start starts node n of an existing cluster, and returns when it answers CQL and all running nodes see each other up. It does
// nothing if the node runs.
func (c *Cluster) Start(ctx context.Context, n int) error { return c.start(ctx, n) }

// start starts node n unless it runs, or all stopped nodes if n is 0. It fails if the requested layout differs from the one in the
// directory.
func (c *Cluster) start(ctx context.Context, n int) (err error) {
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	existing, remembered, err := c.config()
	if err != nil {
		return err
	}
	cfg := c.requested.over(existing)
	if difference := existing.differs(cfg); difference != "" {
		return fmt.Errorf("the cluster in %s has another layout: its %s: omit the setting, or remove the cluster and its data by `go run ./dev cluster down --delete` first",
			c.dir, difference)
	}
	if err := cfg.validate(); err != nil {
		return err
	}
	nodes := cfg.nodes()
	if n != 0 {
		if !remembered {
			return fmt.Errorf("start node %d: no cluster in %s: run `go run ./dev cluster up` first", n, c.dir)
		}
		node, err := c.Node(n)
		if err != nil {
			return err
		}
		nodes = []Node{node}
	}

	var idle []Node
	var ports []process.Port
	for _, n := range nodes {
		n, err := n.observe()
		if err != nil {
			return err
		}
		server := n.server(c.printf)
		if n.State != process.Running && n.State != process.Paused {
			idle, ports = append(idle, n), append(ports, server.Ports...)
			continue
		}
		if err := server.Resume(ctx); err != nil {
			return err
		}
		if err := server.AwaitReady(ctx); err != nil {
			return err
		}
		c.printf("%s is already running, pid %d", n, n.PID)
	}
	if len(idle) == 0 {
		return nil
	}
	if err := process.PortsFree(ports...); err != nil {
		return err
	}
	t, err := c.toolchain(ctx)
	if err != nil {
		return err
	}
	// Written before the first process starts, so that `down` finds all of them.
	if err := cfg.write(); err != nil {
		return err
	}

	defer func() {
		if err != nil {
			err = errors.Join(err, c.endAll(context.WithoutCancel(ctx), idle, process.Server.Kill))
		}
	}()
	for _, n := range idle {
		if err := n.writeConf(cfg, t); err != nil {
			return err
		}
		name, args := n.inNetwork(t.Java, "@"+n.conf("jvm17.options"), "@"+n.conf("jvm-server.options"),
			"-cp", n.classPath(t), "org.apache.cassandra.service.CassandraDaemon")
		if err := n.server(c.printf).Start(ctx, exec.Command(name, args...)); err != nil { //nolint:noctx // it outlives the caller
			return err
		}
	}

	all, err := c.Nodes()
	if err != nil {
		return err
	}
	running := slices.DeleteFunc(slices.Clone(all), func(n Node) bool { return n.State != process.Running })
	if err := waitAgreed(ctx, t, running); err != nil {
		return err
	}
	c.printf("%d of %d nodes are running and see each other up", len(running), len(all))
	return nil
}

// endAll calls Stop or Kill for all of the nodes at once.
func (c *Cluster) endAll(ctx context.Context, nodes []Node, end func(process.Server, context.Context) error) error {
	var g errgroup.Group
	for _, n := range nodes {
		g.Go(func() error { return end(n.server(c.printf), ctx) })
	}
	return g.Wait()
}

// Stop ends node n with SIGTERM: the node drains. A node that still runs after a minute is killed. Stop does nothing if the node does
// not run.
func (c *Cluster) Stop(ctx context.Context, n int) error {
	return c.change(ctx, n, process.Server.Stop)
}

// Kill ends node n with SIGKILL. The other nodes notice after 10 to 30 seconds.
func (c *Cluster) Kill(ctx context.Context, n int) error {
	return c.change(ctx, n, process.Server.Kill)
}

// Pause stops node n with SIGSTOP until Resume. Its connections stay open, as during a long garbage collection.
func (c *Cluster) Pause(ctx context.Context, n int) error {
	return c.change(ctx, n, process.Server.Pause)
}

// Resume continues a paused node.
func (c *Cluster) Resume(ctx context.Context, n int) error {
	return c.change(ctx, n, process.Server.Resume)
}

func (c *Cluster) change(ctx context.Context, n int, do func(process.Server, context.Context) error) error {
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	node, err := c.Node(n)
	if err != nil {
		return err
	}
	return do(node.server(c.printf), ctx)
}

// Down stops every node, and kills a node that still runs after a minute. With remove, it kills all nodes and removes their data and
// the layout.
func (c *Cluster) Down(ctx context.Context, remove bool) error {
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	cfg, remembered, err := c.config()
	if err != nil {
		return err
	}
	if !remembered {
		c.printf("no cluster in %s", c.dir)
		return nil
	}
	end := process.Server.Stop
	if remove {
		end = process.Server.Kill
	}
	nodes := cfg.nodes()
	if err := c.endAll(ctx, nodes, end); err != nil {
		return err
	}
	if !remove {
		c.printf("data kept in %s", c.dir)
		return nil
	}
	// The layout is removed last, so that another `down` can complete an interrupted removal. The lock file stays, because others may
	// wait for it.
	for _, n := range nodes {
		if err := os.RemoveAll(n.Dir); err != nil {
			return fmt.Errorf("remove %s: %w", n, err)
		}
	}
	if err := os.Remove(filepath.Join(c.dir, configFile)); err != nil {
		return fmt.Errorf("remove layout: %w", err)
	}
	c.printf("data in %s removed", c.dir)
	return nil
}
