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
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Time limits. A node starts in about ten seconds on an idle machine.
const (
	readyWithin   = 5 * time.Minute
	agreedWithin  = 3 * time.Minute
	stoppedWithin = time.Minute
	killedWithin  = 15 * time.Second
)

const defaultHeapMB = 768

// Cluster is a cluster in a directory; its nodes may be running or stopped. Its methods are safe for concurrent use, also by several
// processes: methods that change nodes wait for each other.
type Cluster struct {
	dir       string
	requested Config

	outMu sync.Mutex
	out   io.Writer
}

// toolchain has the files that run a node.
type toolchain struct {
	java     string
	jars     string // directory of the Cassandra jars
	exporter string // jar of the metrics agent
}

func (c *Cluster) toolchain(ctx context.Context) (toolchain, error) {
	java, err := program.Find(ctx)
	if err != nil {
		return toolchain{}, err
	}
	jars, err := program.Jars(ctx, c.printf)
	if err != nil {
		return toolchain{}, err
	}
	agent, err := exporter.Jars(ctx, c.printf)
	if err != nil {
		return toolchain{}, err
	}
	return toolchain{java: java, jars: jars, exporter: filepath.Join(agent, exporter.Dependencies[0].Name+"-"+exporterVersion+".jar")}, nil
}

// Fetch downloads Cassandra and the metrics agent unless they are on this machine.
func (c *Cluster) Fetch(ctx context.Context) error {
	_, err := c.toolchain(ctx)
	return err
}

// Open returns a cluster. It starts no node.
func Open(cfg Config) (*Cluster, error) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		return nil, fmt.Errorf("open cluster: %w: processes are found through /proc: run it on Linux", err)
	}
	if cfg.Dir == "" {
		dir, err := defaultDir()
		if err != nil {
			return nil, fmt.Errorf("open cluster: %w", err)
		}
		cfg.Dir = dir
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open cluster: %w", err)
	}
	if cfg.HeapMB == 0 {
		cfg.HeapMB = defaultHeapMB
	}
	if cfg.HeapMB < 1 {
		return nil, fmt.Errorf("open cluster: heap %d MB: want a whole number above 0", cfg.HeapMB)
	}
	c := &Cluster{dir: dir, out: cfg.Out, requested: cfg}
	if c.out == nil {
		c.out = io.Discard
	}
	if _, _, err := c.layout(); err != nil {
		return nil, fmt.Errorf("open cluster: %w", err)
	}
	return c, nil
}

func (c *Cluster) printf(format string, args ...any) {
	c.outMu.Lock()
	defer c.outMu.Unlock()
	fmt.Fprintf(c.out, format, args...)
}

// layout returns the layout in the directory, or the requested one if the directory has none. It reads the file each time, because
// another process may have created or deleted the cluster.
func (c *Cluster) layout() (l layout, remembered bool, err error) {
	l, remembered, err = readLayout(c.dir)
	if err != nil {
		return layout{}, false, err
	}
	if !remembered {
		l = defaultLayout.over(c.requested)
	}
	return l, remembered, l.validate()
}

// agreedLayout returns the layout for a start. It fails if the requested layout differs from the one in the directory.
func (c *Cluster) agreedLayout() (l layout, remembered bool, err error) {
	l, remembered, err = c.layout()
	if err != nil {
		return layout{}, false, err
	}
	wanted := l.over(c.requested)
	if difference := l.differs(wanted); difference != "" {
		return layout{}, false, fmt.Errorf("the cluster in %s has another layout: its %s: omit the setting, or remove the cluster and its data by `go run ./dev cluster down --delete` first",
			c.dir, difference)
	}
	return wanted, remembered, wanted.validate()
}

// Nodes returns the nodes in order, with their current states.
func (c *Cluster) Nodes() ([]Node, error) {
	l, _, err := c.layout()
	if err != nil {
		return nil, err
	}
	nodes := l.nodes(c.dir)
	for i := range nodes {
		if nodes[i], _, err = nodes[i].observe(); err != nil {
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

// Up starts every stopped node, one after the other, and returns when all nodes answer CQL and see each other up. If it fails or ctx
// ends, it kills the nodes that it started.
func (c *Cluster) Up(ctx context.Context) error {
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	l, _, err := c.agreedLayout()
	if err != nil {
		return err
	}
	return c.start(ctx, l, l.nodes(c.dir))
}

// Start starts node n of an existing cluster, and returns when it answers CQL and all running nodes see each other up. It does
// nothing if the node runs.
func (c *Cluster) Start(ctx context.Context, n int) error {
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	l, remembered, err := c.agreedLayout()
	if err != nil {
		return err
	}
	if !remembered {
		return fmt.Errorf("start node %d: no cluster in %s: run `go run ./dev cluster up` first", n, c.dir)
	}
	node, err := c.Node(n)
	if err != nil {
		return err
	}
	return c.start(ctx, l, []Node{node})
}

// start starts the stopped ones of the nodes. The caller holds the lock.
func (c *Cluster) start(ctx context.Context, l layout, nodes []Node) (err error) {
	var idle []Node
	for _, n := range nodes {
		n, p, err := n.observe()
		if err != nil {
			return err
		}
		switch n.State {
		case Paused:
			if err := p.Signal(syscall.SIGCONT); err != nil {
				return fmt.Errorf("resume %s: %w", n, err)
			}
			fallthrough
		case Running:
			if err := n.daemon().AwaitReady(ctx, p, 0); err != nil {
				return err
			}
			c.printf("%s is already running, pid %d\n", n, n.PID)
		default:
			idle = append(idle, n)
		}
	}
	if len(idle) == 0 {
		return nil
	}
	if err := portsFree(idle); err != nil {
		return err
	}
	t, err := c.toolchain(ctx)
	if err != nil {
		return err
	}
	// Written before the first process starts, so that `down` finds all of them.
	if err := l.write(c.dir); err != nil {
		return err
	}

	var started []Node
	defer func() {
		if err != nil {
			err = errors.Join(err, c.abandon(ctx, started))
		}
	}()
	for _, n := range idle {
		begun := time.Now()
		if err := n.writeConf(l, c.requested.HeapMB); err != nil {
			return err
		}
		started = append(started, n)
		p, err := n.start(ctx, t, c.requested.HeapMB)
		if err != nil {
			return err
		}
		c.printf("%s answers CQL on %s after %.1f s, pid %d\n", n, n.CQL(), time.Since(begun).Seconds(), p.PID)
	}

	all, err := c.Nodes()
	if err != nil {
		return err
	}
	var running []Node
	for _, n := range all {
		if n.State == Running {
			running = append(running, n)
		}
	}
	if err := waitAgreed(ctx, t, running); err != nil {
		return err
	}
	c.printf("%d of %d nodes are running and see each other up\n", len(running), len(all))
	return nil
}

// abandon kills the nodes of a failed start, also after ctx has ended.
func (c *Cluster) abandon(ctx context.Context, nodes []Node) error {
	var errs []error
	for _, n := range nodes {
		pid, err := n.end(context.WithoutCancel(ctx), syscall.SIGKILL, killedWithin)
		if pid != 0 {
			c.printf("%s killed, because the start failed\n", n)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Stop ends node n with SIGTERM: the node drains. It does nothing if the node does not run.
func (c *Cluster) Stop(ctx context.Context, n int) error {
	return c.change(ctx, n, func(node Node) error { return c.end(ctx, node, syscall.SIGTERM) })
}

// Kill ends node n with SIGKILL. The other nodes notice after 10 to 30 seconds.
func (c *Cluster) Kill(ctx context.Context, n int) error {
	return c.change(ctx, n, func(node Node) error { return c.end(ctx, node, syscall.SIGKILL) })
}

// Pause stops node n with SIGSTOP until Resume. Its connections stay open, as during a long garbage collection.
func (c *Cluster) Pause(ctx context.Context, n int) error {
	return c.change(ctx, n, func(node Node) error { return node.pause(ctx, syscall.SIGSTOP, Paused) })
}

// Resume continues a paused node.
func (c *Cluster) Resume(ctx context.Context, n int) error {
	return c.change(ctx, n, func(node Node) error { return node.pause(ctx, syscall.SIGCONT, Running) })
}

func (c *Cluster) change(ctx context.Context, n int, do func(Node) error) error {
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	node, err := c.Node(n)
	if err != nil {
		return err
	}
	return do(node)
}

func (c *Cluster) end(ctx context.Context, n Node, sig syscall.Signal) error {
	within, done := stoppedWithin, "stopped"
	if sig == syscall.SIGKILL {
		within, done = killedWithin, "killed"
	}
	pid, err := n.end(ctx, sig, within)
	switch {
	case err != nil:
		return err
	case pid == 0:
		c.printf("%s was not running\n", n)
	default:
		c.printf("%s %s, pid was %d\n", n, done, pid)
	}
	return nil
}

// Down stops every node, and kills a node that still runs after a minute. With remove, it kills all nodes and removes their data and
// the layout.
func (c *Cluster) Down(ctx context.Context, remove bool) error {
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	l, remembered, err := c.layout()
	if err != nil {
		return err
	}
	if !remembered {
		c.printf("no cluster in %s\n", c.dir)
		return nil
	}
	nodes := l.nodes(c.dir)
	ended := make(chan error, len(nodes))
	for _, n := range nodes {
		go func() {
			var err error
			if !remove {
				err = c.end(ctx, n, syscall.SIGTERM)
			}
			if ctx.Err() == nil && (remove || err != nil) {
				err = c.end(ctx, n, syscall.SIGKILL)
			}
			ended <- err
		}()
	}
	var errs []error
	for range nodes {
		errs = append(errs, <-ended)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if !remove {
		c.printf("data kept in %s\n", c.dir)
		return nil
	}
	// The layout is removed last, so that another `down` can complete an interrupted removal. The lock file stays, because others may
	// wait for it.
	for _, n := range nodes {
		if err := os.RemoveAll(n.Dir); err != nil {
			return fmt.Errorf("remove %s: %w", n, err)
		}
	}
	if err := os.Remove(filepath.Join(c.dir, layoutFile)); err != nil {
		return fmt.Errorf("remove layout: %w", err)
	}
	c.printf("data in %s removed\n", c.dir)
	return nil
}
