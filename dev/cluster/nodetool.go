package cluster

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/dev/process"
)

const (
	answersWithin = time.Minute     // limits nodetool, which waits for a paused node without end
	agreedWithin  = 3 * time.Minute // after the last start
)

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
	name, line := n.inNetwork(t.Java, "@"+n.conf("jvm17.options"), "-Xmx128M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", // it runs for a second
		"-Duser.home="+n.Dir, // for its history file
		"-Dlogback.configurationFile="+n.conf("logback-tools.xml"), "-Dcassandra.config=file://"+n.conf("cassandra.yaml"), "-Dcassandra.storagedir="+n.Dir,
		"-cp", n.classPath(t), "org.apache.cassandra.tools.NodeTool", "-h", "127.0.0.1", "-p", fmt.Sprint(n.JMXPort))
	var out, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, append(line, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("nodetool %s on %s: %w:\n%s", args[0], n, err, process.Indent(process.LastLines(stderr.Bytes(), 10)))
	}
	return out.Bytes(), nil
}

// waitAgreed returns when each of the nodes sees all of them up, which is a second or two after the last one has joined. Before that,
// a coordinator may reject a write to several replicas.
func waitAgreed(ctx context.Context, t toolchain, nodes []Node) error {
	limited, cancel := context.WithTimeout(ctx, agreedWithin)
	defer cancel()
	g, limited := errgroup.WithContext(limited)
	g.SetLimit(2) // each starts a JVM
	for _, n := range nodes {
		g.Go(func() error {
			for {
				missing, err := n.unseen(limited, t, nodes)
				if len(missing) == 0 {
					return nil
				}
				if process.Sleep(limited, 5*process.PollEvery) == nil {
					continue
				}
				if ctx.Err() != nil {
					return fmt.Errorf("wait until the nodes see each other: %w", ctx.Err())
				}
				return fmt.Errorf("%s does not see %s up after %s: %w", n, missing[0], agreedWithin, err)
			}
		})
	}
	return g.Wait()
}

// unseen returns the nodes that nodetool status does not report as up and normal, and why.
func (n Node) unseen(ctx context.Context, t toolchain, nodes []Node) ([]Node, error) {
	ctx, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	status, err := n.nodetool(ctx, t, "status")
	if err != nil {
		return nodes, err
	}
	missing := slices.DeleteFunc(slices.Clone(nodes), func(other Node) bool {
		return regexp.MustCompile(`(?m)^UN +` + regexp.QuoteMeta(other.Address.String()) + `\s`).Match(status)
	})
	return missing, errors.New("its log has its latest view of the cluster")
}

// Status prints nodetool status of the first node that serves, for a keyspace unless it is empty, and a table of the processes. It
// returns the number of nodes that do not serve, also with an error of nodetool.
func (c *Cluster) Status(ctx context.Context, keyspace string) (down int, err error) {
	nodes, err := c.Nodes()
	if err != nil {
		return 0, err
	}
	serving := 0
	w := tabwriter.NewWriter(c.requested.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tDATA CENTER\tADDRESS\tPID\tSTATE\tLOG")
	for _, n := range nodes {
		state := string(n.State)
		switch {
		case n.State != process.Running:
			down++
		case !answersCQL(ctx, n.CQL()):
			state = "no CQL"
			down++
		default:
			state = "up"
			serving = cmp.Or(serving, n.N)
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%d\t%s\t%s\n", n.N, n.DC, n.CQL(), n.PID, state, n.LogFile)
	}
	if serving == 0 {
		c.printf("no node is up: `go run ./dev cluster up` starts them\n")
		return down, w.Flush()
	}
	args := []string{"status"}
	if keyspace != "" {
		args = append(args, keyspace)
	}
	limited, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	out, err := c.Nodetool(limited, serving, args...)
	c.printf("%s", out)
	if flushed := w.Flush(); err == nil {
		err = flushed
	}
	return down, err
}
