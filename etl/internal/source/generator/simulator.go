// Package generator simulates vehicles in a fictional city, for demos, load tests and sample files. The simulation is pure
// and seeded: equal options give equal records in the same order.
package generator

import (
	"cmp"
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
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
	startNs  int64     // Unix nanoseconds

	round int64 // interval that is being reported
	next  int   // vehicle that reports next
	made  int   // good records so far

	held queue
	seq  uint64
}

// New checks the options and makes a simulator. It takes some 3 µs a vehicle.
func New(opts Options) (*Simulator, error) {
	if err := opts.check(); err != nil {
		return nil, fmt.Errorf("generator options: %w", err)
	}
	s := &Simulator{opts: opts, city: buildCity(), vehicles: make([]vehicle, opts.Vehicles), startNs: opts.Start.UnixNano()}
	fleets := make([]string, max(1, min(opts.Fleets, opts.Vehicles)))
	for i := range fleets {
		fleets[i] = fmt.Sprintf("fleet-%03d", i+1)
	}
	// The instant at which a vehicle reports does not depend on the others.
	order, phases := make([]int, opts.Vehicles), make([]int64, opts.Vehicles)
	for i := range order {
		d := roll(^opts.Seed, uint64(i))
		order[i], phases[i] = i, int64(d.unit()*float64(opts.Interval))
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(phases[a], phases[b]) })
	for i, number := range order {
		v := &s.vehicles[i]
		*v = newVehicle(s.city, opts.Seed, number, s.unix(0))
		v.id, v.fleet, v.phase = fmt.Sprintf("vehicle-%04d", number+1), fleets[number%len(fleets)], phases[number]
	}
	return s, nil
}

// never is later than any record.
const never = math.MaxInt64

// Next stores the next record to arrive in e. It returns false after Records valid ones and everything that was delayed.
func (s *Simulator) Next(e *Emission) bool { return s.nextBy(e, never-1) }

// nextBy is Next as long as a record arrives by an instant, in nanoseconds after the start.
func (s *Simulator) nextBy(e *Emission, by int64) bool {
	for {
		at := s.due()
		if at > by {
			return false
		}
		if len(s.held) > 0 && s.held[0].at <= at {
			*e = heap.Pop(&s.held).(*held).Emission
			return true
		}
		if s.report(e, at) {
			return true
		}
	}
}

// due is when the next record arrives, in nanoseconds after the start, or never.
func (s *Simulator) due() int64 {
	at := int64(never)
	if s.opts.Records == 0 || s.made < s.opts.Records {
		at = s.tick()
	}
	if len(s.held) > 0 {
		at = min(at, s.held[0].at)
	}
	return at
}

// tick is when the next vehicle reports, in nanoseconds after the start.
func (s *Simulator) tick() int64 { return s.round*int64(s.opts.Interval) + s.vehicles[s.next].phase }

// unix is the Unix seconds of an instant in nanoseconds after the start.
func (s *Simulator) unix(at int64) float64 { return float64(s.startNs)/1e9 + float64(at)/1e9 }

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
	if s.next++; s.next == len(s.vehicles) {
		s.next = 0
		s.round++
	}
	s.made++

	v.step(s.city, s.unix(at))
	*e = Emission{At: s.time(at)}
	e.Record.TimeMs = (s.startNs + at) / 1e6
	v.read(s.city, &e.Record)

	arrives := at
	late := v.radio.chance(s.opts.Late)
	if late {
		// From two seconds to four minutes after the vehicle's next record, short delays more often than long ones.
		arrives += int64(s.opts.Interval) + int64(2e9*math.Pow(120, v.radio.unit()))
		s.hold(e, arrives).Late = true
	}
	if v.radio.chance(s.opts.Duplicate) {
		again := arrives
		if v.radio.chance(0.5) {
			again += int64(1e9 * v.radio.between(0.2, 60))
		}
		s.hold(e, again).Duplicate = true
	}
	if v.radio.chance(s.opts.Broken) {
		breakIt(s.hold(e, at), &v.radio)
	}
	return !late
}

func (s *Simulator) time(at int64) time.Time { return time.Unix(0, s.startNs+at).UTC() }

// hold keeps a copy of a record back until an instant, in nanoseconds after the start, and returns it.
func (s *Simulator) hold(e *Emission, at int64) *Emission {
	s.seq++
	h := &held{at: at, seq: s.seq, Emission: *e}
	h.At = s.time(at)
	heap.Push(&s.held, h)
	return &h.Emission
}

// held is a record that arrives late, or again.
type held struct {
	Emission
	at  int64  // when it arrives, nanoseconds after the start
	seq uint64 // in which order records of one instant arrive
}

// queue is a heap with the record that arrives first at the front.
type queue []*held

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(*held)) }
func (q *queue) Pop() any {
	last := len(*q) - 1
	h := (*q)[last]
	*q = slices.Delete(*q, last, last+1) // drops the reference
	return h
}

// Options are the settings of a simulation. Equal options give equal sequences.
type Options struct {
	Seed     uint64        // seed of the vehicles; the city is always the same
	Vehicles int           // number of vehicles; each behaves the same in a fleet of any size
	Fleets   int           // number of fleets, named fleet-001, fleet-002, …; 0 is one
	Interval time.Duration // between two records of one vehicle, 1 ms or more
	Start    time.Time     // from 1970 on; each vehicle's first record is within one Interval from here
	Records  int           // valid records after which the simulation ends; 0 never ends it

	// Late, Duplicate and Broken are fractions of the valid records, 0 to 1. They do not change the valid records, only their
	// arrival, and they add other records.
	Late      float64 // delayed until after the next record of the vehicle
	Duplicate float64 // arrive a second time, at once or up to a minute later
	Broken    float64 // are followed by a broken copy of themselves
}

// maxVehicles protects the memory of the machine from a mistyped option: each vehicle takes about half a KB.
const maxVehicles = 1_000_000

// lastYear allows a long simulation before nanoseconds since 1970 overflow in 2262.
const lastYear = 2200

// check returns an error that names the first invalid option, its value and the valid ones.
func (o *Options) check() error {
	switch {
	case o.Vehicles < 1 || o.Vehicles > maxVehicles:
		return fmt.Errorf("vehicles %d: use 1 to %d", o.Vehicles, maxVehicles)
	case o.Fleets < 0:
		return fmt.Errorf("fleets %d: use 1 or more", o.Fleets)
	case o.Interval < time.Millisecond:
		return fmt.Errorf("interval %v: use 1ms or more; timestamps have milliseconds", o.Interval)
	case o.Start.Year() < 1970 || o.Start.Year() > lastYear:
		return fmt.Errorf("start %s: use a time from 1970 to %d", o.Start.Format(time.RFC3339), lastYear)
	case o.Records < 0:
		return fmt.Errorf("records %d: use the number of valid records, or 0 for no end", o.Records)
	}
	for _, f := range []struct {
		name  string
		value float64
	}{{"late", o.Late}, {"duplicate", o.Duplicate}, {"broken", o.Broken}} {
		if !(f.value >= 0 && f.value <= 1) {
			return fmt.Errorf("%s %v: use a fraction from 0 to 1", f.name, f.value)
		}
	}
	return nil
}

// dice is a seeded stream of chance, held by value so that 100,000 vehicles need no allocation each.
type dice struct{ pcg rand.PCG }

// roll starts a stream. Streams of one seed differ even where their numbers are neighbors.
func roll(seed, stream uint64) (d dice) {
	d.pcg.Seed(mix(seed), mix(stream+0x9e3779b97f4a7c15))
	return d
}

// mix is the finisher of SplitMix64 (Steele, Lea, Flood 2014): it spreads neighboring numbers over all 64 bits.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// unit is uniform in [0, 1).
func (d *dice) unit() float64 { return float64(d.pcg.Uint64()>>11) / (1 << 53) }

// between is uniform in [lo, hi).
func (d *dice) between(lo, hi float64) float64 { return lo + (hi-lo)*d.unit() }

// chance is true with probability p.
func (d *dice) chance(p float64) bool { return d.unit() < p }

// below is uniform in 0 … n-1.
func (d *dice) below(n int) int { return int(d.unit() * float64(n)) }

// pick chooses one of several values.
func pick[T any](d *dice, from ...T) T { return from[d.below(len(from))] }
