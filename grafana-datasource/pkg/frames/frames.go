// Package frames converts rows to the data frames that Grafana shows. Frames follow the Grafana data plane contract.
package frames

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/memory"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
)

// column is the display name and the Grafana unit of a column.
type column struct{ title, unit string }

var columns = map[string]column{
	"device_id":            {"Vehicle", ""},
	"fleet_id":             {"Fleet", ""},
	"status":               {"Status", ""},
	"lat":                  {"Latitude", "degree"},
	"lon":                  {"Longitude", "degree"},
	"heading_deg":          {"Heading", "degree"},
	"speed_kmh":            {"Speed", "velocitykmh"},
	"battery_pct":          {"Battery", "percent"},
	"temp_c":               {"Temperature", "celsius"},
	"zone":                 {"Geofence", ""},
	"last_ts":              {"Last seen", ""},
	"age_s":                {"Age", "s"},
	"total_distance_km":    {"Distance", "lengthkm"},
	"avg_speed_kmh":        {"Mean speed", "velocitykmh"},
	"alerts_count":         {"Alerts", "none"},
	"active_devices_count": {"Active vehicles", "none"},
	"severity":             {"Severity", ""},
	"alert_type":           {"Type", ""},
	"message":              {"Message", ""},
	"resolved":             {"Resolved", ""},
	"model":                {"Model", ""},
	"activated_at":         {"First seen", ""},
	"name":                 {"Name", ""},
	"kind":                 {"Kind", ""},
	"radius_m":             {"Radius", "lengthm"},
	"speed_limit_kmh":      {"Speed limit", "velocitykmh"},
	"dwell_s":              {"Longest stay", "s"},
	"geometry":             {"Geometry", ""},
	"vehicles":             {"Vehicles", "none"},
	"moving":               {"Moving", "none"},
	"stopped":              {"Stopped", "none"},
	"stale":                {"Stale", "none"},
	"offline":              {"Offline", "none"},
	"newest_ts":            {"Latest position", ""},
	"count":                {"Count", "none"},
}

// version is the version of the data plane contract. Without it Grafana guesses the type of a frame.
var version = data.FrameTypeVersion{0, 1}

// field makes a field with its display name, unit and colors.
func field(name string, labels data.Labels, values any) *data.Field {
	f := data.NewField(name, labels, values)
	f.Config = &data.FieldConfig{}
	if c, ok := columns[name]; ok {
		f.Config.DisplayName, f.Config.Unit = c.title, c.unit
	}
	switch name {
	case "lat", "lon":
		f.Config.SetDecimals(5)
	case "battery_pct":
		f.Config.SetMin(0).SetMax(100)
	case "status":
		f.Config.Mappings = valueColors(map[string]string{
			query.StateMoving: "green", query.StateStopped: "blue", query.StateStale: "orange", query.StateOffline: "red",
		})
	case "severity":
		f.Config.Mappings = valueColors(map[string]string{"HIGH": "red", "MEDIUM": "orange", "LOW": "yellow"})
	}
	return f
}

func valueColors(colors map[string]string) data.ValueMappings {
	mapper := data.ValueMapper{}
	for i, name := range slices.Sorted(maps.Keys(colors)) {
		mapper[name] = data.ValueMappingResult{Color: colors[name], Index: i}
	}
	return data.ValueMappings{mapper}
}

// values extracts one value of each row.
func values[R, T any](rows []R, value func(*R) T) []T {
	list := make([]T, len(rows))
	for i := range rows {
		list[i] = value(&rows[i])
	}
	return list
}

// timeField makes the time field of a frame.
func timeField(times []time.Time) *data.Field { return data.NewField("time", nil, times) }

func table(name string, fields ...*data.Field) *data.Frame {
	return frame(name, data.FrameTypeTable, data.VisTypeTable, fields...)
}

// numeric makes a table for alert rules: text columns identify a row, number columns are its measures.
func numeric(name string, fields ...*data.Field) *data.Frame {
	return frame(name, data.FrameTypeNumericLong, data.VisTypeTable, fields...)
}

// series makes one time series, identified by the labels of its value field.
func series(times []time.Time, value *data.Field) *data.Frame {
	return frame(value.Name, data.FrameTypeTimeSeriesMulti, data.VisTypeGraph, timeField(times), value)
}

func frame(name string, kind data.FrameType, vis data.VisType, fields ...*data.Field) *data.Frame {
	return data.NewFrame(name, fields...).SetMeta(&data.FrameMeta{Type: kind, TypeVersion: version, PreferredVisualization: vis})
}

// Bytes estimates the memory that frames take together with their encoded form.
func Bytes(list data.Frames) int {
	n := 0
	for _, frame := range list {
		n += memory.SeriesBytes
		for _, f := range frame.Fields {
			if n += f.Len() * memory.CellBytes; f.Labels != nil {
				n += memory.SeriesBytes
			}
			n += 2 * textBytes(f)
		}
	}
	return n
}

// textBytes returns the length of the texts of a field.
func textBytes(f *data.Field) int {
	n := 0
	switch f.Type() {
	case data.FieldTypeString, data.FieldTypeNullableString:
		for i := range f.Len() {
			if text, ok := f.ConcreteAt(i); ok {
				n += len(text.(string))
			}
		}
	case data.FieldTypeJSON:
		for i := range f.Len() {
			n += len(f.At(i).(json.RawMessage))
		}
	}
	return n
}

// NoSeries is the response without any time series. Alert rules read it as "no data".
func NoSeries() *data.Frame {
	return data.NewFrame("").SetMeta(&data.FrameMeta{Type: data.FrameTypeTimeSeriesMulti, TypeVersion: version})
}

// nameSeries sets the display name of a series: the shortest text that distinguishes it from the other series.
func nameSeries(value *data.Field, owner string, severalOwners, severalFields bool) {
	title := columns[value.Name].title
	value.Config.DisplayName = ""
	switch {
	case !severalOwners:
		value.Config.DisplayNameFromDS = title
	case !severalFields:
		value.Config.DisplayNameFromDS = owner
	default:
		value.Config.DisplayNameFromDS = owner + ", " + title
	}
}

// logLine is one line of a log frame.
type logLine struct {
	time   time.Time
	body   string
	level  string
	id     string
	labels json.RawMessage
}

// labelsText returns labels as JSON. A map of texts always marshals.
func labelsText(labels map[string]string) json.RawMessage {
	text, _ := json.Marshal(labels)
	return text
}

// takeLogLines takes the memory of a log frame from the account of ctx.
func takeLogLines(ctx context.Context, lines, labels int) error {
	const fields, labelBytes = 5, 64
	return memory.Take(ctx, lines*(2*fields*memory.CellBytes+labels*labelBytes))
}

// logLines makes a log frame of the data plane contract.
func logLines(lines []logLine) *data.Frame {
	return data.NewFrame("logs",
		data.NewField("timestamp", nil, values(lines, func(l *logLine) time.Time { return l.time })),
		data.NewField("body", nil, values(lines, func(l *logLine) string { return l.body })),
		data.NewField("severity", nil, values(lines, func(l *logLine) string { return l.level })),
		data.NewField("id", nil, values(lines, func(l *logLine) string { return l.id })),
		data.NewField("labels", nil, values(lines, func(l *logLine) json.RawMessage { return l.labels })),
	).SetMeta(&data.FrameMeta{Type: data.FrameTypeLogLines, PreferredVisualization: data.VisTypeLogs})
}
