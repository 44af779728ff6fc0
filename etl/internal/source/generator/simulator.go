package generator

import (
	"cmp"
	"container/heap"
	"fmt"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Emission is one record as it arrives.
type Emission struct {
	At     time.Time        // when it arrives; a good record that is not late arrives at its event time
	Record telemetry.Record // its contents, as far as a Record can represent them

	Late      bool             // a valid record that arrives after the next one of its vehicle
	Duplicate bool             // a second copy of a valid record
	Reason    telemetry.Reason // reason to reject a broken record; empty for a valid one and a duplicate

	// A broken record that a Record can't represent: Text replaces the value of Field, which is missing if Text is empty. Cut
	// means that only the first half of the line arrives.
	Field string
	Text  string
	Cut   bool
}

// Broken returns whether the record must be rejected.
func (e *Emission) Broken() bool { return e.Reason != "" }

// Damaged returns whether only the text of the record shows that it is broken.
func (e *Emission) Damaged() bool { return e.Field != "" || e.Cut }

// Simulator yields records in the order in which they arrive. It reads no clock and is not safe for concurrent use.
type Simulator struct {
	opts     Options
	city     *city
	vehicles []vehicle // in the order in which they report within an interval
	start    float64   // Unix seconds
	startNs  int64     // Unix nanoseconds

	round int64 // interval that is being reported
	next  int   // vehicle that reports next
	made  int   // good records so far

	held queue[held]
	seq  uint64

	air   float64 // °C outside, as of airAt
	airAt int64   // in whole minutes since the start; -1 before the first
}

// New checks the options and makes a simulator. It takes some 10 ms for the city and 2 µs a vehicle.
func New(opts Options) (*Simulator, error) {
	if err := opts.check(); err != nil {
		return nil, fmt.Errorf("generator options: %w", err)
	}
	opts.Fleets = max(1, opts.Fleets)
	s := &Simulator{
		opts:     opts,
		city:     buildCity(),
		vehicles: make([]vehicle, opts.Vehicles),
		startNs:  opts.Start.UnixNano(),
		start:    float64(opts.Start.UnixNano()) / 1e9,
		airAt:    -1,
	}
	fleets := make([]string, min(opts.Fleets, opts.Vehicles))
	for i := range fleets {
		fleets[i] = fmt.Sprintf("fleet-%03d", i+1)
	}
	for i, v := range reportingOrder(opts) {
		s.vehicles[i] = newVehicle(s.city, opts.Seed, v.number, s.start)
		s.vehicles[i].id = fmt.Sprintf("vehicle-%04d", v.number+1)
		s.vehicles[i].fleet = fleets[v.number%len(fleets)]
		s.vehicles[i].phase = v.phase
	}
	return s, nil
}

// turn is when a vehicle reports within each interval.
type turn struct {
	number int   // of the vehicle, from 0
	phase  int64 // nanoseconds
}

// reportingOrder spreads the vehicles over the interval. The instant of a vehicle does not depend on the others.
func reportingOrder(opts Options) []turn {
	turns := make([]turn, opts.Vehicles)
	for i := range turns {
		d := roll(^opts.Seed, uint64(i))
		turns[i] = turn{i, int64(d.unit() * float64(opts.Interval))}
	}
	slices.SortFunc(turns, func(a, b turn) int {
		return cmp.Or(cmp.Compare(a.phase, b.phase), cmp.Compare(a.number, b.number))
	})
	return turns
}

// Next stores the next record to arrive in e. It returns false after Records valid ones and everything that was delayed.
func (s *Simulator) Next(e *Emission) bool { return s.nextBy(e, math.MaxInt64) }

// nextBy is Next as long as a record arrives by an instant, in nanoseconds after the start.
func (s *Simulator) nextBy(e *Emission, by int64) bool {
	for {
		at, ok := s.due()
		if !ok || at > by {
			return false
		}
		if len(s.held) > 0 && s.held[0].at <= at {
			s.release(e, heap.Pop(&s.held).(held))
			return true
		}
		if s.report(e, at) {
			return true
		}
	}
}

// due is when the next record arrives, in nanoseconds after the start. It is false when there is none.
func (s *Simulator) due() (at int64, ok bool) {
	more := s.opts.Records == 0 || s.made < s.opts.Records
	switch {
	case more && len(s.held) > 0:
		return min(s.tick(), s.held[0].at), true
	case more:
		return s.tick(), true
	case len(s.held) > 0:
		return s.held[0].at, true
	}
	return 0, false
}

// tick is when the next vehicle reports, in nanoseconds after the start.
func (s *Simulator) tick() int64 { return s.round*int64(s.opts.Interval) + s.vehicles[s.next].phase }

// skip leaves out the records that vehicles would have made before an instant, in nanoseconds after the start. The
// vehicles drive on all the same.
func (s *Simulator) skip(to int64) {
	if to <= s.tick() {
		return
	}
	s.round = to / int64(s.opts.Interval)
	into := to % int64(s.opts.Interval)
	s.next = sort.Search(len(s.vehicles), func(i int) bool { return s.vehicles[i].phase >= into })
	if s.next == len(s.vehicles) {
		s.next = 0
		s.round++
	}
}

// report creates the record of the next vehicle. It returns false if the record is delayed.
func (s *Simulator) report(e *Emission, at int64) bool {
	v := &s.vehicles[s.next]
	index := int32(s.next)
	if s.next++; s.next == len(s.vehicles) {
		s.next = 0
		s.round++
	}
	s.made++

	v.step(s.city, s.start, at, s.outside(at))
	r := v.read(s.city, s.start+float64(at)/1e9)
	r.timeMs = (s.startNs + at) / 1e6

	arrives := at
	late := s.opts.Late > 0 && v.radio.chance(s.opts.Late)
	if late {
		// From two seconds to four minutes after the vehicle's next record, short delays more often than long ones.
		arrives += int64(s.opts.Interval) + int64(2e9*math.Pow(120, v.radio.unit()))
		s.hold(held{at: arrives, vehicle: index, kind: lateKind, reading: r})
	}
	if s.opts.Duplicate > 0 && v.radio.chance(s.opts.Duplicate) {
		again := arrives
		if v.radio.chance(0.5) {
			again += int64(1e9 * v.radio.between(0.2, 60))
		}
		s.hold(held{at: again, vehicle: index, kind: duplicateKind, reading: r})
	}
	if s.opts.Broken > 0 && v.radio.chance(s.opts.Broken) {
		s.hold(held{at: at, vehicle: index, kind: brokenKind, damage: v.radio.pcg.Uint64(), reading: r})
	}
	if late {
		return false
	}
	s.fill(e, v, at, &r)
	return true
}

// outside is the temperature of the air. It changes so slowly that once a minute is enough.
func (s *Simulator) outside(at int64) float64 {
	if m := at / int64(time.Minute); m != s.airAt {
		s.airAt = m
		s.air = outside(s.start + float64(m)*minute)
	}
	return s.air
}

// fill converts a reading into an emission.
func (s *Simulator) fill(e *Emission, v *vehicle, at int64, r *reading) {
	*e = Emission{At: time.Unix(0, s.startNs+at).UTC()}
	out := &e.Record
	out.DeviceID, out.FleetID, out.TimeMs = v.id, v.fleet, r.timeMs
	if r.zone > 0 {
		out.Zone = s.city.zones[r.zone-1].name
	}
	out.Lat, out.Lon = float64(r.lat)/1e6, float64(r.lon)/1e6
	out.SpeedKmh = telemetry.Some(float64(r.speed) / 10)
	out.HeadingDeg = telemetry.Some(float64(r.heading) / 10)
	if r.temp != noTemp {
		out.TempC = telemetry.Some(float64(r.temp) / 10)
	}
	if r.battery != noBattery {
		out.BatteryPct = telemetry.Some(int32(r.battery))
	}
}
