package cluster

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
)

// Status prints nodetool status of the first node that serves, for a keyspace unless it is empty, and a table of the processes. It
// returns the number of nodes that do not serve, also with an error of nodetool.
func (c *Cluster) Status(ctx context.Context, keyspace string) (down int, err error) {
	nodes, err := c.Nodes()
	if err != nil {
		return 0, err
	}
	states := make([]string, len(nodes))
	serving := -1
	for i, n := range nodes {
		states[i] = string(n.State)
		if n.State != Running {
			down++
			continue
		}
		if !answersCQL(ctx, n.CQL()) {
			states[i] = "no CQL"
			down++
			continue
		}
		states[i] = "up"
		if serving < 0 {
			serving = i
		}
	}
	if serving < 0 {
		c.printf("no node is up: `go run ./dev cluster up` starts them\n\n")
	} else {
		args := []string{"status"}
		if keyspace != "" {
			args = append(args, keyspace)
		}
		var out []byte
		asking, cancel := context.WithTimeout(ctx, answersWithin)
		out, err = c.Nodetool(asking, nodes[serving].N, args...)
		cancel()
		c.printf("%s", out)
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tDATA CENTER\tADDRESS\tPID\tSTATE\tLOG")
	for i, n := range nodes {
		pid := "-"
		if n.PID != 0 {
			pid = fmt.Sprint(n.PID)
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\n", n.N, n.DC, n.CQL(), pid, states[i], n.LogFile)
	}
	_ = w.Flush() // into memory
	c.printf("%s", table.String())
	return down, err
}
