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

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start is the event time from which tests count.
var start = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC).UnixMilli()

const metresPerDegree = 111_195.08

// circle is a zone of the tests: round, at so many metres east and north of 0, 0.
type circle struct {
	telemetry.Place
	east, north, radius float64
}

// circles are zones that are looked through one by one. They have a fingerprint, as a file has.
type circles []circle

func (c circles) At(_ string, lat, lon, reachM float64, found []telemetry.Place) []telemetry.Place {
	from := len(found)
	for i := range c {
		if p := c[i].place(lat, lon); p.InsideM >= -reachM {
			found = append(found, p)
		}
	}
	slices.SortFunc(found[from:], func(a, b telemetry.Place) int {
		if a.AreaM2 != b.AreaM2 {
			return map[bool]int{true: -1, false: 1}[a.AreaM2 < b.AreaM2]
		}
		return strings.Compare(a.Zone, b.Zone)
	})
	return found
}

func (c circles) Fingerprint() string { return fmt.Sprint([]circle(c)) }

func (c circle) place(lat, lon float64) telemetry.Place {
	p := c.Place
	p.InsideM = c.radius - math.Hypot(lat*metresPerDegree-c.north, lon*metresPerDegree-c.east)
	p.AreaM2 = math.Pi * c.radius * c.radius
	return p
}

// zone is a circle around 0, 0 that tells of entry and exit.
func zone(name string, radius float64) circle {
	return circle{Place: telemetry.Place{Zone: name, OnEnter: true, OnExit: true}, radius: radius}
}

// at is a fix so many seconds after the start, so many metres east of 0, 0.
func at(s, east float64, more ...func(*telemetry.Record)) telemetry.Record {
	r := telemetry.Record{DeviceID: "truck-7", FleetID: "acme", Zone: telemetry.UnknownZone, TimeMs: start + int64(s*1000), Lon: east / metresPerDegree}
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

// only are rules in which nothing is on but what the text says. The text is the inside of defaults.
func only(t testing.TB, text string) *Rules {
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

func parsed(t testing.TB, text string) *Rules {
	t.Helper()
	r, err := ParseRules("rules.yml", []byte(text))
	require.NoError(t, err, text)
	return r
}

// apply gives the steps that fixes make of a state.
func apply(e *Engine, s *State, fixes ...telemetry.Record) (steps []telemetry.AlertEvent) {
	for i := range fixes {
		e.Apply(s, &fixes[i], func(step telemetry.AlertEvent) { steps = append(steps, step) })
	}
	return steps
}

// brief shows steps as "+40 s opened speed_limit LOW 140/130 since 30", with the time of the step.
func brief(steps []telemetry.AlertEvent) (lines []string) {
	for _, s := range steps {
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

func messages(steps []telemetry.AlertEvent) (lines []string) {
	for _, s := range steps {
		lines = append(lines, s.Message)
	}
	return lines
}

// reread is the state after a way through JSON.
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
