package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/frames"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/settings"
)

var (
	now    = time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	monday = time.Date(2026, 3, 9, 0, 0, 0, 0, time.UTC)
)

func ptr[T any](v T) *T { return &v }

// fakeReader serves rows from memory and records what was read.
type fakeReader struct {
	latest    map[string][]cassandra.Telemetry
	devices   map[string][]cassandra.Device
	geofences map[string][]cassandra.Geofence
	hours     []cassandra.AnalyticsRow
	alerts    map[string][]cassandra.Alert
	tracks    map[string]*cassandra.Track // by device and day
	rows      cassandra.Result            // of each raw statement
	err       error

	mu    sync.Mutex
	reads []string
}

func (f *fakeReader) read(format string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads = append(f.reads, fmt.Sprintf(format, args...))
	return f.err
}

func (f *fakeReader) Fleets(context.Context) ([]string, error) {
	return []string{"middle", "north", "south"}, f.read("fleets")
}

func (f *fakeReader) Latest(_ context.Context, fleet string) ([]cassandra.Telemetry, error) {
	return f.latest[fleet], f.read("latest %s", fleet)
}

func (f *fakeReader) Devices(_ context.Context, fleet string) ([]cassandra.Device, error) {
	return f.devices[fleet], f.read("devices %s", fleet)
}

func (f *fakeReader) Geofences(_ context.Context, fleet string) ([]cassandra.Geofence, error) {
	return f.geofences[fleet], f.read("geofences %s", fleet)
}

func (f *fakeReader) Schema(context.Context) ([]cassandra.Table, error) {
	return []cassandra.Table{{Name: "t", PartitionKey: []string{"k"}}, {Name: "by_fleet", PartitionKey: []string{"fleet_id"}}}, f.read("schema")
}

func (f *fakeReader) FleetsOf(_ context.Context, device string, fleets []string) (found []string, err error) {
	for _, fleet := range fleets {
		for key, t := range f.tracks {
			if strings.HasPrefix(key, device+" ") && !slices.Contains(found, fleet) && slices.ContainsFunc(t.Positions, func(p cassandra.Position) bool { return p.Fleet == fleet }) {
				found = append(found, fleet)
			}
		}
	}
	return found, f.read("fleets of %s", device)
}

func (f *fakeReader) Day(_ context.Context, device, fleet string, day cassandra.Day, _, _ int64, _ int) (*cassandra.Track, error) {
	found := &cassandra.Track{}
	if t := f.tracks[device+" "+day.String()]; t != nil {
		found.More = t.More
		for _, p := range t.Positions {
			if fleet == "" || p.Fleet == fleet {
				found.Positions = append(found.Positions, p)
			}
		}
	}
	return found, f.read("day %s %s", device, day)
}

func (f *fakeReader) Hours(_ context.Context, fleet string, day cassandra.Day) ([]cassandra.AnalyticsRow, error) {
	var hours []cassandra.AnalyticsRow
	for _, h := range f.hours {
		if h.FleetID == fleet && h.Day == day {
			hours = append(hours, h)
		}
	}
	return hours, f.read("hours %s %s", fleet, day)
}

func (f *fakeReader) Alerts(_ context.Context, q cassandra.AlertQuery) ([]cassandra.Alert, error) {
	var rows []cassandra.Alert
	for _, a := range f.alerts[q.FleetID] {
		if (len(q.Severities) == 0 || slices.Contains(q.Severities, a.Severity)) && len(rows) < q.Limit {
			rows = append(rows, a)
		}
	}
	return rows, f.read("alerts %s %s limit %d", q.FleetID, strings.Join(q.Severities, ","), q.Limit)
}

func (f *fakeReader) Rows(_ context.Context, statement string, _, _ int) (cassandra.Result, error) {
	return f.rows, f.read("%s", statement)
}

func newExecutor(f *fakeReader, allowed ...string) *Executor {
	s := &settings.Settings{
		Cluster: cassandra.Config{Keyspace: "fleet_iot"}, MaxPartitions: 100, MaxRows: 100, MaxRowsRead: 1000, AllowRaw: true, QueryTimeout: time.Minute,
		StaleAfter: time.Hour, OfflineAfter: 48 * time.Hour, MovingAboveKmh: 3, Access: settings.NewAccess(allowed...),
	}
	return New(s, f, frames.Links{UID: "uid"}, func() time.Time { return now })
}

func common(format string, fleets ...string) query.Common {
	return query.Common{From: monday, To: monday.Add(24*time.Hour - 1), Interval: time.Hour, MaxDataPoints: 100, Format: format, Fleets: fleets}
}

// run runs a query that must succeed.
func run(t *testing.T, e *Executor, q query.Query) *Result {
	t.Helper()
	r, err := e.Run(t.Context(), q)
	require.NoError(t, err)
	return r
}

// texts formats the values of a field of the first frame; null for an absent value.
func texts(t *testing.T, r *Result, name string) []string {
	t.Helper()
	require.NotEmpty(t, r.Frames)
	field, _ := r.Frames[0].FieldByName(name)
	require.NotNil(t, field, name)
	values := make([]string, field.Len())
	for i := range values {
		values[i] = "null"
		if v, ok := field.ConcreteAt(i); ok {
			values[i] = fmt.Sprint(v)
		}
	}
	return values
}

func everyQuery(fleets ...string) map[string]query.Query {
	return map[string]query.Query{
		"latest":    &query.Latest{Common: common("table", fleets...)},
		"track":     &query.Track{Common: common("time_series", fleets...), Devices: []string{"d"}},
		"analytics": &query.Analytics{Common: common("table", fleets...)},
		"alerts":    &query.Alerts{Common: common("table", fleets...)},
		"devices":   &query.Devices{Common: common("table", fleets...)},
		"fleets":    &query.Fleets{Common: common("table", fleets...)},
		"geofences": &query.Geofences{Common: common("table", fleets...)},
		"variable":  &query.Variable{Common: common("table", fleets...), Kind: query.VariableDevices},
	}
}

func TestForbiddenFleetsAreNeverRead(t *testing.T) {
	for name, q := range everyQuery("north", "south") {
		f := &fakeReader{}
		r, err := newExecutor(f, "north", "middle").Run(t.Context(), q)
		var forbidden *settings.ForbiddenError
		require.ErrorAs(t, err, &forbidden, name)
		assert.EqualError(t, err, `fleet "south": not allowed for this data source (allowed: middle, north)`)
		assert.Empty(t, f.reads, name)
		assert.Empty(t, r.Frames)
	}
	f := &fakeReader{}
	_, err := newExecutor(f, "north").Values(t.Context(), &query.Variable{Kind: query.VariableDevices, Common: common("", "south")})
	require.Error(t, err)
	_, err = newExecutor(f, "north").Geofences(t.Context(), &query.Geofences{Common: common("", "south")})
	require.Error(t, err)
	assert.Empty(t, f.reads)
}

func TestQueriesWithoutFleetsReadTheAllowedFleets(t *testing.T) {
	for name, q := range everyQuery() {
		if name == "track" {
			continue // a track reads devices
		}
		f := &fakeReader{}
		run(t, newExecutor(f, "north", "middle"), q)
		for _, read := range f.reads {
			assert.NotContains(t, read, "south", name)
			assert.NotEqual(t, "fleets", read, "the list of all fleets is not needed")
		}
		assert.NotEmpty(t, f.reads, name)
	}
}

func TestReadErrorsFailTheQuery(t *testing.T) {
	queries := everyQuery()
	queries["raw"] = &query.Raw{Common: common("table"), CQL: "SELECT a FROM t WHERE k = 1"}
	for _, kind := range []string{query.VariableFleets, query.VariableZones, query.VariableAlertTypes} {
		queries[kind] = &query.Variable{Common: common("table"), Kind: kind}
	}
	for name, q := range queries {
		_, err := newExecutor(&fakeReader{err: errors.New("down")}).Run(t.Context(), q)
		require.EqualError(t, err, "down", name)
	}
}

func latestRows() *fakeReader {
	return &fakeReader{latest: map[string][]cassandra.Telemetry{
		"north": {
			{DeviceID: "stopped", FleetID: "north", Ts: now, SpeedKmh: ptr(0.5), BatteryPct: ptr(int32(80)), Zone: "depot"},
			{DeviceID: "moving", FleetID: "north", Ts: now, SpeedKmh: ptr(48.5), BatteryPct: ptr(int32(15)), Zone: "center"},
			{DeviceID: "offline", FleetID: "north", Ts: now.Add(-72 * time.Hour), SpeedKmh: ptr(70.0), Zone: "center"},
			{DeviceID: "stale", FleetID: "north", Ts: now.Add(-2 * time.Hour), TempC: ptr(4.0)},
			{DeviceID: "unknown", FleetID: "north", Ts: now.Add(time.Minute)},
		},
		"south": {{DeviceID: "other", FleetID: "south", Ts: now}},
	}}
}

func TestLatestStatesAndFilters(t *testing.T) {
	e := newExecutor(latestRows())
	q := &query.Latest{Common: common("table", "north")}
	r := run(t, e, q)
	assert.Equal(t, []string{"stopped", "moving", "offline", "stale", "stopped"}, texts(t, r, "status"))
	assert.Equal(t, "0", texts(t, r, "age_s")[4], "a record from the future has no negative age")
	assert.Len(t, run(t, e, &query.Latest{Common: common("table")}).Frames, 1, "one frame for all fleets")

	filter := func(key, operator, value string) query.Query {
		parsed, err := query.Parse(dataQuery(fmt.Sprintf(`{"fleets":["north"],"filters":[{"key":%q,"operator":%q,"value":%q}]}`, key, operator, value)), false)
		require.NoError(t, err)
		return parsed
	}
	for name, c := range map[string]struct {
		q    query.Query
		want []string
	}{
		"state":         {&query.Latest{Common: common("table", "north"), VehicleFilter: query.VehicleFilter{States: []string{"moving", "stale"}}}, []string{"moving", "stale"}},
		"zone":          {&query.Latest{Common: common("table", "north"), VehicleFilter: query.VehicleFilter{Zones: []string{"depot"}}}, []string{"stopped"}},
		"device":        {&query.Latest{Common: common("table", "north"), VehicleFilter: query.VehicleFilter{Devices: []string{"stopped", "x"}}}, []string{"stopped"}},
		"minimum speed": {&query.Latest{Common: common("table", "north"), VehicleFilter: query.VehicleFilter{MinSpeedKmh: ptr(48.5)}}, []string{"moving", "offline"}},
		"maximum speed": {&query.Latest{Common: common("table", "north"), VehicleFilter: query.VehicleFilter{MaxSpeedKmh: ptr(1.0)}}, []string{"stopped"}},
		"battery":       {&query.Latest{Common: common("table", "north"), VehicleFilter: query.VehicleFilter{MinBatteryPct: ptr(15.0), MaxBatteryPct: ptr(20.0)}}, []string{"moving"}},
		"ad hoc status": {filter("status", "=", "stopped"), []string{"stopped", "unknown"}},
		"ad hoc age":    {filter("age_s", ">", "3600"), []string{"offline", "stale"}},
		"ad hoc temp":   {filter("temp_c", "<", "5"), []string{"stale"}},
		"ad hoc fleet":  {filter("fleet_id", "!=", "north"), []string{}},
		"ad hoc other":  {filter("severity", "=", "HIGH"), []string{"stopped", "moving", "offline", "stale", "unknown"}},
	} {
		assert.Equal(t, c.want, texts(t, run(t, e, c.q), "device_id"), name)
	}
}

func TestLatestLimitsRows(t *testing.T) {
	q := &query.Latest{Common: common("table", "north")}
	q.Limit = 2
	r := run(t, newExecutor(latestRows()), q)
	assert.Len(t, texts(t, r, "device_id"), 2)
	assert.Equal(t, []string{"Only 2 of 5 vehicles: the row limit. Raise the limit, or add a filter."}, r.Truncations)
}

func TestLatestForAlertRules(t *testing.T) {
	r := run(t, newExecutor(latestRows()), &query.Latest{Common: common("numeric", "north"), Fields: []string{"battery_pct"}})
	assert.Equal(t, data.FrameTypeNumericLong, r.Frames[0].Meta.Type)
	assert.Equal(t, []string{"80", "15", "null", "null", "null"}, texts(t, r, "battery_pct"))
}

func TestLatestGoesLive(t *testing.T) {
	e := newExecutor(latestRows())
	live := &query.Latest{Common: common("table", "north"), Live: true}
	assert.Equal(t, "ds/uid/fleet/bm9ydGg", run(t, e, live).Frames[0].Meta.Channel)
	two := run(t, e, &query.Latest{Common: common("table", "north", "south"), Live: true}).Frames[0].Meta
	assert.Empty(t, two.Channel)
	assert.Equal(t, "Live streaming needs a single fleet; using panel refresh.", two.Notices[0].Text)
	live.Zones = slices.Repeat([]string{"a-geofence"}, 20)
	many := run(t, e, live).Frames[0].Meta
	assert.Empty(t, many.Channel)
	assert.Equal(t, "Too many filters for live streaming; using panel refresh.", many.Notices[0].Text)

	vehicles, err := e.LiveVehicles(t.Context(), &query.Latest{Common: query.Common{Fleets: []string{"north"}, Limit: 3}})
	require.NoError(t, err)
	assert.Equal(t, 3, e.LiveFrame(vehicles).Rows())
}

func TestFleetsStayWithinTheLimitOfPartitions(t *testing.T) {
	f := latestRows()
	e := newExecutor(f)
	e.settings.MaxPartitions = 2 * cassandra.FleetBuckets
	r := run(t, e, &query.Latest{Common: common("table")})
	assert.Equal(t, []string{"Only the first 2 of 3 fleets: a query reads at most 16 partitions. Choose fewer fleets."}, r.Truncations)
	assert.NotContains(t, f.reads, "latest south")
	e.settings.MaxPartitions = 1
	run(t, e, &query.Latest{Common: common("table")})
	assert.Contains(t, f.reads, "latest middle", "one fleet is always read")
}

func TestFleetsSummaries(t *testing.T) {
	r := run(t, newExecutor(latestRows()), &query.Fleets{Common: common("table")})
	assert.Equal(t, []string{"middle", "north", "south"}, texts(t, r, "fleet_id"))
	assert.Equal(t, []string{"0", "5", "1"}, texts(t, r, "vehicles"))
	assert.Equal(t, []string{"0", "1", "0"}, texts(t, r, "moving"))
	assert.Equal(t, []string{"null", now.Add(time.Minute).String(), now.String()}, texts(t, r, "newest_ts"))
	rule := run(t, newExecutor(latestRows()), &query.Fleets{Common: common("numeric", "south")})
	assert.Equal(t, []string{"1"}, texts(t, rule, "stopped"))

	parsed, err := query.Parse(dataQuery(`{"queryType":"fleets","limit":1,"filters":[{"key":"fleet_id","operator":"!=","value":"middle"}]}`), false)
	require.NoError(t, err)
	r = run(t, newExecutor(latestRows()), parsed)
	assert.Equal(t, []string{"north"}, texts(t, r, "fleet_id"))
	assert.Equal(t, []string{"Only the first 1 of 2 fleets: the row limit."}, r.Truncations)
}

func TestDevices(t *testing.T) {
	f := &fakeReader{devices: map[string][]cassandra.Device{"north": {{FleetID: "north", DeviceID: "a"}, {FleetID: "north", DeviceID: "b"}}, "south": {{FleetID: "south", DeviceID: "c"}}}}
	assert.Equal(t, []string{"a", "b", "c"}, texts(t, run(t, newExecutor(f), &query.Devices{Common: common("table")}), "device_id"))
	assert.Equal(t, []string{"b"}, texts(t, run(t, newExecutor(f), &query.Devices{Common: common("table"), Devices: []string{"b"}}), "device_id"))
	assert.Equal(t, []string{"0", "2", "1"}, texts(t, run(t, newExecutor(f), &query.Devices{Common: common("numeric")}), "count"))
	e := newExecutor(f)
	e.settings.MaxRows = 1
	r := run(t, e, &query.Devices{Common: common("table", "north")})
	assert.Equal(t, []string{"a"}, texts(t, r, "device_id"))
	assert.Equal(t, []string{"Only the first 1 devices: the row limit."}, r.Truncations)
}

func TestGeofences(t *testing.T) {
	f := &fakeReader{geofences: map[string][]cassandra.Geofence{"north": {{FleetID: "north", Name: "depot"}, {FleetID: "north", Name: "school"}}}}
	assert.Equal(t, []string{"depot", "school"}, texts(t, run(t, newExecutor(f), &query.Geofences{Common: common("table")}), "name"))
	assert.Equal(t, []string{"school"}, texts(t, run(t, newExecutor(f), &query.Geofences{Common: common("table"), Zones: []string{"school"}}), "name"))
	assert.Equal(t, []string{"0", "2", "0"}, texts(t, run(t, newExecutor(f), &query.Geofences{Common: common("numeric")}), "count"))
	geofences, err := newExecutor(f).Geofences(t.Context(), &query.Geofences{Common: query.Common{Fleets: []string{"north"}}})
	require.NoError(t, err)
	assert.Len(t, geofences, 2)
}

func TestVariables(t *testing.T) {
	f := latestRows()
	f.devices = map[string][]cassandra.Device{"south": {{DeviceID: "b"}, {DeviceID: "a"}}}
	f.geofences = map[string][]cassandra.Geofence{"north": {{Name: "school"}, {Name: "depot"}}}
	f.alerts = map[string][]cassandra.Alert{"north": {{Type: "speed_limit"}, {Type: "battery_low"}, {Type: "speed_limit"}}}
	for kind, want := range map[string][]string{
		query.VariableFleets:     {"middle", "north", "south"},
		query.VariableDevices:    {"a", "b"},
		query.VariableZones:      {"center", "depot", "school"},
		query.VariableSeverities: {"HIGH", "MEDIUM", "LOW"},
		query.VariableAlertTypes: {"battery_low", "speed_limit"},
		query.VariableStates:     {"moving", "stopped", "stale", "offline"},
	} {
		assert.Equal(t, want, texts(t, run(t, newExecutor(f), &query.Variable{Common: common("table"), Kind: kind}), "value"), kind)
	}
	values, err := newExecutor(f, "north", "south").Values(t.Context(), &query.Variable{Kind: query.VariableFleets, Common: common("", "south")})
	require.NoError(t, err)
	assert.Equal(t, []string{"south"}, values, "named fleets only")
	limited := &query.Variable{Common: common("table"), Kind: query.VariableFleets}
	limited.Limit = 2
	assert.Equal(t, []string{"Only the first 2 of 3 values: the row limit."}, run(t, newExecutor(f), limited).Truncations)
}

func TestAnalytics(t *testing.T) {
	f := &fakeReader{}
	for hour := range 24 {
		f.hours = append(f.hours, cassandra.AnalyticsRow{FleetID: "north", Day: cassandra.DayOf(monday.UnixMilli()), Hour: int32(hour), TotalDistanceKm: float64(hour)})
	}
	q := &query.Analytics{Common: common("table", "north")}
	q.From, q.To = monday.Add(90*time.Minute), monday.Add(4*time.Hour)
	assert.Equal(t, []string{"1", "2", "3", "4"}, texts(t, run(t, newExecutor(f), q), "total_distance_km"), "the hour in progress at the start belongs to the range")

	series := &query.Analytics{Common: common("time_series", "north"), Fields: []string{"total_distance_km"}}
	series.Limit = 3
	r := run(t, newExecutor(f), series)
	assert.Equal(t, []string{"21", "22", "23"}, texts(t, r, "total_distance_km"))
	assert.Equal(t, []string{"Only the newest 3 of 24 hours of fleet north: the row limit."}, r.Truncations)
	assert.Empty(t, run(t, newExecutor(f), &query.Analytics{Common: common("time_series", "south")}).Frames[0].Fields, "no series")

	e := newExecutor(f)
	e.settings.MaxPartitions = 2
	long := &query.Analytics{Common: common("table", "north")}
	long.To = monday.AddDate(0, 0, 3)
	assert.Equal(t, []string{"Only the newest 2 of 4 days, starting 2026-03-11: the limit of one query."}, run(t, e, long).Truncations)
}

func alertRows() *fakeReader {
	return &fakeReader{alerts: map[string][]cassandra.Alert{
		"north": {
			{FleetID: "north", Severity: "HIGH", OpenedMs: monday.Add(3 * time.Hour).UnixMilli(), DeviceID: "a", Type: "speed_limit"},
			{FleetID: "north", Severity: "LOW", OpenedMs: monday.Add(time.Hour).UnixMilli(), DeviceID: "b", Type: "battery_low", Resolved: true},
		},
		"south": {{FleetID: "south", Severity: "MEDIUM", OpenedMs: monday.Add(2 * time.Hour).UnixMilli(), DeviceID: "c", Type: "device_offline"}},
	}}
}

func TestAlerts(t *testing.T) {
	for name, c := range map[string]struct {
		q    query.Alerts
		want []string
	}{
		"all, newest first": {query.Alerts{}, []string{"a", "c", "b"}},
		"severity":          {query.Alerts{Severities: []string{"LOW", "MEDIUM"}}, []string{"c", "b"}},
		"type":              {query.Alerts{AlertTypes: []string{"battery_low"}}, []string{"b"}},
		"device":            {query.Alerts{Devices: []string{"c", "x"}}, []string{"c"}},
		"open":              {query.Alerts{Resolved: query.ResolvedOpen}, []string{"a", "c"}},
		"resolved":          {query.Alerts{Resolved: query.ResolvedClosed}, []string{"b"}},
	} {
		c.q.Common = common("table")
		assert.Equal(t, c.want, texts(t, run(t, newExecutor(alertRows()), &c.q), "device_id"), name)
	}
	parsed, err := query.Parse(dataQuery(`{"queryType":"alerts","filters":[{"key":"severity","operator":"!=","value":"HIGH"},{"key":"alert_type","operator":"=~","value":"bat.*"}]}`), false)
	require.NoError(t, err)
	assert.Equal(t, []string{"b"}, texts(t, run(t, newExecutor(alertRows()), parsed), "device_id"))
}

func TestAlertsReadOneRowBeyondTheLimit(t *testing.T) {
	f := alertRows()
	q := &query.Alerts{Common: common("table", "north")}
	q.Limit = 1
	r := run(t, newExecutor(f), q)
	assert.Equal(t, []string{"alerts north HIGH,MEDIUM,LOW limit 2"}, f.reads)
	assert.Equal(t, []string{"Only the newest 1 alerts, starting 2026-03-09T03:00:00Z: the row limit."}, r.Truncations)
	f.reads, q.Devices = nil, []string{"b"}
	run(t, newExecutor(f), q)
	assert.Equal(t, []string{"alerts north HIGH,MEDIUM,LOW limit 1001"}, f.reads, "a filter may leave out rows")
}

func TestAlertFormats(t *testing.T) {
	alerts := func(format string) *Result {
		return run(t, newExecutor(alertRows()), &query.Alerts{Common: common(format, "north", "south"), Severities: []string{"HIGH"}})
	}
	assert.Equal(t, []string{"1", "0"}, texts(t, alerts("numeric"), "count"))
	assert.Equal(t, []string{"a speed_limit: no message"}, texts(t, alerts("logs"), "body"))
	assert.Equal(t, []string{"HIGH speed_limit"}, texts(t, alerts("annotations"), "title"))
	assert.Equal(t, 24, alerts("time_series").Frames[0].Rows())
}

func TestAlertSeriesBeginWhereTheReadDaysBegin(t *testing.T) {
	q := &query.Alerts{Common: common("time_series", "north"), Severities: []string{"HIGH"}}
	q.From, q.MaxDataPoints = time.Unix(0, 0), 11_000
	r := run(t, newExecutor(alertRows()), q)
	assert.Equal(t, []string{"Only the newest 100 of 20522 days, starting 2025-11-30: the limit of one query."}, r.Truncations)
	times := r.Frames[0].Fields[0]
	assert.Equal(t, 100*24, times.Len())
	assert.Equal(t, time.Date(2025, 11, 30, 0, 0, 0, 0, time.UTC), times.At(0), "no zeros for days that were not read")
}
