package grafana

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Values are the selected values of variables. "All" is a list of all values.
type Values struct {
	Variables map[string][]string
	From, To  time.Time
}

// reference is $name, ${name} or ${name:format}.
var reference = regexp.MustCompile(`\$(?:\{(\w+)(?::([^}]+))?\}|(\w+))`)

// Bind replaces the variables in a query, as Grafana and the data source do before it is sent. An entry of a list becomes
// one entry per value. In CQL, the values of a multi-value variable are quoted; elsewhere they form a regular expression.
// The caller replaces the built-in variables, except dates.
func (d *Dashboard) Bind(query json.RawMessage, values Values) (json.RawMessage, error) {
	var model any
	if err := json.Unmarshal(query, &model); err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	text, err := json.Marshal(d.bind("", model, values))
	if err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	return text, nil
}

func (d *Dashboard) bind(key string, model any, values Values) any {
	switch m := model.(type) {
	case map[string]any:
		for k, v := range m {
			m[k] = d.bind(k, v, values)
		}
	case []any:
		bound := []any{}
		for _, entry := range m {
			text, _ := entry.(string)
			name := reference.FindStringSubmatch(text)
			if name == nil || name[0] != text || values.Variables[name[1]+name[3]] == nil {
				bound = append(bound, d.bind(key, entry, values))
				continue
			}
			for _, value := range values.Variables[name[1]+name[3]] {
				bound = append(bound, value)
			}
		}
		return bound
	case string:
		if key == "cql" {
			return d.Expand(m, values, joinQuoted)
		}
		return d.Expand(m, values, joinPattern)
	}
	return model
}

// Expand replaces the variables in a text. join formats the values of a variable without an explicit format.
func (d *Dashboard) Expand(text string, values Values, join func(v *Variable, values []string) string) string {
	return reference.ReplaceAllStringFunc(text, func(found string) string {
		m := reference.FindStringSubmatch(found)
		name, format := m[1]+m[3], m[2]
		switch name {
		case "__from":
			return date(found, format, values.From)
		case "__to":
			return date(found, format, values.To)
		}
		chosen, variable := values.Variables[name], d.Variable(name)
		if chosen == nil || variable == nil {
			return found
		}
		switch format {
		case "regex":
			return joinPattern(variable, chosen)
		case "sqlstring":
			return joinQuoted(&Variable{Multi: true}, chosen)
		case "raw":
			return strings.Join(chosen, ",")
		}
		return join(variable, chosen)
	})
}

// date formats a time in the format of moment.js. It supports years, months and days, which the dashboards use.
func date(found, format string, moment time.Time) string {
	layout, ok := strings.CutPrefix(format, "date:")
	if !ok {
		return found
	}
	return moment.UTC().Format(strings.NewReplacer("YYYY", "2006", "MM", "01", "DD", "02").Replace(layout))
}

func joinQuoted(v *Variable, values []string) string {
	if !v.Multi && !v.IncludeAll {
		return strings.Join(values, ",")
	}
	quoted := make([]string, len(values))
	for i, value := range values {
		quoted[i] = "'" + strings.ReplaceAll(value, "'", "''") + "'"
	}
	return strings.Join(quoted, ", ")
}

func joinPattern(_ *Variable, values []string) string {
	if len(values) == 1 {
		return values[0]
	}
	return "(" + strings.Join(values, "|") + ")"
}
