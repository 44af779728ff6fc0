package app

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/deadletter"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
	"github.com/fleettracing/fleet-tracing/etl/internal/validate"
)

type deadLetterCommands struct {
	List      listDeadLettersCommand      `cmd:"" help:"List dead letters (rejected records), the oldest first."`
	Reprocess reprocessDeadLettersCommand `cmd:"" help:"Send the records of dead letters through the pipeline again, and print a report."`
}

// deadLetterFlags select dead letters.
type deadLetterFlags struct {
	Reason []string `placeholder:"REASON,…" help:"Only records that were rejected for one of these reasons, for example unknown_fleet."`
	Source []string `placeholder:"SOURCE,…" help:"Only records of these sources, for example csvfile."`
	Since  string   `placeholder:"TIME" help:"Only records that were rejected at this time or later: 2026-05-01T12:00:00Z, or a duration before now: 2h."`
	Until  string   `placeholder:"TIME" help:"Only records that were rejected before this time."`
	Limit  int      `placeholder:"N" help:"At most N dead letters, the oldest first."`
}

func (f *deadLetterFlags) filter() (filter deadletter.Filter, err error) {
	for _, reason := range f.Reason {
		if !slices.Contains(telemetry.Reasons, telemetry.Reason(reason)) {
			return filter, fmt.Errorf("--reason %q: unknown reason: the reasons are %s", reason, joinReasons(telemetry.Reasons))
		}
	}
	if f.Limit < 0 {
		return filter, fmt.Errorf("--limit %d: give 1 or more, or leave it out for no limit", f.Limit)
	}
	filter = deadletter.Filter{Reasons: f.Reason, Sources: f.Source, Limit: f.Limit}
	if filter.Since, err = parseTime("--since", f.Since, time.UTC); err != nil {
		return filter, err
	}
	filter.Until, err = parseTime("--until", f.Until, time.UTC)
	return filter, err
}

func joinReasons(reasons []telemetry.Reason) string {
	var names []string
	for _, r := range reasons {
		names = append(names, string(r))
	}
	return strings.Join(names, ", ")
}

type listDeadLettersCommand struct {
	deadLetterFlags
	All    bool   `help:"Include reprocessed dead letters."`
	Format string `enum:"text,json" default:"text" help:"text, or json: one object per line."`
}

// listedDeadLetter is a line of list --format json.
type listedDeadLetter struct {
	Number      int64  `json:"number"`
	ID          string `json:"id"`
	Reprocessed bool   `json:"reprocessed"`
	*deadletter.Entry
}

// Run lists the dead letters.
func (c *listDeadLettersCommand) Run(p *program) error {
	filter, err := c.filter()
	if err != nil {
		return err
	}
	queue, err := deadletter.Open(p.config.DeadLetterDir, false)
	if err != nil {
		return err
	}
	defer queue.Close()
	out := bufio.NewWriter(p.Out)
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	byReason := map[string]int64{}
	var n int64
	filter.Reprocessed = c.All
	for e, err := range filter.Select(queue.All()) {
		switch {
		case err != nil:
		case p.stop.Err() != nil:
			err = errors.New("interrupted")
		case c.Format == "json":
			err = encoder.Encode(listedDeadLetter{e.Number, e.ID.String(), e.Reprocessed, &e})
		default:
			err = printDeadLetter(out, &e)
		}
		if err != nil {
			return errors.Join(err, out.Flush())
		}
		byReason[e.Reason]++
		n++
	}
	if c.Format == "text" {
		fmt.Fprintf(out, "%d dead letters: %s\n", n, countsText(byReason))
		if torn := queue.Torn(); torn > 0 {
			fmt.Fprintf(out, "%d torn lines skipped: a crash cut them short before their records were acknowledged\n", torn)
		}
	}
	return out.Flush()
}

func printDeadLetter(out io.Writer, e *deadletter.Entry) error {
	state, field := "", ""
	if e.Reprocessed {
		state = "reprocessed  "
	}
	if e.Field != "" {
		field = fmt.Sprintf(" %s %q", e.Field, e.Value)
	}
	_, err := fmt.Fprintf(out, "%6d  %s  %s%s %s:%d  %s%s: %s\n", e.Number, e.Time.UTC().Format(time.RFC3339), state, e.Source, e.Origin,
		e.Position, e.Reason, field, e.Remedy)
	return err
}

type reprocessDeadLettersCommand struct {
	deadLetterFlags
	Set                 map[string]string `mapsep:"," placeholder:"FIELD=VALUE,…" help:"Values to set in every record, for example fleet_id=fleet-001. An empty value removes the field."`
	DryRun              bool              `help:"Only report what would happen. Write nothing."`
	AllowForbiddenFleet bool              `help:"Also store records in fleets that their sender may not write to."`
	Report              string            `enum:"text,json" default:"text" help:"Format of the report: text or json."`
}

// reprocessReport is the report of reprocess. The embedded report counts the records of the reprocessed dead letters. In a
// dry run it receives the rejected records.
type reprocessReport struct {
	DryRun      bool             `json:"dry_run"`
	DeadLetters int64            `json:"dead_letters"`         // open and selected
	Skipped     int64            `json:"dead_letters_skipped"` // can't be reprocessed and stay open
	Torn        int64            `json:"lines_torn"`
	Failures    []reprocessError `json:"failures"` // the first that were skipped or, in a dry run, would be rejected again
	*report

	mu sync.Mutex // of Failures
}

type reprocessError struct {
	Number int64  `json:"number"`
	Origin string `json:"origin"`
	Why    string `json:"why"`
}

const maxFailures = 20

func (r *reprocessReport) fail(number int64, origin, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.Failures) < maxFailures {
		r.Failures = append(r.Failures, reprocessError{number, origin, why})
	}
}

// Append implements pipeline.DeadLetters.
func (r *reprocessReport) Append(_ context.Context, source, _ string, rejected []pipeline.Rejected) error {
	for i := range rejected {
		r.fail(rejected[i].Position, source, rejected[i].Error())
	}
	return nil
}

// Run reprocesses the open dead letters that the flags select. It closes a dead letter when its record is stored, or
// rejected again as a new dead letter.
func (c *reprocessDeadLettersCommand) Run(p *program) error {
	report := &reprocessReport{DryRun: c.DryRun, Failures: []reprocessError{}}
	source, queue, err := c.source(p.config.DeadLetterDir, report)
	if err != nil {
		return err
	}
	defer queue.Close()
	if c.DryRun {
		err = c.dryRun(p, source, report)
	} else if report.report, err = p.runUntilDone(made(source), []string{p.config.DeadLetterDir}); report.report == nil {
		return err
	}
	if err = errors.Join(err, source.Flush()); err == nil && p.stop.Err() != nil {
		err = errInterrupted
	}
	report.DeadLetters, report.Torn = report.Read+report.Skipped, queue.Torn()
	return report.finish(p.Out, c.Report, err)
}

// source opens a directory and returns a source of the open dead letters that the flags select. A dry run neither locks
// nor changes the directory.
func (c *reprocessDeadLettersCommand) source(dir string, report *reprocessReport) (*deadletter.Reprocessor, *deadletter.Queue, error) {
	filter, err := c.filter()
	if err != nil {
		return nil, nil, err
	}
	queue, err := deadletter.Open(dir, !c.DryRun)
	if err != nil {
		return nil, nil, err
	}
	source, err := deadletter.NewReprocessor(deadletter.ReprocessOptions{
		Entries: filter.Select(queue.All()), Set: c.Set, AllowForbidden: c.AllowForbiddenFleet, Done: queue.MarkReprocessed,
		Skipped: func(e deadletter.Entry, why string) {
			report.Skipped++
			report.fail(e.Number, fmt.Sprintf("%s:%d", e.Origin, e.Position), why)
		},
	})
	if err != nil {
		queue.Close()
		return nil, nil, err
	}
	return source, queue, nil
}

// dryRun validates the records and stores none.
func (c *reprocessDeadLettersCommand) dryRun(p *program, source *deadletter.Reprocessor, r *reprocessReport) error {
	dry := pipeline.New(pipeline.Options{
		Validator: validate.New(p.fleets(), p.config.DedupeRecords, nil), Writer: discard{}, DeadLetters: r,
		Registerer: p.reg, Now: time.Now, Queue: 1,
	})
	err := dry.Run(p.ctx, p.stop, source)
	r.report = newReport([]string{p.config.DeadLetterDir}, dry.Summary())
	return err
}

// discard is the writer of a dry run.
type discard struct{}

// Run implements pipeline.Writer.
func (discard) Run(_ context.Context, in <-chan pipeline.ValidBatch) error {
	for b := range in {
		b.Done()
	}
	return nil
}

func (r *reprocessReport) finish(out io.Writer, format string, err error) error {
	open := r.RejectedTotal + r.Skipped
	switch {
	case err != nil:
		r.Result = err.Error()
	case r.DryRun && open > 0:
		r.Result = "dry run, nothing written: some records would be rejected again"
	case r.DryRun:
		r.Result = "dry run, nothing written: all records would be stored"
	case r.Skipped > 0:
		r.Result = "all valid records are stored; some dead letters can't be reprocessed"
	case open > 0:
		r.Result = "all valid records are stored; some records were rejected again"
	default:
		r.Result = "all records are stored"
	}
	if e := r.print(out, format); e != nil {
		return errors.Join(err, e)
	}
	if err == nil && open > 0 {
		return findingsError{open, "records were rejected"}
	}
	return err
}

func (r *reprocessReport) print(out io.Writer, format string) error {
	if format == "json" {
		return printJSON(out, r)
	}
	for _, f := range r.Failures {
		fmt.Fprintf(out, "dead letter %d of %s: %s\n", f.Number, f.Origin, f.Why)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "dead letters\t%d\n", r.DeadLetters)
	fmt.Fprintf(w, "skipped\t%d\n", r.Skipped)
	if r.Torn > 0 {
		fmt.Fprintf(w, "torn lines\t%d\n", r.Torn)
	}
	if !r.DryRun {
		return errors.Join(w.Flush(), r.report.print(out, format))
	}
	fmt.Fprintf(w, "would be stored\t%d\n", r.Stored)
	fmt.Fprintf(w, "duplicates\t%d\n", r.Duplicates)
	fmt.Fprintf(w, "would be rejected\t%d\n", r.RejectedTotal)
	r.printRejected(w)
	fmt.Fprintf(w, "result\t%s\n", r.Result)
	return w.Flush()
}
