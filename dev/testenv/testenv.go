// Package testenv finds the servers and programs that tests need. A test that misses one fails and names the remedy, unless
// FLEET_ALLOW_SKIP allows the test to be skipped.
//
// The package imports the standard library only, so that every test can use it. The running platform is in package platform.
package testenv

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// AllowSkip names the environment variable with the comma-separated requirements that may be missing. While the variable is
// unset, go test skips what needs Cassandra or Kafka. The Makefile always sets the variable.
const AllowSkip = "FLEET_ALLOW_SKIP"

// The names that AllowSkip accepts.
const (
	Alertmanager = "alertmanager"
	Cassandra    = "cassandra"
	Chromium     = "chromium"
	CRDs         = "crds" // schemas of Kubernetes operators, in deploy/kubernetes/check
	Grafana      = "grafana"
	Kafka        = "kafka"
	Machine      = "machine" // processor architecture or kernel feature
	Prometheus   = "prometheus"
	Redis        = "redis"
	Root         = "root"
	Tools        = "tools" // small programs such as curl
)

var names = []string{Alertmanager, Cassandra, Chromium, CRDs, Grafana, Kafka, Machine, Prometheus, Redis, Root, Tools}

// Missing ends a test that lacks the named requirement: skipped if AllowSkip has the name, else failed. The reason says what is
// missing and how to get it.
func Missing(t testing.TB, name, reason string) {
	t.Helper()
	value, set := os.LookupEnv(AllowSkip)
	if !set {
		value = Cassandra + "," + Kafka
	}
	allowed := strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' })
	for _, a := range allowed {
		if !slices.Contains(names, a) {
			t.Fatalf("%s=%q: unknown name %q: use %s", AllowSkip, value, a, strings.Join(names, ", "))
		}
	}
	if slices.Contains(allowed, name) {
		t.Skipf("skipped, as %s allows: %s", AllowSkip, reason)
	}
	t.Fatalf("%s (or skip it: %s=%s)", reason, AllowSkip, name)
}

// Program returns the path of the first of the programs that PATH has. The requirement and the Debian package are for the
// message if PATH has none.
func Program(t testing.TB, name, debian string, programs ...string) string {
	t.Helper()
	for _, p := range programs {
		if path, err := exec.LookPath(p); err == nil {
			return path
		}
	}
	Missing(t, name, strings.Join(programs, " or ")+" is not in PATH: apt-get install "+debian)
	return ""
}

// CassandraHosts returns the contact points of the cluster in CASSANDRA_TEST_HOSTS.
func CassandraHosts(t testing.TB) []string {
	t.Helper()
	return servers(t, Cassandra, "CASSANDRA_TEST_HOSTS", "go run ./dev with-cluster -- go test ./PACKAGE")
}

// KafkaBrokers returns the addresses of the brokers in KAFKA_TEST_BROKERS.
func KafkaBrokers(t testing.TB) []string {
	t.Helper()
	return servers(t, Kafka, "KAFKA_TEST_BROKERS", "go run ./dev with-kafka -- go test ./PACKAGE")
}

func servers(t testing.TB, name, variable, command string) []string {
	t.Helper()
	addresses := os.Getenv(variable)
	if addresses == "" {
		Missing(t, name, variable+" is not set: run the test by `"+command+"`; make test does it for the packages in the Makefile's lists")
	}
	return strings.Split(addresses, ",")
}

// Benchmark skips a test that measures and asserts nothing, unless FLEET_BENCH is set, as the make target sets it.
func Benchmark(t testing.TB, target string) {
	t.Helper()
	if os.Getenv("FLEET_BENCH") == "" {
		t.Skip("a measurement: run " + target)
	}
}
