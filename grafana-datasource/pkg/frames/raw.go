package frames

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"
	"gopkg.in/inf.v0"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/memory"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
)

// RawTable makes a table of the rows of a statement.
func RawTable(r cassandra.Result) *data.Frame { return table("", rawFields(r)...) }

// rawFields makes a field for each column. A number column with a value that a browser cannot represent exactly
// becomes a text column.
func rawFields(r cassandra.Result) []*data.Field {
	fields := make([]*data.Field, len(r.Columns))
	for j, c := range r.Columns {
		f := rawField(r, j)
		f.Name = c.Name
		f.Config = &data.FieldConfig{Description: "CQL type " + c.Type, Unit: columns[c.Name].unit}
		fields[j] = f
	}
	return fields
}

func rawField(r cassandra.Result, j int) *data.Field {
	switch r.Columns[j].Type {
	case "boolean":
		return nullable(r, j, cast[bool])
	case "tinyint", "smallint", "int", "bigint", "counter":
		if exactInBrowser(r, j) {
			return nullable(r, j, cast[int64])
		}
	case "float", "double":
		return nullable(r, j, cast[float64])
	case "varint", "decimal":
		if exactInBrowser(r, j) {
			return nullable(r, j, RawNumber)
		}
	case "timestamp", "date":
		return nullable(r, j, cast[time.Time])
	}
	return rawTexts(r, j)
}

func rawTexts(r cassandra.Result, j int) *data.Field {
	return nullable(r, j, func(v any) (string, bool) { return RawText(v), v != nil })
}

func cast[T any](v any) (T, bool) {
	t, ok := v.(T)
	return t, ok
}

func nullable[T any](r cassandra.Result, j int, value func(any) (T, bool)) *data.Field {
	list := make([]*T, len(r.Rows))
	for i, row := range r.Rows {
		if v, ok := value(row[j]); ok {
			list[i] = &v
		}
	}
	return data.NewField("", nil, list)
}

// maxExactInt is the largest integer up to which float64, the only number of a browser, holds every integer.
const maxExactInt = 1 << 53

// exactInBrowser reports whether a float64 holds every number of a column exactly.
func exactInBrowser(r cassandra.Result, j int) bool {
	for _, row := range r.Rows {
		switch v := row[j].(type) {
		case string: // a decimal that is too long to write out
			return false
		case int64:
			if v > maxExactInt || v < -maxExactInt {
				return false
			}
		case *big.Int, *inf.Dec:
			f, ok := RawNumber(v)
			text := RawText(v)
			if back := strconv.FormatFloat(f, 'f', -1, 64); !ok || back != text && back != trimZeros(text) {
				return false
			}
		}
	}
	return true
}

// trimZeros removes the zeros at the end of a fraction.
func trimZeros(number string) string {
	return strings.TrimSuffix(strings.TrimRight(number, "0"), ".")
}

// RawNumber returns a value of a raw statement as a number.
func RawNumber(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	case *big.Int, *inf.Dec:
		f, err := strconv.ParseFloat(RawText(v), 64)
		return f, err == nil && !math.IsInf(f, 0)
	}
	return 0, false
}

// RawText returns a value of a raw statement as a text, the empty string for null.
func RawText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case time.Time:
		return v.Format("2006-01-02T15:04:05.000Z")
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case *inf.Dec:
		return v.String() // fmt.Sprint would use its Format method
	default:
		return fmt.Sprint(v)
	}
}

// maxWideCells bounds the times of a frame of time series multiplied by its series.
const maxWideCells = 1_000_000

// RawSeries makes time series: the first timestamp is the time, numbers are values, other columns are labels. It takes the
// memory of the frame from the account of ctx.
func RawSeries(ctx context.Context, r cassandra.Result) (*data.Frame, error) {
	at := timeColumn(r)
	if at < 0 {
		return nil, query.Invalid("format time_series: the statement selects no timestamp or date; add one, or use the table format")
	}
	r.Rows = slices.DeleteFunc(slices.Clone(r.Rows), func(row []any) bool { return row[at] == nil })
	slices.SortStableFunc(r.Rows, func(a, b []any) int { return a[at].(time.Time).Compare(b[at].(time.Time)) })
	fields := []*data.Field{data.NewField(r.Columns[at].Name, nil, values(r.Rows, func(row *[]any) time.Time { return (*row)[at].(time.Time) }))}
	numbers := 0
	var labels []*data.Field
	for j, f := range rawFields(r) {
		switch {
		case j == at || f.Type().Time():
			continue
		case f.Type().Numeric():
			numbers++
		default:
			if f.Type() != data.FieldTypeNullableString { // a boolean is a label
				f = rawTexts(r, j)
				f.Name = r.Columns[j].Name
			}
			labels = append(labels, f)
		}
		fields = append(fields, f)
	}
	if numbers == 0 {
		return nil, query.Invalid("format time_series: the statement selects no number; add one, or use the table format")
	}
	if len(r.Rows) == 0 {
		return NoSeries(), nil
	}
	if err := memory.Take(ctx, wideBytes(fields[0], labels, numbers)); err != nil {
		return nil, err
	}
	wide, err := data.LongToWideWithLimit(data.NewFrame("", fields...), &data.FillMissing{Mode: data.FillModeNull}, maxWideCells)
	if errors.Is(err, data.ErrorWideFrameTooLarge) {
		return nil, query.Invalid("format time_series: more than %d cells, times multiplied by series; select fewer text columns, "+
			"because each combination of texts is a series, add conditions, or use the table format", maxWideCells)
	}
	if err != nil {
		return nil, query.Invalid("format time_series: %v; use the table format", err)
	}
	return wide.SetMeta(&data.FrameMeta{Type: data.FrameTypeTimeSeriesWide, TypeVersion: version, PreferredVisualization: data.VisTypeGraph}), nil
}

// wideBytes estimates the memory of a frame of time series, which has a cell for each time and series. It counts up to
// maxWideCells. The times are sorted.
func wideBytes(times *data.Field, labels []*data.Field, numbers int) int {
	different := 0
	series := map[string]bool{}
	var key []byte
	for i := range times.Len() {
		if i == 0 || !times.At(i).(time.Time).Equal(times.At(i-1).(time.Time)) {
			different++
		}
		key = key[:0]
		for _, f := range labels {
			if text := f.At(i).(*string); text != nil {
				key = append(key, *text...)
			}
			key = append(key, 0)
		}
		if !series[string(key)] {
			series[string(key)] = true
		}
		if different*len(series)*numbers > maxWideCells {
			break
		}
	}
	cells := min(different*(1+len(series)*numbers), maxWideCells)
	return cells*memory.CellBytes + len(series)*numbers*memory.SeriesBytes
}

// timeColumn returns the first timestamp column, else the first date column, else -1.
func timeColumn(r cassandra.Result) int {
	for _, want := range []string{"timestamp", "date"} {
		if i := slices.IndexFunc(r.Columns, func(c cassandra.ResultColumn) bool { return c.Type == want }); i >= 0 {
			return i
		}
	}
	return -1
}

// RawLogs makes log lines: the first timestamp is the time of a line, its body is the column message or body or else
// the first text, and the other columns are labels. It takes the memory of the frame from the account of ctx.
func RawLogs(ctx context.Context, r cassandra.Result) (*data.Frame, error) {
	at := timeColumn(r)
	if at < 0 {
		return nil, query.Invalid("format logs: the statement selects no timestamp or date; add one, or use the table format")
	}
	body := slices.IndexFunc(r.Columns, func(c cassandra.ResultColumn) bool { return c.Name == "message" || c.Name == "body" })
	if body < 0 {
		body = slices.IndexFunc(r.Columns, func(c cassandra.ResultColumn) bool { return c.Type == "text" || c.Type == "ascii" })
	}
	if body < 0 {
		return nil, query.Invalid("format logs: the statement selects no text; add one, or use the table format")
	}
	if err := takeLogLines(ctx, len(r.Rows), len(r.Columns)); err != nil {
		return nil, err
	}
	var lines []logLine
	for i, row := range r.Rows {
		ts, ok := row[at].(time.Time)
		if !ok {
			continue
		}
		line := logLine{time: ts, body: RawText(row[body]), id: fmt.Sprintf("%d-%d", ts.UnixMilli(), i)}
		labels := map[string]string{}
		for j, c := range r.Columns {
			if j == at || j == body || row[j] == nil {
				continue
			}
			labels[c.Name] = RawText(row[j])
			if c.Name == "severity" || c.Name == "level" {
				line.level = labels[c.Name]
			}
		}
		line.labels = labelsText(labels)
		if level, ok := logLevels[line.level]; ok {
			line.level = level
		}
		lines = append(lines, line)
	}
	return logLines(lines), nil
}
