package pipeline

import (
	"encoding/json"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// rawOf is the text of an item for the dead letters: as it came, or where it never was a text, as JSON.
func rawOf(item *Item) string {
	if item.Raw != "" {
		return item.Raw
	}
	fields := map[string]any{
		telemetry.FieldDeviceID: item.DeviceID, telemetry.FieldFleetID: item.FleetID, telemetry.FieldTimestamp: item.TimeMs,
		telemetry.FieldLat: item.Lat, telemetry.FieldLon: item.Lon,
	}
	if item.Zone != "" {
		fields[telemetry.FieldZone] = item.Zone
	}
	if item.SpeedKmh.Valid {
		fields[telemetry.FieldSpeed] = item.SpeedKmh.Value
	}
	if item.HeadingDeg.Valid {
		fields[telemetry.FieldHeading] = item.HeadingDeg.Value
	}
	if item.BatteryPct.Valid {
		fields[telemetry.FieldBattery] = item.BatteryPct.Value
	}
	if item.TempC.Valid {
		fields[telemetry.FieldTemp] = item.TempC.Value
	}
	text, err := json.Marshal(fields)
	if err != nil { // NaN and infinity have no JSON; the rejection names them
		return item.DeviceID
	}
	return string(text)
}
