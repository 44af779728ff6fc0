package app

import (
	"fmt"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/backoff"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
	"github.com/fleettracing/fleet-tracing/etl/internal/verify"
)

type verifyCommand struct {
	Fleets []string      `name:"fleet" sep:"," placeholder:"FLEET,…" help:"Fleets to verify (default all)."`
	From   string        `placeholder:"DAY" help:"First day, UTC, as 2006-01-02 (default 6 days before the last)."`
	To     string        `placeholder:"DAY" help:"Last day (default today)."`
	Fix    bool          `help:"Recompute everything in the range first, from the stored records and the rules in force."`
	Wait   time.Duration `placeholder:"DURATION" help:"Wait up to this long for what can't be verified yet, such as devices that are sending, and verify it too."`
	Report string        `enum:"text,json" default:"text" help:"Report format: text or json."`
	Show   int           `default:"100" help:"Maximum number of differences to print; 0 prints all."`
}

// verifyPause is the time between two attempts to verify what could not be verified.
const verifyPause = 10 * time.Second

// Run verifies the derived rows.
func (c *verifyCommand) Run(p *program) error {
	first, last, err := c.days()
	if err != nil {
		return err
	}
	a, err := p.connect()
	if err != nil {
		return err
	}
	defer func() { _ = a.cleanups.run() }()
	connected, _ := a.connector.Get()
	store := connected.Strong()
	fleets := c.Fleets
	if len(fleets) == 0 {
		if fleets, err = store.Fleets(p.stop); err != nil {
			return err
		}
		fleets = slices.DeleteFunc(fleets, telemetry.PlatformFleet)
	}
	started := time.Now()
	if c.Fix {
		if err := c.fix(a, store, fleets, first); err != nil {
			return err
		}
	}
	v := verify.Verifier{Store: store, Rules: a.path.rulesInForce(), Now: time.Now}
	report, err := v.Verify(p.stop, fleets, first, last)
	for err == nil && report.NotVerified.Any() && time.Since(started)+verifyPause < c.Wait {
		p.logger.WithFields(logrus.Fields{
			"sending": report.NotVerified.Sending, "pending": report.NotVerified.Pending, "hours": report.NotVerified.Hours,
		}).Info("waiting for devices and hours that can't be verified yet")
		if err = backoff.Sleep(p.stop, verifyPause); err == nil {
			report, err = v.Verify(p.stop, fleets, first, last)
		}
	}
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if err := c.print(p, report, first, last, time.Since(started)); err != nil {
		return err
	}
	if n := len(report.Differences); n > 0 {
		return findingsError{int64(n), "differences"}
	}
	if c.Wait > 0 && report.NotVerified.Any() {
		return fmt.Errorf("verify: not everything could be verified within --wait %s; try a longer one, or when no device is sending", c.Wait)
	}
	return nil
}

func (c *verifyCommand) days() (first, last cassandra.Day, err error) {
	today := cassandra.DayOf(time.Now().UnixMilli())
	day := func(flag, text string, otherwise cassandra.Day) cassandra.Day {
		if text == "" || err != nil {
			return otherwise
		}
		t, e := time.Parse(time.DateOnly, text)
		if e != nil {
			err = fmt.Errorf("--%s %q: not a day; give it as %s", flag, text, today)
			return otherwise
		}
		return cassandra.DayOf(t.UnixMilli())
	}
	last = day("to", c.To, today)
	first = day("from", c.From, last-6)
	oldest := cassandra.DayOf(time.Now().Add(-telemetry.Retention).UnixMilli())
	switch {
	case err != nil:
	case first > last:
		err = fmt.Errorf("--from %s: after --to %s", first, last)
	case first <= oldest:
		err = fmt.Errorf("--from %s: telemetry is kept for 30 days, so nothing can be said of days up to %s", first, oldest)
	}
	return first, last, err
}

// fix recomputes every device of the fleets.
func (c *verifyCommand) fix(a *App, store *cassandra.Store, fleets []string, first cassandra.Day) error {
	if !a.config.ProcessorEnabled {
		return fmt.Errorf("--fix: ETL_PROCESSOR_ENABLED is false; set it to true for this command")
	}
	var all []string
	for _, fleet := range fleets {
		ids, err := store.DeviceIDs(a.stop, fleet)
		if err != nil {
			return err
		}
		all = append(all, ids...)
	}
	slices.Sort(all)
	return a.path.recompute(a.stop, slices.Compact(all), first)
}

func (c *verifyCommand) print(p *program, report *verify.Report, first, last cassandra.Day, took time.Duration) error {
	if c.Report == "json" {
		return printJSON(p.Out, report)
	}
	shown := report.Differences
	if c.Show > 0 {
		shown = shown[:min(len(shown), c.Show)]
	}
	for _, d := range shown {
		fmt.Fprintln(p.Out, d)
	}
	if more := len(report.Differences) - len(shown); more > 0 {
		fmt.Fprintf(p.Out, "… and %d more; --show 0 prints them all\n", more)
	}
	fmt.Fprintf(p.Out, "%s to %s: %d fleets, %d devices, %d records; %d trips and stops, %d alerts, %d hours\n",
		first, last, report.Fleets, report.Devices, report.Records, report.Trips, report.Alerts, report.Hours)
	for _, n := range []struct {
		count int
		text  string
	}{
		{report.NotVerified.Sending, "not verified: %d devices are sending; their open trips and alerts may still change\n"},
		{report.NotVerified.Pending, "not verified: %d devices differ, and an instance still derives them\n"},
		{report.NotVerified.Hours, "not verified: %d hours still change\n"},
		{report.OtherRules, "%d device days were derived with other rules or geofences than those in force; --fix recomputes them\n"},
	} {
		if n.count > 0 {
			fmt.Fprintf(p.Out, n.text, n.count)
		}
	}
	fmt.Fprintf(p.Out, "differences: %d (%s)\n", len(report.Differences), took.Round(time.Millisecond))
	return nil
}
