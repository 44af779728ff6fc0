package frames

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gopkg.in/inf.v0"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/downsample"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/memory"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
)

var (
	day   = time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC)
	links = Links{UID: "uid", Name: "Fleet"}
)

func ptr[T any](v T) *T { return &v }

// texts formats the values of a field; null for an absent value.
func texts(t *testing.T, f *data.Frame, name string) []string {
	t.Helper()
	field, _ := f.FieldByName(name)
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

func fieldOf(t *testing.T, f *data.Frame, name string) *data.Field {
	t.Helper()
	field, _ := f.FieldByName(name)
	require.NotNil(t, field, name)
	return field
}

func TestVehicles(t *testing.T) {
	f := Vehicles([]Vehicle{
		{&cassandra.Telemetry{DeviceID: "d1", FleetID: "f", Ts: day, Lat: 0, Lon: 9, SpeedKmh: ptr(48.5), BatteryPct: ptr(int32(15)), Zone: "depot"}, 3.5, query.StateMoving},
		{&cassandra.Telemetry{DeviceID: "d2", FleetID: "f", Ts: day, TempC: ptr(-2.0)}, 90, query.StateStale},
	}, links)
	assert.Equal(t, []string{"0", "null"}, texts(t, f, "lat"), "the equator is a position, a record without a position is null")
	assert.Equal(t, []string{"9", "null"}, texts(t, f, "lon"))
	assert.Equal(t, []string{"48.5", "null"}, texts(t, f, "speed_kmh"))
	assert.Equal(t, []string{"15", "null"}, texts(t, f, "battery_pct"))
	assert.Equal(t, []string{"null", "-2"}, texts(t, f, "temp_c"))
	assert.Equal(t, []string{"moving", "stale"}, texts(t, f, "status"))
	assert.Equal(t, []int{0}, f.Meta.UniqueRowIDFields)
	assert.Equal(t, data.FrameTypeTable, f.Meta.Type)
	assert.Equal(t, "velocitykmh", fieldOf(t, f, "speed_kmh").Config.Unit)
	link := fieldOf(t, f, "device_id").Config.Links[0].Internal
	assert.Equal(t, "uid", link.DatasourceUID)
	assert.Equal(t, "Fleet", link.DatasourceName)
	status := fieldOf(t, f, "status").Config.Mappings[0].(data.ValueMapper)
	assert.Equal(t, "green", status[query.StateMoving].Color)
	assert.Len(t, status, len(query.States), "every state has a color")
}

func TestVehicleMeasuresHaveOnlyLastingLabels(t *testing.T) {
	f := VehicleMeasures([]Vehicle{{&cassandra.Telemetry{DeviceID: "d", FleetID: "f", Zone: "depot", BatteryPct: ptr(int32(7)), SpeedKmh: ptr(1.0)}, 3, query.StateStopped}},
		query.LatestFields)
	require.Len(t, f.Fields, 2+len(query.LatestFields))
	assert.Equal(t, data.FrameTypeNumericLong, f.Meta.Type)
	assert.Equal(t, []string{"7"}, texts(t, f, "battery_pct"))
	assert.Equal(t, []string{"3"}, texts(t, f, "age_s"))
	assert.Equal(t, []string{"1"}, texts(t, f, "speed_kmh"))
	assert.Equal(t, []string{"null"}, texts(t, f, "temp_c"))
}

func TestFleets(t *testing.T) {
	rows := []FleetSummary{{Fleet: "a", Vehicles: 3, ByState: map[string]int64{query.StateMoving: 2, query.StateOffline: 1}, NewestTs: &day}, {Fleet: "b"}}
	f := Fleets(rows)
	assert.Equal(t, []string{"2", "0"}, texts(t, f, "moving"))
	assert.Equal(t, []string{"1", "0"}, texts(t, f, "offline"))
	assert.Equal(t, []string{day.String(), "null"}, texts(t, f, "newest_ts"))
	counts := FleetCounts(rows)
	assert.Equal(t, data.FrameTypeNumericLong, counts.Meta.Type)
	assert.Equal(t, []string{"3", "0"}, texts(t, counts, "vehicles"))
	_, at := counts.FieldByName("newest_ts")
	assert.Equal(t, -1, at, "a rule compares numbers, not times")
}

func TestRegistryFrames(t *testing.T) {
	devices := Devices([]cassandra.Device{{FleetID: "f", DeviceID: "d", Model: "m", ActivatedAt: day, Status: cassandra.StatusActive}, {FleetID: "f", DeviceID: "e"}}, links)
	assert.Equal(t, []string{"m", "null"}, texts(t, devices, "model"))
	assert.Equal(t, []string{day.String(), "null"}, texts(t, devices, "activated_at"))
	assert.Nil(t, fieldOf(t, devices, "status").Config.Mappings, "a registration status is not a vehicle state")

	geofences := Geofences([]cassandra.Geofence{{FleetID: "f", Name: "depot", Geometry: `{"type":"Point","coordinates":[9.5,52.5]}`, RadiusM: ptr(200.0)}, {Name: "odd", Geometry: "{}"}})
	assert.Equal(t, []string{"52.5", "null"}, texts(t, geofences, "lat"))
	assert.Equal(t, []string{"200", "null"}, texts(t, geofences, "radius_m"))

	counts := CountsByFleet("x", []string{"a", "b"}, []cassandra.Geofence{{FleetID: "b"}, {FleetID: "b"}}, func(g *cassandra.Geofence) string { return g.FleetID })
	assert.Equal(t, []string{"0", "2"}, texts(t, counts, "count"), "a fleet without rows counts zero")
	assert.Equal(t, []string{"v"}, texts(t, Values([]string{"v"}), "text"))
}

var alerts = []cassandra.Alert{
	{FleetID: "f", Severity: "HIGH", OpenedMs: day.Add(90 * time.Minute).UnixMilli(), DeviceID: "d", Type: "speed_limit", Message: "too fast"},
	{FleetID: "f", Severity: "LOW", OpenedMs: day.UnixMilli(), DeviceID: "e", Type: "battery_low", Resolved: true},
}

func TestAlertFrames(t *testing.T) {
	assert.Equal(t, []string{"false", "true"}, texts(t, Alerts(alerts, links), "resolved"))

	logs, err := AlertLogs(t.Context(), alerts)
	require.NoError(t, err)
	assert.Equal(t, data.FrameTypeLogLines, logs.Meta.Type)
	assert.Equal(t, []string{"d speed_limit: too fast", "e battery_low: no message"}, texts(t, logs, "body"))
	assert.Equal(t, []string{"critical", "info"}, texts(t, logs, "severity"))
	assert.Equal(t, fmt.Sprintf("f/d/speed_limit/%d", alerts[0].OpenedMs), texts(t, logs, "id")[0])
	assert.JSONEq(t, `{"fleet_id":"f","device_id":"e","alert_type":"battery_low","severity":"LOW","state":"resolved"}`, string(logs.Fields[4].At(1).(json.RawMessage)))

	annotations := AlertAnnotations(alerts)
	assert.Equal(t, []string{"HIGH speed_limit", "LOW battery_low"}, texts(t, annotations, "title"))
	assert.Equal(t, []string{"d: too fast", "e: battery_low"}, texts(t, annotations, "text"))
	assert.Equal(t, []string{"HIGH,speed_limit,f,open", "LOW,battery_low,f,resolved"}, texts(t, annotations, "tags"))
}

func TestAlertSeriesCountsEmptySteps(t *testing.T) {
	series := AlertSeries(alerts, []string{"HIGH", "LOW"}, day, day.Add(2*time.Hour), time.Hour, 100)
	require.Len(t, series, 2)
	assert.Equal(t, []string{"0", "1", "0"}, texts(t, series[0], "count"))
	assert.Equal(t, []string{"1", "0", "0"}, texts(t, series[1], "count"))
	assert.Equal(t, data.Labels{"severity": "HIGH"}, series[0].Fields[1].Labels)
	assert.Equal(t, data.FrameTypeTimeSeriesMulti, series[0].Meta.Type)

	few := AlertSeries(alerts, []string{"HIGH"}, day, day.Add(2*time.Hour), time.Second, 10)
	assert.LessOrEqual(t, few[0].Rows(), 11, "the step grows until the points fit")
}

func TestAlertCountsIncludeZeros(t *testing.T) {
	f := AlertCounts(alerts, []string{"f", "g"}, []string{"HIGH", "LOW"})
	assert.Equal(t, []string{"f", "f", "g", "g"}, texts(t, f, "fleet_id"))
	assert.Equal(t, []string{"1", "1", "0", "0"}, texts(t, f, "count"))
}

func TestHourFrames(t *testing.T) {
	today := cassandra.DayOf(day.UnixMilli())
	hours := []cassandra.AnalyticsRow{{FleetID: "a", Day: today, TotalDistanceKm: 1.5, AvgSpeedKmh: ptr(20.0), AlertsCount: 2, ActiveDevicesCount: 3}, {FleetID: "a", Day: today, Hour: 1}}
	table := HourTable(hours)
	assert.Equal(t, []string{"1.5", "0"}, texts(t, table, "total_distance_km"))
	assert.Equal(t, []string{"20", "null"}, texts(t, table, "avg_speed_kmh"))
	assert.Equal(t, []string{"2", "0"}, texts(t, table, "alerts_count"))
	assert.Equal(t, []string{"3", "0"}, texts(t, table, "active_devices_count"))

	for _, c := range []struct {
		fleets []string
		hours  [][]cassandra.AnalyticsRow
		fields []string
		names  []string
	}{
		{[]string{"a"}, [][]cassandra.AnalyticsRow{hours}, []string{"total_distance_km", "alerts_count"}, []string{"Distance", "Alerts"}},
		{[]string{"a", "b"}, [][]cassandra.AnalyticsRow{hours, hours}, []string{"total_distance_km"}, []string{"a", "b"}},
		{[]string{"a", "b"}, [][]cassandra.AnalyticsRow{hours, nil}, []string{"total_distance_km", "alerts_count"}, []string{"a, Distance", "a, Alerts"}},
		{[]string{"a"}, [][]cassandra.AnalyticsRow{nil}, []string{"alerts_count"}, nil},
	} {
		var names []string
		for _, f := range HourSeries(c.fleets, c.hours, c.fields) {
			names = append(names, f.Fields[1].Config.DisplayNameFromDS)
		}
		assert.Equal(t, c.names, names)
	}
	assert.Equal(t, data.FrameTypeTimeSeriesMulti, NoSeries().Meta.Type)
	assert.Empty(t, NoSeries().Fields)
}

func TestTrackFrames(t *testing.T) {
	points := []downsample.Row[float64]{{TsMs: day.UnixMilli(), Value: 30}}
	f := TrackSeries("d", "speed_kmh", points, true, true)
	assert.Equal(t, []string{"30"}, texts(t, f, "speed_kmh"))
	assert.Equal(t, []string{day.String()}, texts(t, f, "time"))
	assert.Equal(t, data.Labels{"device_id": "d"}, f.Fields[1].Labels)
	assert.Equal(t, "d, Speed", f.Fields[1].Config.DisplayNameFromDS)
	assert.Equal(t, "Speed", TrackSeries("d", "speed_kmh", points, false, true).Fields[1].Config.DisplayNameFromDS)
	assert.Nil(t, TrackSeries("d", "speed_kmh", nil, false, false))

	rows := downsample.NewRows[cassandra.Position](0, 10, 10, 1)
	rows.Add(5, cassandra.Position{Lat: 1, Lon: 2, SpeedKmh: math.NaN(), Zone: "z", Fleet: "f"}, 0)
	route := Route("d", rows.Kept())
	assert.Equal(t, []string{"null"}, texts(t, route, "speed_kmh"))
	assert.Equal(t, []string{"1"}, texts(t, route, "lat"))
	assert.Equal(t, []string{"z"}, texts(t, route, "zone"))
	assert.Equal(t, []string{"f"}, texts(t, route, "fleet_id"))
}

func TestRawTableKeepsTypes(t *testing.T) {
	r := cassandra.Result{
		Columns: []cassandra.ResultColumn{{Name: "b", Type: "boolean"}, {Name: "small", Type: "bigint"}, {Name: "large", Type: "bigint"}, {Name: "speed_kmh", Type: "double"},
			{Name: "exact", Type: "decimal"}, {Name: "huge", Type: "varint"}, {Name: "ts", Type: "timestamp"}, {Name: "list", Type: "list<int>"}},
		Rows: [][]any{
			{true, int64(5), int64(maxExactInt + 1), 2.5, inf.NewDec(150, 2), new(big.Int).Exp(big.NewInt(10), big.NewInt(30), nil).Add(big.NewInt(1), new(big.Int).Exp(big.NewInt(10), big.NewInt(30), nil)), day, "[1,2]"},
			{nil, nil, int64(1), nil, nil, nil, nil, nil},
		},
	}
	f := RawTable(r)
	for name, want := range map[string]struct {
		kind   data.FieldType
		values []string
	}{
		"b":         {data.FieldTypeNullableBool, []string{"true", "null"}},
		"small":     {data.FieldTypeNullableInt64, []string{"5", "null"}},
		"large":     {data.FieldTypeNullableString, []string{"9007199254740993", "1"}},
		"speed_kmh": {data.FieldTypeNullableFloat64, []string{"2.5", "null"}},
		"exact":     {data.FieldTypeNullableFloat64, []string{"1.5", "null"}},
		"huge":      {data.FieldTypeNullableString, []string{"1000000000000000000000000000001", "null"}},
		"ts":        {data.FieldTypeNullableTime, []string{day.String(), "null"}},
		"list":      {data.FieldTypeNullableString, []string{"[1,2]", "null"}},
	} {
		assert.Equal(t, want.kind, fieldOf(t, f, name).Type(), name)
		assert.Equal(t, want.values, texts(t, f, name), name)
	}
	assert.Equal(t, "velocitykmh", fieldOf(t, f, "speed_kmh").Config.Unit)
	assert.Equal(t, "CQL type bigint", fieldOf(t, f, "small").Config.Description)
}

var rawRows = cassandra.Result{
	Columns: []cassandra.ResultColumn{{Name: "ts", Type: "timestamp"}, {Name: "device_id", Type: "text"}, {Name: "speed", Type: "int"}, {Name: "on", Type: "boolean"}, {Name: "severity", Type: "text"}},
	Rows: [][]any{
		{day.Add(time.Minute), "d", int64(2), true, "HIGH"},
		{day, "d", int64(1), true, "HIGH"},
		{nil, "d", int64(9), true, "LOW"},
	},
}

func TestRawSeries(t *testing.T) {
	f, err := RawSeries(t.Context(), rawRows)
	require.NoError(t, err)
	assert.Equal(t, data.FrameTypeTimeSeriesWide, f.Meta.Type)
	assert.Equal(t, []string{"1", "2"}, texts(t, f, "speed"), "sorted by time, without the row that has none")
	assert.Equal(t, data.Labels{"device_id": "d", "on": "true", "severity": "HIGH"}, fieldOf(t, f, "speed").Labels)
	assert.Equal(t, "d", rawRows.Rows[2][1], "the shared result is unchanged")

	empty, err := RawSeries(t.Context(), cassandra.Result{Columns: rawRows.Columns})
	require.NoError(t, err)
	assert.Equal(t, NoSeries(), empty)
	_, err = RawSeries(t.Context(), cassandra.Result{Columns: rawRows.Columns[1:]})
	require.ErrorContains(t, err, "selects no timestamp or date")
	_, err = RawSeries(t.Context(), cassandra.Result{Columns: rawRows.Columns[:2]})
	require.ErrorContains(t, err, "selects no number")
}

func TestRawSeriesAreBounded(t *testing.T) {
	rows := cassandra.Result{Columns: []cassandra.ResultColumn{{Name: "ts", Type: "timestamp"}, {Name: "id", Type: "text"}, {Name: "speed", Type: "int"}}}
	for i := range 1001 {
		rows.Rows = append(rows.Rows, []any{day.Add(time.Duration(i) * time.Second), fmt.Sprint(i), int64(i)})
	}
	_, err := RawSeries(t.Context(), rows)
	require.EqualError(t, err, "format time_series: more than 1000000 cells, times multiplied by series; select fewer text columns, "+
		"because each combination of texts is a series, add conditions, or use the table format")
	rows.Rows = rows.Rows[:100]
	f, err := RawSeries(t.Context(), rows)
	require.NoError(t, err)
	assert.Len(t, f.Fields, 101)

	times := data.NewField("", nil, []time.Time{day, day, day.Add(1)})
	labels := data.NewField("", nil, []*string{ptr("a"), ptr("b"), nil})
	assert.Equal(t, 2*(1+3*2)*memory.CellBytes+3*2*memory.SeriesBytes, wideBytes(times, []*data.Field{labels}, 2))
}

func TestBytesCountCellsAndTexts(t *testing.T) {
	f := data.NewFrame("", data.NewField("", nil, []string{"abc", ""}), data.NewField("", data.Labels{"a": "b"}, []*string{ptr("de"), nil}),
		data.NewField("", nil, []float64{1, 2}), data.NewField("", nil, []json.RawMessage{[]byte("{}"), nil}))
	assert.Equal(t, 2*memory.SeriesBytes+8*memory.CellBytes+2*(3+2+2), Bytes(data.Frames{f}))
}

func TestLongDecimalsAreTexts(t *testing.T) {
	f := RawTable(cassandra.Result{Columns: []cassandra.ResultColumn{{Name: "amount", Type: "decimal"}}, Rows: [][]any{{"1E2000000000"}, {inf.NewDec(15, 1)}}})
	assert.Equal(t, []string{"1E2000000000", "1.5"}, texts(t, f, "amount"))
}

func TestRawLogs(t *testing.T) {
	f, err := RawLogs(t.Context(), rawRows)
	require.NoError(t, err)
	assert.Equal(t, []string{"d", "d"}, texts(t, f, "body"), "the first text, without a column message or body")
	assert.Equal(t, []string{"critical", "critical"}, texts(t, f, "severity"))
	assert.JSONEq(t, `{"speed":"2","on":"true","severity":"HIGH"}`, string(f.Fields[4].At(0).(json.RawMessage)))

	message := rawRows
	message.Columns = append([]cassandra.ResultColumn{}, rawRows.Columns...)
	message.Columns[4].Name = "message"
	f, err = RawLogs(t.Context(), message)
	require.NoError(t, err)
	assert.Equal(t, []string{"HIGH", "HIGH"}, texts(t, f, "body"))

	_, err = RawLogs(t.Context(), cassandra.Result{Columns: rawRows.Columns[1:]})
	require.ErrorContains(t, err, "format logs: the statement selects no timestamp or date")
	_, err = RawLogs(t.Context(), cassandra.Result{Columns: rawRows.Columns[:1]})
	require.ErrorContains(t, err, "format logs: the statement selects no text")
}
