// Package probe measures a running fleet-etl from outside: by its metrics, and by the CPU times of the kernel.
package probe

import (
	"context"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/bench"
	"github.com/fleettracing/fleet-tracing/dev/monitoring"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

// Metrics of fleet-etl that a report names.
const (
	metricReceived   = "fleet_etl_records_received_total"
	metricFreshness  = "fleet_etl_freshness_seconds"
	metricWrite      = "fleet_etl_write_duration_seconds"
	metricRows       = "fleet_etl_records_written_total"
	metricRetries    = "fleet_etl_write_retries_total"
	metricInFlight   = "fleet_etl_writes_in_flight"
	metricLimit      = "fleet_etl_writes_in_flight_limit"
	metricQueue      = "fleet_etl_queue_length"
	metricQueueLimit = "fleet_etl_queue_capacity"
)

// Measurement is a load, measured after its warm-up. Times are in seconds.
type Measurement struct {
	Offered            float64 // records/s; the caller knows it
	Seconds            float64
	Records, PerSecond float64 // became readable
	Retries            float64

	Latency   Quantiles         // from due to readable
	Writes    map[string]Writes // by table
	Durations []Duration        // all other histograms of durations

	ClientCPU, NodesCPU float64
	InFlight, Limit     float64            // writes; means
	MaxLimit            float64            // greatest seen; ETL_MAX_IN_FLIGHT where it never fell
	Queues              map[string]float64 // mean share in use
	Busy                float64            // share of all cores
	Cores               int
	Samples             []Sample
}

// Writes are the mutations of one table.
type Writes struct {
	Quantiles
	Rows float64
}

// Duration is the mean of a histogram of durations.
type Duration struct {
	Name        string
	Count, Mean float64
}

// Sample is a part of a measurement.
type Sample struct {
	At             float64 // its end
	Resident, Heap float64 // bytes
	Goroutines     float64
	Files          float64   // open
	Write          Quantiles // of all tables
	Latency        Quantiles // from due to readable
}

const scrapeInterval = time.Second

// Probe measures a fleet-etl that serves its metrics.
type Probe struct {
	Address string // of ETL_METRICS_ADDRESS
	Nodes   bench.Nodes
	Every   time.Duration // between two samples, which are logged; 0: one sample
}

// Started waits until the first record is sent.
func (p *Probe) Started(ctx context.Context) error {
	for monitoring.Metric("http://"+p.Address+"/metrics", metricReceived) <= 0 {
		if err := process.Sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// Measure takes a measurement of the given duration. It scrapes every second.
func (p *Probe) Measure(ctx context.Context, lasts time.Duration) (*Measurement, error) {
	m := &Measurement{Cores: runtime.NumCPU(), Writes: map[string]Writes{}, Queues: map[string]float64{}}
	before, err := p.scrape(ctx)
	if err != nil {
		return nil, err
	}
	from, until := before, before.at.Add(lasts)
	for scrapes := 1.0; ; scrapes++ {
		if err := process.Sleep(ctx, min(scrapeInterval, time.Until(until))); err != nil {
			return nil, err
		}
		now, err := p.scrape(ctx)
		if err != nil {
			return nil, err
		}
		last := !now.at.Before(until)
		m.addGauges(now, scrapes)
		if last || p.Every > 0 && now.at.Sub(from.at) >= p.Every {
			s := sampleOf(now, now.since(from), now.at.Sub(before.at))
			m.Samples = append(m.Samples, s)
			if p.Every > 0 {
				fmt.Fprintf(os.Stderr, "%.0f s: due to readable P50 %.0f ms P99 %.0f ms, %.0f MB\n", s.At, 1e3*s.Latency.P50, 1e3*s.Latency.P99, s.Resident/1e6)
			}
			from = now
		}
		if last {
			m.summarize(now.since(before), now.at.Sub(before.at).Seconds())
			return m, nil
		}
	}
}

// addGauges adds the gauges of the n-th scrape to the means.
func (m *Measurement) addGauges(s snapshot, n float64) {
	mean := func(old, value float64) float64 { return old + (value-old)/n }
	m.InFlight, m.Limit = mean(m.InFlight, s.values[metricInFlight]), mean(m.Limit, s.values[metricLimit])
	m.MaxLimit = max(m.MaxLimit, s.values[metricLimit])
	for key, length := range s.values {
		if queue, ok := strings.CutPrefix(key, metricQueue+"|"); ok {
			m.Queues[queue] = mean(m.Queues[queue], length/max(1, s.values[metricQueueLimit+"|"+queue]))
		}
	}
}

// sampleOf has the gauges of a moment, and what grew since the last sample.
func sampleOf(now, grown snapshot, at time.Duration) Sample {
	var write histogram
	for key, h := range grown.histograms {
		if strings.HasPrefix(key, metricWrite+"|") {
			write = write.plus(h, 1)
		}
	}
	v := now.values
	return Sample{
		At: at.Seconds(), Resident: v["process_resident_memory_bytes"], Heap: v["go_memstats_heap_alloc_bytes"], Goroutines: v["go_goroutines"],
		Files: v["process_open_fds"], Write: write.quantiles(), Latency: grown.histograms[metricFreshness].quantiles(),
	}
}

// summarize sets the numbers that follow from what grew in the time of the measurement.
func (m *Measurement) summarize(grown snapshot, seconds float64) {
	m.Seconds = seconds
	m.Latency = grown.histograms[metricFreshness].quantiles()
	m.Records, m.PerSecond = m.Latency.Count, m.Latency.Count/seconds
	m.Retries = grown.values[metricRetries]
	m.ClientCPU, m.NodesCPU = grown.values["process_cpu_seconds_total"], grown.nodes
	m.Busy = grown.busy / seconds / float64(m.Cores)
	for _, key := range slices.Sorted(maps.Keys(grown.histograms)) {
		h := grown.histograms[key]
		metric, labels, _ := strings.Cut(key, "|")
		stage, timed := strings.CutSuffix(metric, "_duration_seconds")
		switch {
		case h.count == 0:
		case metric == metricWrite:
			m.Writes[labels] = Writes{h.quantiles(), grown.values[metricRows+"|"+labels]}
		case timed:
			name := strings.TrimPrefix(stage, "fleet_etl_") + " " + strings.ReplaceAll(labels, "|", " ")
			m.Durations = append(m.Durations, Duration{strings.TrimSpace(name), h.count, h.sum / h.count})
		}
	}
}

// Mutations is the number of writes of all tables for one record.
func (m *Measurement) Mutations() (n float64) {
	for _, w := range m.Writes {
		n += w.Count
	}
	return n / max(m.Records, 1)
}

// PerRecord spreads seconds of CPU time over the records, in µs.
func (m *Measurement) PerRecord(seconds float64) float64 { return 1e6 * seconds / max(m.Records, 1) }
