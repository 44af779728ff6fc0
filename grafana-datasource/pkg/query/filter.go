package query

import (
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
)

// Filter is an ad hoc filter: a condition on a column of the response.
type Filter struct {
	Key      string   `json:"key"`
	Operator string   `json:"operator"`
	Value    string   `json:"value"`
	Values   []string `json:"values"`

	values  map[string]bool
	pattern *regexp.Regexp
	number  float64
}

var operators = []string{"=", "!=", "=|", "!=|", "=~", "!~", "<", ">"}

// Bounds of regular expressions: matching takes time and memory in proportion to them. Counted repetitions such as x{1000}
// make a short pattern large.
const (
	maxPatternBytes = 1000   // of a pattern
	maxPatternSize  = 10_000 // of all patterns of a query, with their repetitions
)

func compile(filters []Filter) error {
	left := maxPatternSize
	for i := range filters {
		if err := filters[i].compile(&left); err != nil {
			return err
		}
	}
	return nil
}

// patternSize is the number of parts of a pattern, with each repetition.
func patternSize(re *syntax.Regexp) int {
	n := 1
	for _, part := range re.Sub {
		n += patternSize(part)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1)
	}
	return n
}

// compile prepares a filter. left is what remains of maxPatternSize.
func (f *Filter) compile(left *int) error {
	if err := oneOf("operator of filter "+f.Key, []string{f.Operator}, operators); err != nil {
		return err
	}
	var err error
	switch f.Operator {
	case "=|", "!=|":
		f.values = make(map[string]bool, len(f.Values))
		for _, value := range f.Values {
			f.values[value] = true
		}
	case "=~", "!~":
		if len(f.Value) > maxPatternBytes {
			return Invalid("filter %s: a pattern of %d bytes; at most %d are accepted", f.Key, len(f.Value), maxPatternBytes)
		}
		parsed, err := syntax.Parse(f.Value, syntax.Perl)
		if err != nil {
			return Invalid("filter %s %q: %v", f.Key, f.Value, err)
		}
		if *left -= patternSize(parsed) + len(f.Value); *left < 0 {
			return Invalid("filter %s %q: the patterns of the query are too large; use fewer of them, or smaller counts in braces", f.Key, f.Value)
		}
		if f.pattern, err = regexp.Compile("^(?:" + f.Value + ")$"); err != nil {
			return Invalid("filter %s %q: %v", f.Key, f.Value, err)
		}
	case "<", ">":
		if f.number, err = strconv.ParseFloat(strings.TrimSpace(f.Value), 64); err != nil {
			return Invalid("filter %s %s %q: give a number", f.Key, f.Operator, f.Value)
		}
	}
	return nil
}

// Cell is the value of a column as filters compare it. The zero value is an absent value.
type Cell struct {
	text   string
	number *float64
}

// Text is a cell with a text.
func Text(s string) Cell { return Cell{text: s} }

// Number is a cell with a number, or an absent value for nil.
func Number(v *float64) Cell {
	if v == nil {
		return Cell{}
	}
	return Cell{text: strconv.FormatFloat(*v, 'f', -1, 64), number: v}
}

// TextAndNumber is a cell whose text differs from the usual form of its number.
func TextAndNumber(s string, v float64) Cell { return Cell{s, &v} }

// Columns are the columns of rows of type R that filters work on, with the cell of a row in each.
type Columns[R any] map[string]func(*R) Cell

// Match reports whether a row passes all filters. A filter on an unknown column always passes: Grafana sends the filters
// of a dashboard to all its panels.
func Match[R any](filters []Filter, columns Columns[R], row *R) bool {
	for i := range filters {
		if cell, known := columns[filters[i].Key]; known && !filters[i].match(cell(row)) {
			return false
		}
	}
	return true
}

var fleetColumns = Columns[string]{"fleet_id": func(fleet *string) Cell { return Text(*fleet) }}

// MatchFleet reports whether a row that has only a fleet passes all filters.
func MatchFleet(filters []Filter, fleet string) bool { return Match(filters, fleetColumns, &fleet) }

func (f *Filter) match(c Cell) bool {
	switch f.Operator {
	case "=":
		return c.text == f.Value
	case "!=":
		return c.text != f.Value
	case "=|":
		return f.values[c.text]
	case "!=|":
		return !f.values[c.text]
	case "=~":
		return f.pattern.MatchString(c.text)
	case "!~":
		return !f.pattern.MatchString(c.text)
	case "<":
		return c.number != nil && *c.number < f.number
	default:
		return c.number != nil && *c.number > f.number
	}
}
