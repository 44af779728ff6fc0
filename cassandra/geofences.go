package cassandra

import (
	"context"

	"github.com/gocql/gocql"
)

// Geofence is a zone of a fleet.
type Geofence struct {
	FleetID       string
	Name          string
	Kind          string   // what the zone is to the fleet, for example depot; may be empty
	Geometry      string   // a GeoJSON geometry: a Polygon, or a Point with RadiusM for a circle
	RadiusM       *float64 // metres; nil for a polygon
	SpeedLimitKmh *float64 // km/h; nil for none
	DwellS        *int32   // seconds that a vehicle may stay; nil for any
}

// GeofenceStore keeps the geofences of fleets.
type GeofenceStore struct{ db *Session }

const (
	insertGeofence = "INSERT INTO geofences_by_fleet (fleet_id, name, kind, geometry, radius_m, speed_limit_kmh, dwell_s)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	deleteGeofence  = "DELETE FROM geofences_by_fleet USING TIMESTAMP ? WHERE fleet_id = ? AND name = ?"
	selectGeofences = "SELECT name, kind, geometry, radius_m, speed_limit_kmh, dwell_s FROM geofences_by_fleet WHERE fleet_id = ?"
)

// Geofences is the zones of a fleet, sorted by name.
func (s *GeofenceStore) Geofences(ctx context.Context, fleetID string) ([]Geofence, error) {
	zones, err := collect(s.db, s.db.query(ctx, selectGeofences, fleetID), func(iter *gocql.Iter) (Geofence, bool) {
		g := Geofence{FleetID: fleetID}
		ok := iter.Scan(&g.Name, &g.Kind, &g.Geometry, &g.RadiusM, &g.SpeedLimitKmh, &g.DwellS)
		return g, ok
	})
	return zones, opError("read geofences of fleet "+fleetID, err)
}

// WriteGeofences writes zones of one fleet as one mutation.
func (s *GeofenceStore) WriteGeofences(ctx context.Context, fleetID string, zones []Geofence, writeTimeUs int64) error {
	a := newArena(len(zones), 8)
	b := s.db.batch(ctx, len(zones))
	for i := range zones {
		z := &zones[i]
		from := len(a.args)
		a.text(fleetID)
		a.text(z.Name)
		a.optionalText(z.Kind)
		a.text(z.Geometry)
		a.optionalDouble(z.RadiusM)
		a.optionalDouble(z.SpeedLimitKmh)
		a.optionalInt(z.DwellS)
		a.bigint(writeTimeUs)
		b.add(insertGeofence, a.row(from))
	}
	return b.exec(TableGeofences)
}

// DeleteGeofence takes a zone away from a fleet.
func (s *GeofenceStore) DeleteGeofence(ctx context.Context, fleetID, name string, writeTimeUs int64) error {
	return s.db.exec(ctx, TableGeofences, deleteGeofence, writeTimeUs, fleetID, name)
}
