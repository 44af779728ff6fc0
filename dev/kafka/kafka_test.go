package kafka

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/dev/process"
	"github.com/fleettracing/fleet-tracing/dev/testenv"
)

// open opens a broker with its settings in the environment.
func open(t *testing.T, dir, port string, out io.Writer) *Broker {
	t.Helper()
	t.Setenv("DEV_KAFKA_DIR", dir)
	t.Setenv("DEV_KAFKA_PORT", port)
	b, err := Open(out)
	require.NoError(t, err)
	return b
}

func TestBrokerLifecycle(t *testing.T) {
	testenv.KafkaBrokers(t)
	ctx := t.Context()
	var out bytes.Buffer
	dir := t.TempDir()
	b := open(t, dir, "29092", &out)
	t.Cleanup(func() { assert.NoError(t, b.Down(context.Background(), true)) })
	serves := func(b *Broker) bool {
		t.Helper()
		up, err := b.Status(ctx)
		require.NoError(t, err)
		return up
	}

	require.False(t, serves(b))
	require.NoError(t, b.Up(ctx))
	require.True(t, serves(b))
	require.NoError(t, b.CreateTopic(ctx, "kept", 3))
	require.NoError(t, b.CreateTopic(ctx, "kept", 3), "it exists")
	_, pid, err := b.server().State()
	require.NoError(t, err)

	other := open(t, dir, "29092", &out)
	require.NoError(t, other.Up(ctx))
	_, same, err := other.server().State()
	require.NoError(t, err)
	assert.Equal(t, pid, same, "a second up started another broker")
	assert.ErrorContains(t, open(t, dir, "29192", &out).Up(ctx), "runs on another port than 29192")

	require.NoError(t, b.Kill(ctx))
	require.False(t, serves(b))
	require.NoError(t, b.Up(ctx))
	out.Reset()
	require.True(t, serves(b))
	assert.Contains(t, out.String(), "kept: 3 partitions")

	require.NoError(t, b.Down(ctx, false))
	require.False(t, serves(b))
	require.NoError(t, process.PortsFree(b.server().Ports...))
}

func TestUpQuotesTheErrorOfTheBroker(t *testing.T) {
	dir := t.TempDir()
	java := filepath.Join(dir, "bin", "java")
	require.NoError(t, os.MkdirAll(filepath.Dir(java), 0o755))
	require.NoError(t, os.WriteFile(java, []byte(`#!/bin/sh
case "$*" in
-version) echo 'openjdk version "21.0.1"' >&2 ;;
*StorageTool*) exit 0 ;;
*) echo '[2026-05-01] INFO starting'; echo '[2026-05-01] ERROR the disk is full (kafka.Kafka)'; echo '	at kafka.Kafka.main'; exit 3 ;;
esac
`), 0o755))
	t.Setenv("JAVA_HOME", dir)
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache"))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "cache", "fleet-tracing", "kafka-"+kafkaVersion), 0o755))
	b := open(t, filepath.Join(dir, "kafka"), "29292", io.Discard)
	err := b.Up(t.Context())
	require.ErrorContains(t, err, "start kafka: it has ended (exit status 3)")
	assert.ErrorContains(t, err, "the disk is full")
	assert.NotContains(t, err.Error(), "INFO")
	assert.NotContains(t, err.Error(), "at kafka.Kafka.main")
	runs, err := b.Runs()
	require.NoError(t, err)
	assert.False(t, runs)
}

func TestUpNamesThePortInUse(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	err = open(t, t.TempDir(), port, io.Discard).Up(t.Context())
	require.ErrorContains(t, err, l.Addr().String()+", of kafka, is in use")
	assert.ErrorContains(t, err, "DEV_KAFKA_PORT")
}

func TestInvalidSettingsAreRejected(t *testing.T) {
	for name, c := range map[string]struct{ variable, value, want string }{
		"port":   {"DEV_KAFKA_PORT", "65534", "DEV_KAFKA_PORT=65534: want 1 to 65533"},
		"number": {"DEV_KAFKA_PORT", "many", "assigning DEV_KAFKA_PORT to Port: converting 'many' to type int"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(c.variable, c.value)
			_, err := Open(io.Discard)
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestJavaVersionIsChecked(t *testing.T) {
	for name, c := range map[string]struct{ script, want string }{
		"17":   {`echo 'openjdk version "17.0.15" 2025-04-15' >&2`, ""},
		"25":   {`echo 'openjdk version "25" 2025-09-16' >&2`, ""},
		"11":   {`echo 'openjdk version "11.0.2" 2019-01-15' >&2`, "is Java 11, and Kafka " + kafkaVersion + " runs on 17"},
		"8":    {`echo 'java version "1.8.0_292"' >&2`, "is Java 8"},
		"mute": {`exit 0`, "no version"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "bin"), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "bin", "java"), []byte("#!/bin/sh\n"+c.script), 0o755))
			t.Setenv("JAVA_HOME", dir)
			_, err := program.Find(t.Context())
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
			assert.ErrorContains(t, err, "apt-get install openjdk-17-jdk-headless")
		})
	}
}

func TestInvalidPIDFileIsReported(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir, "19092", io.Discard)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "pid"), []byte("rubbish"), 0o600))
	_, err := b.Runs()
	require.ErrorContains(t, err, "is not a pid and a start time")
}
