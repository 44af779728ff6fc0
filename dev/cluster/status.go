package cluster

import (
	"cmp"
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/fleettracing/fleet-tracing/dev/process"
)

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
