package app

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/load"
	"github.com/fleettracing/fleet-tracing/etl/internal/loadtest"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/source/csvfile"
	"github.com/fleettracing/fleet-tracing/etl/internal/source/generator"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// benchCommands measure on the cluster at hand, in a keyspace that they make and drop.
type benchCommands struct {
	Compare benchCommand   `cmd:"" default:"withargs" help:"Measure the loader beside the bare driver. What bench alone does."`
	Steady  steadyCommand  `cmd:"" help:"Put a steady load on the pipeline, and tell its latency and where the time goes."`
	Ramp    rampCommand    `cmd:"" help:"Find the greatest rate that is held."`
	Devices devicesCommand `cmd:"" help:"Tell what a record costs with ever more devices."`
	History historyCommand `cmd:"" help:"Tell what writes and reads cost with ever more days stored."`
	Soak    soakCommand    `cmd:"" help:"Tell whether memory, handles and latency stay flat under a steady load."`
	Report  reportCommand  `cmd:"" help:"Show reports that these commands saved, as text, page, plots or a part of the docs."`
	Measure measureCommand `cmd:"" hidden:"" help:"Run one measurement in this process."`
}

// benchCommand measures, in one run and on the cluster at hand, the bare driver and the ETL side by side. Each case is
// a process of its own, so that its CPU time and memory are its own too.
type benchCommand struct {
	Records    int    `default:"400000" help:"Records of each case; cases of single statements take a fifth."`
	Vehicles   int    `default:"1000" help:"Vehicles that they are of."`
	InFlight   int    `default:"64" help:"Requests that the bare driver has under way."`
	Repeat     int    `default:"1" help:"How often each case is measured; the median is shown."`
	ServerPIDs []int  `name:"server-pids" placeholder:"PID,…" help:"Processes of the cluster's nodes on this machine, to count their CPU time."`
	JSON       bool   `name:"json" help:"Print as JSON."`
	Case       string `hidden:"" help:"Run this case alone, in this process."`
	File       string `hidden:"" help:"The case's input."`
}

// benchKeyspace is made for the bench and dropped after it.
const benchKeyspace = "fleet_bench"

// The cases, by the form of their writes. Only one of them derives: the others store what the bare driver could.
const (
	driverGrouped = "driver, grouped"
	driverSingle  = "driver, single"
	etlBatch      = "etl, batch"
	etlAsync      = "etl, async"
	etlDerived    = "etl, batch, derived"
)

// benchResult is one case, measured.
type benchResult struct {
	Case      string  `json:"case"`
	Input     string  `json:"input"`
	Records   int64   `json:"records"`
	Seconds   float64 `json:"seconds"`
	Client    float64 `json:"client_cpu_seconds"`
	Server    float64 `json:"server_cpu_seconds"`
	Memory    int64   `json:"peak_memory_bytes"`
	PerSecond float64 `json:"records_per_second"`
}

// Run implements the command.
func (c *benchCommand) Run(p *program) error {
	if c.Case != "" {
		return c.runDriver(p)
	}
	dir, err := os.MkdirTemp("", "fleet-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	cfg, err := p.config.Store()
	if err != nil {
		return err
	}
	cfg.Keyspace = benchKeyspace
	if err := cassandra.ApplySchema(p.stop, cfg, p.config.Replication(), p.logger); err != nil {
		return err
	}
	defer func() {
		if err := cassandra.DropKeyspace(context.WithoutCancel(p.ctx), cfg, p.logger); err != nil {
			p.logger.WithError(err).Warn("keyspace of the bench is left behind")
		}
	}()
	inputs, err := c.makeInputs(p.stop, dir)
	if err != nil {
		return err
	}
	b := bench{benchCommand: c, program: p, config: cfg, dir: dir}
	for _, name := range []string{driverGrouped, etlBatch} { // the nodes' code is compiled as it runs
		if _, err := b.measure(name, "warm-up", inputs["interleaved"]); err != nil {
			return err
		}
	}
	var results []benchResult
	for _, input := range []string{"interleaved", "sorted"} {
		for _, name := range []string{driverGrouped, etlBatch, etlDerived, driverSingle, etlAsync} {
			file := inputs[input]
			if name == driverSingle || name == etlAsync {
				file = inputs[input+", a fifth"]
			}
			r, err := b.median(name, input, file)
			if err != nil {
				return err
			}
			results = append(results, r)
		}
	}
	if c.JSON {
		e := json.NewEncoder(p.Out)
		e.SetIndent("", "  ")
		return e.Encode(results)
	}
	return printBench(p.Out, results)
}

func printBench(out io.Writer, results []benchResult) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "input\tcase\trecords\trecords/s\tof grouped driver\tclient CPU s/M\tserver CPU s/M\tpeak memory MB\t")
	var grouped float64
	for _, r := range results {
		if r.Case == driverGrouped {
			grouped = r.PerSecond
		}
		perMillion := 1e6 / float64(r.Records)
		fmt.Fprintf(w, "%s\t%s\t%d\t%.0f\t%.2f\t%.1f\t%.1f\t%.0f\t\n", r.Input, r.Case, r.Records, r.PerSecond, r.PerSecond/grouped,
			r.Client*perMillion, r.Server*perMillion, float64(r.Memory)/1e6)
	}
	return w.Flush()
}

// makeInputs writes the records once in order of time and once by device, whole and a fifth of them.
func (c *benchCommand) makeInputs(ctx context.Context, dir string) (map[string]string, error) {
	inputs := map[string]string{}
	for name, n := range map[string]int{"": c.Records, ", a fifth": c.Records / 5} {
		interval := 5 * time.Second
		simulator, err := generator.New(generator.Options{
			Seed: 1, Vehicles: c.Vehicles, Interval: interval, Records: n, Start: time.Now().Add(-time.Duration(n/c.Vehicles+1) * interval),
		})
		if err != nil {
			return nil, fmt.Errorf("bench: %w", err)
		}
		var csv bytes.Buffer
		if _, err := generator.WriteCSV(ctx, &csv, simulator); err != nil {
			return nil, err
		}
		header, body, _ := strings.Cut(csv.String(), "\n")
		lines := strings.SplitAfter(body, "\n")
		lines = lines[:len(lines)-1] // what follows the last line end
		for _, order := range []string{"interleaved", "sorted"} {
			if order == "sorted" {
				slices.SortStableFunc(lines, func(a, b string) int { return cmp.Compare(deviceOf(a), deviceOf(b)) })
			}
			path := filepath.Join(dir, fmt.Sprintf("%s-%d.csv", order, n))
			text := header + "\n" + strings.Join(lines, "")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				return nil, err
			}
			inputs[order+name] = path
		}
	}
	return inputs, nil
}

func deviceOf(line string) string {
	device, _, _ := strings.Cut(line, ",")
	return device
}

// bench is one run of the command.
type bench struct {
	*benchCommand
	program *program
	config  cassandra.Config
	dir     string
}

func (b *bench) median(name, input, file string) (benchResult, error) {
	var results []benchResult
	for range max(1, b.Repeat) {
		r, err := b.measure(name, input, file)
		if err != nil {
			return r, err
		}
		b.program.logger.WithField("rate", fmt.Sprintf("%.0f/s", r.PerSecond)).Infof("measured %s, %s", name, input)
		results = append(results, r)
	}
	slices.SortFunc(results, func(x, y benchResult) int { return cmp.Compare(x.PerSecond, y.PerSecond) })
	return results[len(results)/2], nil
}

// measure runs one case in a process of its own on empty tables.
func (b *bench) measure(name, input, file string) (benchResult, error) {
	ctx := b.program.stop
	if err := cassandra.Truncate(ctx, b.config, b.program.logger); err != nil {
		return benchResult{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return benchResult{}, err
	}
	args := []string{"load", "--report", "json", file}
	if name == driverGrouped || name == driverSingle {
		args = []string{"bench", "compare", "--case", name, "--file", file, "--in-flight", strconv.Itoa(b.InFlight)}
	}
	mode := load.Batch
	if name == etlAsync {
		mode = load.Async
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), "CASSANDRA_KEYSPACE="+benchKeyspace, "ETL_METRICS_ADDRESS=", "ETL_WRITE_MODE="+string(mode),
		"ETL_DERIVE="+strconv.FormatBool(name == etlDerived),
		"ETL_STATE_DIR="+filepath.Join(b.dir, "state"), "LOG_LEVEL=warn")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, b.program.Err
	before := loadtest.CPUOf(b.ServerPIDs)
	if err := cmd.Run(); err != nil {
		return benchResult{}, fmt.Errorf("bench %s, %s: %w", name, input, err)
	}
	server := loadtest.CPUOf(b.ServerPIDs) - before
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		return benchResult{}, fmt.Errorf("bench %s, %s: %w", name, input, err)
	}
	return benchResult{
		Case: name, Input: input, Records: r.Stored, Seconds: r.Seconds, Client: r.CPUSeconds, Server: server,
		Memory: r.PeakMemory, PerSecond: r.PerSecond,
	}, nil
}

// runDriver is a case of the bare driver: its records are in memory, grouped as the case wants them, before the clock
// starts.
func (c *benchCommand) runDriver(p *program) error {
	rows, err := c.readRows(p.stop)
	if err != nil {
		return err
	}
	store, err := p.openStore(p.config.CassandraConnectWait)
	if err != nil {
		return err
	}
	defer store.Close()
	baseline := cassandra.NewBaseline(store)
	if c.Case == driverGrouped {
		rows = groupRows(rows, p.config.BatchRows)
	}
	cpu, _ := usage()
	started := time.Now()
	switch c.Case {
	case driverGrouped:
		err = baseline.Grouped(p.stop, rows, p.config.BatchRows, c.InFlight)
	case driverSingle:
		err = baseline.Single(p.stop, rows, c.InFlight)
	default:
		err = fmt.Errorf("bench: no case %q", c.Case)
	}
	if err != nil {
		return err
	}
	r := report{Stored: int64(len(rows)), Seconds: time.Since(started).Seconds()}
	r.PerSecond = float64(r.Stored) / r.Seconds
	after, memory := usage()
	r.CPUSeconds, r.PeakMemory = after-cpu, memory
	return r.print(p.Out, "json")
}

// readRows reads the input of a driver case into memory.
func (c *benchCommand) readRows(ctx context.Context) ([]cassandra.BaselineRow, error) {
	source, err := csvfile.New(csvfile.Options{Files: []string{c.File}})
	if err != nil {
		return nil, err
	}
	var rows []cassandra.BaselineRow
	nowMs := time.Now().UnixMilli()
	err = source.Run(ctx, func(b pipeline.Batch) error {
		if len(b.Rejected) > 0 {
			return errors.New("bench: broken input")
		}
		for i := range b.Items {
			rows = append(rows, baselineRow(&b.Items[i].Record, nowMs))
		}
		return nil
	})
	return rows, err
}

func baselineRow(r *telemetry.Record, nowMs int64) cassandra.BaselineRow {
	return cassandra.BaselineRow{DeviceID: r.DeviceID, TelemetryRow: cassandra.TelemetryRow{
		TsMs: r.TimeMs, FleetID: r.FleetID, Lat: r.Lat, Lon: r.Lon, Zone: cmp.Or(r.Zone, telemetry.UnknownZone),
		WriteTimeUs: r.TimeMs * 1000, TTLSeconds: int32((telemetry.Retention.Milliseconds() - (nowMs - r.TimeMs)) / 1000),
		SpeedKmh: r.SpeedKmh.Ptr(), HeadingDeg: r.HeadingDeg.Ptr(), BatteryPct: r.BatteryPct.Ptr(), TempC: r.TempC.Ptr(),
	}}
}

// groupRows brings rows of a device together, size of them at a time, and leaves the groups in the order in which they
// became full: what interleaved input is to a writer that sees all of it.
func groupRows(rows []cassandra.BaselineRow, size int) []cassandra.BaselineRow {
	open := map[string][]cassandra.BaselineRow{}
	grouped := make([]cassandra.BaselineRow, 0, len(rows))
	var order []string
	for _, row := range rows {
		group := open[row.DeviceID]
		if group == nil {
			order = append(order, row.DeviceID)
		}
		group = append(group, row)
		if len(group) == size {
			grouped, group = append(grouped, group...), group[:0]
		}
		open[row.DeviceID] = group
	}
	for _, device := range order {
		grouped = append(grouped, open[device]...)
	}
	return grouped
}
