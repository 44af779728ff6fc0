package query

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMatch(t *testing.T) {
	speed := 48.5
	columns := Columns[float64]{
		"zone":      func(*float64) Cell { return Text("depot") },
		"speed_kmh": Number,
		"temp_c":    func(*float64) Cell { return Number(nil) },
		"amount":    func(*float64) Cell { return TextAndNumber("1.50", 1.5) },
	}
	for _, c := range []struct {
		key, operator, value string
		values               []string
		want                 bool
	}{
		{"zone", "=", "depot", nil, true},
		{"zone", "=", "port", nil, false},
		{"zone", "!=", "port", nil, true},
		{"zone", "=|", "", []string{"port", "depot"}, true},
		{"zone", "=|", "", []string{"port"}, false},
		{"zone", "!=|", "", []string{"port"}, true},
		{"zone", "=~", "d.*", nil, true},
		{"zone", "=~", "epo", nil, false}, // patterns match the whole text
		{"zone", "!~", "p|d.*", nil, false},
		{"zone", ">", "1", nil, false}, // a text is in no order
		{"speed_kmh", ">", " 48 ", nil, true},
		{"speed_kmh", "<", "48.5", nil, false},
		{"speed_kmh", "=", "48.5", nil, true},
		{"temp_c", "<", "100", nil, false}, // an absent value is not zero
		{"temp_c", "=", "", nil, true},
		{"amount", "=", "1.50", nil, true},
		{"amount", ">", "1.4", nil, true},
		{"namespace", "=", "x", nil, true}, // of another panel
	} {
		filters := []Filter{{Key: c.key, Operator: c.operator, Value: c.value, Values: c.values}}
		require.NoError(t, compile(filters))
		got := Match(filters, columns, &speed)
		assert.Equal(t, c.want, got, "%s %s %s%v", c.key, c.operator, c.value, c.values)
	}
}

func TestMatchNeedsEveryFilter(t *testing.T) {
	filters := []Filter{{Key: "fleet_id", Operator: "!=", Value: "a"}, {Key: "fleet_id", Operator: "!=", Value: "b"}, {Key: "zone", Operator: "=", Value: "x"}}
	require.NoError(t, compile(filters))
	assert.False(t, MatchFleet(filters, "a"))
	assert.False(t, MatchFleet(filters, "b"))
	assert.True(t, MatchFleet(filters, "c"), "the filter on zone does not apply")
}

func TestPatternsOfAQueryAreBoundedTogether(t *testing.T) {
	filters := make([]Filter, 10)
	for i := range filters {
		filters[i] = Filter{Key: "zone", Operator: "=~", Value: "(depot|port)-[0-9]{1,3}.*"}
	}
	require.NoError(t, compile(filters))
	for _, pattern := range []string{strings.Repeat(".{1000}", 10), "((x{10}){10}){10}" + strings.Repeat("y{1000}", 9)} {
		err := compile([]Filter{{Key: "zone", Operator: "=~", Value: pattern}})
		require.ErrorContains(t, err, "the patterns of the query are too large; use fewer of them, or smaller counts in braces")
	}
	many := make([]Filter, 200)
	for i := range many {
		many[i] = Filter{Key: "zone", Operator: "=~", Value: strings.Repeat("x", 100)}
	}
	require.ErrorContains(t, compile(many), "too large")
}

func TestInvalidFilters(t *testing.T) {
	for want, f := range map[string]Filter{
		`operator of filter zone "like": unknown; use one of =, !=`: {Key: "zone", Operator: "like"},
		`filter zone "(": `:                                  {Key: "zone", Operator: "=~", Value: "("},
		`filter speed_kmh > "fast": give a number`:           {Key: "speed_kmh", Operator: ">", Value: "fast"},
		`filter zone: a pattern of 1001 bytes; at most 1000`: {Key: "zone", Operator: "!~", Value: strings.Repeat("x", 1001)},
	} {
		require.ErrorContains(t, compile([]Filter{f}), want)
	}
}
