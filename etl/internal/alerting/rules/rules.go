// Package rules has the rules of alerts: thresholds, durations and geofences, by default, per fleet and per device. It
// reads them from YAML.
package rules

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// EveryGeofence stands for all geofences in rules that name geofences.
const EveryGeofence = "*"

// MaxMarginM bounds the margin of geofences. With a wider one, only positions in the middle of a geofence would enter it.
const MaxMarginM = 250

// Rules are immutable and safe for concurrent use.
type Rules struct {
	defaults Settings
	fleets   map[string]*Settings // fleets with rules of their own
	devices  map[string]layer     // devices with rules of their own
	values   []string             // what fleets and devices set, one "path=value" each, sorted
}

// layer is the rules that one fleet or device sets on top of others. Its node was checked.
type layer struct {
	path string
	node *yaml.Node
}

// over returns the settings with the layer on top.
func (l layer) over(s Settings) *Settings {
	(&parser{}).settings(l.path, l.node, &s)
	s.complete()
	return &s
}

// Levels are the limits of HIGH, MEDIUM and LOW, in the order of telemetry.Severities.
type Levels [3]telemetry.Optional[float64]

func (l Levels) any() bool { return l[0].Valid || l[1].Valid || l[2].Valid }

// Settings are the rules for one device.
type Settings struct {
	MaxGapMs      int64
	SpeedLimitKmh float64 // 0: only geofences limit the speed
	Speed         Threshold
	Battery       Threshold
	Temperature   Threshold
	MarginM       float64
	Positions     int // consecutive positions that confirm an entry or exit
	Enter, Exit   Event
	Dwell         Dwell
	Offline       Offline
	Stuck         Stuck
}

// Event is the rule for entries to, or exits from, geofences.
type Event struct {
	Enabled   bool
	Severity  telemetry.Severity
	Geofences map[string]bool // that raise alerts although they do not ask for it themselves
	HoldMs    int64
}

// Includes reports whether the rule names a geofence.
func (r *Event) Includes(geofence string) bool {
	return r.Geofences[geofence] || r.Geofences[EveryGeofence]
}

// Dwell is the rule for long stays in geofences.
type Dwell struct {
	Enabled    bool
	Severity   telemetry.Severity
	LimitsMs   map[string]int64 // by geofence
	CoolDownMs int64
}

// LimitMs returns how long a device may stay in a geofence. A limit that the rules set for its name precedes its own
// limit in seconds, which precedes the limit that the rules set for every geofence.
func (r *Dwell) LimitMs(geofence string, own telemetry.Optional[int32]) (int64, bool) {
	if ms, ok := r.LimitsMs[geofence]; ok {
		return ms, true
	}
	if own.Valid {
		return int64(own.Value) * 1000, true
	}
	ms, ok := r.LimitsMs[EveryGeofence]
	return ms, ok
}

// Offline is the rule for devices that stop sending.
type Offline struct {
	Enabled    bool
	AfterMs    Levels
	CoolDownMs int64
	MinMs      int64 // the lowest of the levels
}

// Severity returns the highest level that a silence reaches, and that level in seconds.
func (r *Offline) Severity(silenceMs int64) (telemetry.Severity, float64) {
	for i, level := range r.AfterMs {
		if level.Valid && silenceMs >= int64(level.Value) {
			return telemetry.Severities[i], float64(int64(level.Value)) / 1000
		}
	}
	return "", 0
}

// Stuck is the rule for devices that report a speed but an unchanged position.
type Stuck struct {
	Enabled     bool
	Severity    telemetry.Severity
	MinSpeedKmh float64
	RadiusM     float64
	ForMs       int64
	Positions   int // at least
	CoolDownMs  int64
}

// builtIn returns the settings without a file. data/alert-rules.yml documents them, and a test compares the two.
func builtIn() Settings {
	levels := func(high, medium, low float64) Levels {
		return Levels{telemetry.Some(high), telemetry.Some(medium), telemetry.Some(low)}
	}
	ms := time.Duration.Milliseconds
	return Settings{
		MaxGapMs:      ms(5 * time.Minute),
		SpeedLimitKmh: 130,
		Speed:         Threshold{Enabled: true, High: levels(30, 15, 0), Exclusive: true, Hysteresis: 5, ForMs: ms(10 * time.Second)},
		Battery:       Threshold{Enabled: true, Low: levels(5, 10, 20), Hysteresis: 5},
		Temperature:   Threshold{Enabled: true, Hysteresis: 1},
		MarginM:       25,
		Positions:     2,
		Enter:         Event{Enabled: true, Severity: telemetry.Low, HoldMs: ms(5 * time.Minute)},
		Exit:          Event{Enabled: true, Severity: telemetry.Low, HoldMs: ms(5 * time.Minute)},
		Dwell:         Dwell{Enabled: true, Severity: telemetry.Medium},
		Offline: Offline{Enabled: true, AfterMs: Levels{
			{}, telemetry.Some(float64(ms(6 * time.Hour))), telemetry.Some(float64(ms(15 * time.Minute))),
		}},
		Stuck: Stuck{
			Enabled: true, Severity: telemetry.Low, MinSpeedKmh: 10, RadiusM: 15, ForMs: ms(10 * time.Minute), Positions: 5,
		},
	}
}

// Default returns the rules without a file.
func Default() *Rules {
	r := &Rules{defaults: builtIn()}
	r.defaults.complete()
	return r
}

// complete computes the fields that depend on others.
func (s *Settings) complete() {
	s.Offline.MinMs = int64(Side{levels: &s.Offline.AfterMs, sign: 1}.lowest())
}

// For returns the settings of a device in a fleet. Devices without rules of their own share their fleet's settings.
func (r *Rules) For(fleet, device string) *Settings {
	s := r.fleets[fleet]
	if s == nil {
		s = &r.defaults
	}
	if l, ok := r.devices[device]; ok {
		return l.over(*s)
	}
	return s
}

// Fingerprint is a short hash of the rules. It depends neither on their order in the file nor on their spelling.
func (r *Rules) Fingerprint() string {
	h := sha256.New()
	fmt.Fprintf(h, "%+v\n", r.defaults) // fmt sorts maps
	for _, line := range r.values {
		_, _ = io.WriteString(h, line+"\n") // a hash returns no error
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}
