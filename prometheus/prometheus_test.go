// Package prometheus has the configuration of Prometheus and Alertmanager. Its tests run promtool and amtool on it, and check that
// rules, runbooks, dashboards and metrics match.
package prometheus

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/fleettracing/fleet-tracing/dev/testenv"
)

const (
	runbooks    = "../docs/runbooks/"
	runbookBase = "https://github.com/fleettracing/fleet-tracing/blob/main/docs/runbooks/"
	questions   = "../docs/prometheus.md"
)

var dashboards = []string{"fleet-realtime", "fleet-analytics", "fleet-alerts", "fleet-pipeline", "cassandra-cluster"}

type rule struct {
	Record, Alert, Expr string
	Labels, Annotations map[string]string
}

type group struct {
	Name  string
	Rules []rule
}

func findPromtool(t *testing.T) string {
	t.Helper()
	return testenv.Program(t, testenv.Prometheus, "prometheus", "promtool")
}

func findAmtool(t *testing.T) string {
	t.Helper()
	return testenv.Program(t, testenv.Alertmanager, "prometheus-alertmanager", "amtool")
}

func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	require.NoError(t, err, "%s %s\n%s", filepath.Base(program), strings.Join(args, " "), out)
	return string(out)
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, into), path)
}

func files(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	require.NoError(t, err)
	require.NotEmpty(t, found, pattern)
	return found
}

// groups returns the rule groups of some files, or of all.
func groups(t *testing.T, from ...string) (all []group) {
	for _, file := range files(t, "rules/*.yml") {
		if len(from) > 0 && !slices.Contains(from, "../"+file) {
			continue
		}
		var f struct{ Groups []group }
		readYAML(t, file, &f)
		all = append(all, f.Groups...)
	}
	return all
}

// rules returns all rules, in the order of their files.
func rules(t *testing.T) (all []rule) {
	for _, g := range groups(t) {
		all = append(all, g.Rules...)
	}
	return all
}

func alertNames(t *testing.T) map[string]bool {
	names := map[string]bool{}
	for _, r := range rules(t) {
		if r.Alert != "" {
			names[r.Alert] = true
		}
	}
	return names
}

func TestConfiguration(t *testing.T) {
	run(t, findPromtool(t), "check", "config", "prometheus.yml")
}

func TestTargets(t *testing.T) {
	var config struct {
		ScrapeConfigs []struct {
			Job     string `yaml:"job_name"`
			Path    string `yaml:"metrics_path"`
			Targets []struct{ Files []string }
			FileSD  []struct{ Files []string } `yaml:"file_sd_configs"`
		} `yaml:"scrape_configs"`
	}
	readYAML(t, "prometheus.yml", &config)
	got := map[string][]string{}
	for _, job := range config.ScrapeConfigs {
		for _, sd := range job.FileSD {
			for _, file := range sd.Files {
				var targets []struct {
					Targets []string
					Labels  map[string]string
				}
				readYAML(t, file, &targets)
				for _, target := range targets {
					got[job.Job] = append(got[job.Job], target.Targets...)
					if job.Job == "cassandra" {
						node := target.Labels["node"]
						assert.Equal(t, []string{node + ":7070"}, target.Targets)
						assert.Contains(t, node, "-"+target.Labels["dc"]+"-")
					}
				}
			}
		}
		if job.Job == "fleet-datasource" {
			assert.Equal(t, "/metrics/plugins/fleettracing-cassandra-datasource", job.Path)
		}
	}
	assert.Equal(t, map[string][]string{
		"fleet-etl":        {"etl:9464"},
		"cassandra":        {"cassandra-dc1-node1:7070", "cassandra-dc1-node2:7070", "cassandra-dc2-node1:7070", "cassandra-dc2-node2:7070"},
		"grafana":          {"grafana:3000"},
		"fleet-datasource": {"grafana:3000"},
		"prometheus":       {"prometheus:9090"},
		"alertmanager":     {"alertmanager:9093"},
	}, got)
}

func TestRules(t *testing.T) {
	promtool := findPromtool(t)
	for _, file := range files(t, "tests/*.yml") {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yml"), func(t *testing.T) {
			t.Parallel()
			run(t, promtool, "test", "rules", file)
		})
	}
}

// Every alert has a test in which it fires with all annotations, one in which it stays quiet in a similar situation, and one
// without its series.
func TestEveryAlertIsTested(t *testing.T) {
	fires, quiet, absent := map[string]bool{}, map[string]bool{}, map[string]bool{}
	firesAs := map[string]bool{} // alert and severity
	for _, file := range files(t, "tests/*.yml") {
		var f struct {
			Rules []string `yaml:"rule_files"`
			Order []string `yaml:"group_eval_order"`
			Tests []struct {
				Name   string
				Series []any `yaml:"input_series"`
				Alerts []struct {
					Name   string `yaml:"alertname"`
					Expect []struct {
						Labels      map[string]string `yaml:"exp_labels"`
						Annotations map[string]string `yaml:"exp_annotations"`
					} `yaml:"exp_alerts"`
				} `yaml:"alert_rule_test"`
			}
		}
		readYAML(t, file, &f)
		for _, g := range groups(t, f.Rules...) {
			if len(f.Rules) > 1 {
				assert.Contains(t, f.Order, g.Name, "%s: group_eval_order; without it the result is random", file)
			}
		}
		for _, test := range f.Tests {
			for _, a := range test.Alerts {
				switch {
				case test.Name == "series absent":
					assert.Empty(t, test.Series, "%s: %s", file, test.Name)
					absent[a.Name] = true
				case strings.HasPrefix(test.Name, a.Name+": fires "):
					assert.NotEmpty(t, a.Expect, "%s: %s", file, test.Name)
					fires[a.Name] = true
				case strings.HasPrefix(test.Name, a.Name+": quiet "):
					assert.Empty(t, a.Expect, "%s: %s", file, test.Name)
					assert.NotEmpty(t, test.Series, "%s: %s", file, test.Name)
					quiet[a.Name] = true
				default:
					t.Errorf("%s: %q has neither fires nor quiet for %s", file, test.Name, a.Name)
				}
				for _, e := range a.Expect {
					firesAs[a.Name+" "+e.Labels["severity"]] = true
					assert.ElementsMatch(t, []string{"summary", "description", "runbook_url", "dashboard_url"},
						slices.Collect(maps.Keys(e.Annotations)), "%s: %s", file, test.Name)
				}
			}
		}
	}
	names := alertNames(t)
	assert.Equal(t, names, fires)
	assert.Equal(t, names, absent)
	delete(names, "FleetWatchdog") // it is never quiet
	assert.Equal(t, names, quiet)
	for _, r := range rules(t) {
		if r.Alert != "" {
			assert.True(t, firesAs[r.Alert+" "+r.Labels["severity"]], "%s never fires as %s in a test", r.Alert, r.Labels["severity"])
		}
	}
}

func TestEveryAlertHasAnnotations(t *testing.T) {
	name := regexp.MustCompile(`^(Fleet|Cassandra)([A-Z][a-z]+)+$`)
	link := regexp.MustCompile(`^\{\{ \$externalLabels\.grafana_url \}\}/d/([a-z-]+)$`)
	for _, r := range rules(t) {
		if r.Alert == "" {
			continue
		}
		t.Run(r.Alert+" "+r.Labels["severity"], func(t *testing.T) {
			assert.Regexp(t, name, r.Alert)
			assert.Contains(t, []string{"critical", "warning", "info"}, r.Labels["severity"])
			assert.Equal(t, "platform", r.Labels["kind"])
			assert.NotEmpty(t, r.Annotations["summary"])
			assert.NotContains(t, r.Annotations["summary"], "{{", "the summary is the same for all of an alert")
			assert.NotEmpty(t, r.Annotations["description"])
			if r.Alert != "FleetWatchdog" {
				assert.Contains(t, r.Annotations["description"], "{{", "the description names the instance")
			}
			assert.Equal(t, runbookBase+r.Alert+".md", r.Annotations["runbook_url"])
			if match := link.FindStringSubmatch(r.Annotations["dashboard_url"]); assert.NotNil(t, match, r.Annotations["dashboard_url"]) {
				assert.Contains(t, dashboards, match[1])
			}
		})
	}
}

func TestNamesOfRecordingRules(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range rules(t) {
		if r.Record != "" {
			assert.Regexp(t, `^[a-z_]+:[a-z0-9_]+:[a-z0-9_]+$`, r.Record)
			assert.False(t, seen[r.Record], "%s is recorded twice", r.Record)
			seen[r.Record] = true
		}
	}
}

func TestRunbooks(t *testing.T) {
	pages := alertNames(t)
	for name := range vehicleAlerts(t) {
		pages[name] = true
	}
	found := map[string]bool{}
	for _, file := range files(t, runbooks+"*.md") {
		name := strings.TrimSuffix(filepath.Base(file), ".md")
		found[name] = true
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.True(t, strings.HasPrefix(string(text), "# "+name+"\n"), "%s: the title", file)
		for _, part := range []string{"**Look at.**", "**Do.**", "**Resolves**"} {
			assert.Contains(t, string(text), part, file)
		}
		for _, uid := range regexp.MustCompile("ashboard `([a-z-]+)`").FindAllStringSubmatch(string(text), -1) {
			assert.Contains(t, dashboards, uid[1], file)
		}
		for _, to := range regexp.MustCompile(`\]\(([^)#]+)[^)]*\)`).FindAllStringSubmatch(string(text), -1) {
			assert.FileExists(t, runbooks+to[1], file)
		}
	}
	assert.Equal(t, pages, found, "one runbook per alert, and one alert per runbook")
}

// vehicleAlerts returns the names of the alerts that fleet-etl sends, one per alert type.
func vehicleAlerts(t *testing.T) map[string]bool {
	source, err := os.ReadFile("../etl/internal/telemetry/alert.go")
	require.NoError(t, err)
	names := map[string]bool{}
	for _, match := range regexp.MustCompile(`AlertType = "([a-z_]+)"`).FindAllStringSubmatch(string(source), -1) {
		name := "FleetVehicle"
		for word := range strings.SplitSeq(match[1], "_") {
			name += strings.ToUpper(word[:1]) + word[1:]
		}
		names[name] = true
	}
	require.NotEmpty(t, names)
	return names
}

var fence = regexp.MustCompile("(?s)```promql\n(.*?)```")

// queries returns all queries in runbooks, one per line, and in the documentation, one per question.
func queries(t *testing.T) map[string][]string {
	all := map[string][]string{}
	for _, file := range files(t, runbooks+"*.md") {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, block := range fence.FindAllStringSubmatch(string(text), -1) {
			all[file] = append(all[file], strings.Split(strings.TrimSpace(block[1]), "\n")...)
		}
	}
	text, err := os.ReadFile(questions)
	require.NoError(t, err)
	for _, block := range fence.FindAllStringSubmatch(string(text), -1) {
		all[questions] = append(all[questions], strings.TrimSpace(block[1]))
	}
	require.NotEmpty(t, all[questions])
	return all
}

func TestQueriesParse(t *testing.T) {
	promtool := findPromtool(t)
	type recorded struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var list []recorded
	for _, found := range queries(t) {
		for _, query := range found {
			list = append(list, recorded{"a:query:x" + strings.Repeat("x", len(list)), query})
		}
	}
	text, err := json.Marshal(map[string]any{"groups": []any{map[string]any{"name": "queries", "rules": list}}})
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "queries.yml")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	run(t, promtool, "check", "rules", file)
}

// The metrics of other programs. The live test checks that they exist.
var foreign = []string{
	"up", "ALERTS", "process_start_time_seconds", "process_cpu_seconds_total", "process_resident_memory_bytes", "go_goroutines",
	"go_memstats_heap_inuse_bytes", "scrape_samples_scraped", "scrape_duration_seconds",
	"prometheus_config_last_reload_successful", "prometheus_notifications_alertmanagers_discovered", "prometheus_notifications_dropped_total",
	"prometheus_notifications_errors_total", "prometheus_rule_evaluation_failures_total", "prometheus_rule_group_interval_seconds",
	"prometheus_rule_group_last_duration_seconds", "prometheus_tsdb_head_series",
	"alertmanager_alerts", "alertmanager_config_last_reload_successful", "alertmanager_notifications_failed_total", "alertmanager_notifications_total",
}

func TestEveryMetricExists(t *testing.T) {
	known := ownMetrics(t)
	for _, name := range foreign {
		known[name] = true
	}
	names, err := os.ReadFile("../cassandra/metrics/names.txt") // what a node with the agent really serves
	require.NoError(t, err)
	for line := range strings.Lines(string(names)) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), "{")
		known[name] = true
	}
	for _, r := range rules(t) {
		known[r.Record] = true
	}
	check := func(where, query string) {
		for _, name := range metricsOf(query) {
			base := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
			assert.True(t, known[name] || known[base], "%s asks for %s, which nothing has", where, name)
		}
	}
	for _, r := range rules(t) {
		check(r.Alert+r.Record, r.Expr)
	}
	for where, list := range queries(t) {
		for _, query := range list {
			check(where, query)
		}
	}
}

// ownMetrics returns the names of metrics in the sources of this project.
func ownMetrics(t *testing.T) map[string]bool {
	known := map[string]bool{}
	add := func(dir string, name *regexp.Regexp, prefixes ...string) {
		require.NoError(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			source, err := os.ReadFile(path)
			for _, match := range name.FindAllStringSubmatch(string(source), -1) {
				for _, prefix := range prefixes {
					known[prefix+match[1]] = true
				}
			}
			return err
		}))
	}
	add("../etl", regexp.MustCompile(`"(fleet_etl_[a-z0-9_]+[a-z])"`), "")
	add("../cassandra", regexp.MustCompile(`Name: +"(cassandra_[a-z_]+)"`), "fleet_etl_", "fleet_datasource_")
	add("../grafana-datasource/pkg", regexp.MustCompile(`"(fleet_datasource_[a-z_]+[a-z])"`), "")
	for _, name := range []string{"fleet_etl_records_received_total", "fleet_etl_cassandra_requests_total", "fleet_datasource_queries_total"} {
		require.Contains(t, known, name)
	}
	return known
}

// metricsOf returns the names of metrics in a query, which remain without labels, ranges, functions and keywords.
func metricsOf(query string) (names []string) {
	for _, noise := range []string{
		`(?m)#.*$`, `"(?:[^"\\]|\\.)*"`, `\{[^}]*\}`, `\[[^\]]*\]`,
		`\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)`,
		`\b(?:and|or|unless|offset|bool)\b`, `\b\d[\w.]*\b`,
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

func TestMetricsOf(t *testing.T) {
	for query, want := range map[string][]string{
		`vector(1)`: nil,
		`sum by (job) (rate(a_total{le=~"5(\\.0)?"}[5m])) > 14.4 * 0.001`:          {"a_total"},
		`time() - (max_over_time(a[5m]) > 0 or b and on (job) c:d:e) > 120`:        {"a", "b", "c:d:e"},
		`min_over_time(sum by (job, topic) (lag)[15m:1m]) > 1e4 unless on (job) x`: {"lag", "x"},
		`a / on (job, source) group_left () b offset 10m # c`:                      {"a", "b"},
		`label_replace(max_over_time(a[1m]) < 1, "part", "discovery", "", "")`:     {"a"},
	} {
		assert.Equal(t, want, metricsOf(query), query)
	}
}

// A rule with a bucket boundary that the histogram does not have never fires.
func TestHistogramsHaveTheBoundaryOfTheSLO(t *testing.T) {
	source, err := os.ReadFile("../etl/internal/pipeline/metrics.go")
	require.NoError(t, err)
	match := regexp.MustCompile(`freshnessBuckets = \[\]float64\{([^}]*)\}`).FindStringSubmatch(string(source))
	require.NotNil(t, match)
	assert.Contains(t, strings.Split(strings.ReplaceAll(match[1], " ", ""), ","), "5")
	asked := 0
	for _, r := range rules(t) {
		if strings.Contains(r.Expr, "{le=") {
			assert.Contains(t, r.Expr, `fleet_etl_freshness_seconds_bucket{le=~"5(\\.0)?"}`)
			asked++
		}
	}
	assert.NotZero(t, asked)
}
