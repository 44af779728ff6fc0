package alerting

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const turns = "geofence_enter: {hold: 5m}\ngeofence_exit: {hold: 5m}"

// along is a fix every ten seconds, each so many metres east.
func along(east ...float64) (all []telemetry.Record) {
	for i, m := range east {
		all = append(all, at(float64(i)*10, m))
	}
	return all
}

func TestTurns(t *testing.T) {
	depot := zone("depot", 200)
	quiet := circle{Place: telemetry.Place{Zone: "depot"}, radius: 200}
	inner := zone("dock", 100)
	for name, c := range map[string]struct {
		rules string
		zones circles
		fixes []telemetry.Record
		want  []string
	}{
		"in, by the second fix":                       {turns, circles{depot}, along(500, 0, 0), []string{"+20 opened geofence_enter LOW 0/0 since 10 in depot"}},
		"out, by the second fix":                      {turns, circles{depot}, along(0, 500, 500), []string{"+20 opened geofence_exit LOW 0/0 since 10 in depot"}},
		"in by no more than the margin":               {turns, circles{depot}, along(500, 176, 176, 176), nil},
		"in by the margin":                            {turns, circles{depot}, along(500, 174, 174), []string{"+20 opened geofence_enter LOW 0/0 since 10 in depot"}},
		"out by no more than the margin":              {turns, circles{depot}, along(0, 224, 224, 224), nil},
		"out by the margin":                           {turns, circles{depot}, along(0, 226, 226), []string{"+20 opened geofence_exit LOW 0/0 since 10 in depot"}},
		"another margin":                              {turns + "\ngeofences: {margin_m: 50}", circles{depot}, along(500, 174, 174, 149, 149), []string{"+40 opened geofence_enter LOW 0/0 since 30 in depot"}},
		"no margin, one fix":                          {turns + "\ngeofences: {margin_m: 0, fixes: 1}", circles{depot}, along(201, 199, 201), []string{"+10 opened geofence_enter LOW 0/0 since 10 in depot", "+20 resolved geofence_enter LOW 0/0 since 10 in depot", "+20 opened geofence_exit LOW 0/0 since 20 in depot"}},
		"fixes that agree are counted in a row":       {turns, circles{depot}, along(500, 0, 190, 0, 500, 0, 0), []string{"+60 opened geofence_enter LOW 0/0 since 50 in depot"}},
		"three in a row":                              {turns + "\ngeofences: {fixes: 3}", circles{depot}, along(500, 0, 0, 0), []string{"+30 opened geofence_enter LOW 0/0 since 10 in depot"}},
		"first seen inside is no entry":               {turns, circles{depot}, along(0, 0, 0, 0), nil},
		"nor within the margin":                       {turns, circles{depot}, along(199, 199, 0, 0, 0), nil},
		"but an exit follows":                         {turns, circles{depot}, along(199, 500, 500), []string{"+20 opened geofence_exit LOW 0/0 since 10 in depot"}},
		"first seen outside, though near, is outside": {turns, circles{depot}, along(201, 0, 0), []string{"+20 opened geofence_enter LOW 0/0 since 10 in depot"}},
		"accuracy widens the margin": {turns, circles{depot}, []telemetry.Record{at(0, 500), at(10, 120, within(90)), at(20, 120, within(90)), at(30, 100, within(90)), at(40, 100, within(90))}, []string{
			"+40 opened geofence_enter LOW 0/0 since 30 in depot"}},
		"but never beyond half of a zone": {turns, circles{depot}, []telemetry.Record{at(0, 500), at(10, 99, within(5000)), at(20, 99, within(5000))}, []string{
			"+20 opened geofence_enter LOW 0/0 since 10 in depot"}},
		"and a large zone's margin has a bound": {turns, circles{zone("land", 9000)}, []telemetry.Record{at(0, 0), at(10, 9249, within(5000)), at(20, 9249, within(5000)), at(30, 9251, within(5000)), at(40, 9251, within(5000))}, []string{
			"+40 opened geofence_exit LOW 0/0 since 30 in land"}},
		"a small zone can be entered": {turns, circles{zone("gate", 10)}, along(500, 4, 4, 14, 14, 16, 16), []string{
			"+20 opened geofence_enter LOW 0/0 since 10 in gate", "+60 resolved geofence_enter LOW 0/0 since 10 in gate", "+60 opened geofence_exit LOW 0/0 since 50 in gate"}},
		"between two fixes nobody knows": {turns, circles{depot}, along(-500, 500, 1500), nil},
		"a gap doesn't matter":           {turns, circles{depot}, []telemetry.Record{at(0, 500), at(10, 0), at(90_000, 0)}, []string{"+90000 opened geofence_enter LOW 0/0 since 10 in depot"}},
		"held for a while": {turns, circles{depot}, []telemetry.Record{at(0, 500), at(10, 0), at(20, 0), at(319, 0), at(320, 0)}, []string{
			"+20 opened geofence_enter LOW 0/0 since 10 in depot", "+320 resolved geofence_enter LOW 0/0 since 10 in depot"}},
		"two zones at one fix are one alert, the smallest first": {turns, circles{depot, inner}, along(500, 0, 0), []string{"+20 opened geofence_enter LOW 0/0 since 10 in dock, depot"}},
		"one after the other are two": {turns, circles{depot, inner}, along(500, 150, 150, 0, 0), []string{
			"+20 opened geofence_enter LOW 0/0 since 10 in depot", "+40 resolved geofence_enter LOW 0/0 since 10 in depot", "+40 opened geofence_enter LOW 0/0 since 30 in dock"}},
		"to turn back ends it, also quietly": {turns, circles{{Place: telemetry.Place{Zone: "depot", OnEnter: true}, radius: 200}}, along(500, 0, 0, 500, 500), []string{
			"+20 opened geofence_enter LOW 0/0 since 10 in depot", "+40 resolved geofence_enter LOW 0/0 since 10 in depot"}},
		"a zone that doesn't ask": {turns, circles{quiet}, along(500, 0, 0, 500, 500), nil},
		"unless a rule names it":  {"geofence_exit: {zones: [harbour, depot], severity: HIGH}", circles{quiet}, along(500, 0, 0, 500, 500), []string{"+40 opened geofence_exit HIGH 0/0 since 30 in depot"}},
		"or every zone":           {`geofence_enter: {zones: ["*"]}`, circles{quiet}, along(500, 0, 0, 500, 500), []string{"+20 opened geofence_enter LOW 0/0 since 10 in depot", "+40 resolved geofence_enter LOW 0/0 since 10 in depot"}},
	} {
		t.Run(name, func(t *testing.T) {
			var s State
			assert.Equal(t, c.want, brief(apply(New(only(t, c.rules), c.zones), &s, c.fixes...)))
		})
	}
}

func TestDwell(t *testing.T) {
	depot, dock := zone("depot", 200), zone("dock", 100)
	depot.DwellS = telemetry.Some(int32(60))
	for name, c := range map[string]struct {
		rules string
		zones circles
		fixes []telemetry.Record
		want  []string
	}{
		"since the entry":       {"geofence_dwell: {}", circles{depot}, along(500, 0, 0, 0, 0, 0, 0, 0, 0), []string{"+70 opened geofence_dwell MEDIUM 60/60 since 10 in depot"}},
		"since the first sight": {"geofence_dwell: {}", circles{depot}, along(0, 0, 0, 0, 0, 0, 0, 0), []string{"+60 opened geofence_dwell MEDIUM 60/60 since 0 in depot"}},
		"until the exit": {"geofence_dwell: {}", circles{depot}, along(0, 0, 0, 0, 0, 0, 0, 0, 500, 500), []string{
			"+60 opened geofence_dwell MEDIUM 60/60 since 0 in depot", "+90 resolved geofence_dwell MEDIUM 70/60 since 0 in depot"}},
		"not by a fix outside":         {"geofence_dwell: {}", circles{depot}, along(0, 0, 0, 0, 0, 0, 500, 500), nil},
		"a gap doesn't matter":         {"geofence_dwell: {}", circles{depot}, []telemetry.Record{at(0, 0), at(9000, 0)}, []string{"+9000 opened geofence_dwell MEDIUM 9000/60 since 0 in depot"}},
		"a zone without a time":        {"geofence_dwell: {}", circles{dock}, along(0, 0, 0, 0, 0, 0, 0, 0, 0), nil},
		"a rule for a zone goes first": {`geofence_dwell: {zones: {depot: 30s, "*": 10s}, severity: HIGH}`, circles{depot}, along(0, 0, 0, 0), []string{"+30 opened geofence_dwell HIGH 30/30 since 0 in depot"}},
		"one for every zone last":      {`geofence_dwell: {zones: {"*": 10s}}`, circles{depot}, along(0, 0, 0, 0), nil},
		"the smallest first, and one at a time": {`geofence_dwell: {zones: {dock: 1m}}`, circles{depot, dock}, along(0, 0, 0, 0, 0, 0, 0, 0, 150, 150, 150), []string{
			"+60 opened geofence_dwell MEDIUM 60/60 since 0 in dock", "+90 resolved geofence_dwell MEDIUM 70/60 since 0 in dock", "+90 opened geofence_dwell MEDIUM 90/60 since 0 in depot"}},
		"after a cool-down": {`geofence_dwell: {zones: {dock: 1m}, cool_down: 20s}`, circles{depot, dock}, along(0, 0, 0, 0, 0, 0, 0, 0, 150, 150, 150, 150), []string{
			"+60 opened geofence_dwell MEDIUM 60/60 since 0 in dock", "+90 resolved geofence_dwell MEDIUM 70/60 since 0 in dock", "+110 opened geofence_dwell MEDIUM 110/60 since 0 in depot"}},
	} {
		t.Run(name, func(t *testing.T) {
			var s State
			assert.Equal(t, c.want, brief(apply(New(only(t, c.rules), c.zones), &s, c.fixes...)))
		})
	}
	var s State
	steps := apply(New(only(t, "geofence_dwell: {}"), circles{depot}), &s, at(0, 0), at(125, 0))
	assert.Equal(t, []string{"in depot for 2 min 5 s where 1 min are allowed"}, messages(steps))
}

// jitter is a displacement of at most so many metres.
func jitter(random *rand.Rand, m float64) (east, north float64) {
	r, a := m*math.Sqrt(random.Float64()), 2*math.Pi*random.Float64()
	return r * math.Cos(a), r * math.Sin(a)
}

// A vehicle comes, stands on the edge of a zone for an hour and goes on, each fix up to 20 m off.
func TestJitterOnAnEdgeDoesNotFlap(t *testing.T) {
	e := New(only(t, turns), circles{zone("depot", 200)})
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 20))
		from, to := -1000.0, 0.0 // comes from outside, goes to the middle
		if seed%2 == 1 {
			from, to = to, from
		}
		var s State
		var steps []telemetry.AlertEvent
		second := 0.0
		drive := func(east float64) {
			dEast, dNorth := jitter(random, 20)
			r := at(second, east+dEast)
			r.Lat = dNorth / metresPerDegree
			steps = append(steps, apply(e, &s, r)...)
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
		assert.Empty(t, steps)
		for range 3600 {
			drive(-200)
		}
		onEdge := len(steps)
		assert.LessOrEqual(t, onEdge, 0, "seed %d: %v", seed, brief(steps))
		pass(-200, to)
		want := telemetry.GeofenceEnter
		if to < from {
			want = telemetry.GeofenceExit
		}
		if assert.Len(t, steps, 1, "seed %d: %v", seed, brief(steps)) {
			assert.Equal(t, want, steps[0].Type)
		}
		back := len(steps)
		pass(to, from)
		opened := 0
		for _, x := range steps[back:] {
			if x.Transition == telemetry.AlertOpened {
				opened++
				assert.NotEqual(t, want, x.Type)
			}
		}
		assert.Equal(t, 1, opened, "seed %d: %v", seed, brief(steps))
	}
}

func TestOtherZones(t *testing.T) {
	depot, dock := zone("depot", 200), zone("dock", 100)
	rules := only(t, turns+"\ngeofence_dwell: {}")
	before := New(rules, circles{depot})
	var s State
	apply(before, &s, along(500, 0)...) // about to be inside of the depot
	both := New(rules, circles{depot, dock})
	kept := reread(t, &s)
	assert.Equal(t, []string{"+20 opened geofence_enter LOW 0/0 since 10 in depot"},
		brief(apply(both, kept, along(0, 0, 0, 0, 0)[2:]...)), "the zone that is new was not entered, the known one was")
	assert.Equal(t, []string{"+60 resolved geofence_enter LOW 0/0 since 10 in depot", "+60 opened geofence_exit LOW 0/0 since 50 in dock, depot"},
		brief(apply(both, kept, along(0, 0, 0, 0, 0, 500, 500)[5:]...)), "both are left")

	var gone State
	apply(both, &gone, along(0, 0)...)
	assert.Equal(t, []string{"+50 opened geofence_exit LOW 0/0 since 40 in dock"},
		brief(apply(New(rules, circles{dock}), &gone, along(0, 0, 110, 110, 500, 500)[2:]...)), "a zone that is no more can't be left")
}

func TestWithoutFingerprintZonesAreTheSame(t *testing.T) {
	plain := struct{ Zones }{circles{zone("depot", 200)}}
	rules := only(t, turns)
	var s State
	apply(New(rules, plain), &s, along(500)...)
	assert.Len(t, apply(New(rules, plain), &s, along(500, 0, 0)[1:]...), 1)
}
