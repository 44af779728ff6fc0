package validate

import (
	"strconv"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Bounds rejects records whose fields are out of range. It is safe for concurrent use.
type Bounds struct {
	fleets map[string]bool // nil: any
}

// NewBounds makes bounds that accept records of the given fleets, or of any fleet when there are none.
func NewBounds(fleets []string) *Bounds {
	if len(fleets) == 0 {
		return &Bounds{}
	}
	b := &Bounds{fleets: map[string]bool{}}
	for _, fleet := range fleets {
		b.fleets[fleet] = true
	}
	return b
}

// Check returns why a record can't be stored at the time nowMs (Unix milliseconds), or nil when it can. NaN fails every
// comparison.
func (b *Bounds) Check(r *telemetry.Record, nowMs int64) *telemetry.Rejection {
	switch {
	case !telemetry.ValidName(r.DeviceID):
		return badName(telemetry.FieldDeviceID, r.DeviceID)
	case !telemetry.ValidName(r.FleetID):
		return badName(telemetry.FieldFleetID, r.FleetID)
	case r.Zone != "" && !telemetry.ValidName(r.Zone):
		return badName(telemetry.FieldZone, r.Zone)
	case b.fleets != nil && !b.fleets[r.FleetID]:
		return telemetry.Reject(telemetry.UnknownFleet, telemetry.FieldFleetID, r.FleetID, "add it to ETL_FLEETS, or send as a fleet that is on it")
	case r.TimeMs > nowMs+telemetry.MaxAhead.Milliseconds():
		return telemetry.Reject(telemetry.Future, telemetry.FieldTimestamp, showTime(r), "set the device's clock, or check the unit and time zone of the timestamp")
	case r.TimeMs <= nowMs-telemetry.Retention.Milliseconds():
		return telemetry.Reject(telemetry.TooOld, telemetry.FieldTimestamp, showTime(r), "history is kept for 30 days; shift a recorded trace with --end-at")
	case !within(r.Lat, -90, 90):
		return outOf(telemetry.LatRange, telemetry.FieldLat, r.Lat, "give degrees from -90 to 90")
	case !within(r.Lon, -180, 180):
		return outOf(telemetry.LonRange, telemetry.FieldLon, r.Lon, "give degrees from -180 to 180")
	case r.Lat == 0 && r.Lon == 0:
		return telemetry.Reject(telemetry.ZeroPosition, telemetry.FieldLat, "0", "send no position while the receiver has no fix")
	case r.SpeedKmh.Valid && !within(r.SpeedKmh.Value, 0, telemetry.MaxSpeedKmh):
		return outOf(telemetry.SpeedRange, telemetry.FieldSpeed, r.SpeedKmh.Value, "give km/h from 0 to "+strconv.Itoa(telemetry.MaxSpeedKmh))
	case r.HeadingDeg.Valid && !within(r.HeadingDeg.Value, 0, 360):
		return outOf(telemetry.HeadingRange, telemetry.FieldHeading, r.HeadingDeg.Value, "give degrees from 0 to 360")
	case r.BatteryPct.Valid && !within(float64(r.BatteryPct.Value), 0, 100):
		return outOf(telemetry.BatteryRange, telemetry.FieldBattery, float64(r.BatteryPct.Value), "give percent from 0 to 100")
	case r.TempC.Valid && !within(r.TempC.Value, telemetry.MinTempC, telemetry.MaxTempC):
		return outOf(telemetry.TempRange, telemetry.FieldTemp, r.TempC.Value, "give degrees Celsius from -100 to 200")
	case r.AccuracyM.Valid && !within(r.AccuracyM.Value, 0, telemetry.MaxAccuracyM):
		return outOf(telemetry.AccuracyRange, telemetry.FieldAccuracy, r.AccuracyM.Value, "give meters from 0 to "+strconv.Itoa(telemetry.MaxAccuracyM)+", or leave it out")
	}
	return nil
}

func within(v, low, high float64) bool { return v >= low && v <= high }

func badName(field, value string) *telemetry.Rejection {
	if value == "" {
		return telemetry.Reject(telemetry.MissingField, field, "", "give it a value")
	}
	return telemetry.Reject(telemetry.BadID, field, value, "use 1 to 128 characters of A-Za-z0-9._:-")
}

func outOf(reason telemetry.Reason, field string, v float64, remedy string) *telemetry.Rejection {
	return telemetry.Reject(reason, field, strconv.FormatFloat(v, 'g', -1, 64), remedy)
}

func showTime(r *telemetry.Record) string {
	return r.Time().Format("2006-01-02T15:04:05.000Z07:00")
}
