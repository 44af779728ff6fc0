package cassandra_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/dev/testenv"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/cassandra/schema"
)

// readUs is the write timestamp, in µs, of the first derived rows. It is later than all their records; later rows count up.
var readUs = time.Now().Add(24 * time.Hour).UnixMicro()

func at(t *testing.T, text string) int64 {
	t.Helper()
	parsed, err := time.Parse(time.RFC3339Nano, text)
	require.NoError(t, err)
	return parsed.UnixMilli()
}

// realCluster returns the settings of a new keyspace on the cluster of CASSANDRA_TEST_HOSTS, which has four nodes in dc1 and
// dc2 like the cluster of `go run ./dev cluster up`.
func realCluster(t *testing.T) cassandra.Config {
	cfg := cassandra.Config{Hosts: testHosts(t), Keyspace: fmt.Sprintf("test_%08x", rand.Uint32()), LocalDC: "dc1"}
	t.Cleanup(func() {
		assert.NoError(t, schema.Drop(context.WithoutCancel(t.Context()), cfg, quiet()))
	})
	return cfg
}

func testHosts(t *testing.T) []string { return testenv.CassandraHosts(t) }

var twoAndTwo = cassandra.Replication{"dc1": 2, "dc2": 2}

func quiet() logrus.FieldLogger {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	return logger
}

// shared is one keyspace for all tests that only write rows, because creating a keyspace takes a dozen seconds. Each test
// uses names of its own.
var shared struct {
	once   sync.Once
	config cassandra.Config
	err    error
}

func TestMain(m *testing.M) {
	status := m.Run()
	if shared.config.Keyspace != "" {
		if err := schema.Drop(context.Background(), shared.config, quiet()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = max(status, 1)
		}
	}
	os.Exit(status)
}

// realStore opens the shared keyspace with reads at ALL, so that a test sees its writes.
func realStore(t *testing.T) (*cassandra.Store, *prometheus.Registry) {
	hosts := testHosts(t)
	shared.once.Do(func() {
		shared.config = cassandra.Config{Hosts: hosts, Keyspace: fmt.Sprintf("test_%08x", rand.Uint32()), LocalDC: "dc1", ReadConsistency: "ALL"}
		shared.err = schema.Apply(t.Context(), shared.config, twoAndTwo, quiet())
	})
	require.NoError(t, shared.err)
	reg := prometheus.NewRegistry()
	s, err := cassandra.Open(t.Context(), shared.config, quiet(), reg)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s, reg
}

func ptr[T any](v T) *T { return &v }

// midnight is the latest UTC midnight at least a minute ago.
func midnight() time.Time { return time.Now().Add(-time.Minute).UTC().Truncate(24 * time.Hour) }

// requests counts the requests sent to nodes.
func requests(t *testing.T, reg *prometheus.Registry) (n float64) {
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "cassandra_requests_total" {
			for _, m := range f.GetMetric() {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}
