package notifier

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// namePrefix begins the names of vehicles' alerts in Alertmanager.
const namePrefix = "FleetVehicle"

// The dashboard of one vehicle, and the time range that it shows around an alert.
const (
	vehicleDashboard = "/d/fleet-analytics"
	shownBefore      = time.Hour
	shownAfter       = 30 * time.Minute
)

// Labels identify an alert in Alertmanager. They do not depend on the instance that sends the alert, so the sends of
// several instances are one alert.
func Labels(a telemetry.Alert) map[string]string {
	return map[string]string{
		"alertname":      alertName(a.Type),
		"kind":           "fleet",
		"fleet":          a.FleetID,
		"device":         a.DeviceID,
		"type":           string(a.Type),
		"severity":       severityLabels[a.Severity],
		"fleet_severity": string(a.Severity),
	}
}

func alertName(t telemetry.AlertType) string {
	var b strings.Builder
	b.WriteString(namePrefix)
	for word := range strings.SplitSeq(string(t), "_") {
		if word != "" {
			b.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return b.String()
}

// severityLabels are the severities that Alertmanager routes on, shared with the alerts of the platform.
var severityLabels = map[telemetry.Severity]string{telemetry.High: "critical", telemetry.Medium: "warning", telemetry.Low: "info"}

// Annotations describe an alert to people. grafanaURL and runbookURL may be empty, which leaves out their links. There is
// no value or threshold for a type that has none. The runbook of an alert is named after it.
func Annotations(a telemetry.Alert, grafanaURL, runbookURL string) map[string]string {
	annotations := map[string]string{
		"summary":     a.DeviceID + ": " + types[a.Type].summary,
		"description": a.Message,
		"location":    location(a),
	}
	if a.Type != telemetry.GeofenceEnter && a.Type != telemetry.GeofenceExit {
		annotations["value"], annotations["threshold"] = valueText(a.Type, a.Peak), valueText(a.Type, a.Threshold)
	}
	if link := dashboardURL(a, grafanaURL); link != "" {
		annotations["dashboard_url"] = link
	}
	if runbookURL != "" {
		annotations["runbook_url"] = strings.TrimSuffix(runbookURL, "/") + "/" + alertName(a.Type) + ".md"
	}
	return annotations
}

// types describe the types of alerts: their summary, and the unit of their values. Values without a unit are seconds.
var types = map[telemetry.AlertType]struct{ summary, unit string }{
	telemetry.SpeedLimit:    {"speed limit", " km/h"},
	telemetry.BatteryLow:    {"battery low", " %"},
	telemetry.Temperature:   {"temperature", " °C"},
	telemetry.GeofenceEnter: {summary: "entered a geofence"},
	telemetry.GeofenceExit:  {summary: "left a geofence"},
	telemetry.GeofenceDwell: {summary: "too long in a geofence"},
	telemetry.DeviceOffline: {summary: "offline"},
	telemetry.DeviceStuck:   {summary: "position stuck"},
}

func valueText(t telemetry.AlertType, v float64) string {
	if unit := types[t].unit; unit != "" {
		return telemetry.FormatNumber(v) + unit
	}
	return telemetry.FormatDuration(time.Duration(v * float64(time.Second)))
}

func location(a telemetry.Alert) string {
	position := fmt.Sprintf("%.5f, %.5f", a.Lat, a.Lon)
	if a.Zone == "" {
		return position
	}
	return a.Zone + " (" + position + ")"
}

// dashboardURL links to the vehicle's dashboard at the time of the alert.
func dashboardURL(a telemetry.Alert, grafanaURL string) string {
	if grafanaURL == "" {
		return ""
	}
	to := "now"
	if a.EndedMs != 0 {
		to = strconv.FormatInt(a.EndedMs+shownAfter.Milliseconds(), 10)
	}
	return strings.TrimRight(grafanaURL, "/") + vehicleDashboard +
		"?var-fleet=" + url.QueryEscape(a.FleetID) + "&var-device=" + url.QueryEscape(a.DeviceID) +
		"&from=" + strconv.FormatInt(a.OpenedMs-shownBefore.Milliseconds(), 10) + "&to=" + to
}
