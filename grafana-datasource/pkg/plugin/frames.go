package plugin

import (
	"slices"

	"github.com/grafana/grafana-plugin-sdk-go/data"
)

// column is what panels are told of a column: how people call it, and its unit in Grafana's names.
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
	"zone":                 {"Zone", ""},
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
	"idle":                 {"Idle", "none"},
	"stale":                {"Stale", "none"},
	"offline":              {"Offline", "none"},
	"newest_ts":            {"Newest fix", ""},
	"count":                {"Count", "none"},
}

// field makes a field whose display name and unit are set.
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
		f.Config.Mappings = valueColours(map[string]string{stateMoving: "green", stateIdle: "blue", stateStale: "orange", stateOffline: "red"})
	case "severity":
		f.Config.Mappings = valueColours(map[string]string{"HIGH": "red", "MEDIUM": "orange", "LOW": "yellow"})
	}
	return f
}

func valueColours(colours map[string]string) data.ValueMappings {
	mapper := data.ValueMapper{}
	names := make([]string, 0, len(colours))
	for name := range colours {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		mapper[name] = data.ValueMappingResult{Color: colours[name], Index: i}
	}
	return data.ValueMappings{mapper}
}

// contract is the version of Grafana's data plane contract that typed frames keep to; without one Grafana guesses.
var contract = data.FrameTypeVersion{0, 1}

func table(name string, fields ...*data.Field) *data.Frame {
	return data.NewFrame(name, fields...).SetMeta(&data.FrameMeta{
		Type: data.FrameTypeTable, TypeVersion: contract, PreferredVisualization: data.VisTypeTable,
	})
}

// numeric is a table for rules: texts name what is measured, numbers are the measures.
func numeric(name string, fields ...*data.Field) *data.Frame {
	return data.NewFrame(name, fields...).SetMeta(&data.FrameMeta{
		Type: data.FrameTypeNumericLong, TypeVersion: contract, PreferredVisualization: data.VisTypeTable,
	})
}

// series is one time series. The field's labels tell which.
func series(times, values *data.Field) *data.Frame {
	return data.NewFrame(values.Name, times, values).SetMeta(&data.FrameMeta{
		Type: data.FrameTypeTimeSeriesMulti, TypeVersion: contract, PreferredVisualization: data.VisTypeGraph,
	})
}

// noSeries says that there is no series, in the form that rules read as "no data".
func noSeries() *data.Frame {
	return data.NewFrame("").SetMeta(&data.FrameMeta{Type: data.FrameTypeTimeSeriesMulti, TypeVersion: contract})
}
