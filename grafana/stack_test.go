package grafana

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/dev/monitoring"
	"github.com/fleettracing/fleet-tracing/dev/process"
	"github.com/fleettracing/fleet-tracing/dev/testenv/platform"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/plugintest"
)

const liveFleet = "fleet-001" // the generator's; data/geofences.geojson has its geofences

// liveRules raise alerts of every severity at once. Some stay open and some are resolved.
const liveRules = `
defaults:
  speed_limit: {limit: 20, for: 0s}
  battery_low: {levels: {LOW: 100}}
devices:
  vehicle-0001:
    battery_low: {levels: {HIGH: 100}}
  vehicle-0002:
    battery_low: {levels: {MEDIUM: 100}}
`

// Deadlines. On an idle machine everything takes seconds.
const (
	readyWithin = 2 * time.Minute
	panelWithin = 30 * time.Second
)

// stack is the running platform with one and a half days of history and simulated users. It has no Grafana.
type stack struct {
	began      time.Time
	source     plugintest.Source // as provisioned
	plugin     *plugintest.Plugin
	prometheus string // http://host:port
}

// startStack runs the stack until the test ends.
func startStack(t *testing.T) *stack {
	platform.NeedMonitoring(t)
	_, nodes := platform.Cluster(t)
	dir := t.TempDir()
	plugin, err := plugintest.Build(t.Context())
	require.NoError(t, err)

	alertmanager, err := monitoring.StartAlertmanager(t.Context(), monitoring.AlertmanagerOptions{
		Options: monitoring.Options{Dir: filepath.Join(dir, "alertmanager")},
	})
	require.NoError(t, err)
	platform.StopAtEnd(t, alertmanager)

	etl := platform.NewETL(t, liveFleet, liveRules,
		"ETL_GENERATOR_LATE=0.02", "ETL_GENERATOR_DUPLICATE=0.02", "ETL_GENERATOR_BROKEN=0.02",
		"ETL_GEOFENCES_FILES=../data/geofences.geojson", "ETL_ALERTMANAGER_URLS=http://"+alertmanager.Address)
	past := filepath.Join(dir, "past.csv")
	etl.Do("generate", "--vehicles=10", "--interval=2m", "--records=9600", "--out="+past) // 32 hours, to include the day before
	etl.Do("load", past, "--end-at=now")
	etl.Run()

	s := &stack{began: time.Now(), source: provisionedSource(t, etl.Config)}
	log, err := os.Create(filepath.Join(dir, "plugin.log"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, log.Close()) })
	s.plugin, err = plugintest.Start(plugin, log)
	require.NoError(t, err)
	t.Cleanup(func() {
		s.plugin.Close()
		if t.Failed() {
			t.Log("plugin", process.Tail(log.Name()))
		}
	})
	prometheus, err := monitoring.StartPrometheus(t.Context(), monitoring.PrometheusOptions{
		Options:  monitoring.Options{Dir: filepath.Join(dir, "prometheus"), Replace: shorter},
		FleetETL: etl.Metrics, Cassandra: nodes, Alertmanager: alertmanager.Address, Grafana: s.serveMetrics(t),
	})
	require.NoError(t, err)
	platform.StopAtEnd(t, prometheus)
	s.prometheus = "http://" + prometheus.Address
	s.useIt(t, "http://"+etl.API)
	s.awaitRules(t)
	return s
}

// provisionedSource returns the data source as Grafana provisions it.
func provisionedSource(t *testing.T, config cassandra.Config) plugintest.Source {
	environment := map[string]string{"CASSANDRA_HOSTS": strings.Join(config.Hosts, ","), "CASSANDRA_DC": config.LocalDC, "CASSANDRA_KEYSPACE": config.Keyspace}
	text, err := os.ReadFile(filepath.Join("provisioning", "datasources", "fleet.yml"))
	require.NoError(t, err)
	var file struct {
		Datasources []struct {
			UID, Type string
			JSON      map[string]any    `yaml:"jsonData"`
			Secure    map[string]string `yaml:"secureJsonData"`
		}
	}
	require.NoError(t, yaml.Unmarshal([]byte(os.Expand(string(text), func(name string) string { return environment[name] })), &file))
	require.Len(t, file.Datasources, 1)
	found := file.Datasources[0]
	require.Equal(t, plugintest.ID, found.Type)
	return plugintest.Source{UID: found.UID, JSON: found.JSON, Secure: found.Secure, Updated: time.Now()}
}

// serveMetrics exposes the plugin's metrics as Grafana does. It has no metrics of Grafana, which makes an alert fire, as the test
// needs.
func (s *stack) serveMetrics(t *testing.T) (address string) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics/plugins/"+plugintest.ID {
			http.NotFound(w, r)
			return
		}
		text, err := s.plugin.Metrics(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		fmt.Fprint(w, text)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// shorter turns the minutes of prometheus/ into seconds.
var shorter = map[string][]string{
	"prometheus.yml": {"scrape_interval: 15s", "scrape_interval: 2s", "evaluation_interval: 15s", "evaluation_interval: 1s",
		"scrape_timeout: 10s", "scrape_timeout: 2s"},
	"rules/recording.yml":    {"interval: 1m", "interval: 1s"},
	"rules/cause-alerts.yml": {"for: 5m\n", "for: 1s\n"},
}

// useIt simulates users each second: it sends records, runs queries, truncated and rejected ones too, and checks the health of the
// data source.
func (s *stack) useIt(t *testing.T, api string) {
	ctx, cancel := context.WithCancel(t.Context())
	g, ctx := errgroup.WithContext(ctx)
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Error("simulated users:", err)
		}
	})
	tick := func(do func() error) func() error {
		return func() error {
			ticker := time.NewTicker(time.Second)
			defer ticker.Stop()
			for {
				if err := do(); err != nil && ctx.Err() == nil {
					return err
				}
				select {
				case <-ctx.Done():
					return nil
				case <-ticker.C:
				}
			}
		}
	}
	g.Go(tick(func() error { return send(ctx, api) }))
	g.Go(tick(func() error {
		for _, path := range []string{"/v1/fleets", "/v1/fleets/" + liveFleet + "/latest"} {
			if err := process.Fetch(ctx, api+path, io.Discard); err != nil {
				return err
			}
		}
		return nil
	}))
	g.Go(tick(func() error {
		now := time.Now()
		_, err := s.plugin.Query(ctx, s.source, now.Add(-time.Hour), now, nil,
			map[string]any{"refId": "A", "queryType": "latest", "fleets": []string{liveFleet}},
			map[string]any{"refId": "B", "queryType": "latest", "fleets": []string{liveFleet}, "limit": 1},
			map[string]any{"refId": "C", "queryType": "raw", "cql": "SELECT * FROM telemetry_by_device_day"})
		if err != nil {
			return err
		}
		_, err = s.plugin.Health(ctx, s.source)
		return err
	}))
}

func send(ctx context.Context, api string) error {
	now := time.Now()
	speed := 150 // too fast anywhere, and slow every other four seconds: an alert opens and ends
	if now.Unix()/4%2 == 0 {
		speed = 10
	}
	body, err := json.Marshal([]map[string]any{{
		"device_id": "z-api-1", "timestamp": now.UTC().Format("2006-01-02T15:04:05.000Z"), "lat": 52.37, "lon": 9.73, "speed_kmh": speed,
		"battery_pct": 55, "temp_c": 4,
	}})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, api+"/v1/telemetry", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("POST /v1/telemetry: %s", response.Status)
	}
	return nil
}

// awaitRules waits until each recording rule in the dashboards was evaluated.
func (s *stack) awaitRules(t *testing.T) {
	begun := time.Now()
	for _, name := range []string{
		"job:fleet_etl_durability_slo:error_budget_remaining_30d", "job:fleet_etl_freshness_slo:error_budget_remaining_30d",
		"job:fleet_etl_records_not_durable_per_accepted:ratio_rate6h", "job:fleet_etl_records_slow_per_stored:ratio_rate6h",
	} {
		require.Eventually(t, func() bool {
			now := time.Now()
			found, err := s.ask(t.Context(), name, true, now, now)
			return err == nil && slices.ContainsFunc(found, func(f promSeries) bool { return !math.IsNaN(f.values[0]) })
		}, readyWithin, 500*time.Millisecond, "%s is recorded", name)
	}
	t.Logf("recording rules took %.1f s", time.Since(begun).Seconds())
}

// promSeries is a series of Prometheus.
type promSeries struct {
	labels map[string]string
	times  []time.Time
	values []float64
}

// ask runs an instant or range query on Prometheus.
func (s *stack) ask(ctx context.Context, expr string, instant bool, from, to time.Time) ([]promSeries, error) {
	stamp := func(at time.Time) string { return strconv.FormatFloat(float64(at.UnixMilli())/1000, 'f', 3, 64) }
	path := "/api/v1/query?" + url.Values{"query": {expr}, "time": {stamp(to)}}.Encode()
	if !instant {
		path = "/api/v1/query_range?" + url.Values{"query": {expr}, "start": {stamp(from)}, "end": {stamp(to)}, "step": {strconv.Itoa(int(liveStep.Seconds()))}}.Encode()
	}
	var result struct {
		ResultType string
		Result     json.RawMessage
	}
	if err := s.api(ctx, path, &result); err != nil {
		return nil, fmt.Errorf("%s: %w", expr, err)
	}
	if result.ResultType == "scalar" {
		return nil, fmt.Errorf("%s: a scalar", expr)
	}
	var list []struct {
		Metric map[string]string
		Value  *[2]any
		Values [][2]any
	}
	if err := json.Unmarshal(result.Result, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", expr, err)
	}
	var found []promSeries
	for _, one := range list {
		if one.Value != nil {
			one.Values = append(one.Values, *one.Value)
		}
		series := promSeries{labels: one.Metric}
		for _, point := range one.Values {
			at, isNumber := point[0].(float64)
			value, err := strconv.ParseFloat(fmt.Sprint(point[1]), 64)
			if err != nil || !isNumber {
				return nil, fmt.Errorf("%s: point %v: %w", expr, point, err)
			}
			series.times, series.values = append(series.times, time.UnixMilli(int64(at*1000))), append(series.values, value)
		}
		if len(series.values) > 0 {
			found = append(found, series)
		}
	}
	return found, nil
}

// api returns the response of Prometheus at a path.
func (s *stack) api(ctx context.Context, path string, into any) error {
	var body bytes.Buffer
	if err := process.Fetch(ctx, s.prometheus+path, &body); err != nil {
		return err
	}
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.Unmarshal(body.Bytes(), &answer); err != nil {
		return fmt.Errorf("%w: %s", err, body.Bytes())
	}
	if answer.Status != "success" {
		return errors.New(answer.Error)
	}
	return json.Unmarshal(answer.Data, into)
}
