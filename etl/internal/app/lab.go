package app

import (
	"bufio"
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
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/loadtest"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/source/csvfile"
	"github.com/fleettracing/fleet-tracing/etl/internal/source/generator"
	"github.com/fleettracing/fleet-tracing/etl/internal/writer"
)

// labFlags are those of every load test.
type labFlags struct {
	FleetSize   int           `default:"100" help:"Vehicles of a fleet."`
	Objective   time.Duration `default:"5s" help:"P99 from due to readable that a load has to keep."`
	ServerPIDs  []int         `name:"server-pids" placeholder:"PID,…" help:"Processes of the cluster's nodes on this machine, to count their CPU time."`
	NodeMetrics []string      `placeholder:"URL,…" help:"Where the nodes serve their metrics, such as http://127.0.0.1:7070/metrics."`
	Keyspace    string        `default:"fleet_bench" help:"Keyspace that is made for this and dropped after it. Nodes' metrics name the tables of fleet_iot alone."`
	Name        string        `help:"Name of the report among others, and of its place in the docs; by default that of the command."`
	JSON        string        `name:"json" placeholder:"FILE" help:"Save the report, for bench report."`
	HTML        string        `name:"html" placeholder:"FILE" help:"Save the report as a page with plots."`
	CSV         string        `name:"csv" placeholder:"FILE" help:"Save the samples of the first run."`
}

// lab is a keyspace, and a folder, in which loads are put on the pipeline, each in a process of its own.
type lab struct {
	*labFlags
	p      *program
	config cassandra.Config
	dir    string
	report loadtest.Report
}

// experiment makes a lab, does something in it, takes it down and hands out its report.
func (f *labFlags) experiment(p *program, kind string, do func(context.Context, *lab) error) (err error) {
	cfg, err := cassandraConfig(p.config)
	if err != nil {
		return err
	}
	cfg.Keyspace = f.Keyspace
	if f.FleetSize < 1 {
		return fmt.Errorf("--fleet-size %d: give 1 or more", f.FleetSize)
	}
	machine := loadtest.ThisMachine() // before any load of ours
	if cfg.Keyspace != benchKeyspace {
		_, err := cassandra.CheckSchema(p.stop, cfg, replication(p.config), p.logger)
		if err == nil {
			return fmt.Errorf("--keyspace %s: it is there already, and would be dropped; name one that is not there", cfg.Keyspace)
		}
		if cassandra.ReasonOf(err) != cassandra.ReasonNotFound {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "fleet-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := cassandra.ApplySchema(p.stop, cfg, replication(p.config), p.logger); err != nil {
		return err
	}
	defer func() {
		drop, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), 2*time.Minute)
		defer cancel()
		if err := cassandra.DropKeyspace(drop, cfg, p.logger); err != nil {
			p.logger.WithError(err).Warn("keyspace of the bench is left behind")
		}
	}()
	l := &lab{labFlags: f, p: p, config: cfg, dir: dir, report: loadtest.Report{
		Kind: kind, Name: cmp.Or(f.Name, kind), Taken: time.Now(), Command: f.commandLine(), Machine: machine, Slo: f.Objective.Seconds(),
	}}
	if err := l.describeCluster(); err != nil {
		return err
	}
	if err := do(p.stop, l); err != nil {
		return err
	}
	return l.handOut()
}

// commandLine is the command as it was given, without what differs from one machine to the next.
func (f *labFlags) commandLine() string {
	words := []string{"fleet-etl"}
	for i := 1; i < len(os.Args); i++ {
		switch name, _, joined := strings.Cut(os.Args[i], "="); name {
		case "--server-pids", "--node-metrics", "--json", "--html", "--csv", "--name", "--keyspace":
			if !joined {
				i++
			}
		default:
			words = append(words, os.Args[i])
		}
	}
	return strings.Join(words, " ")
}

func (l *lab) describeCluster() error {
	store, err := l.open()
	if err != nil {
		return err
	}
	defer store.Close()
	nodes, err := store.Nodes(l.p.stop)
	if err != nil {
		return err
	}
	r := store.Replication()
	l.report.Cluster = loadtest.Cluster{
		Nodes: nodes, Replication: r.String(), Copies: r.Total(), Write: store.WriteConsistency(), Derive: l.p.config.ProcessorEnabled,
	}
	return nil
}

func (l *lab) open() (*cassandra.Store, error) {
	return cassandra.Open(l.p.stop, l.config, l.p.logger, nil)
}

// handOut shows and saves the report.
func (l *lab) handOut() error {
	sections, err := loadtest.Sections([]*loadtest.Report{&l.report})
	if err != nil {
		return err
	}
	save := func(path string, write func(io.Writer) error) {
		if path != "" && err == nil {
			err = saveFile(path, write)
		}
	}
	save(l.JSON, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(l.report)
	})
	save(l.HTML, func(w io.Writer) error { return loadtest.WriteHTML(w, sections) })
	save(l.CSV, func(w io.Writer) error { return loadtest.WriteCSV(w, l.report.Runs[0].Measurement.Samples) })
	return errors.Join(loadtest.WriteText(l.p.Out, sections), err)
}

func saveFile(path string, write func(io.Writer) error) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	buffered := bufio.NewWriter(file)
	return errors.Join(write(buffered), buffered.Flush(), file.Close())
}

// stretch is one load: so many vehicles that send by a schedule.
type stretch struct {
	Rate     float64 // records a second, of all vehicles
	Vehicles int
	Warmup   time.Duration // before the measurement
	For      time.Duration // of the measurement
	Every    time.Duration // between two samples
	Quiet    bool          // log no samples
}

// vehiclesAt is how many vehicles make a rate when each sends once an interval.
func vehiclesAt(rate float64, interval time.Duration) int {
	return max(1, int(rate*interval.Seconds()))
}

func (s stretch) interval() time.Duration {
	return time.Duration(float64(s.Vehicles) / s.Rate * float64(time.Second))
}

func (l *lab) fleets(vehicles int) int { return (vehicles + l.FleetSize - 1) / l.FleetSize }

// run puts one load on the pipeline in a process of its own. Tables are as the load before left them.
func (l *lab) run(ctx context.Context, s stretch) (loadtest.Run, error) {
	run := loadtest.Run{Vehicles: s.Vehicles, Fleets: l.fleets(s.Vehicles), Interval: s.interval().Seconds()}
	file := filepath.Join(l.dir, "schedule.csv")
	first, err := l.writeSchedule(ctx, file, s)
	if err != nil {
		return run, err
	}
	defer os.Remove(file)
	args := []string{
		"bench", "measure", "--file", file, "--first", strconv.FormatInt(first.UnixMilli(), 10), "--rate", strconv.FormatFloat(s.Rate, 'f', -1, 64),
		"--warmup", s.Warmup.String(), "--for", s.For.String(), "--every", cmp.Or(s.Every, s.For).String(),
	}
	if len(l.ServerPIDs) > 0 {
		pids := make([]string, len(l.ServerPIDs))
		for i, pid := range l.ServerPIDs {
			pids[i] = strconv.Itoa(pid)
		}
		args = append(args, "--server-pids", strings.Join(pids, ","))
	}
	if len(l.NodeMetrics) > 0 {
		args = append(args, "--node-metrics", strings.Join(l.NodeMetrics, ","))
	}
	var m loadtest.Measurement
	var env []string
	if s.Quiet {
		env = append(env, "LOG_LEVEL=warn")
	}
	if err := l.child(ctx, &m, env, args...); err != nil {
		return run, fmt.Errorf("measure %.0f records/s of %d vehicles: %w", s.Rate, s.Vehicles, err)
	}
	run.Measurement = &m
	run.Bent = loadtest.Bent(&m, l.Objective)
	l.p.logger.WithField("bent", run.Bent).Infof("offered %.0f/s, stored %.0f/s, P99 %s, limiting: %s", m.Offered, m.PerSecond, loadtest.Duration(m.Freshness.P99), m.Limiting.Name)
	return run, nil
}

// child runs fleet-etl on the lab's keyspace and reads the JSON that it prints.
func (l *lab) child(ctx context.Context, result any, env []string, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), "CASSANDRA_KEYSPACE="+l.Keyspace, "ETL_METRICS_ADDRESS=", "ETL_STATE_DIR="+filepath.Join(l.dir, "state"))
	cmd.Env = append(cmd.Env, env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, l.p.Err
	if err := cmd.Run(); err != nil {
		return err
	}
	return json.Unmarshal(out.Bytes(), result)
}

// writeSchedule writes all records of a load in order of time. It is made before the load begins, so that making it
// costs the load nothing.
func (l *lab) writeSchedule(ctx context.Context, path string, s stretch) (first time.Time, err error) {
	if s.Rate <= 0 || s.Vehicles < 1 || s.interval() < time.Millisecond {
		return first, fmt.Errorf("%g records/s of %d vehicles: give a rate above 0, and a vehicle or more for every 1,000 records/s", s.Rate, s.Vehicles)
	}
	first = time.Now().Truncate(time.Millisecond)
	return first, l.writeRecords(ctx, path, generator.Options{
		Seed: 1, Vehicles: s.Vehicles, Fleets: l.fleets(s.Vehicles), Interval: s.interval(), Start: first,
		Records: int(s.Rate * (s.Warmup + s.For).Seconds()),
	})
}

func (l *lab) writeRecords(ctx context.Context, path string, o generator.Options) error {
	simulator, err := generator.New(o)
	if err != nil {
		return err
	}
	return saveFile(path, func(w io.Writer) error {
		_, err := generator.WriteCSV(ctx, w, simulator)
		return err
	})
}

// count reads back how many records are stored of the last days.
func (l *lab) count(ctx context.Context, vehicles int, since time.Time) (n int64, err error) {
	store, err := l.open()
	if err != nil {
		return 0, err
	}
	defer store.Close()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	counts := make([]int64, l.fleets(vehicles))
	for i := range counts {
		g.Go(func() error {
			ids, err := store.DeviceIDs(ctx, fmt.Sprintf("fleet-%03d", i+1))
			if err != nil {
				return err
			}
			for _, id := range ids {
				for day := cassandra.DayOf(since.UnixMilli()); day <= cassandra.DayOf(time.Now().UnixMilli()); day++ {
					fixes, err := store.Positions(ctx, id, day)
					if err != nil {
						return err
					}
					counts[i] += int64(len(fixes))
				}
			}
			return nil
		})
	}
	err = g.Wait()
	for _, part := range counts {
		n += part
	}
	return n, err
}

// measureCommand is one load in a process of its own, so that its CPU time and memory are its own too.
type measureCommand struct {
	File        string        `required:"" help:"Records by their times."`
	First       int64         `required:"" help:"Time at which the schedule begins, in the file."`
	Rate        float64       `required:"" help:"Records a second."`
	Warmup      time.Duration `required:"" help:"Time before the measurement."`
	For         time.Duration `required:"" help:"Time of the measurement."`
	Every       time.Duration `required:"" help:"Time between two samples."`
	ServerPIDs  []int         `name:"server-pids" help:"Nodes on this machine."`
	NodeMetrics []string      `help:"Where the nodes serve their metrics."`
}

// Run implements the command. What is measured is what run does, from the file's lines on.
func (c *measureCommand) Run(p *program) error {
	x, err := p.connect(p.config.CassandraConnectWait, p.config.Linger)
	if err != nil {
		return err
	}
	defer x.close()
	begin := time.Now().Add(200 * time.Millisecond).Truncate(time.Millisecond)
	from := begin.Add(c.Warmup)
	arrivals := loadtest.NewArrivals(from, from.Add(c.For))
	lines, err := csvfile.New(csvfile.Options{Files: []string{c.File}, Shift: begin.Sub(time.UnixMilli(c.First))})
	if err != nil {
		return err
	}
	source := &loadtest.Schedule{Source: lines, Until: from.Add(c.For), Arrivals: arrivals}
	probe := &loadtest.Probe{
		Gatherer: p.reg, Writes: x.exec.TakeLatency, Arrivals: arrivals, PIDs: c.ServerPIDs, Nodes: c.NodeMetrics,
		Keyspace: p.config.CassandraKeyspace, Every: c.Every,
		Told: func(s loadtest.Sample) {
			p.logger.Infof("%.0f s: %d records, due to readable P50 %s P99 %s, %.0f MB", s.At, s.Records,
				loadtest.Duration(s.Freshness.P50), loadtest.Duration(s.Freshness.P99), float64(s.Resident)/1e6)
		},
	}
	var m *loadtest.Measurement
	ctx, cancel := p.drain(p.config.DrainTimeout)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		measuring, end := context.WithCancel(ctx)
		defer context.AfterFunc(p.stop, end)()
		defer end()
		m, err = probe.Measure(measuring, from, source.Until)
		return err
	})
	g.Go(func() error { return p.stream(ctx, x, []pipeline.Source{source}) })
	err = g.Wait()
	if p.stop.Err() != nil {
		return errors.New("interrupted before the end of the measurement")
	}
	if err != nil {
		return err
	}
	s := x.pipeline.Summary()
	m.Offered, m.Stored, m.Refused = c.Rate, s.Stored, total(s.Rejected)
	m.Freshness, m.Unsent = arrivals.Freshness(), arrivals.Unsent()
	m.Loader.Most = p.config.MaxInFlight
	_, m.Client.PeakMemory = usage()
	m.Limiting = loadtest.Bottleneck(m)
	p.logger.Infof("ended: %d records stored, %d refused, %d never handed over", m.Stored, m.Refused, m.Unsent)
	return json.NewEncoder(p.Out).Encode(m)
}

// loadFile loads records into empty tables as fast as it goes.
func (l *lab) loadFile(ctx context.Context, vehicles, records int) (*loadtest.Load, error) {
	if err := l.empty(ctx); err != nil {
		return nil, err
	}
	const interval = 5 * time.Second
	file := filepath.Join(l.dir, "load.csv")
	err := l.writeRecords(ctx, file, generator.Options{
		Seed: 1, Vehicles: vehicles, Fleets: l.fleets(vehicles), Interval: interval, Records: records,
		Start: time.Now().Add(-time.Duration(records/vehicles+1) * interval),
	})
	if err != nil {
		return nil, err
	}
	defer os.Remove(file)
	var r report
	before := loadtest.CPUOf(l.ServerPIDs)
	if err := l.child(ctx, &r, []string{"LOG_LEVEL=warn", "ETL_WRITE_MODE=" + string(writer.ModeBatch)}, "load", "--report", "json", file); err != nil {
		return nil, fmt.Errorf("load %d records of %d vehicles: %w", records, vehicles, err)
	}
	loaded := &loadtest.Load{
		Records: r.Stored, PerSecond: r.PerSecond, CPUSeconds: r.CPUSeconds, Server: loadtest.CPUOf(l.ServerPIDs) - before, PeakMemory: r.PeakMemory,
	}
	for _, t := range r.Rows {
		loaded.Writes += t.Writes
	}
	l.p.logger.Infof("loaded %d records of %d vehicles: %.0f/s", loaded.Records, vehicles, loaded.PerSecond)
	return loaded, nil
}

func (l *lab) empty(ctx context.Context) error {
	return cassandra.Truncate(ctx, l.config, l.p.logger)
}
