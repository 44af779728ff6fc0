package prometheus

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/dev/process"
	"github.com/fleettracing/fleet-tracing/dev/testenv"
)

var update = flag.Bool("update", false, "update the golden files of the messages")

const alertmanagerConfig = "alertmanager/alertmanager.yml"

func TestAlertmanagerConfiguration(t *testing.T) {
	run(t, findAmtool(t), "check-config", alertmanagerConfig)
}

func TestRoutes(t *testing.T) {
	amtool := findAmtool(t)
	for _, test := range []struct{ alert, receivers string }{
		{"alertname=FleetCassandraUnavailable kind=platform severity=critical", "webhook,slack-operators,email-operators"},
		{"alertname=CassandraNodeDown kind=platform severity=warning dc=dc1", "webhook,slack-operators"},
		{"alertname=FleetWatchdog kind=platform severity=info", "watchdog"},
		{"alertname=Another kind=platform severity=info", "none"},
		{"alertname=FleetVehicleTemperature kind=fleet type=temperature fleet=wuxi severity=critical", "webhook,slack-dispatch,email-dispatch"},
		{"alertname=FleetVehicleDeviceOffline kind=fleet type=device_offline fleet=wuxi severity=warning", "webhook,slack-dispatch"},
		{"alertname=FleetVehicleBatteryLow kind=fleet type=battery_low fleet=wuxi severity=info", "none"},
		{"alertname=Unrelated severity=critical", "none"},
	} {
		t.Run(test.alert, func(t *testing.T) {
			args := append([]string{"config", "routes", "test", "--config.file", alertmanagerConfig, "--verify.receivers", test.receivers}, strings.Fields(test.alert)...)
			run(t, amtool, args...)
		})
	}
}

// TestMessages compares rendered messages with golden files; -update writes them.
func TestMessages(t *testing.T) {
	amtool := findAmtool(t)
	for _, data := range files(t, "testdata/*.json") {
		for kind, args := range map[string][]string{
			"subject": {"fleet.subject", "text"}, "slack": {"fleet.slack", "text"}, "text": {"fleet.text", "text"}, "html": {"fleet.html", "html"},
		} {
			golden := strings.TrimSuffix(data, ".json") + "." + kind
			t.Run(filepath.Base(golden), func(t *testing.T) {
				got := run(t, amtool, "template", "render", "--template.glob=alertmanager/templates/*.tmpl", "--template.type="+args[1],
					"--template.data="+data, `--template.text={{ template "`+args[0]+`" . }}`)
				if *update {
					require.NoError(t, os.WriteFile(golden, []byte(got), 0o600))
				}
				want, err := os.ReadFile(golden)
				require.NoError(t, err)
				assert.Equal(t, string(want), got)
			})
		}
	}
}

// The default configuration notifies no receiver, and causes no errors.
func TestDefaultConfigurationIsSilent(t *testing.T) {
	am := startAlertmanager(t, shortWaits(t))
	am.post(vehicleAlert("truck-1", "speed_limit", "critical"), platformAlert("FleetCassandraUnavailable", "critical"), platformAlert("FleetWatchdog", "info"))
	// Webhook, Slack and e-mail of dispatch and of the operators, and the watchdog.
	require.Eventually(t, func() bool { return strings.Count(am.logged(), "route is within mute time") >= 7 }, 10*time.Second, 50*time.Millisecond)
	assert.NotRegexp(t, `(?m)^alertmanager_notifications_total\{.*\} [1-9]`, am.get("/metrics"))
	assert.NotRegexp(t, `(?i)level=(warn|error)`, am.logged())
}

// With receivers enabled, alerts arrive grouped and readable, with the secrets from the files, and inhibited alerts do not arrive.
func TestEnabledReceiversAreNotified(t *testing.T) {
	secrets := t.TempDir()
	hooks, slack := newEndpoint(t), newEndpoint(t)
	mail := newMailbox(t)
	for name, secret := range map[string]string{"webhook_token": "hook-token", "slack_url": slack.URL + "/services/T/B/slack-key", "smtp_password": "mail-password"} {
		require.NoError(t, os.WriteFile(filepath.Join(secrets, name), []byte(secret), 0o600))
	}
	config := shortWaits(t)
	for old, replacement := range map[string]string{
		`(?m)^ *mute_time_intervals: .*\n`:       "",
		`/etc/alertmanager/secrets`:              secrets,
		`http://localhost:9095`:                  hooks.URL,
		`smtp_smarthost: .*`:                     "smtp_smarthost: " + mail.address + "\n  smtp_require_tls: false",
		`(?m)^(  - name: not set up\n)`:          "$1",
		`(?m)^time_intervals:\n(?:  .*\n|\n)+\n`: "",
	} {
		config = regexp.MustCompile(old).ReplaceAllString(config, replacement)
	}
	am := startAlertmanager(t, config)

	am.post(vehicleAlert("truck-1", "speed_limit", "critical"), vehicleAlert("truck-2", "speed_limit", "critical"), vehicleAlert("truck-3", "battery_low", "info"))
	hook := hooks.next(t)
	assert.Equal(t, "Bearer hook-token", hook.header.Get("Authorization"))
	group := parse(t, hook.body)
	assert.Equal(t, "firing", group.Status)
	assert.Equal(t, map[string]string{"fleet": "wuxi", "type": "speed_limit"}, group.GroupLabels)
	require.Len(t, group.Alerts, 2)
	assert.Contains(t, group.Alerts[0].Annotations["dashboard_url"], "/d/fleet-analytics?var-fleet=wuxi")
	message := slack.next(t)
	assert.Equal(t, "/services/T/B/slack-key", message.path)
	var said struct {
		Channel     string
		Attachments []struct{ Title, Text, Color string }
	}
	require.NoError(t, json.Unmarshal(message.body, &said))
	require.Len(t, said.Attachments, 1)
	assert.Equal(t, "#fleet-dispatch", said.Channel)
	assert.Equal(t, "[critical, 2 vehicles] speed limit in fleet wuxi", said.Attachments[0].Title)
	assert.Contains(t, said.Attachments[0].Text, "*truck-1* 97.2 km/h")
	assert.Contains(t, said.Attachments[0].Text, "*truck-2* 97.2 km/h")
	letter := mail.next(t)
	assert.Equal(t, "mail-password", letter.password)
	assert.Equal(t, "dispatch@example.org", letter.to)
	assert.Contains(t, letter.text, "Subject: [critical, 2 vehicles] speed limit in fleet wuxi")

	am.post(platformAlert("FleetPipelineStalled", "critical"), platformAlert("FleetCanaryFailing", "warning"))
	group = parse(t, hooks.next(t).body)
	assert.Equal(t, map[string]string{"alertname": "FleetPipelineStalled", "cluster": "fleet-tracing"}, group.GroupLabels)
	assert.Equal(t, "operators@example.org", mail.next(t).to)
	slack.next(t)
	am.post(ingestLate("wuxi"))
	am.post(vehicleAlert("truck-9", "device_offline", "warning"))
	for _, held := range []string{`device="truck-9"`, `alertname="FleetCanaryFailing"`} {
		assert.Eventually(t, func() bool { return am.inhibited(held) }, 10*time.Second, 50*time.Millisecond, held)
	}

	over := platformAlert("FleetPipelineStalled", "critical")
	caughtUp := ingestLate("wuxi")
	for _, a := range []alert{over, caughtUp} {
		a["startsAt"], a["endsAt"] = time.Now().Add(-time.Minute), time.Now()
	}
	am.post(over, caughtUp)
	resolved := map[string]string{} // name to status
	for len(resolved) < 3 {         // the resolution, and the alerts that were inhibited
		group = parse(t, hooks.next(t).body)
		resolved[group.Alerts[0].Labels["alertname"]] = group.Status
	}
	assert.Equal(t, map[string]string{
		"FleetPipelineStalled": "resolved", "FleetVehicleDeviceOffline": "firing", "FleetCanaryFailing": "firing",
	}, resolved)
	assert.NotRegexp(t, `(?i)level=(warn|error)`, am.logged())
}

// A fleet that stalls the platform silences no other fleet. Only "offline" is not notified, and only where records of the fleet itself
// are late.
func TestFleetDoesNotInhibitAlertsOfAnother(t *testing.T) {
	am := startAlertmanager(t, shortWaits(t))
	var platform []alert
	for name := range alertNames(t) {
		switch name {
		case "FleetIngestLate": // below
		default:
			platform = append(platform, platformAlert(name, "critical"), platformAlert(name, "warning"))
		}
	}
	am.post(platform...)
	am.post(ingestLate("suzhou"))
	kinds := []string{"device_offline", "temperature", "speed_limit", "geofence_exit"}
	for _, kind := range kinds {
		for _, fleet := range []string{"wuxi", "suzhou"} {
			a := vehicleAlert(fleet+"-"+kind, kind, "critical")
			a["labels"].(map[string]string)["fleet"] = fleet
			am.post(a)
		}
	}
	require.Eventually(t, func() bool { return am.inhibited(`device="suzhou-device_offline"`) }, 10*time.Second, 50*time.Millisecond)
	for _, kind := range kinds {
		assert.False(t, am.inhibited(`device="wuxi-`+kind+`"`), "%s of another fleet", kind)
		assert.Equal(t, kind == "device_offline", am.inhibited(`device="suzhou-`+kind+`"`), "%s of the late fleet", kind)
	}
}

// shortWaits returns the configuration with short group waits.
func shortWaits(t *testing.T) string {
	text, err := os.ReadFile(alertmanagerConfig)
	require.NoError(t, err)
	config := regexp.MustCompile(`group_wait: \w+`).ReplaceAllString(string(text), "group_wait: 300ms")
	return regexp.MustCompile(`group_interval: \w+`).ReplaceAllString(config, "group_interval: 300ms")
}

type alert map[string]any

func vehicleAlert(device, kind, severity string) alert {
	name := "FleetVehicle"
	for word := range strings.SplitSeq(kind, "_") {
		name += strings.ToUpper(word[:1]) + word[1:]
	}
	return alert{
		"labels": map[string]string{
			"alertname": name, "kind": "fleet", "fleet": "wuxi", "device": device, "type": kind, "severity": severity,
		},
		"annotations": map[string]string{
			"description": "97.2 km/h, limit 80 km/h", "value": "97.2 km/h", "threshold": "80 km/h", "location": "depot (31.57000, 120.30000)",
			"dashboard_url": "http://localhost:3000/d/fleet-analytics?var-fleet=wuxi&var-device=" + device,
			"runbook_url":   runbookBase + name + ".md",
		},
	}
}

func platformAlert(name, severity string) alert {
	return alert{
		"labels": map[string]string{
			"alertname": name, "kind": "platform", "severity": severity, "cluster": "fleet-tracing", "job": "fleet-etl", "instance": "etl:9464",
		},
		"annotations": map[string]string{
			"summary": "Something is wrong.", "description": "At etl:9464.",
			"dashboard_url": "http://localhost:3000/d/fleet-pipeline", "runbook_url": runbookBase + name + ".md",
		},
	}
}

// ingestLate is the alert of a fleet whose records are stored late.
func ingestLate(fleet string) alert {
	a := platformAlert("FleetIngestLate", "info")
	a["labels"].(map[string]string)["fleet"] = fleet
	return a
}

type alertmanager struct {
	t   *testing.T
	url string
	log string // path
}

func (am *alertmanager) logged() string {
	text, err := os.ReadFile(am.log)
	assert.NoError(am.t, err)
	return string(text)
}

// startAlertmanager runs a real Alertmanager with a configuration until the test ends.
func startAlertmanager(t *testing.T, config string) *alertmanager {
	program := testenv.Program(t, testenv.Alertmanager, "prometheus-alertmanager", "prometheus-alertmanager", "alertmanager")
	dir := t.TempDir()
	templates, err := filepath.Abs("alertmanager/templates")
	require.NoError(t, err)
	config = strings.Replace(config, "templates/*.tmpl", templates+"/*.tmpl", 1)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "alertmanager.yml"), []byte(config), 0o600))

	addresses, err := process.FreeAddresses(1)
	require.NoError(t, err)
	address := addresses[0]
	am := &alertmanager{t: t, url: "http://" + address, log: filepath.Join(dir, "log")}
	log, err := os.Create(am.log)
	require.NoError(t, err)
	defer log.Close() // Alertmanager has its own
	cmd := exec.Command(program, "--config.file="+filepath.Join(dir, "alertmanager.yml"), "--storage.path="+dir,
		"--web.listen-address="+address, "--cluster.listen-address=", "--log.level=debug")
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(am.logged())
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	require.Eventually(t, func() bool {
		resp, err := http.Get(am.url + "/-/ready")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, 10*time.Second, 50*time.Millisecond, "Alertmanager does not start")
	return am
}

func (am *alertmanager) post(alerts ...alert) {
	am.t.Helper()
	for _, a := range alerts {
		if a["startsAt"] == nil {
			a["startsAt"] = time.Now() // an alert older than its group wait would be notified at once, on its own
		}
	}
	body, err := json.Marshal(alerts)
	require.NoError(am.t, err)
	resp, err := http.Post(am.url+"/api/v2/alerts", "application/json", bytes.NewReader(body))
	require.NoError(am.t, err)
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	require.Equal(am.t, http.StatusOK, resp.StatusCode, string(text))
}

// inhibited reports whether the alert that a matcher selects is inhibited.
func (am *alertmanager) inhibited(matcher string) bool {
	return isInhibited(am.get("/api/v2/alerts?filter=" + url.QueryEscape(matcher)))
}

// isInhibited reports whether an alert is inhibited in an answer of Alertmanager.
func isInhibited(answer string) bool { return strings.Contains(answer, `"inhibitedBy":["`) }

func (am *alertmanager) get(path string) string {
	resp, err := http.Get(am.url + path)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return string(text)
}

type request struct {
	path   string
	header http.Header
	body   []byte
}

// endpoint records requests.
type endpoint struct {
	*httptest.Server
	requests chan request
}

func newEndpoint(t *testing.T) *endpoint {
	e := &endpoint{requests: make(chan request, 100)}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		e.requests <- request{r.URL.Path, r.Header, body}
		fmt.Fprint(w, "ok")
	}))
	t.Cleanup(e.Close)
	return e
}

func (e *endpoint) next(t *testing.T) request {
	t.Helper()
	return next(t, e.requests)
}

func next[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	select {
	case v := <-from:
		return v
	case <-ctx.Done():
		require.FailNow(t, "nothing came")
	}
	panic("not reached")
}

type notification struct {
	Status      string
	GroupLabels map[string]string
	Alerts      []notifiedAlert
}

type notifiedAlert struct {
	Status              string
	Labels, Annotations map[string]string
	GeneratorURL        string
}

func parse(t *testing.T, body []byte) (n notification) {
	t.Helper()
	require.NoError(t, json.Unmarshal(body, &n), string(body))
	require.NotEmpty(t, n.Alerts)
	return n
}

type letter struct{ to, password, text string }

// mailbox is a mail server that requires a login and records mails.
type mailbox struct {
	address string
	letters chan letter
}

func newMailbox(t *testing.T) *mailbox {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	m := &mailbox{address: l.Addr().String(), letters: make(chan letter, 100)}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() { m.serve(conn) })
		}
	})
	t.Cleanup(func() { l.Close(); open.Wait() })
	return m
}

func (m *mailbox) next(t *testing.T) letter {
	t.Helper()
	return next(t, m.letters)
}

func (m *mailbox) serve(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	var got letter
	fmt.Fprint(conn, "220 mailbox\r\n")
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		verb, rest, _ := strings.Cut(lines.Text(), " ")
		answer := "250 ok"
		switch strings.ToUpper(verb) {
		case "EHLO", "HELO":
			answer = "250-mailbox\r\n250 AUTH PLAIN"
		case "AUTH":
			login, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(rest, "PLAIN "))
			got.password = string(login[bytes.LastIndexByte(login, 0)+1:])
			answer = "235 welcome"
		case "RCPT":
			got.to = strings.Trim(strings.TrimPrefix(rest, "TO:"), "<>")
		case "DATA":
			fmt.Fprint(conn, "354 go on\r\n")
			var text strings.Builder
			for lines.Scan() && lines.Text() != "." {
				text.WriteString(lines.Text() + "\n")
			}
			got.text = text.String()
			m.letters <- got
		case "QUIT":
			fmt.Fprint(conn, "221 bye\r\n")
			return
		}
		fmt.Fprint(conn, answer+"\r\n")
	}
}
