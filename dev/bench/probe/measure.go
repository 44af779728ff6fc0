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

	"github.com/prometheus/procfs"
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

const (
	scrapeInterval = time.Second
	maxProfile     = time.Minute
)

// Probe measures a fleet-etl that serves its metrics and profiles.
type Probe struct {
	Address string // of ETL_METRICS_ADDRESS
	Nodes   bench.Nodes
	Every   time.Duration // between two samples
	Profile string        // file for a CPU profile of the first minute
	Sampled func(Sample)  // called with each sample
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
	snapshot
	at          time.Time
	nodes, busy float64 // CPU seconds
}

func (p *Probe) state(ctx context.Context) (s state, err error) {
	if s.snapshot, err = p.scrape(ctx); err != nil {
		return s, err
	}
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return s, err
	}
	stat, err := fs.Stat()
	cpu := stat.CPUTotal
	s.at, s.nodes, s.busy = time.Now(), p.Nodes.CPUSeconds(), cpu.User+cpu.Nice+cpu.System+cpu.IRQ+cpu.SoftIRQ+cpu.Steal
	return s, err
}

// Measure takes a measurement of the given duration.
func (p *Probe) Measure(ctx context.Context, lasts time.Duration) (*Measurement, error) {
	m := &Measurement{Cores: runtime.NumCPU(), Writes: map[string]Writes{}, Queues: map[string]float64{}}
	before, err := p.state(ctx)
	if err != nil {
		return nil, err
	}
	var after state
	g, running := errgroup.WithContext(ctx)
	g.Go(func() error { return p.cpuProfile(running, min(lasts, maxProfile)) })
	g.Go(func() (err error) {
		after, err = p.watch(running, m, before, lasts)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
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
		m.addGauges(now.snapshot, scrapes)
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
	write := histogram{}
	for key := range to.histograms {
		if strings.HasPrefix(key, metricWrite+"|") {
			write.add(to.observed(from.snapshot, key), 1)
		}
	}
	v := to.values
	return Sample{
		At: to.at.Sub(start.at).Seconds(), Resident: v["process_resident_memory_bytes"], Heap: v["go_memstats_heap_alloc_bytes"], Goroutines: v["go_goroutines"],
		Files: v["process_open_fds"], Write: write.quantiles(), Latency: to.observed(from.snapshot, metricFreshness).quantiles(),
	}
}

// compare sets the numbers that lie between two states.
func (m *Measurement) compare(before, after state) {
	grown := func(key string) float64 { return after.grown(before.snapshot, key) }
	m.Seconds = after.at.Sub(before.at).Seconds()
	m.Records = grown(metricFreshness + "_count")
	m.PerSecond = m.Records / m.Seconds
	m.Latency = after.observed(before.snapshot, metricFreshness).quantiles()
	m.Retries = grown(metricRetries)
	m.ClientCPU = grown("process_cpu_seconds_total")
	m.NodesCPU = after.nodes - before.nodes
	m.Busy = (after.busy - before.busy) / m.Seconds / float64(m.Cores)
	for _, key := range slices.Sorted(maps.Keys(after.histograms)) {
		metric, labels, _ := strings.Cut(key, "|")
		count := grown(metric + "_count" + strings.TrimPrefix(key, metric))
		switch {
		case count == 0:
		case metric == metricWrite:
			m.Writes[labels] = Writes{after.observed(before.snapshot, key).quantiles(), grown(metricRows + "|" + labels)}
		case strings.HasSuffix(metric, "_duration_seconds"):
			name := strings.TrimPrefix(strings.TrimSuffix(metric, "_duration_seconds"), "fleet_etl_")
			mean := grown(metric+"_sum"+strings.TrimPrefix(key, metric)) / count
			m.Durations = append(m.Durations, Duration{strings.TrimSpace(name + " " + strings.ReplaceAll(labels, "|", " ")), count, mean})
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

// Shares are the parts of the machine's cores that fleet-etl, the nodes and everything else used.
func (m *Measurement) Shares() (client, nodes, others float64) {
	all := m.Seconds * float64(m.Cores)
	client, nodes = m.ClientCPU/all, m.NodesCPU/all
	return client, nodes, max(0, m.Busy-client-nodes)
}
