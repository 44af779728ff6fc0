package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/dev/process"
)

// answersWithin limits nodetool, which waits for a paused node without end.
const answersWithin = time.Minute

// Nodetool runs nodetool on a running node and returns its output. Only ctx limits the time.
func (c *Cluster) Nodetool(ctx context.Context, n int, args ...string) ([]byte, error) {
	node, err := c.Node(n)
	if err != nil {
		return nil, err
	}
	t, err := c.toolchain(ctx)
	if err != nil {
		return nil, err
	}
	return node.nodetool(ctx, t, args...)
}

func (n Node) nodetool(ctx context.Context, t toolchain, args ...string) ([]byte, error) {
	var out, stderr bytes.Buffer
	name, line := n.inNetwork(t.java, n.nodetoolArgs(t.jars, n.Dir, args))
	cmd := exec.CommandContext(ctx, name, line...)
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("nodetool %s on %s: %w:\n%s", args[0], n, err, process.Indent(process.LastLines(stderr.Bytes(), 10)))
	}
	return out.Bytes(), nil
}

var upNormal = regexp.MustCompile(`(?m)^UN +(\S+)`)

// waitAgreed returns when each of the nodes sees all of them up, which is a second or two after the last one has joined. Before that,
// a coordinator may reject a write to several replicas.
func waitAgreed(ctx context.Context, t toolchain, nodes []Node) error {
	limited, cancel := context.WithTimeout(ctx, agreedWithin)
	defer cancel()
	g, limited := errgroup.WithContext(limited)
	g.SetLimit(2) // each starts a JVM
	for _, n := range nodes {
		g.Go(func() error { return n.waitSees(ctx, limited, t, nodes) })
	}
	return g.Wait()
}

// waitSees returns when the node sees all of the nodes up. limited is ctx with a time limit.
func (n Node) waitSees(ctx, limited context.Context, t toolchain, nodes []Node) error {
	for {
		asking, cancel := context.WithTimeout(limited, answersWithin)
		out, err := n.nodetool(asking, t, "status")
		cancel()
		missing := nodes
		if err == nil {
			missing = unseen(out, nodes)
		}
		if len(missing) == 0 {
			return nil
		}
		if process.Sleep(limited, 5*process.PollEvery) == nil {
			continue
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait until the nodes see each other: %w", ctx.Err())
		}
		if err == nil {
			err = errors.New("its log has its latest view of the cluster")
		}
		return fmt.Errorf("%s does not see %s up after %s: %w", n, missing[0], agreedWithin, err)
	}
}

// unseen returns the nodes that nodetool status does not report as up and normal.
func unseen(status []byte, nodes []Node) []Node {
	up := map[netip.Addr]bool{}
	for _, m := range upNormal.FindAllSubmatch(status, -1) {
		if addr, err := netip.ParseAddr(string(m[1])); err == nil {
			up[addr] = true
		}
	}
	var missing []Node
	for _, n := range nodes {
		if !up[n.Address] {
			missing = append(missing, n)
		}
	}
	return missing
}
