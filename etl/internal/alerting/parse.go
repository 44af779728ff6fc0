package alerting

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// maxProblems bounds what is told of a file at once, and what a hostile one can cost.
const maxProblems = 100

// maxShown bounds, in bytes, what is shown of a value.
const maxShown = 80

// ParseRules reads rules from YAML. The sections defaults, fleets and devices lie on each other: a key that a device
// gives goes before its fleet's, that before the default, and that before what holds without a file. A list or a set of
// levels is replaced as a whole. The error names every problem with its line, its place in the file, the value and what
// to do; origin is what it calls the file.
func ParseRules(origin string, text []byte) (*Rules, error) {
	root, err := document(origin, text)
	if err != nil {
		return nil, err
	}
	if root = nonNull(root); root == nil || root.Kind == yaml.MappingNode && len(root.Content) == 0 {
		return nil, fmt.Errorf("%s: the file has no rules: add them, or write \"defaults: {}\" to use the built-in rules", origin)
	}
	p := &parser{origin: origin}
	r := &Rules{defaults: builtIn(), fleets: map[string]*settings{}, devices: map[string]layer{}}
	fleets := map[string]layer{}
	p.mapping("", root, map[string]read{
		"defaults": func(path string, n *yaml.Node) { r.defaults = *p.layer(path, n).over(r.defaults) },
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
	for _, line := range p.said {
		if !strings.HasPrefix(line, "defaults.") { // those are in the settings themselves
			r.said = append(r.said, line)
		}
	}
	slices.Sort(r.said)
	return r, nil
}

// document is the only document of a YAML text, or nil when it says nothing.
func document(origin string, text []byte) (*yaml.Node, error) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var first, second yaml.Node
	switch err := d.Decode(&first); {
	case err == io.EOF:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("%s: not YAML: %s", origin, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := d.Decode(&second); err != io.EOF {
		return nil, fmt.Errorf("%s: more than one document: leave out all from the second --- on", origin)
	}
	if len(first.Content) == 0 {
		return nil, nil
	}
	return first.Content[0], nil
}

// parser collects what is wrong with a file, and what it says.
type parser struct {
	origin   string
	problems []error
	said     []string       // path=value
	limits   map[string]int // lines of temperature limits, by the path of their layer
}

// read takes the value at a path.
type read func(path string, n *yaml.Node)

func (p *parser) problem(line int, path, value, remedy string) {
	if len(p.problems) > maxProblems {
		return
	}
	if len(p.problems) == maxProblems {
		p.problems = append(p.problems, fmt.Errorf("%s: more problems than %d", p.origin, maxProblems))
		return
	}
	if len(value) > maxShown {
		value = strings.ToValidUTF8(value[:maxShown], "") + "…"
	}
	what := strings.TrimSpace(path + " " + value)
	p.problems = append(p.problems, fmt.Errorf("%s line %d: %s: %s", p.origin, line, what, remedy))
}

// shown is a node's value as a message names it.
func shown(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "(a mapping)"
	case yaml.SequenceNode:
		return "(a list)"
	}
	if quoted := strconv.Quote(n.Value); n.Value == "" || n.Tag == "!!str" || len(quoted) > len(n.Value)+2 {
		return quoted // also what would spoil the line
	}
	return n.Value
}

// resolved is the node that an alias stands for.
func resolved(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// entries gives the keys and values of a mapping; one without a value is empty.
func (p *parser) entries(path string, n *yaml.Node, yield func(key string, at *yaml.Node, value *yaml.Node)) {
	if n = nonNull(n); n == nil {
		return
	}
	if n.Kind != yaml.MappingNode {
		p.problem(n.Line, path, shown(n), "give a mapping, a key and a value a line")
		return
	}
	met := map[string]bool{}
	for i := 0; i+1 < len(n.Content) && len(p.problems) <= maxProblems; i += 2 {
		key := resolved(n.Content[i])
		switch {
		case key.Kind != yaml.ScalarNode:
			p.problem(key.Line, path, shown(key), "give a name as a key")
		case met[key.Value]:
			p.problem(key.Line, join(path, key.Value), "", "given twice; leave one")
		default:
			met[key.Value] = true
			yield(key.Value, key, resolved(n.Content[i+1]))
		}
	}
}

// nonNull is a node, or nil when there is none or it says null.
func nonNull(n *yaml.Node) *yaml.Node {
	if n == nil {
		return nil
	}
	if n = resolved(n); n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil
	}
	return n
}

// mapping reads a mapping that has only keys of ours.
func (p *parser) mapping(path string, n *yaml.Node, keys map[string]read) {
	p.entries(path, n, func(key string, at, value *yaml.Node) {
		if take, ok := keys[key]; ok {
			take(join(path, key), value)
			return
		}
		p.problem(at.Line, join(path, key), "", "no such key; there are "+strings.Join(sorted(keys), ", "))
	})
}

// layers reads a mapping from names to layers.
func (p *parser) layers(path string, n *yaml.Node, of string, into map[string]layer) {
	p.entries(path, n, func(name string, at, value *yaml.Node) {
		if !telemetry.ValidName(name) {
			p.problem(at.Line, path, strconv.Quote(name), "no "+of+" is called so; use 1 to 128 characters of A-Za-z0-9._:-")
			return
		}
		into[name] = p.layer(join(path, name), value)
	})
}

// layer reads what one place says. Whatever the keys mean is told in data/alert-rules.yml.
func (p *parser) layer(path string, n *yaml.Node) layer {
	var l layer
	flag := func(at func(*settings) *bool) read { return into(p, &l, p.flag, at) }
	number := func(least, most float64, unit string, at func(*settings) *float64) read {
		return into(p, &l, p.number(least, most, unit), at)
	}
	count := func(least, most int, at func(*settings) *int) read { return into(p, &l, p.count(least, most), at) }
	duration := func(least time.Duration, at func(*settings) *int64) read {
		return into(p, &l, p.duration(least), at)
	}
	grave := func(at func(*settings) *telemetry.Severity) read { return into(p, &l, p.severity, at) }
	graded := func(g gradedBy, at func(*settings) *levels) read { return into(p, &l, p.levels(g), at) }
	section := func(keys map[string]read) read {
		return func(path string, n *yaml.Node) { p.mapping(path, n, keys) }
	}
	// limit marks the line for checkTemperatures.
	limit := func(take read) read {
		return func(at string, n *yaml.Node) {
			if p.limits == nil {
				p.limits = map[string]int{}
			}
			p.limits[path] = n.Line
			take(at, n)
		}
	}
	threshold := func(t func(*settings) *thresholdRule, more map[string]read) read {
		more["enabled"] = flag(func(s *settings) *bool { return &t(s).enabled })
		more["for"] = duration(0, func(s *settings) *int64 { return &t(s).forMs })
		more["clear_for"] = duration(0, func(s *settings) *int64 { return &t(s).clearForMs })
		more["cool_down"] = duration(0, func(s *settings) *int64 { return &t(s).coolDownMs })
		return section(more)
	}
	event := func(e func(*settings) *eventRule) read {
		return section(map[string]read{
			"enabled":  flag(func(s *settings) *bool { return &e(s).enabled }),
			"severity": grave(func(s *settings) *telemetry.Severity { return &e(s).severity }),
			"zones":    into(p, &l, p.zones, func(s *settings) *map[string]bool { return &e(s).zones }),
			"hold":     duration(time.Second, func(s *settings) *int64 { return &e(s).holdMs }),
		})
	}
	speed := func(s *settings) *thresholdRule { return &s.speed }
	battery := func(s *settings) *thresholdRule { return &s.battery }
	temperature := func(s *settings) *thresholdRule { return &s.temperature }
	degrees := gradedBy{least: telemetry.MinTempC, most: telemetry.MaxTempC, unit: "°C", ascending: true, none: true}

	p.mapping(path, n, map[string]read{
		"max_gap": duration(time.Second, func(s *settings) *int64 { return &s.maxGapMs }),
		"geofences": section(map[string]read{
			"margin_m": number(0, maxMarginM, "metres", func(s *settings) *float64 { return &s.marginM }),
			"fixes":    count(1, 100, func(s *settings) *int { return &s.fixes }),
		}),
		"speed_limit": threshold(speed, map[string]read{
			"limit":      number(0, telemetry.MaxSpeedKmh, "km/h", func(s *settings) *float64 { return &s.speedLimitKmh }),
			"levels":     graded(gradedBy{0, telemetry.MaxSpeedKmh, "km/h beyond the limit", true, false}, func(s *settings) *levels { return &s.speed.high }),
			"hysteresis": number(0, telemetry.MaxSpeedKmh, "km/h", func(s *settings) *float64 { return &s.speed.hysteresis }),
		}),
		"battery_low": threshold(battery, map[string]read{
			"levels":     graded(gradedBy{0, 100, "percent", false, false}, func(s *settings) *levels { return &s.battery.low }),
			"hysteresis": number(0, 100, "percent", func(s *settings) *float64 { return &s.battery.hysteresis }),
		}),
		"temperature": threshold(temperature, map[string]read{
			"high":       limit(graded(degrees, func(s *settings) *levels { return &s.temperature.high })),
			"low":        limit(graded(degrees.descending(), func(s *settings) *levels { return &s.temperature.low })),
			"hysteresis": number(0, 100, "°C", func(s *settings) *float64 { return &s.temperature.hysteresis }),
		}),
		"geofence_enter": event(func(s *settings) *eventRule { return &s.enter }),
		"geofence_exit":  event(func(s *settings) *eventRule { return &s.exit }),
		"geofence_dwell": section(map[string]read{
			"enabled":   flag(func(s *settings) *bool { return &s.dwell.enabled }),
			"severity":  grave(func(s *settings) *telemetry.Severity { return &s.dwell.severity }),
			"zones":     into(p, &l, p.stays, func(s *settings) *map[string]int64 { return &s.dwell.zones }),
			"cool_down": duration(0, func(s *settings) *int64 { return &s.dwell.coolDownMs }),
		}),
		"device_offline": section(map[string]read{
			"enabled":   flag(func(s *settings) *bool { return &s.offline.enabled }),
			"after":     into(p, &l, p.silences, func(s *settings) *levels { return &s.offline.after }),
			"cool_down": duration(0, func(s *settings) *int64 { return &s.offline.coolDownMs }),
		}),
		"device_stuck": section(map[string]read{
			"enabled":   flag(func(s *settings) *bool { return &s.stuck.enabled }),
			"severity":  grave(func(s *settings) *telemetry.Severity { return &s.stuck.severity }),
			"min_speed": number(1, telemetry.MaxSpeedKmh, "km/h", func(s *settings) *float64 { return &s.stuck.minSpeedKmh }),
			"radius_m":  number(1, 1000, "metres", func(s *settings) *float64 { return &s.stuck.radiusM }),
			"for":       duration(time.Second, func(s *settings) *int64 { return &s.stuck.forMs }),
			"fixes":     count(2, 1000, func(s *settings) *int { return &s.stuck.fixes }),
			"cool_down": duration(0, func(s *settings) *int64 { return &s.stuck.coolDownMs }),
		}),
	})
	return l
}

// into reads a value into a place of the settings.
func into[T any](p *parser, l *layer, value func(path string, n *yaml.Node) (T, bool), at func(*settings) *T) read {
	return func(path string, n *yaml.Node) {
		if v, ok := value(path, n); ok {
			*l = append(*l, func(s *settings) { *at(s) = v })
			p.said = append(p.said, fmt.Sprintf("%s=%v", path, v))
		}
	}
}

func (p *parser) flag(path string, n *yaml.Node) (bool, bool) {
	if n.Tag != "!!bool" {
		p.problem(n.Line, path, shown(n), "give true or false")
	}
	return strings.EqualFold(n.Value, "true"), n.Tag == "!!bool"
}

func (p *parser) number(least, most float64, unit string) func(string, *yaml.Node) (float64, bool) {
	return func(path string, n *yaml.Node) (float64, bool) {
		v, err := strconv.ParseFloat(n.Value, 64)
		if n.Tag != "!!int" && n.Tag != "!!float" || err != nil || !(v >= least && v <= most) {
			p.problem(n.Line, path, shown(n), fmt.Sprintf("give a number from %v to %v, %s", least, most, unit))
			return 0, false
		}
		return v + 0, true // no negative zero
	}
}

func (p *parser) count(least, most int) func(string, *yaml.Node) (int, bool) {
	return func(path string, n *yaml.Node) (int, bool) {
		v, err := strconv.Atoi(n.Value)
		if n.Tag != "!!int" || err != nil || v < least || v > most {
			p.problem(n.Line, path, shown(n), fmt.Sprintf("give a whole number from %d to %d", least, most))
			return 0, false
		}
		return v, true
	}
}

// duration reads milliseconds, at most as many as history is kept for.
func (p *parser) duration(least time.Duration) func(string, *yaml.Node) (int64, bool) {
	return func(path string, n *yaml.Node) (int64, bool) {
		d, err := time.ParseDuration(n.Value)
		if n.Kind != yaml.ScalarNode || err != nil || d < least || d > telemetry.Retention || d%time.Millisecond != 0 {
			p.problem(n.Line, path, shown(n), fmt.Sprintf("give a duration such as 90s, 15m or 2h, from %v to %vh", least, telemetry.Retention.Hours()))
			return 0, false
		}
		return d.Milliseconds(), true
	}
}

func (p *parser) severity(path string, n *yaml.Node) (telemetry.Severity, bool) {
	for _, s := range telemetry.Severities {
		if n.Value == string(s) {
			return s, true
		}
	}
	p.problem(n.Line, path, shown(n), "give HIGH, MEDIUM or LOW")
	return "", false
}

// gradedBy is what levels must be like.
type gradedBy struct {
	least, most float64
	unit        string
	ascending   bool // HIGH is the greatest
	none        bool // there may be none
}

func (g gradedBy) descending() gradedBy {
	g.ascending = false
	return g
}

func (p *parser) levels(g gradedBy) func(string, *yaml.Node) (levels, bool) {
	one := p.number(g.least, g.most, g.unit)
	return func(path string, n *yaml.Node) (levels, bool) { return p.graded(path, n, g.ascending, g.none, one) }
}

// silences reads durations as levels, in milliseconds.
func (p *parser) silences(path string, n *yaml.Node) (levels, bool) {
	one := p.duration(time.Second)
	return p.graded(path, n, true, false, func(path string, n *yaml.Node) (float64, bool) {
		v, ok := one(path, n)
		return float64(v), ok
	})
}

func (p *parser) graded(path string, n *yaml.Node, ascending, none bool, one func(string, *yaml.Node) (float64, bool)) (levels, bool) {
	var l levels
	before := len(p.problems)
	keys := map[string]read{}
	for i, s := range telemetry.Severities {
		keys[string(s)] = func(path string, n *yaml.Node) { l[i].Value, l[i].Valid = one(path, n) }
	}
	p.mapping(path, n, keys)
	if len(p.problems) > before {
		return l, false
	}
	if !none && !l.any() {
		p.problem(n.Line, path, shown(n), "give at least one of HIGH, MEDIUM and LOW; enabled: false switches the rule off")
		return l, false
	}
	order, last := "greater", math.Inf(1)
	if !ascending {
		order, last = "less", math.Inf(-1)
	}
	for _, level := range l {
		if !level.Valid {
			continue
		}
		if ascending && level.Value >= last || !ascending && level.Value <= last {
			p.problem(n.Line, path, shown(n), "make HIGH "+order+" than MEDIUM, and that "+order+" than LOW")
			return l, false
		}
		last = level.Value
	}
	return l, true
}

// zones reads a list of zones.
func (p *parser) zones(path string, n *yaml.Node) (map[string]bool, bool) {
	if n.Kind != yaml.SequenceNode {
		p.problem(n.Line, path, shown(n), `give a list such as [depot, harbour], or ["*"] for every zone`)
		return nil, false
	}
	before, zones := len(p.problems), map[string]bool{}
	for _, item := range n.Content {
		if item = resolved(item); p.zone(path, item) {
			zones[item.Value] = true
		}
	}
	return zones, len(p.problems) == before
}

// stays reads for how many milliseconds a device may stay in zones.
func (p *parser) stays(path string, n *yaml.Node) (map[string]int64, bool) {
	before, one := len(p.problems), p.duration(time.Second)
	stays := map[string]int64{}
	p.entries(path, n, func(zone string, at, value *yaml.Node) {
		if p.zone(path, at) {
			stays[zone], _ = one(join(path, zone), value)
		}
	})
	return stays, len(p.problems) == before
}

func (p *parser) zone(path string, n *yaml.Node) bool {
	ok := n.Value == everyZone || telemetry.ValidName(n.Value) // a list has no value
	if !ok {
		p.problem(n.Line, path, shown(n), `no zone is called so; use 1 to 128 characters of A-Za-z0-9._:-, or "*" for every zone`)
	}
	return ok
}

// checkTemperatures refuses limits between which no temperature is right. They may come from several layers.
func (p *parser) checkTemperatures(r *Rules) {
	check := func(path string, s *settings) {
		t := &s.temperature
		if hot, cold := t.sides[above].least, -t.sides[below].least; t.sides[above].set && t.sides[below].set && hot <= cold {
			p.problem(p.limits[path], join(path, "temperature"), fmt.Sprintf("high from %v, low from %v", hot, cold), "give a high limit that is above the low one")
		}
	}
	check("defaults", &r.defaults)
	var fleets []string
	for _, fleet := range sorted(r.fleets) {
		if path := join("fleets", fleet); p.limits[path] > 0 {
			fleets = append(fleets, fleet)
			check(path, r.fleets[fleet])
		}
	}
	for _, device := range sorted(r.devices) {
		path := join("devices", device)
		if _, ok := p.limits[path]; !ok {
			continue
		}
		check(path, r.devices[device].over(r.defaults))
		for _, fleet := range fleets {
			if len(p.problems) <= maxProblems {
				check(path, r.devices[device].over(*r.fleets[fleet]))
			}
		}
	}
}
