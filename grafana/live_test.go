package grafana

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/data"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Parameters of Prometheus queries: with a scrape every two seconds, a rate needs a few seconds. Range queries cover the time since the
// stack started.
const (
	liveStep  = 2 * time.Second
	liveRate  = "15s"
	liveRange = "5m"
)

// absence is why a query may have no result.
type absence struct {
	reason string
	// unknown: the metrics do not exist in this stack. Otherwise the query without its final comparison has a result.
	unknown bool
}

const (
	noKafka   = "this stack has no Kafka"
	noRedis   = "this stack has no Redis"
	noErrors  = "this stack has no failures"
	noHints   = "the metric of delivered hints exists only after a node was down"
	idle      = "idle nodes have no pending tasks and rarely collect garbage"
	noAlert   = "a healthy stack has no critical alert"
	noBacklog = "the spool of a healthy stack may not shrink, because it is empty"
)

// mayBeEmpty lists the queries that have no result in a healthy stack, by dashboard, panel and refId.
var mayBeEmpty = map[string]absence{
	"cassandra-cluster: annotation Critical alerts":                         {reason: noAlert},
	"cassandra-cluster: Client errors (errors/s): A":                        {reason: noErrors},
	"cassandra-cluster: Hints delivered (hints/s): A":                       {reason: noHints, unknown: true},
	"cassandra-cluster: Thread pools: pending tasks: A":                     {reason: idle},
	"cassandra-cluster: Thread pools: active and blocked tasks: A":          {reason: idle},
	"cassandra-cluster: Thread pools: active and blocked tasks: B":          {reason: idle},
	"cassandra-cluster: Mean GC pause: A":                                   {reason: idle},
	"fleet-pipeline: annotation Critical alerts":                            {reason: noAlert},
	"fleet-pipeline: Kafka lag (records): A":                                {reason: noKafka, unknown: true},
	"fleet-pipeline: Kafka lag (records): B":                                {reason: noKafka, unknown: true},
	"fleet-pipeline: Kafka: consumer group: A":                              {reason: noKafka, unknown: true},
	"fleet-pipeline: Kafka: consumer group: B":                              {reason: noKafka, unknown: true},
	"fleet-pipeline: Kafka: consumer group: C":                              {reason: noKafka, unknown: true},
	"fleet-pipeline: Kafka: consumed, skipped, dead letters (records/s): A": {reason: noKafka, unknown: true},
	"fleet-pipeline: Kafka: consumed, skipped, dead letters (records/s): B": {reason: noKafka, unknown: true},
	"fleet-pipeline: Kafka: consumed, skipped, dead letters (records/s): C": {reason: noKafka, unknown: true},
	"fleet-pipeline: Spool: age and time to drain: B":                       {reason: noBacklog},
	"fleet-pipeline: Write errors by reason (errors/s): A":                  {reason: noErrors},
	"fleet-pipeline: Write errors by reason (errors/s): B":                  {reason: noErrors},
	"fleet-pipeline: Driver: errors (errors/s): A":                          {reason: noErrors},
	"fleet-pipeline: Driver: errors (errors/s): B":                          {reason: noErrors},
	"fleet-pipeline: Data source: driver latency and errors: B":             {reason: noErrors},
	"fleet-pipeline: Data source: driver latency and errors: C":             {reason: noErrors},
	"fleet-pipeline: API queries: cache hits: B":                            {reason: noRedis, unknown: true},
	"fleet-pipeline: API queries: cache hits: C":                            {reason: noRedis, unknown: true},
}

// afterEvent lists the metrics that exist only after an event.
var afterEvent = map[string]string{
	"cassandra_hints_delivered_total":      noHints,
	"fleet_etl_api_cache_errors_total":     noRedis,
	"fleet_etl_api_cache_paused":           noRedis,
	"fleet_etl_kafka_commits_total":        noKafka,
	"fleet_etl_kafka_dead_letters_total":   noKafka,
	"fleet_etl_kafka_fetch_errors_total":   noKafka,
	"fleet_etl_kafka_lag_records":          noKafka,
	"fleet_etl_kafka_partitions":           noKafka,
	"fleet_etl_kafka_position":             noKafka,
	"fleet_etl_kafka_rebalances_total":     noKafka,
	"fleet_etl_kafka_values_skipped_total": noKafka,
}

// TestEveryQueryHasAnAnswer runs all queries of the dashboards, as Grafana does, with the plugin's binary and a Prometheus next
// to a running platform.
func TestEveryQueryHasAnAnswer(t *testing.T) {
	s := startStack(t)
	began := time.Now()
	defer func() { t.Logf("all queries took %.1f s", time.Since(began).Seconds()) }()
	for key := range mayBeEmpty {
		assert.True(t, slices.ContainsFunc(load(t), func(d *Dashboard) bool { return slices.Contains(keys(t, d), key) }), "%s: query not found", key)
	}
	each(t, func(t *testing.T, d *Dashboard) {
		v := s.viewer(t, d)
		for _, a := range d.Annotations.List {
			t.Run("annotation "+a.Name, func(t *testing.T) { v.check(t, func() error { return v.annotation(t.Context(), a) }) })
		}
		for _, p := range d.Panels() {
			if p.Type == "text" {
				continue
			}
			t.Run(fmt.Sprintf("%d %s", p.ID, p.Title), func(t *testing.T) { v.check(t, func() error { return v.panel(t.Context(), p) }) })
		}
		t.Run("metrics exist", func(t *testing.T) { v.metricsExist(t) })
	})
}

// keys returns the names in mayBeEmpty of the queries of a dashboard.
func keys(t *testing.T, d *Dashboard) (all []string) {
	targets := d.Targets()
	for _, target := range targets {
		all = append(all, key(d, target.Panel, target.RefID))
	}
	for _, a := range d.Annotations.List {
		all = append(all, d.UID+": annotation "+a.Name)
	}
	return all
}

func key(d *Dashboard, p *Panel, refID string) string {
	return fmt.Sprintf("%s: %s: %s", d.UID, p.Title, refID)
}

// viewer is a dashboard with all variables at All, or at their first value.
type viewer struct {
	*stack
	d      *Dashboard
	values Values
	single map[string][]string // one real value of each variable
}

func (s *stack) viewer(t *testing.T, d *Dashboard) *viewer {
	v := &viewer{stack: s, d: d, values: Values{Variables: map[string][]string{}, To: time.Now()}, single: map[string][]string{}}
	shown, err := ago(strings.TrimPrefix(d.Time.From, "now-"))
	require.NoError(t, err)
	v.values.From = v.values.To.Add(-shown)
	for i := range d.Templating.List {
		variable := &d.Templating.List[i]
		if variable.Type != "query" {
			v.values.Variables[variable.Name] = []string{fixedValue(t, variable)}
			v.single[variable.Name] = v.values.Variables[variable.Name]
			continue
		}
		t.Run("variable "+variable.Name, func(t *testing.T) {
			v.check(t, func() error { return v.choose(t.Context(), variable) })
			t.Log(v.values.Variables[variable.Name])
		})
	}
	return v
}

// fixedValue is the value of a variable without a query.
func fixedValue(t *testing.T, v *Variable) (value string) {
	text := v.Current.Value
	if v.Type == "constant" {
		text = v.Query
	}
	require.NoError(t, json.Unmarshal(text, &value), v.Name)
	return value
}

// ago parses a duration in the format of Grafana.
func ago(text string) (time.Duration, error) {
	units := map[string]time.Duration{"m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}
	number, unit := text[:max(len(text)-1, 0)], text[max(len(text)-1, 0):]
	n, err := strconv.Atoi(number)
	if err != nil || units[unit] == 0 {
		return 0, fmt.Errorf("%q is not a duration", text)
	}
	return time.Duration(n) * units[unit], nil
}

// check retries until there are no errors, because rates need some seconds of samples.
func (v *viewer) check(t *testing.T, complaint func() error) {
	for deadline := time.Now().Add(panelWithin); ; time.Sleep(500 * time.Millisecond) {
		err := complaint()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Error(err)
			return
		}
	}
}

// choose queries the values of a variable and selects one.
func (v *viewer) choose(ctx context.Context, variable *Variable) error {
	var list []string
	var err error
	if variable.Datasource.Type == ourType {
		list, err = v.ourValues(ctx, variable)
	} else {
		list, err = v.labelValues(ctx, variable)
	}
	if err != nil {
		return err
	}
	if variable.Regex == "/^(?!_).*/" { // Go regular expressions have no lookahead
		list = slices.DeleteFunc(list, func(value string) bool { return strings.HasPrefix(value, "_") })
	} else if variable.Regex != "" {
		return fmt.Errorf("regex %s: this test does not know it", variable.Regex)
	}
	if len(list) == 0 {
		return errors.New("it has no values")
	}
	v.single[variable.Name] = list[:1]
	switch {
	case variable.IncludeAll && variable.AllValue != "":
		list = []string{variable.AllValue}
	case variable.IncludeAll:
	case variable.Multi && len(list) > 1:
		list = list[:2]
	default:
		list = list[:1]
	}
	v.values.Variables[variable.Name] = list
	return nil
}

func (v *viewer) ourValues(ctx context.Context, variable *Variable) ([]string, error) {
	answers, err := v.askPlugin(ctx, v.values, "variable", variable.Query)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, f := range answers {
		if c := f.find("value"); c != nil {
			for _, value := range c.values {
				list = append(list, fmt.Sprint(value))
			}
		}
	}
	return list, nil
}

var labelValues = regexp.MustCompile(`^label_values\((.*), *(\w+)\)$`)

func (v *viewer) labelValues(ctx context.Context, variable *Variable) (list []string, err error) {
	bound, err := v.d.Bind(variable.Query, v.values)
	if err != nil {
		return nil, err
	}
	var query struct{ Query string }
	if err := json.Unmarshal(bound, &query); err != nil {
		return nil, err
	}
	m := labelValues.FindStringSubmatch(query.Query)
	if m == nil {
		return nil, fmt.Errorf("%s: this test does not know it", query.Query)
	}
	err = v.api(ctx, "/api/v1/label/"+m[2]+"/values?"+url.Values{"match[]": {m[1]}}.Encode(), &list)
	return list, err
}

// askPlugin sends several queries of one panel to the plugin at once. The error names the query.
func (v *viewer) askPlugin(ctx context.Context, values Values, name string, queries ...json.RawMessage) ([]*frame, error) {
	var models []map[string]any
	for _, query := range queries {
		bound, err := v.d.Bind(query, values)
		if err != nil {
			return nil, err
		}
		var model map[string]any
		if err := json.Unmarshal(bound, &model); err != nil {
			return nil, err
		}
		delete(model, "datasource")
		models = append(models, model)
	}
	answers, err := v.plugin.Query(ctx, v.source, values.From, values.To, nil, models...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var frames []*frame
	for _, model := range models {
		refID, _ := model["refId"].(string)
		answer, ok := answers[refID]
		switch {
		case !ok:
			return nil, fmt.Errorf("%s: query %s, %v: no answer", name, refID, model)
		case answer.Error != nil:
			return nil, fmt.Errorf("%s: query %s, %v: status %d: %w", name, refID, model, answer.Status, answer.Error)
		}
		for _, f := range answer.Frames {
			for _, notice := range notices(f) {
				if notice.Severity >= data.NoticeSeverityWarning {
					return nil, fmt.Errorf("%s: query %s, %v: it warns %q", name, refID, model, notice.Text)
				}
			}
			frames = append(frames, fromPlugin(refID, f))
		}
	}
	return frames, nil
}

func notices(f *data.Frame) []data.Notice {
	if f.Meta == nil {
		return nil
	}
	return f.Meta.Notices
}

// promQL returns a query for Prometheus without variables.
func (v *viewer) promQL(expr string, values Values) string {
	expr = v.d.Expand(expr, values)
	return strings.NewReplacer("$__rate_interval", liveRate, "$__range", liveRange).Replace(expr)
}

func (v *viewer) askPrometheus(ctx context.Context, expr string, instant bool, values Values) ([]promSeries, error) {
	if expr = v.promQL(expr, values); strings.Contains(expr, "$") {
		return nil, fmt.Errorf("%s: what is $?", expr)
	}
	return v.ask(ctx, expr, instant, v.began, time.Now())
}

// annotation checks the fields of annotations: time, title, text and tags.
func (v *viewer) annotation(ctx context.Context, a Annotation) error {
	may := mayBeEmpty[v.d.UID+": annotation "+a.Name]
	if a.Datasource.Type != ourType {
		list, err := v.askPrometheus(ctx, a.Expr, false, v.values)
		if err == nil && len(list) == 0 && may.reason == "" {
			err = fmt.Errorf("%s: no answer", a.Expr)
		}
		return err
	}
	frames, err := v.askPlugin(ctx, v.values, a.Name, a.Target)
	if err != nil {
		return err
	}
	if len(frames) != 1 {
		return fmt.Errorf("%d frames", len(frames))
	}
	for _, name := range []string{"time", "title", "text", "tags", "id"} {
		if c := frames[0].find(name); c == nil {
			return missing(frames[0], name)
		} else if !c.hasValue() && may.reason == "" {
			return fmt.Errorf("no row has a %s", name)
		}
	}
	return nil
}

// trailingComparison is a comparison that hides series at zero, perhaps of a divisor.
var trailingComparison = regexp.MustCompile(`\s*>=? 0(\)*)$`)

// panel runs the queries of a panel and returns what it cannot show.
func (v *viewer) panel(ctx context.Context, p *Panel) error {
	targets := p.Targets
	values, err := v.rangeOf(p)
	if err != nil {
		return err
	}
	var steps []transformation
	if len(p.Transformations) > 0 {
		bound, err := v.d.Bind(p.Transformations, values)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(bound, &steps); err != nil {
			return err
		}
	}
	merged := slices.ContainsFunc(steps, func(step transformation) bool { return step.ID == "merge" })

	var frames []*frame
	var empty []string
	excused := 0
	for _, target := range targets {
		found, err := v.target(ctx, target, values)
		if err != nil {
			return err
		}
		frames = append(frames, found...)
		if slices.ContainsFunc(found, (*frame).hasValues) {
			continue
		}
		if mayBeEmpty[key(v.d, p, target.RefID)].reason != "" {
			excused++
		} else {
			empty = append(empty, target.RefID)
		}
	}
	// Merged queries share their results, such as the months of a range.
	if len(empty) > 0 && (!merged || len(empty) == len(targets)) {
		return fmt.Errorf("nothing comes of %s: %s", strings.Join(empty, ", "), queriesOf(v, targets, empty))
	}
	// With one value selected, a result may be empty, but not an error.
	one := Values{Variables: v.single, From: values.From, To: values.To}
	for _, target := range targets {
		if _, err := v.target(ctx, target, one); err != nil {
			return fmt.Errorf("with one value of each variable: %w", err)
		}
	}
	if excused == len(targets) {
		return nil
	}
	if frames, err = transform(frames, steps); err != nil {
		return err
	}
	frames = slices.DeleteFunc(frames, func(f *frame) bool { return f.rows() == 0 })
	return errors.Join(v.shape(ctx, p, frames), v.named(p, frames, excused > 0), v.live(ctx, p, targets))
}

// rangeOf returns the values for a panel, which may have its own time range.
func (v *viewer) rangeOf(p *Panel) (Values, error) {
	values := v.values
	if p.TimeFrom != "" {
		shown, err := ago(p.TimeFrom)
		if err != nil {
			return values, err
		}
		values.From = values.To.Add(-shown)
	}
	if p.TimeShift != "" {
		back, err := ago(p.TimeShift)
		if err != nil {
			return values, err
		}
		values.From, values.To = values.From.Add(-back), values.To.Add(-back)
	}
	return values, nil
}

func queriesOf(v *viewer, targets []Target, refs []string) string {
	var parts []string
	for _, target := range targets {
		if slices.Contains(refs, target.RefID) {
			text := v.promQL(target.Expr, v.values)
			if target.Expr == "" {
				bound, err := v.d.Bind(target.JSON, v.values)
				text = fmt.Sprint(string(bound), err)
			}
			parts = append(parts, text)
		}
	}
	return strings.Join(parts, "\n")
}

func (f *frame) hasValues() bool {
	return slices.ContainsFunc(f.columns, func(c *column) bool { return c.kind != aTime && c.hasValue() })
}

// target runs one query.
func (v *viewer) target(ctx context.Context, target Target, values Values) ([]*frame, error) {
	if target.Datasource.Type == ourType {
		return v.askPlugin(ctx, values, target.Panel.Title, target.JSON)
	}
	list, err := v.askPrometheus(ctx, target.Expr, target.Instant, values)
	if err != nil {
		return nil, err
	}
	frames := fromPrometheus(target, list)
	may := mayBeEmpty[key(v.d, target.Panel, target.RefID)]
	if bare := trailingComparison.ReplaceAllString(target.Expr, "$1"); may.reason != "" && !may.unknown && len(list) == 0 && bare != target.Expr {
		if list, err = v.askPrometheus(ctx, bare, target.Instant, values); err == nil && len(list) == 0 {
			err = fmt.Errorf("there is not even a zero for %s", v.promQL(bare, values))
		}
	}
	return frames, err
}

// shape returns why a type of panel cannot show frames.
func (v *viewer) shape(ctx context.Context, p *Panel, frames []*frame) error {
	if len(frames) == 0 {
		return errors.New("no row is left after the transformations")
	}
	numbers := func(f *frame) bool {
		return slices.ContainsFunc(f.columns, func(c *column) bool { return c.kind == aNumber && c.hasValue() })
	}
	switch p.Type {
	case "stat", "gauge":
		return statShape(p, frames)
	case "timeseries":
		for _, f := range frames {
			if f.kind(aTime) == nil || f.kind(aNumber) == nil {
				return fmt.Errorf("a series needs a time and a number: %s", titles([]*frame{f}))
			}
		}
		if !slices.ContainsFunc(frames, numbers) {
			return errors.New("no series has a value")
		}
	case "trend", "barchart":
		var options struct{ XField string }
		if err := json.Unmarshal(p.Options, &options); err != nil {
			return err
		}
		if len(frames) != 1 {
			return fmt.Errorf("%d frames: it shows one", len(frames))
		}
		x := frames[0].titled(options.XField)
		if x == nil {
			return missing(frames[0], options.XField)
		}
		if !slices.ContainsFunc(frames[0].columns, func(c *column) bool { return c != x && c.kind == aNumber && c.hasValue() }) {
			return errors.New("no numeric field besides " + options.XField)
		}
		if p.Type == "trend" {
			if x.kind != aNumber || !slices.IsSortedFunc(x.values, compare) || len(slices.Compact(slices.Clone(x.values))) < len(x.values) {
				return fmt.Errorf("%s does not ascend: %v", options.XField, x.values)
			}
		}
	case "state-timeline":
		for _, f := range frames {
			at := f.kind(aTime)
			if at == nil || !slices.IsSortedFunc(at.values, compare) {
				return fmt.Errorf("a state needs ascending times: %s", titles([]*frame{f}))
			}
			states := slices.ContainsFunc(f.columns, func(c *column) bool {
				return c.hasValue() && (c.kind == aText || c.kind == aNumber && len(p.FieldConfig.Defaults.Mappings) > 0)
			})
			if !states {
				return fmt.Errorf("a state needs a text: %s", titles([]*frame{f}))
			}
		}
	case "table":
		return nil // there are rows
	case "heatmap":
		buckets, positive := 0, false
		for _, c := range frames[0].columns {
			if c.labels["le"] != "" {
				buckets++
				positive = positive || slices.ContainsFunc(c.values, func(v any) bool { n, ok := v.(float64); return ok && n > 0 })
			}
		}
		if frames[0].kind(aTime) == nil || buckets < 2 || !positive {
			return fmt.Errorf("a heat map needs times and buckets with something in them: %d buckets", buckets)
		}
	case "geomap":
		return v.mapShape(ctx, p, frames)
	default:
		return fmt.Errorf("%s: this test does not know it", p.Type)
	}
	return nil
}

// statShape finds the fields that the stat shows.
func statShape(p *Panel, frames []*frame) error {
	var options struct {
		ReduceOptions struct {
			Calcs  []string
			Fields string
		}
	}
	if err := json.Unmarshal(p.Options, &options); err != nil {
		return err
	}
	counts := slices.ContainsFunc(options.ReduceOptions.Calcs, func(calc string) bool { return calc == "count" || calc == "distinctCount" })
	pattern, err := regexp.Compile(strings.Trim(options.ReduceOptions.Fields, "/"))
	if err != nil {
		return err
	}
	for _, f := range frames {
		for _, c := range f.columns {
			if pattern.MatchString(c.title) && (c.kind == aNumber || counts && pattern.String() != "") && c.hasValue() {
				return nil
			}
		}
	}
	return fmt.Errorf("no field %s has a value: %s", options.ReduceOptions.Fields, titles(frames))
}

// mapShape checks each layer of a map.
func (v *viewer) mapShape(ctx context.Context, p *Panel, frames []*frame) error {
	type style struct {
		Color, Rotation, Size struct{ Field string }
	}
	var options struct {
		Layers []struct {
			Name, Type string
			FilterData struct{ Options string }
			Location   struct{ Latitude, Longitude string }
			Config     struct {
				Src   string
				Style style
				Rules []struct{ Check struct{ Property string } }
			}
		}
	}
	if err := json.Unmarshal(p.Options, &options); err != nil {
		return err
	}
	for _, layer := range options.Layers {
		if layer.Type == "geojson" {
			properties, err := v.geoJSON(ctx, layer.Config.Src)
			if err != nil {
				return fmt.Errorf("layer %s: %w", layer.Name, err)
			}
			for _, rule := range layer.Config.Rules {
				if !properties[rule.Check.Property] {
					return fmt.Errorf("layer %s: no feature has the property %s", layer.Name, rule.Check.Property)
				}
			}
			continue
		}
		shown := false
		for _, f := range frames {
			if layer.FilterData.Options != "" && layer.FilterData.Options != f.refID {
				continue
			}
			for _, name := range []string{layer.Location.Latitude, layer.Location.Longitude} {
				c := f.find(name)
				if c == nil {
					return fmt.Errorf("layer %s: %w", layer.Name, missing(f, name))
				}
				shown = shown || c.kind == aNumber && c.hasValue()
			}
			for _, name := range []string{layer.Config.Style.Color.Field, layer.Config.Style.Rotation.Field, layer.Config.Style.Size.Field} {
				if name != "" && f.find(name) == nil {
					return fmt.Errorf("layer %s: %w", layer.Name, missing(f, name))
				}
			}
		}
		if !shown {
			return fmt.Errorf("layer %s shows nothing", layer.Name)
		}
	}
	return nil
}

// geoJSON returns the properties of the features in a resource of the data source.
func (v *viewer) geoJSON(ctx context.Context, src string) (map[string]bool, error) {
	src = v.d.Expand(src, v.values)
	path, ok := strings.CutPrefix(src, "../api/datasources/uid/"+v.source.UID+"/resources/")
	if !ok {
		return nil, fmt.Errorf("%s: not a resource of the data source %s", src, v.source.UID)
	}
	status, body, err := v.plugin.Resource(ctx, v.source, path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("%s: %d %s", path, status, body)
	}
	var collection struct {
		Type     string
		Features []struct {
			Type     string
			Geometry struct {
				Type        string
				Coordinates []any
			}
			Properties map[string]any
		}
	}
	if err := json.Unmarshal(body, &collection); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if collection.Type != "FeatureCollection" || len(collection.Features) == 0 {
		return nil, fmt.Errorf("%s: a %q of %d features", path, collection.Type, len(collection.Features))
	}
	properties := map[string]bool{}
	for _, feature := range collection.Features {
		if feature.Type != "Feature" || !slices.Contains([]string{"Polygon", "MultiPolygon", "Point"}, feature.Geometry.Type) || len(feature.Geometry.Coordinates) == 0 {
			return nil, fmt.Errorf("%s: %v is not a feature", path, feature)
		}
		for name := range feature.Properties {
			properties[name] = true
		}
	}
	return properties, nil
}

var (
	dataField  = regexp.MustCompile(`\$\{__data\.fields\.(\w+)`)
	fieldLabel = regexp.MustCompile(`\$\{__field\.labels\.(\w+)`)
)

// named returns the missing fields that an override, a link or the sort order of a table refers to. If some series may be
// missing, a name may refer to one of them.
func (v *viewer) named(p *Panel, frames []*frame, incomplete bool) error {
	some := func(fits func(*column) bool) bool {
		return slices.ContainsFunc(frames, func(f *frame) bool { return f.first(fits) != nil })
	}
	var failed []error
	wrong := func(format string, args ...any) { failed = append(failed, fmt.Errorf(format, args...)) }
	renamed := map[string]bool{}
	for _, o := range p.FieldConfig.Overrides {
		var name string
		if err := json.Unmarshal(o.Matcher.Options, &name); err != nil {
			return err
		}
		fits := func(c *column) bool { return c.is(name) }
		if o.Matcher.ID == "byRegexp" {
			pattern, err := regexp.Compile(strings.Trim(name, "/"))
			if err != nil {
				return err
			}
			fits = func(c *column) bool { return pattern.MatchString(c.title) }
		} else if o.Matcher.ID != "byName" {
			return fmt.Errorf("matcher %s: this test does not know it", o.Matcher.ID)
		}
		if !some(fits) && !incomplete {
			wrong("override of %q: field not found: %s", name, titles(frames))
		}
		for _, property := range o.Properties {
			var title string
			if property.ID == "displayName" && json.Unmarshal(property.Value, &title) == nil {
				renamed[title] = true
			}
		}
	}
	var options struct {
		SortBy []struct{ DisplayName string }
	}
	if err := json.Unmarshal(p.Options, &options); err != nil {
		return err
	}
	for _, order := range options.SortBy {
		if !renamed[order.DisplayName] && !some(func(c *column) bool { return c.title == order.DisplayName }) {
			wrong("order by %q: no column is called so", order.DisplayName)
		}
	}
	text, err := v.d.text(p)
	if err != nil {
		return err
	}
	for _, m := range dataField.FindAllSubmatch(text, -1) {
		if !some(func(c *column) bool { return c.is(string(m[1])) }) {
			wrong("link to %s: field not found", m[0])
		}
	}
	for _, m := range fieldLabel.FindAllSubmatch(text, -1) {
		if !some(func(c *column) bool { return c.labels[string(m[1])] != "" }) {
			wrong("link to %s: no field has that label", m[0])
		}
	}
	return errors.Join(failed...)
}

// text returns the JSON of a panel.
func (d *Dashboard) text(p *Panel) (json.RawMessage, error) {
	type panel struct {
		ID     int
		Panels []json.RawMessage
	}
	var find func(text json.RawMessage) (json.RawMessage, error)
	find = func(text json.RawMessage) (json.RawMessage, error) {
		var one panel
		if err := json.Unmarshal(text, &one); err != nil {
			return nil, err
		}
		if one.ID == p.ID && len(one.Panels) == 0 {
			return text, nil
		}
		for _, inner := range one.Panels {
			if found, err := find(inner); found != nil || err != nil {
				return found, err
			}
		}
		return nil, nil
	}
	return find(d.JSON)
}

// live subscribes to the stream of a map and waits for a packet.
func (v *viewer) live(ctx context.Context, p *Panel, targets []Target) error {
	for _, target := range targets {
		var query struct{ Live bool }
		if err := json.Unmarshal(target.JSON, &query); err != nil {
			return err
		}
		if !query.Live {
			continue
		}
		bound, err := v.d.Bind(target.JSON, v.values)
		if err != nil {
			return err
		}
		var model map[string]any
		if err := json.Unmarshal(bound, &model); err != nil {
			return err
		}
		answers, err := v.plugin.Query(ctx, v.source, v.values.From, v.values.To, nil, model)
		if err != nil {
			return err
		}
		frames := answers[target.RefID].Frames
		if len(frames) != 1 || frames[0].Meta == nil || frames[0].Meta.Channel == "" {
			return errors.New("it is live, and has no channel")
		}
		path, ok := strings.CutPrefix(frames[0].Meta.Channel, "ds/"+v.source.UID+"/")
		if !ok {
			return fmt.Errorf("channel %s is not of the data source %s", frames[0].Meta.Channel, v.source.UID)
		}
		status, _, err := v.plugin.Subscribe(ctx, v.source, path)
		if err != nil {
			return fmt.Errorf("channel %s: %w", path, err)
		}
		if status != backend.SubscribeStreamStatusOK {
			return fmt.Errorf("channel %s: status %d", path, status)
		}
		limited, cancel := context.WithTimeout(ctx, panelWithin)
		var packet *frame
		err = v.plugin.Run(limited, v.source, path, func(f *data.Frame) { packet = fromPlugin(target.RefID, f); cancel() })
		cancel()
		if packet == nil {
			return errors.Join(fmt.Errorf("channel %s brings nothing", path), err)
		}
		if err := v.mapShape(ctx, p, []*frame{packet}); err != nil {
			return fmt.Errorf("channel %s: %w", path, err)
		}
	}
	return nil
}

// metricsExist checks that all metrics in the queries of a dashboard exist.
func (v *viewer) metricsExist(t *testing.T) {
	var names []string
	require.NoError(t, v.api(t.Context(), "/api/v1/label/__name__/values", &names))
	known := map[string]bool{"ALERTS": true}
	for _, name := range names {
		known[name] = true
	}
	asked := map[string]string{}
	targets := v.d.Targets()
	for _, target := range targets {
		for _, name := range metricsOf(target.Expr) {
			asked[name] = target.Panel.Title
		}
	}
	for _, a := range v.d.Annotations.List {
		for _, name := range metricsOf(a.Expr) {
			asked[name] = "annotation " + a.Name
		}
	}
	for _, variable := range v.d.Templating.List {
		var query struct{ Query string }
		if variable.Datasource.Type == "prometheus" && json.Unmarshal(variable.Query, &query) == nil {
			if m := labelValues.FindStringSubmatch(query.Query); m != nil {
				for _, name := range metricsOf(m[1]) {
					asked[name] = "variable " + variable.Name
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(asked)) {
		if known[name] {
			continue
		}
		if assert.NotEmpty(t, afterEvent[name], "%s asks for %s, which nothing has", asked[name], name) {
			assert.True(t, inSources(t, name), "%s asks for %s, which stands nowhere", asked[name], name)
		}
	}
}

// inSources reports whether a metric is in a recorded scrape of the nodes, or in the sources of fleet-etl or the plugin.
func inSources(t *testing.T, name string) (found bool) {
	name = regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
	served, err := os.ReadFile("../cassandra/metrics/names.txt")
	require.NoError(t, err)
	if regexp.MustCompile(`(?m)^` + name + `(\{|$)`).Match(served) {
		return true
	}
	for _, dir := range []string{"../etl", "../cassandra", "../grafana-datasource/pkg"} {
		require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			source, err := os.ReadFile(path)
			found = found || strings.Contains(string(source), `"`+name+`"`)
			return err
		}))
	}
	return found
}

// metricsOf returns the names of metrics in a query, which remain without labels, ranges, functions and keywords.
func metricsOf(query string) (names []string) {
	for _, noise := range []string{
		`"(?:[^"\\]|\\.)*"`, `\{[^}]*\}`, `\[[^\]]*\]`, `\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)`,
		`\b(?:and|or|unless|offset|bool|Inf)\b`, `\b\d[\w.]*\b`,
	} {
		query = regexp.MustCompile(noise).ReplaceAllString(query, " ")
	}
	for _, match := range regexp.MustCompile(`([a-zA-Z_:][\w:]*)\s*(\(?)`).FindAllStringSubmatch(query, -1) {
		if match[2] == "" {
			names = append(names, match[1])
		}
	}
	return names
}
