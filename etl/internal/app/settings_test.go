package app

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/config"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/source/kafka"
	"github.com/fleettracing/fleet-tracing/etl/internal/writer"
)

func writeFile(t *testing.T, contents string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, []byte(contents), 0o600))
	return path
}

func TestUnreadableTLSFilesAreNamed(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.pem")
	for _, variable := range []string{"CASSANDRA_TLS_CA_FILE", "CASSANDRA_TLS_CERT_FILE", "CASSANDRA_TLS_KEY_FILE"} {
		t.Run(variable, func(t *testing.T) {
			t.Setenv("CASSANDRA_TLS", "true")
			t.Setenv("CASSANDRA_TLS_CERT_FILE", writeFile(t, "x"))
			t.Setenv("CASSANDRA_TLS_KEY_FILE", writeFile(t, "x"))
			t.Setenv(variable, missing)
			c, err := config.FromEnvironment()
			require.NoError(t, err)
			_, err = cassandraConfig(c)
			require.ErrorContains(t, err, variable+": ")
			require.ErrorContains(t, err, missing)
		})
	}
}

func TestTLSServerNameAndAuthorities(t *testing.T) {
	t.Setenv("CASSANDRA_TLS", "true")
	t.Setenv("CASSANDRA_TLS_SERVER_NAME", "nodes.example")
	c, err := config.FromEnvironment()
	require.NoError(t, err)
	store, err := cassandraConfig(c)
	require.NoError(t, err)
	require.NotNil(t, store.TLS)
	require.Equal(t, "nodes.example", store.TLS.ServerName)
	require.False(t, store.TLS.InsecureSkipVerify, "unless it is asked for")
	require.Nil(t, store.TLS.RootCAs, "the system's")
}

func TestInvalidTLSFilesAreNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca.pem")
	t.Setenv("CASSANDRA_TLS", "true")
	t.Setenv("CASSANDRA_TLS_CA_FILE", path)
	c, err := config.FromEnvironment()
	require.NoError(t, err)
	_, err = cassandraConfig(c)
	require.ErrorContains(t, err, "CASSANDRA_TLS_CA_FILE")
	require.NoError(t, os.WriteFile(path, []byte("no certificate"), 0o600))
	_, err = cassandraConfig(c)
	require.ErrorContains(t, err, "no PEM certificate")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	_, err = cassandraConfig(c)
	require.ErrorContains(t, err, "the file is empty", "which must not mean the system's authorities")
}

func TestReplicationIsChecked(t *testing.T) {
	wanted := func(value string) error {
		t.Setenv("CASSANDRA_REPLICATION", value)
		c, err := config.FromEnvironment()
		require.NoError(t, err)
		_, _, err = (&program{config: c}).schemaSettings()
		return err
	}
	for _, value := range []string{"dc1=1", "dc1=2, dc2=3"} {
		require.NoError(t, wanted(value))
	}
	for _, value := range []string{"", "2", "dc1", "dc1=0", "dc1=2,dc1=2", "dc1=-1"} {
		err := wanted(value)
		require.ErrorContains(t, err, "CASSANDRA_REPLICATION")
		require.ErrorContains(t, err, value)
	}
}

func TestDefaultsOfParts(t *testing.T) {
	c, err := config.FromEnvironment()
	require.NoError(t, err)
	store, wanted, err := (&program{config: c}).schemaSettings()
	require.NoError(t, err)
	require.Equal(t, cassandra.Replication{"dc1": 2, "dc2": 2}, wanted)
	require.Nil(t, store.TLS)
	require.Equal(t, writer.Options{BatchRows: 100, DevicesKept: 200_000}, writerOptions(c))
	require.Equal(t, executor.Options{MaxInFlight: 128, RetryRate: 100}, executorOptions(c))
}

func TestSettingsAcceptWhatThePartsAccept(t *testing.T) {
	for _, mechanism := range kafka.Mechanisms {
		t.Setenv("KAFKA_SASL_MECHANISM", mechanism)
		_, err := config.FromEnvironment()
		require.NoError(t, err)
	}
}

func TestAPISourceNeedsTokensOrAnOpenFleet(t *testing.T) {
	t.Setenv("ETL_SOURCES", "api")
	c, err := config.FromEnvironment() // fleet-etl token, which makes the tokens, runs with these settings
	require.NoError(t, err)
	c.StateDir, c.SpoolDir = t.TempDir(), t.TempDir()
	_, err = newTestApp(c)
	require.ErrorContains(t, err, "ETL_API_TOKENS_FILE: set it to a tokens file (fleet-etl token creates one), or set ETL_API_OPEN_FLEET")
}
