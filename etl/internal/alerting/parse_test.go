package alerting

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const example = "../../../data/alert-rules.yml"

func TestTheExampleSaysWhatHoldsWithoutIt(t *testing.T) {
	text, err := os.ReadFile(example)
	require.NoError(t, err)
	r := parsed(t, string(text))
	want := DefaultRules()
	// A file says of no zones what nothing says.
	r.defaults.enter.zones, r.defaults.exit.zones, r.defaults.dwell.zones = nil, nil, nil
	assert.Equal(t, want.defaults, r.defaults)
	assert.Equal(t, want.Fingerprint(), r.Fingerprint())

	// What it shows as comments is true, too, and every key stands in it.
	whole := strings.ReplaceAll(string(text), "\n#  ", "\n  ")
	r = parsed(t, whole)
	assert.Len(t, r.fleets, 2)
	assert.Len(t, r.devices, 1)
	_, err = ParseRules("r", []byte("defaults: {x: 1, speed_limit: {x: 1}, battery_low: {x: 1}, temperature: {x: 1}, geofences: {x: 1}, geofence_enter: {x: 1}, geofence_exit: {x: 1}, geofence_dwell: {x: 1}, device_offline: {x: 1}, device_stuck: {x: 1}}"))
	require.Error(t, err)
	for line := range strings.SplitSeq(err.Error(), "\n") {
		_, keys, ok := strings.Cut(line, "there are ")
		require.True(t, ok, line)
		for key := range strings.SplitSeq(keys, ", ") {
			assert.Contains(t, whole, key+":")
		}
	}
}

// An empty file is most likely one that is being written, or lost its content. It must not replace the rules.
func TestFileWithoutRulesIsAnError(t *testing.T) {
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "null", "~", "{}", "---\n# nothing\n{}\n"} {
		_, err := ParseRules("rules.yml", []byte(text))
		assert.EqualError(t, err, `rules.yml: the file has no rules: add them, or write "defaults: {}" to use the built-in rules`, text)
	}
}

func TestEmptySectionsAreTheBuiltInRules(t *testing.T) {
	for _, text := range []string{"defaults: {}", "defaults:\nfleets:\ndevices:\n", "defaults: {speed_limit: }"} {
		r := parsed(t, text)
		assert.Equal(t, DefaultRules().defaults, r.defaults, text)
		assert.Equal(t, DefaultRules().Fingerprint(), r.Fingerprint(), text)
	}
}

func TestLayers(t *testing.T) {
	r := parsed(t, `
devices:
  truck-7:
    battery_low: {enabled: false}
    speed_limit: {hysteresis: 1}
fleets:
  acme:
    speed_limit: {limit: 80, for: 1m}
    device_offline: {after: {HIGH: 2h}}
    geofence_exit: {zones: [harbour]}
defaults:
  speed_limit: {limit: 100, hysteresis: 3, cool_down: 2m}
  geofence_exit: {zones: [depot], severity: MEDIUM}
`)
	for name, c := range map[string]struct {
		fleet, device string
		limit, hyst   float64
		forMs         int64
		battery       bool
		exit          map[string]bool
	}{
		"neither":               {"b", "x", 100, 3, 10_000, true, map[string]bool{"depot": true}},
		"its fleet":             {"acme", "x", 80, 3, 60_000, true, map[string]bool{"harbour": true}},
		"its fleet and its own": {"acme", "truck-7", 80, 1, 60_000, false, map[string]bool{"harbour": true}},
		"its own":               {"b", "truck-7", 100, 1, 10_000, false, map[string]bool{"depot": true}},
	} {
		t.Run(name, func(t *testing.T) {
			s := r.settings(c.fleet, c.device)
			assert.Equal(t, c.limit, s.speedLimitKmh)
			assert.Equal(t, c.hyst, s.speed.hysteresis)
			assert.Equal(t, c.forMs, s.speed.forMs)
			assert.Equal(t, int64(120_000), s.speed.coolDownMs)
			assert.Equal(t, c.battery, s.battery.on)
			assert.Equal(t, c.exit, s.exit.zones)
			assert.Equal(t, telemetry.Medium, s.exit.severity)
		})
	}
	assert.Same(t, r.settings("acme", "x"), r.settings("acme", "y"), "devices share what they can")
	assert.Same(t, r.settings("b", "x"), r.settings("c", "y"))
	assert.False(t, r.settings("acme", "x").offline.after[2].Valid, "levels are replaced as a whole")
	assert.Equal(t, int64(7_200_000), r.settings("acme", "x").offline.leastMs)
}

func TestFingerprint(t *testing.T) {
	one := parsed(t, "fleets: {a: {speed_limit: {limit: 80, for: 60s}}, b: {max_gap: 1m}}\ndefaults: {max_gap: 2m}").Fingerprint()
	assert.Len(t, one, 16)
	assert.Equal(t, one, parsed(t, "# the same\ndefaults:\n  max_gap: 120s\nfleets:\n  b: {max_gap: 60s}\n  a:\n    speed_limit: {for: 1m, limit: 80.0}").Fingerprint())
	met := map[string]string{one: "the first", DefaultRules().Fingerprint(): "none"}
	for _, text := range []string{
		"fleets: {a: {speed_limit: {limit: 81, for: 60s}}, b: {max_gap: 1m}}\ndefaults: {max_gap: 2m}",
		"fleets: {c: {speed_limit: {limit: 80, for: 60s}}, b: {max_gap: 1m}}\ndefaults: {max_gap: 2m}",
		"devices: {a: {speed_limit: {limit: 80, for: 60s}}, b: {max_gap: 1m}}\ndefaults: {max_gap: 2m}",
		"defaults: {max_gap: 2m}",
		"defaults: {geofence_enter: {zones: [a]}}",
		"defaults: {geofence_exit: {zones: [a]}}",
		"defaults: {temperature: {high: {LOW: 0}}}",
		"defaults: {temperature: {low: {LOW: 0}}}",
	} {
		f := parsed(t, text).Fingerprint()
		assert.NotContains(t, met, f, text)
		met[f] = text
	}
}

func TestProblemsAreNamedAllAtOnce(t *testing.T) {
	_, err := ParseRules("rules.yml", []byte(`defaults:
  speed_limit:
    limit: 900
    limmit: 80
    levels: {HIGH: 10, LOW: 20}
    for: 10
    for: 10s
  battery_low: {levels: {HIGH: 20, LOW: 5}, hysteresis: lots}
  temperature: [8]
  geofences: {margin_m: -1, fixes: 1.5}
  geofence_enter: {zones: depot, severity: high, enabled: "yes"}
  geofence_exit: {zones: [a b, [c]]}
  geofence_dwell: {zones: {"no zone": 1h, depot: soon}}
  device_offline: {after: {}}
  device_stuck: {fixes: 1, for: 800h, radius_m: .nan}
fleets:
  a fleet: {}
  cold:
    temperature: {high: {LOW: 2}, low: {LOW: 2}}
devices: {truck-7: {max_gap: }}
vehicles: {}
`))
	require.Error(t, err)
	assert.Equal(t, strings.Split(strings.TrimSpace(`
rules.yml line 3: defaults.speed_limit.limit 900: give a number from 0 to 400, km/h
rules.yml line 4: defaults.speed_limit.limmit: no such key; there are clear_for, cool_down, enabled, for, hysteresis, levels, limit
rules.yml line 5: defaults.speed_limit.levels (a mapping): make HIGH greater than MEDIUM, and that greater than LOW
rules.yml line 6: defaults.speed_limit.for 10: give a duration such as 90s, 15m or 2h, from 0s to 720h
rules.yml line 7: defaults.speed_limit.for: given twice; leave one
rules.yml line 8: defaults.battery_low.levels (a mapping): make HIGH less than MEDIUM, and that less than LOW
rules.yml line 8: defaults.battery_low.hysteresis "lots": give a number from 0 to 100, percent
rules.yml line 9: defaults.temperature (a list): give a mapping, a key and a value a line
rules.yml line 10: defaults.geofences.margin_m -1: give a number from 0 to 250, metres
rules.yml line 10: defaults.geofences.fixes 1.5: give a whole number from 1 to 100
rules.yml line 11: defaults.geofence_enter.zones "depot": give a list such as [depot, harbour], or ["*"] for every zone
rules.yml line 11: defaults.geofence_enter.severity "high": give HIGH, MEDIUM or LOW
rules.yml line 11: defaults.geofence_enter.enabled "yes": give true or false
rules.yml line 12: defaults.geofence_exit.zones "a b": no zone is called so; use 1 to 128 characters of A-Za-z0-9._:-, or "*" for every zone
rules.yml line 12: defaults.geofence_exit.zones (a list): no zone is called so; use 1 to 128 characters of A-Za-z0-9._:-, or "*" for every zone
rules.yml line 13: defaults.geofence_dwell.zones "no zone": no zone is called so; use 1 to 128 characters of A-Za-z0-9._:-, or "*" for every zone
rules.yml line 13: defaults.geofence_dwell.zones.depot "soon": give a duration such as 90s, 15m or 2h, from 1s to 720h
rules.yml line 14: defaults.device_offline.after (a mapping): give at least one of HIGH, MEDIUM and LOW; enabled: false switches the rule off
rules.yml line 15: defaults.device_stuck.fixes 1: give a whole number from 2 to 1000
rules.yml line 15: defaults.device_stuck.for "800h": give a duration such as 90s, 15m or 2h, from 1s to 720h
rules.yml line 15: defaults.device_stuck.radius_m .nan: give a number from 1 to 1000, metres
rules.yml line 17: fleets "a fleet": no fleet is called so; use 1 to 128 characters of A-Za-z0-9._:-
rules.yml line 20: devices.truck-7.max_gap "": give a duration such as 90s, 15m or 2h, from 1s to 720h
rules.yml line 21: vehicles: no such key; there are defaults, devices, fleets
rules.yml line 19: fleets.cold.temperature high from 2, low from 2: give a high limit that is above the low one
`), "\n"), strings.Split(err.Error(), "\n"))
}

func TestWhatIsNoRules(t *testing.T) {
	for text, want := range map[string]string{
		"defaults: [":                   "r.yml: not YAML: line 1: did not find expected node content",
		"defaults: {}\n---\nfleets: {}": "r.yml: more than one document: leave out all from the second --- on",
		"- defaults":                    "r.yml line 1: (a list): give a mapping, a key and a value a line",
		"80":                            "r.yml line 1: 80: give a mapping, a key and a value a line",
		"[a]: b":                        "r.yml line 1: (a list): give a name as a key",
		"fleets: {a: {<<: {}}}":         "r.yml line 1: fleets.a.<<: no such key; there are battery_low, device_offline, device_stuck, geofence_dwell, geofence_enter, geofence_exit, geofences, max_gap, speed_limit, temperature",
		"fleets: {a: {temperature: {high: {LOW: 5}}}}\ndevices: {d: {temperature: {low: {LOW: 6}}}}": "r.yml line 2: devices.d.temperature high from 5, low from 6: give a high limit that is above the low one",
		"defaults: {max_gap: " + strings.Repeat("x", 1000) + "}":                                     `r.yml line 1: defaults.max_gap "` + strings.Repeat("x", 79) + "…: give a duration such as 90s, 15m or 2h, from 1s to 720h",
	} {
		_, err := ParseRules("r.yml", []byte(text))
		assert.EqualError(t, err, want, text)
	}
	_, err := ParseRules("r.yml", []byte("defaults: {"+strings.Repeat("a: 1, ", 5)+"}"))
	assert.Len(t, strings.Split(err.Error(), "\n"), 5)
	var b strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&b, "key-%d: 1\n", i)
	}
	_, err = ParseRules("r.yml", []byte(b.String()))
	lines := strings.Split(err.Error(), "\n")
	assert.Len(t, lines, maxProblems+1)
	assert.Equal(t, "r.yml: more problems than 100", lines[maxProblems])
}

func TestAnchorsMayShareRules(t *testing.T) {
	r := parsed(t, "fleets:\n  a: &cold {temperature: {high: {LOW: 8}}}\n  b: *cold\n")
	assert.Equal(t, r.settings("a", "x"), r.settings("b", "x"))
	assert.True(t, r.settings("b", "x").temperature.on)
}

func FuzzParseRules(f *testing.F) {
	text, err := os.ReadFile(example)
	require.NoError(f, err)
	for _, seed := range []string{string(text), "defaults: {speed_limit: {limit: 80}}", "fleets: {a: &a {temperature: {high: {LOW: 8}}}, b: *a}", "a: &a [*a]", "- !!binary x", "devices: {d: {device_offline: {after: {LOW: 1s}}}}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := ParseRules("r", text)
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				require.NotEmpty(t, line)
			}
			return
		}
		again, err := ParseRules("another", text)
		require.NoError(t, err)
		require.Equal(t, r.Fingerprint(), again.Fingerprint())
		// Whatever the rules are, an engine lives with them.
		var s State
		e := New(r, circles{zone("depot", 100)})
		var steps []telemetry.AlertEvent
		for i := range 20 {
			record := at(float64(i*i*60), float64(i%5)*50, kmh(float64(i*20)), pct(int32(100-i*5)), degrees(float64(i*10-100)), within(float64(i)))
			record.DeviceID, record.FleetID = []string{"d", "truck-7"}[i/10], []string{"a", "b"}[i/5%2]
			e.Apply(&s, &record, func(x telemetry.AlertEvent) { steps = append(steps, x) })
		}
		checkLives(t, steps, &s)
	})
}
