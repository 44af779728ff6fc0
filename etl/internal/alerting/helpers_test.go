package alerting

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fleettracing/fleet-tracing/etl/internal/alerting/rules"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start is the event time that tests count from.
var start = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC).UnixMilli()

const metersPerDegree = 111_195.08

// circle is a round geofence, at so many meters east and north of 0, 0.
type circle struct {
	telemetry.NearbyGeofence
	east, north, radius float64
}

// circles scans geofences one by one. It has a fingerprint, as a file has.
type circles []circle

func (c circles) Near(_ string, lat, lon, reachM float64, found []telemetry.NearbyGeofence) []telemetry.NearbyGeofence {
	from := len(found)
	for i := range c {
		if p := c[i].relative(lat, lon); p.InsideM >= -reachM {
			found = append(found, p)
		}
	}
	slices.SortFunc(found[from:], func(a, b telemetry.NearbyGeofence) int {
		if a.AreaM2 != b.AreaM2 {
			return map[bool]int{true: -1, false: 1}[a.AreaM2 < b.AreaM2]
		}
		return strings.Compare(a.Name, b.Name)
	})
	return found
}

func (c circles) Fingerprint() string { return fmt.Sprint([]circle(c)) }

func (c circle) relative(lat, lon float64) telemetry.NearbyGeofence {
	p := c.NearbyGeofence
	p.InsideM = c.radius - math.Hypot(lat*metersPerDegree-c.north, lon*metersPerDegree-c.east)
	p.AreaM2 = math.Pi * c.radius * c.radius
	return p
}

// fence is a circle around 0, 0 that raises alerts of entries and exits.
func fence(name string, radius float64) circle {
	return circle{NearbyGeofence: telemetry.NearbyGeofence{Name: name, OnEnter: true, OnExit: true}, radius: radius}
}

// at is a position so many seconds after the start, so many meters east of 0, 0.
func at(s, east float64, more ...func(*telemetry.Record)) telemetry.Record {
	r := telemetry.Record{DeviceID: "truck-7", FleetID: "acme", Zone: telemetry.UnknownZone, TimeMs: start + int64(s*1000), Lon: east / metersPerDegree}
	for _, set := range more {
		set(&r)
	}
	return r
}

func kmh(v float64) func(*telemetry.Record) {
	return func(r *telemetry.Record) { r.SpeedKmh = telemetry.Some(v) }
}

func pct(v int32) func(*telemetry.Record) {
	return func(r *telemetry.Record) { r.BatteryPct = telemetry.Some(v) }
}

func degrees(v float64) func(*telemetry.Record) {
	return func(r *telemetry.Record) { r.TempC = telemetry.Some(v) }
}

func within(m float64) func(*telemetry.Record) {
	return func(r *telemetry.Record) { r.AccuracyM = telemetry.Some(m) }
}

func inFleet(f string) func(*telemetry.Record) {
	return func(r *telemetry.Record) { r.FleetID = f }
}

// only returns rules that enable only what the text sets. The text is the content of defaults.
func only(t testing.TB, text string) *rules.Rules {
	t.Helper()
	var b strings.Builder
	b.WriteString("defaults:\n")
	for _, name := range telemetry.AlertTypes {
		if !strings.Contains(text, string(name)) {
			fmt.Fprintf(&b, "  %s: {enabled: false}\n", name)
		}
	}
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		b.WriteString("  " + strings.TrimSpace(line) + "\n")
	}
	return parsed(t, b.String())
}

func parsed(t testing.TB, text string) *rules.Rules {
	t.Helper()
	r, err := rules.Parse("rules.yml", []byte(text))
	require.NoError(t, err, text)
	return r
}

// apply returns the events of positions.
func apply(e *Engine, s *State, records ...telemetry.Record) (events []telemetry.AlertEvent) {
	for i := range records {
		e.Apply(s, &records[i], func(e telemetry.AlertEvent) { events = append(events, e) })
	}
	return events
}

// brief formats events as "+40 opened speed_limit LOW 140/130 since 30", with the time of the event.
func brief(events []telemetry.AlertEvent) (lines []string) {
	for _, s := range events {
		ms := s.OpenedMs
		switch s.Transition {
		case telemetry.AlertResolved:
			ms = s.EndedMs
		case telemetry.AlertEscalated:
			ms = 0
		}
		line := fmt.Sprintf("%s %s %s %v/%v since %v", s.Transition, s.Type, s.Severity, s.Peak, s.Threshold, float64(s.StartedMs-start)/1000)
		if ms != 0 {
			line = fmt.Sprintf("+%v %s", float64(ms-start)/1000, line)
		}
		if s.Zone != "" {
			line += " in " + s.Zone
		}
		lines = append(lines, line)
	}
	return lines
}

func messages(events []telemetry.AlertEvent) (lines []string) {
	for _, s := range events {
		lines = append(lines, s.Message)
	}
	return lines
}

// reread returns the state after a round trip through JSON.
func reread(t testing.TB, s *State) *State {
	t.Helper()
	text, err := json.Marshal(s)
	require.NoError(t, err)
	var back State
	require.NoError(t, json.Unmarshal(text, &back))
	again, err := json.Marshal(&back)
	require.NoError(t, err)
	require.Equal(t, string(text), string(again))
	return &back
}
