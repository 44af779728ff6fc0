package app

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/config"
)

// settings are those of an App with an HTTP API, whose Cassandra refuses connections.
func settings(t *testing.T) *config.Config {
	t.Helper()
	for variable, value := range map[string]string{
		"CASSANDRA_HOSTS": "127.0.0.1:1", "ETL_SOURCES": "api", "ETL_API_ADDRESS": "127.0.0.1:0", "ETL_API_OPEN_FLEET": "fleet-001",
		"ETL_METRICS_ADDRESS": "127.0.0.1:0", "ETL_STATE_DIR": t.TempDir(), "ETL_RELOAD_INTERVAL": "0",
	} {
		t.Setenv(variable, value)
	}
	c, err := config.FromEnvironment()
	require.NoError(t, err)
	return c
}

func newTestApp(c *config.Config) (*App, error) {
	logger, _ := test.NewNullLogger()
	return New(c, logger, prometheus.NewRegistry())
}

func TestAppStopsBeforeCassandraIsReached(t *testing.T) {
	a, err := newTestApp(settings(t))
	require.NoError(t, err)
	a.Start()
	response, err := http.Get("http://" + a.Addr().String() + "/-/ready")
	require.NoError(t, err)
	require.Equal(t, http.StatusServiceUnavailable, response.StatusCode)
	require.NoError(t, response.Body.Close())
	select {
	case <-a.Done():
		t.Fatal("the App ended without Stop")
	default:
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, a.Stop(ctx))
	require.NoError(t, ctx.Err(), "Stop did not wait for Cassandra")
	require.ErrorIs(t, a.Ready(t.Context()), errStopping)
	requireFree(t, a.Addr(), a.APIAddr())
}

func TestAppReloadsAllFilesTogether(t *testing.T) {
	c := settings(t)
	c.AlertRulesFile = filepath.Join(t.TempDir(), "rules.yml")
	text, err := os.ReadFile("../../../data/alert-rules.yml")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(c.AlertRulesFile, text, 0o600))
	a, err := newTestApp(c)
	require.NoError(t, err)
	a.Start()
	defer func() { require.NoError(t, a.Stop(t.Context())) }()
	before := a.rules.current.Load()
	require.NoError(t, a.Reload())
	require.NotSame(t, before, a.rules.current.Load())

	before = a.rules.current.Load()
	require.NoError(t, os.WriteFile(c.AlertRulesFile, nil, 0o600))
	require.ErrorContains(t, a.Reload(), c.AlertRulesFile, "an empty rules file is an error")
	require.Same(t, before, a.rules.current.Load())
}

func TestFailedNewReleasesEverything(t *testing.T) {
	c := settings(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c.APIAddress, c.MetricsAddress = free.Addr().String(), taken.Addr().String()
	require.NoError(t, free.Close())
	_, err = newTestApp(c)
	require.ErrorContains(t, err, "ETL_METRICS_ADDRESS")
	requireFree(t, free.Addr())

	c.MetricsAddress = ""
	a, err := newTestApp(c) // the spool is not locked either
	require.NoError(t, err)
	require.Nil(t, a.Addr())
	a.Start()
	require.NoError(t, a.Stop(t.Context()))
}

func requireFree(t *testing.T, addresses ...net.Addr) {
	t.Helper()
	for _, address := range addresses {
		l, err := net.Listen("tcp", address.String())
		require.NoError(t, err)
		require.NoError(t, l.Close())
	}
}
