package alerting

import (
	"fmt"
	"math"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// message describes an alert to people: what happened, and whether it ended because the vehicle moved to another fleet.
func message(a *alertState) string {
	if a.Moved {
		return description(a) + "; ended by the move to another fleet"
	}
	return description(a)
}

// description describes an alert: its peak, how long it lasted once it has ended, and where it opened.
func description(a *alertState) string {
	lasted, in := "", ""
	if a.EndedMs > a.StartedMs {
		lasted = ", for " + telemetry.FormatDuration(time.Duration(a.EndedMs-a.StartedMs)*time.Millisecond)
	}
	if a.Zone != "" {
		in = ", in " + a.Zone
	}
	peak, limit := telemetry.FormatNumber(a.Peak), telemetry.FormatNumber(a.Threshold)
	switch a.Type {
	case telemetry.SpeedLimit:
		return peak + " km/h, limit " + telemetry.FormatNumber(a.Base) + " km/h" + lasted + in
	case telemetry.BatteryLow:
		if a.Peak < a.Threshold {
			return "battery at " + peak + " %, below " + limit + " %" + lasted + in
		}
		return "battery down to " + peak + " %" + lasted + in
	case telemetry.Temperature:
		switch {
		case a.Below && a.Peak < a.Threshold:
			return "temperature " + peak + " °C, below " + limit + " °C" + lasted + in
		case a.Below:
			return "temperature down to " + peak + " °C" + lasted + in
		case a.Peak > a.Threshold:
			return "temperature " + peak + " °C, above " + limit + " °C" + lasted + in
		}
		return "temperature up to " + peak + " °C" + lasted + in
	case telemetry.GeofenceEnter:
		return "entered " + a.Zone
	case telemetry.GeofenceExit:
		return "left " + a.Zone
	case telemetry.GeofenceDwell:
		return fmt.Sprintf("in %s for %s, limit %s", a.Zone, secondsText(a.Peak), secondsText(a.Threshold))
	case telemetry.DeviceOffline:
		layout := "15:04 MST"
		if a.Peak >= (12 * time.Hour).Seconds() {
			layout = "2 January 15:04 MST" // the hour alone could be that of another day
		}
		return fmt.Sprintf("no data since %s (%s)%s", time.UnixMilli(a.StartedMs).UTC().Format(layout), secondsText(a.Peak), in)
	case telemetry.DeviceStuck:
		return fmt.Sprintf("position unchanged for %s while reporting %s km/h or more%s", secondsText(a.Peak), telemetry.FormatNumber(a.Base), in)
	}
	return ""
}

func secondsText(s float64) string {
	return telemetry.FormatDuration(time.Duration(math.Round(s*1000)) * time.Millisecond)
}
