package query

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var start = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func dataQuery(text string) backend.DataQuery {
	return backend.DataQuery{RefID: "A", JSON: json.RawMessage(text), Interval: time.Minute, MaxDataPoints: 500,
		TimeRange: backend.TimeRange{From: start, To: start.Add(time.Hour)}}
}

func common(kind, format string, fleets ...string) Common {
	return Common{Type: kind, From: start, To: start.Add(time.Hour), Interval: time.Minute, MaxDataPoints: 500, Format: format, Fleets: fleets}
}

func TestParseEachType(t *testing.T) {
	speed := 5.0
	for text, want := range map[string]Query{
		`{"queryType":"latest","fleets":["f"],"states":["moving"],"minSpeedKmh":5,"live":true}`: &Latest{
			Common: common(TypeLatest, "table", "f"), VehicleFilter: VehicleFilter{States: []string{"moving"}, MinSpeedKmh: &speed}, Live: true},
		`{"queryType":"track","devices":["d"],"fields":["lat"]}`:       &Track{Common: common(TypeTrack, "time_series"), Devices: []string{"d"}, Fields: []string{"lat"}},
		`{"queryType":"analytics","format":"table"}`:                   &Analytics{Common: common(TypeAnalytics, "table")},
		`{"queryType":"alerts","severities":["HIGH"],"format":"logs"}`: &Alerts{Common: common(TypeAlerts, "logs"), Severities: []string{"HIGH"}, Resolved: "any"},
		`{"queryType":"devices","devices":["d"]}`:                      &Devices{Common: common(TypeDevices, "table"), Devices: []string{"d"}},
		`{"queryType":"fleets"}`:                                       &Fleets{common(TypeFleets, "table")},
		`{"queryType":"geofences","zones":["z"]}`:                      &Geofences{Common: common(TypeGeofences, "table"), Zones: []string{"z"}},
		`{"queryType":"raw","cql":"SELECT 1"}`:                         &Raw{Common: common(TypeRaw, "table"), CQL: "SELECT 1"},
		`{"queryType":"variable","variable":"zones"}`:                  &Variable{Common: common(TypeVariable, "table"), Kind: "zones"},
		`{}`: &Latest{Common: common(TypeLatest, "table")},
		``:   &Latest{Common: common(TypeLatest, "table")},
		// A panel that changed its type keeps fields of other types, which do not matter.
		`{"queryType":"fleets","severities":["old"],"fields":["old"]}`: &Fleets{common(TypeFleets, "table")},
	} {
		got, err := Parse(dataQuery(text), false)
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
	}
}

func TestParsePrefersTheTypeOfGrafana(t *testing.T) {
	q := dataQuery(`{"queryType":"raw"}`)
	q.QueryType, q.MaxDataPoints = TypeFleets, 0
	got, err := Parse(q, false)
	require.NoError(t, err)
	assert.IsType(t, &Fleets{}, got)
	assert.Equal(t, 1000, got.Base().MaxDataPoints)
}

func TestAlertRulesGetNumbers(t *testing.T) {
	for text, want := range map[string]string{
		`{"queryType":"latest"}`:                           FormatNumeric,
		`{"queryType":"alerts"}`:                           FormatNumeric,
		`{"queryType":"alerts","format":"time_series"}`:    FormatTimeSeries,
		`{"queryType":"track","devices":["d"]}`:            FormatTimeSeries,
		`{"queryType":"raw","cql":"SELECT"}`:               FormatTable,
		`{"queryType":"analytics","format":"table"}`:       FormatTable,
		`{"queryType":"geofences"}`:                        FormatNumeric,
		`{"queryType":"variable","variable":"severities"}`: FormatTable,
	} {
		got, err := Parse(dataQuery(text), true)
		require.NoError(t, err, text)
		assert.Equal(t, want, got.Base().Format, text)
	}
}

func TestParseErrorsNameFieldValueAndRemedy(t *testing.T) {
	for text, want := range map[string]string{
		`{"queryType":"everything"}`:            `query type "everything": unknown; use one of latest, track`,
		`{"queryType":"latest","format":"pie"}`: `format of latest "pie": unknown; use one of table, numeric`,
		`{"fleets":["a b"]}`:                    `fleet "a b": a name has 1 to 128 characters`,
		`{"devices":[""]}`:                      `device "": a name has`,
		`{"zones":["a/b"]}`:                     `zone "a/b": a name has`,
		`{"states":["flying"]}`:                 `state "flying": unknown; use one of moving`,
		`{"fields":["lat"]}`:                    `field "lat": unknown; use one of age_s`,
		`{"limit":-1}`:                          `limit -1: give a number above 0`,
		`{"fleets":"north"}`:                    "cannot unmarshal",
		`{`:                                     "query: unexpected end",
		`{"queryType":"track"}`:                 "devices: a track needs at least one",
		`{"queryType":"track","devices":["d"],"fields":["x"]}`: `field "x": unknown; use one of speed_kmh`,
		`{"queryType":"analytics","fields":["x"]}`:             `field "x": unknown; use one of total_distance_km`,
		`{"queryType":"alerts","severities":["high"]}`:         `severity "high": unknown; use one of HIGH`,
		`{"queryType":"alerts","alertTypes":["a b"]}`:          `alert type "a b"`,
		`{"queryType":"alerts","resolved":"maybe"}`:            `resolved "maybe": unknown; use one of any`,
		`{"queryType":"devices","devices":["a b"]}`:            `device "a b"`,
		`{"queryType":"geofences","zones":["a b"]}`:            `zone "a b"`,
		`{"queryType":"raw","cql":" "}`:                        "cql: it is empty; write a SELECT",
		`{"queryType":"variable"}`:                             `variable "": unknown; use one of fleets`,
		`{"filters":[{"key":"zone","operator":"~"}]}`:          `operator of filter zone "~": unknown`,
	} {
		got, err := Parse(dataQuery(text), false)
		require.ErrorContains(t, err, want, text)
		assert.Nil(t, got)
		var invalid *InvalidError
		assert.ErrorAs(t, err, &invalid)
	}
	q := dataQuery(`{}`)
	q.TimeRange.From = q.TimeRange.To.Add(time.Second)
	_, err := Parse(q, false)
	require.ErrorContains(t, err, "time range: it ends (2026-03-01T01:00:00Z) before it begins (2026-03-01T01:00:01Z)")
	q.JSON = make([]byte, maxQueryBytes+1)
	_, err = Parse(q, false)
	require.ErrorContains(t, err, "query: 1048577 bytes of JSON; at most 1048576 are accepted")
}

func TestTypeOf(t *testing.T) {
	for text, want := range map[string]string{
		`{}`: TypeLatest, `{"queryType":"track"}`: TypeTrack, `{"queryType":"alerts","resolved":"maybe"}`: TypeAlerts,
		`{`: TypeInvalid, `{"queryType":"everything"}`: TypeInvalid, `{"queryType":"latest","fleets":"north"}`: TypeInvalid,
	} {
		assert.Equal(t, want, TypeOf(dataQuery(text)), text)
	}
}

func TestSelectedFieldsAndRowLimit(t *testing.T) {
	assert.Equal(t, []string{"age_s"}, Selected(nil, []string{"age_s"}))
	assert.Equal(t, []string{"lat", "lon"}, Selected([]string{"lat", "lon", "lat"}, AnalyticsFields))
	assert.Equal(t, 10, (&Common{}).RowLimit(10))
	assert.Equal(t, 5, (&Common{Limit: 5}).RowLimit(10))
	assert.Equal(t, 10, (&Common{Limit: 50}).RowLimit(10))
}

func TestMaxDataPointsIsBounded(t *testing.T) {
	for given, want := range map[int64]int{0: 1000, -1: 1000, 500: 500, 11_000: 11_000, 2_000_000_000: 11_000, math.MaxInt64: 11_000} {
		q := dataQuery(`{}`)
		q.MaxDataPoints = given
		got, err := Parse(q, false)
		require.NoError(t, err)
		assert.Equal(t, want, got.Base().MaxDataPoints)
	}
}
