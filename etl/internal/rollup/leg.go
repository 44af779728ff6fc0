package rollup

import (
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const (
	walkingKmh = 3                                          // slower is standing: GPS is never quite still
	maxLegMs   = int64(10 * time.Minute / time.Millisecond) // nobody knows what a vehicle did between fixes further apart
)

// fix is where a device was when.
type fix struct {
	TimeMs int64   `json:"t,omitzero"`
	Lat    float64 `json:"y,omitzero"`
	Lon    float64 `json:"x,omitzero"`
	Zone   string  `json:"z,omitzero"`
}

// leg is a segment, from one fix to the next.
type leg struct {
	ms      int64
	km, kmh float64
}

func (f *fix) legTo(r *telemetry.Record) leg {
	ms, km := r.TimeMs-f.TimeMs, telemetry.DistanceKm(f.Lat, f.Lon, r.Lat, r.Lon)
	return leg{ms, km, km * float64(time.Hour/time.Millisecond) / float64(ms)}
}

func (l leg) jump() bool    { return l.kmh > telemetry.MaxLegKmh }
func (l leg) driving() bool { return l.ms <= maxLegMs && l.kmh >= walkingKmh && !l.jump() }
func (l leg) idle() bool    { return l.ms <= maxLegMs && l.kmh < walkingKmh }
