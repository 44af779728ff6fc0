// Package bench measures fleet-etl as its users run it: the real binary, on a Cassandra cluster that is made for the
// measurement.
package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gocql/gocql"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
)

// downWithin bounds the removal of a cluster and of a keyspace.
const downWithin = 2 * time.Minute

// Nodes are the Cassandra nodes under test. They run on this machine.
type Nodes struct {
	DCs     string   // such as dc1=2,dc2=2; each node holds a replica of everything
	LocalDC string   // the data center that clients use
	Hosts   []string // CQL addresses, host:port
	PIDs    []int
}

// WithCluster starts a cluster, calls do and removes the cluster.
func WithCluster(ctx context.Context, c *cluster.Cluster, dcs cluster.DCs, do func(Nodes) error) (err error) {
	defer func() {
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), downWithin)
		defer cancel()
		err = errors.Join(err, c.Down(down, true))
	}()
	if err := c.Up(ctx); err != nil {
		return err
	}
	nodes, err := c.Nodes()
	if err != nil {
		return err
	}
	n := Nodes{DCs: dcs.String(), LocalDC: dcs[0].Name}
	for _, node := range nodes {
		n.Hosts, n.PIDs = append(n.Hosts, node.CQL().String()), append(n.PIDs, node.PID)
	}
	return do(n)
}

// env is what fleet-etl needs to find the nodes and the keyspace.
func (n Nodes) env(keyspace string) []string {
	return append(os.Environ(), "CASSANDRA_HOSTS="+strings.Join(n.Hosts, ","), "CASSANDRA_DC="+n.LocalDC,
		"CASSANDRA_REPLICATION="+n.DCs, "CASSANDRA_KEYSPACE="+keyspace)
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
		seconds += cpuOf(pid)
	}
	return seconds
}

// ticksPerSecond is USER_HZ. Linux fixes it for every architecture that Go supports.
const ticksPerSecond = 100

// cpuOf is the CPU time of a process, in seconds, or 0 where /proc has no such process.
func cpuOf(pid int) float64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name in parentheses may contain anything
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	return ticks(fields[11:13]) // utime, stime
}

func ticks(fields []string) (seconds float64) {
	for _, f := range fields {
		n, _ := strconv.ParseInt(f, 10, 64)
		seconds += float64(n) / ticksPerSecond
	}
	return seconds
}

// peakMemory is the most memory that a process had, in bytes. The maximum of getrusage may be that of its parent.
func peakMemory(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	var kilobytes int64
	_, _ = fmt.Sscanf(rest, "%d kB", &kilobytes)
	return kilobytes << 10
}
