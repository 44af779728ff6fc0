package query

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/cache"
)

// keptCache is a cache that records times to live and never evicts.
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

func TestTimeToLiveInCache(t *testing.T) {
	for name, c := range map[string]struct {
		path string
		want time.Duration
	}{
		"fleets":                           {"/v1/fleets", 10 * time.Second},
		"devices":                          {"/v1/fleets/fleet-a/devices", 10 * time.Second},
		"latest positions":                 {"/v1/fleets/fleet-a/latest", time.Second},
		"a track until now":                {"/v1/devices/truck-1/track", time.Second},
		"a track of today":                 {"/v1/devices/truck-1/track?from=2026-11-05T00:00:00Z&to=2026-11-05T01:00:00Z", time.Second},
		"a track of yesterday":             {"/v1/devices/truck-1/track?from=2026-11-04T00:00:00Z&to=2026-11-04T23:59:59.999Z", 5 * time.Minute},
		"a track that moves with the time": {"/v1/devices/truck-1/track?from=-72h&to=-48h", time.Second},
		"hours until now":                  {"/v1/fleets/fleet-a/analytics", 10 * time.Second},
		"hours of a past day":              {"/v1/fleets/fleet-a/analytics?from=2026-11-01T00:00:00Z&to=2026-11-02T00:00:00Z", 5 * time.Minute},
		"alerts, which people resolve":     {"/v1/fleets/fleet-a/alerts?from=2026-11-01T00:00:00Z&to=2026-11-02T00:00:00Z", 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			cache := newKeptCache()
			g := newFixture(t, twoFleets(), func(o *Options) { o.Cache = cache })
			require.Equal(t, 200, g.get("all", c.path).Code)
			require.Equal(t, []time.Duration{c.want}, cache.ttls)
			asked := g.store.asked()
			require.Equal(t, 200, g.get("all", c.path).Code)
			require.Equal(t, asked, g.store.asked(), "the second response comes from the cache")
		})
	}
	t.Run("a track of yesterday, shortly after midnight", func(t *testing.T) {
		cache := newKeptCache()
		g := newFixture(t, twoFleets(), func(o *Options) { o.Cache = cache })
		g.now = time.Date(2026, 11, 5, 1, 0, 0, 0, time.UTC)
		require.Equal(t, 200, g.get("all", "/v1/devices/truck-1/track?from=2026-11-04T00:00:00Z&to=2026-11-04T23:00:00Z").Code)
		require.Equal(t, []time.Duration{30 * time.Second}, cache.ttls, "late records still come in")
	})
}

func TestCacheKeysAreUnique(t *testing.T) {
	cache := newKeptCache()
	g := newFixture(t, twoFleets(), func(o *Options) { o.Cache = cache })
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
		require.Len(t, cache.entries, i+1, "%s has a key of its own", request)
	}
	require.Equal(t, 200, g.get("all", "/v1/fleets/fleet-a/alerts?severity=low").Code)
	require.Len(t, cache.entries, len(requests), "equal requests in other words share a key")
	for key := range cache.entries {
		require.Regexp(t, `^fleet-etl:read:2:page:[0-9a-f]{64}$`, key, "no name of a fleet or device is in a key")
	}
}

func TestInvalidCacheValuesAreIgnored(t *testing.T) {
	for name, value := range map[string]string{
		"nothing": "", "a text": "<html>", "a length beyond the end": "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x", "a page cut short": "\x00\x05ab", "no tag": "\x00\x00{}",
	} {
		kept := newKeptCache()
		g := newFixture(t, twoFleets(), func(o *Options) { o.Cache = kept })
		require.Equal(t, 200, g.get("all", "/v1/fleets").Code)
		for key := range kept.entries {
			kept.entries[key] = []byte(value)
		}
		fleets, _ := items[fleetItem](g, "all", "/v1/fleets")
		require.Len(t, fleets, 2, name)
	}
}

func TestVeryLongPageIsNotCached(t *testing.T) {
	store := &fakeStore{}
	for _, device := range named("truck-"+strings.Repeat("x", 100), 1000) {
		for i := range 10 {
			store.positions = append(store.positions, drive(fmt.Sprint(device, i), "fleet-a", noon, 1, 0)...)
		}
	}
	kept := newKeptCache()
	g := newFixture(t, store, func(o *Options) { o.Cache = kept })
	w := g.get("a", "/v1/fleets/fleet-a/latest?limit=10000&format=json")
	require.Equal(t, 200, w.Code)
	require.Less(t, w.Body.Len(), cache.MaxValue, "a page with the maximum of rows is cached")
	require.Len(t, kept.entries, 1)

	for i := range store.positions {
		store.positions[i].Zone = strings.Repeat("z", 400)
	}
	w = g.get("a", "/v1/fleets/fleet-a/latest?limit=9999")
	require.Greater(t, w.Body.Len(), cache.MaxValue)
	require.Len(t, kept.entries, 1)
}

const pastDay = "/v1/devices/truck-1/track?from=2026-11-04T00:00:00Z&to=2026-11-04T23:59:59Z"

func TestProcessesShareCache(t *testing.T) {
	shared := newKeptCache()
	stores := []*fakeStore{twoFleets(), twoFleets()}
	processes := make([]*fixture, 2)
	for i := range processes {
		processes[i] = newFixture(t, stores[i], func(o *Options) { o.Cache = shared })
	}
	first, second := processes[0].get("all", pastDay), processes[1].get("all", pastDay)
	require.Equal(t, 200, second.Code)
	require.Equal(t, first.Body.String(), second.Body.String())
	for _, w := range []*httptest.ResponseRecorder{first, second} {
		w.Header().Del("X-Request-Id")
	}
	require.Equal(t, first.Header(), second.Header(), "a cached response has the same headers, too")
	require.Zero(t, stores[1].asked(), "the second process need not read what the first one read")

	require.Equal(t, 200, processes[1].get("a", pastDay).Code)
	require.Equal(t, 2, stores[1].asked(), "a token of a fleet does not get the response of another token")

	// A process shows an alert as resolved that another process resolved, although it has just cached the list.
	stores[1].alerts = stores[0].alerts
	processes[0].get("a", "/v1/fleets/fleet-a/alerts")
	processes[1].get("a", "/v1/fleets/fleet-a/alerts")
	require.Equal(t, 200, processes[0].do("POST", "all", "/v1/alerts/"+alertA+"/resolve").Code)
	seen, _ := items[alertItem](processes[1], "a", "/v1/fleets/fleet-a/alerts")
	require.True(t, seen[0].Resolved)
}
