package alerting

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Rules say what is worth an alert: for every device, for those of a fleet, for one device. They never change.
type Rules struct {
	defaults settings
	fleets   map[string]*settings // of the fleets that have rules of their own
	devices  map[string]layer
	said     []string // what the layers of fleets and devices say, a line each, in order
}

// everyZone stands for all zones in rules that name zones.
const everyZone = "*"

// levels are the limits of HIGH, MEDIUM and LOW, in the order of telemetry.Severities.
type levels [3]telemetry.Optional[float64]

func (l levels) any() bool { return l[0].Valid || l[1].Valid || l[2].Valid }

// settings are all rules as they hold for one device.
type settings struct {
	maxGapMs      int64
	speedLimitKmh float64 // 0: only zones limit
	speed         thresholdRule
	battery       thresholdRule
	temperature   thresholdRule
	marginM       float64
	fixes         int
	enter, exit   eventRule
	dwell         dwellRule
	offline       offlineRule
	stuck         stuckRule
}

type thresholdRule struct {
	enabled    bool
	high, low  levels
	hysteresis float64
	forMs      int64
	clearForMs int64
	coolDownMs int64

	on    bool    // it is enabled and has a level
	sides [2]side // above and below, made of the levels
}

// The sides of a threshold.
const (
	above = iota
	below
)

type eventRule struct {
	enabled  bool
	severity telemetry.Severity
	zones    map[string]bool // those that are told of though they do not ask for it themselves
	holdMs   int64
}

func (r *eventRule) names(zone string) bool { return r.zones[zone] || r.zones[everyZone] }

type dwellRule struct {
	enabled    bool
	severity   telemetry.Severity
	zones      map[string]int64 // milliseconds
	coolDownMs int64
}

type offlineRule struct {
	enabled    bool
	after      levels // silence in milliseconds
	coolDownMs int64
	leastMs    int64 // the shortest of the silences
}

type stuckRule struct {
	enabled     bool
	severity    telemetry.Severity
	minSpeedKmh float64
	radiusM     float64
	forMs       int64
	fixes       int
	coolDownMs  int64
}

// builtIn is what holds where no rule says otherwise. data/alert-rules.yml shows the same to people; a test compares.
func builtIn() settings {
	at := func(high, medium, low float64) levels {
		return levels{telemetry.Some(high), telemetry.Some(medium), telemetry.Some(low)}
	}
	ms := time.Duration.Milliseconds
	return settings{
		maxGapMs:      ms(5 * time.Minute),
		speedLimitKmh: 130,
		speed:         thresholdRule{enabled: true, high: at(30, 15, 0), hysteresis: 5, forMs: ms(10 * time.Second)},
		battery:       thresholdRule{enabled: true, low: at(5, 10, 20), hysteresis: 5},
		temperature:   thresholdRule{enabled: true, hysteresis: 1},
		marginM:       25,
		fixes:         2,
		enter:         eventRule{enabled: true, severity: telemetry.Low, holdMs: ms(5 * time.Minute)},
		exit:          eventRule{enabled: true, severity: telemetry.Low, holdMs: ms(5 * time.Minute)},
		dwell:         dwellRule{enabled: true, severity: telemetry.Medium},
		offline: offlineRule{enabled: true, after: levels{
			{}, telemetry.Some(float64(ms(6 * time.Hour))), telemetry.Some(float64(ms(15 * time.Minute))),
		}},
		stuck: stuckRule{
			enabled: true, severity: telemetry.Low, minSpeedKmh: 10, radiusM: 15, forMs: ms(10 * time.Minute), fixes: 5,
		},
	}
}

// DefaultRules are those that hold without a file.
func DefaultRules() *Rules {
	r := &Rules{defaults: builtIn()}
	r.defaults.complete()
	return r
}

// complete works out what follows from the settings.
func (s *settings) complete() {
	for _, t := range [...]*thresholdRule{&s.speed, &s.battery, &s.temperature} {
		t.sides[above] = newSide(t.high, 1, t == &s.speed) // to drive at the limit is allowed
		t.sides[below] = newSide(t.low, -1, false)
		t.on = t.enabled && (t.high.any() || t.low.any())
	}
	least := math.Inf(1)
	for _, l := range s.offline.after {
		if l.Valid {
			least = min(least, l.Value)
		}
	}
	s.offline.leastMs = int64(least)
}

// layer is what one place of a file says: changes to the settings of the layer below it.
type layer []func(*settings)

// over is the settings with the layer on them.
func (l layer) over(s settings) *settings {
	for _, change := range l {
		change(&s)
	}
	s.complete()
	return &s
}

// settings are those of one device in a fleet: shared by those that have no rules of their own.
func (r *Rules) settings(fleet, device string) *settings {
	s := r.fleets[fleet]
	if s == nil {
		s = &r.defaults
	}
	if l, ok := r.devices[device]; ok {
		return l.over(*s)
	}
	return s
}

// Fingerprint is a short hash of what the rules say, in whatever order and words a file says it.
func (r *Rules) Fingerprint() string {
	h := sha256.New()
	fmt.Fprintf(h, "%+v\n", r.defaults) // fmt sorts maps
	for _, line := range r.said {
		_, _ = io.WriteString(h, line+"\n") // a hash takes everything
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// sorted is the keys of a map in order.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
