package cassandra

import (
	"context"
	"fmt"
	"slices"
	"time"
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

// AnalyticsRow holds the statistics of a fleet in one hour.
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
}

// Analytics returns statistics of the hour without values.
func (h FleetHour) Analytics() AnalyticsRow {
	return AnalyticsRow{FleetID: h.FleetID, Day: DayOf(h.HourMs), Hour: int32(h.HourMs % msPerDay / (60 * 60 * 1000))}
}

// Start is the first instant of the hour, UTC.
func (r *AnalyticsRow) Start() time.Time { return r.Day.Time().Add(time.Duration(r.Hour) * time.Hour) }

// RollupStore keeps hourly statistics: the share of each device, and their sum for a fleet.
type RollupStore struct{ *Session }

const (
	insertHour = "INSERT INTO hours_by_fleet (fleet_id, hour, device_id, distance_km, speed_sum_kmh, speed_count, records_count, max_speed_kmh, driving_s, alerts_count)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	deleteHour  = "DELETE FROM hours_by_fleet USING TIMESTAMP ? WHERE fleet_id = ? AND hour = ? AND device_id = ?"
	selectHours = "SELECT device_id, distance_km, speed_sum_kmh, speed_count, records_count, max_speed_kmh, driving_s, alerts_count" +
		" FROM hours_by_fleet WHERE fleet_id = ? AND hour = ?"

	insertAnalytics = "INSERT INTO fleet_analytics_by_day (fleet_id, day, hour, total_distance_km, avg_speed_kmh, alerts_count, active_devices_count," +
		" records_count, max_speed_kmh, driving_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	deleteAnalytics = "DELETE FROM fleet_analytics_by_day USING TIMESTAMP ? WHERE fleet_id = ? AND day = ? AND hour = ?"
	selectAnalytics = "SELECT hour, total_distance_km, avg_speed_kmh, alerts_count, active_devices_count, records_count, max_speed_kmh, driving_s" +
		" FROM fleet_analytics_by_day WHERE fleet_id = ? AND day = ?"
)

// ApplyHours applies what devices add to one hour of one fleet.
func (s *RollupStore) ApplyHours(ctx context.Context, rows []Mutation[HourRow]) error {
	return apply(ctx, s.Session, TableHours, 11, rows, insertHour, deleteHour,
		func(a *arena, r *HourRow) {
			a.add(&r.FleetID, &r.HourMs, &r.DeviceID)
		}, func(a *arena, r *HourRow) {
			a.add(&r.DistanceKm, &r.SpeedSumKmh, &r.SpeedCount, &r.Records, &r.MaxSpeedKmh, &r.DrivingS, &r.Alerts)
		})
}

// Hours lists the devices' shares of an hour of a fleet, sorted by device.
func (s *RollupStore) Hours(ctx context.Context, fleetID string, hourMs int64) ([]HourRow, error) {
	rows, err := collect(s.Session, s.query(ctx, selectHours, fleetID, time.UnixMilli(hourMs)), func(r *HourRow) []any {
		r.FleetID, r.HourMs = fleetID, hourMs
		return []any{&r.DeviceID, &r.DistanceKm, &r.SpeedSumKmh, &r.SpeedCount, &r.Records, &r.MaxSpeedKmh, &r.DrivingS, &r.Alerts}
	})
	return rows, opError("read "+TableHours, err)
}

// Analytics lists the hourly statistics of a fleet for the days from first to last, oldest first.
func (s *RollupStore) Analytics(ctx context.Context, fleetID string, first, last Day) ([]AnalyticsRow, error) {
	if err := checkRange(first, last); err != nil {
		return nil, fmt.Errorf("read analytics of fleet %s: %w", fleetID, err)
	}
	var days []Day
	for day := first; day <= last; day++ {
		days = append(days, day)
	}
	parts, err := fanOut(ctx, s.config.Fanout, days, func(ctx context.Context, day Day) ([]AnalyticsRow, error) {
		return collect(s.Session, s.query(ctx, selectAnalytics, fleetID, day), func(r *AnalyticsRow) []any {
			r.FleetID, r.Day = fleetID, day
			return []any{&r.Hour, &r.TotalDistanceKm, &r.AvgSpeedKmh, &r.AlertsCount, &r.ActiveDevicesCount, &r.RecordsCount, &r.MaxSpeedKmh, &r.DrivingS}
		})
	})
	return slices.Concat(parts...), opError("read analytics of fleet "+fleetID, err)
}

// ApplyAnalytics applies statistics of hours of one fleet and day. An hour in which no device has a share left is deleted.
func (s *RollupStore) ApplyAnalytics(ctx context.Context, rows []Mutation[AnalyticsRow]) error {
	return apply(ctx, s.Session, TableAnalytics, 11, rows, insertAnalytics, deleteAnalytics,
		func(a *arena, r *AnalyticsRow) {
			a.add(&r.FleetID, &r.Day, &r.Hour)
		}, func(a *arena, r *AnalyticsRow) {
			a.add(&r.TotalDistanceKm)
			a.set(&r.AvgSpeedKmh)
			a.add(&r.AlertsCount, &r.ActiveDevicesCount, &r.RecordsCount)
			a.set(&r.MaxSpeedKmh)
			a.add(&r.DrivingS)
		})
}
