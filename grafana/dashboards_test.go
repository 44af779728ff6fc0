package grafana

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

const ourType = "fleettracing-cassandra-datasource"

func load(t *testing.T) []*Dashboard {
	t.Helper()
	boards, err := Load()
	require.NoError(t, err)
	return boards
}

// each runs a test for every dashboard.
func each(t *testing.T, rule func(t *testing.T, d *Dashboard)) {
	for _, d := range load(t) {
		t.Run(d.UID, func(t *testing.T) { rule(t, d) })
	}
}

func TestFiveDashboards(t *testing.T) {
	var paths []string
	for _, d := range load(t) {
		paths = append(paths, d.Path)
	}
	assert.Equal(t, []string{
		"fleet/fleet-alerts.json", "fleet/fleet-analytics.json", "fleet/fleet-realtime.json",
		"platform/cassandra-cluster.json", "platform/fleet-pipeline.json",
	}, paths)
}

func TestDashboard(t *testing.T) {
	each(t, func(t *testing.T, d *Dashboard) {
		assert.Equal(t, d.UID+".json", filepath.Base(d.Path), "the file is named for the uid")
		assert.NotEmpty(t, d.Title)
		assert.Contains(t, d.Tags, "fleet-tracing", "the links of all dashboards find it by this tag")
		assert.False(t, d.Editable)
		assert.Equal(t, 42, d.SchemaVersion, "that of Grafana 12.2")
		assert.Equal(t, "browser", d.Timezone)
		assert.Equal(t, 1, d.GraphTooltip, "the pointer shows in all panels")
		assert.NotEmpty(t, d.Refresh)
		assert.True(t, strings.HasPrefix(d.Time.From, "now-"), d.Time.From)
		assert.Equal(t, "now", d.Time.To)
		require.Len(t, d.Links, 1)
		assert.Equal(t, DashboardLink{Type: "dashboards", Tags: []string{"fleet-tracing"}, IncludeVars: true, KeepTime: true}, d.Links[0])
	})
}

// Only normalized files have readable diffs.
func TestFilesAreNormalized(t *testing.T) {
	each(t, func(t *testing.T, d *Dashboard) {
		var model any
		decoder := json.NewDecoder(bytes.NewReader(d.JSON))
		decoder.UseNumber()
		require.NoError(t, decoder.Decode(&model))
		var want bytes.Buffer
		encoder := json.NewEncoder(&want)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		require.NoError(t, encoder.Encode(model))
		assert.True(t, bytes.Equal(want.Bytes(), d.JSON), "keys sorted, two spaces, a newline at the end")
	})
}

func TestPanels(t *testing.T) {
	each(t, func(t *testing.T, d *Dashboard) {
		for _, p := range d.Panels() {
			if p.Type == "text" {
				continue
			}
			name := fmt.Sprintf("panel %d, %q", p.ID, p.Title)
			assert.NotEmpty(t, p.Title, name)
			assert.GreaterOrEqual(t, len(p.Description), 40, "%s: the description says what to do when it looks wrong", name)
			assert.NotEmpty(t, p.FieldConfig.Defaults.Unit, "%s: a unit", name)
			assert.NotEmpty(t, p.FieldConfig.Defaults.Thresholds, "%s: thresholds", name)
			targets := p.Targets
			assert.NotEmpty(t, targets, "%s: a query", name)
			var refs []string
			for _, target := range targets {
				assert.NotEmpty(t, target.RefID, "%s: refId", name)
				assert.NotContains(t, refs, target.RefID, "%s: each refId once", name)
				refs = append(refs, target.RefID)
			}
		}
	})
}

// Grafana scales the axis of a constant zero to 100, which for a share is 10,000 %.
func TestAxesOfSharesHaveAMaximum(t *testing.T) {
	each(t, func(t *testing.T, d *Dashboard) {
		for _, p := range d.Panels() {
			if of := p.FieldConfig.Defaults; p.Type == "timeseries" && of.Unit == "percentunit" {
				assert.True(t, of.Max != nil || of.Custom.AxisSoftMax != nil, "panel %d, %q: max or axisSoftMax", p.ID, p.Title)
			}
		}
	})
}

// A bar without a value has the color of the lowest threshold.
func TestGaugesWithoutValueAreTransparent(t *testing.T) {
	gauges := 0
	each(t, func(t *testing.T, d *Dashboard) {
		for _, p := range d.Panels() {
			for _, o := range p.FieldConfig.Overrides {
				properties := map[string]string{}
				for _, property := range o.Properties {
					properties[property.ID] = string(property.Value)
				}
				if strings.Contains(properties["custom.cellOptions"], `"gauge"`) {
					gauges++
					var thresholds struct{ Steps []struct{ Color string } }
					require.NoError(t, json.Unmarshal([]byte(properties["thresholds"]), &thresholds))
					assert.Equal(t, "transparent", thresholds.Steps[0].Color, "%s: %s", p.Title, o.Matcher.Options)
				}
			}
		}
	})
	assert.Positive(t, gauges)
}

func TestDataSourcesAreVariables(t *testing.T) {
	each(t, func(t *testing.T, d *Dashboard) {
		check := func(where string, source Datasource) {
			want := map[string]string{"${ds}": ourType, "${prom}": "prometheus"}[source.UID]
			assert.NotEmpty(t, want, "%s: %q is neither ${ds} nor ${prom}", where, source.UID)
			assert.Equal(t, want, source.Type, where)
			v := d.Variable(strings.Trim(source.UID, "${}"))
			if assert.NotNil(t, v, "%s: %s is a variable", where, source.UID) {
				assert.Equal(t, "datasource", v.Type, where)
				assert.JSONEq(t, `"`+source.Type+`"`, string(v.Query), where)
				assert.Equal(t, 2, v.Hide, "%s: hidden", where)
			}
		}
		for _, p := range d.Panels() {
			check(p.Title, p.Datasource)
		}
		targets := d.Targets()
		for _, target := range targets {
			check(target.Panel.Title+" "+target.RefID, target.Datasource)
		}
		for _, v := range d.Templating.List {
			if v.Type == "query" {
				check("variable "+v.Name, v.Datasource)
			}
		}
		for _, a := range d.Annotations.List {
			check("annotation "+a.Name, a.Datasource)
		}
	})
}

var (
	windows = regexp.MustCompile(`\[([^\]]*)\]`)
	rates   = regexp.MustCompile(`\b(?:rate|irate|increase|delta|idelta|deriv)\(`)
)

func TestRatesUseTheIntervalOfThePanel(t *testing.T) {
	each(t, func(t *testing.T, d *Dashboard) {
		targets := d.Targets()
		for _, target := range targets {
			name := fmt.Sprintf("%s %s: %s", target.Panel.Title, target.RefID, target.Expr)
			found := windows.FindAllStringSubmatch(target.Expr, -1)
			assert.GreaterOrEqual(t, len(found), len(rates.FindAllString(target.Expr, -1)), "%s: each rate has a window", name)
			for _, window := range found {
				assert.Contains(t, []string{"$__rate_interval", "$__range"}, window[1], name)
			}
			assert.Equal(t, strings.Count(target.Expr, "("), strings.Count(target.Expr, ")"), name)
		}
	})
}

func TestPanelLayout(t *testing.T) {
	each(t, func(t *testing.T, d *Dashboard) {
		ids := map[int]bool{}
		taken := map[[2]int]string{}
		stats := map[int]int{} // by line
		for _, p := range d.TopLevel {
			assert.False(t, ids[p.ID], "id %d: each once", p.ID)
			ids[p.ID] = true
			g := p.Grid
			assert.True(t, g.X >= 0 && g.W > 0 && g.H > 0 && g.X+g.W <= 24, "%s: within 24 columns: %+v", p.Title, g)
			for x := g.X; x < g.X+g.W; x++ {
				for y := g.Y; y < g.Y+g.H; y++ {
					assert.Empty(t, taken[[2]int{x, y}], "%s lies over another", p.Title)
					taken[[2]int{x, y}] = p.Title
				}
			}
			if p.Type == "stat" {
				stats[g.Y]++
				assert.True(t, g.W > 4 || len([]rune(p.Title)) <= 10, "%s: the title of a narrow panel is cut at 1280 pixels", p.Title)
			}
			if p.Type == "row" {
				assert.Equal(t, 24, g.W, p.Title)
			}
		}
		for y, n := range stats {
			assert.LessOrEqual(t, n, 6, "line %d: at most six stats in a row", y)
		}
		require.NotEmpty(t, d.TopLevel)
		assert.Equal(t, "row", d.TopLevel[0].Type, "the first panel is a row that names what follows")
	})
}

// Variables that Grafana, the data source or a link sets.
var builtIn = []string{"__all", "__from", "__to", "__range", "__rate_interval", "__interval", "__days", "__timeFilter", "__timeFrom", "__timeTo", "__url_time_range", "__value", "__data", "__field", "__auto"}

func TestVariablesAreDefined(t *testing.T) {
	dotted := regexp.MustCompile(`\$\{?(\w+)`)
	each(t, func(t *testing.T, d *Dashboard) {
		used := map[string]bool{}
		for _, m := range dotted.FindAllStringSubmatch(string(d.JSON), -1) {
			used[m[1]] = true
			if !slices.Contains(builtIn, m[1]) {
				assert.NotNil(t, d.Variable(m[1]), "$%s is used", m[1])
			}
		}
		for _, v := range d.Templating.List {
			assert.True(t, used[v.Name], "%s is used", v.Name)
		}
	})
}

// Links between dashboards pass on all variables, so variables of one name must be equal.
func TestVariablesOfOneNameAreEqual(t *testing.T) {
	first := map[string]Variable{}
	each(t, func(t *testing.T, d *Dashboard) {
		for _, v := range d.Templating.List {
			before, known := first[v.Name]
			if !known {
				first[v.Name] = v
				continue
			}
			assert.Equal(t, before.Multi, v.Multi, "$%s takes several values here and one elsewhere", v.Name)
			assert.Equal(t, before.IncludeAll, v.IncludeAll, v.Name)
			assert.JSONEq(t, string(before.Query), string(v.Query), v.Name)
		}
	})
}

func TestFleetsOfThePlatformAreHidden(t *testing.T) {
	each(t, func(t *testing.T, d *Dashboard) {
		v := d.Variable("fleet")
		if v == nil {
			return
		}
		// Go regular expressions have no lookahead, so the pattern is compared and not run.
		assert.Equal(t, "/^(?!_).*/", v.Regex)
		assert.False(t, v.Multi || v.IncludeAll, "one fleet at a time: All would be the platform's own ones too")
	})
}

// links returns the links of a panel and of its values, with the texts that the values are mapped to.
func links(t *testing.T, p *Panel) (all []Link, texts map[string][]string) {
	all = append(slices.Clone(p.Links), p.FieldConfig.Defaults.Links...)
	texts = map[string][]string{}
	for _, o := range p.FieldConfig.Overrides {
		var of []Link
		var mapped []string
		for _, property := range o.Properties {
			switch property.ID {
			case "links":
				require.NoError(t, json.Unmarshal(property.Value, &of))
			case "mappings":
				var mappings []Mapping
				require.NoError(t, json.Unmarshal(property.Value, &mappings))
				for _, m := range mappings {
					for _, option := range m.Options {
						mapped = append(mapped, option.Text)
					}
				}
			}
		}
		for _, link := range of {
			texts[link.URL] = append(texts[link.URL], mapped...)
		}
		all = append(all, of...)
	}
	return all, texts
}

func TestLinksHaveTargets(t *testing.T) {
	boards := map[string]*Dashboard{}
	for _, d := range load(t) {
		boards[d.UID] = d
	}
	toDashboards := 0
	each(t, func(t *testing.T, d *Dashboard) {
		for _, p := range d.Panels() {
			all, texts := links(t, p)
			for _, link := range all {
				assert.NotEmpty(t, link.Title, "%s: a title for %s", p.Title, link.URL)
				if page, ok := strings.CutPrefix(link.URL, "${runbooks}/"); ok {
					pages := []string{page}
					if strings.Contains(page, "${__value.text}") {
						require.NotEmpty(t, texts[link.URL], "%s: %s needs the texts of a mapping", p.Title, link.URL)
						pages = nil
						for _, text := range texts[link.URL] {
							pages = append(pages, strings.ReplaceAll(page, "${__value.text}", text))
						}
					}
					for _, page := range pages {
						if strings.Contains(page, "$") {
							continue // from an alert of Prometheus; package prometheus tests it
						}
						assert.FileExists(t, filepath.Join("..", "docs", "runbooks", page), p.Title)
					}
					continue
				}
				path, query, _ := strings.Cut(link.URL, "?")
				parts := strings.Split(path, "/")
				if !assert.True(t, len(parts) == 4 && parts[0] == "" && parts[1] == "d", "%s: %s is a dashboard's address", p.Title, link.URL) {
					continue
				}
				target := boards[parts[2]]
				if !assert.NotNil(t, target, "%s: %s: dashboard not found", p.Title, link.URL) {
					continue
				}
				toDashboards++
				assert.Equal(t, slug(target.Title), parts[3], "%s: the name in %s", p.Title, link.URL)
				for _, part := range strings.Split(query, "&") {
					if name, ok := strings.CutPrefix(strings.SplitN(part, "=", 2)[0], "var-"); ok {
						assert.NotNil(t, target.Variable(name), "%s: %s has no variable %s", p.Title, target.UID, name)
					}
				}
			}
		}
		if books := d.Variable("runbooks"); books != nil {
			var base string
			require.NoError(t, json.Unmarshal(books.Query, &base))
			u, err := url.Parse(base)
			require.NoError(t, err)
			assert.True(t, u.IsAbs() && strings.HasSuffix(u.Path, "/docs/runbooks"), base)
		}
	})
	assert.Greater(t, toDashboards, 5)
}

func slug(title string) string { return strings.ReplaceAll(strings.ToLower(title), " ", "-") }

func TestBind(t *testing.T) {
	d := &Dashboard{}
	d.Templating.List = []Variable{{Name: "fleet"}, {Name: "device", Multi: true}, {Name: "job", Multi: true}}
	values := Values{
		Variables: map[string][]string{"fleet": {"fleet-001"}, "device": {"a", "b'c"}, "job": {"x", "y"}},
		From:      time.Date(2026, 10, 31, 23, 0, 0, 0, time.UTC), To: time.Date(2026, 11, 1, 1, 0, 0, 0, time.UTC),
	}
	for name, c := range map[string]struct{ query, want string }{
		"a list":         {`{"devices":["$device","${fleet}"]}`, `{"devices":["a","b'c","fleet-001"]}`},
		"CQL":            {`{"cql":"fleet_id = '$fleet' AND device_id IN ($device)"}`, `{"cql":"fleet_id = 'fleet-001' AND device_id IN ('a', 'b''c')"}`},
		"quoted":         {`{"cql":"fleet_id = ${fleet:sqlstring} AND device_id IN (${device:sqlstring})"}`, `{"cql":"fleet_id = 'fleet-001' AND device_id IN ('a', 'b''c')"}`},
		"PromQL":         {`{"expr":"up{job=~\"$job\", f=\"${fleet}\"}[$__rate_interval]"}`, `{"expr":"up{job=~\"(x|y)\", f=\"fleet-001\"}[$__rate_interval]"}`},
		"months":         {`{"cql":"month IN ('${__from:date:YYYY-MM}-01', '${__to:date:YYYY-MM}-01')"}`, `{"cql":"month IN ('2026-10-01', '2026-11-01')"}`},
		"macros":         {`{"cql":"$__timeFilter(ts) AND day IN ($__days)"}`, `{"cql":"$__timeFilter(ts) AND day IN ($__days)"}`},
		"other":          {`{"limit":5,"live":true,"unknown":"$nobody"}`, `{"limit":5,"live":true,"unknown":"$nobody"}`},
		"formats":        {`{"x":"^(${device:regex})$ ${fleet:raw}"}`, `{"x":"^((a|b'c))$ fleet-001"}`},
		"filters inside": {`{"filters":[{"key":"zone","value":"$fleet"}]}`, `{"filters":[{"key":"zone","value":"fleet-001"}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			bound, err := d.Bind(json.RawMessage(c.query), values)
			require.NoError(t, err)
			assert.JSONEq(t, c.want, string(bound))
		})
	}
}

// Provisioning matches the dashboards: the uids that the variables select, and the folders.
func TestProvisioning(t *testing.T) {
	read := func(t *testing.T, file string, into any) {
		text, err := os.ReadFile(filepath.Join("provisioning", file))
		require.NoError(t, err)
		require.NoError(t, yaml.Unmarshal(text, into))
	}
	t.Run("data sources", func(t *testing.T) {
		kinds := map[string]string{}
		for _, file := range []string{"datasources/fleet.yml", "datasources/prometheus.yml"} {
			var config struct {
				Prune       bool
				Datasources []struct {
					UID, Type string
					Editable  *bool
				}
			}
			read(t, file, &config)
			assert.True(t, config.Prune, file)
			for _, source := range config.Datasources {
				kinds[source.UID] = source.Type
				if assert.NotNil(t, source.Editable, file) {
					assert.False(t, *source.Editable, file)
				}
			}
		}
		assert.Equal(t, map[string]string{"fleet": ourType, "prometheus": "prometheus"}, kinds)
		for _, d := range load(t) {
			for _, v := range d.Templating.List {
				if v.Type == "datasource" {
					var uid, kind string
					require.NoError(t, json.Unmarshal(v.Current.Value, &uid))
					require.NoError(t, json.Unmarshal(v.Query, &kind))
					assert.Equal(t, kind, kinds[uid], "%s: variable %s", d.UID, v.Name)
				}
			}
		}
	})
	t.Run("dashboards", func(t *testing.T) {
		var config struct {
			Providers []struct {
				Name, Folder    string
				FolderUID       string `yaml:"folderUid"`
				AllowUIUpdates  *bool  `yaml:"allowUiUpdates"`
				DisableDeletion *bool  `yaml:"disableDeletion"`
				Options         struct{ Path string }
			}
		}
		read(t, "dashboards/fleet-tracing.yml", &config)
		require.Len(t, config.Providers, 2)
		for _, p := range config.Providers {
			require.NotNil(t, p.AllowUIUpdates, p.Name)
			require.NotNil(t, p.DisableDeletion, p.Name)
			assert.False(t, *p.AllowUIUpdates, p.Name)
			assert.False(t, *p.DisableDeletion, "%s: Grafana deletes removed dashboards", p.Name)
			folder, ok := strings.CutPrefix(p.Options.Path, "$GRAFANA_DASHBOARDS/")
			assert.True(t, ok, p.Options.Path)
			assert.Equal(t, folder, p.FolderUID)
			assert.DirExists(t, filepath.Join("dashboards", folder))
		}
	})
}
