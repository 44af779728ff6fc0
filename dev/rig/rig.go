// Package rig gives tests the running platform: a keyspace on the real cluster and its nodes, fleet-etl and the data
// source as the programs that users run, and ways to have within seconds what people wait minutes for.
package rig

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/monitoring"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

// Replication is that of the tests' keyspaces: CASSANDRA_REPLICATION, or two copies in each of two data centres.
func Replication(t testing.TB) cassandra.Replication {
	parsed, err := cassandra.ParseReplication(cmp.Or(os.Getenv("CASSANDRA_REPLICATION"), "dc1=2,dc2=2"))
	require.NoError(t, err)
	return parsed
}

// Quiet is a logger that nobody hears.
func Quiet() logrus.FieldLogger {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	return logger
}

// keyspace is that of all tests that use this package: to make one takes a dozen seconds and to drop it longer, to empty it
// a few. It stays in a cluster that stays.
const keyspace = "test_rig"

// ours keeps the keyspace to this process, until it ends.
var ours struct {
	sync.Mutex
	unlock func()
}

// Hosts are the nodes that CASSANDRA_TEST_HOSTS names. Without them the test is skipped.
func Hosts(t testing.TB) []string {
	hosts := os.Getenv("CASSANDRA_TEST_HOSTS")
	if hosts == "" {
		t.Skip("needs a real cluster: run make integration, or set CASSANDRA_TEST_HOSTS for the one of go run ./dev cluster up")
	}
	return strings.Split(hosts, ",")
}

// Keyspace is an empty keyspace with all tables, for a test that shares it with no other: tests of another package wait.
func Keyspace(t testing.TB) cassandra.Config {
	config := cassandra.Config{Hosts: Hosts(t), Keyspace: keyspace, LocalDC: "dc1"}
	ours.Lock()
	defer ours.Unlock()
	if ours.unlock == nil {
		root, err := cluster.RepositoryRoot()
		require.NoError(t, err)
		ours.unlock, err = process.Lock(t.Context(), filepath.Join(root, ".dev", "test-keyspace"), func(holder string) {
			t.Log("waiting for process", holder, "which has the tests' keyspace")
		})
		require.NoError(t, err)
		copies := Replication(t)
		differences, err := cassandra.CheckSchema(t.Context(), config, copies, Quiet())
		if err != nil || len(differences) > 0 { // there is none, or one of another version
			require.NoError(t, cassandra.DropKeyspace(t.Context(), config, Quiet()))
			require.NoError(t, cassandra.ApplySchema(t.Context(), config, copies, Quiet()))
			return config
		}
	}
	require.NoError(t, cassandra.Truncate(t.Context(), config, Quiet()))
	return config
}

// Cluster is the cluster of go run ./dev cluster up, for tests that scrape its nodes, kill or pause them. All nodes run, or
// the test is skipped.
func Cluster(t testing.TB) (*cluster.Cluster, []monitoring.Node) {
	config, err := cluster.DefaultConfig()
	require.NoError(t, err)
	c, err := cluster.Open(config)
	require.NoError(t, err)
	nodes, err := c.Nodes()
	require.NoError(t, err)
	perDC := map[string]int{}
	var scraped []monitoring.Node
	for _, n := range nodes {
		if n.State != cluster.Running {
			t.Skipf("needs all nodes of the cluster of go run ./dev cluster up; %s is %s", n, n.State)
		}
		perDC[n.DC]++
		scraped = append(scraped, monitoring.Node{Address: n.Metrics().String(), DC: n.DC, Name: fmt.Sprintf("cassandra-%s-node%d", n.DC, perDC[n.DC])})
	}
	if perDC["dc1"] != 2 || perDC["dc2"] != 2 {
		t.Skipf("needs two data centres of two nodes; there are %v", perDC)
	}
	return c, scraped
}

// NeedMonitoring skips a test where there is no Prometheus or no Alertmanager.
func NeedMonitoring(t testing.TB) {
	_, noPrometheus := monitoring.FindPrometheus()
	_, noAlertmanager := monitoring.FindAlertmanager()
	if err := errors.Join(noPrometheus, noAlertmanager); err != nil {
		t.Skip(err)
	}
}

// EndWith stops a program when the test ends, and shows its log when the test has failed.
func EndWith(t testing.TB, p *monitoring.Process) {
	t.Cleanup(func() {
		assert.NoError(t, p.Stop(context.WithoutCancel(t.Context())))
		if t.Failed() {
			t.Log(p.Name, Tail(p.LogFile))
		}
	})
}

// Tail is the end of a log.
func Tail(path string) string {
	text, err := process.ReadLog(path, 0)
	if err != nil {
		return err.Error()
	}
	return process.LastLines(text, 40)
}

// Hasten gives a change of files for monitoring.Options.Edit: of each file, old texts and new ones in turn. Each old one
// must be there.
func Hasten(t testing.TB, changes map[string][]string) func(file, text string) string {
	return func(file, text string) string {
		for i, c := 0, changes[filepath.ToSlash(file)]; i < len(c); i += 2 {
			assert.Contains(t, text, c[i], "%s: this test hastens it", file)
			text = strings.ReplaceAll(text, c[i], c[i+1])
		}
		return text
	}
}

// FreeAddresses are so many addresses, host:port, that nothing listens on.
func FreeAddresses(t testing.TB, n int) (addresses []string) {
	for range n {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer listener.Close() // all are held until all are found
		addresses = append(addresses, listener.Addr().String())
	}
	return addresses
}

// Get is what a URL answers.
func Get(ctx context.Context, url string) (status int, body []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	return response.StatusCode, body, err
}

// Taxis is the file of a real day of Wuxi's taxis, where it is at hand. Else the test is skipped.
func Taxis(t testing.TB) string {
	root, err := cluster.RepositoryRoot()
	require.NoError(t, err)
	path := filepath.Join(root, "..", "shared", "data", "wuxi_taxis.csv")
	if _, err := os.Stat(path); err != nil {
		t.Skip("needs the recording wuxi_taxis.csv in ../shared/data, which is not here")
	}
	return path
}
