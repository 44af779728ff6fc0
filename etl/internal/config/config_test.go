package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDefaultsAreValid(t *testing.T) {
	c, err := FromEnvironment()
	require.NoError(t, err)
	require.Equal(t, []string{"127.0.0.1"}, c.CassandraHosts)
	require.Equal(t, "streaming", c.Mode)
	require.Equal(t, []string{"generator"}, c.Sources)
	require.Equal(t, 50, c.GeneratorVehicles)
	require.Equal(t, 5*time.Second, c.GeneratorInterval)
	require.Equal(t, ":9464", c.MetricsAddress)
	require.Equal(t, filepath.Join(c.StateDir, "deadletters"), c.DeadLetterDir)
}

func TestEverySettingHasADescription(t *testing.T) {
	c, err := FromEnvironment()
	require.NoError(t, err)
	names := map[string]bool{}
	for _, s := range c.Settings() {
		require.Regexp(t, `^(CASSANDRA|ETL|KAFKA|LOG)_[A-Z_]+$`, s.Variable)
		require.False(t, names[s.Variable], "%s is defined twice", s.Variable)
		names[s.Variable] = true
		require.True(t, strings.HasSuffix(s.Description, "."), "%s: %q must end with a period", s.Variable, s.Description)
		require.Equal(t, s.Default, s.Value[:min(len(s.Value), len(s.Default))], "%s: the default must apply", s.Variable)
	}
	for _, fixed := range []string{"CASSANDRA_HOSTS", "CASSANDRA_KEYSPACE", "CASSANDRA_DC", "ETL_MODE", "LOG_LEVEL", "ETL_STATE_DIR"} {
		require.True(t, names[fixed], fixed)
	}
}

func TestInvalidValuesAreRejectedByName(t *testing.T) {
	for variable, values := range map[string][]string{
		"ETL_MODE":                  {"stream", ""},
		"LOG_LEVEL":                 {"loud"},
		"ETL_SOURCES":               {"kafka9"},
		"ETL_FLEETS":                {"fleet 1"},
		"ETL_STATE_DIR":             {""},
		"CASSANDRA_PORT":            {"0", "70000", "nine"},
		"CASSANDRA_TIMEOUT":         {"5", "1ms"},
		"CASSANDRA_TLS":             {"perhaps"},
		"CASSANDRA_TLS_CERT_FILE":   {"only.pem"},
		"CASSANDRA_CONNECTIONS":     {"0"},
		"CASSANDRA_HOSTS":           {"a,,b", ","},
		"CASSANDRA_KEYSPACE":        {""},
		"CASSANDRA_TLS_CA_FILE":     {"ca.pem"},
		"CASSANDRA_CONNECT_WAIT":    {"-5s"},
		"ETL_BUFFER_RECORDS":        {"0", "-1", "many"},
		"ETL_BATCH_ROWS":            {"0"},
		"ETL_MAX_IN_FLIGHT":         {"0"},
		"ETL_RETRY_RATE":            {"0", "NaN", "x"},
		"ETL_LINGER":                {"-1s", "soon"},
		"ETL_LOAD_LINGER":           {"-1s"},
		"ETL_DRAIN_TIMEOUT":         {"1ms"},
		"ETL_DEVICES_IN_MEMORY":     {"0"},
		"ETL_DEDUPE_RECORDS":        {"0"},
		"ETL_QUEUE_BATCHES":         {"0"},
		"ETL_DEAD_LETTER_MAX_BYTES": {"10"},
		"KAFKA_TOPICS":              {"t,,u"},
		"KAFKA_START":               {"middle"},
		"KAFKA_GROUP":               {""},
		"KAFKA_FETCH_MAX_BYTES":     {"1", "1073741824"},
		"KAFKA_BATCH_RECORDS":       {"-1"},
		"KAFKA_COMMIT_INTERVAL":     {"-1s"},
		"KAFKA_REVOKE_WAIT":         {"-1s"},
		"KAFKA_SESSION_TIMEOUT":     {"-1s"},
		"ETL_GENERATOR_VEHICLES":    {"0"},
		"ETL_GENERATOR_INTERVAL":    {"0s"},
		"ETL_GENERATOR_LATE":        {"1.5"},
		"ETL_GENERATOR_DUPLICATE":   {"-0.1"},
		"ETL_GENERATOR_BROKEN":      {"NaN"},
	} {
		for _, value := range values {
			t.Run(variable+"="+value, func(t *testing.T) {
				t.Setenv(variable, value)
				_, err := FromEnvironment()
				require.ErrorContains(t, err, variable)
				require.ErrorContains(t, err, value)
			})
		}
	}
}

func TestAllInvalidValuesAreReportedTogether(t *testing.T) {
	t.Setenv("ETL_MODE", "x")
	t.Setenv("ETL_BATCH_ROWS", "0")
	_, err := FromEnvironment()
	require.ErrorContains(t, err, "ETL_MODE")
	require.ErrorContains(t, err, "ETL_BATCH_ROWS")
}

func TestSecretsComeFromFilesAndStayHidden(t *testing.T) {
	path := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(path, []byte(" s3cret \n"), 0o600))
	t.Setenv("CASSANDRA_USERNAME", "writer")
	t.Setenv("CASSANDRA_PASSWORD_FILE", path)
	c, err := FromEnvironment()
	require.NoError(t, err)
	require.Equal(t, " s3cret ", c.CassandraPassword, "only the trailing newline is removed")
	for _, s := range c.Settings() {
		require.NotContains(t, s.Value, "s3cret")
		if s.Variable == "CASSANDRA_PASSWORD" {
			require.Equal(t, "(hidden)", s.Value)
			require.Contains(t, s.Description, "CASSANDRA_PASSWORD_FILE")
		}
	}

	t.Setenv("CASSANDRA_PASSWORD", "another")
	_, err = FromEnvironment()
	require.ErrorContains(t, err, "CASSANDRA_PASSWORD and CASSANDRA_PASSWORD_FILE")
	require.NotContains(t, err.Error(), "another")

	t.Setenv("CASSANDRA_PASSWORD", "")
	t.Setenv("CASSANDRA_PASSWORD_FILE", path+".absent")
	_, err = FromEnvironment()
	require.ErrorContains(t, err, "CASSANDRA_PASSWORD_FILE")
}
