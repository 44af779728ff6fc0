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

// WriteTrips writes trips and stops of a device, as one mutation per month.
func (s *TripStore) WriteTrips(ctx context.Context, deviceID string, rows []TripRow, writeTimeUs int64) error {
	for len(rows) > 0 {
		month := DayOf(rows[0].StartMs).Month()
		n := 1
		for n < len(rows) && DayOf(rows[n].StartMs).Month() == month {
			n++
		}
		a := newArena(n, 17)
		b := s.db.batch(ctx, n)
		for i := range rows[:n] {
			r := &rows[i]
			from := len(a.args)
			a.text(deviceID)
			a.date(month)
			a.timestamp(r.StartMs)
			a.text(r.Kind)
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
			a.bigint(writeTimeUs)
			b.add(insertTrip, a.row(from))
		}
		if err := b.exec(TableTrips); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// DeleteTrip deletes a trip or stop.
func (s *TripStore) DeleteTrip(ctx context.Context, deviceID string, startMs int64, kind string, writeTimeUs int64) error {
	return s.db.exec(ctx, TableTrips, deleteTrip, writeTimeUs, deviceID, DayOf(startMs).Month().Time(), time.UnixMilli(startMs), kind)
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
