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
	keyspace *bench.Keyspace
}

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

// run is one load with its measurement.
type run struct {
	phase
	*probe.Measurement
	report    bench.Report // of the whole run, warm-up included
	saturated string       // why the load was not sustained
}

const (
	// linger is the default of ETL_LINGER: fleet-etl run gathers records so long before it writes them.
	linger = 200 * time.Millisecond

	// tail is a part of the schedule after the measurement, so that the load does not end while it is measured.
	tail = 5 * time.Second
)

// run puts one load on a fleet-etl of its own and measures it. The tables keep what they have.
func (t *test) run(ctx context.Context, p phase) (r run, err error) {
	r.phase = p
	if p.rate <= 0 || p.vehicles < 1 || p.interval() < time.Millisecond {
		return r, fmt.Errorf("%g records/s of %d vehicles: give a rate above 0, and a vehicle for every 1,000 records/s", p.rate, p.vehicles)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("load of %.0f records/s of %d vehicles: %w", p.rate, p.vehicles, err)
		}
	}()
	file := filepath.Join(t.keyspace.Nodes.Dir, "schedule.csv")
	defer os.Remove(file)
	schedule := bench.Simulation{
		Records: int(p.rate * (p.warmup + p.lasts + tail).Seconds()), Vehicles: p.vehicles,
		Interval: p.interval(), Start: time.Now(),
	}
	if err := schedule.Write(ctx, t.binary, file); err != nil {
		return r, err
	}
	addresses, err := process.FreeAddresses(1)
	if err != nil {
		return r, err
	}
	settings := []string{"ETL_METRICS_ADDRESS=" + addresses[0], "ETL_LOAD_LINGER=" + linger.String()}
	replay := t.keyspace.Command(ctx, settings, t.binary, "replay", "--start-at", "now", "--report", "json", file)
	var out bytes.Buffer
	replay.Stdout = &out
	if err := replay.Start(); err != nil {
		return r, err
	}
	measuring, ended := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ended(fmt.Errorf("fleet-etl replay ended: %w", replay.Wait()))
	}()
	r.Measurement, err = t.measure(measuring, addresses[0], p)
	if cause := context.Cause(measuring); err != nil && cause != nil {
		err = cause
	}
	_ = replay.Process.Signal(syscall.SIGTERM) // it fails where the process has ended
	<-done
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &r.report)
	}
	if err != nil {
		return r, err
	}
	r.saturated = saturated(r.Measurement)
	limiting, _ := bottleneck(r.Measurement)
	fmt.Fprintf(os.Stderr, "offered %.0f/s, stored %.0f/s, P99 %.0f ms, limiting: %s; %s\n", p.rate, r.PerSecond, 1e3*r.Latency.P99, limiting, cmp.Or(r.saturated, "sustained"))
	return r, nil
}

// measure waits for the first record and the warm-up, and measures.
func (t *test) measure(ctx context.Context, address string, p phase) (*probe.Measurement, error) {
	watch := probe.Probe{Address: address, Nodes: t.keyspace.Nodes, Every: p.every}
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
	return m, nil
}
