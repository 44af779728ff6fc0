package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/loadtest"
)

// benchCommands measure on the cluster at hand, in a keyspace that they make and drop.
type benchCommands struct {
	Steady  steadyCommand  `cmd:"" help:"Put a steady load on the pipeline, and tell its latency and where the time goes."`
	Ramp    rampCommand    `cmd:"" help:"Find the greatest rate that is held."`
	Devices devicesCommand `cmd:"" help:"Tell what a record costs with ever more devices."`
	History historyCommand `cmd:"" help:"Tell what writes and reads cost with ever more days stored."`
	Soak    soakCommand    `cmd:"" help:"Tell whether memory, handles and latency stay flat under a steady load."`
	Report  reportCommand  `cmd:"" help:"Show reports that these commands saved, as text, page, plots or a part of the docs."`
	Measure measureCommand `cmd:"" hidden:"" help:"Run one measurement in this process."`
}

// benchKeyspace is made for the bench and dropped after it.
const benchKeyspace = "fleet_bench"

type steadyCommand struct {
	labFlags
	Rate     float64       `default:"2000" help:"Records a second, of all vehicles."`
	Vehicles int           `default:"1000" help:"Vehicles that send them."`
	Warmup   time.Duration `default:"10s" help:"Time before the measurement."`
	For      time.Duration `default:"1m" help:"Time of the measurement."`
	Every    time.Duration `default:"5s" help:"Time between two samples."`
}

// Run implements the command.
func (c *steadyCommand) Run(p *program) error {
	return c.experiment(p, loadtest.KindSteady, func(ctx context.Context, l *lab) error {
		began := time.Now()
		run, err := l.run(ctx, stretch{Rate: c.Rate, Vehicles: c.Vehicles, Warmup: c.Warmup, For: c.For, Every: c.Every})
		if err != nil {
			return err
		}
		if run.Counted, err = l.count(ctx, c.Vehicles, began); err != nil {
			return err
		}
		l.report.Runs = []loadtest.Run{run}
		if run.Counted != run.Measurement.Stored {
			return errors.Join(l.handOut(), fmt.Errorf("%d records are in the cluster, and %d were acknowledged", run.Counted, run.Measurement.Stored))
		}
		return nil
	})
}

type soakCommand struct {
	labFlags
	Rate     float64       `default:"1000" help:"Records a second, of all vehicles."`
	Vehicles int           `default:"5000" help:"Vehicles that send them."`
	Warmup   time.Duration `default:"30s" help:"Time before the measurement."`
	For      time.Duration `default:"1h" help:"Time of the measurement."`
	Every    time.Duration `default:"1m" help:"Time between two samples."`
}

// A soak ends with one of these when something grew, or when it was not the load that it was to be.
var (
	errNotFlat = errors.New("not everything stayed flat")
	errNotHeld = errors.New("the load was not held, so nothing that was measured says how it lasts")
)

// Run implements the command.
func (c *soakCommand) Run(p *program) error {
	return c.experiment(p, loadtest.KindSoak, func(ctx context.Context, l *lab) error {
		run, err := l.run(ctx, stretch{Rate: c.Rate, Vehicles: c.Vehicles, Warmup: c.Warmup, For: c.For, Every: c.Every})
		if err != nil {
			return err
		}
		l.report.Runs, l.report.Trends = []loadtest.Run{run}, loadtest.Trends(run.Measurement.Samples)
		if run.Bent != "" {
			return errors.Join(l.handOut(), errNotHeld)
		}
		for _, t := range l.report.Trends {
			if !t.Flat {
				return errors.Join(l.handOut(), errNotFlat)
			}
		}
		return nil
	})
}

type rampCommand struct {
	labFlags
	From     float64       `default:"1000" help:"Records a second of the first step; each further one doubles them."`
	Vehicles int           `default:"1000" help:"Vehicles that send them, the more often the higher the rate."`
	Interval time.Duration `help:"Let each vehicle send once in this time instead, so that a higher rate is more vehicles."`
	Warm     time.Duration `default:"30s" help:"Time of a step before all others that does not count, for nodes that have just started; 0: none."`
	Warmup   time.Duration `default:"5s" help:"Time before a step is measured; at least three intervals."`
	Step     time.Duration `default:"20s" help:"Time of a step."`
	Bisect   int           `default:"3" help:"Steps between the last rate that was held and the first that was not."`
	Within   time.Duration `default:"10m" help:"Time for all steps: none begins that would not end in it."`
}

// Run implements the command.
func (c *rampCommand) Run(p *program) error {
	return c.experiment(p, loadtest.KindRamp, func(ctx context.Context, l *lab) error {
		began := time.Now()
		var longest time.Duration
		more := func() bool { return time.Since(began)+longest < c.Within }
		step := func(rate float64, lasts time.Duration) (loadtest.Run, error) {
			s := stretch{Rate: rate, Vehicles: c.Vehicles, Warmup: c.Warmup, For: lasts, Quiet: true}
			if c.Interval > 0 {
				s.Vehicles, s.Warmup = vehiclesAt(rate, c.Interval), max(c.Warmup, 3*c.Interval)
			}
			if err := l.empty(ctx); err != nil {
				return loadtest.Run{}, err
			}
			return l.run(ctx, s)
		}
		if c.Warm > 0 {
			if _, err := step(c.From, c.Warm); err != nil {
				return err
			}
		}
		var err error
		l.report.Maximum, err = loadtest.Ramp(c.From, c.Bisect, more, func(rate float64) (bool, error) {
			started := time.Now()
			run, err := step(rate, c.Step)
			longest = max(longest, time.Since(started))
			if err != nil {
				return false, err
			}
			l.report.Runs = append(l.report.Runs, run)
			return run.Bent == "", nil
		})
		return err
	})
}

type devicesCommand struct {
	labFlags
	Devices []int         `default:"100,1000,10000,100000" help:"How many devices there are, one after the other."`
	Rate    float64       `default:"2000" help:"Records a second, of all devices."`
	Warmup  time.Duration `default:"10s" help:"Time before the measurement; at least until each device has sent."`
	For     time.Duration `default:"30s" help:"Time of the measurement."`
	Load    int           `default:"200000" help:"Records of the file that is loaded for each, at least five of each device; 0 loads none."`
}

// Run implements the command.
func (c *devicesCommand) Run(p *program) error {
	return c.experiment(p, loadtest.KindDevices, func(ctx context.Context, l *lab) error {
		for _, n := range c.Devices {
			s := stretch{Rate: c.Rate, Vehicles: n, For: c.For, Quiet: true}
			s.Warmup = max(c.Warmup, s.interval()+5*time.Second)
			if err := l.empty(ctx); err != nil {
				return err
			}
			run, err := l.run(ctx, s)
			if err != nil {
				return err
			}
			if c.Load > 0 {
				if run.Load, err = l.loadFile(ctx, n, max(c.Load, 5*n)); err != nil {
					return err
				}
			}
			l.report.Runs = append(l.report.Runs, run)
		}
		return nil
	})
}

type historyCommand struct {
	labFlags
	Days     []int         `default:"1,7,30" help:"Days that are stored before each measurement, ascending, 30 at the most."`
	Vehicles int           `default:"100" help:"Vehicles whose days they are, and that send."`
	Interval time.Duration `default:"1m" help:"Time between two stored records of a vehicle."`
	Rate     float64       `default:"1000" help:"Records a second of the measurement, of all vehicles."`
	Warmup   time.Duration `default:"10s" help:"Time before it."`
	For      time.Duration `default:"20s" help:"Time of it."`
	Reads    int           `default:"200" help:"How often each thing is read."`
}

// Run implements the command. The days are stored by the pipeline without what is derived from them.
func (c *historyCommand) Run(p *program) error {
	return c.experiment(p, loadtest.KindHistory, func(ctx context.Context, l *lab) error {
		oldest := time.Now().Add(-30*24*time.Hour + 3*time.Hour) // the rest of what takes until the last measurement would be too old
		newest, before := time.Now().Add(-time.Hour), int64(0)
		reached := newest // back to here all is stored
		for _, days := range c.Days {
			first := newest.Add(-time.Duration(days) * 24 * time.Hour)
			if first.Before(oldest) {
				first = oldest
			}
			records := int(reached.Sub(first)/c.Interval) * c.Vehicles
			if records <= 0 {
				return fmt.Errorf("--days %d: give them ascending, from 1 to 30", c.Days)
			}
			var r report
			if err := l.child(ctx, &r, []string{"LOG_LEVEL=warn", "ETL_PROCESSOR_ENABLED=false"}, "generate", "--to", "pipeline", "--report", "json",
				"--records", fmt.Sprint(records), "--vehicles", fmt.Sprint(c.Vehicles), "--fleets", fmt.Sprint(l.fleets(c.Vehicles)),
				"--interval", c.Interval.String(), "--start", first.UTC().Format(time.RFC3339Nano)); err != nil {
				return fmt.Errorf("store %d days: %w", days, err)
			}
			before, reached = before+r.Stored, first
			l.p.logger.Infof("%d days are stored: %d records, the last of them at %.0f/s", days, before, r.PerSecond)
			run, err := l.run(ctx, stretch{Rate: c.Rate, Vehicles: c.Vehicles, Warmup: c.Warmup, For: c.For, Quiet: true})
			if err != nil {
				return err
			}
			run.Days, run.Before = days, before
			if run.Reads, err = l.read(ctx, c.Vehicles, c.Reads, days, newest); err != nil {
				return err
			}
			l.report.Runs = append(l.report.Runs, run)
		}
		return nil
	})
}

// read does what screens do, one after the other, some times over: newest is when what is stored ends.
func (l *lab) read(ctx context.Context, vehicles, times, days int, newest time.Time) (all []loadtest.Reads, err error) {
	store, err := l.open()
	if err != nil {
		return nil, err
	}
	defer store.Close()
	for _, read := range []struct {
		name string
		do   func(device, fleet string, i int) (rows int, err error)
	}{
		{"map: latest fixes of a fleet", func(_, fleet string, _ int) (int, error) {
			rows, err := store.LatestOfFleet(ctx, fleet)
			return len(rows), err
		}},
		{"track: 24 hours of a vehicle", func(device, _ string, i int) (int, error) {
			to := newest.AddDate(0, 0, -(i % min(days, 29)))
			page, err := store.History(ctx, cassandra.HistoryQuery{DeviceID: device, From: to.AddDate(0, 0, -1), To: to})
			return len(page.Rows), err
		}},
		{"list: devices of a fleet", func(_, fleet string, _ int) (int, error) {
			page, err := store.Devices(ctx, fleet, 1000, "")
			return len(page.Rows), err
		}},
	} {
		var took []time.Duration
		rows := 0
		for i := range times {
			number := i % vehicles
			started := time.Now()
			n, err := read.do(fmt.Sprintf("vehicle-%04d", number+1), fmt.Sprintf("fleet-%03d", number%l.fleets(vehicles)+1), i)
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", read.name, err)
			}
			took, rows = append(took, time.Since(started)), rows+n
		}
		all = append(all, loadtest.Reads{Name: read.name, Rows: rows / max(times, 1), Quantiles: loadtest.QuantilesOf(took)})
	}
	return all, nil
}

type reportCommand struct {
	Files []string `arg:"" name:"file" help:"Reports that --json saved."`
	HTML  string   `name:"html" placeholder:"FILE" help:"Save them as one page with plots."`
	SVG   string   `name:"svg" placeholder:"DIR" help:"Save each plot as a file."`
	Docs  string   `placeholder:"FILE" help:"Put each into this page of the docs, between the marks <!-- figures: NAME --> and <!-- end of figures -->; plots are linked from --svg."`
}

// Run implements the command.
func (c *reportCommand) Run(p *program) error {
	var reports []*loadtest.Report
	for _, file := range c.Files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var r loadtest.Report
		if err := json.Unmarshal(text, &r); err != nil {
			return fmt.Errorf("report %s: %w", file, err)
		}
		reports = append(reports, &r)
	}
	sections, err := loadtest.Sections(reports)
	if err != nil {
		return err
	}
	if c.HTML != "" {
		if err := saveFile(c.HTML, func(w io.Writer) error { return loadtest.WriteHTML(w, sections) }); err != nil {
			return err
		}
	}
	if c.Docs != "" {
		if sections, err = c.place(p, sections); err != nil {
			return err
		}
	}
	if c.SVG != "" {
		if err := savePlots(c.SVG, sections); err != nil {
			return err
		}
	}
	if c.Docs == "" {
		return loadtest.WriteText(p.Out, sections)
	}
	return nil
}

// place puts the sections into the page and gives those that it has a place for.
func (c *reportCommand) place(p *program, sections []loadtest.Section) ([]loadtest.Section, error) {
	page, err := os.ReadFile(c.Docs)
	if err != nil {
		return nil, err
	}
	images, err := filepath.Rel(filepath.Dir(c.Docs), c.SVG)
	if err != nil || c.SVG == "" {
		return nil, errors.Join(err, errors.New("--docs: name the folder of its plots with --svg"))
	}
	placed, without := loadtest.Place(string(page), sections, filepath.ToSlash(images))
	p.logger.WithFields(logrus.Fields{"page": c.Docs, "without": without}).Info("figures are in their places")
	err = saveFile(c.Docs, func(w io.Writer) error {
		_, err := io.WriteString(w, placed)
		return err
	})
	return slices.DeleteFunc(sections, func(s loadtest.Section) bool { return slices.Contains(without, s.Name) }), err
}

func savePlots(dir string, sections []loadtest.Section) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, s := range sections {
		for _, plot := range s.Plots {
			svg, err := plot.SVG()
			if err != nil {
				return err
			}
			err = saveFile(filepath.Join(dir, plot.Name+".svg"), func(w io.Writer) error {
				_, err := io.WriteString(w, svg)
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}
