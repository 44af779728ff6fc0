package pipeline

import (
	"strconv"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// rawOf returns the text of an item for the dead letters: as it came, or as JSON when it never was text.
func rawOf(item *Item) string {
	if item.Raw != "" {
		return item.Raw
	}
	text, err := item.AppendJSON(nil)
	if err != nil { // JSON has no NaN and no infinity; the rejection names them
		return item.DeviceID
	}
	return string(text)
}

// FieldsOf returns a record for the dead letters, field by field.
func FieldsOf(r *telemetry.Record) map[string]string {
	fields := map[string]string{
		telemetry.FieldDeviceID: r.DeviceID, telemetry.FieldFleetID: r.FleetID, telemetry.FieldZone: r.Zone,
		telemetry.FieldTimestamp: TimeText(r.TimeMs),
		telemetry.FieldLat:       floatText(r.Lat), telemetry.FieldLon: floatText(r.Lon),
	}
	for _, name := range [...]string{telemetry.FieldDeviceID, telemetry.FieldFleetID, telemetry.FieldZone} {
		if fields[name] == "" {
			delete(fields, name)
		}
	}
	for name, o := range map[string]telemetry.Optional[float64]{
		telemetry.FieldSpeed: r.SpeedKmh, telemetry.FieldHeading: r.HeadingDeg, telemetry.FieldTemp: r.TempC,
		telemetry.FieldAccuracy: r.AccuracyM,
	} {
		if o.Valid {
			fields[name] = floatText(o.Value)
		}
	}
	if r.BatteryPct.Valid {
		fields[telemetry.FieldBattery] = strconv.Itoa(int(r.BatteryPct.Value))
	}
	return fields
}

func floatText(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// TimeText formats an event time in Unix milliseconds such that the zero telemetry.TimeFormat parses the same time. It
// would read a number before 1973 as seconds, and RFC 3339 ends with the year 9999.
func TimeText(ms int64) string {
	t := time.UnixMilli(ms).UTC()
	if t.Year() < 0 || t.Year() > 9999 {
		return strconv.FormatInt(ms, 10)
	}
	return t.Format("2006-01-02T15:04:05.000Z07:00")
}
