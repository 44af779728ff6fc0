package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// write creates a file with the given contents.
func write(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestSecretFilesLoseTheirTrailingNewlines(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"no newline":      {"s3cret", "s3cret"},
		"newline":         {"s3cret\n", "s3cret"},
		"CRLF":            {"s3cret\r\n", "s3cret"},
		"several":         {"s3cret\n\n", "s3cret"},
		"spaces are kept": {"\ts3 cret \n", "\ts3 cret "},
		"an empty file":   {"", ""},
		"newline inside":  {"s3\ncret\n", "s3\ncret"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("CASSANDRA_USERNAME_FILE", write(t, c.text))
			t.Setenv("CASSANDRA_PASSWORD_FILE", write(t, "x"+c.text))
			got, err := FromEnvironment()
			require.NoError(t, err)
			assert.Equal(t, c.want, got.CassandraUsername)
			assert.Equal(t, "x"+c.want, got.CassandraPassword)
		})
	}
}

func TestUnreadableSecretFilesAreNamed(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	t.Setenv("CASSANDRA_USERNAME", "writer")
	t.Setenv("CASSANDRA_USERNAME_FILE", write(t, "reader"))
	t.Setenv("CASSANDRA_PASSWORD_FILE", missing)
	t.Setenv("ETL_BATCH_ROWS", "0")
	_, err := FromEnvironment()
	assert.ErrorContains(t, err, "CASSANDRA_USERNAME and CASSANDRA_USERNAME_FILE: both are set")
	assert.ErrorContains(t, err, "CASSANDRA_PASSWORD_FILE: ")
	assert.ErrorContains(t, err, missing)
	assert.ErrorContains(t, err, "ETL_BATCH_ROWS", "other errors are reported too")
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestSettingsShowCurrentValues(t *testing.T) {
	for variable, value := range map[string]string{
		"CASSANDRA_HOSTS": "10.0.0.1,10.0.0.2:9043", "CASSANDRA_USERNAME": "writer", "ETL_LINGER": "1500ms", "ETL_BATCH_ROWS": "7",
		"ETL_RETRY_RATE": "2.5", "ETL_PPROF": "true", "ETL_FLEETS": "a,b", "ETL_STATE_DIR": "/data", "ETL_METRICS_ADDRESS": "",
	} {
		t.Setenv(variable, value)
	}
	c, err := FromEnvironment()
	require.NoError(t, err)
	shown := map[string]Setting{}
	for _, s := range c.Settings() {
		shown[s.Variable] = s
	}
	for variable, want := range map[string]string{
		"CASSANDRA_HOSTS": "10.0.0.1,10.0.0.2:9043", "CASSANDRA_USERNAME": "writer", "ETL_LINGER": "1.5s", "ETL_BATCH_ROWS": "7",
		"ETL_RETRY_RATE": "2.5", "ETL_PPROF": "true", "ETL_FLEETS": "a,b", "ETL_DEAD_LETTER_DIR": "/data/deadletters", "ETL_METRICS_ADDRESS": "",
		"CASSANDRA_PASSWORD": "", // an empty secret shows as empty
		"CASSANDRA_PORT":     "9042",
	} {
		assert.Equal(t, want, shown[variable].Value, variable)
	}
	assert.Equal(t, ":9464", shown["ETL_METRICS_ADDRESS"].Default, "the default is shown too")
	assert.Equal(t, []string{"10.0.0.1", "10.0.0.2:9043"}, c.CassandraHosts)
}

func TestEveryFieldIsASetting(t *testing.T) {
	var c Config
	var described []string
	for _, s := range c.Settings() {
		assert.Greater(t, len(s.Description), 12, "%s: say what it does", s.Variable)
		described = append(described, s.Variable)
	}
	assert.Len(t, described, reflect.TypeFor[Config]().NumField())
	assert.False(t, slices.Contains(described, ""), "a field without a variable")
}

func TestDeadLetterDirectoryDefaultsToStateDirectory(t *testing.T) {
	for name, c := range map[string]struct{ state, deadLetters, want string }{
		"default":                  {"/data", "", "/data/deadletters"},
		"explicit":                 {"/data", "/dead", "/dead"},
		"relative state directory": {"var/x", "", "var/x/deadletters"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("ETL_STATE_DIR", c.state)
			t.Setenv("ETL_DEAD_LETTER_DIR", c.deadLetters)
			got, err := FromEnvironment()
			require.NoError(t, err)
			assert.Equal(t, c.want, got.DeadLetterDir)
		})
	}
}

// The smallest and largest accepted values, and the values just beyond them.
func TestBoundsOfSettings(t *testing.T) {
	for variable, c := range map[string]struct{ good, bad []string }{
		"CASSANDRA_PORT":            {[]string{"1", "65535"}, []string{"0", "65536", "-1"}},
		"CASSANDRA_TIMEOUT":         {[]string{"100ms"}, []string{"99ms", "-5s"}},
		"CASSANDRA_CONNECTIONS":     {[]string{"1"}, []string{"0"}},
		"CASSANDRA_HOSTS":           {[]string{"a"}, []string{""}},
		"ETL_RETRY_RATE":            {[]string{"0.1"}, []string{"0", "-1"}},
		"ETL_LINGER":                {[]string{"0s", "0"}, []string{"-1ns"}},
		"ETL_DRAIN_TIMEOUT":         {[]string{"1s"}, []string{"999ms"}},
		"ETL_DEAD_LETTER_MAX_BYTES": {[]string{"16777216"}, []string{"16777215"}},
		"ETL_GENERATOR_INTERVAL":    {[]string{"1ms"}, []string{"999us"}},
		"ETL_GENERATOR_LATE":        {[]string{"0", "1"}, []string{"-0.001", "1.001", "NaN"}},
		"ETL_GENERATOR_SEED":        {[]string{"0", "18446744073709551615"}, []string{"-1", "18446744073709551616"}},
		"ETL_FLEETS":                {[]string{"", "a", "a,b.c:d_e-f"}, []string{"a,", "a,b c"}},
		"ETL_MODE":                  {[]string{"batch", "streaming"}, []string{"Batch"}},
		"LOG_LEVEL":                 {[]string{"debug", "info", "warn", "error"}, []string{"trace", "warning"}},
	} {
		for _, value := range c.good {
			t.Run(variable+"="+value, func(t *testing.T) {
				t.Setenv(variable, value)
				_, err := FromEnvironment()
				assert.NoError(t, err)
			})
		}
		for _, value := range c.bad {
			t.Run(variable+"="+value+" is rejected", func(t *testing.T) {
				t.Setenv(variable, value)
				_, err := FromEnvironment()
				require.ErrorContains(t, err, variable)
				assert.NotErrorIs(t, err, os.ErrNotExist)
			})
		}
	}
}

func TestParseErrorsNameTheExpectedType(t *testing.T) {
	for variable, c := range map[string]struct{ value, want string }{
		"ETL_LINGER":     {"soon", `ETL_LINGER "soon": not a duration such as 200ms or 5s; its default is 200ms`},
		"ETL_BATCH_ROWS": {"ten", `ETL_BATCH_ROWS "ten": not a whole number; its default is 100`},
		"ETL_RETRY_RATE": {"fast", `ETL_RETRY_RATE "fast": not a number; its default is 100`},
		"CASSANDRA_TLS":  {"maybe", `CASSANDRA_TLS "maybe": not a boolean, true or false; its default is false`},
		"CASSANDRA_PORT": {"", `CASSANDRA_PORT "": not a whole number; its default is 9042`},
	} {
		t.Run(variable, func(t *testing.T) {
			t.Setenv(variable, c.value)
			_, err := FromEnvironment()
			assert.EqualError(t, err, c.want)
		})
	}
}

func TestCertificateAndKeyMustBothBeSet(t *testing.T) {
	for name, variable := range map[string]string{"certificate alone": "CASSANDRA_TLS_CERT_FILE", "key alone": "CASSANDRA_TLS_KEY_FILE"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(variable, "some.pem")
			_, err := FromEnvironment()
			assert.ErrorContains(t, err, "CASSANDRA_TLS_CERT_FILE")
			assert.ErrorContains(t, err, "CASSANDRA_TLS_KEY_FILE")
		})
	}
}
