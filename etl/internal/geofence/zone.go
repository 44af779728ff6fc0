// Package geofence knows the zones of fleets: it reads them from GeoJSON, and tells in which of them a position lies
// and how far from their edges. It is pure: it reads no file, clock or store, and what it builds never changes.
package geofence

import (
	"fmt"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// The bounds of what is taken for a zone.
const (
	MaxZones         = 100_000   // in all files together; a zone of several fleets counts once for each
	MaxPositions     = 10_000    // of the rings of one zone
	MaxRadiusM       = 1_000_000 // metres
	MaxSpeedLimitKmh = 300       // km/h
	MaxKindLen       = 128       // bytes
	maxWidthDeg      = 180       // beyond, it can't be told which way round the earth an outline goes
)

// AllFleets in place of a fleet's name is every fleet.
const AllFleets = "*"

// Zone is an area that means something to a fleet. Parse makes zones; one made by hand has no shape and can't be indexed.
type Zone struct {
	Fleet         string // a fleet's name, or AllFleets
	Name          string // unique in the fleet
	Kind          string // what it is to the fleet, for example depot; may be empty
	Geometry      string // a GeoJSON geometry: a Polygon, a MultiPolygon, or a Point with RadiusM for a circle
	RadiusM       telemetry.Optional[float64]
	SpeedLimitKmh telemetry.Optional[float64]
	DwellS        telemetry.Optional[int32] // how long a vehicle may stay, seconds
	OnEnter       bool                      // entering it is worth an alert
	OnExit        bool                      // leaving it is

	where string // the file and feature that it comes from
	shape *shape // shared by the zones of one feature
}

// clashes are the zones that have the name of one before them in the same fleet, each told once per feature.
func clashes(zones []Zone) []error {
	type key struct{ fleet, name string }
	taken := make(map[key]*Zone, len(zones))
	named := make(map[string]*Zone, len(zones)) // the first of the name in whatever fleet
	var errs []error
	told := ""
	for i := range zones {
		z := &zones[i]
		other := taken[key{z.Fleet, z.Name}]
		if other == nil {
			other = taken[key{AllFleets, z.Name}]
		}
		if other == nil && z.Fleet == AllFleets {
			other = named[z.Name]
		}
		if other == nil {
			taken[key{z.Fleet, z.Name}] = z
			if named[z.Name] == nil {
				named[z.Name] = z
			}
			continue
		}
		if told == z.where {
			continue
		}
		told = z.where
		errs = append(errs, fmt.Errorf("%s: name is taken in fleet %q by %s: give one of them another name", z.where, z.Fleet, other.where))
	}
	return errs
}

func tooMany(zones int) error {
	return fmt.Errorf("there are %d zones, more than %d: leave out those that no fleet needs", zones, MaxZones)
}
