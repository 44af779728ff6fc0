package cassandra

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/gocql/gocql"
)

// FleetHour is one hour of one fleet.
type FleetHour struct {
	FleetID string
	HourMs  int64 // first instant of the hour, Unix milliseconds
}

// HourRow is a device's share of one hour of a fleet.
type HourRow struct {
	FleetID     string
	HourMs      int64 // first instant of the hour, Unix milliseconds
	DeviceID    string
	DistanceKm  float64
	SpeedSumKmh float64
	SpeedCount  int64
	Records     int64
	MaxSpeedKmh float64 // 0 if no record had a speed
	DrivingS    float64
	Alerts      int32
}

// Hour holds the statistics of a fleet in one hour.
type Hour struct {
	FleetID            string
	Start              time.Time // first instant of the hour, UTC
	TotalDistanceKm    float64
	AvgSpeedKmh        *float64 // nil if no record of the hour had a speed
	AlertsCount        int
	ActiveDevicesCount int
}

// AnalyticsRow is a row of fleet_analytics_by_day.
type AnalyticsRow struct {
	FleetID            string
	Day                Day
	Hour               int32 // 0 to 23, UTC
	TotalDistanceKm    float64
	AvgSpeedKmh        *float64
	AlertsCount        int32
	ActiveDevicesCount int32
	RecordsCount       *int64   // nil: no cell
	MaxSpeedKmh        *float64 // nil if no record of the hour had a speed
	DrivingS           *int64   // seconds; nil: no cell

	WriteTimeUs int64
}

// RollupStore keeps hourly statistics: the share of each device, and their sum for a fleet.
type RollupStore struct{ db *Session }

const (
	insertHour = "INSERT INTO hours_by_fleet (fleet_id, hour, device_id, distance_km, speed_sum_kmh, speed_count, records_count, max_speed_kmh, driving_s, alerts_count)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	deleteHour  = "DELETE FROM hours_by_fleet USING TIMESTAMP ? WHERE fleet_id = ? AND hour = ? AND device_id = ?"
	selectHours = "SELECT device_id, distance_km, speed_sum_kmh, speed_count, records_count, max_speed_kmh, driving_s, alerts_count" +
		" FROM hours_by_fleet WHERE fleet_id = ? AND hour = ?"

	insertAnalytics = "INSERT INTO fleet_analytics_by_day (fleet_id, day, hour, total_distance_km, avg_speed_kmh, alerts_count, active_devices_count," +
		" records_count, max_speed_kmh, driving_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	deleteAnalytics = "DELETE FROM fleet_analytics_by_day USING TIMESTAMP ? WHERE fleet_id = ? AND day = ? AND hour = ?"
	selectAnalytics = "SELECT hour, total_distance_km, avg_speed_kmh, alerts_count, active_devices_count FROM fleet_analytics_by_day WHERE fleet_id = ? AND day = ?"
	selectHourRows  = "SELECT hour, total_distance_km, avg_speed_kmh, alerts_count, active_devices_count, records_count, max_speed_kmh, driving_s" +
		" FROM fleet_analytics_by_day WHERE fleet_id = ? AND day = ?"
)

// ApplyHours applies what devices add to one hour of one fleet.
func (s *RollupStore) ApplyHours(ctx context.Context, rows []Mutation[HourRow]) error {
	return apply(ctx, s.db, TableHours, 11, rows, insertHour, deleteHour,
		func(a *arena, r *HourRow) {
			a.text(r.FleetID)
			a.timestamp(r.HourMs)
			a.text(r.DeviceID)
		}, func(a *arena, r *HourRow) {
			a.double(r.DistanceKm)
			a.double(r.SpeedSumKmh)
			a.bigint(r.SpeedCount)
			a.bigint(r.Records)
			a.double(r.MaxSpeedKmh)
			a.double(r.DrivingS)
			a.int(r.Alerts)
		})
}

// Hours lists the devices' shares of an hour of a fleet, sorted by device.
func (s *RollupStore) Hours(ctx context.Context, fleetID string, hourMs int64) ([]HourRow, error) {
	rows, err := collect(s.db, s.db.query(ctx, selectHours, fleetID, time.UnixMilli(hourMs)), func(iter *gocql.Iter) (HourRow, bool) {
		r := HourRow{FleetID: fleetID, HourMs: hourMs}
		ok := iter.Scan(&r.DeviceID, &r.DistanceKm, &r.SpeedSumKmh, &r.SpeedCount, &r.Records, &r.MaxSpeedKmh, &r.DrivingS, &r.Alerts)
		return r, ok
	})
	return rows, opError("read "+TableHours, err)
}

// Analytics lists the hourly statistics of a fleet for the days from first to last, oldest first.
func (s *RollupStore) Analytics(ctx context.Context, fleetID string, first, last Day) ([]Hour, error) {
	if err := checkRange(first, last); err != nil {
		return nil, fmt.Errorf("read analytics of fleet %s: %w", fleetID, err)
	}
	var days []Day
	for day := first; day <= last; day++ {
		days = append(days, day)
	}
	parts, err := fanOut(ctx, s.db.config.Fanout, days, func(ctx context.Context, day Day) ([]Hour, error) {
		return collect(s.db, s.db.query(ctx, selectAnalytics, fleetID, day.Time()), func(iter *gocql.Iter) (Hour, bool) {
			h := Hour{FleetID: fleetID}
			var hour int
			ok := iter.Scan(&hour, &h.TotalDistanceKm, &h.AvgSpeedKmh, &h.AlertsCount, &h.ActiveDevicesCount)
			h.Start = day.Time().Add(time.Duration(hour) * time.Hour)
			return h, ok
		})
	})
	if err != nil {
		return nil, opError("read analytics of fleet "+fleetID, err)
	}
	return slices.Concat(parts...), nil
}

// AnalyticsRows lists the hours of a fleet in a day, with every column.
func (s *RollupStore) AnalyticsRows(ctx context.Context, fleetID string, day Day) ([]AnalyticsRow, error) {
	rows, err := collect(s.db, s.db.query(ctx, selectHourRows, fleetID, day.Time()), func(iter *gocql.Iter) (AnalyticsRow, bool) {
		r := AnalyticsRow{FleetID: fleetID, Day: day}
		ok := iter.Scan(&r.Hour, &r.TotalDistanceKm, &r.AvgSpeedKmh, &r.AlertsCount, &r.ActiveDevicesCount, &r.RecordsCount, &r.MaxSpeedKmh, &r.DrivingS)
		return r, ok
	})
	return rows, opError("read "+TableAnalytics, err)
}

// WriteAnalytics writes hours of one fleet and day as one mutation.
func (s *RollupStore) WriteAnalytics(ctx context.Context, rows []AnalyticsRow) error {
	a := newArena(len(rows), 11)
	b := s.db.batch(ctx, len(rows))
	for i := range rows {
		r := &rows[i]
		from := len(a.args)
		a.text(r.FleetID)
		a.date(r.Day)
		a.int(r.Hour)
		a.double(r.TotalDistanceKm)
		a.nullableDouble(r.AvgSpeedKmh)
		a.int(r.AlertsCount)
		a.int(r.ActiveDevicesCount)
		a.optionalBigint(r.RecordsCount)
		a.nullableDouble(r.MaxSpeedKmh)
		a.optionalBigint(r.DrivingS)
		a.bigint(r.WriteTimeUs)
		b.add(insertAnalytics, a.row(from))
	}
	return b.exec(TableAnalytics)
}

// DeleteAnalytics deletes an hour of a fleet that has no share of any device left.
func (s *RollupStore) DeleteAnalytics(ctx context.Context, fleetID string, hourMs, writeTimeUs int64) error {
	return s.db.exec(ctx, TableAnalytics, deleteAnalytics, writeTimeUs, fleetID, DayOf(hourMs).Time(), int32(hourMs%msPerDay/(60*60*1000)))
}
