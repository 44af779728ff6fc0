// Package cluster runs a real Apache Cassandra cluster as processes of this machine, without containers: for the
// developer through `go run ./dev cluster`, for tests through this API, which can also kill, stop and pause its nodes.
//
// All state is in the cluster's directory, so any process may go on with what another has started. Processes are found
// through /proc, so it needs Linux.
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

// Bounds of what a caller may have to wait for. A node needs about ten seconds on a quiet machine.
const (
	readyWithin   = 5 * time.Minute
	agreedWithin  = 3 * time.Minute
	stoppedWithin = time.Minute
	killedWithin  = 15 * time.Second
)

const defaultHeapMB = 768

// Cluster is a cluster in a directory, whether its nodes run or not. Its methods may be called at the same time, from
// any number of processes: those that change nodes wait for each other.
type Cluster struct {
	dir   string
	asked Config

	outMu sync.Mutex
	out   io.Writer
}

// toolchain is what a node is run with.
type toolchain struct {
	java     string
	jars     string // the folder of Cassandra's
	exporter string // the jar of the metrics agent
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

// Fetch makes sure that everything that nodes are run with is on this machine.
func (c *Cluster) Fetch(ctx context.Context) error {
	_, err := c.toolchain(ctx)
	return err
}

// Open returns the cluster that cfg describes. It starts nothing.
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
	c := &Cluster{dir: dir, out: cfg.Out, asked: cfg}
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

// layout returns what the directory remembers, or what is asked for where it remembers nothing. It is read anew every
// time, because another process may have put up or deleted the cluster since.
func (c *Cluster) layout() (l layout, remembered bool, err error) {
	l, remembered, err = readLayout(c.dir)
	if err != nil {
		return layout{}, false, err
	}
	if !remembered {
		l = defaultLayout.over(c.asked)
	}
	return l, remembered, l.validate()
}

// agreedLayout is the layout to start nodes with: an error where what is asked for is not what the directory remembers.
func (c *Cluster) agreedLayout() (l layout, remembered bool, err error) {
	l, remembered, err = c.layout()
	if err != nil {
		return layout{}, false, err
	}
	asked := l.over(c.asked)
	if difference := l.differs(asked); difference != "" {
		return layout{}, false, fmt.Errorf("the cluster in %s is another one: its %s: leave the setting out, or remove it and its data by `go run ./dev cluster down --delete` first",
			c.dir, difference)
	}
	return asked, remembered, asked.validate()
}

// Nodes returns the nodes in order, with what each does now.
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

// Node returns node n, counted from 1, with what it does now.
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

// Up starts every node that does not run, one after the other, and returns when all answer CQL and see each other.
// When it fails or ctx ends, it kills what it has started.
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

// Start starts node n of a cluster that was up before, and returns when it answers CQL and all running nodes see each
// other. A node that runs is left alone.
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

// start brings up those of the nodes that do not run. It is called under the lock.
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
			if err := n.waitReady(ctx, p, 0); err != nil {
				return err
			}
			c.printf("%s runs already, pid %d\n", n, n.PID)
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
	// Before the first process, so that `down` finds all of them whatever happens to us.
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
		if err := n.writeConf(l, c.asked.HeapMB); err != nil {
			return err
		}
		started = append(started, n)
		p, logFrom, err := n.launch(t, c.asked.HeapMB)
		if err != nil {
			return err
		}
		if err := n.waitReady(ctx, p, logFrom); err != nil {
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
	c.printf("%d of %d nodes run and see each other up\n", len(running), len(all))
	return nil
}

// abandon kills the nodes of a start that came to nothing, also when ctx has ended.
func (c *Cluster) abandon(ctx context.Context, nodes []Node) error {
	var errs []error
	for _, n := range nodes {
		pid, err := n.end(context.WithoutCancel(ctx), syscall.SIGKILL, killedWithin)
		if pid != 0 {
			c.printf("%s killed, because the start came to nothing\n", n)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Stop ends node n in order: it tells the others, flushes, and closes. A node that does not run is left alone.
func (c *Cluster) Stop(ctx context.Context, n int) error {
	return c.change(ctx, n, func(node Node) error { return c.end(ctx, node, syscall.SIGTERM) })
}

// Kill ends node n at once, as a crash does. The others take 10 to 30 seconds to notice.
func (c *Cluster) Kill(ctx context.Context, n int) error {
	return c.change(ctx, n, func(node Node) error { return c.end(ctx, node, syscall.SIGKILL) })
}

// Pause makes node n hang without closing a connection, as a stalled disk or a long collection does, until Resume.
func (c *Cluster) Pause(ctx context.Context, n int) error {
	return c.change(ctx, n, func(node Node) error { return node.pause(ctx, syscall.SIGSTOP, Paused) })
}

// Resume lets a paused node go on.
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
		c.printf("%s did not run\n", n)
	default:
		c.printf("%s %s, pid was %d\n", n, done, pid)
	}
	return nil
}

// Down stops every node: in order, and by force those that have not ended after a minute. With remove it kills them and
// removes all their data and the layout, too.
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
	// The layout goes last: what an interrupted removal leaves is still known as a cluster. The lock file stays, because
	// others may be waiting for it.
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
