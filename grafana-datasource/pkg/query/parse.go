package query

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
)

// maxQueryBytes bounds the JSON of one query.
const maxQueryBytes = 1 << 20

// defaultDataPoints is used when Grafana names no maximum.
const defaultDataPoints = 1000

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
	c.RefID, c.From, c.To, c.Interval = q.RefID, q.TimeRange.From, q.TimeRange.To, q.Interval
	if c.MaxDataPoints = int(q.MaxDataPoints); c.MaxDataPoints <= 0 {
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
