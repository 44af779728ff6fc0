// Package query defines the query types of the data source, and parses and validates the queries that Grafana sends.
package query

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/settings"
)

// The query types.
const (
	TypeLatest    = "latest"
	TypeTrack     = "track"
	TypeAnalytics = "analytics"
	TypeAlerts    = "alerts"
	TypeDevices   = "devices"
	TypeFleets    = "fleets"
	TypeGeofences = "geofences"
	TypeRaw       = "raw"
	TypeVariable  = "variable"
)

// kinds lists, for each query type, an empty query and the formats that it supports, the default first.
var kinds = map[string]struct {
	empty   func() Query
	formats []string
}{
	TypeLatest:    {func() Query { return &Latest{} }, []string{FormatTable, FormatNumeric}},
	TypeTrack:     {func() Query { return &Track{} }, []string{FormatTimeSeries, FormatTable}},
	TypeAnalytics: {func() Query { return &Analytics{} }, []string{FormatTimeSeries, FormatTable}},
	TypeAlerts:    {func() Query { return &Alerts{} }, []string{FormatTable, FormatLogs, FormatTimeSeries, FormatNumeric, FormatAnnotations}},
	TypeDevices:   {func() Query { return &Devices{} }, []string{FormatTable, FormatNumeric}},
	TypeFleets:    {func() Query { return &Fleets{} }, []string{FormatTable, FormatNumeric}},
	TypeGeofences: {func() Query { return &Geofences{} }, []string{FormatTable, FormatNumeric}},
	TypeRaw:       {func() Query { return &Raw{} }, []string{FormatTable, FormatTimeSeries, FormatLogs}},
	TypeVariable:  {func() Query { return &Variable{} }, []string{FormatTable}},
}

// TypeInvalid is the type of queries that cannot be parsed or whose type is unknown.
const TypeInvalid = "invalid"

// Types lists the query types.
var Types = []string{TypeLatest, TypeTrack, TypeAnalytics, TypeAlerts, TypeDevices, TypeFleets, TypeGeofences, TypeRaw, TypeVariable}

// The formats of responses.
const (
	FormatTable       = "table"
	FormatTimeSeries  = "time_series"
	FormatNumeric     = "numeric"
	FormatLogs        = "logs"
	FormatAnnotations = "annotations"
)

// Formats lists the formats of responses.
var Formats = []string{FormatTable, FormatTimeSeries, FormatNumeric, FormatLogs, FormatAnnotations}

// The states of vehicles.
const (
	StateMoving  = "moving"
	StateStopped = "stopped"
	StateStale   = "stale"
	StateOffline = "offline"
)

// States lists the states of vehicles.
var States = []string{StateMoving, StateStopped, StateStale, StateOffline}

// The fields that queries can select, by query type.
var (
	LatestFields    = []string{"age_s", "speed_kmh", "battery_pct", "temp_c"}
	TrackFields     = []string{"speed_kmh", "battery_pct", "temp_c", "heading_deg", "lat", "lon"}
	AnalyticsFields = []string{"total_distance_km", "avg_speed_kmh", "alerts_count", "active_devices_count"}
)

// The kinds of dashboard variables.
const (
	VariableFleets     = "fleets"
	VariableDevices    = "devices"
	VariableZones      = "zones"
	VariableSeverities = "severities"
	VariableAlertTypes = "alert_types"
	VariableStates     = "states"
)

// Variables lists the kinds of dashboard variables.
var Variables = []string{VariableFleets, VariableDevices, VariableZones, VariableSeverities, VariableAlertTypes, VariableStates}

// The values of Alerts.Resolved; the empty string means any.
const (
	ResolvedAny    = "any"
	ResolvedOpen   = "open"
	ResolvedClosed = "resolved"
)

// Query is a parsed query: *Latest, *Track, *Analytics, *Alerts, *Devices, *Fleets, *Geofences, *Raw or *Variable.
type Query interface {
	// Base returns the part that all query types share.
	Base() *Common
	// validate checks the parts that only this query type has.
	validate() error
}

// Common is the part that all query types share. An empty Fleets means all fleets that the data source may read.
type Common struct {
	Type          string        `json:"-"`
	From          time.Time     `json:"-"`
	To            time.Time     `json:"-"`
	Interval      time.Duration `json:"-"` // between two points of a panel
	MaxDataPoints int           `json:"-"`

	Fleets  []string `json:"fleets"`
	Format  string   `json:"format"`
	Limit   int      `json:"limit"` // of rows; 0 means the limit of the data source
	Filters []Filter `json:"filters"`
}

// Base returns c.
func (c *Common) Base() *Common { return c }

func (c *Common) validate() error { return nil }

// RowLimit returns how many rows the query may return, at most most.
func (c *Common) RowLimit(most int) int {
	if c.Limit > 0 {
		return min(c.Limit, most)
	}
	return most
}

// Latest asks for the latest position and state of each vehicle.
type Latest struct {
	Common
	VehicleFilter
	Fields []string `json:"fields"` // of the format numeric
	Live   bool     `json:"live"`
}

// VehicleFilter selects vehicles by their latest record. The zero value selects every vehicle.
type VehicleFilter struct {
	Devices       []string `json:"devices"`
	States        []string `json:"states"`
	Zones         []string `json:"zones"`
	MinSpeedKmh   *float64 `json:"minSpeedKmh"`
	MaxSpeedKmh   *float64 `json:"maxSpeedKmh"`
	MinBatteryPct *float64 `json:"minBatteryPct"`
	MaxBatteryPct *float64 `json:"maxBatteryPct"`
}

func (q *Latest) validate() error {
	return cmp.Or(names("device", q.Devices), names("zone", q.Zones), oneOf("state", q.States, States), oneOf("field", q.Fields, LatestFields))
}

// Track asks for the positions of devices over the time range.
type Track struct {
	Common
	Devices []string `json:"devices"`
	Fields  []string `json:"fields"` // of the format time_series
}

func (q *Track) validate() error {
	if len(q.Devices) == 0 {
		return Invalid("devices: a track needs at least one; name it in the query or choose a value of the dashboard variable")
	}
	return cmp.Or(names("device", q.Devices), oneOf("field", q.Fields, TrackFields))
}

// Analytics asks for the hourly statistics of fleets.
type Analytics struct {
	Common
	Fields []string `json:"fields"` // of the format time_series
}

func (q *Analytics) validate() error { return oneOf("field", q.Fields, AnalyticsFields) }

// Alerts asks for the alerts of fleets in the time range.
type Alerts struct {
	Common
	Devices    []string `json:"devices"`
	Severities []string `json:"severities"`
	AlertTypes []string `json:"alertTypes"`
	Resolved   string   `json:"resolved"`
}

func (q *Alerts) validate() error {
	if q.Resolved == "" {
		q.Resolved = ResolvedAny
	}
	return cmp.Or(names("device", q.Devices), names("alert type", q.AlertTypes), oneOf("severity", q.Severities, cassandra.Severities),
		oneOf("resolved", []string{q.Resolved}, []string{ResolvedAny, ResolvedOpen, ResolvedClosed}))
}

// Devices asks for the registered devices of fleets.
type Devices struct {
	Common
	Devices []string `json:"devices"`
}

func (q *Devices) validate() error { return names("device", q.Devices) }

// Fleets asks for the fleets and the number of their vehicles in each state.
type Fleets struct{ Common }

// Geofences asks for the geofences of fleets.
type Geofences struct {
	Common
	Zones []string `json:"zones"` // names of geofences
}

func (q *Geofences) validate() error { return names("zone", q.Zones) }

// Raw runs a SELECT statement that a user wrote.
type Raw struct {
	Common
	CQL string `json:"cql"`
}

func (q *Raw) validate() error {
	if strings.TrimSpace(q.CQL) == "" {
		return Invalid("cql: it is empty; write a SELECT")
	}
	return nil
}

// Variable asks for the values of a dashboard variable.
type Variable struct {
	Common
	Kind string `json:"variable"`
}

func (q *Variable) validate() error {
	return oneOf("variable", []string{q.Kind}, Variables)
}

// Selected returns the selected fields without repetitions, or the default when none is selected.
func Selected(fields, byDefault []string) []string {
	var once []string
	for _, f := range fields {
		if !slices.Contains(once, f) {
			once = append(once, f)
		}
	}
	if len(once) == 0 {
		return byDefault
	}
	return once
}

func names(field string, values []string) error {
	for _, value := range values {
		if !settings.ValidName(value) {
			return Invalid("%s %q: %s", field, value, settings.NameRule)
		}
	}
	return nil
}

func oneOf(field string, values, choices []string) error {
	for _, value := range values {
		if !slices.Contains(choices, value) {
			return Invalid("%s %q: unknown; use one of %s", field, value, strings.Join(choices, ", "))
		}
	}
	return nil
}

// InvalidError rejects a query that cannot run as it is written. Its message names the field, the value and the remedy.
type InvalidError struct{ message string }

func (e *InvalidError) Error() string { return e.message }

// Invalid formats an *InvalidError.
func Invalid(format string, args ...any) error { return &InvalidError{fmt.Sprintf(format, args...)} }

// maxQueryBytes bounds the JSON of one query.
const maxQueryBytes = 1 << 20

// The points of a series: the number when Grafana names none, and the most. Prometheus has the same maximum.
const (
	defaultDataPoints = 1000
	maxDataPoints     = 11_000
)

// TypeOf returns the type of a query; TypeInvalid if its JSON cannot be parsed or its type is unknown.
func TypeOf(q backend.DataQuery) string {
	parsed, err := decode(q)
	if err != nil {
		return TypeInvalid
	}
	return parsed.Base().Type
}

// Parse parses and validates a query. For alert rules, alerting selects a format that rules can evaluate. Every error
// is an *InvalidError.
func Parse(q backend.DataQuery, alerting bool) (Query, error) {
	parsed, err := decode(q)
	if err != nil {
		return nil, err
	}
	c := parsed.Base()
	c.From, c.To, c.Interval = q.TimeRange.From, q.TimeRange.To, q.Interval
	if c.MaxDataPoints = int(min(q.MaxDataPoints, maxDataPoints)); c.MaxDataPoints <= 0 {
		c.MaxDataPoints = defaultDataPoints
	}
	if err := Validate(parsed, alerting); err != nil {
		return nil, err
	}
	return parsed, nil
}

// decode decodes the JSON of a query into the struct of its type.
func decode(q backend.DataQuery) (Query, error) {
	if len(q.JSON) > maxQueryBytes {
		return nil, Invalid("query: %d bytes of JSON; at most %d are accepted", len(q.JSON), maxQueryBytes)
	}
	var head struct {
		QueryType string `json:"queryType"`
	}
	text := q.JSON
	if len(text) == 0 {
		text = []byte("{}")
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, Invalid("query: %v", err)
	}
	kind := cmp.Or(q.QueryType, head.QueryType, TypeLatest)
	if err := oneOf("query type", []string{kind}, Types); err != nil {
		return nil, err
	}
	parsed := kinds[kind].empty()
	if err := json.Unmarshal(text, parsed); err != nil {
		return nil, Invalid("query: %v", err)
	}
	parsed.Base().Type = kind
	return parsed, nil
}

// Validate checks a query, prepares its filters, and sets the default format of its type.
func Validate(q Query, alerting bool) error {
	c := q.Base()
	if c.To.Before(c.From) {
		return Invalid("time range: it ends (%s) before it begins (%s)", c.To.Format(time.RFC3339), c.From.Format(time.RFC3339))
	}
	formats := kinds[c.Type].formats
	c.Format = cmp.Or(c.Format, formats[0])
	if err := oneOf("format of "+c.Type, []string{c.Format}, formats); err != nil {
		return err
	}
	// An alert rule compares numbers; a table has several number columns with different meanings.
	if alerting && c.Format == FormatTable && slices.Contains(formats, FormatNumeric) {
		c.Format = FormatNumeric
	}
	if err := names("fleet", c.Fleets); err != nil {
		return err
	}
	if c.Limit < 0 {
		return Invalid("limit %d: give a number above 0, or leave it out", c.Limit)
	}
	if err := compile(c.Filters); err != nil {
		return err
	}
	return q.validate()
}
