package prometheus

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/monitoring"
	"github.com/fleettracing/fleet-tracing/dev/process"
	"github.com/fleettracing/fleet-tracing/dev/testenv/platform"
)

const (
	liveGrafana = "http://grafana.example.org:3000" // where the links of alerts lead
	liveFleet   = "live"                            // that of the vehicles that the test drives
)

// liveRules restrict alerts to the vehicles of the test.
const liveRules = `
defaults:
  speed_limit: {enabled: false}
  battery_low: {enabled: false}
  temperature: {enabled: false}
  geofence_enter: {enabled: false}
  geofence_exit: {enabled: false}
  geofence_dwell: {enabled: false}
  device_offline: {enabled: false}
  device_stuck: {enabled: false}
fleets:
  live:
    speed_limit: {enabled: true, limit: 80, for: 1s}
`

// Deadlines. On an idle machine everything takes a few seconds.
const (
	liveWithin   = 90 * time.Second
	calmWithin   = 3 * time.Minute
	answerWithin = 30 * time.Second
)

// TestAlertsEndToEnd runs Cassandra nodes, fleet-etl, Prometheus and Alertmanager with the configuration of this folder and
// shorter times. It injects faults and checks the notifications.
func TestAlertsEndToEnd(t *testing.T) {
	l := startLive(t)
	for _, part := range []struct {
		name string
		run  func(*testing.T, *live)
	}{
		{"all is well", testHealthy},
		{"vehicles drive too fast", testSpeeding},
		{"node down", testNodeDown},
		{"the pipeline stalls", testStalledPipeline},
		{"the questions have answers", testDocumentedQueries},
		{"rules and metrics are what they seem", testRulesAndMetricsLive},
	} {
		if !t.Run(part.name, func(t *testing.T) {
			begun := time.Now()
			defer func() { t.Logf("took %.1f s", time.Since(begun).Seconds()) }()
			part.run(t, l)
		}) {
			return // what follows would only fail for the same reason
		}
	}
}

// Only the watchdog fires.
func testHealthy(t *testing.T, l *live) {
	first := l.hooks.await(t, 0, liveWithin, "the watchdog", func(m message) bool {
		return m.path == "/watchdog" && m.Alerts[0].Labels["alertname"] == "FleetWatchdog"
	})
	assert.Equal(t, "Bearer development", first.header.Get("Authorization"), "the secret of the file")
	l.checkLinks(t, first.Alerts[0].Annotations, "/d/fleet-pipeline")

	// Seven targets: fleet-etl, four nodes, Prometheus and Alertmanager.
	calm := `count(min_over_time(up[10s]) == 1 and count_over_time(up[10s]) >= 4) == 7
		unless on () count_over_time(ALERTS{alertname!="FleetWatchdog", alertstate="firing"}[10s])`
	require.True(t, within(calmWithin, func() bool { return len(l.ask(t, calm)) == 1 }), "ten seconds in which all is well")
	assert.True(t, within(liveWithin, func() bool { return maps.Equal(l.hooks.firing(), map[string]bool{"FleetWatchdog": true}) }),
		"%v was notified as firing and never as resolved", l.hooks.firing())
}

// fleet-etl sends alerts about vehicles to Alertmanager. Alerts of one type in a fleet are one message.
func testSpeeding(t *testing.T, l *live) {
	from := l.hooks.now()
	began := time.Now()
	l.send(t, position{"live-1", began.Add(-2 * time.Second), 140}, position{"live-2", began.Add(-2 * time.Second), 150},
		position{"live-1", began, 140}, position{"live-2", began, 150})
	group := l.hooks.await(t, from, liveWithin, "one message of both vehicles", func(m message) bool {
		return m.Status == "firing" && len(m.Alerts) == 2
	})
	assert.Equal(t, map[string]string{"fleet": liveFleet, "type": "speed_limit"}, group.GroupLabels)
	devices := map[string]string{}
	for _, a := range group.Alerts {
		device := a.Labels["device"]
		devices[device] = a.Annotations["value"]
		assert.Equal(t, map[string]string{
			"alertname": "FleetVehicleSpeedLimit", "kind": "fleet", "fleet": liveFleet, "device": device,
			"type": "speed_limit", "severity": "critical", "fleet_severity": "HIGH",
		}, a.Labels)
		assert.Equal(t, "110 km/h", a.Annotations["threshold"], "from there on it is HIGH")
		l.checkLinks(t, a.Annotations, "/d/fleet-analytics")
		link, err := url.Parse(a.Annotations["dashboard_url"])
		require.NoError(t, err)
		assert.Equal(t, liveFleet, link.Query().Get("var-fleet"))
		assert.Equal(t, device, link.Query().Get("var-device"))
		shown, err := strconv.ParseInt(link.Query().Get("from"), 10, 64)
		require.NoError(t, err)
		assert.Less(t, shown, began.UnixMilli(), "the page shows what was before")
		assert.Equal(t, a.Annotations["dashboard_url"], a.GeneratorURL)
	}
	assert.Equal(t, map[string]string{"live-1": "140 km/h", "live-2": "150 km/h"}, devices)

	slower := time.Now()
	l.send(t, position{"live-1", slower, 60}, position{"live-2", slower, 60})
	for device := range devices {
		l.hooks.awaitAlert(t, from, "resolved", map[string]string{"alertname": "FleetVehicleSpeedLimit", "device": device})
	}
}

// A node that goes down is only a warning: everything else continues.
func testNodeDown(t *testing.T, l *live) {
	const n, node, dc = 4, "cassandra-dc2-node2", "dc2"
	down := map[string]string{"alertname": "CassandraNodeDown", "node": node}
	from := l.hooks.now()
	require.NoError(t, l.cluster.Kill(t.Context(), n))
	killed := time.Now()
	m, a := l.hooks.awaitAlert(t, from, "firing", down)
	t.Logf("notified after %.1f s", time.Since(killed).Seconds())
	assert.Equal(t, map[string]string{"alertname": "CassandraNodeDown", "cluster": "fleet-tracing"}, m.GroupLabels)
	assert.Equal(t, []string{"warning", "platform", dc}, []string{a.Labels["severity"], a.Labels["kind"], a.Labels["dc"]})
	assert.Contains(t, a.Annotations["description"], "Node "+node+" of data center "+dc)
	assert.NotContains(t, a.Labels, "grafana_url", "it is in the links")
	l.checkLinks(t, a.Annotations, "/d/cassandra-cluster")
	require.True(t, within(liveWithin, func() bool {
		return len(l.ask(t, fmt.Sprintf("fleet_etl_canary_last_seen_timestamp_seconds > %d", killed.Unix()+1))) == 1
	}), "records come through without the node")

	require.NoError(t, l.cluster.Start(t.Context(), n))
	started := time.Now()
	l.hooks.awaitAlert(t, from, "resolved", down)
	t.Logf("resolved %.1f s after the node was back", time.Since(started).Seconds())
}

// Nodes that hang stall the pipeline, and fleet-etl reports it. Meanwhile vehicles of a fleet whose records wait only seem to be offline.
func testStalledPipeline(t *testing.T, l *live) {
	stalled := map[string]string{"alertname": "FleetPipelineStalled", "severity": "critical"}
	from := l.hooks.now()
	for n := 1; n <= 4; n++ {
		require.NoError(t, l.cluster.Pause(t.Context(), n))
	}
	paused := time.Now()
	m, a := l.hooks.awaitAlert(t, from, "firing", stalled)
	t.Logf("notified after %.1f s", time.Since(paused).Seconds())
	assert.Equal(t, map[string]string{"alertname": "FleetPipelineStalled", "cluster": "fleet-tracing"}, m.GroupLabels)
	assert.Equal(t, []string{"platform", "fleet-etl"}, []string{a.Labels["kind"], a.Labels["job"]})
	l.checkLinks(t, a.Annotations, "/d/fleet-pipeline")
	both := l.hooks.await(t, from, liveWithin, "one message of both data centers", func(m message) bool {
		return m.GroupLabels["alertname"] == "CassandraNodesDown" && m.Status == "firing" && len(m.Alerts) == 2
	})
	for _, a := range both.Alerts {
		l.checkLinks(t, a.Annotations, "/d/cassandra-cluster")
	}

	l.send(t, position{"live-8", time.Now(), 60})
	require.True(t, within(liveWithin, func() bool {
		return strings.Contains(get(t, l.alertmanager+"/api/v2/alerts?filter="+url.QueryEscape(`alertname="FleetIngestLate"`)), `"fleet":"`+liveFleet+`"`)
	}), "the record waits")

	// An alert of another fleet, and one of another type, are notified. With the same timing, "offline" of the late fleet is not.
	offline := map[string]string{"alertname": "FleetVehicleDeviceOffline", "device": "live-9"}
	held, hot := vehicleAlert("live-9", "device_offline", "warning"), vehicleAlert("live-9", "temperature", "warning")
	for _, a := range []alert{held, hot} {
		a["labels"].(map[string]string)["fleet"] = liveFleet
	}
	l.post(t, held)
	require.True(t, within(liveWithin, func() bool {
		return isInhibited(get(t, l.alertmanager+"/api/v2/alerts?filter="+url.QueryEscape(`alertname="FleetVehicleDeviceOffline"`)))
	}), "the vehicle's alert is inhibited")
	l.post(t, hot)
	l.post(t, vehicleAlert("truck-9", "device_offline", "warning"))
	l.hooks.awaitAlert(t, from, "firing", map[string]string{"alertname": "FleetVehicleTemperature", "device": "live-9"})
	l.hooks.awaitAlert(t, from, "firing", map[string]string{"alertname": "FleetVehicleDeviceOffline", "device": "truck-9"})
	assert.False(t, l.hooks.has(from, "firing", offline), "its records wait")

	for n := 1; n <= 4; n++ {
		require.NoError(t, l.cluster.Resume(t.Context(), n))
	}
	resumed := time.Now()
	l.hooks.awaitAlert(t, from, "resolved", stalled)
	t.Logf("resolved %.1f s after the nodes went on", time.Since(resumed).Seconds())
	l.hooks.awaitAlert(t, from, "firing", offline)
	for _, dc := range []string{"dc1", "dc2"} {
		l.hooks.awaitAlert(t, from, "resolved", map[string]string{"alertname": "CassandraNodesDown", "dc": dc})
	}
	assert.True(t, within(liveWithin, func() bool { return len(l.ask(t, "count(up == 1) == 7")) == 1 }), "all is up again")
}

// Every query in the documentation has a result, unless the documentation says that it may be empty. Queries of runbooks may be
// empty, because they are for incidents.
func testDocumentedQueries(t *testing.T, l *live) {
	asked := queries(t)
	require.Greater(t, len(asked[questions]), 30)
	for file, list := range asked {
		for _, query := range list {
			switch {
			case file != questions:
				l.ask(t, query)
			case strings.HasPrefix(query, "# may be empty\n"):
				if len(l.ask(t, query)) == 0 {
					t.Logf("no answer, as it says that there may be none: %s", query)
				}
			default:
				assert.True(t, within(answerWithin, func() bool {
					return slices.ContainsFunc(l.ask(t, query), func(value float64) bool { return !math.IsNaN(value) && !math.IsInf(value, 0) })
				}), "no answer to\n%s", query)
			}
		}
	}
}

// Only a Prometheus with data detects operands that do not match, and only running programs have the metrics of others.
func testRulesAndMetricsLive(t *testing.T, l *live) {
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(get(t, l.prometheus+"/api/v1/rules")), &answer))
	found := map[string]bool{}
	for _, g := range answer.Data.Groups {
		for _, r := range g.Rules {
			found[r.Name] = true
			assert.Equal(t, "ok", r.Health, "%s: %s", r.Name, r.LastError)
		}
	}
	for _, r := range rules(t) {
		assert.True(t, found[r.Alert+r.Record], "%s%s is not loaded", r.Alert, r.Record)
	}
	for _, name := range foreign {
		assert.NotEmpty(t, l.ask(t, fmt.Sprintf("{__name__=%q}", name)), "nothing has %s", name)
	}
}

// live is the running stack.
type live struct {
	cluster                       *cluster.Cluster
	prometheus, alertmanager, api string // addresses, with http://
	hooks                         *inbox
}

func startLive(t *testing.T) *live {
	platform.NeedMonitoring(t)
	l := &live{hooks: newInbox(t)}
	var nodes []cluster.Node
	l.cluster, nodes = platform.Cluster(t)

	alertmanager, err := monitoring.StartAlertmanager(t.Context(), monitoring.AlertmanagerOptions{
		Options: monitoring.Options{Dir: t.TempDir(), Replace: shorterAlertmanager}, Webhook: l.hooks.URL,
	})
	require.NoError(t, err)
	platform.StopAtEnd(t, alertmanager)
	l.alertmanager = "http://" + alertmanager.Address

	etl := platform.NewETL(t, liveFleet, liveRules, "ETL_ALERTMANAGER_URLS="+l.alertmanager, "ETL_GRAFANA_URL="+liveGrafana, "ETL_RUNBOOK_URL="+runbookBase)
	etl.Run()
	l.api = "http://" + etl.API
	seen := regexp.MustCompile(`(?m)^fleet_etl_canary_last_seen_timestamp_seconds [1-9]`)
	require.True(t, within(liveWithin, func() bool { return seen.MatchString(get(t, "http://"+etl.Metrics+"/metrics")) }), "the canary comes through")

	prometheus, err := monitoring.StartPrometheus(t.Context(), monitoring.PrometheusOptions{
		Options:  monitoring.Options{Dir: t.TempDir(), Replace: shorter},
		FleetETL: etl.Metrics, Cassandra: nodes, Alertmanager: alertmanager.Address,
		Flags: []string{"--rules.alert.resend-delay=1s"},
	})
	require.NoError(t, err)
	platform.StopAtEnd(t, prometheus)
	l.prometheus = "http://" + prometheus.Address
	// First of all that is cleaned up: the rest needs the nodes.
	t.Cleanup(func() { assert.NoError(t, l.cluster.Up(context.WithoutCancel(t.Context()))) })
	return l
}

// shorter names Grafana and turns minutes into seconds. Expressions over longer windows keep them, since they would misfire over seconds. The
// canary sends five times as often as usual and may be missing for a twelfth of the time.
var shorter = map[string][]string{
	"prometheus.yml": {"scrape_interval: 15s", "scrape_interval: 2s", "evaluation_interval: 15s", "evaluation_interval: 1s",
		"scrape_timeout: 10s", "scrape_timeout: 2s", "grafana_url: http://localhost:3000", "grafana_url: " + liveGrafana},
	"rules/recording.yml": {"interval: 1m", "interval: 2s"},
	"rules/cause-alerts.yml": {"for: 1m\n", "for: 2s\n", "for: 2m\n", "for: 5s\n", ") > 120\n", ") > 10\n",
		"delay_seconds[5m])) > 60\n", "delay_seconds[10s])) > 10\n"},
}

// shorterAlertmanager shortens waits and keeps their order: critical alerts first.
var shorterAlertmanager = map[string][]string{
	"alertmanager.yml": {"group_wait: 30s", "group_wait: 2s", "group_wait: 10s", "group_wait: 1s",
		"group_interval: 1m", "group_interval: 1s", "group_interval: 5m", "group_interval: 2s"},
}

// checkLinks checks that the targets of an alert's links exist.
func (l *live) checkLinks(t *testing.T, annotations map[string]string, dashboard string) {
	t.Helper()
	link, err := url.Parse(annotations["dashboard_url"])
	require.NoError(t, err)
	assert.Equal(t, liveGrafana+dashboard, link.Scheme+"://"+link.Host+link.Path)
	uid := strings.TrimPrefix(dashboard, "/d/")
	assert.Contains(t, dashboards, uid)
	files(t, "../grafana/dashboards/*/"+uid+".json")
	page, ok := strings.CutPrefix(annotations["runbook_url"], runbookBase)
	assert.True(t, ok, "%s does not begin with %s", annotations["runbook_url"], runbookBase)
	assert.FileExists(t, runbooks+page)
}

// position is one record of a vehicle of liveFleet.
type position struct {
	device string
	at     time.Time
	speed  float64 // km/h
}

// send sends records to the IoT API.
func (l *live) send(t *testing.T, positions ...position) {
	t.Helper()
	var records []map[string]any
	for _, p := range positions {
		records = append(records, map[string]any{
			"device_id": p.device, "timestamp": p.at.UTC().Format("2006-01-02T15:04:05.000Z"), "lat": 31.57, "lon": 120.3, "speed_kmh": p.speed,
		})
	}
	l.postJSON(t, l.api+"/v1/telemetry", records)
}

// post sends alerts to Alertmanager with the current time.
func (l *live) post(t *testing.T, a alert) {
	t.Helper()
	if a["startsAt"] == nil {
		a["startsAt"] = time.Now()
	}
	l.postJSON(t, l.alertmanager+"/api/v2/alerts", []alert{a})
}

func (l *live) postJSON(t *testing.T, to string, what any) {
	t.Helper()
	body, err := json.Marshal(what)
	require.NoError(t, err)
	response, err := http.Post(to, "application/json", bytes.NewReader(body))
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, 2, response.StatusCode/100, "%s: %s", response.Status, text)
	require.NotContains(t, string(text), `"reason"`, "all of it is taken")
}

// within waits until reached returns true, and reports whether it did.
func within(timeout time.Duration, reached func() bool) bool {
	for end := time.Now().Add(timeout); !reached(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// get returns the response of an address, or the error.
func get(t *testing.T, address string) string {
	var text strings.Builder
	if err := process.Fetch(t.Context(), address, &text); err != nil {
		return err.Error()
	}
	return text.String()
}

// ask queries Prometheus.
func (l *live) ask(t *testing.T, query string) (values []float64) {
	t.Helper()
	var answer struct {
		Status, Error string
		Data          struct {
			ResultType string
			Result     []struct{ Value [2]any }
		}
	}
	text := get(t, l.prometheus+"/api/v1/query?query="+url.QueryEscape(query))
	if err := json.Unmarshal([]byte(text), &answer); err != nil || answer.Status != "success" || answer.Data.ResultType != "vector" {
		t.Errorf("%s\n%v: %s", query, err, text)
		return nil
	}
	for _, r := range answer.Data.Result {
		value, err := strconv.ParseFloat(fmt.Sprint(r.Value[1]), 64)
		if err != nil {
			t.Errorf("%s\n%v", query, err)
		}
		values = append(values, value)
	}
	return values
}

// message is a notification.
type message struct {
	notification
	path   string
	header http.Header
}

// inbox records the messages to a webhook, in order.
type inbox struct {
	*httptest.Server
	mu       sync.Mutex
	messages []message
}

func newInbox(t *testing.T) *inbox {
	i := &inbox{}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m := message{path: r.URL.Path, header: r.Header}
		if err := json.NewDecoder(r.Body).Decode(&m.notification); err != nil || len(m.Alerts) == 0 {
			http.Error(w, "no notification", http.StatusBadRequest)
			t.Errorf("no notification: %v", err)
			return
		}
		i.mu.Lock()
		defer i.mu.Unlock()
		i.messages = append(i.messages, m)
	}))
	t.Cleanup(func() {
		i.Close()
		if t.Failed() {
			for _, m := range i.since(0) {
				t.Log(m.path, m.Status, m.GroupLabels, m.Alerts)
			}
		}
	})
	return i
}

// now returns the index of the next message.
func (i *inbox) now() int { return len(i.since(0)) }

func (i *inbox) since(from int) []message {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.messages[from:])
}

// await returns the first matching message from an index on.
func (i *inbox) await(t *testing.T, from int, patience time.Duration, what string, fits func(message) bool) (found message) {
	t.Helper()
	require.True(t, within(patience, func() bool {
		list := i.since(from)
		at := slices.IndexFunc(list, fits)
		if at >= 0 {
			found = list[at]
		}
		return at >= 0
	}), "did not come: %s", what)
	return found
}

// awaitAlert returns the first message from an index on with an alert of this status and these labels, and that alert.
func (i *inbox) awaitAlert(t *testing.T, from int, status string, labels map[string]string) (m message, a notifiedAlert) {
	t.Helper()
	m = i.await(t, from, liveWithin, fmt.Sprintf("%v %s", labels, status), func(m message) bool {
		at := slices.IndexFunc(m.Alerts, func(a notifiedAlert) bool { return a.is(status, labels) })
		if at >= 0 {
			a = m.Alerts[at]
		}
		return at >= 0
	})
	return m, a
}

func (i *inbox) has(from int, status string, labels map[string]string) bool {
	return slices.ContainsFunc(i.since(from), func(m message) bool {
		return slices.ContainsFunc(m.Alerts, func(a notifiedAlert) bool { return a.is(status, labels) })
	})
}

// firing returns the names of the alerts that were notified as firing and not as resolved since.
func (i *inbox) firing() map[string]bool {
	names := map[string]bool{}
	for _, m := range i.since(0) {
		for _, a := range m.Alerts {
			if a.Status == "firing" {
				names[a.Labels["alertname"]] = true
			} else {
				delete(names, a.Labels["alertname"])
			}
		}
	}
	return names
}

func (a notifiedAlert) is(status string, labels map[string]string) bool {
	for name, value := range labels {
		if a.Labels[name] != value {
			return false
		}
	}
	return a.Status == status
}
