package query

import (
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/gpx"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/params"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/rest"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

func TestPagesDoNotMoveWhileTrackGrows(t *testing.T) {
	// The first position of the three days is at the beginning of the range: a range that moved would lose it.
	store := &fakeStore{positions: append(drive("truck-1", "fleet-a", noon, 300, time.Minute), drive("truck-1", "fleet-a", noon.Add(-59*time.Hour), 40, 20*time.Minute)...)}
	before := map[string]bool{}
	for _, f := range store.positions {
		before[formatTime(f.Ts)] = true
	}
	g := newFixture(t, store, withMemory(t))
	added := 0
	grow := func() { // the truck drives on and the clock with it
		g.now = g.now.Add(time.Minute)
		added++
		store.positions = append(store.positions, drive("truck-1", "fleet-a", g.now, 1, time.Minute)...)
	}
	all, pages := everyPage[positionItem](g, "a", "/v1/devices/truck-1/track?from=-72h&limit=50", grow)
	require.Equal(t, 7, pages, "340 positions, and no empty page at the end")
	require.Positive(t, added)
	require.Len(t, all, len(before))
	for i, f := range all {
		assert.True(t, before[f.Timestamp], "%s is new", f.Timestamp)
		if i > 0 {
			assert.Less(t, f.Timestamp, all[i-1].Timestamp, "newest first, none twice")
		}
	}
}

func TestPageOfAnotherListIsRejected(t *testing.T) {
	store := twoFleets()
	store.devices = append(store.devices, cassandra.Device{FleetID: "fleet-a", DeviceID: "truck-2"})
	store.alerts = append(store.alerts, cassandra.Alert{FleetID: "fleet-a", Severity: "LOW", OpenedMs: noon.UnixMilli(), DeviceID: "truck-2", Type: "speeding"})
	g := newFixture(t, store)
	_, next := items[positionItem](g, "all", "/v1/devices/truck-1/track?from=-3h&limit=10")
	require.NotEmpty(t, next)
	for name, path := range map[string]string{
		"another range":  "/v1/devices/truck-1/track?from=-4h&page=",
		"no range":       "/v1/devices/truck-1/track?page=",
		"another device": "/v1/devices/truck-2/track?from=-3h&page=",
		"another route":  "/v1/fleets/truck-1/analytics?from=-3h&page=",
	} {
		w := g.get("all", path+next)
		require.Equal(t, 400, w.Code, name)
		require.Equal(t, "page", problemIn(t, w).Field, name)
	}
	require.Equal(t, 200, g.get("all", "/v1/devices/truck-1/track?from=-3h&limit=7&format=csv&page="+next).Code, "size and format may change")

	// A forged cursor is bounded like a parameter.
	w := g.get("all", "/v1/fleets/fleet-a/alerts?page="+forged(t, g, "/v1/fleets/fleet-a/alerts?limit=1", func(c map[string]any) { c["f"], c["t"] = 0, params.MaxTime }))
	require.Equal(t, 400, w.Code, "more days than a range may have")
	w = g.get("all", "/v1/fleets/fleet-a/devices?page="+forged(t, g, "/v1/fleets/fleet-a/devices?limit=1", func(c map[string]any) { c["p"] = "no-state" }))
	require.Equal(t, 400, w.Code, "a position that the store does not know")
}

// forged changes the cursor of the next page.
func forged(t *testing.T, g *fixture, path string, change func(map[string]any)) string {
	t.Helper()
	_, next := items[map[string]any](g, "all", path)
	text, err := base64.RawURLEncoding.DecodeString(next)
	require.NoError(t, err)
	var cursor map[string]any
	require.NoError(t, json.Unmarshal(text, &cursor))
	change(cursor)
	text, err = json.Marshal(cursor)
	require.NoError(t, err)
	return base64.RawURLEncoding.EncodeToString(text)
}

func TestPagesOfTrackOfAnotherFleet(t *testing.T) {
	// The truck was fleet-b's for the newest 120,000 positions and fleet-a's before.
	store := &fakeStore{positions: append(drive("truck-1", "fleet-b", noon, 120_000, time.Second), drive("truck-1", "fleet-a", noon.Add(-120_000*time.Second), 5, time.Second)...)}
	store.positions = append(store.positions, drive("truck-2", "fleet-b", noon, 120_000, time.Second)...)
	g := newFixture(t, store)
	all, pages := everyPage[positionItem](g, "a", "/v1/devices/truck-1/track?from=-48h&limit=3", nil)
	require.Len(t, all, 5)
	require.Equal(t, 2, pages, "neither the number of pages nor their cursors depend on positions of other fleets")
	require.Less(t, store.asked(), 20)

	asked := store.asked()
	for _, parameters := range []string{"?from=-48h", "?format=csv", "?format=gpx"} {
		require.NotContains(t, g.get("a", "/v1/devices/truck-2/track"+parameters).Body.String(), "2026", parameters)
	}
	require.Equal(t, asked+3, store.asked(), "the history of another fleet's device is not read")
}

func TestPagesOfFleetsDevicesAndLatestPositions(t *testing.T) {
	store := &fakeStore{fleets: named("fleet", 25)}
	for i, device := range named("truck", 60) {
		status := cassandra.StatusActive
		if i%3 == 0 {
			status = cassandra.StatusMoved
		}
		store.devices = append(store.devices, cassandra.Device{FleetID: "fleet-000", DeviceID: device, Status: status})
		store.positions = append(store.positions, drive(device, "fleet-000", noon, 2, time.Minute)...)
	}
	g := newFixture(t, store)
	fleets, pages := everyPage[fleetItem](g, "all", "/v1/fleets?limit=10", nil)
	require.Len(t, fleets, 25)
	require.Equal(t, 3, pages)

	devices, pages := everyPage[deviceItem](g, "all", "/v1/fleets/fleet-000/devices?limit=10", nil)
	require.Len(t, devices, 40, "without moved devices")
	require.LessOrEqual(t, pages, 5, "pages are full although the pages in the store are not")

	latest, pages := everyPage[positionItem](g, "all", "/v1/fleets/fleet-000/latest?limit=25", func() {
		store.positions = append(store.positions, drive("truck-0000", "fleet-000", noon, 1, 0)...) // sorts before the previous page
	})
	require.Equal(t, 3, pages)
	seen := map[string]bool{}
	for _, f := range latest {
		assert.False(t, seen[f.DeviceID], "%s twice", f.DeviceID)
		seen[f.DeviceID] = true
		assert.Equal(t, formatTime(noon), f.Timestamp)
	}
	require.Len(t, latest, 60)
}

func TestRangeFormats(t *testing.T) {
	store := &fakeStore{positions: drive("truck-1", "fleet-a", noon, 10, time.Hour)} // 12:00 back to 03:00
	g := newFixture(t, store)
	for query, want := range map[string]int{
		"":                                    10,
		"from=-2h":                            3,
		"from=-90m&to=-30m":                   1,
		"from=-1d&to=now":                     10,
		"from=-1d&to=-1h":                     9,
		"from=2026-11-05T10:00:00Z":           3,
		"from=2026-11-05T11:00:00%2B01:00":    3,
		"from=2026-11-05T11:00:00+01:00":      3, // as a shell sends it: the plus is a space
		"from=1793872800&to=1793876400":       2, // 10:00 to 11:00
		"from=1793872800000&to=1793876400000": 2,
		"from=2026-11-05T10:00:00.001Z&to=2026-11-05T11:59:59.999Z": 1,
		"from=2020-01-01T00:00:00Z":                                 10,
		"from=2100-01-01T00:00:00Z&to=2101-01-01T00:00:00Z":         0,
	} {
		positions, next := items[positionItem](g, "a", "/v1/devices/truck-1/track?"+query)
		assert.Len(t, positions, want, query)
		assert.Empty(t, next)
	}
}

func TestPagesOfAlertsWithEqualTimestamps(t *testing.T) {
	store := &fakeStore{}
	dice := rand.New(rand.NewPCG(1, 2))
	for day := range 40 {
		for range 12 {
			ts := noon.Add(-time.Duration(day)*24*time.Hour - time.Duration(dice.IntN(3))*time.Second)
			store.alerts = append(store.alerts, cassandra.Alert{
				FleetID: "fleet-a", Severity: cassandra.Severities[dice.IntN(3)], OpenedMs: ts.UnixMilli(), DeviceID: "truck-" + fmt.Sprint(dice.IntN(4)),
				Type: []string{"speeding", "battery"}[dice.IntN(2)], Message: "x",
			})
		}
	}
	want := map[string]bool{}
	unique := store.alerts[:0:0]
	for _, a := range store.alerts {
		if id := alertID(a); !want[id] {
			want[id] = true
			unique = append(unique, a)
		}
	}
	store.alerts = unique
	for _, limit := range []int{1, 2, 3, 7, 100, 1000} {
		g := newFixture(t, store)
		all, pages := everyPage[alertItem](g, "a", fmt.Sprintf("/v1/fleets/fleet-a/alerts?from=-60d&limit=%d", limit), nil)
		require.Len(t, all, len(want), "limit %d", limit)
		require.Equal(t, (len(want)+limit-1)/limit, pages, "limit %d", limit)
		seen := map[string]bool{}
		for i, a := range all {
			require.True(t, want[a.ID] && !seen[a.ID], "limit %d: %s is given once", limit, a.ID)
			seen[a.ID] = true
			require.True(t, i == 0 || a.Timestamp <= all[i-1].Timestamp, "newest first")
		}
	}
	g := newFixture(t, store)
	some, _ := everyPage[alertItem](g, "a", "/v1/fleets/fleet-a/alerts?from=-60d&limit=9&severity=low,high", nil)
	for _, a := range some {
		require.NotEqual(t, "MEDIUM", a.Severity)
	}
	require.NotEmpty(t, some)
	require.Less(t, len(some), len(want))
}

func TestHoursOfRange(t *testing.T) {
	store := &fakeStore{}
	for i := range 100 * 24 {
		hour := hourAt(noon.Add(-time.Duration(100*24-1-i) * time.Hour))
		hour.TotalDistanceKm = float64(i)
		store.hours = append(store.hours, hour)
	}
	g := newFixture(t, store)
	hours, next := items[hourItem](g, "a", "/v1/fleets/fleet-a/analytics?from=2026-11-05T09:30:00Z&to=2026-11-05T11:00:00Z")
	require.Empty(t, next)
	require.Equal(t, []string{"2026-11-05T09:00:00.000Z", "2026-11-05T10:00:00.000Z", "2026-11-05T11:00:00.000Z"},
		[]string{hours[0].Hour, hours[1].Hour, hours[2].Hour}, "hours that overlap the range are included")
	all, pages := everyPage[hourItem](g, "a", "/v1/fleets/fleet-a/analytics?from=-90d&limit=500", nil)
	require.Len(t, all, 90*24+1)
	require.Equal(t, 5, pages)
	for i := range all[1:] {
		require.Less(t, all[i].Hour, all[i+1].Hour)
	}
	_, pages = everyPage[hourItem](g, "a", "/v1/fleets/fleet-a/analytics?from=2026-11-04T13:00:00Z&limit=24", nil)
	require.Equal(t, 1, pages, "a full page at the end is the last")
}

// rows reads a response as CSV.
func rows(t *testing.T, w *httptest.ResponseRecorder) [][]string {
	t.Helper()
	require.Equal(t, 200, w.Code, w.Body.String())
	require.Equal(t, "text/csv; charset=utf-8; header=present", w.Header().Get("Content-Type"))
	all, err := csv.NewReader(w.Body).ReadAll()
	require.NoError(t, err)
	return all
}

func TestCSVHasEveryValue(t *testing.T) {
	store := twoFleets()
	store.positions = []cassandra.Telemetry{
		{DeviceID: "truck-1", FleetID: "fleet-a", Ts: noon, Lat: 52.5, Lon: -0.000001, SpeedKmh: ptr(0.0), HeadingDeg: ptr(359.5), BatteryPct: ptr(int32(0)), TempC: ptr(-3.25), AccuracyM: ptr(4.5), Zone: "depot"},
		{DeviceID: "truck-1", FleetID: "fleet-a", Ts: noon.Add(-time.Second), Lat: 52.5, Lon: 13},
	}
	store.alerts[0].Message = "93 km/h,\nin a \"zone\" of 50"
	g := newFixture(t, store)
	full := []string{"truck-1", "fleet-a", "2026-11-05T12:00:00.000Z", "52.5", "-0.000001", "0", "359.5", "0", "-3.25", "depot", "4.5"}
	for path, want := range map[string][][]string{
		"/v1/fleets":                                {{"fleet_id"}, {"fleet-a"}, {"fleet-b"}},
		"/v1/fleets/fleet-a/devices":                {{"fleet_id", "device_id", "model", "activated_at", "status"}, {"fleet-a", "truck-1", "eActros", "2026-11-05T11:00:00.000Z", "active"}},
		"/v1/fleets/fleet-a/latest":                 {telemetry.Fields, full},
		"/v1/devices/truck-1/track":                 {telemetry.Fields, full, {"truck-1", "fleet-a", "2026-11-05T11:59:59.000Z", "52.5", "13", "", "", "", "", "", ""}},
		"/v1/devices/truck-1/track?limit=1":         {telemetry.Fields, full},
		"/v1/devices/truck-1/track?from=-9m&to=-8m": {telemetry.Fields},
		"/v1/fleets/fleet-a/alerts": {
			{"id", "fleet_id", "severity", "timestamp", "device_id", "alert_type", "message", "resolved"},
			{alertA, "fleet-a", "HIGH", "2026-11-05T11:00:00.000Z", "truck-1", "speeding", "93 km/h,\nin a \"zone\" of 50", "false"},
		},
		"/v1/fleets/fleet-a/analytics": {
			{"fleet_id", "hour", "total_distance_km", "avg_speed_kmh", "alerts_count", "active_devices_count"},
			{"fleet-a", "2026-11-05T10:00:00.000Z", "12.5", "41.25", "1", "1"}, {"fleet-a", "2026-11-05T11:00:00.000Z", "0", "", "0", "1"},
		},
	} {
		require.Equal(t, want, rows(t, g.get("all", path, "Accept", "text/csv")), path)
	}
	w := g.get("all", "/v1/devices/truck-1/track?limit=1&format=csv&token=all")
	link := w.Header().Get("Link")
	require.True(t, strings.HasPrefix(link, "</v1/devices/truck-1/track?format=csv&limit=1&page=") && strings.HasSuffix(link, `>; rel="next"`), link)
	require.NotContains(t, link, "token", "a secret is not copied into addresses")
	require.Contains(t, w.Header().Get("Content-Disposition"), `filename="track-truck-1.csv"`)
	next, err := url.Parse(link[1:strings.Index(link, ">")])
	require.NoError(t, err)
	require.Len(t, rows(t, g.get("all", next.String())), 2, "and the link leads to the next page")
}

func TestFormatByNameThenByAccept(t *testing.T) {
	g := newFixture(t, twoFleets())
	for name, c := range map[string]struct{ path, accept, want string }{
		"no preference":            {"/v1/fleets", "", rest.JSONType},
		"a browser":                {"/v1/fleets", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", rest.JSONType},
		"CSV":                      {"/v1/fleets", "text/csv", "text/csv"},
		"CSV before JSON":          {"/v1/fleets", "application/json;q=0.5, text/csv", "text/csv"},
		"JSON before CSV":          {"/v1/fleets", "text/csv;q=0.5, application/json", rest.JSONType},
		"GPX of fleets":            {"/v1/fleets", "application/gpx+xml", rest.JSONType},
		"GPX of a track":           {"/v1/devices/truck-1/track", "application/gpx+xml", gpx.ContentType},
		"the name goes before":     {"/v1/fleets?format=json", "text/csv", rest.JSONType},
		"the name in capitals":     {"/v1/fleets?format=CSV", "", "text/csv"},
		"an invalid list of types": {"/v1/fleets", "text/csv;q=x,;;", rest.JSONType},
		"an excluded type, q=0":    {"/v1/fleets", "text/csv;q=0", rest.JSONType},
	} {
		w := g.get("all", c.path, "Accept", c.accept)
		require.Equal(t, 200, w.Code, name)
		media, _, _ := strings.Cut(w.Header().Get("Content-Type"), ";")
		assert.Equal(t, c.want, media, name)
		assert.Contains(t, w.Header().Get("Vary"), "Accept", name)
	}
}

func TestLongTrackIsStreamed(t *testing.T) {
	const n = 3*streamRows + 7
	store := &fakeStore{positions: drive("truck-1", "fleet-a", noon, n, time.Second)}
	g := newFixture(t, store, withMemory(t))
	all := rows(t, g.get("a", "/v1/devices/truck-1/track?format=csv"))
	require.Len(t, all, n+1)
	require.Equal(t, formatTime(noon), all[1][2])
	require.Equal(t, formatTime(noon.Add(-(n-1)*time.Second)), all[n][2])
	gpx := g.get("a", "/v1/devices/truck-1/track?format=gpx")
	require.Len(t, readGPX(t, gpx.Body.Bytes()).points(), n)
	require.LessOrEqual(t, store.most, streamRows+1, "only one part is in memory")
	require.Equal(t, "private, no-store", gpx.Header().Get("Cache-Control"))
	w := g.do(http.MethodHead, "a", "/v1/devices/truck-1/track?format=csv")
	require.Equal(t, 200, w.Code)
	require.Zero(t, w.Body.Len())
}

func TestBrokenStreamAbortsConnection(t *testing.T) {
	store := &fakeStore{positions: drive("truck-1", "fleet-a", noon, 6*streamRows, time.Second), err: errors.New("the node burns")}
	g := newFixture(t, store)
	server := httptest.NewServer(g.router)
	defer server.Close()
	for format, fail := range map[string]int{"csv": 5, "gpx": 8} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/v1/devices/truck-1/track?from=-8h&format="+format, nil)
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer a")
		store.mu.Lock()
		store.calls, store.fail = 0, fail
		store.mu.Unlock()
		answer, err := server.Client().Do(r)
		require.NoError(t, err)
		require.Equal(t, 200, answer.StatusCode, "the stream began")
		body, err := io.ReadAll(answer.Body)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "the client notices the broken stream")
		require.NotEmpty(t, body)
		answer.Body.Close()
	}
	server.Client().CloseIdleConnections()
	server.Close() // waits for the handlers, which count at their end
	require.Equal(t, 2.0, g.requests("track", "500"))
}

func TestUnchangedPageIsNotSentAgain(t *testing.T) {
	store := twoFleets()
	g := newFixture(t, store)
	first := g.get("a", "/v1/fleets/fleet-a/latest")
	etag := first.Header().Get("ETag")
	require.NotEmpty(t, etag)
	require.Equal(t, "private, no-cache", first.Header().Get("Cache-Control"))
	for _, tag := range []string{etag, "W/" + etag, `"other", ` + etag, "*"} {
		w := g.get("a", "/v1/fleets/fleet-a/latest", "If-None-Match", tag)
		require.Equal(t, 304, w.Code, tag)
		require.Zero(t, w.Body.Len())
	}
	store.positions = append(store.positions, drive("truck-1", "fleet-a", noon.Add(time.Second), 1, 0)...)
	require.Equal(t, 200, g.get("a", "/v1/fleets/fleet-a/latest", "If-None-Match", etag).Code)
}
