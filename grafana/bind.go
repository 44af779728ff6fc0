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
		return d.expand(m, values, key == "cql")
	}
	return model
}

// Expand replaces the variables in a text other than CQL.
func (d *Dashboard) Expand(text string, values Values) string { return d.expand(text, values, false) }

// moment has the parts of the dates of moment.js that the dashboards use.
var moment = strings.NewReplacer("YYYY", "2006", "MM", "01", "DD", "02")

func (d *Dashboard) expand(text string, values Values, cql bool) string {
	return reference.ReplaceAllStringFunc(text, func(found string) string {
		m := reference.FindStringSubmatch(found)
		name, format := m[1]+m[3], m[2]
		if layout, ok := strings.CutPrefix(format, "date:"); ok {
			at := map[string]time.Time{"__from": values.From, "__to": values.To}[name]
			return at.UTC().Format(moment.Replace(layout))
		}
		chosen, variable := values.Variables[name], d.Variable(name)
		switch {
		case chosen == nil || variable == nil:
			return found
		case format == "sqlstring", format == "" && cql && (variable.Multi || variable.IncludeAll):
			quoted := make([]string, len(chosen))
			for i, value := range chosen {
				quoted[i] = "'" + strings.ReplaceAll(value, "'", "''") + "'"
			}
			return strings.Join(quoted, ", ")
		case format == "raw", format == "" && cql:
			return strings.Join(chosen, ",")
		case len(chosen) == 1:
			return chosen[0]
		}
		return "(" + strings.Join(chosen, "|") + ")"
	})
}
