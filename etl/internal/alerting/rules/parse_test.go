package rules

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const example = "../../../../data/alert-rules.yml"

func TestExampleEqualsTheBuiltInRules(t *testing.T) {
	text, err := os.ReadFile(example)
	require.NoError(t, err)
	r := mustParse(t, string(text))
	want := Default()
	// Empty lists in a file equal absent ones.
	r.defaults.Enter.Geofences, r.defaults.Exit.Geofences, r.defaults.Dwell.LimitsMs = nil, nil, nil
	assert.Equal(t, want.defaults, r.defaults)
	assert.Equal(t, want.Fingerprint(), r.Fingerprint())

	// The comments in it are valid rules, and it has every key.
	whole := strings.ReplaceAll(string(text), "\n#  ", "\n  ")
	r = mustParse(t, whole)
	assert.Len(t, r.fleets, 2)
	assert.Len(t, r.devices, 1)
	_, err = Parse("r", []byte("defaults: {x: 1, speed_limit: {x: 1}, battery_low: {x: 1}, temperature: {x: 1}, geofences: {x: 1}, geofence_enter: {x: 1}, geofence_exit: {x: 1}, geofence_dwell: {x: 1}, device_offline: {x: 1}, device_stuck: {x: 1}}"))
	require.Error(t, err)
	for line := range strings.SplitSeq(err.Error(), "\n") {
		_, keys, ok := strings.Cut(line, "known keys are ")
		require.True(t, ok, line)
		for key := range strings.SplitSeq(keys, ", ") {
			assert.Contains(t, whole, key+":")
		}
	}
}

// An empty file is most likely one that is being written, or lost its content. It must not replace the rules.
func TestFileWithoutRulesIsAnError(t *testing.T) {
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "null", "~", "{}", "---\n# nothing\n{}\n"} {
		_, err := Parse("rules.yml", []byte(text))
		assert.EqualError(t, err, `rules.yml: the file has no rules: add them, or write "defaults: {}" to use the built-in rules`, text)
	}
}

func TestEmptySectionsAreTheBuiltInRules(t *testing.T) {
	for _, text := range []string{"defaults: {}", "defaults:\nfleets:\ndevices:\n", "defaults: {speed_limit: }"} {
		r := mustParse(t, text)
		assert.Equal(t, Default().defaults, r.defaults, text)
		assert.Equal(t, Default().Fingerprint(), r.Fingerprint(), text)
	}
}

func TestDevicePrecedesFleetPrecedesDefaults(t *testing.T) {
	r := mustParse(t, `
devices:
  truck-7:
    battery_low: {enabled: false}
    speed_limit: {hysteresis: 1}
fleets:
  acme:
    speed_limit: {limit: 80, for: 1m}
    device_offline: {after: {HIGH: 2h}}
    geofence_exit: {geofences: [harbor]}
defaults:
  speed_limit: {limit: 100, hysteresis: 3, cool_down: 2m}
  geofence_exit: {geofences: [depot], severity: MEDIUM}
`)
	for name, c := range map[string]struct {
		fleet, device string
		limit, hyst   float64
		forMs         int64
		battery       bool
		exit          map[string]bool
	}{
		"neither":               {"b", "x", 100, 3, 10_000, true, map[string]bool{"depot": true}},
		"its fleet":             {"acme", "x", 80, 3, 60_000, true, map[string]bool{"harbor": true}},
		"its fleet and its own": {"acme", "truck-7", 80, 1, 60_000, false, map[string]bool{"harbor": true}},
		"its own":               {"b", "truck-7", 100, 1, 10_000, false, map[string]bool{"depot": true}},
	} {
		t.Run(name, func(t *testing.T) {
			s := r.For(c.fleet, c.device)
			assert.Equal(t, c.limit, s.SpeedLimitKmh)
			assert.Equal(t, c.hyst, s.Speed.Hysteresis)
			assert.Equal(t, c.forMs, s.Speed.ForMs)
			assert.Equal(t, int64(120_000), s.Speed.CoolDownMs)
			assert.Equal(t, c.battery, s.Battery.Active())
			assert.Equal(t, c.exit, s.Exit.Geofences)
			assert.Equal(t, telemetry.Medium, s.Exit.Severity)
		})
	}
	assert.Same(t, r.For("acme", "x"), r.For("acme", "y"), "devices without rules share the settings")
	assert.Same(t, r.For("b", "x"), r.For("c", "y"))
	assert.False(t, r.For("acme", "x").Offline.AfterMs[2].Valid, "levels are replaced as a whole")
	assert.Equal(t, int64(7_200_000), r.For("acme", "x").Offline.MinMs)
}

func TestFingerprint(t *testing.T) {
	one := mustParse(t, "fleets: {a: {speed_limit: {limit: 80, for: 60s}}, b: {max_gap: 1m}}\ndefaults: {max_gap: 2m}").Fingerprint()
	assert.Len(t, one, 16)
	assert.Equal(t, one, mustParse(t, "# the same\ndefaults:\n  max_gap: 120s\nfleets:\n  b: {max_gap: 60s}\n  a:\n    speed_limit: {for: 1m, limit: 80.0}").Fingerprint())
	seen := map[string]string{one: "the first", Default().Fingerprint(): "none"}
	for _, text := range []string{
		"fleets: {a: {speed_limit: {limit: 81, for: 60s}}, b: {max_gap: 1m}}\ndefaults: {max_gap: 2m}",
		"fleets: {c: {speed_limit: {limit: 80, for: 60s}}, b: {max_gap: 1m}}\ndefaults: {max_gap: 2m}",
		"devices: {a: {speed_limit: {limit: 80, for: 60s}}, b: {max_gap: 1m}}\ndefaults: {max_gap: 2m}",
		"defaults: {max_gap: 2m}",
		"defaults: {geofence_enter: {geofences: [a]}}",
		"defaults: {geofence_exit: {geofences: [a]}}",
		"defaults: {temperature: {high: {LOW: 0}}}",
		"defaults: {temperature: {low: {LOW: 0}}}",
	} {
		f := mustParse(t, text).Fingerprint()
		assert.NotContains(t, seen, f, text)
		seen[f] = text
	}
}

func TestParseReportsAllProblems(t *testing.T) {
	_, err := Parse("rules.yml", []byte(`defaults:
  speed_limit:
    limit: 900
    limmit: 80
    levels: {HIGH: 10, LOW: 20}
    for: 10
    for: 10s
  battery_low: {levels: {HIGH: 20, LOW: 5}, hysteresis: lots}
  temperature: [8]
  geofences: {margin_m: -1, positions: 1.5}
  geofence_enter: {geofences: depot, severity: high, enabled: "yes"}
  geofence_exit: {geofences: [a b, [c]]}
  geofence_dwell: {geofences: {"no fence": 1h, depot: soon}}
  device_offline: {after: {}}
  device_stuck: {positions: 1, for: 800h, radius_m: .nan}
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
rules.yml line 4: defaults.speed_limit.limmit: unknown key; known keys are clear_for, cool_down, enabled, for, hysteresis, levels, limit
rules.yml line 5: defaults.speed_limit.levels (a mapping): make HIGH greater than MEDIUM and MEDIUM greater than LOW
rules.yml line 6: defaults.speed_limit.for 10: give a duration such as 90s, 15m or 2h, from 0s to 720h
rules.yml line 7: defaults.speed_limit.for: duplicate key; remove one of them
rules.yml line 8: defaults.battery_low.levels (a mapping): make HIGH less than MEDIUM and MEDIUM less than LOW
rules.yml line 8: defaults.battery_low.hysteresis "lots": give a number from 0 to 100, percent
rules.yml line 9: defaults.temperature (a list): give a mapping with one key and value per line
rules.yml line 10: defaults.geofences.margin_m -1: give a number from 0 to 250, meters
rules.yml line 10: defaults.geofences.positions 1.5: give a whole number from 1 to 100
rules.yml line 11: defaults.geofence_enter.geofences "depot": give a list such as [depot, harbor], or ["*"] for every geofence
rules.yml line 11: defaults.geofence_enter.severity "high": give HIGH, MEDIUM or LOW
rules.yml line 11: defaults.geofence_enter.enabled "yes": give true or false
rules.yml line 12: defaults.geofence_exit.geofences "a b": not a valid geofence name; use 1 to 128 characters of A-Za-z0-9._:-, or "*" for every geofence
rules.yml line 12: defaults.geofence_exit.geofences (a list): not a valid geofence name; use 1 to 128 characters of A-Za-z0-9._:-, or "*" for every geofence
rules.yml line 13: defaults.geofence_dwell.geofences "no fence": not a valid geofence name; use 1 to 128 characters of A-Za-z0-9._:-, or "*" for every geofence
rules.yml line 13: defaults.geofence_dwell.geofences.depot "soon": give a duration such as 90s, 15m or 2h, from 1s to 720h
rules.yml line 14: defaults.device_offline.after (a mapping): give at least one of HIGH, MEDIUM and LOW; enabled: false switches the rule off
rules.yml line 15: defaults.device_stuck.positions 1: give a whole number from 2 to 1000
rules.yml line 15: defaults.device_stuck.for "800h": give a duration such as 90s, 15m or 2h, from 1s to 720h
rules.yml line 15: defaults.device_stuck.radius_m .nan: give a number from 1 to 1000, meters
rules.yml line 17: fleets "a fleet": not a valid fleet name; use 1 to 128 characters of A-Za-z0-9._:-
rules.yml line 20: devices.truck-7.max_gap "": give a duration such as 90s, 15m or 2h, from 1s to 720h
rules.yml line 21: vehicles: unknown key; known keys are defaults, devices, fleets
rules.yml line 19: fleets.cold.temperature high from 2, low from 2: give a high limit above the low one
`), "\n"), strings.Split(err.Error(), "\n"))
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"defaults: [":                   "r.yml: not YAML: line 1: did not find expected node content",
		"defaults: {}\n---\nfleets: {}": "r.yml: more than one document: remove everything from the second --- on",
		"- defaults":                    "r.yml line 1: (a list): give a mapping with one key and value per line",
		"80":                            "r.yml line 1: 80: give a mapping with one key and value per line",
		"[a]: b":                        "r.yml line 1: (a list): give a name as a key",
		"fleets: {a: {<<: {}}}":         "r.yml line 1: fleets.a.<<: unknown key; known keys are battery_low, device_offline, device_stuck, geofence_dwell, geofence_enter, geofence_exit, geofences, max_gap, speed_limit, temperature",
		"fleets: {a: {temperature: {high: {LOW: 5}}}}\ndevices: {d: {temperature: {low: {LOW: 6}}}}": "r.yml line 2: devices.d.temperature high from 5, low from 6: give a high limit above the low one",
		"defaults: {max_gap: " + strings.Repeat("x", 1000) + "}":                                     `r.yml line 1: defaults.max_gap "` + strings.Repeat("x", 79) + "…: give a duration such as 90s, 15m or 2h, from 1s to 720h",
	} {
		_, err := Parse("r.yml", []byte(text))
		assert.EqualError(t, err, want, text)
	}
	_, err := Parse("r.yml", []byte("defaults: {"+strings.Repeat("a: 1, ", 5)+"}"))
	assert.Len(t, strings.Split(err.Error(), "\n"), 5)
	var b strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&b, "key-%d: 1\n", i)
	}
	_, err = Parse("r.yml", []byte(b.String()))
	lines := strings.Split(err.Error(), "\n")
	assert.Len(t, lines, maxProblems+1)
	assert.Equal(t, "r.yml: more than 100 problems", lines[maxProblems])
}

func TestAliasesShareRules(t *testing.T) {
	r := mustParse(t, "fleets:\n  a: &cold {temperature: {high: {LOW: 8}}}\n  b: *cold\n")
	assert.Equal(t, r.For("a", "x"), r.For("b", "x"))
	assert.True(t, r.For("b", "x").Temperature.Active())
}

func mustParse(t *testing.T, text string) *Rules {
	t.Helper()
	r, err := Parse("rules.yml", []byte(text))
	require.NoError(t, err, text)
	return r
}
