package query

import (
	"context"
	"net"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/dev/testenv"
)

// redisServer is a Redis of a test's own.
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

// clock is the time of a cache's breaker.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func (s *redisServer) cache(timeout time.Duration, now *clock) *RedisCache {
	c, err := NewRedisCache(RedisOptions{URL: "redis://:secret@" + s.address + "/0", Timeout: timeout}, now.Now, silent(), prometheus.NewRegistry())
	require.NoError(s.t, err)
	s.t.Cleanup(func() { require.NoError(s.t, c.Close()) })
	return c
}

const closedDay = "/v1/devices/truck-1/track?from=2026-11-04T00:00:00Z&to=2026-11-04T23:59:59Z"

func TestProcessesShareRedis(t *testing.T) {
	server := startRedis(t)
	now := &clock{now: noon}
	caches := []*RedisCache{server.cache(5*time.Second, now), server.cache(5*time.Second, now)}
	stores := []*fakeStore{twoFleets(), twoFleets()}
	rigs := make([]*rig, 2)
	for i := range rigs {
		rigs[i] = newRig(t, stores[i], func(o *Options) { o.Cache = caches[i] })
	}
	first := rigs[0].get("all", closedDay)
	second := rigs[1].get("all", closedDay)
	require.Equal(t, 200, second.Code)
	require.Equal(t, first.Body.String(), second.Body.String())
	require.Equal(t, first.Header(), second.Header(), "a cached answer is the same in its headers, too")
	require.Zero(t, stores[1].asked(), "what the one read the other need not")
	require.Equal(t, 1.0, testutil.ToFloat64(rigs[1].api.metrics.hits))

	require.Equal(t, 200, rigs[1].get("a", closedDay).Code)
	require.Equal(t, 1, stores[1].asked(), "but never for another token's fleet")

	// An alert that one resolves is seen by the other, though it has just cached the list.
	stores[1].alerts = stores[0].alerts
	rigs[0].get("a", "/v1/fleets/fleet-a/alerts")
	rigs[1].get("a", "/v1/fleets/fleet-a/alerts")
	require.Equal(t, 200, rigs[0].do("POST", "all", "/v1/alerts/"+alertA+"/resolve").Code)
	seen, _ := items[alertItem](rigs[1], "a", "/v1/fleets/fleet-a/alerts")
	require.True(t, seen[0].Resolved)

	ctx := t.Context()
	for key, ttl := range map[string]time.Duration{"brief": 20 * time.Millisecond, "long": time.Hour} {
		caches[0].Set(ctx, key, []byte("x"), ttl)
	}
	require.Eventually(t, func() bool { _, found := caches[1].Get(ctx, "brief"); return !found }, 5*time.Second, 5*time.Millisecond)
	_, found := caches[1].Get(ctx, "long")
	require.True(t, found)
}

func TestRedisThatDiesCostsNothingButTheCache(t *testing.T) {
	server := startRedis(t)
	now := &clock{now: noon}
	cache := server.cache(5*time.Second, now) // long: what is killed refuses at once, and a busy machine is not slow Redis
	g := newRig(t, twoFleets(), func(o *Options) { o.Cache = cache })
	ask := func() *httptest.ResponseRecorder { return g.get("all", closedDay) }
	require.Equal(t, 200, ask().Code)
	require.Equal(t, 200, ask().Code)
	asked := g.store.asked()

	server.kill()
	for i := range 50 {
		require.Equal(t, 200, ask().Code)
		require.Equal(t, asked+i+1, g.store.asked(), "each is read from the store")
	}
	require.Equal(t, 5.0, testutil.ToFloat64(cache.errors), "Redis was tried five times, then left alone")
	require.Equal(t, 200, g.do("POST", "all", "/v1/alerts/"+alertA+"/resolve").Code)

	server.start()
	require.Equal(t, 200, ask().Code)
	require.Equal(t, 5.0, testutil.ToFloat64(cache.errors), "until the pause is over")
	now.forward(5 * time.Second)
	require.Equal(t, 200, ask().Code)
	asked = g.store.asked()
	require.Equal(t, 200, ask().Code)
	require.Equal(t, asked, g.store.asked(), "then it serves again")
}

func TestRedisThatHangsIsLeftAlone(t *testing.T) {
	server := startRedis(t)
	now := &clock{now: noon}
	cache := server.cache(20*time.Millisecond, now)
	g := newRig(t, twoFleets(), func(o *Options) { o.Cache = cache })
	require.Equal(t, 200, g.get("all", closedDay).Code)
	require.NoError(t, server.process.Process.Signal(syscall.SIGSTOP))
	defer server.process.Process.Signal(syscall.SIGCONT)
	for range 50 {
		require.Equal(t, 200, g.get("all", closedDay).Code)
	}
	errors := testutil.ToFloat64(cache.errors)
	require.True(t, cache.breaker.open())
	begin := time.Now()
	for range 1000 {
		_, found := cache.Get(t.Context(), "x")
		require.False(t, found)
	}
	require.Equal(t, errors, testutil.ToFloat64(cache.errors), "none of a thousand went out")
	require.Less(t, time.Since(begin), 1000*20*time.Millisecond, "nor waited")
}

func TestACallerThatLeavesSaysNothingOfRedis(t *testing.T) {
	server := startRedis(t)
	cache := server.cache(5*time.Second, &clock{now: noon})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		_, found := cache.Get(gone, "x")
		require.False(t, found)
	}
	require.False(t, cache.breaker.open())
	require.Zero(t, testutil.ToFloat64(cache.errors))
}

func TestAnAddressOfRedisThatIsNoneKeepsItsSecret(t *testing.T) {
	for _, url := range []string{"", "localhost:6379", "http://:secret@localhost", "redis://:secret@local host:x/y"} {
		_, err := NewRedisCache(RedisOptions{URL: url}, time.Now, silent(), prometheus.NewRegistry())
		require.ErrorContains(t, err, "redis://USER:PASSWORD@HOST:PORT/DATABASE", url)
		require.False(t, strings.Contains(err.Error(), "secret"), url)
	}
}
