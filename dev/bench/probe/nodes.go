package probe

import (
	"context"
	"strings"

	"golang.org/x/sync/errgroup"
)

// scrapeAll scrapes the nodes in parallel.
func scrapeAll(ctx context.Context, urls []string) ([]snapshot, error) {
	all := make([]snapshot, len(urls))
	g, ctx := errgroup.WithContext(ctx)
	for i, url := range urls {
		g.Go(func() (err error) {
			all[i], err = scrape(ctx, url)
			return err
		})
	}
	return all, g.Wait()
}

// NodeMetrics are the nodes' own metrics of a measurement. Latencies are Cassandra's percentiles of the last minutes,
// the greatest of all nodes.
type NodeMetrics struct {
	Collection  float64            `json:"gc_seconds"`
	Requests    map[string]float64 `json:"requests"`            // coordinated, by kind
	Coordinator map[string]Latency `json:"coordinator_latency"` // by kind
	Local       map[string]Latency `json:"local_write_latency"` // by table
	Pending     map[string]float64 `json:"pending_tasks"`       // by thread pool, at the end, the greatest of a node
	Dropped     float64            `json:"dropped_messages"`
	Compactions float64            `json:"pending_compactions"` // at the end, of all nodes
}

// Latency is a latency at two percentiles, in seconds.
type Latency struct {
	P50 float64 `json:"p50_seconds"`
	P99 float64 `json:"p99_seconds"`
}

// compareNodes compares two scrapes of each node.
func compareNodes(before, after []snapshot, keyspace string) *NodeMetrics {
	m := &NodeMetrics{Requests: map[string]float64{}, Coordinator: map[string]Latency{}, Local: map[string]Latency{}, Pending: map[string]float64{}}
	for i, now := range after {
		for key, value := range now.values {
			parts := strings.Split(key, "|")
			grown := now.grown(before[i], key)
			switch parts[0] {
			case "jvm_gc_collection_seconds_sum":
				m.Collection += grown
			case "cassandra_client_requests_total":
				m.Requests[parts[1]] += grown
			case "cassandra_client_request_latency_seconds": // quantile, request
				m.Coordinator[parts[2]] = m.Coordinator[parts[2]].atLeast(parts[1], value)
			case "cassandra_table_write_latency_seconds": // keyspace, quantile, table
				if parts[1] == keyspace {
					m.Local[parts[3]] = m.Local[parts[3]].atLeast(parts[2], value)
				}
			case "cassandra_thread_pool_pending_tasks":
				m.Pending[parts[1]] = max(m.Pending[parts[1]], value)
			case "cassandra_dropped_messages_total":
				m.Dropped += grown
			case "cassandra_compaction_pending_tasks":
				m.Compactions += value
			}
		}
	}
	return m
}

func (l Latency) atLeast(quantile string, value float64) Latency {
	switch quantile {
	case "0.5":
		l.P50 = max(l.P50, value)
	case "0.99":
		l.P99 = max(l.P99, value)
	}
	return l
}
