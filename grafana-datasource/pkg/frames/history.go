package frames

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/downsample"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
)

// Alerts makes a table of alerts.
func Alerts(rows []cassandra.Alert, links Links) *data.Frame {
	return table("alerts", timeField(alertTimes(rows)),
		field("severity", nil, values(rows, func(a *cassandra.Alert) string { return a.Severity })),
		field("alert_type", nil, values(rows, func(a *cassandra.Alert) string { return a.Type })),
		links.deviceField(values(rows, func(a *cassandra.Alert) string { return a.DeviceID })),
		field("fleet_id", nil, values(rows, func(a *cassandra.Alert) string { return a.FleetID })),
		field("message", nil, values(rows, func(a *cassandra.Alert) string { return a.Message })),
		field("resolved", nil, values(rows, func(a *cassandra.Alert) bool { return a.Resolved })))
}

func alertTimes(rows []cassandra.Alert) []time.Time {
	return values(rows, func(a *cassandra.Alert) time.Time { return a.Opened() })
}

// logLevels maps severities to the levels by which Grafana colors log lines.
var logLevels = map[string]string{"HIGH": "critical", "MEDIUM": "warning", "LOW": "info"}

// AlertLogs makes a log frame of alerts. It takes the memory of the frame from the account of ctx.
func AlertLogs(ctx context.Context, rows []cassandra.Alert) (*data.Frame, error) {
	if err := takeLogLines(ctx, len(rows), 5); err != nil {
		return nil, err
	}
	return logLines(values(rows, func(a *cassandra.Alert) logLine {
		return logLine{
			time: a.Opened(), level: logLevels[a.Severity], id: alertID(a),
			body: fmt.Sprintf("%s %s: %s", a.DeviceID, a.Type, cmp.Or(a.Message, "no message")),
			labels: labelsText(map[string]string{
				"fleet_id": a.FleetID, "device_id": a.DeviceID, "alert_type": a.Type, "severity": a.Severity, "state": alertState(a),
			}),
		}
	})), nil
}

// AlertAnnotations makes a frame of annotations.
func AlertAnnotations(rows []cassandra.Alert) *data.Frame {
	return table("alerts", timeField(alertTimes(rows)),
		data.NewField("title", nil, values(rows, func(a *cassandra.Alert) string { return a.Severity + " " + a.Type })),
		data.NewField("text", nil, values(rows, func(a *cassandra.Alert) string { return a.DeviceID + ": " + cmp.Or(a.Message, a.Type) })),
		data.NewField("tags", nil, values(rows, func(a *cassandra.Alert) string {
			return strings.Join([]string{a.Severity, a.Type, a.FleetID, alertState(a)}, ",")
		})),
		data.NewField("id", nil, values(rows, alertID)))
}

func alertState(a *cassandra.Alert) string {
	if a.Resolved {
		return "resolved"
	}
	return "open"
}

func alertID(a *cassandra.Alert) string {
	return fmt.Sprintf("%s/%s/%s/%d", a.FleetID, a.DeviceID, a.Type, a.OpenedMs)
}

// AlertSeries counts alerts by severity in steps of the interval, with at most maxPoints steps. A step without alerts
// counts zero, so that alert rules can distinguish it from no data.
func AlertSeries(rows []cassandra.Alert, severities []string, from, to time.Time, interval time.Duration, maxPoints int) data.Frames {
	step := max(interval, time.Second)
	for to.Sub(from)/step > time.Duration(max(maxPoints, 1)) {
		step *= 2
	}
	first := from.Truncate(step)
	times := make([]time.Time, int(to.Sub(first)/step)+1)
	for i := range times {
		times[i] = first.Add(time.Duration(i) * step)
	}
	counts := map[string][]int64{}
	for _, severity := range severities {
		counts[severity] = make([]int64, len(times))
	}
	for i := range rows {
		if n, ok := counts[rows[i].Severity]; ok {
			n[min(max(int(rows[i].Opened().Sub(first)/step), 0), len(times)-1)]++
		}
	}
	var frames data.Frames
	for _, severity := range severities {
		value := field("count", data.Labels{"severity": severity}, counts[severity])
		value.Config.DisplayName, value.Config.DisplayNameFromDS = "", severity
		frames = append(frames, series(times, value))
	}
	return frames
}

// AlertCounts counts alerts by fleet and severity, zeros included: a rule that fired must see a zero to resolve.
func AlertCounts(rows []cassandra.Alert, fleets, severities []string) *data.Frame {
	type key struct{ fleet, severity string }
	counted := map[key]int64{}
	for i := range rows {
		counted[key{rows[i].FleetID, rows[i].Severity}]++
	}
	var fleet, severity []string
	var counts []int64
	for _, f := range fleets {
		for _, s := range severities {
			fleet, severity, counts = append(fleet, f), append(severity, s), append(counts, counted[key{f, s}])
		}
	}
	return numeric("alerts", field("fleet_id", nil, fleet), field("severity", nil, severity), field("count", nil, counts))
}

// HourSeries makes one time series of hours for each fleet and field; none for fleets without hours.
func HourSeries(fleets []string, hours [][]cassandra.AnalyticsRow, fields []string) data.Frames {
	var frames data.Frames
	for i, fleet := range fleets {
		if len(hours[i]) == 0 {
			continue
		}
		times := hourTimes(hours[i])
		for _, name := range fields {
			value := field(name, data.Labels{"fleet_id": fleet}, values(hours[i], hourNumbers[name]))
			nameSeries(value, fleet, len(fleets) > 1, len(fields) > 1)
			frames = append(frames, series(times, value))
		}
	}
	return frames
}

// HourTable makes a table of hourly statistics.
func HourTable(hours []cassandra.AnalyticsRow) *data.Frame {
	f := table("analytics", timeField(hourTimes(hours)), field("fleet_id", nil, values(hours, func(h *cassandra.AnalyticsRow) string { return h.FleetID })))
	for _, name := range query.AnalyticsFields {
		f.Fields = append(f.Fields, field(name, nil, values(hours, hourNumbers[name])))
	}
	return f
}

func hourTimes(hours []cassandra.AnalyticsRow) []time.Time {
	return values(hours, (*cassandra.AnalyticsRow).Start)
}

var hourNumbers = map[string]func(*cassandra.AnalyticsRow) *float64{
	"total_distance_km":    func(h *cassandra.AnalyticsRow) *float64 { return &h.TotalDistanceKm },
	"avg_speed_kmh":        func(h *cassandra.AnalyticsRow) *float64 { return h.AvgSpeedKmh },
	"alerts_count":         func(h *cassandra.AnalyticsRow) *float64 { n := float64(h.AlertsCount); return &n },
	"active_devices_count": func(h *cassandra.AnalyticsRow) *float64 { n := float64(h.ActiveDevicesCount); return &n },
}

// routeFields are the numbers of the positions of a route.
var routeFields = []string{"lat", "lon", "speed_kmh", "heading_deg", "battery_pct", "temp_c"}

// PositionNumbers are the numbers of a position, by field. NaN is unknown.
var PositionNumbers = map[string]func(*cassandra.Position) *float64{
	"lat":         func(p *cassandra.Position) *float64 { return &p.Lat },
	"lon":         func(p *cassandra.Position) *float64 { return &p.Lon },
	"speed_kmh":   func(p *cassandra.Position) *float64 { return &p.SpeedKmh },
	"heading_deg": func(p *cassandra.Position) *float64 { return &p.HeadingDeg },
	"battery_pct": func(p *cassandra.Position) *float64 { return &p.BatteryPct },
	"temp_c":      func(p *cassandra.Position) *float64 { return &p.TempC },
}

// TrackSeries makes the time series of one field of a track, or nil if it has no points.
func TrackSeries(device, name string, points []downsample.Row[float64], severalDevices, severalFields bool) *data.Frame {
	if len(points) == 0 {
		return nil
	}
	value := field(name, data.Labels{"device_id": device}, values(points, func(p *downsample.Row[float64]) float64 { return p.Value }))
	nameSeries(value, device, severalDevices, severalFields)
	return series(values(points, rowTime), value)
}

func rowTime[V any](r *downsample.Row[V]) time.Time { return time.UnixMilli(r.TsMs).UTC() }

// Route makes the frame of one vehicle: a route layer of a map connects all points of a frame.
func Route(device string, rows []downsample.Row[cassandra.Position]) *data.Frame {
	f := table(device, timeField(values(rows, rowTime)), field("device_id", nil, values(rows, func(*downsample.Row[cassandra.Position]) string { return device })))
	for _, name := range routeFields {
		number := PositionNumbers[name]
		f.Fields = append(f.Fields, field(name, nil, values(rows, func(r *downsample.Row[cassandra.Position]) *float64 {
			if v := number(&r.Value); !math.IsNaN(*v) {
				return v
			}
			return nil
		})))
	}
	f.Fields = append(f.Fields,
		field("zone", nil, values(rows, func(r *downsample.Row[cassandra.Position]) string { return r.Value.Zone })),
		field("fleet_id", nil, values(rows, func(r *downsample.Row[cassandra.Position]) string { return r.Value.Fleet })))
	return f
}
