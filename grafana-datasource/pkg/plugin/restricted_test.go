package plugin

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/cassandra/diagnose"
	"github.com/fleettracing/fleet-tracing/dev/testenv/rivals"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
)

// What a data source that is restricted to a fleet shows depends on the rows of that fleet alone: where other fleets have other
// rows, or none, every frame, error, resource and packet is the same, with its notices and its cost.
func TestRestrictedDataSourceDependsOnItsFleetAlone(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	var want []string
	for variant := range uint64(rivals.None + 1) {
		store := &rowStore{rivals.Rows(seed, variant, now, 3000)}
		got := everything(t, func() *Datasource {
			return newTestDatasource(t, store, restrictedSettings(), diagnose.Finding{Stage: "data", Status: diagnose.OK})
		})
		if variant == 0 {
			want = got
			require.Greater(t, len(want), 500)
		}
		rivals.RequireSame(t, want, got)
	}
}

func restrictedSettings() map[string]any {
	return map[string]any{"allowedFleets": rivals.Own, "allowRaw": true, "liveInterval": "200ms", "maxRowsRead": 4000, "maxRows": 3000}
}

// rowStore is a store of rows in memory. The rows of a raw statement are the statement itself.
type rowStore struct{ fleets []rivals.FleetRows }

func rowsOf[T any](s *rowStore, fleet string, rows func(*rivals.FleetRows) []T) (found []T) {
	for i := range s.fleets {
		if r := &s.fleets[i]; fleet == "" || r.Fleet == fleet {
			found = append(found, rows(r)...)
		}
	}
	return found
}

func (s *rowStore) Fleets(context.Context) ([]string, error) {
	return rowsOf(s, "", func(r *rivals.FleetRows) []string { return []string{r.Fleet} }), nil
}

func (s *rowStore) LatestOfFleet(_ context.Context, fleet string) ([]cassandra.Telemetry, error) {
	return rowsOf(s, fleet, (*rivals.FleetRows).Latest), nil
}

func (s *rowStore) Devices(_ context.Context, fleet string, _ int, _ string) (p cassandra.Page[cassandra.Device], err error) {
	p.Rows = rowsOf(s, fleet, func(r *rivals.FleetRows) []cassandra.Device { return r.Devices })
	p.Rows = slices.DeleteFunc(p.Rows, func(d cassandra.Device) bool { return d.Status == cassandra.StatusMoved })
	return p, nil
}

func (s *rowStore) Geofences(_ context.Context, fleet string) ([]cassandra.Geofence, error) {
	return rowsOf(s, fleet, func(r *rivals.FleetRows) []cassandra.Geofence { return r.Geofences }), nil
}

func (s *rowStore) Schema(context.Context) ([]cassandra.Table, error) {
	return []cassandra.Table{
		{Name: "latest_telemetry_by_fleet", PartitionKey: []string{"fleet_id", "bucket"}}, {Name: "devices_by_fleet", PartitionKey: []string{"fleet_id"}},
		{Name: "telemetry_by_device_day", PartitionKey: []string{"device_id", "day"}}, {Name: "fleets", PartitionKey: []string{"shard"}},
	}, nil
}

func (s *rowStore) FleetsOf(_ context.Context, device string, fleets []string) (found []string, err error) {
	for _, r := range s.fleets {
		if slices.Contains(fleets, r.Fleet) && slices.ContainsFunc(r.Devices, func(d cassandra.Device) bool { return d.DeviceID == device }) {
			found = append(found, r.Fleet)
		}
	}
	return found, nil
}

func (s *rowStore) TrackOfDay(ctx context.Context, device, fleet string, day cassandra.Day, fromMs, toMs int64, limit int) (*cassandra.Track, error) {
	t := &cassandra.Track{}
	for _, p := range rowsOf(s, fleet, func(r *rivals.FleetRows) []cassandra.Telemetry { return r.Positions }) {
		if ms := p.Ts.UnixMilli(); p.DeviceID == device && cassandra.DayOf(ms) == day && ms >= fromMs && ms <= toMs {
			t.Positions = append(t.Positions, cassandra.Position{TsMs: ms, Lat: p.Lat, Lon: p.Lon, SpeedKmh: *p.SpeedKmh, Zone: p.Zone, Fleet: p.FleetID})
			if err := cassandra.MemoryOf(ctx)(100); err != nil {
				return nil, err
			}
		}
	}
	slices.SortFunc(t.Positions, func(a, b cassandra.Position) int { return int(a.TsMs - b.TsMs) })
	if n := len(t.Positions); n > limit {
		t.Positions, t.More = t.Positions[n-limit:], true
	}
	return t, nil
}

func (s *rowStore) Analytics(_ context.Context, fleet string, from, to cassandra.Day) ([]cassandra.AnalyticsRow, error) {
	rows := rowsOf(s, fleet, func(r *rivals.FleetRows) []cassandra.AnalyticsRow { return r.Hours })
	return slices.DeleteFunc(rows, func(h cassandra.AnalyticsRow) bool { return h.Day < from || h.Day > to }), nil
}

func (s *rowStore) Alerts(_ context.Context, q cassandra.AlertQuery) ([]cassandra.Alert, error) {
	rows := rowsOf(s, q.FleetID, func(r *rivals.FleetRows) []cassandra.Alert { return r.Alerts })
	return slices.DeleteFunc(rows, func(a cassandra.Alert) bool { return a.Opened().Before(q.From) || a.Opened().After(q.To) }), nil
}

func (s *rowStore) Select(_ context.Context, statement string, _ int) (cassandra.Result, error) {
	return cassandra.Result{Columns: []cassandra.ResultColumn{{Name: "statement", Type: "text"}}, Rows: [][]any{{statement}}}, nil
}

func (s *rowStore) Close() {}

// statements are raw statements. Most try to reach rows of another fleet. FLEET is a fleet.
var statements = []string{
	"SELECT * FROM latest_telemetry_by_fleet WHERE fleet_id = 'FLEET' AND bucket IN (0, 1, 2, 3, 4, 5, 6, 7)",
	"SELECT * FROM devices_by_fleet WHERE fleet_id = 'FLEET'",
	"SELECT JSON * FROM devices_by_fleet WHERE fleet_id = 'FLEET'",
	"SELECT * FROM alerts_by_fleet_day WHERE fleet_id = 'FLEET' AND day IN ($__days) AND severity = 'HIGH'",
	"SELECT * FROM open_alerts_by_fleet WHERE fleet_id = 'FLEET'",
	"SELECT * FROM fleet_analytics_by_day WHERE fleet_id = 'FLEET' AND day IN ($__days)",
	"SELECT * FROM geofences_by_fleet WHERE fleet_id = 'FLEET'",
	"SELECT count(*), max(last_ts) FROM latest_telemetry_by_fleet WHERE fleet_id = 'FLEET' AND bucket IN (0, 1, 2, 3, 4, 5, 6, 7)",
	"SELECT fleet_id, count(*) FROM latest_telemetry_by_fleet WHERE fleet_id = 'FLEET' AND bucket IN (0, 1) GROUP BY fleet_id",
	"SELECT DISTINCT fleet_id FROM devices_by_fleet WHERE fleet_id = 'FLEET'",
	"SELECT writetime(status), ttl(status), token(fleet_id) FROM devices_by_fleet WHERE fleet_id = 'FLEET'",
	"SELECT * FROM devices_by_fleet WHERE fleet_id IN ('FLEET', 'fleet-b')",
	"SELECT * FROM devices_by_fleet WHERE fleet_id IN ('fleet-b', 'FLEET') ORDER BY device_id DESC PER PARTITION LIMIT 2 LIMIT 3",
	"SELECT * FROM devices_by_fleet WHERE (fleet_id) = ('FLEET')",
	"SELECT * FROM devices_by_fleet WHERE (fleet_id) IN (('FLEET'))",
	"SELECT * FROM devices_by_fleet WHERE fleet_id >= 'FLEET' ALLOW FILTERING",
	"SELECT * FROM devices_by_fleet WHERE fleet_id = 'FLEET' AND fleet_id = 'fleet-b'",
	"SELECT * FROM devices_by_fleet WHERE fleet_id = 'fleet-b' OR fleet_id = 'FLEET'",
	"SELECT * FROM devices_by_fleet WHERE \"fleet_id\" = 'FLEET'",
	"SELECT * FROM devices_by_fleet WHERE fleet_id = $$FLEET$$",
	"SELECT * FROM devices_by_fleet WHERE fleet_id = 'fleet-b' /* ' */ AND device_id = 'a-0'",
	"SELECT * FROM devices_by_fleet WHERE fleet_id = 'fleet-b' -- '\n OR fleet_id = 'FLEET'",
	"SELECT * FROM devices_by_fleet WHERE fleet_id = 'fleet-b'; SELECT * FROM devices_by_fleet WHERE fleet_id = 'FLEET'",
	"SELECT * FROM devices_by_fleet WHERE fleet_id = 'fleet-b''FLEET'",
	"SELECT * FROM devices_by_fleet WHERE fleet_id = concat('FLEET', '')",
	"SELECT * FROM devices_by_fleet WHERE fleet_id = blobAsText(textAsBlob('FLEET'))",
	"SELECT * FROM devices_by_fleet WHERE fleet_id = (text) 'FLEET'",
	"SELECT * FROM devices_by_fleet WHERE fleet_id IN ('fleet-b', (text) 'FLEET')",
	"SELECT * FROM devices_by_fleet WHERE token(fleet_id) > -9223372036854775808",
	"SELECT * FROM devices_by_fleet WHERE token(fleet_id) >= token('FLEET') AND token(fleet_id) <= token('FLEET')",
	"SELECT * FROM devices_by_fleet WHERE fleet_id = 'fleet-b' AND token(fleet_id) > token('FLEET') ALLOW FILTERING",
	"SELECT * FROM latest_telemetry_by_fleet WHERE fleet_id = 'FLEET' ALLOW FILTERING",
	"SELECT * FROM latest_telemetry_by_fleet WHERE bucket = 0 ALLOW FILTERING",
	"SELECT * FROM devices_by_fleet",
	"SELECT * FROM devices_by_fleet ALLOW FILTERING",
	"SELECT * FROM telemetry_by_device_day WHERE device_id = 'a-0' AND day IN ($__days)",
	"SELECT * FROM telemetry_by_device_day WHERE device_id = 'shared' AND day IN ($__days) AND fleet_id = 'FLEET' ALLOW FILTERING",
	"SELECT count(*) FROM telemetry_by_device_day WHERE device_id = 'shared' AND day IN ($__days)",
	"SELECT * FROM latest_telemetry_by_device WHERE device_id = 'a-0'",
	"SELECT * FROM owner_by_device WHERE bucket = 0",
	"SELECT * FROM fleets WHERE shard IN (0, 1, 2, 3)",
	"SELECT * FROM system.local WHERE key = 'local'",
	"SELECT * FROM system_schema.keyspaces WHERE keyspace_name = 'FLEET'",
	"SELECT * FROM system_views.clients ALLOW FILTERING",
	"SELECT * FROM system.size_estimates WHERE keyspace_name = 'fleet_iot'",
	"SELECT * FROM fleet_iot.devices_by_fleet WHERE fleet_id = 'FLEET'",
	"SELECT system.now() FROM devices_by_fleet WHERE fleet_id = 'FLEET'",
	"SELECT fleet_iot.leak(device_id) FROM devices_by_fleet WHERE fleet_id = 'fleet-b'",
	"SELECT * FROM hours_by_fleet WHERE fleet_id = 'FLEET' AND hour = $__timeFrom",
	"SELECT * FROM pending_hours_by_instance WHERE instance_id = 'x' AND fleet_id = 'FLEET'",
	"INSERT INTO devices_by_fleet (fleet_id, device_id) VALUES ('FLEET', 'x')",
}

// everything returns the responses to all that a viewer may ask of a data source, each of a new one: what a cache still has
// depends on the clock. It fails for a query type or resource that has no requests here.
func everything(t *testing.T, open func() *Datasource) (all []string) {
	d := open()
	fleets := [][]string{nil, {rivals.Own}, {rivals.Other}, {rivals.Own, rivals.Other}, {"unknown"}}
	devices := [][]string{{rivals.OtherDevice}, {rivals.OwnDevice, rivals.SharedDevice, rivals.OtherDevice}, {rivals.SharedDevice}, {"a-0-0"}}
	var ofDevices, variables, raw []map[string]any
	for _, list := range devices {
		ofDevices = append(ofDevices, map[string]any{"devices": list}, map[string]any{"devices": list, "limit": 20, "fields": []string{"lat"}})
	}
	for _, kind := range query.Variables {
		variables = append(variables, map[string]any{"variable": kind})
	}
	for _, statement := range statements {
		for _, fleet := range []string{rivals.Own, rivals.Other} {
			if text := strings.ReplaceAll(statement, "FLEET", fleet); !strings.Contains(text, "'fleet-b', 'fleet-b'") { // equal statements may share a read
				raw = append(raw, map[string]any{"cql": text})
			}
		}
	}
	filter := func(key, operator, value string) map[string]any {
		return map[string]any{"filters": []map[string]any{{"key": key, "operator": operator, "value": value}}}
	}
	some := []map[string]any{{}, {"limit": 2}, filter("fleet_id", "=", rivals.Other), filter("device_id", "=~", "a-.*|shared")}
	variants := map[string][]map[string]any{
		query.TypeLatest: append(some, map[string]any{"live": true}, map[string]any{"zones": []string{"zone-0"}}, map[string]any{"devices": []string{rivals.OtherDevice}}),
		query.TypeTrack:  ofDevices, query.TypeAnalytics: some, query.TypeAlerts: append(some, ofDevices...), query.TypeDevices: append(some, ofDevices...),
		query.TypeFleets: some, query.TypeGeofences: append(some, map[string]any{"zones": []string{"zone-0"}}), query.TypeRaw: raw, query.TypeVariable: variables,
	}
	for _, kind := range query.Types {
		require.NotEmpty(t, variants[kind], "query type %s: add what a viewer may ask of it", kind)
		for _, format := range query.Formats {
			for _, names := range fleets {
				for i, variant := range variants[kind] {
					if kind == query.TypeRaw && format != query.FormatTable && i >= 4 {
						break
					}
					q := maps.Clone(variant)
					q["queryType"], q["format"], q["fleets"] = kind, format, names
					all = append(all, responseTo(t, open, q, 12*24*time.Hour, i == 0))
					if kind == query.TypeTrack {
						all = append(all, responseTo(t, open, q, 5*time.Hour, false))
					}
				}
				if kind == query.TypeRaw { // its statements name the fleets
					break
				}
			}
		}
	}
	parameters := map[string][]string{
		"schema": {""}, "filter-keys": {""}, "fleets": {"", "prefix=fleet-a", "limit=1"}, "devices": {"", "prefix=a-", "limit=2"}, "zones": {""}, "alert-types": {""}, "geofences": {""},
	}
	for key := range filterKinds {
		parameters["filter-values"] = append(parameters["filter-values"], "key="+key)
	}
	slices.Sort(parameters["filter-values"])
	for _, path := range slices.Sorted(maps.Keys(d.resources())) {
		require.NotEmpty(t, parameters[path], "resource %s: add what a viewer may ask of it", path)
		for _, names := range fleets {
			for _, p := range parameters[path] {
				for _, name := range names {
					p += "&fleet=" + name
				}
				status, body := get(t, d, path+"?"+p)
				all = append(all, fmt.Sprint(path, "?", p, " ", status, " ", body))
			}
		}
	}
	for _, fleet := range []string{rivals.Own, rivals.Other, "unknown", "*", ""} {
		for _, filter := range []string{"", `{"d":["a-0"]}`, `{"l":1}`, `{"f":[{"key":"fleet_id","operator":"=","value":"fleet-a"}]}`} {
			path := "fleet/" + base64.RawURLEncoding.EncodeToString([]byte(fleet))
			if filter != "" {
				path += "/" + base64.RawURLEncoding.EncodeToString([]byte(filter))
			}
			all = append(all, d.stream(t, path))
		}
	}
	health, err := d.CheckHealth(t.Context(), nil)
	require.NoError(t, err)
	return append(all, ages.ReplaceAllString(health.Message+string(health.JSONDetails), "AGE"))
}

// What depends on the clock and on the nodes: the age of the latest record, and who answered.
var (
	ages  = regexp.MustCompile(`([0-9]+h)?([0-9]+m)?[0-9]+s old`)
	nodes = regexp.MustCompile(`row\(s\) read from [^;]*;`)
)

// responseTo returns the response to a query, on request also as an alert rule gets it.
func responseTo(t *testing.T, open func() *Datasource, q map[string]any, back time.Duration, alerting bool) string {
	text, err := json.Marshal(q)
	require.NoError(t, err)
	shown := string(text) + back.String()
	for _, header := range []string{"", "true"} {
		if header != "" && !alerting {
			break
		}
		source := dataQuery("A", string(text))
		source.TimeRange.From, source.MaxDataPoints, source.Interval = now.Add(-back), 50, time.Minute
		d := open()
		ctx, answered := context.WithCancel(t.Context())
		response, err := d.QueryData(ctx, &backend.QueryDataRequest{Queries: []backend.DataQuery{source}, Headers: map[string]string{"FromAlert": header}})
		answered()
		d.Dispose()
		require.NoError(t, err)
		r := response.Responses["A"]
		for _, frame := range r.Frames {
			frame.Meta.ExecutedQueryString = nodes.ReplaceAllString(frame.Meta.ExecutedQueryString, "row(s) read;")
			if custom, ok := frame.Meta.Custom.(map[string]any); ok {
				delete(custom, "coordinators")
			}
			content, err := json.Marshal(frame)
			require.NoError(t, err)
			shown += "\n" + string(content)
		}
		shown += fmt.Sprint("\n", r.Status, r.ErrorSource, r.Error)
	}
	return shown
}

// stream returns the response to a subscription, to a publication, and the first packet of the stream or its error.
func (d *Datasource) stream(t *testing.T, path string) string {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	subscribed, err := d.SubscribeStream(ctx, &backend.SubscribeStreamRequest{Path: path})
	require.NoError(t, err)
	shown := fmt.Sprint(path, " ", subscribed.Status)
	if subscribed.InitialData != nil {
		shown += string(subscribed.InitialData.Data())
	}
	published, err := d.PublishStream(ctx, &backend.PublishStreamRequest{Path: path, Data: []byte("{}")})
	require.NoError(t, err)
	first := ""
	err = d.RunStream(ctx, &backend.RunStreamRequest{Path: path}, backend.NewStreamSender(packetSender(func(packet []byte) {
		first = string(packet)
		stop()
	})))
	return fmt.Sprint(shown, published.Status, first, err)
}

type packetSender func(packet []byte)

func (send packetSender) Send(packet *backend.StreamPacket) error {
	send(packet.Data)
	return nil
}
