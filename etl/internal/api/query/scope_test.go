package query

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/dev/testenv/rivals"
)

// What a token reads depends on the rows of its own fleet alone: where other fleets have other rows, or none, every response has
// the same status, headers and bytes.
func TestResponsesDependOnTheOwnFleetAlone(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	var want []string
	stolen := map[string][]string{}
	for other := range uint64(3) {
		store := &fakeStore{}
		for _, r := range rivals.Rows(seed, other, noon, 110_000) {
			store.fleets = append(store.fleets, r.Fleet)
			store.devices = append(store.devices, r.Devices...)
			store.positions = append(store.positions, r.Positions...)
			store.alerts, store.open = append(store.alerts, r.Alerts...), append(store.open, r.Alerts...)
			store.hours = append(store.hours, r.Hours...)
		}
		g := newFixture(t, store, withMemory(t))
		requireOwnTrack(g)
		got := g.everything("b", stolen, "", "from=-5h", "from=-30d&to=now", "from=-12d&to=-2d", "from="+g.now.Add(-26*time.Hour).Format(time.RFC3339))
		if other == 0 {
			want = got
			require.Greater(t, len(want), 1000)
		}
		rivals.RequireSame(t, want, got)
	}
}

// The same with Cassandra, whose pages and cursors the fake store does not have.
func TestResponsesDependOnTheOwnFleetAloneInCassandra(t *testing.T) {
	seed, now := rand.Uint64(), time.Now().UTC().Truncate(time.Second)
	t.Log("seed", seed)
	var want []string
	stolen := map[string][]string{}
	for other := range uint64(2) {
		store := realStore(t)
		for _, r := range rivals.Rows(seed, other, now, 2_000) {
			require.NoError(t, r.Write(t.Context(), store))
		}
		g := newFixture(t, nil, withMemory(t), func(o *Options) {
			o.Store = func() (Store, bool) { return store, true }
			o.Limits.Timeout = time.Minute // the machine may be busy
		})
		g.now = now
		requireOwnTrack(g)
		got := g.everything("b", stolen, "from=-30d&to=now", "from=-12d&to=-2d")
		if other == 0 {
			want = got
		}
		rivals.RequireSame(t, want, got)
	}
}

// requireOwnTrack reads the positions of the shared device, all that it sent for the own fleet.
func requireOwnTrack(g *fixture) {
	g.t.Helper()
	track, _ := everyPage[positionItem](g, "b", "/v1/devices/"+rivals.SharedDevice+"/track?from=-30d&limit=100", nil)
	require.Len(g.t, track, 320)
}

// everything returns the responses to all that a token may ask, each with its status, headers and body. ranges are what is asked of
// lists with a time range. Tokens of the other fleet and of all fleets have asked the same before, and stolen has the cursors that
// they got first. It fails for a route that has no requests here.
func (g *fixture) everything(token string, stolen map[string][]string, ranges ...string) (all []string) {
	fleets, devices := []string{"fleet-a", "fleet-b", "fleet-c", "FLEET-B", "fleet-b%2F..%2Ffleet-a", "*"}, []string{"a-0", "a-0-000", "b-0", "shared", "unknown"}
	variants := []string{"", "limit=3", "limit=1000", "format=csv", "format=csv&limit=2"}
	var ofRanges []string
	for _, span := range ranges {
		for _, variant := range variants {
			ofRanges = append(ofRanges, strings.Trim(span+"&"+variant, "&"))
		}
	}
	of := func(path string, names, variants []string) (paths []string) {
		for _, name := range names {
			for _, variant := range variants {
				paths = append(paths, http.MethodGet+" "+fmt.Sprintf(path, name)+"?"+variant)
			}
		}
		return paths
	}
	var resolve []string
	for _, fleet := range []string{"fleet-a", "fleet-b"} {
		for hour := range 4 {
			for _, device := range []string{"a-0", "b-0", "shared"} {
				key := alertKey(fleet, "HIGH", g.now.Add(-time.Duration(hour)*time.Hour).UnixMilli(), device, "speeding")
				resolve = append(resolve, http.MethodPost+" /v1/alerts/"+alertID(key)+"/resolve")
			}
		}
	}
	requests := map[string][]string{
		"fleets":    of("/v1/fleets%.0s", []string{""}, variants),
		"devices":   of("/v1/fleets/%s/devices", fleets, variants),
		"latest":    of("/v1/fleets/%s/latest", fleets, variants),
		"track":     of("/v1/devices/%s/track", devices, append(ofRanges, "from=-30d&format=gpx", "format=gpx&limit=5")),
		"alerts":    of("/v1/fleets/%s/alerts", fleets, append(ofRanges, "severity=HIGH", "severity=LOW,MEDIUM&from=-30d")),
		"analytics": of("/v1/fleets/%s/analytics", fleets, ofRanges),
		"resolve":   resolve,
	}
	for _, route := range g.api.Routes() {
		require.NotEmpty(g.t, requests[route.Name], "route %s: add what another fleet may ask of it", route.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(requests)) {
		for _, request := range requests[name] {
			method, path, _ := strings.Cut(request, " ")
			var cursors []string
			for _, other := range []string{"all", "a"} { // they fill the cache
				if method == http.MethodGet && !strings.Contains(path, "format") { // whole files are not cached
					cursors = append(cursors, nextOf(g.get(other, path).Header()))
				}
			}
			if len(stolen[path]) == 0 {
				stolen[path] = cursors
			}
			all = append(all, g.pages(method, token, path, "")...)
			for _, page := range stolen[path] {
				if page != "" {
					all = append(all, g.pages(method, token, path, page)...)
				}
			}
		}
	}
	return all
}

// pages returns the responses to a request and to those for the pages that follow.
func (g *fixture) pages(method, token, path, page string) (all []string) {
	for range 5 {
		address := path
		if page != "" {
			address += "&page=" + page
		}
		w := g.do(method, token, address)
		for _, header := range []string{"X-Request-Id", "Retry-After"} { // random
			w.Header().Del(header)
		}
		all = append(all, fmt.Sprint(method, " ", path, " ", page, ": ", w.Code, w.Header(), w.Body))
		if tag := w.Header().Get("ETag"); tag != "" {
			all = append(all, fmt.Sprint(g.do(method, token, path, "If-None-Match", tag).Code))
		}
		if page = nextOf(w.Header()); page == "" || method != http.MethodGet {
			return all
		}
	}
	return all
}

// nextOf returns the cursor of the next page.
func nextOf(h http.Header) string {
	link, _, _ := strings.Cut(strings.TrimPrefix(h.Get("Link"), "<"), ">")
	address, err := url.Parse(link)
	if err != nil {
		return ""
	}
	return address.Query().Get("page")
}
