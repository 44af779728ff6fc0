package query

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/rest"
)

// twoFleets has a device that went from fleet-b to fleet-a at 11:00, with a position per minute, and one row without a fleet.
func twoFleets() *fakeStore {
	s := &fakeStore{fleets: []string{"fleet-b", "fleet-a"}}
	s.positions = append(drive("truck-1", "fleet-a", noon, 60, time.Minute), drive("truck-1", "fleet-b", noon.Add(-time.Hour), 60, time.Minute)...)
	s.positions = append(s.positions, drive("truck-1", "", noon.Add(-3*time.Hour), 1, time.Minute)...)
	s.devices = []cassandra.Device{{FleetID: "fleet-a", DeviceID: "truck-1", Model: "eActros", ActivatedAt: noon.Add(-time.Hour), Status: cassandra.StatusActive}}
	s.alerts = []cassandra.Alert{{FleetID: "fleet-a", Severity: "HIGH", OpenedMs: noon.Add(-time.Hour).UnixMilli(), DeviceID: "truck-1", Type: "speeding", Message: "93 km/h in a zone of 50"}}
	s.hours = []cassandra.AnalyticsRow{hourAt(noon.Add(-2 * time.Hour)), hourAt(noon.Add(-time.Hour))}
	s.hours[0].TotalDistanceKm, s.hours[0].AvgSpeedKmh, s.hours[0].AlertsCount = 12.5, ptr(41.25), 1
	s.hours[0].ActiveDevicesCount, s.hours[1].ActiveDevicesCount = 1, 1
	return s
}

var alertA = alertID(alertKey("fleet-a", "HIGH", noon.Add(-time.Hour).UnixMilli(), "truck-1", "speeding"))

func TestTokenReadsItsFleetOnly(t *testing.T) {
	resolve := "POST /v1/alerts/" + alertA + "/resolve"
	for name, c := range map[string]struct {
		token, request string
		status         int
		field          string
	}{
		"no token":                           {"", "GET /v1/fleets", 401, "Authorization"},
		"an unknown token":                   {"guess", "GET /v1/fleets/fleet-a/latest", 401, "Authorization"},
		"no token, to resolve":               {"", resolve, 401, "Authorization"},
		"own fleet":                          {"a", "GET /v1/fleets/fleet-a/latest", 200, ""},
		"token in the address only":          {"", "GET /v1/fleets/fleet-a/latest?token=a", 401, "Authorization"},
		"any fleet":                          {"all", "GET /v1/fleets/fleet-b/latest", 200, ""},
		"devices of another fleet":           {"b", "GET /v1/fleets/fleet-a/devices", 403, "fleet"},
		"latest positions of another fleet":  {"b", "GET /v1/fleets/fleet-a/latest", 403, "fleet"},
		"alerts of another fleet":            {"b", "GET /v1/fleets/fleet-a/alerts", 403, "fleet"},
		"hours of another fleet":             {"b", "GET /v1/fleets/fleet-a/analytics", 403, "fleet"},
		"the name that means every fleet":    {"a", "GET /v1/fleets/*/latest", 400, "fleet"},
		"another fleet, in other letters":    {"a", "GET /v1/fleets/FLEET-A/latest", 403, "fleet"},
		"a token that may only write, reads": {"writer", "GET /v1/fleets/fleet-a/latest", 403, "Authorization"},
		"a token that may only read, writes": {"a", resolve, 403, "Authorization"},
		"an alert of another fleet":          {"b", resolve, 403, "fleet"},
		"unknown alert of another fleet":     {"b", "POST /v1/alerts/" + alertID(alertKey("fleet-a", "LOW", 1, "x", "y")) + "/resolve", 403, "fleet"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newFixture(t, twoFleets(), withMemory(t))
			method, path, _ := strings.Cut(c.request, " ")
			w := g.do(method, c.token, path)
			require.Equal(t, c.status, w.Code, w.Body.String())
			if c.status != 200 {
				assert.Equal(t, c.field, problemIn(t, w).Field)
				assert.Zero(t, g.store.asked(), "the store is not read")
			}
			assert.Equal(t, c.status == 401, w.Header().Get("WWW-Authenticate") != "")
		})
	}
}

func TestTrackHasPositionsOfTokensFleetOnly(t *testing.T) {
	g := newFixture(t, twoFleets(), withMemory(t))
	for token, want := range map[string]int{"all": 121, "a": 60, "b": 60} {
		// Each format reads the store in its own way, and equal paths of other tokens share the cache.
		positions, next := items[positionItem](g, token, "/v1/devices/truck-1/track")
		assert.Len(t, positions, want, token)
		assert.Empty(t, next)
		for _, f := range positions {
			if token != "all" {
				assert.Equal(t, fleetOf(token), f.FleetID)
			}
		}
		csv := g.get(token, "/v1/devices/truck-1/track?format=csv")
		assert.Equal(t, want+1, strings.Count(csv.Body.String(), "\n"), "%s: a header and the same rows as CSV", token)
		gpx := g.get(token, "/v1/devices/truck-1/track?format=gpx")
		assert.Equal(t, want, strings.Count(gpx.Body.String(), "<trkpt"), "%s: the same points as GPX", token)
	}
}

func TestFleetsOfToken(t *testing.T) {
	g := newFixture(t, twoFleets(), withMemory(t))
	for _, round := range []string{"from the store", "from the cache"} {
		for token, want := range map[string][]fleetItem{"all": {{"fleet-a"}, {"fleet-b"}}, "a": {{"fleet-a"}}, "b": {{"fleet-b"}}} {
			got, _ := items[fleetItem](g, token, "/v1/fleets")
			assert.Equal(t, want, got, "%s, token %s", round, token)
		}
	}
	assert.Equal(t, 3, g.store.asked(), "once for each token")
}

func TestInvalidRequestsExplainThemselves(t *testing.T) {
	for name, c := range map[string]struct {
		request      string
		status       int
		field, value string
	}{
		"a fleet's name with a space":        {"GET /v1/fleets/fleet%20a/latest", 400, "fleet", "fleet a"},
		"a fleet's name with a slash":        {"GET /v1/fleets/fleet%2Fa/latest", 400, "fleet", "fleet/a"},
		"a device's name that is too long":   {"GET /v1/devices/" + strings.Repeat("x", 129) + "/track", 400, "device", strings.Repeat("x", 64) + "…"},
		"a misspelled parameter":             {"GET /v1/devices/truck-1/track?form=-7d", 400, "form", "-7d"},
		"a range without times":              {"GET /v1/fleets?from=-7d", 400, "from", "-7d"},
		"a limit twice":                      {"GET /v1/fleets?limit=1&limit=2", 400, "limit", "1, 2"},
		"a limit of nothing":                 {"GET /v1/fleets?limit=0", 400, "limit", "0"},
		"a limit above the maximum":          {"GET /v1/fleets?limit=10001", 400, "limit", "10001"},
		"a limit in words":                   {"GET /v1/fleets?limit=ten", 400, "limit", "ten"},
		"an unknown format":                  {"GET /v1/fleets?format=xml", 400, "format", "xml"},
		"GPX of latest positions":            {"GET /v1/fleets/fleet-a/latest?format=gpx", 400, "format", "gpx"},
		"a time in words":                    {"GET /v1/devices/truck-1/track?from=yesterday", 400, "from", "yesterday"},
		"a time after 2200":                  {"GET /v1/devices/truck-1/track?to=9999999999999999", 400, "to", "9999999999999999"},
		"a time before 1970":                 {"GET /v1/devices/truck-1/track?from=-99999d", 400, "from", "-99999d"},
		"too many days":                      {"GET /v1/devices/truck-1/track?from=-99999999999999d", 400, "from", "-99999999999999d"},
		"a range that ends before it begins": {"GET /v1/devices/truck-1/track?from=-1h&to=-2h", 400, "to", "-2h"},
		"a range that begins after now":      {"GET /v1/devices/truck-1/track?from=%2B1h", 400, "from", "+1h"},
		"alerts of too many days":            {"GET /v1/fleets/fleet-a/alerts?from=-400d", 400, "from", "-400d"},
		"hours of too many days":             {"GET /v1/fleets/fleet-a/analytics?from=2020-01-01T00:00:00Z", 400, "from", "2020-01-01T00:00:00Z"},
		"an unknown severity":                {"GET /v1/fleets/fleet-a/alerts?severity=HIGH,URGENT", 400, "severity", "URGENT"},
		"a query with bad escapes":           {"GET /v1/fleets?limit=%zz", 400, "query", "limit=%zz"},
		"an invented page":                   {"GET /v1/fleets?page=2", 400, "page", "2"},
		"a page with other JSON":             {"GET /v1/fleets?page=WzFd", 400, "page", "WzFd"},
		"an invalid alert ID":                {"POST /v1/alerts/42/resolve", 400, "alert", "42"},
		"an unknown alert":                   {"POST /v1/alerts/" + alertID(alertKey("fleet-a", "LOW", 1, "x", "y")) + "/resolve", 404, "alert", alertID(alertKey("fleet-a", "LOW", 1, "x", "y"))},
		"a route that is not":                {"GET /v1/fleets/fleet-a/drivers", 404, "path", "/v1/fleets/fleet-a/drivers"},
		"a route of devices that is not":     {"GET /v1/devices/truck-1", 404, "path", "/v1/devices/truck-1"},
		"a list that is posted to":           {"POST /v1/fleets", 405, "method", "POST"},
		"a resolution with GET":              {"GET /v1/alerts/" + alertA + "/resolve", 405, "method", "GET"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newFixture(t, twoFleets(), withMemory(t))
			method, path, _ := strings.Cut(c.request, " ")
			w := g.do(method, "all", path)
			require.Equal(t, c.status, w.Code, w.Body.String())
			p := problemIn(t, w)
			assert.Equal(t, c.field, p.Field)
			assert.Equal(t, c.value, p.Value)
			assert.Empty(t, w.Header().Get("Retry-After"), "a retry does not help")
		})
	}
}

func TestStoreErrors(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		status int
		retry  int
	}{
		"no hosts":         {&cassandra.Error{Op: "read", Reason: cassandra.ReasonNoHosts, Err: errors.New("10.1.2.3")}, 503, 5},
		"too few replicas": {&cassandra.Error{Op: "read", Reason: cassandra.ReasonUnavailable, Err: errors.New("10.1.2.3")}, 503, 5},
		"one node slow":    {&cassandra.Error{Op: "read", Reason: cassandra.ReasonReadTimeout, Err: errors.New("10.1.2.3")}, 503, 1},
		"a rejected query": {&cassandra.Error{Op: "read", Reason: cassandra.ReasonInvalid, Err: errors.New("10.1.2.3")}, 500, 0},
		"anything":         {errors.New("10.1.2.3"), 500, 0},
	} {
		t.Run(name, func(t *testing.T) {
			store := twoFleets()
			store.err = c.err
			g := newFixture(t, store, withMemory(t))
			for _, request := range []string{
				"GET /v1/fleets", "GET /v1/fleets/fleet-a/devices", "GET /v1/fleets/fleet-a/latest", "GET /v1/devices/truck-1/track",
				"GET /v1/devices/truck-1/track?format=csv", "GET /v1/devices/truck-1/track?format=gpx",
				"GET /v1/fleets/fleet-a/alerts", "GET /v1/fleets/fleet-a/analytics", "POST /v1/alerts/" + alertA + "/resolve",
			} {
				method, path, _ := strings.Cut(request, " ")
				w := g.do(method, "all", path)
				require.Equal(t, c.status, w.Code, request)
				retry, _ := strconv.Atoi(w.Header().Get("Retry-After"))
				assert.True(t, c.retry <= retry && retry <= 2*c.retry, "%s: Retry-After %d", request, retry)
				problemIn(t, w)
				assert.NotContains(t, w.Body.String(), "10.1.2.3", "addresses of nodes are not for clients")
			}
			store.mu.Lock()
			store.err = nil
			store.mu.Unlock()
			require.Equal(t, 200, g.get("all", "/v1/fleets").Code, "an error is never cached")
		})
	}
}

func TestStoreNotReachedYet(t *testing.T) {
	g := newFixture(t, twoFleets())
	g.absent = true
	for _, path := range []string{"/v1/fleets", "/v1/devices/truck-1/track?format=csv"} {
		w := g.get("all", path)
		require.Equal(t, 503, w.Code)
		require.NotEmpty(t, w.Header().Get("Retry-After"))
	}
	g.absent = false
	require.Equal(t, 200, g.get("all", "/v1/fleets").Code)
}

func TestPanicFailsOneRequest(t *testing.T) {
	g := newFixture(t, twoFleets(), func(o *Options) {
		o.Store = func() (Store, bool) { panic("broken") }
	})
	require.Equal(t, 500, g.get("all", "/v1/fleets").Code)
}

func TestTimeoutAndParallelReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := twoFleets()
		store.gate = make(chan struct{})
		g := newFixture(t, store, func(o *Options) { o.Limits.InFlight, o.Now = 1, time.Now })
		ask := func(path string) chan *httptest.ResponseRecorder {
			answered := make(chan *httptest.ResponseRecorder, 1)
			go func() { answered <- g.get("all", path) }()
			synctest.Wait()
			return answered
		}
		begin := time.Now()
		held, waiting := ask("/v1/fleets"), ask("/v1/fleets/fleet-a/latest")
		require.Equal(t, 1, store.asked(), "the second request waits for the first")
		for status, answered := range map[int]chan *httptest.ResponseRecorder{503: held, 429: waiting} {
			w := <-answered
			require.Equal(t, status, w.Code)
			require.NotEmpty(t, w.Header().Get("Retry-After"))
		}
		require.Equal(t, 10*time.Second, time.Since(begin))
		synctest.Wait() // until the reads have ended, because others would share them
		close(store.gate)
		require.Equal(t, 200, g.get("all", "/v1/fleets").Code, "and the place is free again")
		g.api.Close()
	})
}

// One fleet's slow reads must not make another fleet's reads wait.
func TestReadsOfOneFleetDoNotDelayAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := twoFleets()
		store.gate = make(chan struct{})
		g := newFixture(t, store, func(o *Options) { o.Now = time.Now })
		codes := make(chan int, 200)
		for i := range cap(codes) {
			go func() { codes <- g.get("b", fmt.Sprintf("/v1/devices/truck-%d/track?from=-1h", i)).Code }()
		}
		synctest.Wait()
		require.Equal(t, 16, store.asked(), "half of the reads")
		require.Len(t, codes, 200-16-100)
		for len(codes) > 0 {
			require.Equal(t, 429, <-codes, "no more of a fleet wait")
		}
		answered := make(chan int, 1)
		go func() { answered <- g.get("a", "/v1/fleets/fleet-a/latest").Code }()
		synctest.Wait()
		require.Equal(t, 17, store.asked(), "the other fleet's read has started")
		close(store.gate)
		require.Equal(t, 200, <-answered)
		for range 116 {
			require.Equal(t, 200, <-codes)
		}
		require.Zero(t, metricValue(t, g.reg, "fleet_etl_api_reads", nil))
		g.api.Close()
	})
}

// slowClient is a client that reads nothing until the gate opens.
type slowClient struct {
	*httptest.ResponseRecorder
	gate chan struct{}
}

func (c slowClient) Write(b []byte) (int, error) {
	<-c.gate
	return c.ResponseRecorder.Write(b)
}

func TestSlowReadersHoldBoundedMemory(t *testing.T) {
	for name, path := range map[string]string{"pages": "/v1/fleets/fleet-a/latest", "streams": "/v1/fleets/fleet-a/latest?format=csv"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newFixture(t, twoFleets())
				size := int64(streamMemory)
				if name == "pages" {
					size = int64(g.get("a", path).Body.Len())
				}
				g.api.memory = rest.NewMemory(6*size, "responses", nil)
				gate, ended := make(chan struct{}), make(chan int, 3)
				for range cap(ended) {
					go func() {
						r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
						r.Header.Set("Authorization", "Bearer a")
						w := slowClient{httptest.NewRecorder(), gate}
						g.router.ServeHTTP(w, r)
						ended <- w.Code
					}()
				}
				synctest.Wait()
				w := g.get("a", path)
				require.Equal(t, 429, w.Code, "the fleet has half of the memory")
				require.NotEmpty(t, w.Header().Get("Retry-After"))
				require.Equal(t, 200, g.get("b", "/v1/fleets/fleet-b/latest").Code, "another fleet")
				close(gate)
				for range cap(ended) {
					require.Equal(t, 200, <-ended)
				}
				require.Equal(t, 200, g.get("a", path).Code, "the memory is free again")
				g.api.Close()
			})
		})
	}
}

func TestEqualRequestsShareRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := twoFleets()
		store.gate = make(chan struct{})
		g := newFixture(t, store)
		first, leave := context.WithCancel(t.Context())
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			r := httptest.NewRequestWithContext(first, http.MethodGet, "/v1/fleets/fleet-a/latest", nil)
			r.Header.Set("Authorization", "Bearer all")
			g.router.ServeHTTP(httptest.NewRecorder(), r)
		}()
		synctest.Wait()
		const n = 20
		answers := make(chan int, n)
		for range n {
			go func() { answers <- g.get("all", "/v1/fleets/fleet-a/latest").Code }()
		}
		synctest.Wait()
		leave()
		<-gone
		close(store.gate)
		for range n {
			require.Equal(t, 200, <-answers)
		}
		require.Equal(t, 1, store.asked())
		require.Equal(t, 1.0, g.requests("latest", "499"))
		g.api.Close()
	})
}

func TestMetricsOfRoutesAndCache(t *testing.T) {
	g := newFixture(t, twoFleets(), withMemory(t))
	g.get("all", "/v1/fleets")
	etag := g.get("all", "/v1/fleets").Header().Get("ETag")
	g.get("all", "/v1/fleets", "If-None-Match", etag)
	g.get("", "/v1/fleets")
	g.get("", "/v1/alerts/x")
	for labels, want := range map[[2]string]float64{
		{"fleets", "200"}: 2, {"fleets", "304"}: 1, {"fleets", "401"}: 1, {"none", "404"}: 1, {"latest", "200"}: 0,
	} {
		assert.Equal(t, want, g.requests(labels[0], labels[1]), labels)
	}
	assert.Equal(t, 2.0, metricValue(t, g.reg, "fleet_etl_api_cache_hits_total", map[string]string{"cache": "memory"}))
	assert.Equal(t, 1.0, metricValue(t, g.reg, "fleet_etl_api_cache_misses_total", map[string]string{"cache": "memory"}))
	problems, err := testutil.GatherAndLint(prometheus.Gatherer(g.reg))
	require.NoError(t, err)
	assert.Empty(t, problems)
}
