package cassandra

import (
	"context"
	"fmt"
	"slices"
	"strings"
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
	insertHour = "INSERT INTO hours_by_fleet (fleet_id, hour, bucket, device_id, distance_km, speed_sum_kmh, speed_count, records_count, max_speed_kmh, driving_s, alerts_count)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	selectHours = "SELECT device_id, distance_km, speed_sum_kmh, speed_count, records_count, max_speed_kmh, driving_s, alerts_count" +
		" FROM hours_by_fleet WHERE fleet_id = ? AND hour = ? AND bucket = ?"

	insertAnalytics = "INSERT INTO fleet_analytics_by_day (fleet_id, day, hour, total_distance_km, avg_speed_kmh, alerts_count, active_devices_count," +
		" records_count, max_speed_kmh, driving_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	deleteAnalytics = "DELETE FROM fleet_analytics_by_day USING TIMESTAMP ? WHERE fleet_id = ? AND day = ? AND hour = ?"
	selectAnalytics = "SELECT hour, total_distance_km, avg_speed_kmh, alerts_count, active_devices_count, records_count, max_speed_kmh, driving_s" +
		" FROM fleet_analytics_by_day WHERE fleet_id = ? AND day = ?"
)

const hourBuckets = 4

// HourBucket is the partition of a device's share of an hour of a fleet.
func HourBucket(deviceID string) int32 { return bucketOf(deviceID, hourBuckets) }

// ApplyHours applies what devices of one HourBucket add to one hour of one fleet. A deletion writes zeros. It counts more
// than a write of the same time, as a tombstone does, and less than a write of the next µs: of equal times the greater value
// wins.
func (s *RollupStore) ApplyHours(ctx context.Context, rows []Mutation[HourRow]) error {
	return insert(ctx, s.Session, TableHours, insertHour, 12, rows, func(a *arena, m *Mutation[HourRow]) {
		r, at, bucket := m.Row, m.WriteTimeUs, HourBucket(m.Row.DeviceID)
		if m.Delete {
			r = HourRow{FleetID: r.FleetID, HourMs: r.HourMs, DeviceID: r.DeviceID}
			at++
		}
		a.add(&r.FleetID, &r.HourMs, &bucket, &r.DeviceID)
		a.add(&r.DistanceKm, &r.SpeedSumKmh, &r.SpeedCount, &r.Records, &r.MaxSpeedKmh, &r.DrivingS, &r.Alerts, &at)
	})
}

// Hours lists the devices' shares of an hour of a fleet, sorted by device.
func (s *RollupStore) Hours(ctx context.Context, fleetID string, hourMs int64) ([]HourRow, error) {
	parts, err := fanOut(ctx, s.config.Fanout, buckets(hourBuckets), func(ctx context.Context, bucket int32) ([]HourRow, error) {
		rows, err := collect(s.Session, s.query(ctx, selectHours, fleetID, time.UnixMilli(hourMs), bucket), func(r *HourRow) []any {
			r.FleetID, r.HourMs = fleetID, hourMs
			return []any{&r.DeviceID, &r.DistanceKm, &r.SpeedSumKmh, &r.SpeedCount, &r.Records, &r.MaxSpeedKmh, &r.DrivingS, &r.Alerts}
		})
		return slices.DeleteFunc(rows, func(r HourRow) bool {
			return r == HourRow{FleetID: fleetID, HourMs: hourMs, DeviceID: r.DeviceID} // was deleted
		}), err
	})
	rows := slices.Concat(parts...)
	slices.SortFunc(rows, func(a, b HourRow) int { return strings.Compare(a.DeviceID, b.DeviceID) })
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
