// Package grafana has the provisioning of Grafana: data sources, folders and dashboards. It loads the dashboards' JSON, so that
// tests can check it and run every query against real servers.
package grafana

import (
	"cmp"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

//go:embed dashboards
var files embed.FS

// Dashboard is a Grafana dashboard. Its JSON has the names of the fields, with another case.
type Dashboard struct {
	Path string          `json:"-"` // below the folder of dashboards, for example fleet/fleet-alerts.json
	JSON json.RawMessage `json:"-"` // the whole file

	UID, Title, Refresh, Timezone string
	Tags                          []string
	Editable                      bool
	SchemaVersion, GraphTooltip   int
	Time                          struct{ From, To string }
	Links                         []DashboardLink
	Templating                    struct{ List []Variable }
	Annotations                   struct{ List []Annotation }
	TopLevel                      []Panel `json:"panels"` // including rows; see Panels
}

// DashboardLink is a link at the top of a dashboard.
type DashboardLink struct {
	Type, URL             string
	Tags                  []string
	IncludeVars, KeepTime bool
}

// Datasource refers to a data source, usually by a variable.
type Datasource struct{ Type, UID string }

// Variable is a variable of a dashboard.
type Variable struct {
	Name              string
	Type              string // query, custom, datasource, constant
	Hide              int    // 2: not shown
	Multi, IncludeAll bool
	AllValue, Regex   string
	Datasource        Datasource
	Query             json.RawMessage // a string, or a query of the data source
	Current           struct{ Value json.RawMessage }
	Options           []struct{ Value string }
}

// Annotation is an annotation query. The Fleet Tracing data source has its query in Target, Prometheus in Expr.
type Annotation struct {
	Name, Expr string
	Datasource Datasource
	Target     json.RawMessage
}

// Panel is a panel, or a row.
type Panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               Datasource
	Grid                     struct{ X, Y, W, H int } `json:"gridPos"`
	FieldConfig              FieldConfig
	Options, Transformations json.RawMessage
	Links                    []Link
	TimeFrom, TimeShift      string
	Inner                    []Panel `json:"panels"` // of a collapsed row
	Targets                  []Target
}

// FieldConfig configures how a panel shows values.
type FieldConfig struct {
	Defaults struct {
		Unit       string
		Max        *float64
		Custom     struct{ AxisSoftMax *float64 }
		Thresholds json.RawMessage
		Mappings   []Mapping
		Links      []Link
	}
	Overrides []struct {
		Matcher struct {
			ID      string
			Options json.RawMessage
		}
		Properties []struct {
			ID    string
			Value json.RawMessage
		}
	}
}

// Mapping maps values to texts and colors.
type Mapping struct {
	Type    string
	Options map[string]struct{ Text, Color string }
}

// Link is a link of a panel or of a value in it.
type Link struct{ Title, URL string }

// Target is one query of a panel. Without a data source in its JSON it has that of the panel.
type Target struct {
	Panel *Panel          `json:"-"`
	JSON  json.RawMessage `json:"-"` // the whole query, for the Fleet Tracing data source; see Dashboard.Bind

	RefID      string
	Datasource Datasource
	Expr       string // PromQL, for Prometheus
	Format     string // result format
	Instant    bool   // an instant query of Prometheus
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *Target) UnmarshalJSON(text []byte) error {
	type fields Target
	t.JSON = slices.Clone(text)
	return json.Unmarshal(text, (*fields)(t))
}

// Load reads all dashboards, sorted by their paths.
func Load() (boards []*Dashboard, err error) {
	paths, err := fs.Glob(files, "dashboards/*/*.json")
	if err != nil {
		return nil, fmt.Errorf("dashboards: %w", err)
	}
	for _, file := range paths {
		board := &Dashboard{Path: strings.TrimPrefix(file, "dashboards/")}
		if board.JSON, err = files.ReadFile(file); err == nil {
			err = json.Unmarshal(board.JSON, board)
		}
		if err != nil {
			return nil, fmt.Errorf("dashboard %s: %w", file, err)
		}
		for _, p := range board.Panels() {
			for i := range p.Targets {
				t := &p.Targets[i]
				t.Panel, t.Datasource = p, cmp.Or(t.Datasource, p.Datasource)
			}
		}
		boards = append(boards, board)
	}
	return boards, nil
}

// Panels returns all panels except rows, including the panels of collapsed rows.
func (d *Dashboard) Panels() []*Panel {
	var panels []*Panel
	for i := range d.TopLevel {
		if p := &d.TopLevel[i]; p.Type != "row" {
			panels = append(panels, p)
		}
		for j := range d.TopLevel[i].Inner {
			panels = append(panels, &d.TopLevel[i].Inner[j])
		}
	}
	return panels
}

// Targets returns the queries of all panels.
func (d *Dashboard) Targets() (all []Target) {
	for _, p := range d.Panels() {
		all = append(all, p.Targets...)
	}
	return all
}

// Variable returns a variable by name, or nil.
func (d *Dashboard) Variable(name string) *Variable {
	i := slices.IndexFunc(d.Templating.List, func(v Variable) bool { return v.Name == name })
	if i < 0 {
		return nil
	}
	return &d.Templating.List[i]
}
