package cache

import (
	"context"
	"io"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/dev/testenv"
)

// redisServer is the Redis of one test.
type redisServer struct {
	t       *testing.T
	address string
	process *exec.Cmd
}

func startRedis(t *testing.T) *redisServer {
	testenv.Program(t, testenv.Redis, "redis-server", "redis-server")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &redisServer{t: t, address: listener.Addr().String()}
	require.NoError(t, listener.Close())
	s.start()
	t.Cleanup(s.kill)
	return s
}

// start runs the server and waits until it answers.
func (s *redisServer) start() {
	_, port, err := net.SplitHostPort(s.address)
	require.NoError(s.t, err)
	s.process = exec.Command("redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--requirepass", "secret", "--dir", s.t.TempDir())
	require.NoError(s.t, s.process.Start())
	client := redis.NewClient(&redis.Options{Addr: s.address, Password: "secret", MaxRetries: -1})
	defer client.Close()
	require.Eventually(s.t, func() bool { return client.Ping(context.WithoutCancel(s.t.Context())).Err() == nil }, 10*time.Second, 10*time.Millisecond)
}

func (s *redisServer) kill() {
	if s.process != nil {
		_ = s.process.Process.Kill()
		_ = s.process.Wait()
		s.process = nil
	}
}

func (s *redisServer) cache(o RedisOptions) *Redis {
	o.URL = "redis://:secret@" + s.address + "/0"
	c, err := NewRedis(o, silent(), prometheus.NewRegistry())
	require.NoError(s.t, err)
	s.t.Cleanup(func() { require.NoError(s.t, c.Close()) })
	return c
}

func silent() logrus.FieldLogger {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	return logger
}

func TestProcessesShareRedis(t *testing.T) {
	server := startRedis(t)
	first, second := server.cache(RedisOptions{Timeout: 5 * time.Second}), server.cache(RedisOptions{Timeout: 5 * time.Second})
	ctx := t.Context()
	for key, ttl := range map[string]time.Duration{"brief": 20 * time.Millisecond, "long": time.Hour} {
		first.Set(ctx, key, []byte("x"), ttl)
	}
	require.Eventually(t, func() bool { _, found := second.Get(ctx, "brief"); return !found }, 5*time.Second, 5*time.Millisecond)
	value, found := second.Get(ctx, "long")
	require.True(t, found)
	require.Equal(t, "x", string(value))
	require.Zero(t, testutil.ToFloat64(second.errors), "a missing key is not an error")
}

func TestStoppedRedisOpensBreaker(t *testing.T) {
	server := startRedis(t)
	// The timeout is long: a stopped server refuses connections at once, and a busy machine is not a slow Redis.
	cache := server.cache(RedisOptions{Timeout: 5 * time.Second, Pause: 2 * time.Second})
	ctx := t.Context()
	get := func() bool { _, found := cache.Get(ctx, "key"); return found }
	cache.Set(ctx, "key", []byte("x"), time.Hour)
	require.True(t, get())

	server.kill()
	for range 50 {
		require.False(t, get())
	}
	require.Equal(t, 5.0, testutil.ToFloat64(cache.errors), "five requests were tried, then the breaker opened")
	require.True(t, cache.paused())

	server.start()
	require.Eventually(t, func() bool {
		cache.Set(ctx, "key", []byte("x"), time.Hour)
		return get()
	}, 20*time.Second, 10*time.Millisecond, "the cache serves again after the pause")
	require.False(t, cache.paused())
	require.Equal(t, 5.0, testutil.ToFloat64(cache.errors))
}

func TestHangingRedisOpensBreaker(t *testing.T) {
	server := startRedis(t)
	cache := server.cache(RedisOptions{Timeout: 20 * time.Millisecond, Pause: time.Hour})
	require.NoError(t, server.process.Process.Signal(syscall.SIGSTOP))
	defer server.process.Process.Signal(syscall.SIGCONT)
	for range 50 {
		_, found := cache.Get(t.Context(), "key")
		require.False(t, found)
	}
	errors := testutil.ToFloat64(cache.errors)
	require.True(t, cache.paused())
	begin := time.Now()
	for range 1000 {
		_, found := cache.Get(t.Context(), "key")
		require.False(t, found)
	}
	require.Equal(t, errors, testutil.ToFloat64(cache.errors), "no request reached Redis")
	require.Less(t, time.Since(begin), 1000*20*time.Millisecond, "no request waited")
}

func TestCanceledCallerDoesNotCount(t *testing.T) {
	server := startRedis(t)
	cache := server.cache(RedisOptions{Timeout: 5 * time.Second})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		_, found := cache.Get(gone, "x")
		require.False(t, found)
	}
	require.False(t, cache.paused())
	require.Zero(t, testutil.ToFloat64(cache.errors))
}

func TestInvalidAddressKeepsSecret(t *testing.T) {
	for _, url := range []string{"", "localhost:6379", "http://:secret@localhost", "redis://:secret@local host:x/y"} {
		_, err := NewRedis(RedisOptions{URL: url}, silent(), prometheus.NewRegistry())
		require.ErrorContains(t, err, "redis://USER:PASSWORD@HOST:PORT/DATABASE", url)
		require.False(t, strings.Contains(err.Error(), "secret"), url)
	}
}
