package alerting

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const enterAndExit = "geofence_enter: {hold: 5m}\ngeofence_exit: {hold: 5m}"

// along reenterAndExit a position every ten seconds, each so many meters east.
func along(east ...float64) (all []telemetry.Record) {
	for i, m := range east {
		all = append(all, at(float64(i)*10, m))
	}
	return all
}

func TestEnterAndExit(t *testing.T) {
	depot := fence("depot", 200)
	quiet := circle{NearbyGeofence: telemetry.NearbyGeofence{Name: "depot"}, radius: 200}
	inner := fence("dock", 100)
	for name, c := range map[string]struct {
		rules     string
		geofences circles
		records   []telemetry.Record
		want      []string
	}{
		"enters with the second position":       {enterAndExit, circles{depot}, along(500, 0, 0), []string{"+20 opened geofence_enter LOW 0/0 since 10 in depot"}},
		"exits with the second position":        {enterAndExit, circles{depot}, along(0, 500, 500), []string{"+20 opened geofence_exit LOW 0/0 since 10 in depot"}},
		"in by no more than the margin":         {enterAndExit, circles{depot}, along(500, 176, 176, 176), nil},
		"in by the margin":                      {enterAndExit, circles{depot}, along(500, 174, 174), []string{"+20 opened geofence_enter LOW 0/0 since 10 in depot"}},
		"out by no more than the margin":        {enterAndExit, circles{depot}, along(0, 224, 224, 224), nil},
		"out by the margin":                     {enterAndExit, circles{depot}, along(0, 226, 226), []string{"+20 opened geofence_exit LOW 0/0 since 10 in depot"}},
		"another margin":                        {enterAndExit + "\ngeofences: {margin_m: 50}", circles{depot}, along(500, 174, 174, 149, 149), []string{"+40 opened geofence_enter LOW 0/0 since 30 in depot"}},
		"no margin, one position":               {enterAndExit + "\ngeofences: {margin_m: 0, positions: 1}", circles{depot}, along(201, 199, 201), []string{"+10 opened geofence_enter LOW 0/0 since 10 in depot", "+20 resolved geofence_enter LOW 0/0 since 10 in depot", "+20 opened geofence_exit LOW 0/0 since 20 in depot"}},
		"consecutive positions only":            {enterAndExit, circles{depot}, along(500, 0, 190, 0, 500, 0, 0), []string{"+60 opened geofence_enter LOW 0/0 since 50 in depot"}},
		"three consecutive positions":           {enterAndExit + "\ngeofences: {positions: 3}", circles{depot}, along(500, 0, 0, 0), []string{"+30 opened geofence_enter LOW 0/0 since 10 in depot"}},
		"first position inside is not an entry": {enterAndExit, circles{depot}, along(0, 0, 0, 0), nil},
		"nor within the margin":                 {enterAndExit, circles{depot}, along(199, 199, 0, 0, 0), nil},
		"but an exit follows":                   {enterAndExit, circles{depot}, along(199, 500, 500), []string{"+20 opened geofence_exit LOW 0/0 since 10 in depot"}},
		"first position outside, although near": {enterAndExit, circles{depot}, along(201, 0, 0), []string{"+20 opened geofence_enter LOW 0/0 since 10 in depot"}},
		"accuracy widens the margin": {enterAndExit, circles{depot}, []telemetry.Record{at(0, 500), at(10, 120, within(90)), at(20, 120, within(90)), at(30, 100, within(90)), at(40, 100, within(90))}, []string{
			"+40 opened geofence_enter LOW 0/0 since 30 in depot"}},
		"at most half of a geofence": {enterAndExit, circles{depot}, []telemetry.Record{at(0, 500), at(10, 99, within(5000)), at(20, 99, within(5000))}, []string{
			"+20 opened geofence_enter LOW 0/0 since 10 in depot"}},
		"at most 250 m": {enterAndExit, circles{fence("land", 9000)}, []telemetry.Record{at(0, 0), at(10, 9249, within(5000)), at(20, 9249, within(5000)), at(30, 9251, within(5000)), at(40, 9251, within(5000))}, []string{
			"+40 opened geofence_exit LOW 0/0 since 30 in land"}},
		"a small geofence can be entered": {enterAndExit, circles{fence("gate", 10)}, along(500, 4, 4, 14, 14, 16, 16), []string{
			"+20 opened geofence_enter LOW 0/0 since 10 in gate", "+60 resolved geofence_enter LOW 0/0 since 10 in gate", "+60 opened geofence_exit LOW 0/0 since 50 in gate"}},
		"crossed between two positions": {enterAndExit, circles{depot}, along(-500, 500, 1500), nil},
		"a gap has no effect":           {enterAndExit, circles{depot}, []telemetry.Record{at(0, 500), at(10, 0), at(90_000, 0)}, []string{"+90000 opened geofence_enter LOW 0/0 since 10 in depot"}},
		"resolved after the hold time": {enterAndExit, circles{depot}, []telemetry.Record{at(0, 500), at(10, 0), at(20, 0), at(319, 0), at(320, 0)}, []string{
			"+20 opened geofence_enter LOW 0/0 since 10 in depot", "+320 resolved geofence_enter LOW 0/0 since 10 in depot"}},
		"two geofences with one position are one alert, the smallest first": {enterAndExit, circles{depot, inner}, along(500, 0, 0), []string{"+20 opened geofence_enter LOW 0/0 since 10 in dock, depot"}},
		"one after the other are two alerts": {enterAndExit, circles{depot, inner}, along(500, 150, 150, 0, 0), []string{
			"+20 opened geofence_enter LOW 0/0 since 10 in depot", "+40 resolved geofence_enter LOW 0/0 since 10 in depot", "+40 opened geofence_enter LOW 0/0 since 30 in dock"}},
		"turning back resolves it, also without an exit alert": {enterAndExit, circles{{NearbyGeofence: telemetry.NearbyGeofence{Name: "depot", OnEnter: true}, radius: 200}}, along(500, 0, 0, 500, 500), []string{
			"+20 opened geofence_enter LOW 0/0 since 10 in depot", "+40 resolved geofence_enter LOW 0/0 since 10 in depot"}},
		"a geofence that does not ask": {enterAndExit, circles{quiet}, along(500, 0, 0, 500, 500), nil},
		"unless a rule names it":       {"geofence_exit: {geofences: [harbor, depot], severity: HIGH}", circles{quiet}, along(500, 0, 0, 500, 500), []string{"+40 opened geofence_exit HIGH 0/0 since 30 in depot"}},
		"or every geofence":            {`geofence_enter: {geofences: ["*"]}`, circles{quiet}, along(500, 0, 0, 500, 500), []string{"+20 opened geofence_enter LOW 0/0 since 10 in depot", "+40 resolved geofence_enter LOW 0/0 since 10 in depot"}},
	} {
		t.Run(name, func(t *testing.T) {
			var s State
			assert.Equal(t, c.want, brief(apply(New(only(t, c.rules), c.geofences), &s, c.records...)))
		})
	}
}

func TestDwell(t *testing.T) {
	depot, dock := fence("depot", 200), fence("dock", 100)
	depot.DwellS = telemetry.Some(int32(60))
	for name, c := range map[string]struct {
		rules     string
		geofences circles
		records   []telemetry.Record
		want      []string
	}{
		"since the entry":          {"geofence_dwell: {}", circles{depot}, along(500, 0, 0, 0, 0, 0, 0, 0, 0), []string{"+70 opened geofence_dwell MEDIUM 60/60 since 10 in depot"}},
		"since the first position": {"geofence_dwell: {}", circles{depot}, along(0, 0, 0, 0, 0, 0, 0, 0), []string{"+60 opened geofence_dwell MEDIUM 60/60 since 0 in depot"}},
		"until the exit": {"geofence_dwell: {}", circles{depot}, along(0, 0, 0, 0, 0, 0, 0, 0, 500, 500), []string{
			"+60 opened geofence_dwell MEDIUM 60/60 since 0 in depot", "+90 resolved geofence_dwell MEDIUM 70/60 since 0 in depot"}},
		"not at a position outside":                        {"geofence_dwell: {}", circles{depot}, along(0, 0, 0, 0, 0, 0, 500, 500), nil},
		"a gap has no effect":                              {"geofence_dwell: {}", circles{depot}, []telemetry.Record{at(0, 0), at(9000, 0)}, []string{"+9000 opened geofence_dwell MEDIUM 9000/60 since 0 in depot"}},
		"a geofence without a limit":                       {"geofence_dwell: {}", circles{dock}, along(0, 0, 0, 0, 0, 0, 0, 0, 0), nil},
		"a rule for the geofence precedes its own limit":   {`geofence_dwell: {geofences: {depot: 30s, "*": 10s}, severity: HIGH}`, circles{depot}, along(0, 0, 0, 0), []string{"+30 opened geofence_dwell HIGH 30/30 since 0 in depot"}},
		"its own limit precedes a rule for every geofence": {`geofence_dwell: {geofences: {"*": 10s}}`, circles{depot}, along(0, 0, 0, 0), nil},
		"the smallest first, and one at a time": {`geofence_dwell: {geofences: {dock: 1m}}`, circles{depot, dock}, along(0, 0, 0, 0, 0, 0, 0, 0, 150, 150, 150), []string{
			"+60 opened geofence_dwell MEDIUM 60/60 since 0 in dock", "+90 resolved geofence_dwell MEDIUM 70/60 since 0 in dock", "+90 opened geofence_dwell MEDIUM 90/60 since 0 in depot"}},
		"after a cool-down": {`geofence_dwell: {geofences: {dock: 1m}, cool_down: 20s}`, circles{depot, dock}, along(0, 0, 0, 0, 0, 0, 0, 0, 150, 150, 150, 150), []string{
			"+60 opened geofence_dwell MEDIUM 60/60 since 0 in dock", "+90 resolved geofence_dwell MEDIUM 70/60 since 0 in dock", "+110 opened geofence_dwell MEDIUM 110/60 since 0 in depot"}},
	} {
		t.Run(name, func(t *testing.T) {
			var s State
			assert.Equal(t, c.want, brief(apply(New(only(t, c.rules), c.geofences), &s, c.records...)))
		})
	}
	var s State
	events := apply(New(only(t, "geofence_dwell: {}"), circles{depot}), &s, at(0, 0), at(125, 0))
	assert.Equal(t, []string{"in depot for 2 min 5 s, limit 1 min"}, messages(events))
}

// jitter returns a random displacement of at most m meters.
func jitter(random *rand.Rand, m float64) (east, north float64) {
	r, a := m*math.Sqrt(random.Float64()), 2*math.Pi*random.Float64()
	return r * math.Cos(a), r * math.Sin(a)
}

// A vehicle arrives, stands on the edge of a geofence for an hour and drives on. Each position is up to 20 m off.
func TestJitterOnAnEdgeDoesNotFlap(t *testing.T) {
	e := New(only(t, enterAndExit), circles{fence("depot", 200)})
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 20))
		from, to := -1000.0, 0.0 // from outside to the center
		if seed%2 == 1 {
			from, to = to, from
		}
		var s State
		var events []telemetry.AlertEvent
		second := 0.0
		drive := func(east float64) {
			dEast, dNorth := jitter(random, 20)
			r := at(second, east+dEast)
			r.Lat = dNorth / metersPerDegree
			events = append(events, apply(e, &s, r)...)
			second++
		}
		pass := func(from, to float64) {
			for i := range 60 {
				drive(from + (to-from)*float64(i)/60)
			}
			drive(to)
			drive(to)
		}
		pass(from, from*0.9-20) // on its side
		assert.Empty(t, events)
		for range 3600 {
			drive(-200)
		}
		onEdge := len(events)
		assert.LessOrEqual(t, onEdge, 0, "seed %d: %v", seed, brief(events))
		pass(-200, to)
		want := telemetry.GeofenceEnter
		if to < from {
			want = telemetry.GeofenceExit
		}
		if assert.Len(t, events, 1, "seed %d: %v", seed, brief(events)) {
			assert.Equal(t, want, events[0].Type)
		}
		back := len(events)
		pass(to, from)
		opened := 0
		for _, x := range events[back:] {
			if x.Transition == telemetry.AlertOpened {
				opened++
				assert.NotEqual(t, want, x.Type)
			}
		}
		assert.Equal(t, 1, opened, "seed %d: %v", seed, brief(events))
	}
}

func TestChangedGeofences(t *testing.T) {
	depot, dock := fence("depot", 200), fence("dock", 100)
	rules := only(t, enterAndExit+"\ngeofence_dwell: {}")
	before := New(rules, circles{depot})
	var s State
	apply(before, &s, along(500, 0)...) // may be entering the depot
	both := New(rules, circles{depot, dock})
	kept := reread(t, &s)
	assert.Equal(t, []string{"+20 opened geofence_enter LOW 0/0 since 10 in depot"},
		brief(apply(both, kept, along(0, 0, 0, 0, 0)[2:]...)), "the new geofence was not entered, the known one was")
	assert.Equal(t, []string{"+60 resolved geofence_enter LOW 0/0 since 10 in depot", "+60 opened geofence_exit LOW 0/0 since 50 in dock, depot"},
		brief(apply(both, kept, along(0, 0, 0, 0, 0, 500, 500)[5:]...)), "an exit from both")

	var gone State
	apply(both, &gone, along(0, 0)...)
	assert.Equal(t, []string{"+50 opened geofence_exit LOW 0/0 since 40 in dock"},
		brief(apply(New(rules, circles{dock}), &gone, along(0, 0, 110, 110, 500, 500)[2:]...)), "no exit from a geofence that no longer exists")
}

func TestGeofencesWithoutFingerprintNeverChange(t *testing.T) {
	plain := struct{ Geofences }{circles{fence("depot", 200)}}
	rules := only(t, enterAndExit)
	var s State
	apply(New(rules, plain), &s, along(500)...)
	assert.Len(t, apply(New(rules, plain), &s, along(500, 0, 0)[1:]...), 1)
}
