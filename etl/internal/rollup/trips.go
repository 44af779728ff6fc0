package rollup

import (
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const (
	radiusKm  = 0.2 // of a stop; also the minimum length of a trip
	minStopMs = int64(180 * time.Second / time.Millisecond)
	maxGapMs  = int64(time.Hour / time.Millisecond) // a trip does not continue across a longer gap
)

// kind is the kind of the open trip or stop.
type kind uint8

const (
	undecided kind = iota // not known yet, or not begun
	trip
	stop
)

// trips is the open trip or stop of a device, with the positions from Start to Last. The positions from Anchor on lie within
// the radius of Anchor, and are a stop once they last long enough.
//
// In a stop, Anchor is its center. While the vehicle may have left the stop, Leaving is set, and the positions since
// Leaving.From are treated as a trip.
type trips struct {
	Kind  kind   `json:"k,omitzero"`
	Fleet string `json:"f,omitzero"`

	Start  position `json:"s,omitzero"`
	Anchor position `json:"a,omitzero"`
	Last   position `json:"l,omitzero"`

	Before sums `json:"b,omitzero"` // from Start, or Leaving.From, to Anchor
	Since  sums `json:"c,omitzero"` // from Anchor to Last

	// Copies share these values, so they are never changed in place.
	Leaving *leaving  `json:"v,omitempty"`
	Suspect *position `json:"d,omitempty"` // the position after Last, a jump away from it
}

// leaving is a stop that the vehicle may have left.
type leaving struct {
	From  position `json:"f"` // last position within the radius
	Lat   float64  `json:"y"` // center of the stop
	Lon   float64  `json:"x"`
	Stood sums     `json:"s"` // from Start to From
}

// newest is the device's last position, including a suspect one.
func (t *trips) newest() *position {
	if t.Suspect != nil {
		return t.Suspect
	}
	return &t.Last
}

// position returns the position of a record. It reuses the zone string of the last position, because a record's strings may
// be parts of a whole line of input.
func (t *trips) position(r *telemetry.Record) position {
	zone := r.Zone
	if zone == t.Last.Zone {
		zone = t.Last.Zone
	}
	return position{r.TimeMs, r.Lat, r.Lon, zone}
}

// apply applies the next position, and the segment to it from the newest one.
func (t *trips) apply(r *telemetry.Record, seg segment, sink Sink) {
	switch {
	case t.Last.TimeMs == 0:
		t.begin(t.position(r), r.FleetID)
	case r.FleetID != t.Fleet:
		t.end(sink)
		t.begin(t.position(r), r.FleetID)
	case t.Suspect == nil:
		if seg.jump() {
			p := t.position(r)
			t.Suspect = &p
			return
		}
		t.extend(r, seg, sink)
	default:
		if direct := t.Last.segmentTo(r); !direct.jump() {
			t.Suspect = nil
			t.extend(r, direct, sink)
			return
		}
		if seg.jump() {
			p := t.position(r)
			t.Suspect = &p
			return
		}
		t.end(sink)
		t.begin(*t.Suspect, t.Fleet)
		t.extend(r, seg, sink)
	}
}

// extend applies the next trusted position.
func (t *trips) extend(r *telemetry.Record, seg segment, sink Sink) {
	near := within(t.Anchor.Lat, t.Anchor.Lon, r)
	back := t.Leaving != nil && within(t.Leaving.Lat, t.Leaving.Lon, r)
	if seg.ms > maxGapMs && !near && !back {
		t.end(sink)
		t.begin(t.position(r), t.Fleet)
		return
	}
	last := t.Last
	t.Last = t.position(r)
	switch {
	case back: // it did not leave
		t.Anchor.Lat, t.Anchor.Lon = t.Leaving.Lat, t.Leaving.Lon
		t.Before.join(t.Since)
		t.Before.add(seg, r)
		t.Since = t.Leaving.Stood.with(t.Before)
		t.Before, t.Leaving = sums{}, nil
	case near:
		t.Since.add(seg, r)
		if r.TimeMs-t.Anchor.TimeMs >= minStopMs && (t.Kind != stop || t.Leaving != nil) {
			t.beginStop(sink)
		}
	default:
		if t.Kind == stop && t.Leaving == nil {
			t.Leaving = &leaving{From: last, Lat: t.Anchor.Lat, Lon: t.Anchor.Lon, Stood: t.Before.with(t.Since)}
			t.Before, t.Since = sums{}, sums{}
		}
		if t.Kind == undecided {
			t.Kind = trip
		}
		t.Before.join(t.Since)
		t.Before.add(seg, r)
		t.Anchor, t.Since = t.Last, sums{}
	}
	if t.Leaving != nil && t.hasLeft() && r.TimeMs-t.Leaving.From.TimeMs >= minStopMs {
		t.leave(sink)
	}
}

// beginStop makes the positions from Anchor on a stop, or a continuation of the stop that the vehicle seemed to leave.
func (t *trips) beginStop(sink Sink) {
	if t.Leaving != nil && !t.hasLeft() {
		t.Before = t.Leaving.Stood.with(t.Before)
		t.Leaving = nil
		return
	}
	if t.Leaving != nil {
		t.leave(sink)
	}
	if t.Kind == trip {
		sink.Trip(t.row(trip, &t.Start, &t.Anchor, t.Before))
	}
	t.Kind, t.Start, t.Before = stop, t.Anchor, sums{}
}

// leave ends the stop and makes the positions since then a trip.
func (t *trips) leave(sink Sink) {
	sink.Trip(t.row(stop, &t.Start, &t.Leaving.From, t.Leaving.Stood))
	t.Kind, t.Start, t.Leaving = trip, t.Leaving.From, nil
}

// hasLeft reports whether a vehicle that may have left its stop has driven far enough for a trip.
func (t *trips) hasLeft() bool { return t.Before.Km >= radiusKm }

// end emits the open trip or stop with its end at Last.
func (t *trips) end(sink Sink) {
	if t.Leaving != nil && t.hasLeft() {
		t.leave(sink)
	}
	if row, ok := t.open(); ok {
		row.Open = false
		sink.Trip(row)
	}
}

// begin resets the state to a first position.
func (t *trips) begin(p position, fleetID string) {
	*t = trips{Fleet: fleetID, Start: p, Anchor: p, Last: p}
}

// open returns the open trip or stop, unless its kind is undecided.
func (t *trips) open() (row Trip, ok bool) {
	if t.Kind == undecided {
		return Trip{}, false
	}
	all := t.Before.with(t.Since)
	if t.Leaving != nil {
		all = t.Leaving.Stood.with(all)
	}
	row = t.row(t.Kind, &t.Start, &t.Last, all)
	row.Open = true
	return row, true
}

func (t *trips) row(k kind, from, to *position, s sums) Trip {
	row := Trip{
		Kind: KindTrip, FleetID: t.Fleet, StartMs: from.TimeMs, EndMs: to.TimeMs,
		DistanceKm: s.Km, MaxSpeedKmh: s.Speed, IdleMs: s.IdleMs,
		StartLat: from.Lat, StartLon: from.Lon, EndLat: to.Lat, EndLon: to.Lon, StartZone: from.Zone, EndZone: to.Zone,
	}
	if k == stop {
		row.Kind, row.IdleMs = KindStop, 0
	}
	if !s.Speed.Valid {
		row.MaxSpeedKmh = telemetry.Some(s.SegmentKmh)
	}
	return row
}

func within(lat, lon float64, r *telemetry.Record) bool {
	return telemetry.DistanceKm(lat, lon, r.Lat, r.Lon) <= radiusKm
}

// sums aggregates segments and the positions at their ends.
type sums struct {
	Km         float64                     `json:"k,omitzero"`
	IdleMs     int64                       `json:"i,omitzero"`
	SegmentKmh float64                     `json:"g,omitzero"` // greatest mean speed of a segment
	Speed      telemetry.Optional[float64] `json:"v,omitzero"` // greatest speed of a position, if any has one
}

func (s *sums) add(seg segment, r *telemetry.Record) {
	s.Km += seg.km
	s.SegmentKmh = max(s.SegmentKmh, seg.kmh)
	if seg.idle() {
		s.IdleMs += seg.ms
	}
	s.addSpeed(r.SpeedKmh)
}

func (s *sums) join(o sums) {
	s.Km += o.Km
	s.IdleMs += o.IdleMs
	s.SegmentKmh = max(s.SegmentKmh, o.SegmentKmh)
	s.addSpeed(o.Speed)
}

func (s *sums) addSpeed(speed telemetry.Optional[float64]) {
	if speed.Valid && (!s.Speed.Valid || speed.Value > s.Speed.Value) {
		s.Speed = speed
	}
}

// with returns the sum of both.
func (s sums) with(o sums) sums {
	s.join(o)
	return s
}
