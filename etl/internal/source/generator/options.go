// Package generator makes records of simulated vehicles that drive through a made-up city: for demos, load tests and
// sample files. The simulation is pure and seeded, so that the same options give the same records in the same order.
package generator

import (
	"fmt"
	"time"
)

// Options say what is simulated. Two simulators with the same options yield the same sequence.
type Options struct {
	Seed     uint64        // chooses the vehicles' lives; the city is always the same
	Vehicles int           // how many vehicles there are; vehicle-0001 lives the same life in a fleet of any size
	Fleets   int           // how many fleets they are spread over, as fleet-001, fleet-002, …; 0 is one
	Interval time.Duration // between two records of one vehicle, 1 ms or more
	Start    time.Time     // from 1970 on; each vehicle's first record is within one Interval from here
	Records  int           // good records after which the simulation ends; 0 goes on for ever

	// Late, Duplicate and Broken are fractions of the good records, 0 to 1. They change neither the good records nor
	// how many there are, only how these arrive and what arrives besides them.
	Late      float64 // held back until after the vehicle's next record
	Duplicate float64 // arrive a second time, at once or up to a minute later
	Broken    float64 // are followed by a broken copy of themselves
}

// maxVehicles keeps a mistyped option from taking the machine's memory: each vehicle takes about 1 KB.
const maxVehicles = 1_000_000

// lastYear leaves room for a long simulation before nanoseconds since 1970 end in 2262.
const lastYear = 2200

// check gives an error that names the first option that makes no sense, with its value and what to give.
func (o *Options) check() error {
	switch {
	case o.Vehicles < 1 || o.Vehicles > maxVehicles:
		return fmt.Errorf("vehicles %d: give 1 to %d", o.Vehicles, maxVehicles)
	case o.Fleets < 0:
		return fmt.Errorf("fleets %d: give 1 or more", o.Fleets)
	case o.Interval < time.Millisecond:
		return fmt.Errorf("interval %v: give 1ms or more, timestamps keep milliseconds", o.Interval)
	case o.Start.Year() < 1970 || o.Start.Year() > lastYear:
		return fmt.Errorf("start %s: give a time from 1970 to %d", o.Start.Format(time.RFC3339), lastYear)
	case o.Records < 0:
		return fmt.Errorf("records %d: give the number of good records, or 0 to go on for ever", o.Records)
	}
	for _, f := range []struct {
		name  string
		value float64
	}{{"late", o.Late}, {"duplicate", o.Duplicate}, {"broken", o.Broken}} {
		if !(f.value >= 0 && f.value <= 1) {
			return fmt.Errorf("%s %v: give a fraction from 0 to 1", f.name, f.value)
		}
	}
	return nil
}
