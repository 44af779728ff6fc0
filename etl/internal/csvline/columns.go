package csvline

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Mapping maps record fields to columns and constant values, for all files.
type Mapping struct {
	column map[string]string // by field, if the column has another name
	fixed  telemetry.Record  // the constant values
	set    map[string]string
	times  telemetry.TimeFormat
}

// NewMapping checks the mapping of fields to columns and the constant values.
func NewMapping(column, set map[string]string, times telemetry.TimeFormat) (*Mapping, error) {
	f := &Mapping{column: column, set: set, times: times}
	for _, field := range slices.Sorted(maps.Keys(column)) {
		place := fmt.Sprintf("--map %s=%s", field, column[field])
		if !slices.Contains(telemetry.Fields, field) {
			return nil, fmt.Errorf("%s: %w", place, telemetry.UnknownField(field))
		}
		if strings.TrimSpace(column[field]) == "" {
			return nil, fmt.Errorf("%s: the column name is missing: use the name in the header", place)
		}
		if _, ok := set[field]; ok {
			return nil, fmt.Errorf("%s: %s has a constant value too, --set %s=%s: use only one of them", place, field, field, set[field])
		}
	}
	for _, field := range slices.Sorted(maps.Keys(set)) {
		if err := f.fixed.SetConstant(field, set[field], times); err != nil {
			return nil, fmt.Errorf("--set %s=%s: %w", field, set[field], err)
		}
	}
	return f, nil
}

// Columns maps the fields of a record to positions in the lines of one file.
type Columns struct {
	mapping *Mapping
	count   int // fields of every line
	found   []column
}

type column struct {
	field    string
	index    int
	required bool
}

// Header splits the first line of a file and finds the fields in it. A constant value replaces a column; other columns
// are ignored.
func (f *Mapping) Header(line string) (*Columns, error) {
	header, err := parseHeader(line)
	if err != nil {
		return nil, err
	}
	index := make(map[string]int, len(header))
	for i, name := range header {
		name = strings.TrimSpace(name)
		if name == "" {
			continue // a comma at the end of each line
		}
		if _, twice := index[name]; twice {
			return nil, fmt.Errorf("column %q appears twice in the header: rename one of them", name)
		}
		index[name] = i
	}
	c := &Columns{mapping: f, count: len(header)}
	var missing []string
	for n, field := range telemetry.Fields {
		if _, ok := f.set[field]; ok {
			continue
		}
		name, mapped := f.column[field]
		if !mapped {
			name = field
		}
		i, ok := index[strings.TrimSpace(name)]
		switch {
		case ok:
			c.found = append(c.found, column{field, i, n < len(telemetry.RequiredFields)})
		case mapped:
			return nil, fmt.Errorf("--map %s=%s: no such column: the header has %s", field, name, list(header))
		case n < len(telemetry.RequiredFields):
			missing = append(missing, field)
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("no column for %s: map it with --map FIELD=COLUMN, or set a constant value with --set FIELD=VALUE; the header has %s",
			strings.Join(missing, ", "), list(header))
	}
	return c, nil
}

// list formats a header for a message. The first line of another kind of file may be long.
func list(header []string) string {
	const most = 400
	s := strings.Join(header, ", ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

const bom = "\ufeff"

// parseHeader splits the first line of a file.
func parseHeader(line string) ([]string, error) {
	line = strings.TrimPrefix(line, bom)
	switch {
	case len(line) > telemetry.MaxRawLen:
		return nil, fmt.Errorf("the header is longer than %d bytes: it is probably not a CSV file", telemetry.MaxRawLen)
	case !isText(line):
		return nil, errors.New("the header is not UTF-8 text: save the file as UTF-8 CSV")
	case strings.TrimSpace(line) == "":
		return nil, errors.New("the header is blank: put the column names in the first line")
	}
	var s splitter
	names, err := s.split(line)
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	return slices.Clone(names), nil
}
