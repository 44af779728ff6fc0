// Package generator simulates vehicles in a fictional city, for demos, load tests and sample files. The simulation is pure
// and seeded: equal options give equal records in the same order.
package generator

import (
	"fmt"
	"time"
)

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
