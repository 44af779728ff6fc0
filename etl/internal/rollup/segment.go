package rollup

import (
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const (
	minDrivingKmh = 3                                          // slower counts as standing, because of GPS jitter
	maxSegmentMs  = int64(10 * time.Minute / time.Millisecond) // longer segments are neither driving nor idle
)

// position is where and when a device was.
type position struct {
	TimeMs int64   `json:"t,omitzero"`
	Lat    float64 `json:"y,omitzero"`
	Lon    float64 `json:"x,omitzero"`
	Zone   string  `json:"z,omitzero"`
}

// segment is the line between two consecutive positions.
type segment struct {
	ms      int64
	km, kmh float64
}

func (p *position) segmentTo(r *telemetry.Record) segment {
	ms, km := r.TimeMs-p.TimeMs, telemetry.DistanceKm(p.Lat, p.Lon, r.Lat, r.Lon)
	return segment{ms, km, km * float64(time.Hour/time.Millisecond) / float64(ms)}
}

func (s segment) jump() bool    { return s.kmh > telemetry.MaxSegmentKmh }
func (s segment) driving() bool { return s.ms <= maxSegmentMs && s.kmh >= minDrivingKmh && !s.jump() }
func (s segment) idle() bool    { return s.ms <= maxSegmentMs && s.kmh < minDrivingKmh }
