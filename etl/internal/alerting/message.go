package alerting

import (
	"fmt"
	"math"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// message describes an alert to people: its peak, how long it lasted once it has ended, and where it opened.
func message(o *standing) string {
	lasted, in := "", ""
	if o.EndedMs > o.StartedMs {
		lasted = ", for " + telemetry.FormatDuration(time.Duration(o.EndedMs-o.StartedMs)*time.Millisecond)
	}
	if o.Zone != "" {
		in = ", in " + o.Zone
	}
	peak, limit := telemetry.FormatNumber(o.Peak), telemetry.FormatNumber(o.Threshold)
	switch o.Type {
	case telemetry.SpeedLimit:
		return peak + " km/h where " + telemetry.FormatNumber(o.Base) + " are allowed" + lasted + in
	case telemetry.BatteryLow:
		if o.Peak < o.Threshold {
			return "battery at " + peak + " %, below " + limit + " %" + lasted + in
		}
		return "battery down to " + peak + " %" + lasted + in
	case telemetry.Temperature:
		switch {
		case o.Below && o.Peak < o.Threshold:
			return "temperature " + peak + " °C, below " + limit + " °C" + lasted + in
		case o.Below:
			return "temperature down to " + peak + " °C" + lasted + in
		case o.Peak > o.Threshold:
			return "temperature " + peak + " °C, above " + limit + " °C" + lasted + in
		}
		return "temperature up to " + peak + " °C" + lasted + in
	case telemetry.GeofenceEnter:
		return "entered " + o.Zone
	case telemetry.GeofenceExit:
		return "left " + o.Zone
	case telemetry.GeofenceDwell:
		return fmt.Sprintf("in %s for %s where %s are allowed", o.Zone, secondsText(o.Peak), secondsText(o.Threshold))
	case telemetry.DeviceOffline:
		layout := "15:04 MST"
		if o.Peak >= (12 * time.Hour).Seconds() {
			layout = "2 January 15:04 MST" // the hour alone could be that of another day
		}
		return fmt.Sprintf("silent since %s (%s)%s", time.UnixMilli(o.StartedMs).UTC().Format(layout), secondsText(o.Peak), in)
	case telemetry.DeviceStuck:
		return fmt.Sprintf("has not moved for %s though it reports %s km/h or more%s", secondsText(o.Peak), telemetry.FormatNumber(o.Base), in)
	}
	return ""
}

func secondsText(s float64) string {
	return telemetry.FormatDuration(time.Duration(math.Round(s*1000)) * time.Millisecond)
}
