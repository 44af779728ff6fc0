package derived

import (
	"cmp"
	"math"
	"reflect"
	"slices"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/rollup"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// HourMs is one hour in milliseconds.
const HourMs = int64(time.Hour / time.Millisecond)

// HourOf returns the first instant of the hour of a time, both in Unix milliseconds.
func HourOf(ms int64) int64 { return ms - ms%HourMs }

// TripKey identifies a trip or stop of a device.
type TripKey struct {
	StartMs int64
	Kind    rollup.TripKind
}

// AlertKey identifies an alert of a device.
type AlertKey struct {
	OpenedMs int64
	Type     telemetry.AlertType
}

// KeyOf returns the key of an alert.
func KeyOf(a telemetry.Alert) AlertKey { return AlertKey{a.OpenedMs, a.Type} }

// KeyOfRow returns the key of a stored alert.
func KeyOfRow(r cassandra.Alert) AlertKey { return AlertKey{r.OpenedMs, telemetry.AlertType(r.Type)} }

// KeyOfTrip returns the key of a stored trip or stop.
func KeyOfTrip(r cassandra.TripRow) TripKey { return TripKey{r.StartMs, rollup.TripKind(r.Kind)} }

// ByKey returns rows by their keys.
func ByKey[K comparable, R any](rows []R, keyOf func(R) K) map[K]R {
	byKey := make(map[K]R, len(rows))
	for _, row := range rows {
		byKey[keyOf(row)] = row
	}
	return byKey
}

// Stats collects the latest version of hours, trips and stops.
type Stats struct {
	Hours map[cassandra.FleetHour]rollup.Hour
	Trips map[TripKey]rollup.Trip
}

// NewStats returns empty statistics.
func NewStats() Stats {
	return Stats{Hours: map[cassandra.FleetHour]rollup.Hour{}, Trips: map[TripKey]rollup.Trip{}}
}

// Hour implements rollup.Sink.
func (s *Stats) Hour(h rollup.Hour) {
	s.Hours[cassandra.FleetHour{FleetID: h.FleetID, HourMs: h.StartMs}] = h
}

// Trip implements rollup.Sink.
func (s *Stats) Trip(t rollup.Trip) { s.Trips[TripKey{t.StartMs, t.Kind}] = t }

// HourRow converts what a device adds to an hour.
func HourRow(deviceID string, h rollup.Hour) cassandra.HourRow {
	return cassandra.HourRow{
		FleetID: h.FleetID, HourMs: h.StartMs, DeviceID: deviceID, DistanceKm: h.DistanceKm,
		SpeedSumKmh: h.SpeedSumKmh, SpeedCount: h.SpeedCount, Records: h.Records, MaxSpeedKmh: h.MaxSpeedKmh.Value,
		DrivingS: float64(h.DrivingMs) / 1000, Alerts: h.Alerts,
	}
}

// TripRow converts a trip or stop.
func TripRow(t rollup.Trip) cassandra.TripRow {
	return cassandra.TripRow{
		StartMs: t.StartMs, EndMs: t.EndMs, Kind: string(t.Kind), FleetID: t.FleetID, Open: t.Open,
		DistanceKm: t.DistanceKm, MaxSpeedKmh: t.MaxSpeedKmh.Ptr(), IdleS: float64(t.IdleMs) / 1000,
		StartLat: t.StartLat, StartLon: t.StartLon, EndLat: t.EndLat, EndLon: t.EndLon, StartZone: t.StartZone, EndZone: t.EndZone,
	}
}

// AlertRow converts an alert of a device.
func AlertRow(deviceID string, a telemetry.Alert) cassandra.Alert {
	return cassandra.Alert{
		FleetID: a.FleetID, DeviceID: deviceID, Type: string(a.Type), Severity: string(a.Severity),
		OpenedMs: a.OpenedMs, StartedMs: a.StartedMs, EndedMs: a.EndedMs, Message: a.Message,
		Peak: a.Peak, Threshold: a.Threshold, Zone: a.Zone, Lat: a.Lat, Lon: a.Lon, Resolved: a.EndedMs != 0,
	}
}

// AlertOf converts a stored alert.
func AlertOf(r cassandra.Alert) telemetry.Alert {
	return telemetry.Alert{
		FleetID: r.FleetID, DeviceID: r.DeviceID, Type: telemetry.AlertType(r.Type), Severity: telemetry.Severity(r.Severity),
		OpenedMs: r.OpenedMs, StartedMs: r.StartedMs, EndedMs: r.EndedMs, Message: r.Message,
		Peak: r.Peak, Threshold: r.Threshold, Zone: r.Zone, Lat: r.Lat, Lon: r.Lon,
	}
}

// RecordOf converts a stored record. ok is false if it has no valid position, as a row that another program wrote.
func RecordOf(t *cassandra.Telemetry) (r telemetry.Record, ok bool) {
	return telemetry.Record{
		DeviceID: t.DeviceID, FleetID: t.FleetID, Zone: t.Zone, TimeMs: t.Ts.UnixMilli(), Lat: t.Lat, Lon: t.Lon,
		SpeedKmh: plausible(t.SpeedKmh), HeadingDeg: plausible(t.HeadingDeg), TempC: plausible(t.TempC),
		BatteryPct: telemetry.FromPtr(t.BatteryPct), AccuracyM: plausible(t.AccuracyM),
	}, math.Abs(t.Lat) <= 90 && math.Abs(t.Lon) <= 180
}

// plausible leaves out a value that no valid record has, such as NaN or infinity: states and sums must be finite.
func plausible(v *float64) telemetry.Optional[float64] {
	if v == nil || math.IsNaN(*v) || math.Abs(*v) > telemetry.MaxAccuracyM { // the largest of all bounds
		return telemetry.Optional[float64]{}
	}
	return telemetry.Some(*v)
}

// SameAlert compares two rows of one alert, without the notification and the resolution by hand, which do not follow from
// records.
func SameAlert(a, b cassandra.Alert) bool {
	a.Notify, a.Resolved = b.Notify, b.Resolved
	return a == b
}

// SameTrip compares two rows of one trip.
func SameTrip(a, b cassandra.TripRow) bool { return reflect.DeepEqual(a, b) }

// SumHours adds up what devices add to one hour of a fleet, in the order of their names, so that the sums of
// floating-point numbers do not depend on who adds them up. found is false without any row.
func SumHours(rows []cassandra.HourRow) (sum cassandra.AnalyticsRow, found bool) {
	if len(rows) == 0 {
		return sum, false
	}
	slices.SortFunc(rows, func(a, b cassandra.HourRow) int { return cmp.Compare(a.DeviceID, b.DeviceID) })
	sum = cassandra.FleetHour{FleetID: rows[0].FleetID, HourMs: rows[0].HourMs}.Analytics()
	var speeds, driving float64
	var speedCount, records int64
	for i := range rows {
		r := &rows[i]
		sum.TotalDistanceKm += r.DistanceKm
		speeds += r.SpeedSumKmh
		speedCount += r.SpeedCount
		records += r.Records
		driving += r.DrivingS
		sum.AlertsCount += r.Alerts
		if r.Records > 0 {
			sum.ActiveDevicesCount++
		}
		if r.SpeedCount > 0 && (sum.MaxSpeedKmh == nil || r.MaxSpeedKmh > *sum.MaxSpeedKmh) {
			sum.MaxSpeedKmh = &r.MaxSpeedKmh
		}
	}
	if speedCount > 0 {
		mean := speeds / float64(speedCount)
		sum.AvgSpeedKmh = &mean
	}
	seconds := int64(driving)
	sum.RecordsCount, sum.DrivingS = &records, &seconds
	return sum, true
}

// SameAnalytics compares two sums of one hour.
func SameAnalytics(a, b cassandra.AnalyticsRow) bool { return reflect.DeepEqual(a, b) }
