// Package loadtest puts load on a running fleet-etl and measures it.
//
// The load is open: a file has the time of each record, and fleet-etl replay sends the records at these times, whatever
// the pipeline does. Latency counts from when a record is due, so a pipeline that stands still shows in every record
// that is due meanwhile.
package loadtest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/bench"
	"github.com/fleettracing/fleet-tracing/dev/bench/probe"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

// test puts load on a fleet-etl binary.
type test struct {
	binary   string
	log      io.Writer
	keyspace *bench.Keyspace
	dir      string // of the files that are sent
}

// FleetSize is the number of vehicles of one fleet.
const FleetSize = 100

// Objective is the P99 from due to readable that a sustained load keeps.
const Objective = 5 * time.Second

// phase is one load.
type phase struct {
	rate     float64 // records/s of all vehicles
	vehicles int
	warmup   time.Duration // before the measurement
	lasts    time.Duration
	every    time.Duration // between two samples, which are logged; 0: one sample
}

func (p phase) interval() time.Duration {
	return time.Duration(float64(p.vehicles) / p.rate * float64(time.Second))
}

func fleets(vehicles int) int { return (vehicles + FleetSize - 1) / FleetSize }

// Run is one load with its measurement.
type Run struct {
	Vehicles    int                `json:"vehicles"`
	Fleets      int                `json:"fleets"`
	Interval    float64            `json:"interval_seconds"` // between two records of a vehicle
	Measurement *probe.Measurement `json:"measurement"`
	Saturated   string             `json:"saturated,omitempty"` // why the load was not sustained
	Counted     int64              `json:"records_counted,omitempty"`

	Load *bench.Usage `json:"load,omitempty"` // a file that was loaded at full speed

	Days   int   `json:"days_stored,omitempty"`
	Before int64 `json:"records_before,omitempty"` // stored when the measurement began
}

// run puts one load on a fleet-etl of its own and measures it. The tables keep what they have.
func (t *test) run(ctx context.Context, p phase) (run Run, err error) {
	run = Run{Vehicles: p.vehicles, Fleets: fleets(p.vehicles), Interval: p.interval().Seconds()}
	if p.rate <= 0 || p.vehicles < 1 || p.interval() < time.Millisecond {
		return run, fmt.Errorf("%g records/s of %d vehicles: give a rate above 0, and a vehicle for every 1,000 records/s", p.rate, p.vehicles)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("load of %.0f records/s of %d vehicles: %w", p.rate, p.vehicles, err)
		}
	}()
	file := filepath.Join(t.dir, "schedule.csv")
	defer os.Remove(file)
	schedule := bench.Simulation{
		Records: int(p.rate * (p.warmup + p.lasts + tail).Seconds()), Vehicles: p.vehicles, Fleets: run.Fleets, Interval: p.interval(), Start: time.Now(),
	}
	if err := schedule.Write(ctx, t.binary, file); err != nil {
		return run, err
	}
	address, err := freeAddress()
	if err != nil {
		return run, err
	}
	settings := []string{"ETL_METRICS_ADDRESS=" + address, "ETL_PPROF=true", "ETL_LOAD_LINGER=" + linger.String()}
	replay := t.keyspace.Command(ctx, settings, "replay", "--start-at", "now", "--report", "json", file)
	var out bytes.Buffer
	replay.Stdout = &out
	if err := replay.Start(); err != nil {
		return run, err
	}
	measuring, ended := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ended(fmt.Errorf("fleet-etl replay ended: %w", replay.Wait()))
	}()
	run.Measurement, err = t.measure(measuring, address, p)
	if cause := context.Cause(measuring); err != nil && cause != nil {
		err = cause
	}
	_ = replay.Process.Signal(syscall.SIGTERM) // it fails where the process has ended
	<-done
	var report bench.Report
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &report)
	}
	if err != nil {
		return run, err
	}
	m := run.Measurement
	m.Stored, m.Rejected, m.PeakMemory = report.Stored, report.Rejected, report.PeakMemory
	m.Limiting = bottleneck(m)
	run.Saturated = saturated(m)
	fmt.Fprintf(t.log, "offered %.0f/s, stored %.0f/s, P99 %s, limiting: %s; %s\n", m.Offered, m.PerSecond, probe.Seconds(m.Latency.P99), m.Limiting.Name, run.Verdict())
	return run, nil
}

// linger is the default of ETL_LINGER: fleet-etl run gathers records so long before it writes them.
const linger = 200 * time.Millisecond

// tail is a part of the schedule after the measurement, so that the load does not end while it is measured.
const tail = 5 * time.Second

// Verdict is sustained or saturated.
func (r *Run) Verdict() string {
	if r.Saturated == "" {
		return "sustained"
	}
	return "saturated"
}

// measure waits for the first record and the warm-up, and measures.
func (t *test) measure(ctx context.Context, address string, p phase) (*probe.Measurement, error) {
	watch := probe.Probe{Address: address, Nodes: t.keyspace.Nodes, Every: cmp.Or(p.every, p.lasts), Sampled: func(s probe.Sample) {
		if p.every > 0 {
			fmt.Fprintf(t.log, "%.0f s: %.0f records, due to readable P50 %s P99 %s, %.0f MB\n", s.At, s.Records, probe.Seconds(s.Latency.P50), probe.Seconds(s.Latency.P99), s.Resident/1e6)
		}
	}}
	if err := watch.Started(ctx); err != nil {
		return nil, err
	}
	if err := process.Sleep(ctx, p.warmup); err != nil {
		return nil, err
	}
	m, err := watch.Measure(ctx, p.lasts)
	if err != nil {
		return nil, err
	}
	if m.Records == 0 {
		return nil, errors.New("no record became readable while the load was measured")
	}
	m.Offered = p.rate
	m.Backlog = max(0, p.rate*(p.warmup.Seconds()+m.Seconds)-m.Received)
	return m, nil
}

// load loads generated records into empty tables at full speed.
func (t *test) load(ctx context.Context, vehicles, records int) (*bench.Usage, error) {
	if err := t.keyspace.Empty(ctx); err != nil {
		return nil, err
	}
	file := filepath.Join(t.dir, "load.csv")
	defer os.Remove(file)
	if err := (bench.Simulation{Records: records, Vehicles: vehicles, Fleets: fleets(vehicles)}).Write(ctx, t.binary, file); err != nil {
		return nil, err
	}
	usage, err := bench.Measure(t.keyspace.Command(ctx, nil, "load", "--report", "json", file), t.keyspace.Nodes)
	fmt.Fprintf(t.log, "loaded %d records of %d vehicles: %.0f/s\n", usage.Records, vehicles, usage.PerSecond)
	return &usage, err
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}
