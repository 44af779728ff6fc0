package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/data"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/cassandra/diagnose"
	"github.com/fleettracing/fleet-tracing/cassandra/schema"
	"github.com/fleettracing/fleet-tracing/dev/testenv"
	"github.com/fleettracing/fleet-tracing/dev/testenv/platform"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/plugintest"
)

var update = flag.Bool("update", false, "rewrite the golden frames")

// fixture is shared by the tests: the real binary of the plugin, and a keyspace with data on a real cluster.
type fixture struct {
	binary   string
	config   cassandra.Config
	plugin   *plugintest.Plugin
	log      *os.File
	now      time.Time // when the data was written
	midnight time.Time // start of this UTC day
	closed   time.Time // start of a day that ended long ago
}

var (
	shared     fixture
	sharedMu   sync.Once
	errFixture error
)

func TestMain(m *testing.M) {
	flag.Parse()
	status := m.Run()
	if shared.plugin != nil {
		shared.plugin.Close()
		_ = os.Remove(shared.log.Name())
	}
	os.Exit(status)
}

// open returns the shared fixture. The first test that needs it makes it.
func open(t testing.TB) *fixture {
	testenv.CassandraHosts(t)
	sharedMu.Do(func() {
		errFixture = errors.New("the first test that needs the fixture shows why it is missing") // if making the keyspace fails that test
		errFixture = shared.make(platform.Keyspace(t))
	})
	require.NoError(t, errFixture)
	return &shared
}

func (w *fixture) make(config cassandra.Config) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var err error
	if w.binary, err = plugintest.Build(ctx); err != nil {
		return err
	}
	w.config = config
	w.config.WriteConsistency = "ALL"
	w.now = time.Now().UTC().Truncate(time.Millisecond)
	w.midnight = w.now.Truncate(24 * time.Hour)
	w.closed = w.midnight.AddDate(0, 0, -5)
	store, err := cassandra.Open(ctx, w.config, platform.Quiet(), nil)
	if err != nil {
		return err
	}
	defer store.Close()
	if err := w.fill(ctx, store); err != nil {
		return err
	}
	if w.log, err = os.CreateTemp("", "plugin-*.log"); err != nil {
		return err
	}
	w.plugin, err = plugintest.Start(w.binary, w.log)
	return err
}

func ptr[T any](v T) *T { return &v }

// fill writes four fleets: north has vehicles in every state, south is forbidden to restricted data sources, middle has
// 500 vehicles and large 10,000.
func (w *fixture) fill(ctx context.Context, s *cassandra.Store) error {
	north := []cassandra.LatestRow{
		{DeviceID: "n-idle", Lat: ptr(52.1), Lon: ptr(9.1), SpeedKmh: ptr(0.5), BatteryPct: ptr(int32(80)), Zone: "depot", LastTsMs: ptr(w.now.UnixMilli())},
		{DeviceID: "n-moving", Lat: ptr(52.2), Lon: ptr(9.2), SpeedKmh: ptr(48.5), HeadingDeg: ptr(90.0), BatteryPct: ptr(int32(15)), TempC: ptr(-18.5), Zone: "centre", LastTsMs: ptr(w.now.UnixMilli())},
		{DeviceID: "n-nowhere", Zone: "unknown", LastTsMs: ptr(w.now.Add(-time.Minute).UnixMilli())},
		{DeviceID: "n-offline", Lat: ptr(52.4), Lon: ptr(9.4), SpeedKmh: ptr(70.0), BatteryPct: ptr(int32(3)), Zone: "centre", LastTsMs: ptr(w.now.Add(-72 * time.Hour).UnixMilli())},
		{DeviceID: "n-stale", Lat: ptr(0.0), Lon: ptr(9.3), SpeedKmh: ptr(30.0), Zone: "depot", LastTsMs: ptr(w.now.Add(-10 * time.Hour).UnixMilli())},
	}
	if err := w.writeFleet(ctx, s, "north", north); err != nil {
		return err
	}
	south := []cassandra.LatestRow{{DeviceID: "s-1", Lat: ptr(40.0), Lon: ptr(8.0), Zone: "port", LastTsMs: ptr(w.now.UnixMilli())}}
	if err := w.writeFleet(ctx, s, "south", south); err != nil {
		return err
	}
	for fleet, n := range map[string]int{"middle": 500, "large": 10_000} {
		rows := make([]cassandra.LatestRow, n)
		for i := range rows {
			rows[i] = cassandra.LatestRow{
				DeviceID: fmt.Sprintf("%s-%05d", fleet, i), Lat: ptr(50 + float64(i)/1e4), Lon: ptr(8 + float64(i%100)/1e2), SpeedKmh: ptr(float64(i % 90)),
				HeadingDeg: ptr(float64(i % 360)), BatteryPct: ptr(int32(i % 101)), TempC: ptr(float64(i%40) - 20), Zone: "centre", LastTsMs: ptr(w.now.UnixMilli()),
			}
		}
		if err := w.writeFleet(ctx, s, fleet, rows); err != nil {
			return err
		}
	}
	// n-moving has a position every 10 s for three closed days, with one maximum and one minimum, and changes its fleet for an hour.
	for day := range 3 {
		from := w.closed.AddDate(0, 0, day)
		rows := make([]cassandra.TelemetryRow, 0, 8640)
		for i := range 8640 {
			ts := from.Add(time.Duration(i) * 10 * time.Second)
			speed := 40 + 10*math.Sin(float64(i)/500)
			switch {
			case day == 1 && i == 4321:
				speed = 140
			case day == 1 && i == 6000:
				speed = 0
			}
			row := cassandra.TelemetryRow{TsMs: ts.UnixMilli(), FleetID: "north", Lat: 52 + float64(i)/1e5, Lon: 9 + float64(i)/1e5, SpeedKmh: &speed, BatteryPct: ptr(int32(100 - i/100)), Zone: "centre"}
			if i%2 == 0 {
				row.TempC = ptr(-18.0)
			}
			if day == 2 && i < 360 {
				row.FleetID = "south"
			}
			rows = append(rows, row)
		}
		if err := w.writeDay(ctx, s, "n-moving", from, rows); err != nil {
			return err
		}
	}
	// n-golden has three positions around a midnight.
	for _, f := range []struct {
		at  time.Duration
		row cassandra.TelemetryRow
	}{
		{-time.Minute, cassandra.TelemetryRow{FleetID: "north", Lat: 52.5, Lon: 9.5, SpeedKmh: ptr(20.0), Zone: "depot"}},
		{0, cassandra.TelemetryRow{FleetID: "north", Lat: 52.6, Lon: 9.6, SpeedKmh: ptr(30.5), HeadingDeg: ptr(45.0), BatteryPct: ptr(int32(77)), TempC: ptr(4.5), Zone: "centre"}},
		{time.Minute, cassandra.TelemetryRow{FleetID: "north", Lat: 52.7, Lon: 9.7, BatteryPct: ptr(int32(76)), Zone: "centre"}},
	} {
		f.row.TsMs = w.closed.Add(f.at).UnixMilli()
		if err := w.writeDay(ctx, s, "n-golden", w.closed.Add(f.at), []cassandra.TelemetryRow{f.row}); err != nil {
			return err
		}
	}
	if err := w.fillAlerts(ctx, s); err != nil {
		return err
	}
	return s.ApplyGeofences(ctx, "north", cassandra.Put(1,
		cassandra.Geofence{Name: "depot", Kind: "depot", Geometry: `{"type":"Point","coordinates":[9.5,52.5]}`, RadiusM: ptr(200.0), DwellS: ptr(int32(3600))},
		cassandra.Geofence{Name: "school", Kind: "slow", Geometry: `{"type":"Polygon","coordinates":[[[9,52],[9.2,52],[9.2,52.1],[9,52.1],[9,52]]]}`, SpeedLimitKmh: ptr(30.0)},
	))
}

// january is the day of alerts and analytics, which never expire.
var january = time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC)

func (w *fixture) fillAlerts(ctx context.Context, s *cassandra.Store) error {
	for _, alert := range []cassandra.Alert{
		{FleetID: "north", Severity: "HIGH", OpenedMs: january.Add(8 * time.Hour).UnixMilli(), DeviceID: "n-moving", Type: "speed_limit", Message: "140 km/h where 100 are allowed", EndedMs: january.Add(9 * time.Hour).UnixMilli()},
		{FleetID: "north", Severity: "HIGH", OpenedMs: january.Add(33 * time.Hour).UnixMilli(), DeviceID: "n-moving", Type: "speed_limit", Message: "130 km/h where 100 are allowed"},
		{FleetID: "north", Severity: "LOW", OpenedMs: january.Add(9 * time.Hour).UnixMilli(), DeviceID: "n-offline", Type: "battery_low"},
		{FleetID: "south", Severity: "MEDIUM", OpenedMs: january.Add(10 * time.Hour).UnixMilli(), DeviceID: "s-1", Type: "device_offline", Message: "silent"},
	} {
		if err := s.ApplyFleetAlerts(ctx, cassandra.Put(alert.OpenedMs*1000, alert)); err != nil {
			return err
		}
	}
	var hours []cassandra.AnalyticsRow
	for hour := range int32(24) {
		row := cassandra.AnalyticsRow{FleetID: "north", Day: cassandra.DayOf(january.UnixMilli()), Hour: hour, TotalDistanceKm: float64(hour) * 1.5, AlertsCount: hour % 3, ActiveDevicesCount: 5}
		if hour != 3 {
			row.AvgSpeedKmh = ptr(20 + float64(hour))
		}
		hours = append(hours, row)
	}
	return s.ApplyAnalytics(ctx, cassandra.Put(1, hours...))
}

func (w *fixture) writeFleet(ctx context.Context, s *cassandra.Store, fleet string, rows []cassandra.LatestRow) error {
	if err := s.WriteFleet(ctx, fleet); err != nil {
		return err
	}
	buckets := map[int32][]cassandra.LatestRow{}
	var devices []cassandra.DeviceRow
	for _, r := range rows {
		r.WriteTimeUs = *r.LastTsMs * 1000
		bucket := cassandra.Bucket(r.DeviceID)
		buckets[bucket] = append(buckets[bucket], r)
		devices = append(devices, cassandra.DeviceRow{DeviceID: r.DeviceID, Status: cassandra.StatusActive, ActivatedAtMs: january.UnixMilli(), StatusWriteTimeUs: 1})
	}
	for bucket, rows := range buckets {
		for part := range slices.Chunk(rows, 100) {
			if err := s.WriteLatestByFleet(ctx, fleet, bucket, part); err != nil {
				return err
			}
		}
	}
	for part := range slices.Chunk(devices, 100) {
		if err := s.WriteDevices(ctx, fleet, part); err != nil {
			return err
		}
	}
	return nil
}

func (w *fixture) writeDay(ctx context.Context, s *cassandra.Store, device string, day time.Time, rows []cassandra.TelemetryRow) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for part := range slices.Chunk(rows, 100) {
		for i := range part {
			part[i].WriteTimeUs, part[i].TTLSeconds = 1, 40*24*3600
		}
		g.Go(func() error { return s.WriteHistory(ctx, device, cassandra.DayOf(day.UnixMilli()), part) })
	}
	return g.Wait()
}

// source is a data source with common settings.
func (w *fixture) source(uid string, changes ...map[string]any) plugintest.Source {
	settings := map[string]any{
		"contactPoints": strings.Join(w.config.Hosts, ", "), "keyspace": w.config.Keyspace, "localDatacenter": "dc1", "latestCache": "0s",
		"staleAfter": "1h", "offlineAfter": "48h", // wide, so that no test depends on the duration of others
	}
	for _, c := range changes {
		for key, value := range c {
			settings[key] = value
		}
	}
	return plugintest.Source{UID: uid, JSON: settings, Updated: w.now}
}

// run runs one query that must succeed.
func (w *fixture) run(t testing.TB, s plugintest.Source, from, to time.Time, q map[string]any) data.Frames {
	t.Helper()
	response := w.try(t, s, from, to, q)
	require.NoError(t, response.Error)
	require.Equal(t, backend.StatusOK, response.Status)
	return response.Frames
}

func (w *fixture) try(t testing.TB, s plugintest.Source, from, to time.Time, q map[string]any) backend.DataResponse {
	t.Helper()
	responses, err := w.plugin.Query(t.Context(), s, from, to, nil, q)
	require.NoError(t, err)
	return responses["A"]
}

// column formats the values of a field; null for an absent value.
func column(t testing.TB, frame *data.Frame, name string) []string {
	t.Helper()
	f, _ := frame.FieldByName(name)
	require.NotNil(t, f, "the frame has no field %s", name)
	values := make([]string, f.Len())
	for i := range values {
		values[i] = "null"
		if v, ok := f.ConcreteAt(i); ok {
			values[i] = fmt.Sprint(v)
		}
	}
	return values
}

func notices(frame *data.Frame) []string {
	var texts []string
	for _, n := range frame.Meta.Notices {
		texts = append(texts, n.Text)
	}
	return texts
}

func custom(t testing.TB, frame *data.Frame) map[string]any {
	t.Helper()
	m, ok := frame.Meta.Custom.(map[string]any)
	require.True(t, ok, "the metadata has the cost of the query")
	return m
}

func TestLatest(t *testing.T) {
	w := open(t)
	s := w.source("latest")
	frames := w.run(t, s, w.now, w.now, map[string]any{"queryType": "latest", "fleets": []string{"north"}})
	require.Len(t, frames, 1)
	f := frames[0]
	assert.Equal(t, []string{"n-idle", "n-moving", "n-nowhere", "n-offline", "n-stale"}, column(t, f, "device_id"))
	assert.Equal(t, []string{"stopped", "moving", "stopped", "offline", "stale"}, column(t, f, "status"))
	assert.Equal(t, []string{"52.1", "52.2", "null", "52.4", "0"}, column(t, f, "lat"), "a map draws the equator, and no null")
	assert.Equal(t, []string{"null", "90", "null", "null", "null"}, column(t, f, "heading_deg"))
	assert.Equal(t, []string{"80", "15", "null", "3", "null"}, column(t, f, "battery_pct"), "a null is not a zero")
	assert.Equal(t, 8.0, custom(t, f)["partitions"], "a fleet has eight partitions")

	all := w.run(t, s, w.now, w.now, map[string]any{})
	require.Len(t, all, 1, "one frame for all fleets")
	assert.Equal(t, 10_506, all[0].Rows())

	for name, c := range map[string]struct {
		query map[string]any
		want  []string
	}{
		"states":               {map[string]any{"states": []string{"moving", "stale"}}, []string{"n-moving", "n-stale"}},
		"zones":                {map[string]any{"zones": []string{"depot"}}, []string{"n-idle", "n-stale"}},
		"devices":              {map[string]any{"devices": []string{"n-idle", "unknown"}}, []string{"n-idle"}},
		"minimum speed":        {map[string]any{"minSpeedKmh": 30}, []string{"n-moving", "n-offline", "n-stale"}},
		"maximum speed":        {map[string]any{"maxSpeedKmh": 1}, []string{"n-idle"}},
		"low battery":          {map[string]any{"maxBatteryPct": 20}, []string{"n-moving", "n-offline"}},
		"ad-hoc: equal":        {map[string]any{"filters": []map[string]any{{"key": "zone", "operator": "=", "value": "centre"}}}, []string{"n-moving", "n-offline"}},
		"ad-hoc: one of":       {map[string]any{"filters": []map[string]any{{"key": "status", "operator": "=|", "value": "stopped", "values": []string{"stopped", "stale"}}}}, []string{"n-idle", "n-nowhere", "n-stale"}},
		"ad-hoc: pattern":      {map[string]any{"filters": []map[string]any{{"key": "device_id", "operator": "!~", "value": "n-(idle|moving)"}}}, []string{"n-nowhere", "n-offline", "n-stale"}},
		"ad-hoc: above":        {map[string]any{"filters": []map[string]any{{"key": "speed_kmh", "operator": ">", "value": "48"}}}, []string{"n-moving", "n-offline"}},
		"ad-hoc: other column": {map[string]any{"filters": []map[string]any{{"key": "namespace", "operator": "=", "value": "x"}}}, []string{"n-idle", "n-moving", "n-nowhere", "n-offline", "n-stale"}},
		"limit, with notice":   {map[string]any{"limit": 2}, []string{"n-idle", "n-moving"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.query["fleets"] = []string{"north"}
			frames := w.run(t, s, w.now, w.now, c.query)
			assert.Equal(t, c.want, column(t, frames[0], "device_id"))
			assert.Equal(t, strings.HasPrefix(name, "limit"), len(notices(frames[0])) > 0, "only a truncation has a notice: %v", notices(frames[0]))
		})
	}
	t.Run("alert rules get numbers", func(t *testing.T) {
		responses, err := w.plugin.Query(t.Context(), s, w.now, w.now, map[string]string{"FromAlert": "true"},
			map[string]any{"queryType": "latest", "fleets": []string{"north"}, "fields": []string{"battery_pct"}})
		require.NoError(t, err)
		f := responses["A"].Frames[0]
		assert.Equal(t, data.FrameTypeNumericLong, f.Meta.Type)
		assert.Equal(t, data.FrameTypeVersion{0, 1}, f.Meta.TypeVersion)
		assert.Equal(t, []string{"80", "15", "null", "3", "null"}, column(t, f, "battery_pct"))
		assert.Len(t, f.Fields, 3, "vehicle, fleet and the measure: with the geofence as a label, each border would raise a new alert")
	})
}

func TestTrackReadsDaysAndKeepsExtremes(t *testing.T) {
	w := open(t)
	s := w.source("track")
	from, to := w.closed, w.closed.AddDate(0, 0, 3).Add(-time.Millisecond)
	frames := w.run(t, s, from, to, map[string]any{"queryType": "track", "devices": []string{"n-moving"}, "maxDataPoints": 500, "fields": []string{"speed_kmh", "battery_pct", "temp_c"}})
	require.Len(t, frames, 3)
	for _, f := range frames {
		assert.Equal(t, data.FrameTypeTimeSeriesMulti, f.Meta.Type)
		assert.Equal(t, data.FrameTypeVersion{0, 1}, f.Meta.TypeVersion)
		assert.LessOrEqual(t, f.Rows(), 500)
		assert.Greater(t, f.Rows(), 200)
		assert.Equal(t, "n-moving", f.Fields[1].Labels["device_id"])
	}
	speeds := column(t, frames[0], "speed_kmh")
	assert.Contains(t, speeds, "140", "the maximum")
	assert.Contains(t, speeds, "0", "the minimum")
	assert.Equal(t, 3.0, custom(t, frames[0])["partitions"])
	assert.Equal(t, 3*8640.0, custom(t, frames[0])["rows"])

	again := w.run(t, s, from, to, map[string]any{"queryType": "track", "devices": []string{"n-moving"}, "maxDataPoints": 500})
	assert.Equal(t, 0.0, custom(t, again[0])["partitions"], "closed days are cached")
	assert.Equal(t, 3.0, custom(t, again[0])["cacheHits"])
	assert.Equal(t, speeds, column(t, again[0], "speed_kmh"))

	route := w.run(t, s, from, to, map[string]any{"queryType": "track", "devices": []string{"n-golden", "n-moving"}, "format": "table", "maxDataPoints": 600})
	require.Len(t, route, 2, "one frame per vehicle, because a route layer connects all points of a frame")
	assert.Equal(t, 2, route[0].Rows(), "n-golden, starting at midnight")
	assert.Equal(t, []string{"30.5", "null"}, column(t, route[0], "speed_kmh"))
	assert.LessOrEqual(t, route[1].Rows(), 600)
	assert.Contains(t, column(t, route[1], "speed_kmh"), "140")

	part := w.run(t, s, from.Add(time.Hour), from.Add(time.Hour+time.Minute), map[string]any{"queryType": "track", "devices": []string{"n-moving"}})
	assert.Equal(t, 7, part[0].Rows(), "both ends are included")

	assert.Equal(t, 0, w.run(t, s, from, to, map[string]any{"queryType": "track", "devices": []string{"unknown"}})[0].Rows())
	old := w.run(t, s, time.Unix(0, 0), to, map[string]any{"queryType": "track", "devices": []string{"n-moving"}})
	assert.LessOrEqual(t, custom(t, old[0])["partitions"], 32.0, "days beyond the retention are not read")

	t.Run("limits have notices", func(t *testing.T) {
		few := w.source("few", map[string]any{"maxPartitions": 2, "closedDayCache": "0s"})
		f := w.run(t, few, from, to, map[string]any{"queryType": "track", "devices": []string{"n-moving"}})
		assert.Contains(t, notices(f[0])[0], "Only the newest 2 day(s)")
		assert.NotContains(t, notices(f[0])[0], from.Format(time.DateOnly))
		rows := w.source("rows", map[string]any{"maxRowsRead": 10_000, "closedDayCache": "0s", "maxConcurrency": 1})
		f = w.run(t, rows, from, to, map[string]any{"queryType": "track", "devices": []string{"n-moving"}})
		assert.Contains(t, notices(f[0])[0], "at most 10000 rows")
	})
}

func TestAlertsAnalyticsAndLists(t *testing.T) {
	w := open(t)
	s := w.source("lists")
	from, to := january, january.AddDate(0, 0, 2)
	alerts := func(q map[string]any) *data.Frame {
		q["queryType"] = "alerts"
		return w.run(t, s, from, to, q)[0]
	}
	assert.Equal(t, []string{"HIGH", "MEDIUM", "LOW", "HIGH"}, column(t, alerts(map[string]any{}), "severity"), "of all fleets and days, newest first")
	assert.Equal(t, []string{"n-moving", "n-moving"}, column(t, alerts(map[string]any{"severities": []string{"HIGH"}}), "device_id"))
	two := alerts(map[string]any{"limit": 2, "devices": []string{"n-offline", "n-moving"}, "filters": []map[string]any{{"key": "severity", "operator": "!=", "value": "MEDIUM"}}})
	assert.Equal(t, []string{"HIGH", "LOW"}, column(t, two, "severity"))
	assert.Len(t, notices(two), 1)
	assert.Equal(t, []string{"false", "false", "false"}, column(t, alerts(map[string]any{"resolved": "open"}), "resolved"))
	assert.Equal(t, []string{"battery_low"}, column(t, alerts(map[string]any{"alertTypes": []string{"battery_low"}}), "alert_type"))

	counted := w.run(t, s, from, to, map[string]any{"queryType": "alerts", "format": "time_series"})
	require.Len(t, counted, 3)
	sum := map[string]float64{}
	for _, f := range counted {
		for i := range f.Rows() {
			v, err := f.Fields[1].FloatAt(i)
			require.NoError(t, err)
			sum[f.Fields[1].Labels["severity"]] += v
		}
	}
	assert.Equal(t, map[string]float64{"HIGH": 2, "MEDIUM": 1, "LOW": 1}, sum)

	responses, err := w.plugin.Query(t.Context(), s, from, to, map[string]string{"FromAlert": "true"},
		map[string]any{"refId": "A", "queryType": "alerts", "fleets": []string{"north", "south"}, "severities": []string{"HIGH"}, "resolved": "open"},
		map[string]any{"refId": "B", "queryType": "devices", "fleets": []string{"north"}},
		map[string]any{"refId": "C", "queryType": "fleets", "fleets": []string{"north"}},
		map[string]any{"refId": "D", "queryType": "geofences", "fleets": []string{"north"}},
		map[string]any{"refId": "E", "queryType": "analytics", "fleets": []string{"north"}})
	require.NoError(t, err)
	assert.Equal(t, []string{"1", "0"}, column(t, responses["A"].Frames[0], "count"), "a fleet without alerts counts zero, so that a rule can resolve")
	assert.Equal(t, []string{"5"}, column(t, responses["B"].Frames[0], "count"))
	assert.Equal(t, []string{"1"}, column(t, responses["C"].Frames[0], "offline"))
	assert.Equal(t, []string{"2"}, column(t, responses["D"].Frames[0], "count"))
	assert.Equal(t, data.FrameTypeTimeSeriesMulti, responses["E"].Frames[0].Meta.Type)

	hours := w.run(t, s, from.Add(90*time.Minute), from.Add(4*time.Hour), map[string]any{"queryType": "analytics", "format": "table", "fleets": []string{"north"}})[0]
	assert.Equal(t, []string{"1.5", "3", "4.5", "6"}, column(t, hours, "total_distance_km"), "the hour in progress at the start belongs to the range")
	assert.Equal(t, []string{"21", "22", "null", "24"}, column(t, hours, "avg_speed_kmh"))

	for variable, c := range map[string]struct {
		query map[string]any
		want  []string
	}{
		"fleets":      {nil, []string{"large", "middle", "north", "south"}},
		"devices":     {map[string]any{"fleets": []string{"south"}}, []string{"s-1"}},
		"zones":       {map[string]any{"fleets": []string{"north"}}, []string{"centre", "depot", "school", "unknown"}},
		"severities":  {nil, []string{"HIGH", "MEDIUM", "LOW"}},
		"alert_types": {map[string]any{"fleets": []string{"north"}}, []string{"battery_low", "speed_limit"}},
		"states":      {nil, []string{"moving", "stopped", "stale", "offline"}},
	} {
		q := map[string]any{"queryType": "variable", "variable": variable}
		for key, value := range c.query {
			q[key] = value
		}
		assert.Equal(t, c.want, column(t, w.run(t, s, from, to, q)[0], "value"), variable)
	}
}

func TestGoldenFrames(t *testing.T) {
	w := open(t)
	s := w.source("golden")
	from, to := january, january.AddDate(0, 0, 2)
	for name, c := range map[string]struct {
		from, to time.Time
		query    map[string]any
	}{
		"latest":             {w.now, w.now, map[string]any{"queryType": "latest", "fleets": []string{"north"}, "states": []string{"stale", "offline"}}},
		"latest-numeric":     {w.now, w.now, map[string]any{"queryType": "latest", "fleets": []string{"north"}, "format": "numeric", "fields": []string{"speed_kmh", "battery_pct"}}},
		"track":              {w.closed.Add(-time.Hour), w.closed.Add(2 * time.Minute), map[string]any{"queryType": "track", "devices": []string{"n-golden"}, "fields": []string{"speed_kmh", "battery_pct"}}},
		"route":              {w.closed.Add(-time.Hour), w.closed.Add(2 * time.Minute), map[string]any{"queryType": "track", "devices": []string{"n-golden"}, "format": "table"}},
		"analytics":          {from, from.Add(4 * time.Hour), map[string]any{"queryType": "analytics", "fleets": []string{"north"}, "fields": []string{"avg_speed_kmh", "total_distance_km"}}},
		"analytics-table":    {from, from.Add(4 * time.Hour), map[string]any{"queryType": "analytics", "fleets": []string{"north"}, "format": "table"}},
		"alerts":             {from, to, map[string]any{"queryType": "alerts", "fleets": []string{"north"}}},
		"alerts-logs":        {from, to, map[string]any{"queryType": "alerts", "fleets": []string{"north"}, "format": "logs"}},
		"alerts-annotations": {from, to, map[string]any{"queryType": "alerts", "fleets": []string{"north"}, "format": "annotations"}},
		"alerts-numeric":     {from, to, map[string]any{"queryType": "alerts", "fleets": []string{"north"}, "format": "numeric"}},
		"devices":            {from, to, map[string]any{"queryType": "devices", "fleets": []string{"north"}}},
		"fleets":             {from, to, map[string]any{"queryType": "fleets", "fleets": []string{"north", "south"}}},
		"geofences":          {from, to, map[string]any{"queryType": "geofences", "fleets": []string{"north"}}},
		"variable":           {from, to, map[string]any{"queryType": "variable", "variable": "zones", "fleets": []string{"north"}}},
		"raw":                {from, to, map[string]any{"queryType": "raw", "cql": "SELECT day, ts, severity, device_id, alert_type, resolved FROM alerts_by_fleet_day WHERE fleet_id = 'north' AND day IN ($__days) AND severity IN ('HIGH', 'LOW') AND $__timeFilter(ts)"}},
		"raw-series":         {from, to, map[string]any{"queryType": "raw", "format": "time_series", "cql": "SELECT day, hour, total_distance_km, fleet_id FROM fleet_analytics_by_day WHERE fleet_id = 'north' AND day = '2026-01-15' AND hour = 4"}},
		"raw-logs":           {from, to, map[string]any{"queryType": "raw", "format": "logs", "cql": "SELECT ts, severity, device_id, message FROM alerts_by_fleet_day WHERE fleet_id = 'north' AND day IN ($__days) AND severity = 'HIGH'"}},
	} {
		s.Updated = s.Updated.Add(time.Minute) // a new data source, with empty caches
		t.Run(name, func(t *testing.T) {
			got := w.golden(t, w.run(t, s, c.from, c.to, c.query))
			path := filepath.Join("testdata", "golden", name+".json")
			if *update {
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
				require.NoError(t, os.WriteFile(path, got, 0o644))
			}
			want, err := os.ReadFile(path)
			require.NoError(t, err)
			assert.JSONEq(t, string(want), string(got))
		})
	}
}

// golden formats frames as JSON without the parts that differ between runs: times are relative to the day of the test,
// ages are zero, and there are no coordinators.
func (w *fixture) golden(t *testing.T, frames data.Frames) []byte {
	t.Helper()
	for _, f := range frames {
		for _, field := range f.Fields {
			for i := range field.Len() {
				switch v := field.At(i).(type) {
				case time.Time:
					field.Set(i, w.relative(v))
				case *time.Time:
					if v != nil {
						field.Set(i, ptr(w.relative(*v)))
					}
				}
				if field.Name == "age_s" {
					if field.Type() == data.FieldTypeFloat64 {
						field.Set(i, 0.0)
					}
				}
			}
		}
		f.Meta.ExecutedQueryString = strings.NewReplacer(w.closed.Format(time.DateOnly), "CLOSED", w.closed.AddDate(0, 0, -1).Format(time.DateOnly), "BEFORE").Replace(f.Meta.ExecutedQueryString)
		f.Meta.ExecutedQueryString, _, _ = strings.Cut(f.Meta.ExecutedQueryString, "\n-- ")
		statements := strings.Split(f.Meta.ExecutedQueryString, ";\n")
		slices.Sort(statements) // partitions are read in parallel
		f.Meta.ExecutedQueryString = strings.Join(statements, ";\n")
		if strings.Contains(f.Meta.ExecutedQueryString, "telemetry_by_") {
			f.Meta.ExecutedQueryString = "of telemetry" // its times differ
		}
		if m, ok := f.Meta.Custom.(map[string]any); ok {
			assert.NotEmpty(t, m)
			f.Meta.Custom = nil
		}
		for i := range f.Meta.Stats {
			f.Meta.Stats[i].Value = 0 // the cache may response
		}
	}
	text, err := json.MarshalIndent(frames, "", " ")
	require.NoError(t, err)
	return text
}

func (w *fixture) relative(ts time.Time) time.Time {
	if ts.Before(january.AddDate(0, 1, 0)) {
		return ts
	}
	if since := ts.Sub(w.closed); since > -48*time.Hour && since < 48*time.Hour {
		return january.Add(since)
	}
	return january.Add(ts.Sub(w.now).Truncate(time.Minute))
}

func TestForbiddenFleetsAreRejectedInEveryQueryType(t *testing.T) {
	w := open(t)
	s := w.source("restricted", map[string]any{"allowedFleets": "north, middle"})
	from, to := january, january.AddDate(0, 0, 1)
	for name, q := range map[string]map[string]any{
		"latest":    {"queryType": "latest", "fleets": []string{"south"}},
		"analytics": {"queryType": "analytics", "fleets": []string{"north", "south"}},
		"alerts":    {"queryType": "alerts", "fleets": []string{"south"}},
		"devices":   {"queryType": "devices", "fleets": []string{"south"}},
		"fleets":    {"queryType": "fleets", "fleets": []string{"south"}},
		"geofences": {"queryType": "geofences", "fleets": []string{"south"}},
		"variable":  {"queryType": "variable", "variable": "devices", "fleets": []string{"south"}},
		"track":     {"queryType": "track", "devices": []string{"n-moving"}, "fleets": []string{"south"}},
	} {
		t.Run(name, func(t *testing.T) {
			response := w.try(t, s, from, to, q)
			require.ErrorContains(t, response.Error, `fleet "south": not allowed for this data source (allowed: middle, north)`)
			assert.Equal(t, backend.StatusForbidden, response.Status)
			assert.Equal(t, backend.ErrorSourceDownstream, response.ErrorSource)
			assert.Empty(t, response.Frames)
		})
	}
	assert.Equal(t, 505, w.run(t, s, from, to, map[string]any{"queryType": "latest"})[0].Rows(), "all fleets means all allowed fleets")
	assert.Equal(t, []string{"middle", "north"}, column(t, w.run(t, s, from, to, map[string]any{"queryType": "variable", "variable": "fleets"})[0], "value"))

	moved := w.run(t, s, w.closed.AddDate(0, 0, 2), w.closed.AddDate(0, 0, 3), map[string]any{"queryType": "track", "devices": []string{"n-moving"}})
	assert.Empty(t, notices(moved[0]), "nothing reveals what another fleet has")
	first, _ := moved[0].Fields[0].ConcreteAt(0)
	assert.True(t, !first.(time.Time).Before(w.closed.AddDate(0, 0, 2).Add(time.Hour)), "its hour in the other fleet is hidden")

	for _, statement := range []string{
		"SELECT * FROM latest_telemetry_by_device WHERE device_id = 's-1'",
		"SELECT * FROM fleets WHERE shard = 0",
		"SELECT * FROM alerts_by_fleet_day WHERE fleet_id = 'south' AND day = '2026-01-15' AND severity = 'MEDIUM'",
	} {
		require.Error(t, w.try(t, s, from, to, map[string]any{"queryType": "raw", "cql": statement}).Error, statement)
	}
	status, body, err := w.plugin.Resource(t.Context(), s, "devices?fleet=south")
	require.NoError(t, err)
	assert.Equal(t, 403, status)
	assert.Contains(t, string(body), "not allowed for this data source")
	subscription, _, err := w.plugin.Subscribe(t.Context(), s, "fleet/c291dGg")
	require.NoError(t, err)
	assert.Equal(t, backend.SubscribeStreamStatusPermissionDenied, subscription)
	require.Error(t, w.plugin.Run(t.Context(), s, "fleet/c291dGg", func(*data.Frame) { t.Error("a packet of a forbidden fleet") }))
}

func TestRawShowsEveryTypeAndRejectsHostileStatements(t *testing.T) {
	w := open(t)
	s := w.source("raw", map[string]any{"maxPartitions": 100})
	require.NoError(t, schema.Exec(t.Context(), w.config, platform.Quiet(),
		"CREATE TYPE IF NOT EXISTS place (name text, floor int)",
		"CREATE TABLE IF NOT EXISTS every_type (k int PRIMARY KEY, a ascii, bi bigint, bl blob, bo boolean, da date, de decimal, dou double, du duration, fl float, ine inet, i int, sm smallint, te text, ti time, ts timestamp, tu timeuuid, ty tinyint, uu uuid, va varint, li list<int>, se set<text>, ma map<text, timestamp>, tup tuple<int, text>, udt frozen<place>, nest list<frozen<map<text, int>>>, vec vector<float, 2>)",
		"INSERT INTO every_type (k) VALUES (1)",
		`INSERT INTO every_type (k, a, bi, bl, bo, da, de, dou, du, fl, ine, i, sm, te, ti, ts, tu, ty, uu, va, li, se, ma, tup, udt, nest, vec) VALUES (2, 'x', 9007199254740993, 0xcafe, true, '2026-02-03', 1.50, 2.5, 1mo2d3h, 0.1, '::1', -7, -8, 'é', '10:11:12.000000013', '2026-02-03T04:05:06.007Z', 50554d6e-29bb-11e5-b345-feff819cdc9f, -9, 550e8400-e29b-41d4-a716-446655440000, 123456789012345678901234567890, [1, 2], {'b', 'a'}, {'t': '2026-02-03T04:05:06.007Z'}, (5, null), {name: 'n'}, [{'m': 1}], [1.5, 2.5])`))
	time.Sleep(time.Second)
	frames := w.run(t, s, january, january, map[string]any{"queryType": "raw", "cql": "SELECT * FROM every_type WHERE k IN (1, 2)"})
	want := map[string]string{
		"k": "2", "a": "x", "bi": "9007199254740993", "bl": "0xcafe", "bo": "true", "da": "2026-02-03 00:00:00 +0000 UTC", "de": "1.5", "dou": "2.5", "du": "1mo2d3h", "fl": "0.1",
		"ine": "::1", "i": "-7", "sm": "-8", "te": "é", "ti": "10:11:12.000000013", "ts": "2026-02-03 04:05:06.007 +0000 UTC", "tu": "50554d6e-29bb-11e5-b345-feff819cdc9f",
		"ty": "-9", "uu": "550e8400-e29b-41d4-a716-446655440000", "va": "123456789012345678901234567890", "li": "[1,2]", "se": `["a","b"]`, "ma": `{"t":"2026-02-03T04:05:06.007Z"}`,
		"tup": "[5,null]", "udt": `{"name":"n","floor":null}`, "nest": `[{"m":1}]`, "vec": "0x3fc0000040200000",
	}
	require.Len(t, frames[0].Fields, len(want))
	for name, value := range want {
		values := column(t, frames[0], name)
		assert.Equal(t, value, values[1], name)
		if name != "k" {
			assert.Equal(t, "null", values[0], "a null is not a zero: %s", name)
		}
	}
	bi, _ := frames[0].FieldByName("bi")
	assert.Equal(t, data.FieldTypeNullableString, bi.Type(), "a browser cannot represent such a large number")

	series := w.run(t, s, january, january.Add(time.Hour), map[string]any{"queryType": "raw", "format": "time_series",
		"cql": "SELECT ts, speed_kmh, zone FROM telemetry_by_device_day WHERE device_id = 'n-moving' AND day = '" + w.closed.Format(time.DateOnly) + "' LIMIT 100"})
	assert.Equal(t, data.FrameTypeTimeSeriesWide, series[0].Meta.Type)
	assert.Equal(t, 100, series[0].Rows())
	assert.Empty(t, notices(series[0]), "a LIMIT of the statement has no notice")
	cut := w.run(t, s, january, january.Add(time.Hour), map[string]any{"queryType": "raw", "limit": 50,
		"cql": "SELECT ts FROM telemetry_by_device_day WHERE device_id = 'n-moving' AND day = '" + w.closed.Format(time.DateOnly) + "'"})
	assert.Equal(t, 50, cut[0].Rows())
	assert.NotEmpty(t, notices(cut[0]))
	assert.Contains(t, cut[0].Meta.ExecutedQueryString, "SELECT ts FROM telemetry_by_device_day")
	assert.NotEmpty(t, custom(t, cut[0])["coordinators"])
	assert.Regexp(t, `-- 1 partition\(s\), 1 page\(s\), 51 row\(s\) read from 127\.0\.0\.\d \(dc1\)`, cut[0].Meta.ExecutedQueryString)

	filtered := w.run(t, s, january, january.AddDate(0, 0, 2), map[string]any{"queryType": "raw", "filters": []map[string]any{{"key": "device_id", "operator": "=", "value": "n-offline"}, {"key": "speed_kmh", "operator": ">", "value": "5"}},
		"cql": "SELECT ts, device_id FROM alerts_by_fleet_day WHERE fleet_id = 'north' AND day IN ($__days) AND severity IN ('HIGH', 'LOW')"})
	assert.Equal(t, []string{"n-offline"}, column(t, filtered[0], "device_id"), "ad hoc filters apply to the selected columns")

	for statement, reason := range map[string]string{
		"DROP TABLE telemetry_by_device_day":                                            "only SELECT is allowed",
		"SELECT * FROM every_type WHERE k = 1; TRUNCATE every_type":                     "only one statement is allowed",
		"SELECT * FROM every_type WHERE k = 1 -- x":                                     "comments are not allowed",
		"SELECT * FROM system_auth.roles WHERE role = 'cassandra'":                      "keyspace \"system_auth\"",
		"SELECT * FROM every_type":                                                      "k has no condition",
		"SELECT * FROM every_type WHERE i = 1 ALLOW FILTERING":                          "ALLOW FILTERING: not allowed",
		"SELECT * FROM every_type WHERE k IN (" + strings.Repeat("1,", 1000) + "1)":     "more than 100 partitions",
		"SELECT * FROM every_type WHERE te = '" + strings.Repeat("x", 200_000) + "'":    "at most 131072",
		"SELECT nothing FROM every_type WHERE k = 1":                                    "nothing",
		"SELECT * FROM telemetry_by_device_day WHERE device_id='x' AND day IN ($__days": "not closed",
	} {
		response := w.try(t, s, january, january.Add(time.Hour), map[string]any{"queryType": "raw", "cql": statement})
		require.ErrorContains(t, response.Error, reason)
		assert.Equal(t, backend.StatusBadRequest, response.Status, reason)
		assert.Equal(t, backend.ErrorSourceDownstream, response.ErrorSource)
	}
	ofLength := func(n int) map[string]any {
		return map[string]any{"queryType": "raw", "cql": "SELECT * FROM every_type WHERE te = '" + strings.Repeat("x", n) + "'"}
	}
	require.ErrorContains(t, w.try(t, s, january, january, ofLength(3<<20)).Error, "query memory")
	_, err := w.plugin.Query(t.Context(), s, january, january, nil, ofLength(10<<20))
	require.ErrorContains(t, err, "larger than max", "it is not even decoded")
	million := w.try(t, s, time.Unix(0, 0), time.Unix(100*365*24*3600, 0), map[string]any{"queryType": "raw", "cql": "SELECT * FROM telemetry_by_device_day WHERE device_id = 'x' AND day IN ($__days)"})
	require.ErrorContains(t, million.Error, "at most 100 are allowed")
	off := w.source("off", map[string]any{"allowRaw": false})
	require.ErrorContains(t, w.try(t, off, january, january, map[string]any{"queryType": "raw", "cql": "SELECT * FROM every_type WHERE k = 1"}).Error, "not allowed by the settings")
	filtering := w.source("filtering", map[string]any{"allowFiltering": true})
	assert.Equal(t, 1, w.run(t, filtering, january, january, map[string]any{"queryType": "raw", "cql": "SELECT * FROM every_type WHERE i = -7 ALLOW FILTERING"})[0].Rows())
}

func TestErrorsNameFieldValueAndRemedy(t *testing.T) {
	w := open(t)
	s := w.source("wrong")
	for want, q := range map[string]map[string]any{
		`query type "everything": unknown; use one of latest`: {"queryType": "everything"},
		`format of latest "pie": unknown; use one of table`:   {"queryType": "latest", "format": "pie"},
		`fleet "a b": a name has 1 to 128 characters`:         {"queryType": "latest", "fleets": []string{"a b"}},
		`state "flying": unknown`:                             {"queryType": "latest", "states": []string{"flying"}},
		`severity "high": unknown; use one of HIGH`:           {"queryType": "alerts", "severities": []string{"high"}},
		"devices: a track needs at least one":                 {"queryType": "track"},
		`field "altitude": unknown`:                           {"queryType": "track", "devices": []string{"a"}, "fields": []string{"altitude"}},
		"cql: it is empty":                                    {"queryType": "raw", "cql": " "},
		`limit -1`:                                            {"queryType": "latest", "limit": -1},
		`filter zone "(": `:                                   {"queryType": "latest", "filters": []map[string]any{{"key": "zone", "operator": "=~", "value": "("}}},
		`filter speed_kmh > "fast": give a number`:            {"queryType": "latest", "filters": []map[string]any{{"key": "speed_kmh", "operator": ">", "value": "fast"}}},
		"cannot unmarshal":                                    {"queryType": "latest", "fleets": "north"},
	} {
		response := w.try(t, s, w.now, w.now, q)
		require.ErrorContains(t, response.Error, want)
		assert.Equal(t, backend.StatusBadRequest, response.Status)
	}
	// An invalid query does not affect the others of its request.
	responses, err := w.plugin.Query(t.Context(), s, w.now, w.now, nil,
		map[string]any{"refId": "A", "queryType": "everything"}, map[string]any{"refId": "B", "queryType": "latest", "fleets": []string{"south"}})
	require.NoError(t, err)
	require.Error(t, responses["A"].Error)
	require.NoError(t, responses["B"].Error)
	assert.Equal(t, 1, responses["B"].Frames[0].Rows())
}

func TestHealthNamesTheStageAndTheRemedy(t *testing.T) {
	w := open(t)
	healthy, err := w.plugin.Health(t.Context(), w.source("health", map[string]any{"allowedFleets": "north"}))
	require.NoError(t, err)
	require.Equal(t, backend.HealthStatusOk, healthy.Status, healthy.Message)
	assert.Contains(t, healthy.Message, "dc1: 2 replica(s) on 2 node(s), dc2: 2 replica(s) on 2 node(s); local data center dc1")
	assert.Contains(t, healthy.Message, "latest record")
	assert.Contains(t, healthy.Message, "only fleets north")
	var details struct {
		Findings []diagnose.Finding `json:"findings"`
	}
	require.NoError(t, json.Unmarshal(healthy.JSONDetails, &details))
	var stages []string
	for _, f := range details.Findings {
		stages = append(stages, f.Stage)
	}
	assert.Equal(t, []string{"tcp", "tls", "login", "keyspace", "tables", "replicas", "data", "permissions"}, stages)

	for name, c := range map[string]struct {
		change map[string]any
		want   []string
	}{
		"no contact point":    {map[string]any{"contactPoints": " "}, []string{`settings: Contact points "": name at least one`}},
		"invalid settings":    {map[string]any{"queryTimeout": "soon", "maxRows": 0, "cacheMegabytes": 0}, []string{"Memory (MB) 0: give a number from 1", `Query timeout "soon": give a duration`, "Rows per query 0: give a number from 1"}},
		"unknown host":        {map[string]any{"contactPoints": "no-such-host.invalid"}, []string{"Failed at tcp", "Check the names in Contact points"}},
		"closed port":         {map[string]any{"contactPoints": "127.0.0.1:1"}, []string{"Failed at tcp", "connection refused", "native_transport_port"}},
		"TLS to a plain port": {map[string]any{"tls": true, "connectTimeout": "2s"}, []string{"Failed at tls", "serves TLS"}},
		"unknown keyspace":    {map[string]any{"keyspace": "nowhere"}, []string{"Failed at keyspace", "open keyspace nowhere (Keyspace)", "schema apply"}},
		"other keyspace":      {map[string]any{"keyspace": "system_traces"}, []string{"Failed at tables", "telemetry_by_device_day: missing"}},
		"unknown data center": {map[string]any{"localDatacenter": "dc9"}, []string{"Failed at replicas", "not in the cluster, which has dc1, dc2"}},
		"unknown level":       {map[string]any{"consistency": "MOST"}, []string{"Failed at replicas", `Consistency "MOST"`}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := w.plugin.Health(t.Context(), w.source("health-"+strings.ReplaceAll(name, " ", "-"), c.change))
			require.NoError(t, err)
			assert.Equal(t, backend.HealthStatusError, got.Status)
			for _, want := range c.want {
				assert.Contains(t, got.Message, want)
			}
		})
	}
	nearest, err := w.plugin.Health(t.Context(), w.source("nearest", map[string]any{"localDatacenter": "", "contactPoints": "127.0.0.3"}))
	require.NoError(t, err)
	assert.Contains(t, nearest.Message, "local data center dc2", "by default, the data center of the contact point")
}

func TestResources(t *testing.T) {
	w := open(t)
	s := w.source("resources")
	get := func(url string, v any) int {
		status, body, err := w.plugin.Resource(t.Context(), s, url)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(body, v), "%s: %s", url, body)
		return status
	}
	var names []string
	require.Equal(t, 200, get("fleets", &names))
	assert.Equal(t, []string{"large", "middle", "north", "south"}, names)
	require.Equal(t, 200, get("devices?fleet=north&fleet=south&prefix=n-&limit=2", &names))
	assert.Equal(t, []string{"n-idle", "n-moving"}, names)
	require.Equal(t, 200, get("zones?fleet=north", &names))
	assert.Equal(t, []string{"centre", "depot", "school", "unknown"}, names)
	var texts []struct{ Text string }
	require.Equal(t, 200, get("filter-keys", &texts))
	assert.NotEmpty(t, texts)
	require.Equal(t, 200, get("filter-values?key=status", &texts))
	assert.Len(t, texts, 4)
	var schema struct {
		Keyspace string
		Tables   []cassandra.Table
	}
	require.Equal(t, 200, get("schema", &schema))
	i := slices.IndexFunc(schema.Tables, func(table cassandra.Table) bool { return table.Name == cassandra.TableAlerts })
	require.GreaterOrEqual(t, i, 0)
	assert.Equal(t, []string{"fleet_id", "day", "severity"}, schema.Tables[i].PartitionKey)
	assert.Equal(t, []string{"ts", "device_id", "alert_type"}, schema.Tables[i].ClusteringKey)
	var geofences struct {
		Type     string
		Features []struct {
			Geometry struct {
				Type        string
				Coordinates [][][]float64
			}
			Properties map[string]any
		}
	}
	require.Equal(t, 200, get("geofences?fleet=north", &geofences))
	require.Len(t, geofences.Features, 2)
	circle := geofences.Features[0].Geometry
	assert.Equal(t, "Polygon", circle.Type, "GeoJSON has no circles")
	north := slices.MaxFunc(circle.Coordinates[0], func(a, b []float64) int { return cmp.Compare(a[1], b[1]) })
	assert.InDelta(t, 200, (north[1]-52.5)*111_195, 1, "its radius, in meters")
	var problem struct{ Message string }
	assert.Equal(t, 404, get("secrets", &problem))
	assert.Equal(t, 400, get("devices?limit=x", &problem))
	assert.Contains(t, problem.Message, "limit")
}

func TestLiveMapUpdatesAndIsReadOnce(t *testing.T) {
	w := open(t)
	store, err := cassandra.Open(t.Context(), w.config, platform.Quiet(), nil)
	require.NoError(t, err)
	defer store.Close()
	row := cassandra.LatestRow{DeviceID: "live-1", Lat: ptr(1.0), Lon: ptr(2.0), Zone: "a", SpeedKmh: ptr(10.0), LastTsMs: ptr(time.Now().UnixMilli())}
	require.NoError(t, w.writeFleet(t.Context(), store, "live", []cassandra.LatestRow{row}))
	require.NoError(t, w.writeFleet(t.Context(), store, "live", []cassandra.LatestRow{{DeviceID: "live-2", Lat: ptr(3.0), Lon: ptr(4.0), Zone: "b", LastTsMs: ptr(time.Now().UnixMilli())}}))
	s := w.source("stream", map[string]any{"liveInterval": "300ms"})

	frame := w.run(t, s, w.now, w.now, map[string]any{"queryType": "latest", "fleets": []string{"live"}, "live": true})[0]
	require.Equal(t, "ds/stream/fleet/bGl2ZQ", frame.Meta.Channel)
	filtered := w.run(t, s, w.now, w.now, map[string]any{"queryType": "latest", "fleets": []string{"live"}, "live": true, "zones": []string{"b"}})[0]
	path := strings.TrimPrefix(filtered.Meta.Channel, "ds/stream/")
	require.NotEqual(t, "fleet/bGl2ZQ", path, "the filter is part of the channel")
	two := w.run(t, s, w.now, w.now, map[string]any{"queryType": "latest", "fleets": []string{"live", "north"}, "live": true})[0]
	assert.Empty(t, two.Meta.Channel)
	assert.Contains(t, notices(two)[0], "Live streaming needs a single fleet")

	status, initial, err := w.plugin.Subscribe(t.Context(), s, "fleet/bGl2ZQ")
	require.NoError(t, err)
	require.Equal(t, backend.SubscribeStreamStatusOK, status)
	assert.Equal(t, 2, initial.Rows(), "the whole fleet")
	for _, wrong := range []string{"fleet", "fleet/%%%", "other/bGl2ZQ", "fleet/bGl2ZQ/bm9wZQ", "fleet/bGl2ZQ/e30/x"} {
		status, _, err = w.plugin.Subscribe(t.Context(), s, wrong)
		require.NoError(t, err)
		assert.Equal(t, backend.SubscribeStreamStatusNotFound, status, wrong)
	}
	published, err := w.plugin.Publish(t.Context(), s, "fleet/bGl2ZQ")
	require.NoError(t, err)
	assert.Equal(t, backend.PublishStreamStatusPermissionDenied, published)

	ctx, cancel := context.WithCancel(t.Context())
	packets, second := make(chan *data.Frame, 100), make(chan *data.Frame, 100)
	var g errgroup.Group
	before := w.partitionsRead(t, "stream", "latest_telemetry_by_fleet")
	start := time.Now()
	g.Go(func() error { return w.plugin.Run(ctx, s, "fleet/bGl2ZQ", func(f *data.Frame) { packets <- f }) })
	g.Go(func() error { return w.plugin.Run(ctx, s, path, func(f *data.Frame) { second <- f }) })
	first := receive(t, packets)
	assert.Equal(t, 2, first.Rows())
	assert.Equal(t, []string{"live-2"}, column(t, receive(t, second), "device_id"))

	moved := time.Now()
	row.Lat, row.LastTsMs = ptr(1.5), ptr(moved.UnixMilli()+1)
	require.NoError(t, w.writeFleet(t.Context(), store, "live", []cassandra.LatestRow{row}))
	next := receive(t, packets)
	took := time.Since(moved)
	assert.Equal(t, []string{"1.5", "3"}, column(t, next, "lat"))
	assert.Equal(t, 2, next.Rows(), "each packet is the whole fleet")
	assert.Less(t, took, 3*time.Second)
	time.Sleep(time.Until(start.Add(3 * time.Second)))
	reads := w.partitionsRead(t, "stream", "latest_telemetry_by_fleet") - before
	assert.LessOrEqual(t, reads, 8*(time.Since(start).Seconds()/0.3+3), "two streams share one reader")
	assert.Positive(t, reads)
	assert.Empty(t, packets, "nothing changed, so nothing is sent")

	// After a change of settings, Grafana makes a new data source and disposes of the old one. The streams of the old one
	// end with an error, so that Grafana restarts them.
	changed := s
	changed.JSON = map[string]any{}
	for key, value := range s.JSON {
		changed.JSON[key] = value
	}
	changed.JSON["liveInterval"], changed.Updated = "400ms", s.Updated.Add(time.Hour)
	_, err = w.plugin.Query(t.Context(), changed, w.now, w.now, nil, map[string]any{"queryType": "latest", "fleets": []string{"live"}})
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- g.Wait() }()
	select {
	case err := <-ended:
		require.ErrorContains(t, err, "settings of the data source have changed")
	case <-time.After(20 * time.Second):
		t.Fatal("the streams of a disposed data source continue")
	}
	cancel()
}

func receive(t *testing.T, packets chan *data.Frame) *data.Frame {
	t.Helper()
	select {
	case f := <-packets:
		return f
	case <-time.After(15 * time.Second):
		t.Fatal("no packet within 15 s")
		return nil
	}
}

// partitionsRead returns how many partitions of a table the driver of a data source has read.
func (w *fixture) partitionsRead(t *testing.T, uid, table string) float64 {
	t.Helper()
	text, err := w.plugin.Metrics(t.Context())
	require.NoError(t, err)
	total := 0.0
	for _, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, "fleet_datasource_cassandra_request_duration_seconds_count{") && strings.Contains(line, `datasource="`+uid+`"`) &&
			strings.Contains(line, `table="`+table+`"`) {
			var n float64
			_, err := fmt.Sscan(line[strings.LastIndex(line, " ")+1:], &n)
			require.NoError(t, err)
			total += n
		}
	}
	return total
}

func TestEqualQueriesShareReadsAndCancel(t *testing.T) {
	w := open(t)
	s := w.source("equal", map[string]any{"closedDayCache": "0s"})
	from, to := w.closed, w.closed.AddDate(0, 0, 3).Add(-time.Millisecond)
	var queries []map[string]any
	for i := range 8 {
		queries = append(queries, map[string]any{"refId": fmt.Sprint(i), "queryType": "track", "devices": []string{"n-moving"}})
	}
	responses, err := w.plugin.Query(t.Context(), s, from, to, nil, queries...)
	require.NoError(t, err)
	partitions, sharedReads := 0.0, 0.0
	for _, r := range responses {
		require.NoError(t, r.Error)
		partitions += custom(t, r.Frames[0])["partitions"].(float64)
		sharedReads += custom(t, r.Frames[0])["shared"].(float64)
	}
	assert.Less(t, partitions, 12.0, "eight equal queries of three days each")
	assert.InDelta(t, 24, partitions+sharedReads, 0)

	// A query of many partitions is canceled when its first reads are done.
	cold := w.source("canceled", map[string]any{"closedDayCache": "0s", "maxPartitions": 20_000})
	_ = w.run(t, cold, from, from.Add(time.Minute), map[string]any{"queryType": "track", "devices": []string{"n-moving"}}) // connected
	var devices []string
	for i := range 500 {
		devices = append(devices, fmt.Sprintf("unknown-%d", i))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	before := w.partitionsRead(t, "canceled", "telemetry_by_device_day")
	failed := make(chan error, 1)
	go func() {
		_, err := w.plugin.Query(ctx, cold, from.AddDate(0, 0, -25), to, nil, map[string]any{"queryType": "track", "devices": devices})
		failed <- err
	}()
	require.Eventually(t, func() bool { return w.partitionsRead(t, "canceled", "telemetry_by_device_day") > before }, 15*time.Second, time.Millisecond)
	start := time.Now()
	cancel()
	require.Error(t, <-failed)
	assert.Less(t, time.Since(start), 2*time.Second)
	require.Eventually(t, func() bool {
		text, err := w.plugin.Metrics(t.Context())
		return err == nil && strings.Contains(text, `fleet_datasource_query_errors_total{reason="canceled",type="track"} 1`)
	}, 5*time.Second, 50*time.Millisecond, "the plugin canceled the query")
}

// Equal queries share reads, and each filters its own rows.
func TestEqualQueriesFilterForThemselves(t *testing.T) {
	w := open(t)
	s := w.source("filtering-equal")
	raw := map[string]any{"queryType": "raw", "filters": []map[string]any{{"key": "fleet_id", "operator": "=", "value": "north"}},
		"cql": "SELECT ts, fleet_id FROM telemetry_by_device_day WHERE device_id = 'n-moving' AND day = '" + w.closed.AddDate(0, 0, 2).Format(time.DateOnly) + "'"}
	fleets := map[string]any{"queryType": "fleets", "filters": []map[string]any{{"key": "fleet_id", "operator": "=", "value": "north"}}}
	_ = w.run(t, s, january, january, raw) // connected
	sharedReads := 0.0
	for range 5 {
		var queries []map[string]any
		for i := range 16 {
			q := maps.Clone(raw)
			if i%2 == 1 {
				q = maps.Clone(fleets)
			}
			q["refId"] = fmt.Sprint(i)
			queries = append(queries, q)
		}
		responses, err := w.plugin.Query(t.Context(), s, january, january, nil, queries...)
		require.NoError(t, err)
		for i := range queries {
			r := responses[fmt.Sprint(i)]
			require.NoError(t, r.Error)
			want := 8640 - 360
			if i%2 == 1 {
				want = 1
			} else {
				sharedReads += custom(t, r.Frames[0])["shared"].(float64)
			}
			require.Equal(t, want, r.Frames[0].Rows())
			require.NotContains(t, column(t, r.Frames[0], "fleet_id"), "south")
		}
	}
	assert.Positive(t, sharedReads)
	all := w.run(t, s, january, january, map[string]any{"queryType": "fleets"})
	assert.Subset(t, column(t, all[0], "fleet_id"), []string{"large", "middle", "north", "south"}, "the shared result is unchanged")
}

func TestMetricsAndLogs(t *testing.T) {
	w := open(t)
	s := w.source("metrics")
	w.run(t, s, w.now, w.now, map[string]any{"queryType": "latest", "fleets": []string{"north"}})
	text, err := w.plugin.Metrics(t.Context())
	require.NoError(t, err)
	for _, want := range []string{
		`fleet_datasource_queries_total{outcome="ok",type="latest"}`, `fleet_datasource_query_duration_seconds_bucket{type="latest",le="0.05"}`,
		`fleet_datasource_partitions_total{type="latest"}`, `fleet_datasource_rows_total{stage="read",type="latest"}`, `fleet_datasource_cache_requests_total{cache="day",outcome="hit"}`,
		`fleet_datasource_queries_total{outcome="truncated",type="track"}`, `fleet_datasource_query_errors_total{reason="no_hosts",type="latest"}`,
		`fleet_datasource_cassandra_requests_total{datasource="metrics"`,
	} {
		assert.Contains(t, text, want)
	}
	assert.NotContains(t, text, "n-moving", "no label is a device")
	_ = w.try(t, s, w.now, w.now, map[string]any{"queryType": "raw", "cql": "SELECT nothing FROM fleets WHERE shard = 0"})
	require.Eventually(t, func() bool {
		log, err := os.ReadFile(w.log.Name())
		return err == nil && strings.Contains(string(log), "query failed") && strings.Contains(string(log), "queryType=raw")
	}, 5*time.Second, 50*time.Millisecond)
}

// TestRealTaxis reads a real day that the real pipeline loaded.
func TestRealTaxis(t *testing.T) {
	w := open(t)
	path := testenv.Taxis(t)
	etl, err := platform.FleetETL(t.Context())
	require.NoError(t, err)
	end := w.midnight.Add(-time.Second)
	load := exec.CommandContext(t.Context(), etl, "load", path, "--map", "lon=longitude,lat=latitude,device_id=taxi",
		"--set", "fleet_id=wuxi", "--timezone", "Asia/Shanghai", "--end-at", end.Format(time.RFC3339), "--derive-speed")
	load.Env = append(os.Environ(), "CASSANDRA_HOSTS="+strings.Join(w.config.Hosts, ","), "CASSANDRA_KEYSPACE="+w.config.Keyspace, "ETL_STATE_DIR="+t.TempDir())
	output, err := load.CombinedOutput()
	require.NoError(t, err, string(output))

	s := w.source("taxis")
	frame := w.run(t, s, w.now, w.now, map[string]any{"queryType": "latest", "fleets": []string{"wuxi"}})[0]
	assert.Equal(t, 475, frame.Rows())
	taxi := column(t, frame, "device_id")[0]
	newest := slices.Max(column(t, frame, "last_ts"))
	assert.Equal(t, end.Format("2006-01-02 15:04:05")+" +0000 UTC", newest)
	route := w.run(t, s, end.Add(-36*time.Hour), end, map[string]any{"queryType": "track", "devices": []string{taxi}, "format": "table"})[0]
	require.Positive(t, route.Rows())
	lat, _ := route.FieldByName("lat")
	lon, _ := route.FieldByName("lon")
	for i := range route.Rows() {
		y, err := lat.FloatAt(i)
		require.NoError(t, err)
		x, err := lon.FloatAt(i)
		require.NoError(t, err)
		assert.InDelta(t, 31.5, y, 1.5, "Wuxi")
		assert.InDelta(t, 120.3, x, 1.5)
	}
	points := 0.0
	for i := range frame.Rows() {
		taxi := frame.Fields[0].At(i).(string)
		f := w.run(t, s, end.Add(-36*time.Hour), end, map[string]any{"queryType": "track", "devices": []string{taxi}, "fields": []string{"lat"}, "maxDataPoints": 100_000})
		points += float64(f[0].Rows())
		if i == 20 {
			break
		}
	}
	assert.Positive(t, points)
}

// TestClusterOutage kills one node, then all, then starts them again. It is the last test, because it leaves cold nodes.
func TestClusterOutage(t *testing.T) {
	w := open(t)
	c, _ := platform.Cluster(t)
	t.Cleanup(func() { assert.NoError(t, c.Up(context.WithoutCancel(t.Context()))) }) // even if the test fails
	s := w.source("outage", map[string]any{"queryTimeout": "6s", "connectTimeout": "2s"})
	query := map[string]any{"queryType": "latest", "fleets": []string{"middle"}}
	require.Equal(t, 500, w.run(t, s, w.now, w.now, query)[0].Rows())

	t.Run("one node down: queries succeed", func(t *testing.T) {
		done := make(chan struct{})
		var g errgroup.Group
		var failed []string
		queries := 0
		g.Go(func() error {
			for {
				select {
				case <-done:
					return nil
				default:
				}
				response := w.try(t, s, w.now, w.now, query)
				queries++
				switch {
				case response.Error != nil:
					failed = append(failed, response.Error.Error())
				case response.Frames[0].Rows() != 500:
					failed = append(failed, fmt.Sprintf("%d rows", response.Frames[0].Rows()))
				}
			}
		})
		time.Sleep(time.Second)
		require.NoError(t, c.Kill(t.Context(), 1))
		time.Sleep(8 * time.Second)
		close(done)
		require.NoError(t, g.Wait())
		assert.Empty(t, failed)
		assert.Greater(t, queries, 20)
	})
	t.Run("one data center down: the other serves", func(t *testing.T) {
		require.NoError(t, c.Kill(t.Context(), 2))
		require.Eventually(t, func() bool { return w.try(t, s, w.now, w.now, query).Error == nil }, 30*time.Second, 200*time.Millisecond)
		assert.Equal(t, 500, w.run(t, s, w.now, w.now, query)[0].Rows())
	})
	t.Run("cluster down: a clear error within the timeout", func(t *testing.T) {
		require.NoError(t, c.Kill(t.Context(), 3))
		require.NoError(t, c.Kill(t.Context(), 4))
		for range 5 {
			start := time.Now()
			response := w.try(t, s, w.now, w.now, query)
			require.Error(t, response.Error)
			assert.Less(t, time.Since(start), 8*time.Second)
			assert.Equal(t, backend.ErrorSourceDownstream, response.ErrorSource)
			assert.Regexp(t, "no node is reachable|query timed out after 6s|connection", response.Error.Error())
		}
		fresh := w.source("fresh", map[string]any{"queryTimeout": "6s", "connectTimeout": "2s"})
		start := time.Now()
		response := w.try(t, fresh, w.now, w.now, query)
		require.ErrorContains(t, response.Error, "cannot connect to Cassandra")
		assert.Less(t, time.Since(start), 8*time.Second)
		health, err := w.plugin.Health(t.Context(), s)
		require.NoError(t, err)
		assert.Contains(t, health.Message, "Failed at tcp")
		assert.False(t, w.plugin.Exited(), "the plugin still runs")
	})
	t.Run("cluster up: queries succeed again", func(t *testing.T) {
		require.NoError(t, c.Up(t.Context()))
		require.Eventually(t, func() bool { return w.try(t, s, w.now, w.now, query).Error == nil }, 90*time.Second, 500*time.Millisecond)
		assert.Equal(t, 500, w.run(t, s, w.now, w.now, query)[0].Rows())
		assert.False(t, w.plugin.Exited())
	})
}
