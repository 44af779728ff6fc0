package cassandra

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestOpenWithoutContactPoints(t *testing.T) {
	_, err := Open(t.Context(), Config{Keyspace: "k"}, quiet(), nil)
	const want = "connect to Cassandra: no contact points; set CASSANDRA_HOSTS"
	require.EqualError(t, err, want)
	_, err = Connect(t.Context(), Config{}, "", quiet())
	require.EqualError(t, err, want)
}

func TestOpenOfAnUnreachableClusterAdvisesToWait(t *testing.T) {
	cfg := Config{Hosts: []string{"127.0.0.1:1", "127.0.0.1:2"}, Keyspace: "k", ConnectTimeout: time.Second}
	_, err := Open(t.Context(), cfg, quiet(), nil)
	require.ErrorContains(t, err, "connect to Cassandra at 127.0.0.1:1, 127.0.0.1:2: no_hosts: no contact point answers; last error: ")
	require.Equal(t, Wait, ReasonOf(err).Advice())

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cfg.LocalDC = "dc1"
	_, err = Open(ctx, cfg, quiet(), nil)
	require.Equal(t, ReasonCanceled, ReasonOf(err))
}

func TestConnectErrorNamesTheSettingsOfTheLogin(t *testing.T) {
	cfg := Config{Hosts: []string{"h"}, Settings: map[string]string{"CASSANDRA_USERNAME": "User"}}
	err := connectError(cfg, errors.New("gocql: authentication required (using ...)"), nil)
	require.ErrorContains(t, err, "set User and CASSANDRA_PASSWORD")
	require.Equal(t, ReasonUnauthorized, ReasonOf(err))
	err = connectError(cfg, errors.New("no hosts"), requestError{0x0100})
	require.Equal(t, ReasonUnauthorized, ReasonOf(err), "the reason of the last connection")
	require.Equal(t, ReasonNoHosts, ReasonOf(connectError(cfg, errors.New("no hosts"), nil)))
}
