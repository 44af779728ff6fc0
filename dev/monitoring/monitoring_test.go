package monitoring

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.yaml.in/yaml/v3"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/process"
	"github.com/fleettracing/fleet-tracing/dev/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTargetFilesAreWritten(t *testing.T) {
	root, err := cluster.RepositoryRoot()
	require.NoError(t, err)
	o := PrometheusOptions{
		Options: Options{Root: root, Dir: t.TempDir(), Address: "127.0.0.1:19090"}, FleetETL: "127.0.0.1:9464",
		Cassandra: []cluster.Node{
			{Address: netip.MustParseAddr("127.0.0.1"), MetricsPort: 7070, DC: "dc1", Name: "cassandra-dc1-node1"},
			{Address: netip.MustParseAddr("127.0.0.3"), MetricsPort: 7070, DC: "dc2", Name: "cassandra-dc2-node1"},
		},
		Alertmanager: "127.0.0.1:9093",
	}
	require.NoError(t, o.configure())

	shared, err := filepath.Glob(filepath.Join(root, "prometheus", "targets", "*"))
	require.NoError(t, err)
	written := map[string]string{}
	var names []string
	for _, path := range shared {
		name := filepath.Base(path)
		names = append(names, name)
		text, err := os.ReadFile(filepath.Join(o.config(), "targets", name))
		require.NoError(t, err, "prometheus/targets has a file that development clusters lack")
		written[name] = string(text)
	}
	own, err := filepath.Glob(filepath.Join(o.config(), "targets", "*"))
	require.NoError(t, err)
	assert.Len(t, own, len(names), "development clusters have a target file that no job of prometheus.yml reads")

	assert.YAMLEq(t, `[{targets: ["127.0.0.1:9464"]}]`, written["fleet-etl.yml"])
	assert.YAMLEq(t, `[{targets: ["127.0.0.1:19090"]}]`, written["prometheus.yml"])
	assert.YAMLEq(t, `[{targets: ["127.0.0.1:9093"]}]`, written["alertmanager.yml"])
	assert.YAMLEq(t, `[]`, written["grafana.yml"], "no Grafana, no target")
	assert.YAMLEq(t, `[{targets: ["127.0.0.1:7070"], labels: {dc: dc1, node: cassandra-dc1-node1}},
		{targets: ["127.0.0.3:7070"], labels: {dc: dc2, node: cassandra-dc2-node1}}]`, written["cassandra.yml"])
}

func TestCopiesOfFilesAreEdited(t *testing.T) {
	root, err := cluster.RepositoryRoot()
	require.NoError(t, err)
	o := PrometheusOptions{Options: Options{Root: root, Dir: t.TempDir(), Replace: map[string][]string{
		"prometheus.yml": {"scrape_interval: 15s", "scrape_interval: 1s"}, "rules/recording.yml": {"interval: 1m", "interval: 3s"},
	}}}
	require.NoError(t, o.configure())
	var config struct {
		Global struct {
			Interval string            `yaml:"scrape_interval"`
			Labels   map[string]string `yaml:"external_labels"`
		}
	}
	text, err := os.ReadFile(filepath.Join(o.config(), "prometheus.yml"))
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, &config))
	assert.Equal(t, "http://localhost:3000", config.Global.Labels["grafana_url"])
	assert.Equal(t, "1s", config.Global.Interval)
	text, err = os.ReadFile(filepath.Join(o.config(), "rules", "recording.yml"))
	require.NoError(t, err)
	assert.Contains(t, string(text), "interval: 3s")
	o.Replace["prometheus.yml"][0] = "scrape_interval: 99s"
	require.ErrorContains(t, o.configure(), `edit prometheus.yml: it does not contain "scrape_interval: 99s"`)
}

func TestProgramsAreFoundInPath(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	_, err := FindPrometheus()
	require.ErrorContains(t, err, "is not installed")
	assert.EqualError(t, err, "Prometheus is not installed: PATH has no prometheus: apt-get install prometheus, or extract a release of https://prometheus.io/download into a directory of PATH")
	_, err = FindAlertmanager()
	require.ErrorContains(t, err, "is not installed")
	assert.ErrorContains(t, err, "no alertmanager and no prometheus-alertmanager")

	program(t, bin, "prometheus-alertmanager", "")
	p, err := FindAlertmanager()
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(bin, "prometheus-alertmanager"), p)
	program(t, bin, "alertmanager", "")
	p, err = FindAlertmanager()
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(bin, "alertmanager"), p)
}

// program writes an executable shell script.
func program(t *testing.T, dir, name, script string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	return path
}

func TestStartQuotesTheLogOfProgramThatEnds(t *testing.T) {
	dir := t.TempDir()
	o := Options{Program: program(t, t.TempDir(), "prometheus", "echo bad rule in line 7; exit 3"), Dir: dir}
	_, err := StartPrometheus(t.Context(), PrometheusOptions{Options: o})
	require.Error(t, err)
	assert.ErrorContains(t, err, "start Prometheus: it has ended (exit status 3)")
	assert.ErrorContains(t, err, "bad rule in line 7")
	assert.ErrorContains(t, err, filepath.Join(dir, "log"))
	assert.NoFileExists(t, filepath.Join(dir, "pid"))
}

func TestPortInUseIsNamed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	o := Options{Program: "/bin/false", Dir: t.TempDir(), Address: l.Addr().String()}
	_, err = StartPrometheus(t.Context(), PrometheusOptions{Options: o})
	assert.ErrorContains(t, err, fmt.Sprintf("%s, of Prometheus, is in use", l.Addr()))
}

func TestInterruptedStartLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := StartPrometheus(ctx, PrometheusOptions{Options: Options{
		Program: program(t, t.TempDir(), "prometheus", "exec sleep 60"), Dir: dir,
	}})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.NoFileExists(t, filepath.Join(dir, "pid"), "it was killed")
}

// ask decodes the response of an API.
func ask(ctx context.Context, url string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	return json.NewDecoder(response.Body).Decode(into)
}

// TestAlertReachesWebhook runs Prometheus and Alertmanager with the repository's configuration, only faster.
func TestAlertReachesWebhook(t *testing.T) {
	if _, err := FindPrometheus(); err != nil {
		testenv.Missing(t, testenv.Prometheus, err.Error())
	}
	if _, err := FindAlertmanager(); err != nil {
		testenv.Missing(t, testenv.Alertmanager, err.Error())
	}
	watchdog := make(chan string, 100)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/watchdog" {
			watchdog <- r.Header.Get("Authorization") + " " + string(body)
		}
	}))
	t.Cleanup(hook.Close)

	dir := t.TempDir()
	stop := func(p *process.Server) {
		t.Cleanup(func() {
			assert.NoError(t, p.Stop(context.Background()))
			if text, err := os.ReadFile(p.LogFile); t.Failed() {
				t.Log(p.Name, err, string(text))
			}
		})
	}
	alertmanager, err := StartAlertmanager(t.Context(), AlertmanagerOptions{
		Options: Options{Dir: filepath.Join(dir, "alertmanager")}, Webhook: hook.URL,
	})
	require.NoError(t, err)
	stop(alertmanager)
	prometheus, err := StartPrometheus(t.Context(), PrometheusOptions{
		Options: Options{Dir: filepath.Join(dir, "prometheus"), Replace: map[string][]string{
			"prometheus.yml": {"scrape_interval: 15s", "scrape_interval: 500ms", "scrape_timeout: 10s", "scrape_timeout: 500ms",
				"evaluation_interval: 15s", "evaluation_interval: 500ms", "grafana_url: http://localhost:3000", "grafana_url: http://localhost:13000"},
		}},
		Alertmanager: alertmanager.Address, Flags: []string{"--rules.alert.resend-delay=1s"},
	})
	require.NoError(t, err)
	stop(prometheus)

	t.Run("the targets that there are answer", func(t *testing.T) {
		var up struct {
			Data struct {
				Result []struct{ Metric map[string]string }
			}
		}
		require.Eventually(t, func() bool {
			return ask(t.Context(), "http://"+prometheus.Address+"/api/v1/query?query=up==1", &up) == nil && len(up.Data.Result) == 2
		}, 20*time.Second, 50*time.Millisecond)
		jobs := map[string]bool{}
		for _, r := range up.Data.Result {
			jobs[r.Metric["job"]] = true
		}
		assert.Equal(t, map[string]bool{"prometheus": true, "alertmanager": true}, jobs)
	})
	t.Run("all rules hold", func(t *testing.T) {
		var rules struct {
			Data struct {
				Groups []struct {
					Rules []struct{ Name, Type, Health, LastError string }
				}
			}
		}
		require.NoError(t, ask(t.Context(), "http://"+prometheus.Address+"/api/v1/rules", &rules))
		kinds := map[string]int{}
		for _, g := range rules.Data.Groups {
			for _, r := range g.Rules {
				kinds[r.Type]++
				assert.NotEqual(t, "err", r.Health, "%s: %s", r.Name, r.LastError)
			}
		}
		assert.Positive(t, kinds["recording"])
		assert.Positive(t, kinds["alerting"])
	})
	t.Run("the watchdog comes to the webhook", func(t *testing.T) {
		select {
		case message := <-watchdog:
			assert.Contains(t, message, "Bearer development ")
			assert.Contains(t, message, "FleetWatchdog")
			assert.Contains(t, message, "http://localhost:13000/", "its links lead to Grafana")
		case <-time.After(30 * time.Second):
			t.Fatal("nothing within 30 s")
		}
	})
	t.Run("Prometheus cannot be controlled over HTTP", func(t *testing.T) {
		for _, path := range []string{"/-/quit", "/-/reload", "/api/v1/admin/tsdb/delete_series"} {
			response, err := http.Post("http://"+prometheus.Address+path, "", nil)
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			assert.GreaterOrEqual(t, response.StatusCode, 400, path)
		}
		require.NoError(t, prometheus.Running())
	})
	t.Run("another process finds and ends it", func(t *testing.T) {
		require.NoError(t, alertmanager.Running())
		require.NoError(t, process.Server{Name: "alertmanager", Dir: filepath.Join(dir, "alertmanager")}.Stop(t.Context()))
		assert.ErrorContains(t, alertmanager.Running(), "Alertmanager: it has ended")
		require.NoError(t, process.Server{Name: "alertmanager", Dir: filepath.Join(dir, "alertmanager")}.Stop(t.Context()), "a second stop succeeds")
	})
}

func TestReceiversOfAlertmanager(t *testing.T) {
	root, err := cluster.RepositoryRoot()
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		webhook string
		open    []string
	}{
		"none is open":     {"", nil},
		"the webhook's is": {"http://127.0.0.1:12345", []string{"watchdog", "webhook"}},
	} {
		t.Run(name, func(t *testing.T) {
			o := AlertmanagerOptions{Options: Options{Root: root, Dir: t.TempDir()}, Webhook: tc.webhook}
			require.NoError(t, o.configure())
			text, err := os.ReadFile(filepath.Join(o.config(), "alertmanager.yml"))
			require.NoError(t, err)
			type route struct {
				Receiver string
				Mute     []string `yaml:"mute_time_intervals"`
				Routes   []route
			}
			var config struct{ Route route }
			require.NoError(t, yaml.Unmarshal(text, &config))
			open := map[string]bool{}
			var walk func(route)
			walk = func(r route) {
				if r.Receiver != "none" && len(r.Mute) == 0 {
					open[r.Receiver] = true
				}
				for _, inner := range r.Routes {
					walk(inner)
				}
			}
			walk(config.Route)
			assert.Equal(t, tc.open, slices.Sorted(maps.Keys(open)))
			assert.NotContains(t, string(text), containerDir+"secrets")
			if tc.webhook != "" {
				assert.Contains(t, string(text), tc.webhook+"/alerts")
				token, err := os.ReadFile(filepath.Join(o.config(), "secrets", "webhook_token"))
				require.NoError(t, err)
				assert.Equal(t, "development", string(token))
			}
		})
	}
}
