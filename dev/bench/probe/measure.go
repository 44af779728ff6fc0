// Package probe measures a running fleet-etl from outside: by its metrics and a CPU profile, and by
// the CPU times of the kernel.
package probe

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/pprof/profile"
	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/dev/bench"
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
	Offered   float64 `json:"offered_per_second"`
	Seconds   float64 `json:"seconds"`
	Records   float64 `json:"records"` // became readable
	PerSecond float64 `json:"records_per_second"`
	Stored    int64   `json:"records_stored"` // of the whole run, warm-up included
	Rejected  int64   `json:"records_rejected"`
	Received  float64 `json:"records_received"` // until the measurement ended, warm-up included
	Backlog   float64 `json:"records_backlog"`  // due but not sent
	Retries   float64 `json:"write_retries"`

	Latency   Quantiles         `json:"due_to_readable"`
	Writes    map[string]Writes `json:"writes"`    // by table
	Durations []Duration        `json:"durations"` // all other histograms of durations

	ClientCPU  float64            `json:"client_cpu_seconds"`
	PeakMemory int64              `json:"peak_memory_bytes"` // of the whole run
	Profile    []Share            `json:"cpu_profile"`
	NodesCPU   float64            `json:"nodes_cpu_seconds"`
	InFlight   float64            `json:"writes_in_flight"` // mean
	Limit      float64            `json:"writes_in_flight_limit"`
	MaxLimit   float64            `json:"writes_in_flight_max_limit"` // greatest seen; ETL_MAX_IN_FLIGHT where it never fell
	Queues     map[string]float64 `json:"queues"`                     // mean share in use
	Busy       float64            `json:"machine_busy"`               // share of all cores
	Cores      int                `json:"cores"`
	Limiting   Verdict            `json:"bottleneck"`
	Samples    []Sample           `json:"samples"`
}

// Writes are the mutations of one table.
type Writes struct {
	Quantiles
	Rows float64 `json:"rows"`
}

// Duration is the mean of a histogram of durations.
type Duration struct {
	Name  string  `json:"name"`
	Count float64 `json:"count"`
	Mean  float64 `json:"mean_seconds"`
}

// Verdict names a bottleneck and the numbers behind it.
type Verdict struct {
	Name string `json:"name"`
	Why  string `json:"why"`
}

// Sample is a part of a measurement.
type Sample struct {
	At         float64   `json:"at_seconds"` // its end
	Records    float64   `json:"records"`
	Resident   float64   `json:"resident_bytes"`
	Heap       float64   `json:"heap_bytes"`
	Goroutines float64   `json:"goroutines"`
	Files      float64   `json:"open_files"`
	Write      Quantiles `json:"write"` // of all tables
	Latency    Quantiles `json:"due_to_readable"`
}

const (
	scrapeInterval = time.Second
	maxProfile     = time.Minute
)

// Probe measures a fleet-etl that serves its metrics and profiles.
type Probe struct {
	Address string // of ETL_METRICS_ADDRESS
	Nodes   bench.Nodes
	Every   time.Duration // between two samples
	Sampled func(Sample)  // called with each sample
}

func (p *Probe) scrape(ctx context.Context) (snapshot, error) {
	return scrape(ctx, "http://"+p.Address+"/metrics")
}

// Started waits until the first record is sent.
func (p *Probe) Started(ctx context.Context) error {
	for {
		if s, err := p.scrape(ctx); err == nil && s.sum(metricReceived) > 0 {
			return nil
		}
		if err := process.Sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// state holds counters at one moment.
type state struct {
	at          time.Time
	own         snapshot
	nodes, busy float64 // CPU seconds
}

func (p *Probe) state(ctx context.Context) (s state, err error) {
	s.own, err = p.scrape(ctx)
	s.at, s.nodes, s.busy = time.Now(), p.Nodes.CPUSeconds(), busySeconds()
	return s, err
}

// Measure takes a measurement of the given duration. The caller adds the numbers that are known after the run.
func (p *Probe) Measure(ctx context.Context, lasts time.Duration) (*Measurement, error) {
	m := &Measurement{Cores: runtime.NumCPU(), Writes: map[string]Writes{}, Queues: map[string]float64{}}
	before, err := p.state(ctx)
	if err != nil {
		return nil, err
	}
	var after state
	var cpu *profile.Profile
	g, running := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		cpu, err = cpuProfile(running, p.Address, min(lasts, maxProfile))
		return err
	})
	g.Go(func() (err error) {
		after, err = p.watch(running, m, before, lasts)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	m.Profile = shares(cpu)
	m.compare(before, after)
	return m, nil
}

// watch scrapes every second and takes samples until the time is over.
func (p *Probe) watch(ctx context.Context, m *Measurement, before state, lasts time.Duration) (state, error) {
	from, until := before, before.at.Add(lasts)
	for scrapes := 1.0; ; scrapes++ {
		if err := process.Sleep(ctx, min(scrapeInterval, time.Until(until))); err != nil {
			return before, err
		}
		now, err := p.state(ctx)
		if err != nil {
			return before, err
		}
		last := !now.at.Before(until)
		m.addGauges(now.own, scrapes)
		if last || now.at.Sub(from.at) >= p.Every {
			s := sampleOf(before, from, now)
			m.Samples = append(m.Samples, s)
			p.Sampled(s)
			from = now
		}
		if last {
			return now, nil
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

func sampleOf(start, from, to state) Sample {
	var write histogram
	for key, h := range to.own.histograms {
		if strings.HasPrefix(key, metricWrite+"|") {
			write = write.plus(h.plus(from.own.histograms[key], -1), 1)
		}
	}
	v := to.own.values
	return Sample{
		At: to.at.Sub(start.at).Seconds(), Records: to.own.grown(from.own, metricFreshness+"_count"),
		Resident: v["process_resident_memory_bytes"], Heap: v["go_memstats_heap_alloc_bytes"], Goroutines: v["go_goroutines"], Files: v["process_open_fds"],
		Write: write.quantiles(), Latency: to.own.histograms[metricFreshness].plus(from.own.histograms[metricFreshness], -1).quantiles(),
	}
}

// compare sets the numbers that lie between two states.
func (m *Measurement) compare(before, after state) {
	m.Seconds = after.at.Sub(before.at).Seconds()
	m.Records = after.own.grown(before.own, metricFreshness+"_count")
	m.PerSecond = m.Records / m.Seconds
	m.Latency = after.own.histograms[metricFreshness].plus(before.own.histograms[metricFreshness], -1).quantiles()
	m.Received = after.own.sum(metricReceived)
	m.Retries = after.own.grown(before.own, metricRetries)
	m.ClientCPU = after.own.grown(before.own, "process_cpu_seconds_total")
	m.NodesCPU = after.nodes - before.nodes
	m.Busy = (after.busy - before.busy) / m.Seconds / float64(m.Cores)
	for _, key := range slices.Sorted(maps.Keys(after.own.histograms)) {
		metric, labels, _ := strings.Cut(key, "|")
		count := after.own.grown(before.own, metric+"_count"+strings.TrimPrefix(key, metric))
		sum := after.own.grown(before.own, metric+"_sum"+strings.TrimPrefix(key, metric))
		switch {
		case count == 0:
		case metric == metricWrite:
			m.Writes[labels] = Writes{after.own.histograms[key].plus(before.own.histograms[key], -1).quantiles(), after.own.grown(before.own, metricRows+"|"+labels)}
		case strings.HasSuffix(metric, "_duration_seconds"):
			name := strings.TrimPrefix(strings.TrimSuffix(metric, "_duration_seconds"), "fleet_etl_")
			m.Durations = append(m.Durations, Duration{strings.TrimSpace(name + " " + strings.ReplaceAll(labels, "|", " ")), count, sum / count})
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

// ClientMicros is the CPU time of fleet-etl for one record, in µs.
func (m *Measurement) ClientMicros() float64 { return 1e6 * m.ClientCPU / max(m.Records, 1) }

// NodesMicros is the CPU time of all nodes for one record, in µs.
func (m *Measurement) NodesMicros() float64 { return 1e6 * m.NodesCPU / max(m.Records, 1) }

// Shares are the parts of the machine's cores that fleet-etl, the nodes and everything else used.
func (m *Measurement) Shares() (client, nodes, others float64) {
	all := m.Seconds * float64(m.Cores)
	client, nodes = m.ClientCPU/all, m.NodesCPU/all
	return client, nodes, max(0, m.Busy-client-nodes)
}
