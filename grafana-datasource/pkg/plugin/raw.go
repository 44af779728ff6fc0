package plugin

import (
	"context"
	"encoding/json"
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
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/cql"
)

// raw answers a SELECT written by hand: read by the guard, split into one statement a partition, run side by side.
func (d *Datasource) raw(ctx context.Context, q *query, c *cost) (answer, error) {
	var a answer
	if !d.settings.allowRaw {
		return a, &forbiddenError{"raw CQL: the settings of this data source don't allow it; use a typed query"}
	}
	tables, err := d.reader.schema(ctx, c)
	if err != nil {
		return a, err
	}
	plan, err := d.planRaw(q, tables)
	if err != nil {
		d.metrics.refused.Inc()
		return a, invalid("raw CQL: %v", err)
	}
	most := q.rowLimit(&d.settings)
	if plan.Limit > 0 {
		most = min(most, plan.Limit)
	}
	var result cassandra.Result
	for done := 0; ; {
		n := plan.Wave(done, len(result.Rows), most, partsAtOnce)
		if n == 0 {
			break
		}
		parts, err := sideBySide(ctx, partsAtOnce, plan.Statements[done:done+n], func(ctx context.Context, statement string) (cassandra.Result, error) {
			return d.reader.rows(ctx, c, statement, most)
		})
		if err != nil {
			return a, err
		}
		for _, part := range parts {
			result.Columns = part.Columns
			result.Rows = append(result.Rows, part.Rows...)
			result.More = result.More || part.More
		}
		done += n
	}
	if len(result.Rows) > most {
		result.Rows, result.More = result.Rows[:most], true
	}
	if result.More && most != plan.Limit {
		a.cut("Only the first %d rows: the limit of rows. Add conditions, or a LIMIT.", most)
	}
	result.Rows = passing(q.Filters, result)
	switch q.Format {
	case formatTimeSeries:
		var frame *data.Frame
		if frame, err = rawSeries(result); err == nil {
			a.frames = data.Frames{frame}
		}
	case formatLogs:
		var frame *data.Frame
		if frame, err = rawLogs(result); err == nil {
			a.frames = data.Frames{frame}
		}
	default:
		a.frames = data.Frames{table("", rawFields(result)...)}
	}
	return a, err
}

// passing gives the rows that pass ad-hoc filters, and leaves those of the result, which equal queries share, as they are.
func passing(filters []filter, r cassandra.Result) [][]any {
	if len(filters) == 0 {
		return r.Rows
	}
	return slices.DeleteFunc(slices.Clone(r.Rows), func(row []any) bool { return !rowPasses(filters, r.Columns, row) })
}

// rowPasses heeds ad-hoc filters on the columns that a statement selects.
func rowPasses(filters []filter, selected []cassandra.ResultColumn, row []any) bool {
	return passes(filters, func(key string) (cell, bool) {
		j := slices.IndexFunc(selected, func(c cassandra.ResultColumn) bool { return c.Name == key })
		if j < 0 {
			return cell{}, false
		}
		c := textCell(asText(row[j]))
		if f, ok := asFloat(row[j]); ok {
			c.number = &f
		}
		return c, true
	})
}

func (d *Datasource) planRaw(q *query, tables []cassandra.Table) (cql.Plan, error) {
	statement, err := cql.Expand(q.CQL, cql.Range{From: q.from, To: q.to, Interval: q.interval, MaxDays: min(d.settings.maxPartitions, 4000)})
	if err != nil {
		return cql.Plan{}, err
	}
	known := make([]cql.Table, len(tables))
	for i, t := range tables {
		known[i] = cql.Table{Name: t.Name, PartitionKey: t.PartitionKey}
	}
	return cql.Check(statement, known, cql.Rules{
		Keyspace: d.settings.cluster.Keyspace, AllowFiltering: d.settings.allowFiltering, MaxPartitions: d.settings.maxPartitions,
		Fleets: d.settings.allowedFleets, FleetColumn: "fleet_id",
	})
}

// exactInt is the largest whole number that a browser holds exactly.
const exactInt = 1 << 53

// rawFields makes a column of each column. Numbers that a browser could not hold exactly become texts, all of their
// column.
func rawFields(r cassandra.Result) []*data.Field {
	fields := make([]*data.Field, len(r.Columns))
	for j, c := range r.Columns {
		var f *data.Field
		switch c.Type {
		case "boolean":
			f = typed(r, j, func(v any) (bool, bool) { b, ok := v.(bool); return b, ok })
		case "tinyint", "smallint", "int", "bigint", "counter":
			if fits(r, j) {
				f = typed(r, j, func(v any) (int64, bool) { n, ok := v.(int64); return n, ok })
			}
		case "float", "double":
			f = typed(r, j, func(v any) (float64, bool) { n, ok := v.(float64); return n, ok })
		case "varint", "decimal":
			if fits(r, j) {
				f = typed(r, j, asFloat)
			}
		case "timestamp", "date":
			f = typed(r, j, func(v any) (time.Time, bool) { t, ok := v.(time.Time); return t, ok })
		}
		if f == nil {
			f = typed(r, j, func(v any) (string, bool) { return asText(v), v != nil })
		}
		f.Name = c.Name
		f.Config = &data.FieldConfig{Description: "CQL type " + c.Type}
		if known, ok := columns[c.Name]; ok {
			f.Config.Unit = known.unit
		}
		fields[j] = f
	}
	return fields
}

func typed[T any](r cassandra.Result, j int, value func(any) (T, bool)) *data.Field {
	values := make([]*T, len(r.Rows))
	for i, row := range r.Rows {
		if v, ok := value(row[j]); ok {
			values[i] = &v
		}
	}
	return data.NewField("", nil, values)
}

func fits(r cassandra.Result, j int) bool {
	for _, row := range r.Rows {
		switch v := row[j].(type) {
		case int64:
			if v > exactInt || v < -exactInt {
				return false
			}
		case *big.Int, *inf.Dec:
			f, ok := asFloat(v)
			if held := strconv.FormatFloat(f, 'f', -1, 64); !ok || held != asText(v) && held != withoutZeros(asText(v)) {
				return false
			}
		}
	}
	return true
}

// withoutZeros leaves out the zeros at the end of a fraction.
func withoutZeros(number string) string {
	return strings.TrimSuffix(strings.TrimRight(number, "0"), ".")
}

func asFloat(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	case *big.Int, *inf.Dec:
		f, err := strconv.ParseFloat(asText(v), 64)
		return f, err == nil && !math.IsInf(f, 0)
	}
	return 0, false
}

func asText(v any) string {
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
		return v.String()
	default:
		return fmt.Sprint(v)
	}
}

// rawSeries makes time series: the first column of a time is the time, numbers are values, texts are labels.
func rawSeries(r cassandra.Result) (*data.Frame, error) {
	at := timeColumn(r)
	if at < 0 {
		return nil, invalid("format time_series: the statement selects no timestamp or date; add one, or take the table format")
	}
	rows := slices.DeleteFunc(slices.Clone(r.Rows), func(row []any) bool { return row[at] == nil })
	slices.SortStableFunc(rows, func(a, b []any) int { return a[at].(time.Time).Compare(b[at].(time.Time)) })
	r.Rows = rows
	times := make([]time.Time, len(rows))
	for i, row := range rows {
		times[i] = row[at].(time.Time)
	}
	fields := []*data.Field{data.NewField(r.Columns[at].Name, nil, times)}
	numbers := 0
	for j, f := range rawFields(r) {
		switch {
		case j == at || f.Type().Time():
			continue
		case f.Type().Numeric():
			numbers++
		case f.Type() == data.FieldTypeNullableString:
		default: // booleans are labels, too
			f = data.NewField(f.Name, nil, textsOf(f))
		}
		fields = append(fields, f)
	}
	if numbers == 0 {
		return nil, invalid("format time_series: the statement selects no number beside the time; add one, or take the table format")
	}
	if len(rows) == 0 {
		return noSeries(), nil
	}
	long := data.NewFrame("", fields...)
	wide, err := data.LongToWide(long, &data.FillMissing{Mode: data.FillModeNull})
	if err != nil {
		return nil, invalid("format time_series: %v; take the table format", err)
	}
	return wide.SetMeta(&data.FrameMeta{Type: data.FrameTypeTimeSeriesWide, TypeVersion: contract, PreferredVisualization: data.VisTypeGraph}), nil
}

func textsOf(f *data.Field) []*string {
	texts := make([]*string, f.Len())
	for i := range texts {
		if v, ok := f.ConcreteAt(i); ok {
			text := fmt.Sprint(v)
			texts[i] = &text
		}
	}
	return texts
}

func timeColumn(r cassandra.Result) int {
	for _, want := range []string{"timestamp", "date"} {
		if i := slices.IndexFunc(r.Columns, func(c cassandra.ResultColumn) bool { return c.Type == want }); i >= 0 {
			return i
		}
	}
	return -1
}

// rawLogs makes log lines: the first time is that of the line; the text is the column called message or body, else the
// first text; the rest are labels.
func rawLogs(r cassandra.Result) (*data.Frame, error) {
	at := timeColumn(r)
	if at < 0 {
		return nil, invalid("format logs: the statement selects no timestamp or date; add one, or take the table format")
	}
	line := slices.IndexFunc(r.Columns, func(c cassandra.ResultColumn) bool { return c.Name == "message" || c.Name == "body" })
	if line < 0 {
		line = slices.IndexFunc(r.Columns, func(c cassandra.ResultColumn) bool { return c.Type == "text" || c.Type == "ascii" })
	}
	if line < 0 {
		return nil, invalid("format logs: the statement selects no text; add one, or take the table format")
	}
	var times []time.Time
	var body, level, id []string
	var labels []jsonText
	for i, row := range r.Rows {
		ts, ok := row[at].(time.Time)
		if !ok {
			continue
		}
		rest := map[string]string{}
		severity := ""
		for j, c := range r.Columns {
			switch {
			case j == at || j == line || row[j] == nil:
			default:
				if rest[c.Name] = asText(row[j]); c.Name == "severity" || c.Name == "level" {
					severity = rest[c.Name]
				}
			}
		}
		if mapped, ok := logLevels[severity]; ok {
			severity = mapped
		}
		times, body, level = append(times, ts), append(body, asText(row[line])), append(level, severity)
		id, labels = append(id, fmt.Sprintf("%d-%d", ts.UnixMilli(), i)), append(labels, jsonOf(rest))
	}
	return logLines(times, body, level, id, labels), nil
}

type jsonText = json.RawMessage

func jsonOf(labels map[string]string) jsonText {
	text, err := json.Marshal(labels)
	if err != nil { // texts can always be written
		return jsonText("{}")
	}
	return text
}

// logLines makes log lines in the form of Grafana's data plane contract.
func logLines(times []time.Time, body, level, id []string, labels []jsonText) *data.Frame {
	return data.NewFrame("logs",
		data.NewField("timestamp", nil, times), data.NewField("body", nil, body), data.NewField("severity", nil, level),
		data.NewField("id", nil, id), data.NewField("labels", nil, labels),
	).SetMeta(&data.FrameMeta{Type: data.FrameTypeLogLines, PreferredVisualization: data.VisTypeLogs})
}
