package plugin

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// The types of queries.
const (
	typeLatest    = "latest"
	typeTrack     = "track"
	typeAnalytics = "analytics"
	typeAlerts    = "alerts"
	typeDevices   = "devices"
	typeFleets    = "fleets"
	typeGeofences = "geofences"
	typeRaw       = "raw"
	typeVariable  = "variable"
)

// The formats of answers.
const (
	formatTable       = "table"
	formatTimeSeries  = "time_series"
	formatNumeric     = "numeric"
	formatLogs        = "logs"
	formatAnnotations = "annotations"
)

// formats lists what each type can answer with, its default first.
var formats = map[string][]string{
	typeLatest:    {formatTable, formatNumeric},
	typeTrack:     {formatTimeSeries, formatTable},
	typeAnalytics: {formatTimeSeries, formatTable},
	typeAlerts:    {formatTable, formatLogs, formatTimeSeries, formatNumeric, formatAnnotations},
	typeDevices:   {formatTable, formatNumeric},
	typeFleets:    {formatTable, formatNumeric},
	typeGeofences: {formatTable, formatNumeric},
	typeRaw:       {formatTable, formatTimeSeries, formatLogs},
	typeVariable:  {formatTable},
}

var types = []string{typeLatest, typeTrack, typeAnalytics, typeAlerts, typeDevices, typeFleets, typeGeofences, typeRaw, typeVariable}

// query is one query of a panel, rule or variable, read and checked.
type query struct {
	refID         string
	queryType     string
	from, to      time.Time
	interval      time.Duration
	maxDataPoints int
	alerting      bool // asked by an alert rule
	model
}

// model is the query as the editor keeps it.
type model struct {
	Fleets        []string `json:"fleets"`
	Devices       []string `json:"devices"`
	States        []string `json:"states"`
	Zones         []string `json:"zones"`
	MinSpeedKmh   *float64 `json:"minSpeedKmh"`
	MaxSpeedKmh   *float64 `json:"maxSpeedKmh"`
	MinBatteryPct *float64 `json:"minBatteryPct"`
	MaxBatteryPct *float64 `json:"maxBatteryPct"`
	Severities    []string `json:"severities"`
	AlertTypes    []string `json:"alertTypes"`
	Resolved      string   `json:"resolved"`
	Fields        []string `json:"fields"`
	Format        string   `json:"format"`
	Limit         int      `json:"limit"`
	Live          bool     `json:"live"`
	CQL           string   `json:"cql"`
	Filters       []filter `json:"filters"`
	Variable      string   `json:"variable"`
}

// The states of vehicles.
const (
	stateMoving  = "moving"
	stateIdle    = "idle"
	stateStale   = "stale"
	stateOffline = "offline"
)

var states = []string{stateMoving, stateIdle, stateStale, stateOffline}

var (
	trackFields     = []string{"speed_kmh", "battery_pct", "temp_c", "heading_deg", "lat", "lon"}
	latestFields    = []string{"age_s", "speed_kmh", "battery_pct", "temp_c"}
	analyticsFields = []string{"total_distance_km", "avg_speed_kmh", "alerts_count", "active_devices_count"}
	variables       = []string{"fleets", "devices", "zones", "severities", "alert_types", "states"}
)

// maxQueryText is the longest query in bytes of JSON.
const maxQueryText = 1 << 20

// parseQuery reads a query; the error names the field, the value and what can stand there.
func parseQuery(q backend.DataQuery, alerting bool) (*query, error) {
	if len(q.JSON) > maxQueryText {
		return nil, invalid("query of %d bytes: at most %d are taken", len(q.JSON), maxQueryText)
	}
	p := &query{
		refID: q.RefID, from: q.TimeRange.From, to: q.TimeRange.To, interval: q.Interval, maxDataPoints: int(q.MaxDataPoints),
		queryType: q.QueryType, alerting: alerting,
	}
	var typed struct {
		QueryType string `json:"queryType"`
	}
	if len(q.JSON) > 0 {
		if err := json.Unmarshal(q.JSON, &p.model); err != nil {
			return nil, invalid("query: %v", err)
		}
		_ = json.Unmarshal(q.JSON, &typed) // it was read just now
	}
	p.queryType = cmp.Or(p.queryType, typed.QueryType, typeLatest)
	if p.maxDataPoints <= 0 {
		p.maxDataPoints = 1000
	}
	if p.to.Before(p.from) {
		return nil, invalid("time range: it ends (%s) before it begins (%s)", p.to.Format(time.RFC3339), p.from.Format(time.RFC3339))
	}
	return p, p.check()
}

func (q *query) check() error {
	if err := among("query type", []string{q.queryType}, types); err != nil {
		return err
	}
	choices := formats[q.queryType]
	if q.Format == "" {
		q.Format = choices[0]
	}
	if err := among("format of "+q.queryType, []string{q.Format}, choices); err != nil {
		return err
	}
	// A rule compares numbers; a table has too many kinds of them.
	if q.alerting && q.Format == formatTable && slices.Contains(choices, formatNumeric) {
		q.Format = formatNumeric
	}
	for _, named := range []struct {
		field  string
		values []string
	}{{"fleet", q.Fleets}, {"device", q.Devices}, {"zone", q.Zones}, {"alert type", q.AlertTypes}} {
		for _, value := range named.values {
			if !validName(value) {
				return invalid("%s %q: %s", named.field, value, nameRule)
			}
		}
	}
	if err := among("state", q.States, states); err != nil {
		return err
	}
	if err := among("severity", q.Severities, cassandra.Severities); err != nil {
		return err
	}
	if err := among("resolved", []string{cmp.Or(q.Resolved, "any")}, []string{"any", "open", "resolved"}); err != nil {
		return err
	}
	fields := map[string][]string{typeTrack: trackFields, typeLatest: latestFields, typeAnalytics: analyticsFields}[q.queryType]
	if fields != nil {
		if err := among("field", q.Fields, fields); err != nil {
			return err
		}
	}
	if q.Limit < 0 {
		return invalid("limit %d: give a number above 0, or leave it out", q.Limit)
	}
	for i := range q.Filters {
		if err := q.Filters[i].compile(); err != nil {
			return err
		}
	}
	switch q.queryType {
	case typeTrack:
		if len(q.Devices) == 0 {
			return invalid("devices: a track needs at least one; name it in the query or choose a value of the dashboard's variable")
		}
	case typeRaw:
		if strings.TrimSpace(q.CQL) == "" {
			return invalid("cql: it is empty; write a SELECT")
		}
	case typeVariable:
		return among("variable", []string{q.Variable}, variables)
	}
	return nil
}

// fields are those that were asked for, or the first of all.
func (q *query) fields(fallback ...string) []string {
	if len(q.Fields) == 0 {
		return fallback
	}
	var once []string
	for _, field := range q.Fields {
		if !slices.Contains(once, field) {
			once = append(once, field)
		}
	}
	return once
}

// rowLimit is how many rows the query may give back.
func (q *query) rowLimit(s *settings) int {
	if q.Limit > 0 {
		return min(q.Limit, s.maxRows)
	}
	return s.maxRows
}

func among(field string, values, choices []string) error {
	for _, value := range values {
		if !slices.Contains(choices, value) {
			return invalid("%s %q: there is none of that name; take %s", field, value, strings.Join(choices, ", "))
		}
	}
	return nil
}

// filter is an ad-hoc filter: a condition on a column of the answer.
type filter struct {
	Key      string   `json:"key"`
	Operator string   `json:"operator"`
	Value    string   `json:"value"`
	Values   []string `json:"values"`

	pattern *regexp.Regexp
	number  float64
}

var operators = []string{"=", "!=", "=|", "!=|", "=~", "!~", "<", ">"}

// maxPattern bounds regular expressions; the engine takes time in proportion to them.
const maxPattern = 1000

func (f *filter) compile() error {
	if err := among("operator of filter "+f.Key, []string{f.Operator}, operators); err != nil {
		return err
	}
	var err error
	switch f.Operator {
	case "=~", "!~":
		if len(f.Value) > maxPattern {
			return invalid("filter %s: a pattern of %d characters, at most %d are taken", f.Key, len(f.Value), maxPattern)
		}
		if f.pattern, err = regexp.Compile("^(?:" + f.Value + ")$"); err != nil {
			return invalid("filter %s %q: %v", f.Key, f.Value, err)
		}
	case "<", ">":
		if f.number, err = strconv.ParseFloat(strings.TrimSpace(f.Value), 64); err != nil {
			return invalid("filter %s %s %q: give a number", f.Key, f.Operator, f.Value)
		}
	}
	return nil
}

// cell is a value of a column as filters see it: a text, a number, or nothing.
type cell struct {
	text   string
	number *float64
}

func textCell(s string) cell { return cell{text: s} }

func numberCell(v *float64) cell {
	if v == nil {
		return cell{}
	}
	return cell{text: strconv.FormatFloat(*v, 'f', -1, 64), number: v}
}

// passes tells whether a row has what the filters ask for. A column that the answer doesn't have is no condition: the
// filters of a dashboard go to all of its panels.
func passes(filters []filter, column func(key string) (cell, bool)) bool {
	for i := range filters {
		f := &filters[i]
		c, known := column(f.Key)
		if !known {
			continue
		}
		var ok bool
		switch f.Operator {
		case "=":
			ok = c.text == f.Value
		case "!=":
			ok = c.text != f.Value
		case "=|":
			ok = slices.Contains(f.Values, c.text)
		case "!=|":
			ok = !slices.Contains(f.Values, c.text)
		case "=~":
			ok = f.pattern.MatchString(c.text)
		case "!~":
			ok = !f.pattern.MatchString(c.text)
		case "<":
			ok = c.number != nil && *c.number < f.number
		case ">":
			ok = c.number != nil && *c.number > f.number
		}
		if !ok {
			return false
		}
	}
	return true
}

// invalidError is a query that can't be run as it stands.
type invalidError struct{ message string }

func (e *invalidError) Error() string { return e.message }

func invalid(format string, args ...any) error { return &invalidError{fmt.Sprintf(format, args...)} }

// forbiddenError is a query for what the data source has no right on.
type forbiddenError struct{ message string }

func (e *forbiddenError) Error() string { return e.message }

func forbidden(fleet string, s *settings) error {
	return &forbiddenError{fmt.Sprintf("fleet %q: this data source has no right on it; its settings allow %s", fleet, strings.Join(s.allowedFleets, ", "))}
}
