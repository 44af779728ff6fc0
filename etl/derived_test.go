package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/cassandra/schema"
	"github.com/fleettracing/fleet-tracing/dev/process"
	"github.com/fleettracing/fleet-tracing/dev/testenv/platform"
)

// TestDerivedRowsFollowFromStoredRecords does not truncate the keyspace between its parts. Each has its own fleets and vehicles.
func TestDerivedRowsFollowFromStoredRecords(t *testing.T) {
	s := newSite(t)
	part := func(name string, run func(t *testing.T, s *site)) {
		t.Run(name, func(t *testing.T) {
			other := &site{t: t, config: s.config, dir: t.TempDir()}
			other.env = append(slices.Clone(s.env), "ETL_STATE_DIR="+other.dir, "ETL_PROCESSOR_ENABLED=true", "ETL_PROCESSOR_FLUSH_INTERVAL=1s", "ETL_PROCESSOR_MAX_CLOCK_SKEW=2s")
			run(t, other)
		})
	}
	part("two instances with the same fleet, one is killed", oneIsKilled)
	part("changed rows", changedRows) // of the fleet of the previous part
	part("rules and geofences", rulesAndGeofences)
	part("an alert survives a kill", alertSurvivesKill)
	part("a day of taxis", dayOfTaxis)
}

// instance is a fleet-etl with its own API and state directory.
type instance struct {
	*service
	api string // address
}

func (s *site) instance(env ...string) *instance {
	addresses, err := process.FreeAddresses(2)
	require.NoError(s.t, err)
	v := &instance{s.service(slices.Concat([]string{
		"ETL_SOURCES=api", "ETL_API_ADDRESS=" + addresses[0], "ETL_API_OPEN_FLEET=nobody", "ETL_API_DEVICE_RATE=0", "ETL_API_TOKEN_RATE=0",
		"ETL_STATE_DIR=" + s.t.TempDir(), "ETL_METRICS_ADDRESS=" + addresses[1], "ETL_DRAIN_TIMEOUT=2m",
	}, env)...), addresses[0]}
	v.metrics = addresses[1]
	return v
}

// starts starts the instance and waits until it is connected.
func (v *instance) starts() {
	v.start()
	v.waitFor("it is connected to Cassandra", func() bool { return v.metric("fleet_etl_store_up") == 1 && up(v.api) })
}

// waitFor waits for a condition, long enough for a busy machine.
func (v *instance) waitFor(what string, done func() bool) {
	v.s.t.Helper()
	if !assert.Eventually(v.s.t, done, 2*time.Minute, 20*time.Millisecond, what) {
		v.s.t.Fatal(v.said())
	}
}

// takes sends lines until they are acknowledged.
func (v *instance) takes(lines ...string) {
	v.s.t.Helper()
	v.waitFor("records are acknowledged", func() bool { return post(v.api, []byte(strings.Join(lines, ""))) == http.StatusOK })
}

// stores sends lines and waits until they are stored.
func (v *instance) stores(lines ...string) {
	v.s.t.Helper()
	v.takes(lines...)
	v.waitFor("all records are stored", func() bool { return v.metric("fleet_etl_spool_entries") == 0 })
}

// stopAll stops all instances at the same time.
func stopAll(t *testing.T, all ...*instance) {
	for _, v := range all {
		require.NoError(t, v.cmd.Process.Signal(syscall.SIGTERM))
	}
	for _, v := range all {
		err := v.cmd.Wait()
		v.cmd = nil
		require.NoError(t, err, v.said())
	}
}

// verifies runs verify for a fleet and returns its output and exit status.
func (s *site) verifies(fleet string, args ...string) (string, int) {
	return s.run(append([]string{"verify", "--fleet", fleet}, args...)...)
}

const shared = "fleet-001" // of the generator

func oneIsKilled(t *testing.T, s *site) {
	file := filepath.Join(s.dir, "stream.ndjson")
	out, status := s.run("generate", "--records", "6000", "--vehicles", "12", "--interval", "1m", "--late", "0.05", "--duplicate", "0.05",
		"--start", time.Now().Add(-20*time.Hour).UTC().Truncate(time.Second).Format(time.RFC3339), "--format", "ndjson", "-o", file)
	require.Zero(t, status, out)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	lines := slices.Collect(strings.Lines(string(text)))
	require.Greater(t, len(lines), 6000)

	a, b, c := s.instance(), s.instance(), s.instance()
	a.starts()
	b.starts()
	first, killed := a, false
	chunks := slices.Collect(slices.Chunk(lines, 100))
	for i, chunk := range chunks {
		var odd, even []string
		for j, line := range chunk { // alternate records, so that both receive every vehicle
			if j%2 == 0 {
				even = append(even, line)
			} else {
				odd = append(odd, line)
			}
		}
		first.takes(even...)
		if i == len(chunks)/2 {
			a.kill() // its spool has acknowledged records
			killed = true
			c.starts()
			first = c
		}
		if len(odd) > 0 { // the last chunk may have one line
			b.takes(odd...)
		}
	}
	require.True(t, killed)
	a.starts()
	for _, v := range []*instance{a, b, c} {
		v.waitFor("all records are stored", func() bool { return v.metric("fleet_etl_spool_entries") == 0 })
	}
	stopAll(t, a, b, c)

	out, status = s.verifies(shared)
	require.Zero(t, status, out)
	require.Contains(t, out, "differences: 0 ")

	sent := map[string]bool{}
	for _, line := range lines {
		var r struct {
			Device    string    `json:"device_id"`
			Timestamp time.Time `json:"timestamp"`
		}
		require.NoError(t, json.Unmarshal([]byte(line), &r))
		sent[fmt.Sprint(r.Device, " ", r.Timestamp.UnixMilli())] = true
	}
	store, have := s.open(), map[string]bool{}
	d := derivedOf(s, shared)
	for device, fixes := range d.fixes {
		for _, fix := range fixes {
			have[fmt.Sprint(device, " ", fix.Ts.UnixMilli())] = true
		}
	}
	require.Len(t, sent, 6000)
	require.Equal(t, sent, have, "every acknowledged record is in the history, and no other")
	require.Len(t, d.fixes, 12)
	require.NotEmpty(t, d.trips)
	require.NotEmpty(t, d.alerts)
	for device := range d.fixes {
		claims, err := store.ClaimsOfDevices(t.Context(), device)
		require.NoError(t, err)
		require.Empty(t, claims, "no claim is left")
	}
	instances, err := store.Instances(t.Context())
	require.NoError(t, err)
	require.Empty(t, instances, "ended instances are not listed, not even the killed one")
}

func changedRows(t *testing.T, s *site) {
	d := derivedOf(s, shared)
	sum, alert := d.analytics[len(d.analytics)/2], d.alerts[0]
	trip := d.trips[slices.IndexFunc(d.trips, func(r tripOf) bool { return r.Kind == "trip" && !r.Open })]
	hour, open := d.hours[0], d.open[0]
	for what, c := range map[string]struct{ statement, table, key string }{
		"hourly statistics": {
			fmt.Sprintf("UPDATE fleet_analytics_by_day SET total_distance_km = 4711 WHERE fleet_id = '%s' AND day = '%s' AND hour = %d", shared, sum.Day, sum.Hour),
			"fleet_analytics_by_day", shared + " " + sum.Day.Time().Add(time.Duration(sum.Hour)*time.Hour).Format("2006-01-02T15"),
		},
		"hour of a device": {
			fmt.Sprintf("UPDATE hours_by_fleet SET records_count = 4711 WHERE fleet_id = '%s' AND hour = %d AND bucket = %d AND device_id = '%s'", shared, hour.HourMs, cassandra.HourBucket(hour.DeviceID), hour.DeviceID),
			"hours_by_fleet", shared + " " + stamp(hour.HourMs) + " " + hour.DeviceID,
		},
		"a trip": {
			fmt.Sprintf("DELETE FROM trips_by_device_month WHERE device_id = '%s' AND month = '%s' AND start_ts = %d", trip.device, cassandra.DayOf(trip.StartMs).Month(), trip.StartMs),
			"trips_by_device_month", trip.device + " trip of " + stamp(trip.StartMs),
		},
		"an alert": {
			fmt.Sprintf("DELETE FROM alerts_by_fleet_day WHERE fleet_id = '%s' AND day = '%s' AND severity = '%s' AND ts = %d", shared, cassandra.DayOf(alert.OpenedMs), alert.Severity, alert.OpenedMs),
			"alerts_by_fleet_day", alert.DeviceID + " " + alert.Type + " of " + stamp(alert.OpenedMs),
		},
		"an open alert": {
			fmt.Sprintf("DELETE FROM open_alerts_by_fleet WHERE fleet_id = '%s' AND bucket = %d AND device_id = '%s' AND alert_type = '%s'", shared, cassandra.OpenAlertBucket(open.DeviceID), open.DeviceID, open.Type),
			"open_alerts_by_fleet", open.DeviceID + " " + open.Type + " of " + stamp(open.OpenedMs),
		},
	} {
		require.NoError(t, schema.Exec(t.Context(), s.config, platform.Quiet(), c.statement))
		out, status := s.verifies(shared)
		require.Equal(t, 2, status, "%s: %s", what, out)
		require.Regexp(t, "(?m)^"+c.table+" "+c.key, out, "%s: the output has the row", what)
	}
	out, status := s.verifies(shared, "--report", "json")
	require.Equal(t, 2, status)
	var report struct {
		Devices     int
		Differences []struct{ Table, Key, What string }
	}
	require.NoError(t, json.Unmarshal([]byte(out[strings.Index(out, "{\n"):]), &report), out)
	require.Equal(t, 12, report.Devices)
	require.GreaterOrEqual(t, len(report.Differences), 5)

	out, status = s.verifies(shared, "--fix")
	require.Zero(t, status, out)
	out, status = s.verifies(shared)
	require.Zero(t, status, out)
	require.Equal(t, d.text(), derivedOf(s, shared).text(), "the rows are as before")
	_, status = s.run("verify", "--from", "yesterday")
	require.Equal(t, 1, status, "a usage error is not a difference")
}

func stamp(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }

// at is a record of a vehicle: meters east of the center of the geofences, seconds after start.
type at struct {
	device      string
	start       time.Time
	s, east     float64
	speed       float64
	zone, fleet string
}

func (a at) line() string {
	r := map[string]any{
		"device_id": a.device, "fleet_id": a.fleet, "timestamp": a.start.Add(time.Duration(a.s * float64(time.Second))).Format(time.RFC3339Nano),
		"lat": 52, "lon": 9 + a.east/(111_195*math.Cos(52*math.Pi/180)), "speed_kmh": a.speed,
	}
	if a.zone != "" {
		r["zone"] = a.zone
	}
	text, _ := json.Marshal(r) // it has only numbers and strings
	return string(text) + "\n"
}

const someGeofences = `{"type": "FeatureCollection", "features": [
{"type": "Feature", "geometry": {"type": "Point", "coordinates": [9, 52]},
 "properties": {"fleet": "yard", "name": "town", "radius_m": 3000, "speed_limit_kmh": 50}},
{"type": "Feature", "geometry": {"type": "Point", "coordinates": [9, 52]},
 "properties": {"fleet": "yard", "name": "depot", "radius_m": 200, "dwell_s": 60, "alerts": ["enter", "exit"]}}%s
]}`

const gate = `,
{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[9.028, 51.999], [9.031, 51.999], [9.031, 52.001], [9.028, 52.001], [9.028, 51.999]]]},
 "properties": {"fleet": "*", "name": "gate", "speed_limit_kmh": 10}}`

const someRules = `defaults:
  device_offline: {enabled: false}
fleets:
  yard:
    speed_limit: {for: %s, hysteresis: 5, levels: {LOW: 0, MEDIUM: 15, HIGH: 30}}
devices:
  calm:
    speed_limit: {enabled: false}
`

func rulesAndGeofences(t *testing.T, s *site) {
	geofences, rules := filepath.Join(s.dir, "geofences.geojson"), filepath.Join(s.dir, "rules.yml")
	write := func(path, text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
	s.env = append(s.env, "ETL_GEOFENCES_FILES="+filepath.Join(s.dir, "*.geojson"), "ETL_ALERT_RULES_FILE="+rules)

	for file, c := range map[string]struct {
		text string
		want []string
	}{
		rules:     {fmt.Sprintf(someRules, "soon"), []string{"ETL_ALERT_RULES_FILE", "rules.yml line 5: fleets.yard.speed_limit.for", "soon", "give a duration such as 90s"}},
		geofences: {fmt.Sprintf(someGeofences, strings.Replace(gate, "10}", `"slow"}`, 1)), []string{"ETL_GEOFENCES_FILES", `geofences.geojson: feature 3 "gate": speed_limit_kmh is "slow"`, "give a number"}},
	} {
		write(geofences, fmt.Sprintf(someGeofences, ""))
		write(rules, fmt.Sprintf(someRules, "20s"))
		write(file, c.text)
		out, status := s.run("run")
		require.Equal(t, 1, status, out)
		for _, want := range c.want {
			require.Contains(t, out, want)
		}
	}

	write(geofences, fmt.Sprintf(someGeofences, ""))
	write(rules, fmt.Sprintf(someRules, "20s"))
	v := s.instance()
	v.starts()
	start := time.Now().UTC().Add(-5 * time.Minute).Truncate(time.Second)
	moves := func(device string, speeds, east []float64) (lines []string) {
		for i := range max(len(speeds), len(east)) {
			a := at{device: device, fleet: "yard", start: start, s: 10 * float64(i), speed: 30, east: 1000}
			if i < len(speeds) {
				a.speed = speeds[i]
			}
			if i < len(east) {
				a.east = east[i]
			}
			lines = append(lines, a.line())
		}
		return lines
	}
	v.stores(slices.Concat(
		moves("visits", nil, []float64{500, 500, 0, 0, 0, 0, 0, 0, 0, 0, 500, 500}),
		moves("races", []float64{40, 60, 62, 70, 90, 48, 44}, nil),
		moves("hurries", []float64{30, 56, 56, 56}, nil),
		moves("calm", []float64{100, 100, 100, 100}, nil),
		[]string{
			at{device: "away", fleet: "yard", start: start, east: 9000}.line(),
			at{device: "away", fleet: "yard", start: start, s: 10, east: 9000, zone: "market"}.line(),
			at{device: "elsewhere", fleet: "field", start: start, east: 0}.line(),
		})...)
	store := s.open()
	sec := func(s int64) int64 { return start.UnixMilli() + 1000*s }
	alert := func(device, kind, severity string, started, opened, ended int64, peak, threshold float64, zone string) string {
		until := int64(0)
		if ended != 0 {
			until = sec(ended)
		}
		return fmt.Sprintf("%s %s %s %s %s/%d %g/%g in %s", device, kind, severity, stamp(sec(started)), stamp(sec(opened)), until, peak, threshold, zone)
	}
	shown := func(alerts []cassandra.Alert) (lines []string) {
		for _, a := range alerts {
			lines = append(lines, fmt.Sprintf("%s %s %s %s %s/%d %g/%g in %s", a.DeviceID, a.Type, a.Severity, stamp(a.StartedMs), stamp(a.OpenedMs), a.EndedMs, a.Peak, a.Threshold, a.Zone))
			assert.Equal(t, a.EndedMs != 0, a.Resolved)
			assert.NotEmpty(t, a.Message)
		}
		slices.Sort(lines)
		return lines
	}
	fleetAlerts := func() (lines []string) {
		all, err := store.Alerts(t.Context(), cassandra.AlertQuery{FleetID: "yard", From: time.UnixMilli(sec(0)), To: time.Now()})
		assert.NoError(t, err)
		return shown(all)
	}
	open := func() []string {
		found, err := store.OpenAlerts(t.Context(), "yard")
		assert.NoError(t, err)
		for _, a := range found {
			assert.True(t, a.Notify, "receivers must be notified")
		}
		return shown(found)
	}
	is := func(what string, have func() []string, want ...string) {
		t.Helper()
		slices.Sort(want)
		if !assert.Eventually(t, func() bool { return slices.Equal(want, have()) }, time.Minute, 50*time.Millisecond, what) {
			require.Equal(t, want, have(), "%s\n%s", what, v.said())
		}
	}
	entered := alert("visits", "geofence_enter", "LOW", 20, 30, 110, 0, 0, "depot")
	dwelt := alert("visits", "geofence_dwell", "MEDIUM", 20, 80, 110, 70, 60, "depot")
	left := alert("visits", "geofence_exit", "LOW", 100, 110, 0, 0, 0, "depot")
	raced := alert("races", "speed_limit", "HIGH", 10, 30, 60, 90, 80, "town")
	hurries := alert("hurries", "speed_limit", "LOW", 10, 30, 0, 56, 50, "town")
	is("all alerts with their highest severity", fleetAlerts, entered, dwelt, left, raced, hurries)
	is("open alerts", open, left, hurries)
	zonesOf := func(device string) (names []string) {
		history, err := store.History(t.Context(), cassandra.HistoryQuery{DeviceID: device, From: start, To: time.Now()})
		require.NoError(t, err)
		for _, fix := range history {
			names = append(names, fix.Zone)
		}
		return names
	}
	require.Equal(t, []string{"town", "town", "depot", "depot", "depot", "depot", "depot", "depot", "depot", "depot", "town", "town"}, zonesOf("visits"), "the smallest geofence")
	require.Equal(t, []string{"market", "unknown"}, zonesOf("away"), "the zone of the record takes precedence")
	require.Equal(t, []string{"unknown"}, zonesOf("elsewhere"), "geofences of another fleet do not apply")
	drawn := func() (names []string) {
		found, err := store.Geofences(t.Context(), "yard")
		assert.NoError(t, err)
		for _, z := range found {
			names = append(names, z.Name)
		}
		return names
	}
	is("stored geofences", drawn, "depot", "town")

	// Other rules and one more geofence.
	reload := func(says string) {
		require.NoError(t, v.cmd.Process.Signal(syscall.SIGHUP))
		v.waitFor(says, func() bool { return strings.Contains(v.said(), says) })
	}
	write(geofences, fmt.Sprintf(someGeofences, gate))
	write(rules, fmt.Sprintf(someRules, "0s"))
	reload("configuration reloaded")
	is("stored geofences", drawn, "depot", "gate", "town")
	is("open alerts stay", open, left, hurries)
	v.stores(
		at{device: "hurries", fleet: "yard", start: start, s: 40, east: 1000, speed: 57}.line(),
		at{device: "slips", fleet: "yard", start: start, s: 40, east: 2000, speed: 30}.line())
	slips := alert("slips", "speed_limit", "MEDIUM", 40, 40, 0, 30, 25, "gate")
	is("the new geofence and the new rule apply at once", open, left, hurries, slips)

	write(rules, fmt.Sprintf(someRules, "soon"))
	reload("configuration reload failed")
	require.Contains(t, v.said(), `rules.yml line 5: fleets.yard.speed_limit.for \"soon\": give a duration`)
	v.stores(at{device: "slides", fleet: "yard", start: start, s: 50, east: 2000, speed: 21}.line())
	slides := alert("slides", "speed_limit", "LOW", 50, 50, 0, 21, 10, "gate")
	is("the old rules stay", open, left, hurries, slips, slides)
	v.stores(at{device: "hurries", fleet: "yard", start: start, s: 50, east: 1000, speed: 20}.line())
	hurried := alert("hurries", "speed_limit", "LOW", 10, 30, 50, 57, 50, "town")
	is("an alert that was open stays the same until it resolves", fleetAlerts, entered, dwelt, left, raced, hurried, slips, slides)
	is("open alerts", open, left, slips, slides)
	stopAll(t, v)
}

// alertmanager is a fake of the Alertmanager API.
type alertmanager struct {
	*httptest.Server
	mu     sync.Mutex
	posted []postedAlert
}

type postedAlert struct {
	Labels      map[string]string
	Annotations map[string]string
	StartsAt    time.Time
	EndsAt      time.Time

	at time.Time
}

func (p *postedAlert) firing() bool { return p.EndsAt.After(p.at) }

func newAlertmanager(t *testing.T) *alertmanager {
	a := &alertmanager{}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var alerts []postedAlert
		if r.Method != http.MethodPost || r.URL.Path != "/api/v2/alerts" || json.NewDecoder(r.Body).Decode(&alerts) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, alert := range alerts {
			alert.at = time.Now()
			a.posted = append(a.posted, alert)
		}
	}))
	t.Cleanup(a.Close)
	return a
}

// of returns the posted alerts of a device and type from an index on.
func (a *alertmanager) of(device, kind string, since int) (found []postedAlert) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, alert := range a.posted[since:] {
		if alert.Labels["device"] == device && alert.Labels["type"] == kind {
			found = append(found, alert)
		}
	}
	return found
}

func (a *alertmanager) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.posted)
}

func alertSurvivesKill(t *testing.T, s *site) {
	manager := newAlertmanager(t)
	v := s.instance("ETL_ALERTMANAGER_URLS="+manager.URL, "ETL_GRAFANA_URL=http://grafana:3000")
	v.starts()
	start := time.Now().UTC().Add(-3 * time.Minute).Truncate(time.Second)
	drives := func(device string, second, kmh float64) string {
		return at{device: device, fleet: "alerted", start: start, s: second, east: 1000, speed: kmh}.line()
	}
	v.stores(drives("fast", 0, 150), drives("fast", 10, 151), drives("fast", 20, 152), drives("stubborn", 0, 140), drives("stubborn", 10, 141))
	const kind = "speed_limit"
	v.waitFor("Alertmanager is notified", func() bool { return len(manager.of("fast", kind, 0)) > 0 && len(manager.of("stubborn", kind, 0)) > 0 })
	first := manager.of("fast", kind, 0)[0]
	require.True(t, first.firing())
	require.Equal(t, start.Add(10*time.Second), first.StartsAt.UTC())
	require.Equal(t, map[string]string{
		"alertname": "FleetVehicleSpeedLimit", "kind": "fleet", "fleet": "alerted", "device": "fast", "type": kind, "severity": "warning", "fleet_severity": "MEDIUM",
	}, first.Labels)
	require.Contains(t, first.Annotations["dashboard_url"], "http://grafana:3000/d/fleet-analytics?var-fleet=alerted&var-device=fast&")
	store := s.open()
	open := func(device string) []cassandra.Alert {
		found, err := store.OpenAlerts(t.Context(), "alerted")
		assert.NoError(t, err)
		return slices.DeleteFunc(found, func(a cassandra.Alert) bool { return a.DeviceID != device || a.Type != kind })
	}
	v.waitFor("it is stored", func() bool { return len(open("fast")) == 1 && len(open("stubborn")) == 1 })
	before := open("fast")[0]

	since := manager.count()
	v.kill()
	v.starts()
	v.stores(drives("fast", 30, 150), drives("fast", 40, 150))
	v.waitFor("Alertmanager is notified again", func() bool { return len(manager.of("fast", kind, since)) > 0 })
	now := open("fast")[0]
	require.Equal(t, before.OpenedMs, now.OpenedMs, "it is the same alert")
	require.Equal(t, before.Severity, now.Severity)
	require.True(t, now.Notify)
	v.stores(drives("fast", 50, 60))
	v.waitFor("its end is stored", func() bool { return len(open("fast")) == 0 })
	v.waitFor("Alertmanager is notified of the end", func() bool {
		posted := manager.of("fast", kind, since)
		return !posted[len(posted)-1].firing()
	})
	ended := false
	for _, p := range manager.of("fast", kind, 0) {
		require.Equal(t, first.Labels, p.Labels)
		require.Equal(t, first.StartsAt, p.StartsAt, "to Alertmanager it is one alert from its start to its end")
		require.False(t, ended && p.firing(), "after its end, it does not fire again")
		ended = ended || !p.firing()
	}
	alerts := func(device string) []cassandra.Alert {
		found, err := store.DeviceAlerts(t.Context(), device, start.UnixMilli(), time.Now().UnixMilli())
		assert.NoError(t, err)
		return slices.DeleteFunc(found, func(a cassandra.Alert) bool { return a.Type != kind })
	}
	v.waitFor("it is one alert with its end", func() bool {
		found := alerts("fast")
		return len(found) == 1 && found[0].OpenedMs == start.UnixMilli()+10_000 && found[0].EndedMs == start.UnixMilli()+50_000
	})

	// A person resolves the other alert: no notification follows, not even after a late record causes a recompute.
	response, err := client.Get("http://" + v.api + "/v1/fleets/alerted/alerts")
	require.NoError(t, err)
	var list struct {
		Items []struct {
			ID     string
			Device string `json:"device_id"`
			Type   string `json:"alert_type"`
		}
	}
	require.NoError(t, json.NewDecoder(response.Body).Decode(&list))
	require.NoError(t, response.Body.Close())
	for _, item := range list.Items {
		if item.Device == "stubborn" && item.Type == kind {
			response, err := client.Post("http://"+v.api+"/v1/alerts/"+item.ID+"/resolve", "application/json", nil)
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			require.Equal(t, http.StatusOK, response.StatusCode)
		}
	}
	require.Empty(t, open("stubborn"))
	recomputed := v.metric("fleet_etl_recomputed_devices_total")
	v.stores(drives("stubborn", 5, 140))
	v.waitFor("it is recomputed", func() bool { return v.metric("fleet_etl_recomputed_devices_total") > recomputed })
	stopAll(t, v)
	require.Len(t, alerts("stubborn"), 1)
	require.Empty(t, open("stubborn"), "it does not come back")
	opened := start.UnixMilli() + 10_000
	fleetAlerts, err := store.Alerts(t.Context(), cassandra.AlertQuery{FleetID: "alerted", From: time.UnixMilli(opened), To: time.UnixMilli(opened)})
	require.NoError(t, err)
	require.Len(t, fleetAlerts, 2)
	for _, a := range fleetAlerts {
		require.True(t, a.Resolved, "%s %s", a.DeviceID, a.Type)
	}
}

// derived has all derived rows of a fleet.
type derived struct {
	fixes       map[string][]cassandra.Telemetry // by device, oldest first
	analytics   []cassandra.AnalyticsRow
	hours       []cassandra.HourRow
	trips       []tripOf
	alerts      []cassandra.Alert // by device
	fleetAlerts []cassandra.Alert // by fleet
	open        []cassandra.Alert
	days        []string // states of devices
}

type tripOf struct {
	device string
	cassandra.TripRow
}

// derivedOf reads the derived rows of a fleet in the last days.
func derivedOf(s *site, fleet string) *derived {
	store := s.open()
	to := time.Now()
	first, last := cassandra.DayOf(to.UnixMilli())-3, cassandra.DayOf(to.UnixMilli())
	d := &derived{fixes: map[string][]cassandra.Telemetry{}}
	ids, err := store.DeviceIDs(s.t.Context(), fleet)
	require.NoError(s.t, err)
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(s.t.Context())
	g.SetLimit(16)
	for _, id := range ids {
		g.Go(func() error {
			history, err := store.History(ctx, cassandra.HistoryQuery{DeviceID: id, From: first.Time(), To: to})
			if err != nil {
				return err
			}
			trips, err := store.Trips(ctx, id, first.Time().UnixMilli(), to.UnixMilli())
			if err != nil {
				return err
			}
			alerts, err := store.DeviceAlerts(ctx, id, first.Time().UnixMilli(), to.UnixMilli())
			if err != nil {
				return err
			}
			days, err := store.DeviceDays(ctx, id, first)
			if err != nil {
				return err
			}
			slices.Reverse(history)
			mu.Lock()
			defer mu.Unlock()
			d.fixes[id] = history
			for _, row := range trips {
				d.trips = append(d.trips, tripOf{id, row})
			}
			d.alerts = append(d.alerts, alerts...)
			for _, day := range days {
				d.days = append(d.days, fmt.Sprintf("state of %s on %s by %s: %s", id, day.Day, day.Rules, day.State))
			}
			return nil
		})
	}
	for day := first; day <= last; day++ {
		g.Go(func() error {
			sums, err := store.Analytics(ctx, fleet, day, day)
			if err != nil {
				return err
			}
			fleetAlerts, err := store.Alerts(ctx, cassandra.AlertQuery{FleetID: fleet, From: day.Time(), To: (day + 1).Time().Add(-time.Millisecond)})
			if err != nil {
				return err
			}
			var hours []cassandra.HourRow
			for h := range 24 {
				rows, err := store.Hours(ctx, fleet, day.Time().Add(time.Duration(h)*time.Hour).UnixMilli())
				if err != nil {
					return err
				}
				hours = append(hours, rows...)
			}
			mu.Lock()
			defer mu.Unlock()
			d.analytics, d.fleetAlerts, d.hours = append(d.analytics, sums...), append(d.fleetAlerts, fleetAlerts...), append(d.hours, hours...)
			return nil
		})
	}
	require.NoError(s.t, g.Wait())
	d.open, err = store.OpenAlerts(s.t.Context(), fleet)
	require.NoError(s.t, err)
	slices.SortFunc(d.trips, func(a, b tripOf) int { return strings.Compare(a.key(), b.key()) })
	slices.SortFunc(d.alerts, func(a, b cassandra.Alert) int {
		return strings.Compare(a.DeviceID+a.Type+stamp(a.OpenedMs), b.DeviceID+b.Type+stamp(b.OpenedMs))
	})
	slices.SortFunc(d.analytics, func(a, b cassandra.AnalyticsRow) int { return int(a.Day-b.Day)*24 + int(a.Hour-b.Hour) })
	return d
}

func (t tripOf) key() string { return t.device + " " + stamp(t.StartMs) + " " + t.Kind }

// text returns every row as a line, for comparison, without the prefixes of fleets and devices in names.
func (d *derived) text(names ...string) []string {
	lines := slices.Clone(d.days)
	add := func(table string, rows any) {
		text, err := json.Marshal(rows)
		if err != nil {
			panic(err) // cannot happen
		}
		lines = append(lines, table+" "+string(text))
	}
	for _, r := range d.analytics {
		add("analytics", r)
	}
	for _, r := range d.hours {
		add("hours", r)
	}
	for _, r := range d.trips {
		add("trips of "+r.device, r.TripRow)
	}
	for table, alerts := range map[string][]cassandra.Alert{"alerts by device": d.alerts, "alerts by fleet": d.fleetAlerts, "open alerts": d.open} {
		for _, r := range alerts {
			add(table, r)
		}
	}
	for i := range lines {
		for _, name := range names {
			lines[i] = strings.ReplaceAll(lines[i], name, "")
		}
	}
	slices.Sort(lines)
	return lines
}

func dayOfTaxis(t *testing.T, s *site) {
	args := wuxi(t)
	// With the built-in rules, offline alerts escalate during the test.
	rules := filepath.Join(s.dir, "rules.yml")
	require.NoError(t, os.WriteFile(rules, []byte("defaults:\n  device_offline: {after: {LOW: 15m}}\n"), 0o600))
	s.env = append(s.env, "ETL_ALERT_RULES_FILE="+rules)
	load := func(args ...string) {
		t.Helper()
		r, status := s.load(args...)
		require.Zero(t, status, r.Result)
		require.EqualValues(t, 20188, r.Stored)
	}
	sound := func(fleet string) {
		t.Helper()
		out, status := s.verifies(fleet, "--from", time.Now().UTC().AddDate(0, 0, -3).Format(time.DateOnly))
		require.Zero(t, status, out)
		require.Contains(t, out, ": 1 fleets, 475 devices, 20188 records;")
	}
	load(append(args, "--derive-speed")...)
	sound("wuxi")
	once := derivedOf(s, "wuxi")
	require.Equal(t, hourlyStatisticsOf(t, once), once.shown())
	checkTrips(t, once)
	load(append(args, "--derive-speed")...)
	sound("wuxi")
	require.Equal(t, once.text(), derivedOf(s, "wuxi").text(), "a repeated load changes nothing")

	// Once in order and once shuffled, without derived speeds, which depend on the order of the file.
	text, err := os.ReadFile(args[0])
	require.NoError(t, err)
	records, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	require.NoError(t, err)
	copyOf := func(name string, records [][]string) *derived {
		var b bytes.Buffer
		w := csv.NewWriter(&b)
		for i, r := range records {
			r = slices.Clone(r)
			if i > 0 {
				r[3] = name + r[3]
			}
			require.NoError(t, w.Write(r))
		}
		w.Flush()
		file := filepath.Join(s.dir, name+".csv")
		require.NoError(t, os.WriteFile(file, b.Bytes(), 0o600))
		other := slices.Clone(args)
		other[0] = file
		other[slices.Index(other, "fleet_id=wuxi")] = "fleet_id=" + name + "wuxi"
		load(other...)
		sound(name + "wuxi")
		return derivedOf(s, name+"wuxi")
	}
	inOrder := copyOf("in-order-", records)
	rng := rand.New(rand.NewPCG(1, 2))
	rng.Shuffle(len(records)-1, func(i, j int) { records[i+1], records[j+1] = records[j+1], records[i+1] })
	require.Equal(t, inOrder.text("in-order-"), copyOf("shuffled-", records).text("shuffled-"), "the order of the file does not matter")
}

// shown returns the hourly statistics as lines, rounded so that the order of a sum does not matter.
func (d *derived) shown() (lines []string) {
	for _, r := range d.analytics {
		mean, most := math.NaN(), math.NaN()
		if r.AvgSpeedKmh != nil {
			mean, most = *r.AvgSpeedKmh, *r.MaxSpeedKmh
		}
		lines = append(lines, hourLine(r.Day.Time().Add(time.Duration(r.Hour)*time.Hour), r.TotalDistanceKm, mean, most, int(*r.RecordsCount), int(r.ActiveDevicesCount), int(r.AlertsCount)))
	}
	return lines
}

func hourLine(hour time.Time, km, mean, most float64, records, devices, alerts int) string {
	return fmt.Sprintf("%s %.6f km, %.6f km/h, at most %.6f km/h, %d records of %d devices, %d alerts", hour.Format("2006-01-02 15h"), km, mean, most, records, devices, alerts)
}

// hourlyStatisticsOf computes the hourly statistics from the history in the simplest way. It computes the offline alerts, and reads
// other alerts from their table.
func hourlyStatisticsOf(t *testing.T, d *derived) (lines []string) {
	type statistics struct {
		km, speeds, most         float64
		records, counted, alerts int
		devices                  map[string]bool
	}
	hours := map[time.Time]*statistics{}
	in := func(at time.Time) *statistics {
		hour := at.UTC().Truncate(time.Hour)
		if hours[hour] == nil {
			hours[hour] = &statistics{devices: map[string]bool{}}
		}
		return hours[hour]
	}
	var gaps, found []string
	for device, fixes := range d.fixes {
		for i, fix := range fixes {
			h := in(fix.Ts)
			h.records++
			h.devices[device] = true
			if fix.SpeedKmh != nil {
				h.counted++
				h.speeds += *fix.SpeedKmh
				h.most = max(h.most, *fix.SpeedKmh)
			}
			next := time.Now()
			if i+1 < len(fixes) {
				next = fixes[i+1].Ts
				km := haversineKm(fix.Lat, fix.Lon, fixes[i+1].Lat, fixes[i+1].Lon)
				if km/next.Sub(fix.Ts).Hours() <= 300 {
					in(next).km += km
				}
			}
			if offlineAt := fix.Ts.Add(15 * time.Minute); !offlineAt.After(next) {
				in(offlineAt).alerts++
				gaps = append(gaps, device+" "+stamp(offlineAt.UnixMilli()))
			}
		}
	}
	for _, a := range d.fleetAlerts {
		if a.Type != "device_offline" {
			in(time.UnixMilli(a.OpenedMs)).alerts++
			continue
		}
		found = append(found, a.DeviceID+" "+stamp(a.OpenedMs))
	}
	slices.Sort(gaps)
	slices.Sort(found)
	require.Equal(t, gaps, found, "exactly the gaps of 15 minutes are offline alerts")
	for hour, h := range hours {
		mean, most := math.NaN(), math.NaN()
		if h.counted > 0 {
			mean, most = h.speeds/float64(h.counted), h.most
		}
		lines = append(lines, hourLine(hour, h.km, mean, most, h.records, len(h.devices), h.alerts))
	}
	slices.Sort(lines)
	return lines
}

func haversineKm(lat1, lon1, lat2, lon2 float64) float64 {
	rad := func(deg float64) float64 { return deg / 180 * math.Pi }
	sine := func(x float64) float64 { return math.Pow(math.Sin(x/2), 2) }
	h := sine(rad(lat2-lat1)) + math.Cos(rad(lat1))*math.Cos(rad(lat2))*sine(rad(lon2-lon1))
	return 2 * 6371.0088 * math.Atan2(math.Sqrt(h), math.Sqrt(1-h))
}

// checkTrips checks that trips and stops are plausible for taxis, and prints a summary.
func checkTrips(t *testing.T, d *derived) {
	var trips, stops int
	var km, longest, driven, stood float64
	var most tripOf
	taxis := map[string]bool{}
	for i, r := range d.trips {
		require.Positive(t, r.EndMs-r.StartMs, r.key())
		if i > 0 && d.trips[i-1].device == r.device {
			require.LessOrEqual(t, d.trips[i-1].EndMs, r.StartMs, "%s starts before the previous one ends", r.key())
			require.False(t, d.trips[i-1].Open, "only the last one is open")
		}
		fixes := d.fixes[r.device]
		require.LessOrEqual(t, fixes[0].Ts.UnixMilli(), r.StartMs)
		require.GreaterOrEqual(t, fixes[len(fixes)-1].Ts.UnixMilli(), r.EndMs)
		taxis[r.device] = true
		minutes := float64(r.EndMs-r.StartMs) / 60_000
		if r.Kind == "stop" {
			stops++
			stood += minutes
			require.GreaterOrEqual(t, minutes, 3.0, r.key())
			continue
		}
		trips++
		require.GreaterOrEqual(t, r.DistanceKm, 0.2, r.key())
		require.Less(t, r.DistanceKm/minutes*60, 300.0, "%s is faster than a vehicle", r.key())
		require.LessOrEqual(t, r.IdleS/60, minutes, r.key())
		km += r.DistanceKm
		driven += minutes
		if r.DistanceKm > longest {
			longest, most = r.DistanceKm, r
		}
	}
	require.Greater(t, len(taxis), 400)
	require.Greater(t, trips, len(taxis))
	t.Logf("\n%8s %8s %8s %10s %10s %12s %12s\n%8d %8d %8d %10.0f %10.1f %12.1f %12.1f\nlongest trip: %.1f km in %s by %s",
		"taxis", "trips", "stops", "km", "km/trip", "min/trip", "min/stop",
		len(taxis), trips, stops, km, km/float64(trips), driven/float64(trips), stood/float64(stops),
		longest, time.Duration(most.EndMs-most.StartMs)*time.Millisecond, most.device)
}
