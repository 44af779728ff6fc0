// Package check has only tests, of the rendered manifests in deploy/kubernetes. It is a separate module, so that the product does not
// depend on Kubernetes.
package check

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const repository = "../../.."

var update = flag.Bool("update", false, "update prometheus/rules.yaml")

var build = sync.OnceValues(func() ([]byte, error) {
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), "..")
	if err != nil {
		return nil, err
	}
	return resources.AsYaml()
})

// rendered returns the objects that kubectl apply -k deploy/kubernetes sends. The caller may change them.
func rendered(t *testing.T) (objects []map[string]any) {
	t.Helper()
	text, err := build()
	require.NoError(t, err)
	for _, document := range bytes.Split(text, []byte("\n---\n")) {
		var object map[string]any
		require.NoError(t, yaml.UnmarshalStrict(document, &object))
		objects = append(objects, object)
	}
	require.NotEmpty(t, objects)
	return objects
}

func name(object map[string]any) string { return at[string](object, "metadata", "name") }

// at returns the value at a path; the zero value if there is none.
func at[T any](object any, path ...string) (value T) {
	for _, key := range path {
		m, _ := object.(map[string]any)
		object = m[key]
	}
	value, _ = object.(T)
	return value
}

// find returns the object with a kind and name.
func find(t *testing.T, objects []map[string]any, kind, called string) map[string]any {
	t.Helper()
	for _, o := range objects {
		if o["kind"] == kind && name(o) == called {
			return o
		}
	}
	require.Failf(t, "not rendered", "%s %s", kind, called)
	return nil
}

// walk calls visit with every map in a value.
func walk(value any, visit func(map[string]any)) {
	switch v := value.(type) {
	case map[string]any:
		visit(v)
		for _, inner := range v {
			walk(inner, visit)
		}
	case []any:
		for _, inner := range v {
			walk(inner, visit)
		}
	}
}

// list returns the list of objects at a path.
func list(object any, path ...string) (all []map[string]any) {
	for _, item := range at[[]any](object, path...) {
		all = append(all, item.(map[string]any))
	}
	return all
}

// The Prometheus operator needs rules as an object, which Kustomize cannot generate from rule files.
func TestRulesMatchPrometheus(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(repository, "prometheus/rules/*.yml"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	var all []string
	for _, file := range files {
		rules, err := os.ReadFile(file)
		require.NoError(t, err)
		indented := regexp.MustCompile(`(?m)^(.)`).ReplaceAllString(string(rules), "  $1")
		all = append(all, fmt.Sprintf(`# Made of prometheus/rules/%s by go test -run Rules -update in deploy/kubernetes/check.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: fleet-%s
spec:
%s`, filepath.Base(file), strings.TrimSuffix(filepath.Base(file), ".yml"), indented))
	}
	want := strings.Join(all, "---\n")
	if *update {
		require.NoError(t, os.WriteFile("../prometheus/rules.yaml", []byte(want), 0o644))
	}
	got, err := os.ReadFile("../prometheus/rules.yaml")
	require.NoError(t, err)
	assert.Equal(t, want, string(got), "prometheus/rules has changed: update deploy/kubernetes/prometheus/rules.yaml with -update")
}

func TestDashboardsAndDataSourcesAreComplete(t *testing.T) {
	objects := rendered(t)
	dashboards := map[string]string{} // JSON by file name
	for _, o := range objects {
		if o["kind"] != "GrafanaDashboard" {
			continue
		}
		key := at[string](o, "spec", "configMapRef", "key")
		find(t, objects, "GrafanaFolder", at[string](o, "spec", "folderRef"))
		dashboards[key] = at[string](find(t, objects, "ConfigMap", at[string](o, "spec", "configMapRef", "name")), "data", key)
	}
	files, err := filepath.Glob(filepath.Join(repository, "grafana/dashboards/*/*.json"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	assert.Len(t, dashboards, len(files))
	for _, file := range files {
		want, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.True(t, dashboards[filepath.Base(file)] == string(want), "%s: no GrafanaDashboard has it", file)
		folder := filepath.Base(filepath.Dir(file))
		assert.Equal(t, folder, at[string](find(t, objects, "GrafanaDashboard", strings.TrimSuffix(filepath.Base(file), ".json")), "spec", "folderRef"))
	}

	provisioned, err := filepath.Glob(filepath.Join(repository, "grafana/provisioning/datasources/*.yml"))
	require.NoError(t, err)
	require.NotEmpty(t, provisioned)
	for _, file := range provisioned {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		var f map[string]any
		require.NoError(t, yaml.Unmarshal(text, &f))
		for _, want := range list(f, "datasources") {
			got := at[map[string]any](find(t, objects, "GrafanaDatasource", want["uid"].(string)), "spec", "datasource")
			for _, field := range []string{"name", "uid", "type", "access", "isDefault", "editable"} {
				assert.Equal(t, want[field], got[field], "%s: %s", file, field)
			}
			for field := range want["jsonData"].(map[string]any) {
				assert.Contains(t, got["jsonData"], field, file)
			}
		}
	}
}

// Rules and dashboards use the job names, and links use the label.
func TestPrometheusHasTheSameJobsAndLabels(t *testing.T) {
	objects := rendered(t)
	text, err := os.ReadFile(filepath.Join(repository, "prometheus/prometheus.yml"))
	require.NoError(t, err)
	var config map[string]any
	require.NoError(t, yaml.Unmarshal(text, &config))
	var want, got []string
	for _, job := range list(config, "scrape_configs") {
		want = append(want, job["job_name"].(string))
	}
	for _, o := range objects {
		for _, endpoint := range list(o, "spec", "podMetricsEndpoints") {
			for _, r := range list(endpoint, "relabelings") {
				if r["targetLabel"] == "job" {
					got = append(got, r["replacement"].(string))
				}
			}
		}
	}
	assert.ElementsMatch(t, want, got)
	for label := range at[map[string]any](config, "global", "external_labels") {
		assert.Contains(t, at[map[string]any](find(t, objects, "Prometheus", "fleet"), "spec", "externalLabels"), label)
	}
}

func TestImagesArePinned(t *testing.T) {
	seen := 0
	for _, o := range rendered(t) {
		walk(o["spec"], func(m map[string]any) {
			image, ok := m["image"].(string)
			if !ok {
				return
			}
			seen++
			assert.Regexp(t, `^[^:@]+(:v?\d+\.\d+\.\d+|@sha256:[0-9a-f]{64})$`, image, "%s %s", o["kind"], name(o))
		})
	}
	assert.Positive(t, seen)
}

// Secrets that are not rendered: the README describes them, or an operator creates them.
var fromElsewhere = []string{"fleet-admin", "fleet-writer", "fleet-reader", "fleet-api-tokens", "fleet-etl", "fleet-cluster-ca-cert", "fleet-alertmanager",
	"fleet-cassandra-tls", "fleet-cassandra-keystore", "fleet-cassandra-ca"}

func TestReferencedObjectsExist(t *testing.T) {
	objects := rendered(t)
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	for _, o := range objects {
		walk(o["spec"], func(m map[string]any) {
			for _, field := range []string{"configMap", "configMapRef"} {
				if called := at[string](m, field, "name"); called != "" {
					find(t, objects, "ConfigMap", called)
				}
			}
			secrets := []string{at[string](m, "secret", "secretName"), at[string](m, "ca", "secretName")}
			for _, field := range []string{"secretKeyRef", "passwordSecretRef", "keystoreSecretRef", "keystorePasswordSecretRef"} {
				secrets = append(secrets, at[string](m, field, "name"))
			}
			for _, called := range secrets {
				if called != "" {
					assert.Contains(t, fromElsewhere, called, "%s %s", o["kind"], name(o))
					assert.True(t, bytes.Contains(readme, []byte("`"+called+"`")), "%s: the README does not describe it", called)
				}
			}
		})
	}
	find(t, objects, "Secret", at[string](find(t, objects, "Alertmanager", "fleet"), "spec", "configSecret"))
	scaled := at[string](find(t, objects, "ScaledObject", "fleet-consumer"), "spec", "scaleTargetRef", "name")
	find(t, objects, "Deployment", scaled)
}

// pod is the template of a pod with a container of fleet-etl.
type pod struct {
	owner     string
	spec      map[string]any
	container map[string]any
}

func etlPods(t *testing.T, objects []map[string]any) (pods []pod) {
	t.Helper()
	for _, o := range objects {
		spec := at[map[string]any](o, "spec", "template", "spec")
		for _, c := range append(list(spec, "containers"), list(spec, "initContainers")...) {
			if strings.Contains(at[string](c, "image"), "/etl:") {
				pods = append(pods, pod{fmt.Sprint(o["kind"], " ", name(o), " ", c["name"]), spec, c})
			}
		}
	}
	require.Len(t, pods, 3)
	return pods
}

// environment returns the environment variables of a container with their values.
func environment(t *testing.T, objects []map[string]any, container map[string]any) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, from := range list(container, "envFrom") {
		for variable, value := range at[map[string]any](find(t, objects, "ConfigMap", at[string](from, "configMapRef", "name")), "data") {
			all[variable] = value.(string)
		}
	}
	for _, e := range list(container, "env") {
		all[e["name"].(string)] = e["value"].(string)
	}
	return all
}

var programs string // a directory that is removed at the end

func TestMain(m *testing.M) {
	status := m.Run()
	_ = os.RemoveAll(programs)
	os.Exit(status)
}

var fleetETL = sync.OnceValues(func() (program string, err error) {
	if programs, err = os.MkdirTemp("", "fleet-etl"); err != nil {
		return "", err
	}
	program = filepath.Join(programs, "fleet-etl")
	compile := exec.Command("go", "build", "-o", program, "./etl")
	compile.Dir = repository
	out, err := compile.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return program, nil
})

// local returns the environment with paths that exist in a test: rules and geofences from data/, and generated secrets.
func local(t *testing.T, given map[string]string) (environ []string) {
	t.Helper()
	root := t.TempDir()
	data, err := filepath.Abs(filepath.Join(repository, "data"))
	require.NoError(t, err)
	for variable, value := range given {
		switch {
		case strings.HasPrefix(value, "/etc/fleet/"):
			value = strings.Replace(value, "/etc/fleet", data, 1)
		case strings.HasSuffix(variable, "_DIR"):
			value = filepath.Join(root, value)
		case strings.HasSuffix(variable, "_TOKENS_FILE"):
			value = filepath.Join(root, "tokens")
			require.NoError(t, os.WriteFile(value, []byte("wuxi "+strings.Repeat("0", 64)+"\n"), 0o600))
		case strings.HasSuffix(variable, "_CA_FILE"):
			value = filepath.Join(root, variable)
			server := httptest.NewTLSServer(nil)
			authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
			server.Close()
			require.NoError(t, os.WriteFile(value, authority, 0o600))
		case strings.HasSuffix(variable, "_FILE"):
			value = filepath.Join(root, variable)
			require.NoError(t, os.WriteFile(value, []byte("secret"), 0o600))
		}
		environ = append(environ, variable+"="+value)
	}
	return environ
}

// fleet-etl validates the settings.
func TestFleetETLAcceptsTheSettings(t *testing.T) {
	program, err := fleetETL()
	require.NoError(t, err)
	objects := rendered(t)
	for _, p := range etlPods(t, objects) {
		t.Run(p.owner, func(t *testing.T) {
			given := environment(t, objects, p.container)
			for variable, value := range given {
				if !strings.HasPrefix(value, "/") || variable == "ETL_STATE_DIR" && strings.HasPrefix(p.owner, "Job") {
					continue
				}
				assert.True(t, slices.ContainsFunc(list(p.container, "volumeMounts"), func(m map[string]any) bool {
					return strings.HasPrefix(value+"/", m["mountPath"].(string)+"/")
				}), "%s %s: no volume is mounted there", variable, value)
			}
			show := exec.CommandContext(t.Context(), program, "config")
			show.Env = local(t, given)
			shown, err := show.CombinedOutput()
			require.NoError(t, err, string(shown))
			for variable := range given {
				known := regexp.MustCompile(`(?m)^\s*(` + variable + `|` + strings.TrimSuffix(variable, "_FILE") + `)\s`)
				assert.Regexp(t, known, string(shown), "fleet-etl has no such setting")
			}
		})
	}
}

// While Cassandra is unavailable, the API accepts records into the spool, so its probes must succeed. /-/ready does not.
func TestProbesOfTheAPISucceedWithoutCassandra(t *testing.T) {
	program, err := fleetETL()
	require.NoError(t, err)
	objects := rendered(t)
	container := list(find(t, objects, "StatefulSet", "fleet-api"), "spec", "template", "spec", "containers")[0]
	given := environment(t, objects, container)
	addresses := map[string]string{} // of the ports, by name
	for port, variable := range map[string]string{"http": "ETL_API_ADDRESS", "metrics": "ETL_METRICS_ADDRESS"} {
		free, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		addresses[port], given[variable] = free.Addr().String(), free.Addr().String()
		require.NoError(t, free.Close())
	}
	given["CASSANDRA_HOSTS"], given["CASSANDRA_PORT"] = "127.0.0.1", "1"
	delete(given, "ETL_ALERTMANAGER_URLS")
	run := exec.CommandContext(t.Context(), program, at[[]any](container, "args")[0].(string))
	run.Env = local(t, given)
	var said bytes.Buffer
	run.Stdout, run.Stderr = &said, &said
	require.NoError(t, run.Start())
	ended := make(chan struct{})
	go func() { _ = run.Wait(); close(ended) }()
	t.Cleanup(func() { _ = run.Process.Kill(); <-ended })

	status := func(port, path string) int {
		answer, err := http.Get("http://" + addresses[port] + path)
		if err != nil {
			return 0
		}
		defer answer.Body.Close()
		return answer.StatusCode
	}
	for _, probe := range []string{"livenessProbe", "readinessProbe"} {
		get := at[map[string]any](container, probe, "httpGet")
		require.Eventually(t, func() bool { return status(get["port"].(string), get["path"].(string)) == http.StatusOK },
			20*time.Second, 50*time.Millisecond, "%s: %s", probe, &said)
	}
	assert.Equal(t, http.StatusServiceUnavailable, status("metrics", "/-/ready"))
}

func TestPodsHaveProbesDrainTimeAndSecurityContext(t *testing.T) {
	objects := rendered(t)
	for _, p := range etlPods(t, objects) {
		assert.Equal(t, true, at[bool](p.spec, "securityContext", "runAsNonRoot"), p.owner)
		assert.Equal(t, true, at[bool](p.container, "securityContext", "readOnlyRootFilesystem"), p.owner)
		assert.Equal(t, []any{"ALL"}, at[[]any](p.container, "securityContext", "capabilities", "drop"), p.owner)
		if strings.HasPrefix(p.owner, "Job") {
			continue
		}
		ports := map[string]string{}
		for _, port := range list(p.container, "ports") {
			ports[port["name"].(string)] = fmt.Sprint(port["containerPort"])
		}
		assert.Equal(t, "9464", ports["metrics"], p.owner)
		assert.Equal(t, map[string]any{"path": "/-/healthy", "port": "metrics"}, at[map[string]any](p.container, "livenessProbe", "httpGet"), p.owner)
		ready := map[string]any{"path": "/-/ready", "port": "metrics"}
		environment := environment(t, objects, p.container)
		if environment["ETL_SOURCES"] == "api" {
			assert.Equal(t, "8080", ports["http"], p.owner)
			ready = map[string]any{"path": "/v1/openapi.json", "port": "http"}
		}
		assert.Equal(t, ready, at[map[string]any](p.container, "readinessProbe", "httpGet"), p.owner)
		drain, err := time.ParseDuration(environment["ETL_DRAIN_TIMEOUT"])
		require.NoError(t, err, p.owner)
		assert.Greater(t, at[float64](p.spec, "terminationGracePeriodSeconds"), drain.Seconds()+10, p.owner)
	}
	spool := list(find(t, objects, "StatefulSet", "fleet-api"), "spec", "volumeClaimTemplates")
	require.NotEmpty(t, spool, "accepted records survive the process")
	state := list(find(t, objects, "StatefulSet", "fleet-api"), "spec", "template", "spec", "containers")[0]
	assert.True(t, slices.ContainsFunc(list(state, "volumeMounts"), func(m map[string]any) bool {
		return m["name"] == name(spool[0]) && m["mountPath"] == "/var/lib/fleet-etl"
	}))
}

// Producers, consumers and the autoscaler use the same topic and group, and each replica can have a partition.
func TestKafkaSettingsMatch(t *testing.T) {
	objects := rendered(t)
	consumer := environment(t, objects, list(find(t, objects, "Deployment", "fleet-consumer"), "spec", "template", "spec", "containers")[0])
	scaled := find(t, objects, "ScaledObject", "fleet-consumer")
	trigger := at[map[string]any](list(scaled, "spec", "triggers")[0], "metadata")
	assert.Equal(t, consumer["KAFKA_GROUP"], trigger["consumerGroup"])
	assert.Equal(t, consumer["KAFKA_TOPICS"], trigger["topic"])
	topic := find(t, objects, "KafkaTopic", consumer["KAFKA_TOPICS"])
	find(t, objects, "KafkaTopic", consumer["KAFKA_DEAD_LETTER_TOPIC"])
	find(t, objects, "KafkaUser", consumer["KAFKA_USERNAME"])
	assert.LessOrEqual(t, 3*at[float64](scaled, "spec", "maxReplicaCount"), at[float64](topic, "spec", "partitions"))
	rights, err := json.Marshal(find(t, objects, "KafkaUser", consumer["KAFKA_USERNAME"]))
	require.NoError(t, err)
	for _, named := range []string{consumer["KAFKA_GROUP"], consumer["KAFKA_TOPICS"], consumer["KAFKA_DEAD_LETTER_TOPIC"]} {
		assert.Contains(t, string(rights), `"name":"`+named+`"`)
	}
}
