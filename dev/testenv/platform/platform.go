// Package platform gives tests the running platform: an empty keyspace on the real cluster, the cluster's nodes, and fleet-etl as a
// program.
package platform

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/cassandra/schema"
	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/monitoring"
	"github.com/fleettracing/fleet-tracing/dev/process"
	"github.com/fleettracing/fleet-tracing/dev/testenv"
)

// Replication returns the replication of the tests' keyspaces: CASSANDRA_REPLICATION, or two replicas in each of two data centers.
func Replication(t testing.TB) cassandra.Replication {
	parsed, err := cassandra.ParseReplication(cmp.Or(os.Getenv("CASSANDRA_REPLICATION"), "dc1=2,dc2=2"))
	require.NoError(t, err)
	return parsed
}

// Quiet returns a logger without output.
func Quiet() logrus.FieldLogger { return &logrus.Logger{Out: io.Discard} }

// keyspace is shared by all tests that use this package. Creating a keyspace takes a dozen seconds and dropping it longer;
// truncating takes a few. The keyspace is never dropped.
const keyspace = "test_shared"

// keyspaceLock reserves the keyspace for this process until the process ends.
var keyspaceLock struct {
	sync.Mutex
	unlock func()
}

// Keyspace returns an empty keyspace with all tables. Tests of other packages wait until this process ends.
func Keyspace(t testing.TB) cassandra.Config {
	config := cassandra.Config{Hosts: testenv.CassandraHosts(t), Keyspace: keyspace, LocalDC: "dc1"}
	keyspaceLock.Lock()
	defer keyspaceLock.Unlock()
	if keyspaceLock.unlock == nil {
		root, err := cluster.RepositoryRoot()
		require.NoError(t, err)
		keyspaceLock.unlock, err = process.Lock(t.Context(), filepath.Join(root, ".dev", "test-keyspace"), func(holder string) error {
			t.Log("waiting for process", holder, "to release the keyspace of the tests")
			return nil
		})
		require.NoError(t, err)
		replication := Replication(t)
		differences, err := schema.Check(t.Context(), config, replication, Quiet())
		if err != nil || len(differences) > 0 { // missing, or from another version
			require.NoError(t, schema.Drop(t.Context(), config, Quiet()))
			require.NoError(t, schema.Apply(t.Context(), config, replication, Quiet()))
			return config
		}
	}
	require.NoError(t, schema.Truncate(t.Context(), config, Quiet()))
	return config
}

// Cluster returns the cluster of go run ./dev cluster up, for tests that scrape, kill or pause nodes. The cluster must have two
// data centers of two running nodes.
func Cluster(t testing.TB) (*cluster.Cluster, []cluster.Node) {
	c, err := cluster.Open(cluster.Config{Dir: os.Getenv("DEV_CLUSTER_DIR")})
	require.NoError(t, err)
	nodes, err := c.Nodes()
	require.NoError(t, err)
	for _, n := range nodes {
		if n.State != process.Running {
			testenv.Missing(t, testenv.Cassandra, fmt.Sprintf("%s is %s: start it: go run ./dev cluster up", n, n.State))
		}
	}
	if layout := cluster.Layout(nodes).String(); layout != "dc1=2,dc2=2" {
		testenv.Missing(t, testenv.Cassandra, "the data centers are "+layout+": start a cluster with dc1=2,dc2=2")
	}
	return c, nodes
}

// NeedMonitoring ends a test unless Prometheus and Alertmanager are installed.
func NeedMonitoring(t testing.TB) {
	t.Helper()
	if _, err := monitoring.FindPrometheus(); err != nil {
		testenv.Missing(t, testenv.Prometheus, err.Error())
	}
	if _, err := monitoring.FindAlertmanager(); err != nil {
		testenv.Missing(t, testenv.Alertmanager, err.Error())
	}
}

// StopAtEnd stops a program at the end of the test, and logs the end of its log if the test failed.
func StopAtEnd(t testing.TB, p *process.Server) {
	t.Cleanup(func() {
		assert.NoError(t, p.Stop(context.WithoutCancel(t.Context())))
		if t.Failed() {
			t.Log(p.Name, process.Tail(p.LogFile))
		}
	})
}
