package loadtest

import (
	"bytes"
	"context"
	"maps"
	"runtime"
	"runtime/metrics"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"golang.org/x/sync/errgroup"
)

// Measurement is one stretch of load, measured. Times are in seconds.
type Measurement struct {
	Offered   float64 `json:"offered_per_second"`
	Seconds   float64 `json:"seconds"`
	Records   int64   `json:"records"` // that became durable meanwhile
	PerSecond float64 `json:"records_per_second"`
	Unsent    int64   `json:"records_unsent"` // due, and never handed over
	Stored    int64   `json:"records_stored"` // of the whole run, the time before and after among it
	Refused   int64   `json:"records_refused"`
	Retries   int64   `json:"write_retries"`

	Freshness Quantiles         `json:"due_to_readable"`
	Writes    map[string]Writes `json:"writes"` // by table
	Stages    []Timing          `json:"stages"`
	Requests  []Timing          `json:"requests"` // of the driver, by operation and table

	Client   Client       `json:"client"`
	Server   Server       `json:"server"`
	Nodes    *NodeFigures `json:"nodes,omitempty"` // where their metrics were read
	Loader   Loader       `json:"loader"`
	Busy     float64      `json:"machine_busy"` // share of all cores
	Cores    int          `json:"cores"`
	Limiting Verdict      `json:"bottleneck"`
	Samples  []Sample     `json:"samples"`
}

// Writes are the mutations of one table.
type Writes struct {
	Quantiles
	Rows float64 `json:"rows"`
}

// Timing is how often something was done and how long it took on the average.
type Timing struct {
	Name  string  `json:"name"`
	Count float64 `json:"count"`
	Mean  float64 `json:"mean_seconds"`
}

// Client is the process under load.
type Client struct {
	CPUSeconds float64 `json:"cpu_seconds"`
	PeakMemory int64   `json:"peak_memory_bytes"` // of its whole life
	Profile    []Share `json:"cpu_profile"`
}

// Server is the CPU time of the nodes: those on this machine by the kernel, else by their own metrics.
type Server struct {
	CPUSeconds float64 `json:"cpu_seconds"`
	Here       bool    `json:"on_this_machine"`
}

// Loader is how full what is bounded was, on the average.
type Loader struct {
	InFlight float64            `json:"writes_in_flight"`
	Limit    float64            `json:"writes_in_flight_limit"`
	Most     int                `json:"writes_in_flight_most"` // ETL_MAX_IN_FLIGHT
	Queues   map[string]float64 `json:"queues"`                // share that is full
}

// Sample is one stretch of a measurement.
type Sample struct {
	At         float64   `json:"at_seconds"` // its end
	Records    int64     `json:"records"`
	Resident   int64     `json:"resident_bytes"`
	Heap       int64     `json:"heap_bytes"`
	Goroutines int       `json:"goroutines"`
	Files      int       `json:"open_files"`
	Write      Quantiles `json:"write"` // of all tables
	Freshness  Quantiles `json:"due_to_readable"`
}

// Probe is what a measurement looks at.
type Probe struct {
	Gatherer prometheus.Gatherer
	Writes   func() map[string]*hdrhistogram.Histogram // gives what it has, in µs, and begins anew
	Arrivals *Arrivals
	PIDs     []int    // of the nodes that are on this machine
	Nodes    []string // URLs of the nodes' metrics
	Keyspace string
	Every    time.Duration // between two samples
	Told     func(Sample)
}

const look = time.Second // between two looks at what goes up and down

// state is what counts up.
type state struct {
	at      time.Time
	durable int64
	client  float64
	server  float64
	busy    float64
	own     values
}

func (p *Probe) state() (s state, err error) {
	if s.own, err = p.gather(); err != nil {
		return s, err
	}
	s.at, s.durable, s.client, s.server, s.busy = time.Now(), p.Arrivals.Durable(), ownCPU(), CPUOf(p.PIDs), busySeconds()
	return s, nil
}

func (p *Probe) gather() (values, error) {
	families, err := p.Gatherer.Gather()
	if err != nil {
		return nil, err
	}
	byName := map[string]*dto.MetricFamily{}
	for _, f := range families {
		byName[f.GetName()] = f
	}
	v := values{}
	v.add(byName)
	return v, nil
}

func ownCPU() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// Measure waits for the beginning, measures until the end, and says what it saw. What is known only when the pipeline
// has ended is left to Complete.
func (p *Probe) Measure(ctx context.Context, from, to time.Time) (*Measurement, error) {
	if err := sleep(ctx, time.Until(from)); err != nil {
		return nil, err
	}
	m := &Measurement{Cores: runtime.NumCPU(), Writes: map[string]Writes{}, Loader: Loader{Queues: map[string]float64{}}}
	before, err := p.state()
	if err != nil {
		return nil, err
	}
	p.Writes()
	p.Arrivals.takeRecent()
	var cpu bytes.Buffer
	if err := pprof.StartCPUProfile(&cpu); err != nil {
		return nil, err
	}
	var after state
	var nodesBefore []values
	var writes map[string]*hdrhistogram.Histogram
	g, running := errgroup.WithContext(ctx)
	g.Go(func() (err error) { // beside it: a busy node takes seconds, which must not pass for part of the load
		nodesBefore, err = scrape(running, p.Nodes)
		return err
	})
	g.Go(func() (err error) {
		defer pprof.StopCPUProfile()
		if writes, err = p.watch(running, m, before, to); err == nil {
			after, err = p.state()
		}
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if m.Client.Profile, err = sharesOf(cpu.Bytes()); err != nil {
		return nil, err
	}
	m.compare(before, after, writes)
	m.PerSecond = p.Arrivals.PerSecond()
	if len(p.Nodes) > 0 {
		nodesAfter, err := scrape(ctx, p.Nodes)
		if err != nil {
			return nil, err
		}
		m.Nodes = figuresOf(nodesBefore, nodesAfter, p.Keyspace)
	}
	m.Server = Server{CPUSeconds: after.server - before.server, Here: len(p.PIDs) > 0}
	if !m.Server.Here && m.Nodes != nil {
		m.Server.CPUSeconds = m.Nodes.CPUSeconds
	}
	return m, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// watch takes samples until the end, and gives the writes of all of them by table.
func (p *Probe) watch(ctx context.Context, m *Measurement, before state, to time.Time) (map[string]*hdrhistogram.Histogram, error) {
	writes := map[string]*hdrhistogram.Histogram{}
	looks, durable, sampled := 0.0, before.durable, before.at
	for {
		last := !time.Now().Add(look).Before(to)
		if err := sleep(ctx, min(look, time.Until(to))); err != nil {
			return nil, err
		}
		now, err := p.gather()
		if err != nil {
			return nil, err
		}
		looks++
		m.Loader.add(now)
		if last || time.Since(sampled) >= p.Every {
			all := newHistogram()
			for table, h := range p.Writes() {
				all.Merge(h)
				if writes[table] == nil {
					writes[table] = newHistogram()
				}
				writes[table].Merge(h)
			}
			s := Sample{
				At: time.Since(before.at).Seconds(), Records: p.Arrivals.Durable() - durable, Resident: resident(), Heap: heapInUse(),
				Goroutines: runtime.NumGoroutine(), Files: openFiles(), Write: quantilesOf(all), Freshness: p.Arrivals.takeRecent(),
			}
			durable, sampled = durable+s.Records, sampled.Add(p.Every)
			m.Samples = append(m.Samples, s)
			p.Told(s)
		}
		if last {
			m.Loader.scale(1 / looks)
			return writes, nil
		}
	}
}

// heapInUse is the memory of objects that live or are not swept yet, in bytes.
func heapInUse() int64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64())
}

func (l *Loader) add(v values) {
	l.InFlight += v["fleet_etl_writes_in_flight"]
	l.Limit += v["fleet_etl_writes_in_flight_limit"]
	for key, length := range v {
		if queue, ok := strings.CutPrefix(key, "fleet_etl_queue_length|"); ok {
			l.Queues[queue] += length / v["fleet_etl_queue_capacity|"+queue]
		}
	}
}

func (l *Loader) scale(by float64) {
	l.InFlight *= by
	l.Limit *= by
	for queue := range l.Queues {
		l.Queues[queue] *= by
	}
}

// compare says what lies between two states.
func (m *Measurement) compare(before, after state, writes map[string]*hdrhistogram.Histogram) {
	m.Seconds = after.at.Sub(before.at).Seconds()
	m.Records = after.durable - before.durable
	m.Client.CPUSeconds = after.client - before.client
	m.Busy = (after.busy - before.busy) / m.Seconds / float64(m.Cores)
	grown := func(key string) float64 { return after.own[key] - before.own[key] }
	for table, h := range writes {
		m.Writes[table] = Writes{quantilesOf(h), grown("fleet_etl_records_written_total|" + table)}
	}
	m.Retries = int64(grown("fleet_etl_write_retries_total"))
	timing := func(name, metric, labels string) (Timing, bool) {
		n := grown(metric + "_count|" + labels)
		return Timing{name, n, grown(metric+"_sum|"+labels) / max(n, 1)}, n > 0
	}
	for _, s := range []struct{ name, metric, label string }{
		{"transform a batch", "fleet_etl_stage_duration_seconds", "transform"},
		{"load a batch: from transformed to durable", "fleet_etl_stage_duration_seconds", "load"},
		{"a window: plan, meet devices", "fleet_etl_batch_duration_seconds", "plan"},
		{"a window: from then until durable", "fleet_etl_batch_duration_seconds", "store"},
		{"derive: fold a window", "fleet_etl_derive_duration_seconds", "fold"},
		{"derive: flush", "fleet_etl_derive_duration_seconds", "flush"},
		{"derive: derive a device's day anew", "fleet_etl_derive_duration_seconds", "rederive"},
		{"derive: sum hours", "fleet_etl_derive_duration_seconds", "rollup"},
	} {
		if t, ok := timing(s.name, s.metric, s.label); ok {
			m.Stages = append(m.Stages, t)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(after.own)) {
		labels, ok := strings.CutPrefix(key, "fleet_etl_cassandra_request_duration_seconds_count|") // operation, table
		if !ok {
			continue
		}
		if t, ok := timing(strings.Replace(labels, "|", " ", 1), "fleet_etl_cassandra_request_duration_seconds", labels); ok {
			m.Requests = append(m.Requests, t)
		}
	}
}

// Mutations is how many writes a record took, of all tables.
func (m *Measurement) Mutations() float64 {
	var n int64
	for _, w := range m.Writes {
		n += w.Count
	}
	return float64(n) / float64(max(m.Records, 1))
}

// ClientMicros is the CPU time of fleet-etl for a record, in µs.
func (m *Measurement) ClientMicros() float64 {
	return 1e6 * m.Client.CPUSeconds / float64(max(m.Records, 1))
}

// ServerMicros is the CPU time of all nodes for a record, in µs.
func (m *Measurement) ServerMicros() float64 {
	return 1e6 * m.Server.CPUSeconds / float64(max(m.Records, 1))
}

// Shares are the parts of the machine's cores that fleet-etl, the nodes and everybody else took.
func (m *Measurement) Shares() (client, server, others float64) {
	all := m.Seconds * float64(m.Cores)
	client = m.Client.CPUSeconds / all
	if m.Server.Here {
		server = m.Server.CPUSeconds / all
	}
	return client, server, max(0, m.Busy-client-server)
}
