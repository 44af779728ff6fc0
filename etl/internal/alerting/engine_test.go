package alerting

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/alerting/rules"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// every returns positions at an interval in seconds, each made from one value.
func every[T any](interval float64, set func(T) func(*telemetry.Record), values ...T) (all []telemetry.Record) {
	for i, v := range values {
		all = append(all, at(float64(i)*interval, 0, set(v)))
	}
	return all
}

// driving returns positions of a vehicle with these speeds.
func driving(interval float64, speeds ...float64) []telemetry.Record {
	return every(interval, kmh, speeds...)
}

func TestThresholds(t *testing.T) {
	const speed = "speed_limit: {limit: 80, levels: {LOW: 0, MEDIUM: 10, HIGH: 25}, hysteresis: 5, "
	for name, c := range map[string]struct {
		rules   string
		records []telemetry.Record
		want    []string
	}{
		"at the limit is allowed": {speed + "for: 0s}", driving(10, 80, 80, 80), nil},
		"no duration": {speed + "for: 0s}", driving(10, 80, 81, 75), []string{
			"+10 opened speed_limit LOW 81/80 since 10", "+20 resolved speed_limit LOW 81/80 since 10"}},
		"opens after its duration": {speed + "for: 20s}", driving(10, 81, 82, 81, 81), []string{
			"+20 opened speed_limit LOW 82/80 since 0"}},
		"a position below the limit resets the duration": {speed + "for: 20s}", driving(10, 81, 82, 80, 82, 81), nil},
		"a position without speed does not": {speed + "for: 20s}", []telemetry.Record{
			at(0, 0, kmh(85)), at(10, 0), at(20, 0), at(30, 0, kmh(84))}, []string{"+30 opened speed_limit LOW 85/80 since 0"}},
		"and does not resolve the alert": {speed + "for: 0s}", []telemetry.Record{
			at(0, 0, kmh(85)), at(10, 0)}, []string{"+0 opened speed_limit LOW 85/80 since 0"}},
		"a gap resets the duration": {"max_gap: 60s\n" + speed + "for: 20s}", []telemetry.Record{
			at(0, 0, kmh(85)), at(61, 0, kmh(85)), at(71, 0, kmh(85)), at(81, 0, kmh(85))},
			[]string{"+81 opened speed_limit LOW 85/80 since 61"}},
		"max_gap is not a gap": {"max_gap: 60s\n" + speed + "for: 20s}", []telemetry.Record{
			at(0, 0, kmh(85)), at(60, 0, kmh(85))}, []string{"+60 opened speed_limit LOW 85/80 since 0"}},
		"an open alert survives a gap": {"max_gap: 60s\n" + speed + "for: 0s}", []telemetry.Record{
			at(0, 0, kmh(85)), at(9999, 0, kmh(85))}, []string{"+0 opened speed_limit LOW 85/80 since 0"}},
		"between limit and hysteresis it stays open": {speed + "for: 0s}", driving(10, 81, 76, 81, 79, 75), []string{
			"+0 opened speed_limit LOW 81/80 since 0", "+40 resolved speed_limit LOW 81/80 since 0"}},
		"resolved after its clear duration": {speed + "for: 0s, clear_for: 20s}", driving(10, 81, 70, 70, 78, 70, 70, 70), []string{
			"+0 opened speed_limit LOW 81/80 since 0", "+60 resolved speed_limit LOW 81/80 since 0"}},
		"a gap resets the clear duration too": {"max_gap: 60s\n" + speed + "for: 0s, clear_for: 20s}", []telemetry.Record{
			at(0, 0, kmh(81)), at(10, 0, kmh(70)), at(110, 0, kmh(70)), at(120, 0, kmh(70)), at(130, 0, kmh(70))}, []string{
			"+0 opened speed_limit LOW 81/80 since 0", "+130 resolved speed_limit LOW 81/80 since 0"}},
		"opens with the highest level while pending": {speed + "for: 20s}", driving(10, 81, 106, 81), []string{
			"+20 opened speed_limit HIGH 106/105 since 0"}},
		"escalates, never de-escalates": {speed + "for: 0s}", driving(10, 81, 91, 85, 90, 120, 91, 70), []string{
			"+0 opened speed_limit LOW 81/80 since 0", "escalated speed_limit MEDIUM 91/90 since 0",
			"escalated speed_limit HIGH 120/105 since 0", "+60 resolved speed_limit HIGH 120/105 since 0"}},
		"one level is enough": {"speed_limit: {limit: 80, levels: {HIGH: 10}, for: 0s}", driving(10, 90, 91, 86, 85), []string{
			"+10 opened speed_limit HIGH 91/90 since 10", "+30 resolved speed_limit HIGH 91/90 since 10"}},
		"no cool-down": {speed + "for: 0s}", driving(10, 81, 70, 82), []string{
			"+0 opened speed_limit LOW 81/80 since 0", "+10 resolved speed_limit LOW 81/80 since 0", "+20 opened speed_limit LOW 82/80 since 20"}},
		"cool-down, during which an alert may become pending": {speed + "for: 10s, cool_down: 60s}", driving(10, 81, 81, 70, 70, 82, 82, 82, 82, 83), []string{
			"+10 opened speed_limit LOW 81/80 since 0", "+20 resolved speed_limit LOW 81/80 since 0", "+80 opened speed_limit LOW 83/80 since 40"}},
		"only geofences limit": {"speed_limit: {limit: 0, for: 0s}", driving(10, 300), nil},

		"battery": {"battery_low: {levels: {LOW: 20, MEDIUM: 10, HIGH: 5}, hysteresis: 5}", every(60, pct, 21, 20, 24, 11, 10, 4, 20, 25, 90), []string{
			"+60 opened battery_low LOW 20/20 since 60", "escalated battery_low MEDIUM 10/10 since 60",
			"escalated battery_low HIGH 4/5 since 60", "+420 resolved battery_low HIGH 4/5 since 60"}},
		"battery without hysteresis": {"battery_low: {levels: {LOW: 20}, hysteresis: 0}", every(60, pct, 20, 20, 21, 20), []string{
			"+0 opened battery_low LOW 20/20 since 0", "+120 resolved battery_low LOW 20/20 since 0", "+180 opened battery_low LOW 20/20 since 180"}},

		"too hot": {"temperature: {high: {LOW: 8, HIGH: 12}, low: {HIGH: 0}}", every(60, degrees, 7.9, 8, 7.5, 12.5, 7), []string{
			"+60 opened temperature LOW 8/8 since 60", "escalated temperature HIGH 12.5/12 since 60", "+240 resolved temperature HIGH 12.5/12 since 60"}},
		"too cold": {"temperature: {high: {LOW: 8}, low: {LOW: 2, HIGH: 0}}", every(60, degrees, 2.1, 2, -1, 2.5, 3), []string{
			"+60 opened temperature LOW 2/2 since 60", "escalated temperature HIGH -1/0 since 60", "+240 resolved temperature HIGH -1/0 since 60"}},
		"from hot to cold": {"temperature: {high: {LOW: 8}, low: {LOW: 2}}", every(60, degrees, 9, -1), []string{
			"+0 opened temperature LOW 9/8 since 0", "+60 resolved temperature LOW 9/8 since 0", "+60 opened temperature LOW -1/2 since 60"}},
		"hot and cold do not add up": {"temperature: {high: {LOW: 8}, low: {LOW: 2}, for: 60s}", every(60, degrees, 9, -1, 9, -1, -2), []string{
			"+240 opened temperature LOW -2/2 since 180"}},
	} {
		t.Run(name, func(t *testing.T) {
			var s State
			assert.Equal(t, c.want, brief(apply(New(only(t, c.rules), nil), &s, c.records...)))
		})
	}
}

func TestGeofencesLimitSpeed(t *testing.T) {
	town, school := fence("town", 5000), fence("school", 300)
	town.SpeedLimitKmh, school.SpeedLimitKmh = telemetry.Some(50.0), telemetry.Some(30.0)
	yard := fence("yard", 100) // without a limit
	e := New(only(t, "speed_limit: {limit: 100, levels: {LOW: 0, MEDIUM: 15}, for: 20s}"), circles{town, school, yard})
	for name, c := range map[string]struct {
		records  []telemetry.Record
		want     []string
		messages []string
	}{
		"outside": {[]telemetry.Record{at(0, 6000, kmh(99)), at(20, 6000, kmh(99))}, nil, nil},
		"the smallest with a limit, not the smallest": {[]telemetry.Record{at(0, 0, kmh(46)), at(20, 0, kmh(46))},
			[]string{"+20 opened speed_limit MEDIUM 46/45 since 0 in yard"}, []string{"46 km/h, limit 30 km/h, in yard"}},
		"a duration continues across geofences": {[]telemetry.Record{at(0, 1000, kmh(51)), at(10, 200, kmh(51)), at(20, 1000, kmh(51))},
			[]string{"+20 opened speed_limit MEDIUM 51/45 since 0 in town"}, []string{"51 km/h, limit 30 km/h, in town"}},
		"a higher limit resolves it": {[]telemetry.Record{at(0, 1000, kmh(60)), at(20, 1000, kmh(60)), at(45, 6000, kmh(90))},
			[]string{"+20 opened speed_limit LOW 60/50 since 0 in town", "+45 resolved speed_limit LOW 60/50 since 0 in town"},
			[]string{"60 km/h, limit 50 km/h, in town", "60 km/h, limit 50 km/h, for 45 s, in town"}},
		"the peak is the greatest excess": {
			[]telemetry.Record{at(0, 200, kmh(62)), at(20, 200, kmh(44)), at(30, 6000, kmh(120)), at(40, 6000, kmh(133))},
			[]string{"+20 opened speed_limit MEDIUM 62/45 since 0 in school"}, nil},
		"and moves with a greater one": {
			[]telemetry.Record{at(0, 200, kmh(46)), at(20, 200, kmh(46)), at(30, 6000, kmh(117)), at(40, 6000, kmh(95))},
			[]string{"+20 opened speed_limit MEDIUM 46/45 since 0 in school", "+40 resolved speed_limit MEDIUM 117/115 since 0 in school"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var s State
			events := apply(e, &s, c.records...)
			assert.Equal(t, c.want, brief(events))
			if c.messages != nil {
				assert.Equal(t, c.messages, messages(events))
			}
		})
	}
}

func TestNoiseAroundALimitIsOneAlert(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 1))
		e := New(only(t, "speed_limit: {limit: 80, levels: {LOW: 0}, hysteresis: 5, for: 3s}\nbattery_low: {levels: {LOW: 20}}\ntemperature: {high: {LOW: 8}, hysteresis: 1}"), nil)
		var s State
		var events []telemetry.AlertEvent
		for i := range 3600 {
			r := at(float64(i), 0, kmh(80+4*random.Float64()-2), pct(19+random.Int32N(4)), degrees(8+0.9*(2*random.Float64()-1)))
			events = append(events, apply(e, &s, r)...)
		}
		byType := map[telemetry.AlertType]int{}
		for _, e := range events {
			byType[e.Type]++
			assert.Equal(t, telemetry.AlertOpened, e.Transition)
		}
		assert.Equal(t, map[telemetry.AlertType]int{telemetry.SpeedLimit: 1, telemetry.BatteryLow: 1, telemetry.Temperature: 1}, byType, "seed %d", seed)
	}
}

func TestOffline(t *testing.T) {
	const minutes = 60
	rules := "device_offline: {after: {LOW: 15m, MEDIUM: 1h, HIGH: 6h}}"
	for name, c := range map[string]struct {
		rules    string
		records  []telemetry.Record
		want     []string
		messages []string
	}{
		"a millisecond less": {rules, []telemetry.Record{at(0, 0), at(15*minutes-0.001, 0)}, nil, nil},
		"exactly": {rules, []telemetry.Record{at(0, 0), at(15*minutes, 0)}, []string{
			"+900 opened device_offline LOW 900/900 since 0", "+900 resolved device_offline LOW 900/900 since 0"}, nil},
		"opens at the event time of the silence": {rules, []telemetry.Record{at(0, 0), at(20*minutes, 0)}, []string{
			"+900 opened device_offline LOW 900/900 since 0", "+1200 resolved device_offline LOW 1200/900 since 0"},
			[]string{"no data since 10:00 UTC (15 min)", "no data since 10:00 UTC (20 min)"}},
		"escalates": {rules, []telemetry.Record{at(0, 0), at(7*3600, 0)}, []string{
			"+900 opened device_offline LOW 900/900 since 0", "escalated device_offline MEDIUM 3600/3600 since 0",
			"escalated device_offline HIGH 21600/21600 since 0", "+25200 resolved device_offline HIGH 25200/21600 since 0"}, nil},
		"days": {rules, []telemetry.Record{at(0, 0), at(50*3600, 0)}, []string{
			"+900 opened device_offline LOW 900/900 since 0", "escalated device_offline MEDIUM 3600/3600 since 0",
			"escalated device_offline HIGH 21600/21600 since 0", "+180000 resolved device_offline HIGH 180000/21600 since 0"},
			[]string{"no data since 10:00 UTC (15 min)", "no data since 10:00 UTC (1 h)", "no data since 10:00 UTC (6 h)", "no data since 1 March 10:00 UTC (2 d 2 h)"}},
		"opens after the cool-down with the severity of that time": {"device_offline: {after: {LOW: 15m, MEDIUM: 1h, HIGH: 6h}, cool_down: 2h}",
			[]telemetry.Record{at(0, 0), at(15*minutes, 0), at(16*minutes, 0), at(200*minutes, 0)}, []string{
				"+900 opened device_offline LOW 900/900 since 0", "+900 resolved device_offline LOW 900/900 since 0",
				"+8100 opened device_offline MEDIUM 7140/3600 since 960", "+12000 resolved device_offline MEDIUM 11040/3600 since 960"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var s State
			events := apply(New(only(t, c.rules), nil), &s, c.records...)
			assert.Equal(t, c.want, brief(events))
			if c.messages != nil {
				assert.Equal(t, c.messages, messages(events))
			}
		})
	}
}

func TestAdvance(t *testing.T) {
	e := New(only(t, "device_offline: {after: {LOW: 15m, MEDIUM: 1h}}"), nil)
	var s State
	collect := func(seconds int64) (events []telemetry.AlertEvent) {
		e.Advance(&s, start+seconds*1000, func(x telemetry.AlertEvent) { events = append(events, x) })
		return events
	}
	assert.Empty(t, collect(1e9), "a device that was never seen is not offline")
	assert.Zero(t, s.AdvancedMs())
	apply(e, &s, at(0, 100, inFleet("acme")))
	assert.Equal(t, start, s.AdvancedMs())
	assert.Empty(t, collect(899))
	assert.Equal(t, start, s.AdvancedMs(), "time without an event does not advance the state")
	opened := collect(1800)
	assert.Equal(t, []string{"+900 opened device_offline LOW 900/900 since 0"}, brief(opened))
	assert.InDelta(t, 100/metersPerDegree, opened[0].Lon, 1e-12, "at the last position")
	assert.Equal(t, start+900_000, s.AdvancedMs())
	assert.Empty(t, collect(1800), "no event twice")
	assert.Empty(t, collect(900), "nor when time goes back")
	s = *reread(t, &s)
	assert.Equal(t, []string{"escalated device_offline MEDIUM 3600/3600 since 0"}, brief(collect(1e9)))
	assert.Equal(t, start+3_600_000, s.AdvancedMs())
	open := slices.Collect(s.Open())
	require.Len(t, open, 1)
	assert.Equal(t, "truck-7", open[0].DeviceID)
	assert.Equal(t, "acme", open[0].FleetID)
	assert.Equal(t, "no data since 10:00 UTC (1 h)", open[0].Message)
}

func TestStuck(t *testing.T) {
	rules := "device_stuck: {min_speed: 10, radius_m: 15, for: 10m, positions: 5}"
	// row returns a position per minute at 40 km/h, each so many meters east, with changes to some of them.
	row := func(changes map[int]func(*telemetry.Record), east ...float64) (all []telemetry.Record) {
		for i, m := range east {
			r := at(float64(i)*60, m, kmh(40))
			if set, ok := changes[i]; ok {
				set(&r)
			}
			all = append(all, r)
		}
		return all
	}
	without := func(r *telemetry.Record) { r.SpeedKmh.Valid = false }
	still := make([]float64, 11)
	for name, c := range map[string]struct {
		rules   string
		records []telemetry.Record
		want    []string
	}{
		"drives":                {rules, row(nil, 0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000, 1100), nil},
		"parks":                 {rules, every(60, kmh, make([]float64, 30)...), nil},
		"reports a speed":       {rules, row(nil, still...), []string{"+600 opened device_stuck LOW 600/600 since 0"}},
		"jitter does not count": {rules, row(nil, 0, 14, -14, 3, 8, -14, 14, 2, 3, 4, 5), []string{"+600 opened device_stuck LOW 600/600 since 0"}},
		"moves":                 {rules, row(nil, 0, 0, 0, 0, 0, 0, 16, 16, 16, 16, 16, 16), nil},
		"movement resolves it": {rules, row(nil, append(slices.Clone(still), 1, 16)...), []string{
			"+600 opened device_stuck LOW 600/600 since 0", "+720 resolved device_stuck LOW 660/600 since 0"}},
		"movement without a speed too": {rules, row(map[int]func(*telemetry.Record){11: without}, append(slices.Clone(still), 16)...), []string{
			"+600 opened device_stuck LOW 600/600 since 0", "+660 resolved device_stuck LOW 600/600 since 0"}},
		"standing resolves it": {rules, row(map[int]func(*telemetry.Record){11: kmh(9)}, append(slices.Clone(still), 0)...), []string{
			"+600 opened device_stuck LOW 600/600 since 0", "+660 resolved device_stuck LOW 600/600 since 0"}},
		"standing resets the duration":        {rules, row(map[int]func(*telemetry.Record){5: kmh(0)}, still...), nil},
		"a position without speed does not":   {rules, row(map[int]func(*telemetry.Record){5: without}, still...), []string{"+600 opened device_stuck LOW 600/600 since 0"}},
		"a gap resets it":                     {rules, []telemetry.Record{at(0, 0, kmh(40)), at(60, 0, kmh(40)), at(361, 0, kmh(40)), at(500, 0, kmh(40)), at(600, 0, kmh(40)), at(700, 0, kmh(40))}, nil},
		"too few positions":                   {"max_gap: 1h\n" + rules, []telemetry.Record{at(0, 0, kmh(40)), at(300, 0, kmh(40)), at(600, 0, kmh(40)), at(900, 0, kmh(40))}, nil},
		"enough positions after the duration": {"max_gap: 1h\n" + rules, every(300, kmh, 40, 40, 40, 40, 40), []string{"+1200 opened device_stuck LOW 1200/600 since 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			var s State
			assert.Equal(t, c.want, brief(apply(New(only(t, c.rules), nil), &s, c.records...)))
		})
	}
}

func TestChangeOfFleetResetsTheState(t *testing.T) {
	e := New(parsed(t, "defaults: {battery_low: {cool_down: 5h}, speed_limit: {for: 1m}}\nfleets: {b: {speed_limit: {limit: 50}}}"), circles{fence("depot", 200)})
	var s State
	events := apply(e, &s,
		at(0, 1000, pct(3), kmh(200)),
		at(60, 1000, kmh(200)),
		at(90, 0, inFleet("b"), kmh(60), pct(4)),
		at(120, 0, inFleet("b"), kmh(60)),
		at(149, 0, inFleet("b"), kmh(60)),
		at(150, 0, inFleet("b"), kmh(60)))
	assert.Equal(t, []string{
		"+0 opened battery_low HIGH 3/5 since 0",
		"+60 opened speed_limit HIGH 200/160 since 0",
		"+90 resolved speed_limit HIGH 200/160 since 0",
		"+90 resolved battery_low HIGH 3/5 since 0",
		"+90 opened battery_low HIGH 4/5 since 90 in depot", // the cool-down does not apply
		"+150 opened speed_limit LOW 60/50 since 90 in depot",
	}, brief(events), "and no entry to the depot")
	for _, x := range events {
		assert.Equal(t, map[bool]string{true: "b", false: "acme"}[x.OpenedMs >= start+90_000], x.FleetID)
		assert.Equal(t, "truck-7", x.DeviceID)
	}
	var ended []string
	for _, x := range events {
		if x.Transition == telemetry.AlertResolved {
			ended = append(ended, x.Message)
		}
		assert.Equal(t, x.Transition == telemetry.AlertResolved, strings.Contains(x.Message, "move to another fleet"), x.Message)
	}
	assert.Equal(t, []string{
		"200 km/h, limit 130 km/h, for 1 min 30 s; ended by the move to another fleet",
		"battery at 3 %, below 5 %, for 1 min 30 s; ended by the move to another fleet",
	}, ended)
}

func TestDisabledRuleResolvesItsAlerts(t *testing.T) {
	everything := New(parsed(t, `defaults: {speed_limit: {for: 0s}, temperature: {high: {LOW: 5}}, device_stuck: {for: 2s, positions: 2}, geofence_enter: {geofences: ["*"]}, geofence_exit: {geofences: ["*"]}, geofence_dwell: {geofences: {"*": 1s}}}`),
		circles{{NearbyGeofence: telemetry.NearbyGeofence{Name: "a"}, radius: 100}, {NearbyGeofence: telemetry.NearbyGeofence{Name: "b"}, east: 500, radius: 100}})
	var s State
	all := func(s, east float64) telemetry.Record { return at(s, east, kmh(150), pct(3), degrees(9)) }
	apply(everything, &s, all(0, 0), all(1, 0), all(2, 500), all(3, 500), all(4, 500), all(5, 500))
	var open []telemetry.AlertType
	for a := range s.Open() {
		open = append(open, a.Type)
	}
	expected := slices.DeleteFunc(slices.Clone(telemetry.AlertTypes), func(t telemetry.AlertType) bool { return t == telemetry.DeviceOffline })
	require.Equal(t, expected, open, "all at once, in order")

	nothing := New(only(t, "max_gap: 5m"), everything.geofences)
	events := apply(nothing, &s, all(6, 500))
	var ended []telemetry.AlertType
	for _, x := range events {
		assert.Equal(t, telemetry.AlertResolved, x.Transition)
		assert.Equal(t, start+6000, x.EndedMs)
		ended = append(ended, x.Type)
	}
	assert.ElementsMatch(t, expected, ended)
	assert.Empty(t, slices.Collect(s.Open()))
	assert.Empty(t, apply(nothing, &s, all(7, 500), all(100_000, 0)))
}

func TestNewRulesApplyToOpenAlerts(t *testing.T) {
	var s State
	lenient := New(only(t, "speed_limit: {limit: 100, levels: {LOW: 0, HIGH: 50}, for: 0s}"), nil)
	strict := New(only(t, "speed_limit: {limit: 80, levels: {LOW: 0, HIGH: 20}, for: 0s}"), nil)
	apply(lenient, &s, at(0, 0, kmh(101)))
	assert.Equal(t, []string{"escalated speed_limit HIGH 110/100 since 0"}, brief(apply(strict, &s, at(1, 0, kmh(110)))), "the new rules apply to the open alert")
	assert.Empty(t, apply(lenient, &s, at(2, 0, kmh(111))), "it never de-escalates")
	assert.Equal(t, []string{"+3 resolved speed_limit HIGH 110/100 since 0"}, brief(apply(lenient, &s, at(3, 0, kmh(90)))),
		"110 with a limit of 80 is a greater excess than 111 with a limit of 100")
}

func TestPositionThatIsNotLaterIsIgnored(t *testing.T) {
	e := New(only(t, "battery_low: {}"), nil)
	var s State
	apply(e, &s, at(10, 0, pct(50)))
	assert.Empty(t, apply(e, &s, at(10, 0, pct(1)), at(5, 0, pct(1))))
	assert.Equal(t, start+10_000, s.AdvancedMs())
}

func TestJSONOfAnEmptyState(t *testing.T) {
	assert.Equal(t, &State{}, reread(t, &State{}))
	var s State
	assert.ErrorContains(t, s.UnmarshalJSON([]byte(`{"d":"x","o":[{"t":"bored"}]}`)), `unknown alert type "bored"`)
	assert.Error(t, s.UnmarshalJSON([]byte(`[]`)))
}

func TestOneEngineServesSeveralGoroutines(t *testing.T) {
	e := New(parsed(t, "devices: {truck-7: {speed_limit: {limit: 50}}}"), circles{fence("depot", 200)})
	records := track(rand.New(rand.NewPCG(1, 1)), 300)
	var first State
	want := apply(e, &first, records...)
	require.NotEmpty(t, want)
	var done sync.WaitGroup
	for range 4 {
		done.Go(func() {
			var s State
			assert.Equal(t, want, apply(e, &s, records...))
		})
	}
	done.Wait()
}

func TestMessages(t *testing.T) {
	for name, c := range map[string]struct {
		rules   string
		records []telemetry.Record
		want    string
	}{
		"battery below":                {"battery_low: {}", every(1, pct, 4), "battery at 4 %, below 5 %"},
		"battery at":                   {"battery_low: {}", every(1, pct, 5), "battery down to 5 %"},
		"hot":                          {"temperature: {high: {LOW: 30}}", every(1, degrees, 31.52), "temperature 31.5 °C, above 30 °C"},
		"hot, just":                    {"temperature: {high: {LOW: 30}}", every(1, degrees, 30), "temperature up to 30 °C"},
		"cold":                         {"temperature: {low: {LOW: -2}}", every(1, degrees, -2.5), "temperature -2.5 °C, below -2 °C"},
		"cold, just":                   {"temperature: {low: {LOW: -2}}", every(1, degrees, -2), "temperature down to -2 °C"},
		"stuck":                        {"device_stuck: {for: 60s, positions: 2}", every(120, kmh, 20, 20), "position unchanged for 2 min while reporting 10 km/h or more"},
		"zone of the record":           {"battery_low: {}", []telemetry.Record{at(0, 0, pct(1), func(r *telemetry.Record) { r.Zone = "harbor" })}, "battery at 1 %, below 5 %, in harbor"},
		"zone of the opening position": {"battery_low: {}", []telemetry.Record{at(0, 100_000, pct(1), func(r *telemetry.Record) { r.Zone = "a" }), at(1, 0, pct(99)), at(2, 0, pct(2))}, "battery at 2 %, below 5 %"},
	} {
		t.Run(name, func(t *testing.T) {
			var s State
			events := apply(New(only(t, c.rules), nil), &s, c.records...)
			require.NotEmpty(t, events)
			assert.Equal(t, c.want, events[len(events)-1].Message)
		})
	}
}

func TestDistanceOverTheDateLine(t *testing.T) {
	assert.InDelta(t, 0.0002*metersPerDegree, 1000*telemetry.DistanceKm(0, 179.9999, 0, -179.9999), 0.01)
	assert.InDelta(t, 0.0001*metersPerDegree*math.Cos(math.Pi/3), 1000*telemetry.DistanceKm(60, 10, 60, 10.0001), 0.01)
	assert.InDelta(t, 0.0001*metersPerDegree, 1000*telemetry.DistanceKm(60, 10, 60.0001, 10), 0.01)
}

func ExampleEngine_Apply() {
	var s State
	r := at(0, 0, pct(4))
	New(rules.Default(), nil).Apply(&s, &r, func(x telemetry.AlertEvent) { fmt.Println(x.Transition, x.Severity, x.Message) })
	// Output: opened HIGH battery at 4 %, below 5 %
}
