package app

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/derive"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

type verifyCommand struct {
	Fleets []string `name:"fleet" sep:"," placeholder:"FLEET,…" help:"Fleets to look at (default all)."`
	From   string   `placeholder:"DAY" help:"First day, UTC, as 2006-01-02 (default 6 days before the last)."`
	To     string   `placeholder:"DAY" help:"Last day (default today)."`
	Fix    bool     `help:"Derive everything in the range anew first, from the stored telemetry and the rules in force."`
	Report string   `enum:"text,json" default:"text" help:"Form of the report: text or json."`
	Show   int      `default:"100" help:"Differences that are printed at the most; 0 is all."`
}

// differencesError ends a verification that found some.
type differencesError struct{ n int }

func (e differencesError) Error() string { return fmt.Sprintf("%d differences", e.n) }

// Run verifies what is derived.
func (c *verifyCommand) Run(p *program) error {
	first, last, err := c.days()
	if err != nil {
		return err
	}
	store, err := p.openStore(p.config.CassandraConnectWait)
	if err != nil {
		return err
	}
	defer store.Close()
	fleets := c.Fleets
	if len(fleets) == 0 {
		if fleets, err = store.Strong().Fleets(p.stop); err != nil {
			return err
		}
		fleets = slices.DeleteFunc(fleets, telemetry.PlatformFleet)
	}
	started := time.Now()
	if c.Fix {
		if err := c.fix(p, store, fleets, first); err != nil {
			return err
		}
	}
	rules, err := newRules(p.config)
	if err != nil {
		return err
	}
	current := rules.current.Load()
	verifier := derive.Verifier{Store: store.Strong(), Engine: current.engine, Rules: current.fingerprint, Devices: store.Strong().DeviceIDs, Now: time.Now}
	report, err := verifier.Verify(p.stop, fleets, first, last)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if err := c.print(p, report, first, last, time.Since(started)); err != nil {
		return err
	}
	if n := len(report.Differences); n > 0 {
		return differencesError{n}
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

// fix derives every device of the fleets anew.
func (c *verifyCommand) fix(p *program, store *cassandra.Store, fleets []string, first cassandra.Day) error {
	x, err := p.wire(p.config.LoadLinger, nil)
	if err != nil {
		return err
	}
	if x.derivation == nil {
		return fmt.Errorf("--fix: ETL_PROCESSOR_ENABLED is false; set it to true for this command")
	}
	x.reached(store)
	deriver := x.derivation.deriver
	for _, fleet := range fleets {
		ids, err := store.Strong().DeviceIDs(p.stop, fleet)
		if err != nil {
			return err
		}
		for part := range slices.Chunk(ids, 1000) {
			if err := deriver.Rederive(p.stop, part, first); err != nil {
				return err
			}
			if err := deriver.Finish(p.stop, false); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *verifyCommand) print(p *program, report *derive.Report, first, last cassandra.Day, took time.Duration) error {
	if c.Report == "json" {
		encoder := json.NewEncoder(p.Out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(report)
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
	fmt.Fprintf(p.Out, "%s to %s: %d fleets, %d devices, %d fixes; %d trips and stops, %d alerts, %d hours\n",
		first, last, report.Fleets, report.Devices, report.Fixes, report.Trips, report.Alerts, report.Hours)
	if report.Moving > 0 {
		fmt.Fprintf(p.Out, "%d devices send right now: their open trips and alerts, and the current hour, were left out\n", report.Moving)
	}
	if report.OtherRules > 0 {
		fmt.Fprintf(p.Out, "%d days of devices were derived by other rules or zones than those in force; --fix derives them anew\n", report.OtherRules)
	}
	fmt.Fprintf(p.Out, "differences: %d (%s)\n", len(report.Differences), took.Round(time.Millisecond))
	return nil
}
