// Package rollup makes the figures of a device's hours, and its trips and stops, out of its fixes. It folds them one by
// one in event order, so that a device costs some hundred bytes whatever it has driven.
//
// # Hours
//
// A segment leads from one fix of a device to its next. Its length is the great-circle distance. It belongs to the hour
// (UTC) and the fleet of its later fix. A segment that needs more than 300 km/h is a jump: it has no length and is no
// driving; the next segment begins where it ended. A segment is driving when it is no jump, lasts at most ten minutes and
// has a mean speed of 3 km/h or more. An alert belongs to the hour in which it opened, even if that has no fix.
//
// # Trips and stops
//
// The days of a device are cut into trips and stops. Each begins where the one before ended.
//
//   - A stop is a stretch of fixes, 180 s or longer, that all lie within 200 m of the stretch's first fix. It begins at
//     that fix, also if it was known for a stop only 180 s later. What is shorter, such as a red light, is part of the
//     trip. Of stretches that overlap the earlier counts: it is left by a fix beyond 200 m, and the next one begins there.
//   - A stop ends, and a trip begins, at the last fix within the 200 m. The vehicle has left when a fix outside comes
//     180 s or more after that one, and when 200 m have been driven. If it is within the 200 m again before, it was not
//     away: that was a fix gone astray. If it comes to stand outside before it has driven 200 m, the stop goes on about
//     the new place. If silence, a jump or another fleet (see below) cuts it short, the 200 m alone decide. So no trip is
//     shorter than 200 m, and 20 m of jitter are one stop, wherever its first fix lay.
//   - After more than an hour without a fix the vehicle is found where it stood, and then it stood there all the time;
//     or it is found elsewhere, and then the trip or stop ends at the last fix before, and another begins at the first fix
//     after. Between them there is neither trip nor stop.
//   - A fix that is a jump away is doubted until the next one. If that can be reached from the last fix that was not
//     doubted, the doubted one was astray and belongs to no trip or stop. If it can only be reached from the doubted
//     one, the vehicle is there: the trip or stop ends before the jump, and another begins after it. If it is a jump from
//     both, it is doubted in the place of the other.
//   - A change of fleet ends a trip or stop in the same way.
//   - From the first fix, and wherever another begins so, it is open what it will be, until the vehicle has stood for
//     180 s or is beyond 200 m. Until then it is not shown.
//
// The distance of a trip or stop is the sum of its segments (for a stop: what the jitter adds up to). Its maximum speed
// is the greatest speed of its fixes, each counted with the segment that leads to it, or, if none of them has a speed,
// the greatest mean speed of a segment. The idle time of a trip is that of its segments slower than 3 km/h that last at
// most ten minutes. It belongs to the fleet of its first fix.
//
// # Rows
//
// A row that was given to a Sink once is never taken back: it stays, or one with the same key takes its place. So
// whoever writes rows down as they come never has to delete one, as long as fixes come in event order.
package rollup

import "github.com/fleettracing/fleet-tracing/etl/internal/telemetry"

// Hour is what one device adds to one hour of one fleet.
type Hour struct {
	FleetID string
	StartMs int64 // first instant of the hour, Unix milliseconds, UTC

	DistanceKm  float64                     // of the segments whose later fix lies in the hour
	SpeedSumKmh float64                     // of the fixes that have a speed
	SpeedCount  int64                       // how many have
	Records     int64                       // fixes
	MaxSpeedKmh telemetry.Optional[float64] // absent if no fix has a speed
	DrivingMs   int64
	Alerts      int32 // alerts opened
}

// TripKind is whether the vehicle moved or stood.
type TripKind string

// The kinds.
const (
	KindTrip TripKind = "trip" // a drive from one stop to the next
	KindStop TripKind = "stop"
)

// Trip is a drive from one stop to the next, or a stop.
type Trip struct {
	Kind    TripKind
	FleetID string
	StartMs int64 // event time of the first fix, Unix milliseconds
	EndMs   int64 // event time of the last fix; while it is open, the newest that is not doubted
	Open    bool  // it goes on

	DistanceKm  float64
	MaxSpeedKmh telemetry.Optional[float64]
	IdleMs      int64 // zero for a stop

	StartLat, StartLon float64 // degrees
	EndLat, EndLon     float64
	StartZone, EndZone string
}

// Sink takes rows as they now are. A later hour replaces an earlier one of the same fleet and StartMs, a later trip an
// earlier one of the same StartMs and Kind.
type Sink interface {
	Hour(Hour)
	Trip(Trip)
}
