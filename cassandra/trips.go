package cassandra

import (
	"context"
	"time"

	"github.com/gocql/gocql"
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
type TripStore struct{ db *Session }

const (
	insertTrip = "INSERT INTO trips_by_device_month (device_id, month, start_ts, kind, fleet_id, end_ts, open, distance_km, max_speed_kmh, idle_s," +
		" start_lat, start_lon, end_lat, end_lon, start_zone, end_zone) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	deleteTrip  = "DELETE FROM trips_by_device_month USING TIMESTAMP ? WHERE device_id = ? AND month = ? AND start_ts = ? AND kind = ?"
	selectTrips = "SELECT start_ts, kind, fleet_id, end_ts, open, distance_km, max_speed_kmh, idle_s, start_lat, start_lon, end_lat, end_lon, start_zone, end_zone" +
		" FROM trips_by_device_month WHERE device_id = ? AND month = ? AND start_ts >= ? AND start_ts <= ?"
)

// ApplyTrips applies trips and stops of one device that began in one month.
func (s *TripStore) ApplyTrips(ctx context.Context, deviceID string, rows []Mutation[TripRow]) error {
	return apply(ctx, s.db, TableTrips, 17, rows, insertTrip, deleteTrip,
		func(a *arena, r *TripRow) {
			a.text(deviceID)
			a.date(DayOf(r.StartMs).Month())
			a.timestamp(r.StartMs)
			a.text(r.Kind)
		}, func(a *arena, r *TripRow) {
			a.text(r.FleetID)
			a.timestamp(r.EndMs)
			a.bool(r.Open)
			a.double(r.DistanceKm)
			a.nullableDouble(r.MaxSpeedKmh)
			a.double(r.IdleS)
			a.double(r.StartLat)
			a.double(r.StartLon)
			a.double(r.EndLat)
			a.double(r.EndLon)
			a.optionalText(r.StartZone)
			a.optionalText(r.EndZone)
		})
}

// Trips lists the trips and stops of a device that started between two instants in Unix milliseconds, both included,
// oldest first.
func (s *TripStore) Trips(ctx context.Context, deviceID string, fromMs, toMs int64) ([]TripRow, error) {
	rows, err := byMonth(ctx, s.db, fromMs, toMs, func(ctx context.Context, month Day) ([]TripRow, error) {
		q := s.db.query(ctx, selectTrips, deviceID, month.Time(), time.UnixMilli(fromMs), time.UnixMilli(toMs))
		return collect(s.db, q, func(iter *gocql.Iter) (TripRow, bool) {
			var r TripRow
			var start, end time.Time
			ok := iter.Scan(&start, &r.Kind, &r.FleetID, &end, &r.Open, &r.DistanceKm, &r.MaxSpeedKmh, &r.IdleS,
				&r.StartLat, &r.StartLon, &r.EndLat, &r.EndLon, &r.StartZone, &r.EndZone)
			r.StartMs, r.EndMs = start.UnixMilli(), end.UnixMilli()
			return r, ok
		})
	})
	return rows, opError("read "+TableTrips, err)
}
