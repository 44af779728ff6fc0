package cassandra

import (
	"context"
	"time"
)

// TripRow is a trip or a stop of a device.
type TripRow struct {
	StartMs, EndMs     int64 // Unix milliseconds
	Kind               string
	FleetID            string
	Open               bool
	DistanceKm         float64
	MaxSpeedKmh        *float64
	IdleS              float64
	StartLat, StartLon float64
	EndLat, EndLon     float64
	StartZone, EndZone string
}

// TripStore keeps the trips and stops of devices.
type TripStore struct{ *Session }

const (
	insertTrip = "INSERT INTO trips_by_device_month (device_id, month, start_ts, kind, fleet_id, end_ts, open, distance_km, max_speed_kmh, idle_s," +
		" start_lat, start_lon, end_lat, end_lon, start_zone, end_zone) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	deleteTrip  = "DELETE FROM trips_by_device_month USING TIMESTAMP ? WHERE device_id = ? AND month = ? AND start_ts = ? AND kind = ?"
	selectTrips = "SELECT start_ts, kind, fleet_id, end_ts, open, distance_km, max_speed_kmh, idle_s, start_lat, start_lon, end_lat, end_lon, start_zone, end_zone" +
		" FROM trips_by_device_month WHERE device_id = ? AND month = ? AND start_ts >= ? AND start_ts <= ?"
)

// ApplyTrips applies trips and stops of one device that began in one month.
func (s *TripStore) ApplyTrips(ctx context.Context, deviceID string, rows []Mutation[TripRow]) error {
	return apply(ctx, s.Session, TableTrips, 17, rows, insertTrip, deleteTrip,
		func(a *arena, r *TripRow) {
			month := DayOf(r.StartMs).Month()
			a.add(&deviceID, &month, &r.StartMs, &r.Kind)
		}, func(a *arena, r *TripRow) {
			a.add(&r.FleetID, &r.EndMs, &r.Open, &r.DistanceKm)
			a.set(&r.MaxSpeedKmh)
			a.add(&r.IdleS, &r.StartLat, &r.StartLon, &r.EndLat, &r.EndLon, (*optional)(&r.StartZone), (*optional)(&r.EndZone))
		})
}

// Trips lists the trips and stops of a device that started between two instants in Unix milliseconds, both included,
// oldest first.
func (s *TripStore) Trips(ctx context.Context, deviceID string, fromMs, toMs int64) ([]TripRow, error) {
	rows, err := byMonth(ctx, s.Session, fromMs, toMs, func(ctx context.Context, month Day) ([]TripRow, error) {
		q := s.query(ctx, selectTrips, deviceID, month, time.UnixMilli(fromMs), time.UnixMilli(toMs))
		return collect(s.Session, q, func(r *TripRow) []any {
			return []any{&r.StartMs, &r.Kind, &r.FleetID, &r.EndMs, &r.Open, &r.DistanceKm, &r.MaxSpeedKmh, &r.IdleS,
				&r.StartLat, &r.StartLon, &r.EndLat, &r.EndLon, &r.StartZone, &r.EndZone}
		})
	})
	return rows, opError("read "+TableTrips, err)
}
