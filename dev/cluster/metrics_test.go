package cluster

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/cassandra/schema"
	"github.com/fleettracing/fleet-tracing/dev/process"
	"github.com/fleettracing/fleet-tracing/dev/testenv"
)

var (
	sample    = regexp.MustCompile(`^(\w+)(?:\{(.*)\})? (\S+)$`)
	labelName = regexp.MustCompile(`(\w+)="`)
)

// scrape returns what a node's /metrics says: the names with their labels' names, and the value of every series.
func scrape(t *testing.T, n Node) (names []string, series map[string]float64) {
	t.Helper()
	response, err := http.Get(fmt.Sprintf("http://%s/metrics", n.Metrics()))
	do(t, "scrape", err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	do(t, "scrape", err)
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %s", n, response.Status, body)
	}
	if len(body) > 100_000 {
		t.Errorf("%s: a scrape has %d bytes: jmx.yml lets too much through", n, len(body))
	}
	series = map[string]float64{}
	for line := range strings.Lines(string(body)) {
		line = strings.TrimSpace(line)
		m := sample.FindStringSubmatch(line)
		if m == nil {
			if line != "" && line[0] != '#' {
				t.Errorf("%s: no sample: %q", n, line)
			}
			continue
		}
		value, err := strconv.ParseFloat(m[3], 64)
		do(t, line, err)
		series[strings.TrimSuffix(line, " "+m[3])] = value
		var labels []string
		for _, l := range labelName.FindAllStringSubmatch(m[2], -1) {
			labels = append(labels, l[1])
		}
		name := m[1]
		if len(labels) > 0 {
			slices.Sort(labels)
			name += "{" + strings.Join(labels, ",") + "}"
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names), series
}

// TestMetricsOfRealNodes asks the cluster that make integration runs the tests on.
func TestMetricsOfRealNodes(t *testing.T) {
	testenv.CassandraHosts(t)
	c, err := Open(Config{Dir: os.Getenv("DEV_CLUSTER_DIR")})
	do(t, "open", err)
	nodes, err := c.Nodes()
	do(t, "nodes", err)
	replication := cassandra.Replication{}
	for _, n := range nodes {
		if n.State != process.Running {
			testenv.Missing(t, testenv.Cassandra, fmt.Sprintf("%s is %s: start it: go run ./dev cluster up", n, n.State))
		}
		replication[n.DC] = min(2, replication[n.DC]+1)
	}
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	store := cassandra.Config{Hosts: []string{nodes[0].CQL().String()}, LocalDC: nodes[0].DC, Keyspace: "fleet_iot"}
	do(t, "make the keyspace whose tables have metrics", schema.Apply(t.Context(), store, replication, logger))

	golden := filepath.Join("..", "..", "cassandra", "metrics", "names.txt")
	names, delivered := []string{}, "cassandra_hints_delivered_total{result}"
	reads, slowest := 0.0, 0.0
	for _, n := range nodes {
		its, series := scrape(t, n)
		if up := series[`cassandra_endpoints{state="up"}`]; int(up) != len(nodes) {
			t.Errorf("%s sees %g of %d nodes up", n, up, len(nodes))
		}
		names = append(names, its...)
		reads += series[`cassandra_client_requests_total{request="read"}`]
		slowest = max(slowest, series[`cassandra_client_request_latency_seconds{quantile="0.99",request="read"}`])
		if load := series["cassandra_storage_load_bytes"]; load < 10_000 {
			t.Errorf("%s holds %g bytes", n, load)
		}
	}
	if reads == 0 || slowest < 1e-5 || slowest > 20 {
		t.Errorf("%g reads, the slowest of %g s: the schema was read a moment ago", reads, slowest)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if !slices.Contains(names, delivered) { // a node has it from the first hint on that it delivers
		names = append(names, delivered)
		slices.Sort(names)
	}
	got := strings.Join(names, "\n") + "\n"
	if *update {
		do(t, "update", os.WriteFile(golden, []byte(got), 0o644))
	}
	want, err := os.ReadFile(golden)
	do(t, "read", err)
	if got != string(want) {
		t.Errorf("the metrics differ from %s (go test ./dev/cluster -run Metrics -update updates it):\n%s", golden, got)
	}
}
