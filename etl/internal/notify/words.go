package notify

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// The names of vehicles' alerts in Alertmanager begin with it.
const alertNames = "FleetVehicle"

// The dashboard of one vehicle, and how much of its day is shown around an alert.
const (
	vehicleDashboard = "/d/fleet-analytics"
	shownBefore      = time.Hour
	shownAfter       = 30 * time.Minute
)

// Labels identify an alert in Alertmanager. They are the same whoever posts it: that is how the posts of several
// processes are one alert.
func Labels(a telemetry.Alert) map[string]string {
	return map[string]string{
		"alertname":      alertName(a.Type),
		"kind":           "fleet",
		"fleet":          a.FleetID,
		"device":         a.DeviceID,
		"type":           string(a.Type),
		"severity":       severityLabel(a.Severity),
		"fleet_severity": string(a.Severity),
	}
}

func alertName(t telemetry.AlertType) string {
	var b strings.Builder
	b.WriteString(alertNames)
	for word := range strings.SplitSeq(string(t), "_") {
		if word != "" {
			b.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return b.String()
}

// severityLabel is what the routes of all alerts, the platform's too, go by.
func severityLabel(s telemetry.Severity) string {
	switch s {
	case telemetry.High:
		return "critical"
	case telemetry.Medium:
		return "warning"
	default:
		return "info"
	}
}

// Annotations are what people read of an alert. In the folder runbookURL there is a page for each alert name. grafanaURL
// and runbookURL may be empty: their links are left out then, as value and threshold are where the type has none.
func Annotations(a telemetry.Alert, grafanaURL, runbookURL string) map[string]string {
	words := map[string]string{
		"summary":     a.DeviceID + ": " + inWords(a.Type),
		"description": a.Message,
		"place":       place(a),
	}
	if hasValue(a.Type) {
		words["value"], words["threshold"] = amount(a.Type, a.Peak), amount(a.Type, a.Threshold)
	}
	if link := dashboardURL(a, grafanaURL); link != "" {
		words["dashboard_url"] = link
	}
	if runbookURL != "" {
		words["runbook_url"] = strings.TrimSuffix(runbookURL, "/") + "/" + alertName(a.Type) + ".md"
	}
	return words
}

func inWords(t telemetry.AlertType) string {
	switch t {
	case telemetry.GeofenceEnter:
		return "entered a zone"
	case telemetry.GeofenceExit:
		return "left a zone"
	case telemetry.GeofenceDwell:
		return "too long in a zone"
	case telemetry.DeviceOffline:
		return "offline"
	case telemetry.DeviceStuck:
		return "position stuck"
	default:
		return strings.ReplaceAll(string(t), "_", " ")
	}
}

// hasValue tells whether there is anything to measure about a type.
func hasValue(t telemetry.AlertType) bool {
	return t != telemetry.GeofenceEnter && t != telemetry.GeofenceExit
}

func amount(t telemetry.AlertType, v float64) string {
	number := strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0")
	switch t {
	case telemetry.SpeedLimit:
		return number + " km/h"
	case telemetry.BatteryLow:
		return number + " %"
	case telemetry.Temperature:
		return number + " °C"
	default:
		return span(v)
	}
}

// span is a number of seconds as people say it.
func span(seconds float64) string {
	s := int64(seconds + 0.5)
	d, h, m, s := s/86400, s/3600%24, s/60%60, s%60
	switch {
	case d > 0:
		return fmt.Sprintf("%d d %d h", d, h)
	case h > 0:
		return fmt.Sprintf("%d h %d min", h, m)
	case m > 0 && s > 0:
		return fmt.Sprintf("%d min %d s", m, s)
	case m > 0:
		return fmt.Sprintf("%d min", m)
	default:
		return fmt.Sprintf("%d s", s)
	}
}

func place(a telemetry.Alert) string {
	at := fmt.Sprintf("%.5f, %.5f", a.Lat, a.Lon)
	if a.Zone == "" {
		return at
	}
	return a.Zone + " (" + at + ")"
}

// dashboardURL leads to the vehicle's page at the time of the alert.
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
