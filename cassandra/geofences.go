package cassandra

import "context"

// Geofence is a geofence of a fleet.
type Geofence struct {
	FleetID       string
	Name          string
	Kind          string   // for example depot; may be empty
	Geometry      string   // a GeoJSON geometry: a Polygon, or a Point with RadiusM for a circle
	RadiusM       *float64 // meters; nil for a polygon
	SpeedLimitKmh *float64 // km/h; nil for none
	DwellS        *int32   // longest stay of a vehicle in seconds; nil for any
}

// GeofenceStore keeps the geofences of fleets.
type GeofenceStore struct{ *Session }

const (
	insertGeofence = "INSERT INTO geofences_by_fleet (fleet_id, name, kind, geometry, radius_m, speed_limit_kmh, dwell_s)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	deleteGeofence  = "DELETE FROM geofences_by_fleet USING TIMESTAMP ? WHERE fleet_id = ? AND name = ?"
	selectGeofences = "SELECT name, kind, geometry, radius_m, speed_limit_kmh, dwell_s FROM geofences_by_fleet WHERE fleet_id = ?"
)

// Geofences lists the geofences of a fleet, sorted by name.
func (s *GeofenceStore) Geofences(ctx context.Context, fleetID string) ([]Geofence, error) {
	rows, err := collect(s.Session, s.query(ctx, selectGeofences, fleetID), func(g *Geofence) []any {
		g.FleetID = fleetID
		return []any{&g.Name, &g.Kind, &g.Geometry, &g.RadiusM, &g.SpeedLimitKmh, &g.DwellS}
	})
	return rows, opError("read geofences of fleet "+fleetID, err)
}

// ApplyGeofences applies geofences to one fleet. It ignores the FleetID of the rows.
func (s *GeofenceStore) ApplyGeofences(ctx context.Context, fleetID string, rows []Mutation[Geofence]) error {
	return apply(ctx, s.Session, TableGeofences, 8, rows, insertGeofence, deleteGeofence,
		func(a *arena, g *Geofence) {
			a.add(&fleetID, &g.Name)
		}, func(a *arena, g *Geofence) {
			a.add((*optional)(&g.Kind), &g.Geometry, &g.RadiusM, &g.SpeedLimitKmh, &g.DwellS)
		})
}
