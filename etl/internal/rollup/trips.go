package rollup

import (
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const (
	radiusKm  = 0.2                                         // a stop lies within it; a trip is no shorter
	standMs   = int64(180 * time.Second / time.Millisecond) // a stop is no shorter
	silenceMs = int64(time.Hour / time.Millisecond)         // longer without fixes, and a trip is not known to go on
)

// kind is what the open element is.
type kind uint8

const (
	undecided kind = iota // neither is known yet; it may not have begun, too
	trip
	stop
)

// trips is the open trip or stop of a device, the element. Its fixes are those from Start to Last. The latest of them,
// from Anchor on, lie within the radius of Anchor, and are a stop once they last long enough.
//
// In a stop Anchor is what the stop lies about, unless it may have been left: then Leaving says so, and fixes since are
// looked at as those of a trip from Leaving.From are.
type trips struct {
	Kind  kind   `json:"k,omitzero"`
	Fleet string `json:"f,omitzero"`

	Start  fix `json:"s,omitzero"`
	Anchor fix `json:"a,omitzero"`
	Last   fix `json:"l,omitzero"`

	Before sums `json:"b,omitzero"` // from Start, or Leaving.From, to Anchor
	Since  sums `json:"c,omitzero"` // from Anchor to Last

	// What these point to is never changed, since copies share it.
	Leaving *leaving `json:"v,omitempty"`
	Doubted *fix     `json:"d,omitempty"` // the fix after Last, a jump away from it
}

// leaving is a stop that its vehicle may have left.
type leaving struct {
	From  fix     `json:"f"` // last fix within the radius
	Lat   float64 `json:"y"` // what the stop lies about
	Lon   float64 `json:"x"`
	Stood sums    `json:"s"` // from Start to From
}

// newest is the device's last fix, doubted or not.
func (t *trips) newest() *fix {
	if t.Doubted != nil {
		return t.Doubted
	}
	return &t.Last
}

// fix is where a record was. Most often its zone is the last one's again: that string is kept, since a new one may hold
// on to a whole line of input.
func (t *trips) fix(r *telemetry.Record) fix {
	zone := r.Zone
	if zone == t.Last.Zone {
		zone = t.Last.Zone
	}
	return fix{r.TimeMs, r.Lat, r.Lon, zone}
}

// follow takes the next fix, and the way to it from the newest.
func (t *trips) follow(r *telemetry.Record, way leg, sink Sink) {
	switch {
	case t.Last.TimeMs == 0:
		t.begin(t.fix(r), r.FleetID)
	case r.FleetID != t.Fleet:
		t.end(sink)
		t.begin(t.fix(r), r.FleetID)
	case t.Doubted == nil:
		if way.jump() {
			f := t.fix(r)
			t.Doubted = &f
			return
		}
		t.step(r, way, sink)
	default:
		if past := t.Last.legTo(r); !past.jump() {
			t.Doubted = nil
			t.step(r, past, sink)
			return
		}
		if way.jump() {
			f := t.fix(r)
			t.Doubted = &f
			return
		}
		t.end(sink)
		t.begin(*t.Doubted, t.Fleet)
		t.step(r, way, sink)
	}
}

// step takes the next fix that is to be believed.
func (t *trips) step(r *telemetry.Record, way leg, sink Sink) {
	near := within(t.Anchor.Lat, t.Anchor.Lon, r)
	back := t.Leaving != nil && within(t.Leaving.Lat, t.Leaving.Lon, r)
	if way.ms > silenceMs && !near && !back {
		t.end(sink)
		t.begin(t.fix(r), t.Fleet)
		return
	}
	last := t.Last
	t.Last = t.fix(r)
	switch {
	case back: // it was not away
		t.Anchor.Lat, t.Anchor.Lon = t.Leaving.Lat, t.Leaving.Lon
		t.Before.join(t.Since)
		t.Before.add(way, r)
		t.Since = t.Leaving.Stood.with(t.Before)
		t.Before, t.Leaving = sums{}, nil
	case near:
		t.Since.add(way, r)
		if r.TimeMs-t.Anchor.TimeMs >= standMs && (t.Kind != stop || t.Leaving != nil) {
			t.stand(sink)
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
		t.Before.add(way, r)
		t.Anchor, t.Since = t.Last, sums{}
	}
	if t.Leaving != nil && t.driven() && r.TimeMs-t.Leaving.From.TimeMs >= standMs {
		t.leave(sink)
	}
}

// stand takes the fixes from Anchor on for a stop, or for more of the one that the vehicle seemed to leave.
func (t *trips) stand(sink Sink) {
	if t.Leaving != nil && !t.driven() {
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

// leave takes the fixes since the vehicle seemed to leave its stop for a trip.
func (t *trips) leave(sink Sink) {
	sink.Trip(t.row(stop, &t.Start, &t.Leaving.From, t.Leaving.Stood))
	t.Kind, t.Start, t.Leaving = trip, t.Leaving.From, nil
}

// driven tells whether a vehicle that seems to leave its stop has driven enough for a trip.
func (t *trips) driven() bool { return t.Before.Km >= radiusKm }

// end gives the open trip or stop as one that ends at Last. A vehicle that had driven enough has left.
func (t *trips) end(sink Sink) {
	if t.Leaving != nil && t.driven() {
		t.leave(sink)
	}
	if row, ok := t.open(); ok {
		row.Open = false
		sink.Trip(row)
	}
}

// begin starts anew at a fix.
func (t *trips) begin(f fix, fleetID string) {
	*t = trips{Fleet: fleetID, Start: f, Anchor: f, Last: f}
}

// open is the open trip or stop, if it is known which it is.
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

func (t *trips) row(k kind, from, to *fix, s sums) Trip {
	row := Trip{
		Kind: KindTrip, FleetID: t.Fleet, StartMs: from.TimeMs, EndMs: to.TimeMs,
		DistanceKm: s.Km, MaxSpeedKmh: s.Speed, IdleMs: s.IdleMs,
		StartLat: from.Lat, StartLon: from.Lon, EndLat: to.Lat, EndLon: to.Lon, StartZone: from.Zone, EndZone: to.Zone,
	}
	if k == stop {
		row.Kind, row.IdleMs = KindStop, 0
	}
	if !s.Speed.Valid {
		row.MaxSpeedKmh = telemetry.Some(s.LegKmh)
	}
	return row
}

func within(lat, lon float64, r *telemetry.Record) bool {
	return telemetry.DistanceKm(lat, lon, r.Lat, r.Lon) <= radiusKm
}

// sums is what a number of segments and the fixes they lead to come to.
type sums struct {
	Km     float64                     `json:"k,omitzero"`
	IdleMs int64                       `json:"i,omitzero"`
	LegKmh float64                     `json:"g,omitzero"` // greatest mean speed of a segment
	Speed  telemetry.Optional[float64] `json:"v,omitzero"` // greatest speed of a fix, if one has any
}

func (s *sums) add(way leg, r *telemetry.Record) {
	s.Km += way.km
	s.LegKmh = max(s.LegKmh, way.kmh)
	if way.idle() {
		s.IdleMs += way.ms
	}
	s.fast(r.SpeedKmh)
}

func (s *sums) join(o sums) {
	s.Km += o.Km
	s.IdleMs += o.IdleMs
	s.LegKmh = max(s.LegKmh, o.LegKmh)
	s.fast(o.Speed)
}

func (s *sums) fast(speed telemetry.Optional[float64]) {
	if speed.Valid && (!s.Speed.Valid || speed.Value > s.Speed.Value) {
		s.Speed = speed
	}
}

// with is both together.
func (s sums) with(o sums) sums {
	s.join(o)
	return s
}
