// Package geofence reads the geofences of fleets from GeoJSON, and finds the geofences that contain a position or lie near
// it. It is pure, and everything that it builds is immutable.
package geofence

import (
	"fmt"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// The bounds of geofences.
const (
	MaxGeofences     = 100_000   // in all files together; a geofence of several fleets counts once for each
	MaxPositions     = 10_000    // in the rings of one geofence
	MaxRadiusM       = 1_000_000 // meters
	MaxSpeedLimitKmh = 300       // km/h
	MaxKindLen       = 128       // bytes
	maxWidthDeg      = 180       // with a wider outline, the side of the earth that it encloses is ambiguous
)

// AllFleets in place of a fleet's name means every fleet.
const AllFleets = "*"

// Geofence is a named area of a fleet. Only Parse makes geofences: others have no shape and can't be indexed.
type Geofence struct {
	Fleet         string // a fleet's name, or AllFleets
	Name          string // unique in the fleet
	Kind          string // the fleet's category, for example depot; may be empty
	Geometry      string // a GeoJSON geometry: a Polygon, a MultiPolygon, or a Point with RadiusM for a circle
	RadiusM       telemetry.Optional[float64]
	SpeedLimitKmh telemetry.Optional[float64]
	DwellS        telemetry.Optional[int32] // how long a vehicle may stay, seconds
	OnEnter       bool                      // an entry raises an alert
	OnExit        bool                      // an exit raises an alert

	source string // its file and feature
	shape  *shape // shared by the geofences of one feature
}

// nameConflicts returns an error for each feature that has the name of an earlier one in the same fleet.
func nameConflicts(list []Geofence) []error {
	type key struct{ fleet, name string }
	taken := make(map[key]*Geofence, len(list))
	named := make(map[string]*Geofence, len(list)) // the first of a name in any fleet
	var errs []error
	reported := ""
	for i := range list {
		g := &list[i]
		other := taken[key{g.Fleet, g.Name}]
		if other == nil {
			other = taken[key{AllFleets, g.Name}]
		}
		if other == nil && g.Fleet == AllFleets {
			other = named[g.Name]
		}
		if other == nil {
			taken[key{g.Fleet, g.Name}] = g
			if named[g.Name] == nil {
				named[g.Name] = g
			}
			continue
		}
		if reported == g.source {
			continue
		}
		reported = g.source
		errs = append(errs, fmt.Errorf("%s: name is taken in fleet %q by %s: rename one of them", g.source, g.Fleet, other.source))
	}
	return errs
}

func tooMany(n int) error {
	return fmt.Errorf("there are %d geofences, more than %d: remove the unused ones", n, MaxGeofences)
}
