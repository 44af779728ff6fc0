package grafana

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"slices"
)

//go:embed dashboards
var files embed.FS

// Dashboard is a Grafana dashboard.
type Dashboard struct {
	Path string `json:"-"` // below the folder of dashboards, for example fleet/fleet-alerts.json

	UID           string   `json:"uid"`
	Title         string   `json:"title"`
	Tags          []string `json:"tags"`
	Editable      bool     `json:"editable"`
	SchemaVersion int      `json:"schemaVersion"`
	Refresh       string   `json:"refresh"`
	Timezone      string   `json:"timezone"`
	GraphTooltip  int      `json:"graphTooltip"`
	Time          struct {
		From string `json:"from"`
		To   string `json:"to"`
	} `json:"time"`
	Links      []DashboardLink `json:"links"`
	Templating struct {
		List []Variable `json:"list"`
	} `json:"templating"`
	Annotations struct {
		List []Annotation `json:"list"`
	} `json:"annotations"`

	// JSON is the whole file.
	JSON json.RawMessage `json:"-"`

	TopLevel []Panel `json:"panels"` // including rows; see Panels
}

// DashboardLink is a link at the top of a dashboard.
type DashboardLink struct {
	Type        string   `json:"type"`
	Tags        []string `json:"tags"`
	URL         string   `json:"url"`
	IncludeVars bool     `json:"includeVars"`
	KeepTime    bool     `json:"keepTime"`
}

// Datasource refers to a data source, usually by a variable.
type Datasource struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

// Variable is a variable of a dashboard.
type Variable struct {
	Name       string          `json:"name"`
	Label      string          `json:"label"`
	Type       string          `json:"type"` // query, custom, datasource, constant
	Hide       int             `json:"hide"` // 2: not shown
	Multi      bool            `json:"multi"`
	IncludeAll bool            `json:"includeAll"`
	AllValue   string          `json:"allValue"`
	Regex      string          `json:"regex"`
	Datasource Datasource      `json:"datasource"`
	Query      json.RawMessage `json:"query"` // a string, or a query of the data source
	Current    struct {
		Value json.RawMessage `json:"value"`
	} `json:"current"`
	Options []struct {
		Value string `json:"value"`
	} `json:"options"`
}

// Annotation is an annotation query. The Fleet Tracing data source has its query in Target, Prometheus in Expr.
type Annotation struct {
	Name       string          `json:"name"`
	Enable     bool            `json:"enable"`
	Datasource Datasource      `json:"datasource"`
	Target     json.RawMessage `json:"target"`
	Expr       string          `json:"expr"`
}

// Panel is a panel, or a row.
type Panel struct {
	ID          int        `json:"id"`
	Type        string     `json:"type"`
	Title       string     `json:"title"`
	Description string     `json:"description"`
	Datasource  Datasource `json:"datasource"`
	Grid        struct {
		X int `json:"x"`
		Y int `json:"y"`
		W int `json:"w"`
		H int `json:"h"`
	} `json:"gridPos"`
	FieldConfig     FieldConfig     `json:"fieldConfig"`
	Options         json.RawMessage `json:"options"`
	Links           []Link          `json:"links"`
	Transformations json.RawMessage `json:"transformations"`
	TimeFrom        string          `json:"timeFrom"`
	TimeShift       string          `json:"timeShift"`
	Inner           []Panel         `json:"panels"` // of a collapsed row

	Queries []json.RawMessage `json:"targets"`
}

// FieldConfig configures how a panel shows values.
type FieldConfig struct {
	Defaults struct {
		Unit   string   `json:"unit"`
		Max    *float64 `json:"max"`
		Custom struct {
			AxisSoftMax *float64 `json:"axisSoftMax"`
		} `json:"custom"`
		Thresholds json.RawMessage `json:"thresholds"`
		Mappings   []Mapping       `json:"mappings"`
		Links      []Link          `json:"links"`
	} `json:"defaults"`
	Overrides []struct {
		Matcher struct {
			ID      string          `json:"id"`
			Options json.RawMessage `json:"options"`
		} `json:"matcher"`
		Properties []struct {
			ID    string          `json:"id"`
			Value json.RawMessage `json:"value"`
		} `json:"properties"`
	} `json:"overrides"`
}

// Mapping maps values to texts and colors.
type Mapping struct {
	Type    string `json:"type"`
	Options map[string]struct {
		Text  string `json:"text"`
		Color string `json:"color"`
	} `json:"options"`
}

// Link is a link of a panel or of a value in it.
type Link struct {
	Title string `json:"title"`
	URL   string `json:"url"`
}

// Target is one query of a panel.
type Target struct {
	Panel      *Panel
	RefID      string
	Datasource Datasource
	Hide       bool
	Expr       string          // PromQL, for Prometheus
	Format     string          // result format
	Instant    bool            // an instant query of Prometheus
	JSON       json.RawMessage // the whole query, for the Fleet Tracing data source; see Dashboard.Bind
}

// Load reads all dashboards, sorted by their paths.
func Load() ([]*Dashboard, error) {
	paths, err := fs.Glob(files, "dashboards/*/*.json")
	if err != nil {
		return nil, fmt.Errorf("dashboards: %w", err)
	}
	slices.Sort(paths)
	var boards []*Dashboard
	for _, file := range paths {
		text, err := files.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("dashboard %s: %w", file, err)
		}
		board := &Dashboard{Path: path.Join(path.Base(path.Dir(file)), path.Base(file)), JSON: text}
		if err := json.Unmarshal(text, board); err != nil {
			return nil, fmt.Errorf("dashboard %s: %w", file, err)
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
func (d *Dashboard) Targets() ([]Target, error) {
	var all []Target
	for _, p := range d.Panels() {
		targets, err := p.Targets()
		if err != nil {
			return nil, fmt.Errorf("dashboard %s: %w", d.Path, err)
		}
		all = append(all, targets...)
	}
	return all, nil
}

// Targets returns the queries of a panel. A query without a data source has that of the panel.
func (p *Panel) Targets() ([]Target, error) {
	var all []Target
	for _, text := range p.Queries {
		var query struct {
			RefID      string      `json:"refId"`
			Datasource *Datasource `json:"datasource"`
			Hide       bool        `json:"hide"`
			Expr       string      `json:"expr"`
			Format     string      `json:"format"`
			Instant    bool        `json:"instant"`
		}
		if err := json.Unmarshal(text, &query); err != nil {
			return nil, fmt.Errorf("panel %d, %q: %w", p.ID, p.Title, err)
		}
		if query.Datasource == nil {
			query.Datasource = &p.Datasource
		}
		all = append(all, Target{Panel: p, RefID: query.RefID, Datasource: *query.Datasource, Hide: query.Hide, Expr: query.Expr, Format: query.Format, Instant: query.Instant, JSON: text})
	}
	return all, nil
}

// Variable returns a variable by name, or nil.
func (d *Dashboard) Variable(name string) *Variable {
	i := slices.IndexFunc(d.Templating.List, func(v Variable) bool { return v.Name == name })
	if i < 0 {
		return nil
	}
	return &d.Templating.List[i]
}
