// Package bench measures fleet-etl as its users run it: the real binary, on a Cassandra cluster that is made for the
// measurement.
package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/gocql/gocql"
	"github.com/prometheus/procfs"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
)

// Nodes are the Cassandra nodes under test. They run on this machine.
type Nodes struct {
	DCs     string   // such as dc1=2,dc2=2; each node holds a replica of everything
	LocalDC string   // the data center that clients use
	Hosts   []string // CQL addresses, host:port
	PIDs    []int
	Dir     string // for files, removed with the cluster
}

// WithCluster starts a cluster, calls do and removes the cluster.
func WithCluster(ctx context.Context, c *cluster.Cluster, dcs string, do func(Nodes) error) (err error) {
	dir, err := os.MkdirTemp("", "fleet-bench-")
	if err != nil {
		return err
	}
	defer func() {
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		err = errors.Join(err, c.Down(down, true), os.RemoveAll(dir))
	}()
	if err := c.Up(ctx); err != nil {
		return err
	}
	nodes, err := c.Nodes()
	if err != nil {
		return err
	}
	n := Nodes{DCs: dcs, LocalDC: nodes[0].DC, Dir: dir}
	for _, node := range nodes {
		n.Hosts, n.PIDs = append(n.Hosts, node.CQL().String()), append(n.PIDs, node.PID)
	}
	return do(n)
}

// Consistency is the default write level of fleet-etl on these nodes.
func (n Nodes) Consistency() gocql.Consistency {
	if len(n.Hosts) == 1 {
		return gocql.One
	}
	return gocql.Two
}

// Connect opens a driver session in the local data center. An empty keyspace is allowed.
func (n Nodes) Connect(keyspace string) (*gocql.Session, error) {
	c := gocql.NewCluster(n.Hosts...)
	c.Keyspace, c.ProtoVersion, c.Timeout, c.ConnectTimeout = keyspace, 4, time.Minute, 30*time.Second
	c.PoolConfig.HostSelectionPolicy = gocql.TokenAwareHostPolicy(gocql.DCAwareRoundRobinPolicy(n.LocalDC), gocql.ShuffleReplicas())
	session, err := c.CreateSession()
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", strings.Join(n.Hosts, ", "), err)
	}
	return session, nil
}

// CPUSeconds is the CPU time that the nodes have used.
func (n Nodes) CPUSeconds() (seconds float64) {
	for _, pid := range n.PIDs {
		seconds += cpuSeconds(pid)
	}
	return seconds
}

// cpuSeconds is the CPU time of a process, or 0 where it has ended.
func cpuSeconds(pid int) float64 {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return 0
	}
	stat, err := p.Stat()
	if err != nil {
		return 0
	}
	return stat.CPUTime()
}
