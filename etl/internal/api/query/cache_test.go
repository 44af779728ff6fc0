package query

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// keptCache is a cache that tells for how long it was asked to keep things, and never loses one.
type keptCache struct {
	mu      sync.Mutex
	entries map[string][]byte
	ttls    []time.Duration
}

func (c *keptCache) Get(_ context.Context, key string) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	value, ok := c.entries[key]
	return value, ok
}

func (c *keptCache) Set(_ context.Context, key string, value []byte, ttl time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries[key] = value
	c.ttls = append(c.ttls, ttl)
}

func newKeptCache() *keptCache { return &keptCache{entries: map[string][]byte{}} }

func TestAnswersAreKeptAsLongAsTheyAreTrue(t *testing.T) {
	for name, c := range map[string]struct {
		path string
		want time.Duration
	}{
		"fleets":                           {"/v1/fleets", 10 * time.Second},
		"devices":                          {"/v1/fleets/fleet-a/devices", 10 * time.Second},
		"newest fixes":                     {"/v1/fleets/fleet-a/latest", time.Second},
		"newest fixes as a file":           {"/v1/fleets/fleet-a/latest?format=csv", time.Second},
		"a track until now":                {"/v1/devices/truck-1/track", time.Second},
		"a track of today":                 {"/v1/devices/truck-1/track?from=2026-11-05T00:00:00Z&to=2026-11-05T01:00:00Z", time.Second},
		"a track of yesterday, long over":  {"/v1/devices/truck-1/track?from=2026-11-04T00:00:00Z&to=2026-11-04T23:59:59.999Z", 5 * time.Minute},
		"a track that moves with the time": {"/v1/devices/truck-1/track?from=-72h&to=-48h", time.Second},
		"figures until now":                {"/v1/fleets/fleet-a/analytics", 10 * time.Second},
		"figures of a day that is over":    {"/v1/fleets/fleet-a/analytics?from=2026-11-01T00:00:00Z&to=2026-11-02T00:00:00Z", 5 * time.Minute},
		"alerts, which change by hand":     {"/v1/fleets/fleet-a/alerts?from=2026-11-01T00:00:00Z&to=2026-11-02T00:00:00Z", 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			cache := newKeptCache()
			g := newRig(t, twoFleets(), func(o *Options) { o.Cache = cache })
			require.Equal(t, 200, g.get("all", c.path).Code)
			require.Equal(t, []time.Duration{c.want}, cache.ttls)
			asked := g.store.asked()
			require.Equal(t, 200, g.get("all", c.path).Code)
			require.Equal(t, asked, g.store.asked(), "the second is the cache's")
		})
	}
	t.Run("a track of yesterday, shortly after midnight", func(t *testing.T) {
		cache := newKeptCache()
		g := newRig(t, twoFleets(), func(o *Options) { o.Cache = cache })
		g.now = time.Date(2026, 11, 5, 1, 0, 0, 0, time.UTC)
		require.Equal(t, 200, g.get("all", "/v1/devices/truck-1/track?from=2026-11-04T00:00:00Z&to=2026-11-04T23:00:00Z").Code)
		require.Equal(t, []time.Duration{30 * time.Second}, cache.ttls, "late records still come in")
	})
}

func TestNoTwoQuestionsShareAKey(t *testing.T) {
	cache := newKeptCache()
	g := newRig(t, twoFleets(), func(o *Options) { o.Cache = cache })
	requests := []string{
		"all /v1/fleets", "a /v1/fleets", "all /v1/fleets?limit=1", "all /v1/fleets?format=csv",
		"all /v1/fleets/fleet-a/latest", "a /v1/fleets/fleet-a/latest", "all /v1/fleets/fleet-b/latest", "all /v1/fleets/fleet-a/devices",
		"all /v1/devices/truck-1/track", "a /v1/devices/truck-1/track", "b /v1/devices/truck-1/track", "all /v1/devices/truck-1/track?from=-1h",
		"all /v1/devices/truck-1/track?from=-1h&to=-1m", "all /v1/devices/truck-1/track?limit=5", "all /v1/devices/truck-1/track?limit=5&format=gpx",
		"all /v1/fleets/fleet-a/alerts", "all /v1/fleets/fleet-a/alerts?severity=HIGH", "all /v1/fleets/fleet-a/alerts?severity=LOW",
	}
	for i, request := range requests {
		token, path, _ := strings.Cut(request, " ")
		require.Equal(t, 200, g.get(token, path).Code, request)
		require.Len(t, cache.entries, i+1, "%s is kept under a key of its own", request)
	}
	require.Equal(t, 200, g.get("all", "/v1/fleets/fleet-a/alerts?severity=low").Code)
	require.Len(t, cache.entries, len(requests), "equal questions in other words share it")
	for key := range cache.entries {
		require.Regexp(t, `^fleet-etl:read:1:page:[0-9a-f]{64}$`, key, "no name of a fleet or device is in a key")
	}
}

func TestWhatACacheHoldsIsNotTrusted(t *testing.T) {
	for name, value := range map[string]string{
		"nothing": "", "a text": "<html>", "a length beyond the end": "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x", "a page cut short": "\x00\x05ab", "no tag": "\x00\x00{}",
	} {
		cache := newKeptCache()
		g := newRig(t, twoFleets(), func(o *Options) { o.Cache = cache })
		require.Equal(t, 200, g.get("all", "/v1/fleets").Code)
		for key := range cache.entries {
			cache.entries[key] = []byte(value)
		}
		fleets, _ := items[fleetItem](g, "all", "/v1/fleets")
		require.Len(t, fleets, 2, name)
	}
}

func TestAVeryLongAnswerIsNotKept(t *testing.T) {
	store := &fakeStore{}
	for _, device := range named("truck-"+strings.Repeat("x", 100), 1000) {
		for i := range 10 {
			store.fixes = append(store.fixes, drive(fmt.Sprint(device, i), "fleet-a", noon, 1, 0)...)
		}
	}
	cache := newKeptCache()
	g := newRig(t, store, func(o *Options) { o.Cache = cache })
	w := g.get("a", "/v1/fleets/fleet-a/latest?limit=10000&format=json")
	require.Equal(t, 200, w.Code)
	require.Less(t, w.Body.Len(), maxKept, "an answer of the most rows is kept")
	require.Len(t, cache.entries, 1)

	for i := range store.fixes {
		store.fixes[i].Zone = strings.Repeat("z", 400)
	}
	w = g.get("a", "/v1/fleets/fleet-a/latest?limit=9999")
	require.Greater(t, w.Body.Len(), maxKept)
	require.Len(t, cache.entries, 1)
}

// stoppedClock is a clock for the cache in memory that a test sets.
type stoppedClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *stoppedClock) NowNano() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now.UnixNano()
}

func (c *stoppedClock) Tick(time.Duration) <-chan time.Time { return nil }

func (c *stoppedClock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func TestMemoryForgetsInTimeAndStaysSmall(t *testing.T) {
	clock := &stoppedClock{now: noon}
	cache, err := newMemoryCache(64<<10, clock)
	require.NoError(t, err)
	defer cache.Close()
	ctx := t.Context()
	cache.Set(ctx, "short", []byte("1"), time.Second)
	cache.Set(ctx, "long", []byte("2"), time.Minute)
	for _, c := range []struct {
		after       time.Duration
		short, long bool
	}{{0, true, true}, {999 * time.Millisecond, true, true}, {2 * time.Millisecond, false, true}, {time.Minute, false, false}} {
		clock.forward(c.after)
		_, short := cache.Get(ctx, "short")
		_, long := cache.Get(ctx, "long")
		assert.Equal(t, []bool{c.short, c.long}, []bool{short, long}, "after %s", c.after)
	}
	for i := range 1000 {
		cache.Set(ctx, fmt.Sprint(i), make([]byte, 1000), time.Minute)
	}
	cache.entries.CleanUp()
	require.LessOrEqual(t, cache.entries.WeightedSize(), uint64(64<<10))
	require.Positive(t, cache.entries.EstimatedSize())

	_, err = NewMemoryCache(0)
	require.Error(t, err, "0 is not without bounds")
}

func TestABreakerLetsOneTryAfterThePause(t *testing.T) {
	now := noon
	b := &breaker{now: func() time.Time { return now }, failures: 3, pause: time.Second}
	fail := func() change { require.True(t, b.allow()); return b.report(false) }
	require.Equal(t, unchanged, fail())
	require.Equal(t, unchanged, fail())
	require.True(t, b.allow())
	require.Equal(t, unchanged, b.report(true), "a success begins the count anew")
	fail()
	fail()
	require.Equal(t, opened, fail())
	require.False(t, b.allow())
	now = now.Add(time.Second)
	require.True(t, b.allow())
	require.False(t, b.allow(), "one only")
	b.unknown()
	require.True(t, b.allow(), "who learned nothing leaves it to the next")
	require.Equal(t, unchanged, b.report(false))
	require.False(t, b.allow(), "another pause")
	now = now.Add(time.Second)
	require.True(t, b.allow())
	require.Equal(t, closed, b.report(true))
	require.True(t, b.allow())
	require.True(t, b.allow())
}
