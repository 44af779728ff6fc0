package grafana

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/grafana/grafana-plugin-sdk-go/data"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The kinds of columns.
const (
	aNumber = "number"
	aTime   = "time"
	aText   = "text"
	aSwitch = "boolean"
)

// column is a field of a frame. Numbers and times (in milliseconds) are float64; null and non-finite values are nil.
type column struct {
	name, title string // the title is the displayed name
	kind        string
	labels      map[string]string
	values      []any
}

func (c *column) is(name string) bool { return c.name == name || c.title == name }

func (c *column) hasValue() bool {
	return slices.ContainsFunc(c.values, func(v any) bool { return v != nil })
}

// like returns an equal column without values.
func (c *column) like() *column {
	return &column{name: c.name, title: c.title, kind: c.kind, labels: c.labels}
}

// frame is a query result.
type frame struct {
	refID   string
	columns []*column
}

func (f *frame) rows() int {
	if len(f.columns) == 0 {
		return 0
	}
	return len(f.columns[0].values)
}

// find returns a column by name or title, and titled by title only, or nil. Most transformations use titles only.
func (f *frame) find(name string) *column { return f.first(func(c *column) bool { return c.is(name) }) }

func (f *frame) titled(title string) *column {
	return f.first(func(c *column) bool { return c.title == title })
}

func (f *frame) kind(kind string) *column {
	return f.first(func(c *column) bool { return c.kind == kind })
}

func (f *frame) first(fits func(*column) bool) *column {
	if i := slices.IndexFunc(f.columns, fits); i >= 0 {
		return f.columns[i]
	}
	return nil
}

// only returns the frame with these rows, in this order.
func (f *frame) only(rows []int) *frame {
	part := &frame{refID: f.refID}
	for _, c := range f.columns {
		of := c.like()
		for _, i := range rows {
			of.values = append(of.values, c.values[i])
		}
		part.columns = append(part.columns, of)
	}
	return part
}

func fromPlugin(refID string, answer *data.Frame) *frame {
	f := &frame{refID: refID}
	for _, field := range answer.Fields {
		c := &column{name: field.Name, title: field.Name, labels: field.Labels, kind: aText}
		if config := field.Config; config != nil {
			switch {
			case config.DisplayName != "":
				c.title = config.DisplayName
			case config.DisplayNameFromDS != "":
				c.title = config.DisplayNameFromDS
			}
		}
		switch kind := field.Type(); {
		case kind.Time():
			c.kind = aTime
		case kind.Numeric():
			c.kind = aNumber
		case kind == data.FieldTypeBool || kind == data.FieldTypeNullableBool:
			c.kind = aSwitch
		}
		for i := range field.Len() {
			var value any
			if !field.NilAt(i) {
				switch concrete, _ := field.ConcreteAt(i); c.kind {
				case aText:
					value = fmt.Sprint(concrete)
				case aSwitch:
					value = concrete
				default:
					if number, err := field.FloatAt(i); err == nil {
						value = finite(number)
					}
				}
			}
			c.values = append(c.values, value)
		}
		f.columns = append(f.columns, c)
	}
	return f
}

func finite(number float64) any {
	if math.IsNaN(number) || math.IsInf(number, 0) {
		return nil
	}
	return number
}

var labelOfLegend = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)

// fromPrometheus converts series as Grafana's Prometheus data source does: to a frame each, to a single table, or for a heat map
// to a single frame with a column per bucket.
func fromPrometheus(target Target, list []promSeries) []*frame {
	var query struct{ LegendFormat string }
	_ = json.Unmarshal(target.JSON, &query) // it was parsed before
	switch {
	case len(list) == 0:
		return nil
	case target.Format == "table":
		f := &frame{refID: target.RefID, columns: []*column{{name: "Time", title: "Time", kind: aTime}}}
		names := map[string]bool{}
		for _, s := range list {
			for name := range s.labels {
				names[name] = true
			}
		}
		for name := range names {
			f.columns = append(f.columns, &column{name: name, title: name, kind: aText})
		}
		slices.SortFunc(f.columns[1:], func(a, b *column) int { return strings.Compare(a.name, b.name) })
		f.columns = append(f.columns, &column{name: "Value", title: "Value", kind: aNumber})
		for _, s := range list {
			for i := range s.values {
				for _, c := range f.columns {
					switch c.kind {
					case aTime:
						c.values = append(c.values, float64(s.times[i].UnixMilli()))
					case aNumber:
						c.values = append(c.values, finite(s.values[i]))
					default:
						c.values = append(c.values, s.labels[c.name])
					}
				}
			}
		}
		return []*frame{f}
	}
	var frames []*frame
	for _, s := range list {
		title := labelOfLegend.ReplaceAllStringFunc(query.LegendFormat, func(found string) string {
			return s.labels[labelOfLegend.FindStringSubmatch(found)[1]]
		})
		times, values := &column{name: "Time", title: "Time", kind: aTime}, &column{name: "Value", title: title, kind: aNumber, labels: s.labels}
		for i := range s.values {
			times.values, values.values = append(times.values, float64(s.times[i].UnixMilli())), append(values.values, finite(s.values[i]))
		}
		frames = append(frames, &frame{refID: target.RefID, columns: []*column{times, values}})
	}
	if target.Format != "heatmap" {
		return frames
	}
	slices.SortFunc(frames, func(a, b *frame) int { return int(math.Copysign(1, bound(a.columns[1])-bound(b.columns[1]))) })
	whole := frames[0]
	for _, f := range frames[1:] {
		f.columns[1].values = append(f.columns[1].values, make([]any, max(0, whole.rows()-f.rows()))...)
		whole.columns = append(whole.columns, f.columns[1])
	}
	return []*frame{whole}
}

// bound returns the upper bound of a bucket.
func bound(c *column) float64 {
	le, err := strconv.ParseFloat(c.labels["le"], 64)
	if err != nil {
		return math.NaN()
	}
	return le
}

// transformation is a transformation with the options that the dashboards use.
type transformation struct {
	ID      string
	Options json.RawMessage
}

// transform applies transformations as Grafana does. A missing field is an error here, while Grafana ignores it.
func transform(frames []*frame, steps []transformation) ([]*frame, error) {
	kinds := map[string]func(f *frame, options json.RawMessage) (*frame, error){
		"filterByValue": filterByValue, "organize": organize, "sortBy": sortBy, "groupBy": groupBy, "limit": limit,
		"calculateField": calculateField, "groupingToMatrix": groupingToMatrix, "convertFieldType": convertFieldType,
	}
	for i, step := range steps {
		var next []*frame
		var err error
		switch do := kinds[step.ID]; {
		case step.ID == "merge":
			next = merge(frames)
		case step.ID == "partitionByValues":
			for _, f := range frames {
				var parts []*frame
				if parts, err = partition(f, step.Options); err != nil {
					break
				}
				next = append(next, parts...)
			}
		case do == nil:
			err = fmt.Errorf("this test does not know it")
		default:
			for _, f := range frames {
				var done *frame
				if done, err = do(f, step.Options); err != nil {
					break
				}
				next = append(next, done)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("transformation %d, %s: %w", i+1, step.ID, err)
		}
		frames = next
	}
	return frames, nil
}

func missing(f *frame, name string) error {
	return fmt.Errorf("no field %q; known fields are %s", name, titles([]*frame{f}))
}

// titles lists the titles and types of the columns of frames.
func titles(frames []*frame) string {
	var all []string
	for _, f := range frames {
		for _, c := range f.columns {
			all = append(all, fmt.Sprintf("%q (%s)", c.title, c.kind))
		}
	}
	return strings.Join(all, ", ")
}

// merge joins the rows of all frames, without duplicates.
func merge(frames []*frame) []*frame {
	whole, seen := &frame{}, map[string]bool{}
	for _, f := range frames {
		for _, c := range f.columns {
			if whole.titled(c.title) == nil {
				of := c.like()
				of.values = make([]any, whole.rows())
				whole.columns = append(whole.columns, of)
			}
		}
		for i := range f.rows() {
			row := make([]any, len(whole.columns))
			for j, c := range whole.columns {
				if of := f.titled(c.title); of != nil {
					row[j] = of.values[i]
				}
			}
			if key := fmt.Sprintf("%q", row); !seen[key] {
				seen[key] = true
				for j, c := range whole.columns {
					c.values = append(c.values, row[j])
				}
			}
		}
	}
	if len(whole.columns) == 0 {
		return nil
	}
	return []*frame{whole}
}

func filterByValue(f *frame, options json.RawMessage) (*frame, error) {
	var o struct {
		Type, Match string
		Filters     []struct {
			FieldName string
			Config    struct {
				ID      string
				Options struct{ Value any }
			}
		}
	}
	if err := json.Unmarshal(options, &o); err != nil {
		return nil, err
	}
	if o.Type != "include" || o.Match != "all" {
		return nil, fmt.Errorf("%s of %s: this test does not know it", o.Type, o.Match)
	}
	keep := make([]int, f.rows())
	for i := range keep {
		keep[i] = i
	}
	for _, filter := range o.Filters {
		c := f.titled(filter.FieldName)
		if c == nil {
			return nil, missing(f, filter.FieldName)
		}
		var fits func(v any) bool
		switch filter.Config.ID {
		case "equal":
			fits = func(v any) bool { return v != nil && fmt.Sprint(v) == fmt.Sprint(filter.Config.Options.Value) }
		case "isNotNull":
			fits = func(v any) bool { return v != nil }
		case "regex":
			pattern, err := regexp.Compile(fmt.Sprint(filter.Config.Options.Value))
			if err != nil {
				return nil, err
			}
			fits = func(v any) bool { return v != nil && pattern.MatchString(fmt.Sprint(v)) }
		default:
			return nil, fmt.Errorf("filter %s: this test does not know it", filter.Config.ID)
		}
		keep = slices.DeleteFunc(keep, func(i int) bool { return !fits(c.values[i]) })
	}
	return f.only(keep), nil
}

func organize(f *frame, options json.RawMessage) (*frame, error) {
	var o struct {
		ExcludeByName map[string]bool
		IndexByName   map[string]int
		RenameByName  map[string]string
	}
	if err := json.Unmarshal(options, &o); err != nil {
		return nil, err
	}
	for name := range o.IndexByName {
		if f.titled(name) == nil {
			return nil, missing(f, name)
		}
	}
	for name := range o.ExcludeByName {
		if f.titled(name) == nil {
			return nil, missing(f, name)
		}
	}
	for name := range o.RenameByName {
		if f.titled(name) == nil {
			return nil, missing(f, name)
		}
	}
	done := &frame{refID: f.refID}
	for _, c := range f.columns {
		if o.ExcludeByName[c.title] {
			continue
		}
		of := *c
		if title := o.RenameByName[c.title]; title != "" {
			of.title = title
		}
		done.columns = append(done.columns, &of)
	}
	return done, nil
}

func sortBy(f *frame, options json.RawMessage) (*frame, error) {
	var o struct {
		Sort []struct {
			Field string
			Desc  bool
		}
	}
	if err := json.Unmarshal(options, &o); err != nil {
		return nil, err
	}
	if len(o.Sort) != 1 {
		return nil, fmt.Errorf("%d fields: this test knows one", len(o.Sort))
	}
	c := f.titled(o.Sort[0].Field)
	if c == nil {
		return nil, missing(f, o.Sort[0].Field)
	}
	order := make([]int, f.rows())
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		result := compare(c.values[a], c.values[b])
		if o.Sort[0].Desc {
			return -result
		}
		return result
	})
	return f.only(order), nil
}

func compare(a, b any) int {
	x, okX := a.(float64)
	y, okY := b.(float64)
	switch {
	case okX && okY && x < y:
		return -1
	case okX && okY && x > y:
		return 1
	case okX && okY:
		return 0
	}
	return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
}

func groupBy(f *frame, options json.RawMessage) (*frame, error) {
	var o struct {
		Fields map[string]struct {
			Aggregations []string
			Operation    string
		}
	}
	if err := json.Unmarshal(options, &o); err != nil {
		return nil, err
	}
	for name := range o.Fields {
		if f.titled(name) == nil {
			return nil, missing(f, name)
		}
	}
	key := func(i int) string {
		var parts []any
		for _, c := range f.columns {
			if o.Fields[c.title].Operation == "groupby" {
				parts = append(parts, c.values[i])
			}
		}
		return fmt.Sprintf("%q", parts)
	}
	var order []string
	groups := map[string][]int{}
	for i := range f.rows() {
		k := key(i)
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], i)
	}
	done := &frame{refID: f.refID}
	for _, c := range f.columns {
		field, ok := o.Fields[c.title]
		switch {
		case !ok:
		case field.Operation == "groupby":
			of := c.like()
			for _, k := range order {
				of.values = append(of.values, c.values[groups[k][0]])
			}
			done.columns = append(done.columns, of)
		default:
			for _, aggregation := range field.Aggregations {
				name := c.title + " (" + aggregation + ")"
				of := &column{name: name, title: name, kind: aNumber}
				for _, k := range order {
					value, err := aggregate(aggregation, c, groups[k])
					if err != nil {
						return nil, err
					}
					of.values = append(of.values, value)
				}
				done.columns = append(done.columns, of)
			}
		}
	}
	return done, nil
}

func aggregate(how string, c *column, rows []int) (any, error) {
	if how == "count" {
		return float64(len(rows)), nil
	}
	if how != "sum" && how != "max" {
		return nil, fmt.Errorf("%s: this test does not know it", how)
	}
	if c.kind != aNumber {
		return nil, fmt.Errorf("%s of %q, which is a %s", how, c.title, c.kind)
	}
	var result any
	for _, i := range rows {
		value, ok := c.values[i].(float64)
		switch before, any := result.(float64); {
		case !ok:
		case !any:
			result = value
		case how == "sum":
			result = before + value
		default:
			result = max(before, value)
		}
	}
	return result, nil
}

func limit(f *frame, options json.RawMessage) (*frame, error) {
	var o struct{ LimitField int }
	if err := json.Unmarshal(options, &o); err != nil {
		return nil, err
	}
	var rows []int
	for i := range min(o.LimitField, f.rows()) {
		rows = append(rows, i)
	}
	return f.only(rows), nil
}

func calculateField(f *frame, options json.RawMessage) (*frame, error) {
	type side struct {
		Matcher struct{ ID, Options string }
	}
	var o struct {
		Alias, Mode   string
		ReplaceFields bool
		Reduce        struct {
			Include []string
			Reducer string
		}
		Binary struct {
			Left, Right side
			Operator    string
		}
	}
	if err := json.Unmarshal(options, &o); err != nil {
		return nil, err
	}
	sign, names := 1.0, o.Reduce.Include
	switch {
	case o.Mode == "reduceRow" && o.Reduce.Reducer == "sum":
	case o.Mode == "binary" && o.Binary.Operator == "-":
		sign, names = -1, []string{o.Binary.Left.Matcher.Options, o.Binary.Right.Matcher.Options}
	default:
		return nil, fmt.Errorf("%s: this test does not know it", options)
	}
	result := &column{name: o.Alias, title: o.Alias, kind: aNumber, values: make([]any, f.rows())}
	for n, name := range names {
		c := f.titled(name)
		if c == nil {
			return nil, missing(f, name)
		}
		if c.kind != aNumber {
			return nil, fmt.Errorf("%q is a %s", name, c.kind)
		}
		for i, v := range c.values {
			value, _ := v.(float64)
			if before, ok := result.values[i].(float64); n > 0 && ok {
				value = before + sign*value
			}
			result.values[i] = value
		}
	}
	done := &frame{refID: f.refID}
	if !o.ReplaceFields {
		done.columns = slices.Clone(f.columns)
	}
	done.columns = append(done.columns, result)
	return done, nil
}

func groupingToMatrix(f *frame, options json.RawMessage) (*frame, error) {
	var o struct{ ColumnField, RowField, ValueField string }
	if err := json.Unmarshal(options, &o); err != nil {
		return nil, err
	}
	across, down, value := f.titled(o.ColumnField), f.titled(o.RowField), f.titled(o.ValueField)
	for name, c := range map[string]*column{o.ColumnField: across, o.RowField: down, o.ValueField: value} {
		if c == nil {
			return nil, missing(f, name)
		}
	}
	name := o.RowField + `\` + o.ColumnField
	head := &column{name: name, title: name, kind: aText}
	done := &frame{refID: f.refID, columns: []*column{head}}
	for i := range f.rows() {
		title := fmt.Sprint(across.values[i])
		c := done.titled(title)
		if c == nil {
			c = &column{name: title, title: title, kind: value.kind, values: make([]any, len(head.values))}
			done.columns = append(done.columns, c)
		}
		row := slices.Index(head.values, any(fmt.Sprint(down.values[i])))
		if row < 0 {
			row = len(head.values)
			head.values = append(head.values, fmt.Sprint(down.values[i]))
			for _, of := range done.columns[1:] {
				of.values = append(of.values, nil)
			}
		}
		c.values[row] = value.values[i]
	}
	return done, nil
}

func convertFieldType(f *frame, options json.RawMessage) (*frame, error) {
	var o struct {
		Conversions []struct{ TargetField, DestinationType string }
	}
	if err := json.Unmarshal(options, &o); err != nil {
		return nil, err
	}
	for _, conversion := range o.Conversions {
		c := f.titled(conversion.TargetField)
		if c == nil {
			return nil, missing(f, conversion.TargetField)
		}
		if conversion.DestinationType != aNumber {
			return nil, fmt.Errorf("to %s: this test does not know it", conversion.DestinationType)
		}
		c.kind = aNumber
		for i, v := range c.values {
			number, err := strconv.ParseFloat(fmt.Sprint(v), 64)
			if err != nil {
				return nil, err
			}
			c.values[i] = number
		}
	}
	return f, nil
}

func partition(f *frame, options json.RawMessage) ([]*frame, error) {
	var o struct {
		Fields     []string
		KeepFields bool
	}
	if err := json.Unmarshal(options, &o); err != nil {
		return nil, err
	}
	for _, name := range o.Fields {
		if f.titled(name) == nil {
			return nil, missing(f, name)
		}
	}
	var order []string
	rows := map[string][]int{}
	for i := range f.rows() {
		var key []any
		for _, name := range o.Fields {
			key = append(key, f.titled(name).values[i])
		}
		text := fmt.Sprintf("%q", key)
		if rows[text] == nil {
			order = append(order, text)
		}
		rows[text] = append(rows[text], i)
	}
	var parts []*frame
	for _, key := range order {
		whole, labels := f.only(rows[key]), map[string]string{}
		part := &frame{refID: f.refID}
		for _, c := range whole.columns {
			if slices.Contains(o.Fields, c.title) {
				labels[c.title] = fmt.Sprint(c.values[0])
				if !o.KeepFields {
					continue
				}
			}
			c.labels = labels
			part.columns = append(part.columns, c)
		}
		parts = append(parts, part)
	}
	return parts, nil
}

func TestTransform(t *testing.T) {
	table := func() *frame {
		return &frame{refID: "A", columns: []*column{
			{name: "device_id", title: "Vehicle", kind: aText, values: []any{"b", "a", "b"}},
			{name: "hour", title: "hour", kind: aNumber, values: []any{10.0, 9.0, 9.0}},
			{name: "km", title: "km", kind: aNumber, values: []any{3.0, nil, 4.0}},
		}}
	}
	for name, c := range map[string]struct{ steps, want string }{
		"filter":    {`[{"id":"filterByValue","options":{"type":"include","match":"all","filters":[{"fieldName":"Vehicle","config":{"id":"regex","options":{"value":"^(b|c)$"}}},{"fieldName":"hour","config":{"id":"equal","options":{"value":9}}}]}}]`, "Vehicle=[b] hour=[9] km=[4]"},
		"not null":  {`[{"id":"filterByValue","options":{"type":"include","match":"all","filters":[{"fieldName":"km","config":{"id":"isNotNull","options":{}}}]}}]`, "Vehicle=[b b] hour=[10 9] km=[3 4]"},
		"by name":   {`[{"id":"filterByValue","options":{"type":"include","match":"all","filters":[{"fieldName":"device_id","config":{"id":"isNotNull","options":{}}}]}}]`, `transformation 1, filterByValue: no field "device_id"; known fields are "Vehicle" (text), "hour" (number), "km" (number)`},
		"group":     {`[{"id":"groupBy","options":{"fields":{"Vehicle":{"operation":"groupby"},"km":{"operation":"aggregate","aggregations":["sum","max","count"]}}}}]`, "Vehicle=[b a] km (sum)=[7 <nil>] km (max)=[4 <nil>] km (count)=[2 1]"},
		"sort":      {`[{"id":"sortBy","options":{"sort":[{"field":"hour"}]}},{"id":"limit","options":{"limitField":2}}]`, "Vehicle=[a b] hour=[9 9] km=[<nil> 4]"},
		"organize":  {`[{"id":"organize","options":{"excludeByName":{"km":true},"renameByName":{"Vehicle":"Who"}}}]`, "Who=[b a b] hour=[10 9 9]"},
		"calculate": {`[{"id":"calculateField","options":{"alias":"x","mode":"binary","replaceFields":true,"binary":{"left":{"matcher":{"options":"hour"}},"operator":"-","right":{"matcher":{"options":"km"}}}}}]`, "x=[7 9 5]"},
		"matrix":    {`[{"id":"groupingToMatrix","options":{"columnField":"Vehicle","rowField":"hour","valueField":"km"}},{"id":"convertFieldType","options":{"conversions":[{"targetField":"hour\\Vehicle","destinationType":"number"}]}}]`, `hour\Vehicle=[10 9] b=[3 4] a=[<nil> <nil>]`},
		"partition": {`[{"id":"partitionByValues","options":{"fields":["Vehicle"]}}]`, "hour=[10 9] km=[3 4] | hour=[9] km=[<nil>]"},
		"unknown":   {`[{"id":"transpose","options":{}}]`, "transformation 1, transpose: this test does not know it"},
	} {
		t.Run(name, func(t *testing.T) {
			var steps []transformation
			require.NoError(t, json.Unmarshal([]byte(c.steps), &steps))
			frames, err := transform([]*frame{table()}, steps)
			if err != nil {
				assert.EqualError(t, err, c.want)
				return
			}
			assert.Equal(t, c.want, written(frames))
		})
	}
	t.Run("merge", func(t *testing.T) {
		other := &frame{columns: []*column{{name: "hour", title: "hour", kind: aNumber, values: []any{1.0}}, {name: "n", title: "n", kind: aText, values: []any{"x"}}}}
		frames, err := transform([]*frame{table(), table(), other}, []transformation{{ID: "merge"}})
		require.NoError(t, err)
		assert.Equal(t, "Vehicle=[b a b <nil>] hour=[10 9 9 1] km=[3 <nil> 4 <nil>] n=[<nil> <nil> <nil> x]", written(frames))
	})
}

func written(frames []*frame) string {
	var parts []string
	for _, f := range frames {
		var columns []string
		for _, c := range f.columns {
			columns = append(columns, fmt.Sprintf("%s=%v", c.title, c.values))
		}
		parts = append(parts, strings.Join(columns, " "))
	}
	return strings.Join(parts, " | ")
}
