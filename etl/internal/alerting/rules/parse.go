package rules

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Parse reads rules from YAML. A key that a device sets precedes its fleet's, which precedes the default, which precedes
// the built-in value. A list or a set of levels is replaced as a whole. A file without rules is an error. The error
// lists every problem with its line, path, value and remedy; origin names the file in it.
func Parse(origin string, text []byte) (*Rules, error) {
	root, err := document(origin, text)
	if err != nil {
		return nil, err
	}
	if root = nonNull(root); root == nil || root.Kind == yaml.MappingNode && len(root.Content) == 0 {
		return nil, fmt.Errorf("%s: the file has no rules: add them, or write \"defaults: {}\" to use the built-in rules", origin)
	}
	p := &parser{origin: origin, temperatureLines: map[string]int{}}
	r := &Rules{defaults: builtIn(), fleets: map[string]*Settings{}, devices: map[string]layer{}}
	fleets := map[string]layer{}
	p.mapping("", root, fields{
		"defaults": func(path string, n *yaml.Node) { p.settings(path, n, &r.defaults) },
		"fleets":   func(path string, n *yaml.Node) { p.layers(path, n, "fleet", fleets) },
		"devices":  func(path string, n *yaml.Node) { p.layers(path, n, "device", r.devices) },
	})
	r.defaults.complete()
	for name, l := range fleets {
		r.fleets[name] = l.over(r.defaults)
	}
	p.checkTemperatures(r)
	if len(p.problems) > 0 {
		return nil, errors.Join(p.problems...)
	}
	for _, line := range p.values {
		if !strings.HasPrefix(line, "defaults.") { // r.defaults has those
			r.values = append(r.values, line)
		}
	}
	slices.Sort(r.values)
	return r, nil
}

// layers reads a mapping from names to layers.
func (p *parser) layers(path string, n *yaml.Node, of string, layers map[string]layer) {
	p.entries(path, n, func(name string, at, value *yaml.Node) {
		if !telemetry.ValidName(name) {
			p.problem(at.Line, path, strconv.Quote(name), "not a valid "+of+" name; use 1 to 128 characters of A-Za-z0-9._:-")
			return
		}
		l := layer{join(path, name), value}
		scratch := builtIn()
		p.settings(l.path, l.node, &scratch)
		layers[name] = l
	})
}

// settings reads one layer into s. data/alert-rules.yml documents the keys.
func (p *parser) settings(path string, n *yaml.Node, s *Settings) {
	section := func(keys fields) field {
		return func(path string, n *yaml.Node) { p.mapping(path, n, keys) }
	}
	threshold := func(t *Threshold, keys fields) field {
		keys["enabled"] = value(p, p.boolean(), &t.Enabled)
		keys["for"] = value(p, p.duration(0), &t.ForMs)
		keys["clear_for"] = value(p, p.duration(0), &t.ClearForMs)
		keys["cool_down"] = value(p, p.duration(0), &t.CoolDownMs)
		return section(keys)
	}
	event := func(e *Event) field {
		return section(fields{
			"enabled":   value(p, p.boolean(), &e.Enabled),
			"severity":  value(p, p.severity(), &e.Severity),
			"geofences": value(p, p.geofences, &e.Geofences),
			"hold":      value(p, p.duration(time.Second), &e.HoldMs),
		})
	}
	temperature := func(f field) field {
		return func(at string, n *yaml.Node) {
			if p.temperatureLines != nil {
				p.temperatureLines[path] = n.Line
			}
			f(at, n)
		}
	}
	const minC, maxC = telemetry.MinTempC, telemetry.MaxTempC
	p.mapping(path, n, fields{
		"max_gap": value(p, p.duration(time.Second), &s.MaxGapMs),
		"geofences": section(fields{
			"margin_m":  value(p, p.number(0, MaxMarginM, "meters"), &s.MarginM),
			"positions": value(p, p.count(1, 100), &s.Positions),
		}),
		"speed_limit": threshold(&s.Speed, fields{
			"limit":      value(p, p.number(0, telemetry.MaxSpeedKmh, "km/h"), &s.SpeedLimitKmh),
			"levels":     value(p, p.levels(ascending|required, p.number(0, telemetry.MaxSpeedKmh, "km/h beyond the limit")), &s.Speed.High),
			"hysteresis": value(p, p.number(0, telemetry.MaxSpeedKmh, "km/h"), &s.Speed.Hysteresis),
		}),
		"battery_low": threshold(&s.Battery, fields{
			"levels":     value(p, p.levels(required, p.number(0, 100, "percent")), &s.Battery.Low),
			"hysteresis": value(p, p.number(0, 100, "percent"), &s.Battery.Hysteresis),
		}),
		"temperature": threshold(&s.Temperature, fields{
			"high":       temperature(value(p, p.levels(ascending, p.number(minC, maxC, "°C")), &s.Temperature.High)),
			"low":        temperature(value(p, p.levels(0, p.number(minC, maxC, "°C")), &s.Temperature.Low)),
			"hysteresis": value(p, p.number(0, 100, "°C"), &s.Temperature.Hysteresis),
		}),
		"geofence_enter": event(&s.Enter),
		"geofence_exit":  event(&s.Exit),
		"geofence_dwell": section(fields{
			"enabled":   value(p, p.boolean(), &s.Dwell.Enabled),
			"severity":  value(p, p.severity(), &s.Dwell.Severity),
			"geofences": value(p, p.dwellLimits, &s.Dwell.LimitsMs),
			"cool_down": value(p, p.duration(0), &s.Dwell.CoolDownMs),
		}),
		"device_offline": section(fields{
			"enabled":   value(p, p.boolean(), &s.Offline.Enabled),
			"after":     value(p, p.levels(ascending|required, p.milliseconds), &s.Offline.AfterMs),
			"cool_down": value(p, p.duration(0), &s.Offline.CoolDownMs),
		}),
		"device_stuck": section(fields{
			"enabled":   value(p, p.boolean(), &s.Stuck.Enabled),
			"severity":  value(p, p.severity(), &s.Stuck.Severity),
			"min_speed": value(p, p.number(1, telemetry.MaxSpeedKmh, "km/h"), &s.Stuck.MinSpeedKmh),
			"radius_m":  value(p, p.number(1, 1000, "meters"), &s.Stuck.RadiusM),
			"for":       value(p, p.duration(time.Second), &s.Stuck.ForMs),
			"positions": value(p, p.count(2, 1000), &s.Stuck.Positions),
			"cool_down": value(p, p.duration(0), &s.Stuck.CoolDownMs),
		}),
	})
}

// value reads a field with read and stores it in dst. A field with a problem leaves dst as it is.
func value[T any](p *parser, read func(path string, n *yaml.Node) (T, bool), dst *T) field {
	return func(path string, n *yaml.Node) {
		if v, ok := read(path, n); ok {
			*dst = v
			p.values = append(p.values, fmt.Sprintf("%s=%v", path, v))
		}
	}
}

// scalar returns a reader of a scalar. read returns false for a wrong one.
func scalar[T any](p *parser, remedy string, read func(n *yaml.Node) (T, bool)) func(string, *yaml.Node) (T, bool) {
	return func(path string, n *yaml.Node) (v T, ok bool) {
		if v, ok = read(n); !ok {
			p.problem(n.Line, path, shown(n), remedy)
		}
		return v, ok
	}
}

func (p *parser) boolean() func(string, *yaml.Node) (bool, bool) {
	return scalar(p, "give true or false", func(n *yaml.Node) (bool, bool) {
		return strings.EqualFold(n.Value, "true"), n.Tag == "!!bool"
	})
}

type readNumber = func(path string, n *yaml.Node) (float64, bool)

func (p *parser) number(least, most float64, unit string) readNumber {
	return scalar(p, fmt.Sprintf("give a number from %v to %v, %s", least, most, unit), func(n *yaml.Node) (float64, bool) {
		v, err := strconv.ParseFloat(n.Value, 64)
		isNumber := n.Tag == "!!int" || n.Tag == "!!float"
		return v + 0, isNumber && err == nil && v >= least && v <= most // no negative zero
	})
}

func (p *parser) count(least, most int) func(string, *yaml.Node) (int, bool) {
	return scalar(p, fmt.Sprintf("give a whole number from %d to %d", least, most), func(n *yaml.Node) (int, bool) {
		v, err := strconv.Atoi(n.Value)
		return v, n.Tag == "!!int" && err == nil && v >= least && v <= most
	})
}

// duration reads a duration in milliseconds, at most the retention.
func (p *parser) duration(least time.Duration) func(string, *yaml.Node) (int64, bool) {
	remedy := fmt.Sprintf("give a duration such as 90s, 15m or 2h, from %v to %vh", least, telemetry.Retention.Hours())
	return scalar(p, remedy, func(n *yaml.Node) (int64, bool) {
		d, err := time.ParseDuration(n.Value) // the value of a list is empty
		return d.Milliseconds(), err == nil && d >= least && d <= telemetry.Retention && d%time.Millisecond == 0
	})
}

func (p *parser) milliseconds(path string, n *yaml.Node) (float64, bool) {
	ms, ok := p.duration(time.Second)(path, n)
	return float64(ms), ok
}

func (p *parser) severity() func(string, *yaml.Node) (telemetry.Severity, bool) {
	return scalar(p, "give HIGH, MEDIUM or LOW", func(n *yaml.Node) (telemetry.Severity, bool) {
		s := telemetry.Severity(n.Value)
		return s, slices.Contains(telemetry.Severities, s)
	})
}

// How levels must be ordered, and whether one is required.
const (
	ascending = 1 << iota // HIGH is the greatest; otherwise it is the least
	required
)

func (p *parser) levels(flags int, one readNumber) func(string, *yaml.Node) (Levels, bool) {
	return func(path string, n *yaml.Node) (l Levels, ok bool) {
		before := len(p.problems)
		keys := fields{}
		for i, s := range telemetry.Severities {
			keys[string(s)] = func(path string, n *yaml.Node) { l[i].Value, l[i].Valid = one(path, n) }
		}
		p.mapping(path, n, keys)
		if len(p.problems) > before {
			return l, false
		}
		if flags&required != 0 && !l.any() {
			p.problem(n.Line, path, shown(n), "give at least one of HIGH, MEDIUM and LOW; enabled: false switches the rule off")
			return l, false
		}
		order, sign := "greater", 1.0
		if flags&ascending == 0 {
			order, sign = "less", -1
		}
		last := math.Inf(1)
		for _, level := range l {
			if !level.Valid {
				continue
			}
			if sign*level.Value >= last {
				p.problem(n.Line, path, shown(n), fmt.Sprintf("make HIGH %s than MEDIUM and MEDIUM %s than LOW", order, order))
				return l, false
			}
			last = sign * level.Value
		}
		return l, true
	}
}

// geofences reads a list of geofences' names.
func (p *parser) geofences(path string, n *yaml.Node) (map[string]bool, bool) {
	if n.Kind != yaml.SequenceNode {
		p.problem(n.Line, path, shown(n), `give a list such as [depot, harbor], or ["*"] for every geofence`)
		return nil, false
	}
	before, names := len(p.problems), map[string]bool{}
	for _, item := range n.Content {
		if item = resolved(item); p.geofence(path, item) {
			names[item.Value] = true
		}
	}
	return names, len(p.problems) == before
}

// dwellLimits reads a mapping from geofences' names to durations.
func (p *parser) dwellLimits(path string, n *yaml.Node) (map[string]int64, bool) {
	before, one := len(p.problems), p.duration(time.Second)
	limits := map[string]int64{}
	p.entries(path, n, func(name string, at, value *yaml.Node) {
		if p.geofence(path, at) {
			limits[name], _ = one(join(path, name), value)
		}
	})
	return limits, len(p.problems) == before
}

func (p *parser) geofence(path string, n *yaml.Node) bool {
	ok := n.Value == EveryGeofence || telemetry.ValidName(n.Value) // the value of a list is empty
	if !ok {
		p.problem(n.Line, path, shown(n), `not a valid geofence name; use 1 to 128 characters of A-Za-z0-9._:-, or "*" for every geofence`)
	}
	return ok
}

// checkTemperatures rejects high and low limits that leave no temperature between them. The two may come from different
// layers.
func (p *parser) checkTemperatures(r *Rules) {
	check := func(path string, s *Settings) {
		t := &s.Temperature
		if high, low := t.Side(false).lowest(), -t.Side(true).lowest(); t.High.any() && t.Low.any() && high <= low {
			p.problem(p.temperatureLines[path], join(path, "temperature"), fmt.Sprintf("high from %v, low from %v", high, low), "give a high limit above the low one")
		}
	}
	check("defaults", &r.defaults)
	var fleets []string
	for _, fleet := range slices.Sorted(maps.Keys(r.fleets)) {
		if path := join("fleets", fleet); p.temperatureLines[path] > 0 {
			fleets = append(fleets, fleet)
			check(path, r.fleets[fleet])
		}
	}
	for _, device := range slices.Sorted(maps.Keys(r.devices)) {
		l := r.devices[device]
		if _, ok := p.temperatureLines[l.path]; !ok {
			continue
		}
		check(l.path, l.over(r.defaults))
		for _, fleet := range fleets {
			if len(p.problems) <= maxProblems {
				check(l.path, l.over(*r.fleets[fleet]))
			}
		}
	}
}
