package derive

import (
	"cmp"
	"slices"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/rollup"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const hourMs = int64(time.Hour / time.Millisecond)

// hourOf is the first instant of the hour of a time, both in Unix milliseconds.
func hourOf(ms int64) int64 { return ms - ms%hourMs }

func hourRow(deviceID string, h rollup.Hour) cassandra.HourRow {
	return cassandra.HourRow{
		FleetID: h.FleetID, HourMs: h.StartMs, DeviceID: deviceID, DistanceKm: h.DistanceKm,
		SpeedSumKmh: h.SpeedSumKmh, SpeedCount: h.SpeedCount, Records: h.Records, MaxSpeedKmh: h.MaxSpeedKmh.Value,
		DrivingS: float64(h.DrivingMs) / 1000, Alerts: h.Alerts,
	}
}

func tripRow(t rollup.Trip) cassandra.TripRow {
	return cassandra.TripRow{
		StartMs: t.StartMs, EndMs: t.EndMs, Kind: string(t.Kind), FleetID: t.FleetID, Open: t.Open,
		DistanceKm: t.DistanceKm, MaxSpeedKmh: t.MaxSpeedKmh.Ptr(), IdleS: float64(t.IdleMs) / 1000,
		StartLat: t.StartLat, StartLon: t.StartLon, EndLat: t.EndLat, EndLon: t.EndLon, StartZone: t.StartZone, EndZone: t.EndZone,
	}
}

func alertRow(deviceID string, a telemetry.Alert) cassandra.AlertState {
	return cassandra.AlertState{
		FleetID: a.FleetID, DeviceID: deviceID, Type: string(a.Type), Severity: string(a.Severity),
		OpenedMs: a.OpenedMs, StartedMs: a.StartedMs, EndedMs: a.EndedMs, Message: a.Message,
		Peak: a.Peak, Threshold: a.Threshold, Zone: a.Zone, Lat: a.Lat, Lon: a.Lon, Resolved: a.EndedMs != 0,
	}
}

// AlertOf is a stored alert as the alert that it is.
func AlertOf(r cassandra.AlertState) telemetry.Alert {
	return telemetry.Alert{
		FleetID: r.FleetID, DeviceID: r.DeviceID, Type: telemetry.AlertType(r.Type), Severity: telemetry.Severity(r.Severity),
		OpenedMs: r.OpenedMs, StartedMs: r.StartedMs, EndedMs: r.EndedMs, Message: r.Message,
		Peak: r.Peak, Threshold: r.Threshold, Zone: r.Zone, Lat: r.Lat, Lon: r.Lon,
	}
}

// sameAlert tells whether two rows of one alert say the same; who is to be told, and what was resolved by hand, is not
// theirs to say.
func sameAlert(a, b cassandra.AlertState) bool {
	a.Notify, a.Resolved = b.Notify, b.Resolved
	return a == b
}

func sameTrip(a, b cassandra.TripRow) bool {
	x, y := a.MaxSpeedKmh, b.MaxSpeedKmh
	a.MaxSpeedKmh, b.MaxSpeedKmh = nil, nil
	return a == b && samePointer(x, y)
}

func samePointer[T comparable](a, b *T) bool {
	return (a == nil) == (b == nil) && (a == nil || *a == *b)
}

func sortTrips(rows []cassandra.TripRow) {
	slices.SortFunc(rows, func(a, b cassandra.TripRow) int {
		return cmp.Or(cmp.Compare(a.StartMs, b.StartMs), cmp.Compare(a.Kind, b.Kind))
	})
}

// sumHours is the figures of a fleet's hour: what its devices add, in the order of their names, so that the sums of
// floating-point numbers are the same whoever makes them. found is false when nobody adds anything.
func sumHours(rows []cassandra.HourRow) (sum cassandra.AnalyticsRow, found bool) {
	if len(rows) == 0 {
		return sum, false
	}
	slices.SortFunc(rows, func(a, b cassandra.HourRow) int { return cmp.Compare(a.DeviceID, b.DeviceID) })
	sum.FleetID, sum.Day, sum.Hour = rows[0].FleetID, cassandra.DayOf(rows[0].HourMs), int32(rows[0].HourMs%(24*hourMs)/hourMs)
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

func sameAnalytics(a, b cassandra.AnalyticsRow) bool {
	return a.TotalDistanceKm == b.TotalDistanceKm && samePointer(a.AvgSpeedKmh, b.AvgSpeedKmh) && a.AlertsCount == b.AlertsCount &&
		a.ActiveDevicesCount == b.ActiveDevicesCount && samePointer(a.RecordsCount, b.RecordsCount) &&
		samePointer(a.MaxSpeedKmh, b.MaxSpeedKmh) && samePointer(a.DrivingS, b.DrivingS)
}
