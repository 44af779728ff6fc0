package loadtest

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/sync/errgroup"
)

// values are samples by name and label values, as "name|value|value" in the order of the labels' names. Of a histogram
// they are its count and sum.
type values map[string]float64

func (v values) add(families map[string]*dto.MetricFamily) {
	for name, family := range families {
		for _, m := range family.GetMetric() {
			labels := ""
			for _, l := range m.GetLabel() {
				labels += "|" + l.GetValue()
			}
			switch {
			case m.Histogram != nil:
				v[name+"_count"+labels] = float64(m.GetHistogram().GetSampleCount())
				v[name+"_sum"+labels] = m.GetHistogram().GetSampleSum()
			case m.Summary != nil:
				v[name+"_count"+labels] = float64(m.GetSummary().GetSampleCount())
				v[name+"_sum"+labels] = m.GetSummary().GetSampleSum()
			case m.Counter != nil:
				v[name+labels] = m.GetCounter().GetValue()
			case m.Gauge != nil:
				v[name+labels] = m.GetGauge().GetValue()
			case m.Untyped != nil:
				v[name+labels] = m.GetUntyped().GetValue()
			}
		}
	}
}

// scrape reads the metrics of each node.
func scrape(ctx context.Context, urls []string) ([]values, error) {
	nodes := make([]values, len(urls))
	g, ctx := errgroup.WithContext(ctx)
	for i, url := range urls {
		g.Go(func() error {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			if err != nil {
				return fmt.Errorf("--node-metrics %q: %w", url, err)
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				return fmt.Errorf("metrics of a node: %w", err)
			}
			defer response.Body.Close()
			parser := expfmt.NewTextParser(model.UTF8Validation)
			families, err := parser.TextToMetricFamilies(response.Body)
			if err != nil {
				return fmt.Errorf("metrics of the node at %s: %w", url, err)
			}
			nodes[i] = values{}
			nodes[i].add(families)
			return nil
		})
	}
	return nodes, g.Wait()
}

// NodeFigures is what the nodes' own metrics say of a measurement. Latencies are Cassandra's, of the last minutes, and
// the greatest of all nodes.
type NodeFigures struct {
	CPUSeconds   float64            `json:"cpu_seconds"`
	Collection   float64            `json:"gc_seconds"`
	Requests     map[string]float64 `json:"requests"`             // coordinated, by kind
	Coordinator  map[string]Level   `json:"coordinator_latency"`  // by kind
	Local        map[string]Level   `json:"local_write_latency"`  // by table
	Pending      map[string]float64 `json:"pending_tasks"`        // by thread pool, at the end, the greatest of a node
	Dropped      float64            `json:"dropped_messages"`     // in the measurement
	Compactions  float64            `json:"pending_compactions"`  // at the end, of all nodes
	StorageBytes float64            `json:"storage_bytes_stored"` // at the end, of all nodes
}

// Level is a latency at two levels, in seconds.
type Level struct {
	P50 float64 `json:"p50_seconds"`
	P99 float64 `json:"p99_seconds"`
}

// figuresOf compares two scrapes of each node.
func figuresOf(before, after []values, keyspace string) *NodeFigures {
	f := &NodeFigures{Requests: map[string]float64{}, Coordinator: map[string]Level{}, Local: map[string]Level{}, Pending: map[string]float64{}}
	for i, now := range after {
		for key, value := range now {
			parts := strings.Split(key, "|")
			grown := value - before[i][key]
			switch parts[0] {
			case "process_cpu_seconds_total":
				f.CPUSeconds += grown
			case "jvm_gc_collection_seconds_sum":
				f.Collection += grown
			case "cassandra_client_requests_total":
				f.Requests[parts[1]] += grown
			case "cassandra_client_request_latency_seconds": // quantile, request
				f.Coordinator[parts[2]] = f.Coordinator[parts[2]].atLeast(parts[1], value)
			case "cassandra_table_write_latency_seconds": // keyspace, quantile, table
				if parts[1] == keyspace {
					f.Local[parts[3]] = f.Local[parts[3]].atLeast(parts[2], value)
				}
			case "cassandra_thread_pool_pending_tasks":
				f.Pending[parts[1]] = max(f.Pending[parts[1]], value)
			case "cassandra_dropped_messages_total":
				f.Dropped += grown
			case "cassandra_compaction_pending_tasks":
				f.Compactions += value
			case "cassandra_storage_load_bytes":
				f.StorageBytes += value
			}
		}
	}
	return f
}

func (l Level) atLeast(quantile string, value float64) Level {
	switch quantile {
	case "0.5":
		l.P50 = max(l.P50, value)
	case "0.99":
		l.P99 = max(l.P99, value)
	}
	return l
}
