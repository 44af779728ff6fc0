package pipeline

import (
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// FieldsOf returns a record for the dead letters, field by field.
func FieldsOf(r *telemetry.Record) map[string]string {
	fields := map[string]string{
		telemetry.FieldDeviceID: r.DeviceID, telemetry.FieldFleetID: r.FleetID, telemetry.FieldZone: r.Zone,
		telemetry.FieldTimestamp: TimeText(r.TimeMs),
		telemetry.FieldLat:       numberText(telemetry.Some(r.Lat)), telemetry.FieldLon: numberText(telemetry.Some(r.Lon)),
		telemetry.FieldSpeed: numberText(r.SpeedKmh), telemetry.FieldHeading: numberText(r.HeadingDeg), telemetry.FieldBattery: numberText(r.BatteryPct),
		telemetry.FieldTemp: numberText(r.TempC), telemetry.FieldAccuracy: numberText(r.AccuracyM),
	}
	maps.DeleteFunc(fields, func(_, text string) bool { return text == "" })
	return fields
}

// numberText returns a number as text, "" for none.
func numberText[N int32 | float64](o telemetry.Optional[N]) string {
	if !o.Valid {
		return ""
	}
	return fmt.Sprint(o.Value)
}

// TimeText formats an event time in Unix milliseconds such that the zero telemetry.TimeFormat parses the same time. It
// would read a number before 1973 as seconds, and RFC 3339 ends with the year 9999.
func TimeText(ms int64) string {
	t := time.UnixMilli(ms).UTC()
	if t.Year() < 0 || t.Year() > 9999 {
		return strconv.FormatInt(ms, 10)
	}
	return t.Format("2006-01-02T15:04:05.000Z07:00")
}
