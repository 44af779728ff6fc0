// Package rollup computes the hourly statistics of a device, and its trips and stops, from its positions. It reads them
// one by one in event order, so a device needs some hundred bytes, however far it has driven.
//
// # Hours
//
// A segment is the line from one position of a device to its next. Its length is the great-circle distance. It counts in
// the hour (UTC) of its later position. No segment leads from one fleet to another. A segment above 300 km/h is a jump: its length and driving time are
// zero, and the next segment begins at its end. Other segments are driving if they last at most ten minutes and have a mean
// speed of at least 3 km/h. An alert counts in the hour in which it opened, even if that hour has no position.
//
// # Trips and stops
//
// The time of a device is divided into trips and stops. Each begins where the one before ended.
//
//   - A stop is a run of positions, 180 s or longer, that all lie within 200 m of the run's first position. It begins at
//     that position, although it is recognized 180 s later. A shorter run, such as at a red light, is part of the trip. Of
//     overlapping runs the earlier one counts: a position beyond 200 m ends it, and the next run begins there.
//   - A stop ends, and a trip begins, at the last position within the 200 m. The vehicle has left once a position outside
//     comes 180 s or more after that one and the vehicle has driven 200 m. If it is back within the 200 m before that, the
//     positions outside were outliers. If it stops outside before it has driven 200 m, the stop continues around the new
//     position. If a gap, a jump or another fleet (see below) interrupts it, the 200 m alone decide. So no trip is shorter
//     than 200 m, and 20 m of jitter are one stop, wherever its first position lay.
//   - After more than an hour without a position, the vehicle may be where it was: then it stood there all the time. If it
//     is elsewhere, the trip or stop ends at the last position before, and another begins at the first position after.
//     Between them there is neither trip nor stop.
//   - A position after a jump is suspect until the next position. If that one is reachable from the last trusted position,
//     the suspect one was an outlier and belongs to no trip or stop. If it is reachable from the suspect one only, the
//     vehicle is there: the trip or stop ends before the jump, and another begins after it. If it is a jump from both, it
//     becomes the suspect one.
//   - A change of fleet ends a trip or stop in the same way.
//   - After the first position, and wherever another trip or stop begins like that, the kind is undecided until the vehicle
//     has stood for 180 s or is beyond 200 m. Nothing is emitted until then.
//
// The distance of a trip or stop is the sum of its segments; for a stop, that is the jitter. Its maximum speed is the
// greatest speed of its positions, each counted with the segment that leads to it. Without any speed it is the greatest mean
// speed of a segment. The idle time of a trip is that of its segments slower than 3 km/h that last at most ten minutes. A
// trip or stop belongs to the fleet of its first position.
//
// # Rows
//
// A row that a Sink received stays, or one with the same key replaces it. Rows written as they come never have to be
// deleted, as long as positions come in event order.
package rollup

import (
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Hour is the part of one device in one hour of one fleet.
type Hour struct {
	FleetID string
	StartMs int64 // first instant of the hour, Unix milliseconds, UTC

	DistanceKm  float64                     // of the segments that end in the hour
	SpeedSumKmh float64                     // of the positions with a speed
	SpeedCount  int64                       // of the positions with a speed
	Records     int64                       // positions
	MaxSpeedKmh telemetry.Optional[float64] // absent if no position has a speed
	DrivingMs   int64
	Alerts      int32 // alerts opened
}

// TripKind distinguishes trips and stops.
type TripKind string

// The kinds.
const (
	KindTrip TripKind = "trip" // from one stop to the next
	KindStop TripKind = "stop"
)

// Trip is a trip or a stop.
type Trip struct {
	Kind    TripKind
	FleetID string
	StartMs int64 // event time of the first position, Unix milliseconds
	EndMs   int64 // event time of the last position; while it is open, of the newest trusted one
	Open    bool  // it continues

	DistanceKm  float64
	MaxSpeedKmh telemetry.Optional[float64]
	IdleMs      int64 // zero for a stop

	StartLat, StartLon float64 // degrees
	EndLat, EndLon     float64
	StartZone, EndZone string
}

// Sink receives rows. A later hour replaces an earlier one of the same fleet and StartMs, and a later trip an earlier one
// of the same StartMs and Kind.
type Sink interface {
	Hour(Hour)
	Trip(Trip)
}

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

// State is all that the rows of a device's next positions depend on. The zero value is a device that was never seen. JSON
// preserves it exactly. A copy is independent of the original.
type State struct {
	Hours hours `json:"h,omitzero"`
	Trips trips `json:"t,omitzero"`
}

// Apply applies the device's next position, which must be later than all before. The sink receives the rows that became
// final: past hours, and trips and stops that ended.
func (s *State) Apply(r *telemetry.Record, sink Sink) {
	s.Hours.enter(r.FleetID, r.TimeMs, sink)
	var seg segment
	if last := s.Trips.newest(); last.TimeMs != 0 && r.FleetID == s.Trips.Fleet {
		seg = last.segmentTo(r)
		s.Hours.Now.addSegment(seg)
	}
	s.Hours.Now.addPosition(r)
	s.Trips.apply(r, seg, sink)
}

// AddAlert counts an alert in the hour of the event time at which it opened, which must not be earlier than the last
// position or alert. The sink receives the hours that became final.
func (s *State) AddAlert(fleetID string, openedMs int64, sink Sink) {
	s.Hours.enter(fleetID, openedMs, sink)
	s.Hours.Now.Alerts++
}

// Current emits the rows that are not final: the current hour, one row per fleet that the device was in, and the open trip
// or stop, unless its kind is undecided.
func (s *State) Current(sink Sink) {
	s.Hours.emit(sink)
	if t, ok := s.Trips.open(); ok {
		sink.Trip(t)
	}
}

// OpenFromMs is the event time from which trips and stops may still change: the start of the open or undecided one. Later
// positions never change rows that start earlier. It is 0 before the first position.
func (s *State) OpenFromMs() int64 { return s.Trips.Start.TimeMs }

// LastMs is the event time of the last position, 0 before the first.
func (s *State) LastMs() int64 { return s.Trips.newest().TimeMs }
