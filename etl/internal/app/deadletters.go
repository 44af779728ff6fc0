package app

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/load"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/source/deadletters"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
	"github.com/fleettracing/fleet-tracing/etl/internal/validate"
)

type letterCommands struct {
	List   listLettersCommand   `cmd:"" help:"List refused records, the oldest first."`
	Replay replayLettersCommand `cmd:"" help:"Send refused records through the pipeline once more, and report."`
}

// letterFlags say which dead letters are meant; list and replay share them.
type letterFlags struct {
	Reason []string `placeholder:"REASON,…" help:"Only those refused for one of these reasons, for example unknown_fleet."`
	Source []string `placeholder:"SOURCE,…" help:"Only those of these sources, for example csvfile."`
	Since  string   `placeholder:"TIME" help:"Only those refused at this time or later: 2026-05-01T12:00:00Z, or a time ago: 2h."`
	Until  string   `placeholder:"TIME" help:"Only those refused before this time."`
	Limit  int      `placeholder:"N" help:"The first N of them."`
}

// choice is which dead letters are meant.
type choice struct {
	letterFlags
	since, until time.Time // zero: any
}

// choose checks the flags.
func (f *letterFlags) choose(now time.Time) (c choice, err error) {
	c.letterFlags = *f
	for _, reason := range f.Reason {
		if !slices.Contains(telemetry.Reasons, telemetry.Reason(reason)) {
			return c, fmt.Errorf("--reason %q: there is no such reason: the reasons are %s", reason, join(telemetry.Reasons))
		}
	}
	if f.Limit < 0 {
		return c, fmt.Errorf("--limit %d: give 1 or more; without it there is none", f.Limit)
	}
	if c.since, err = parseWhen("--since", f.Since, now); err != nil {
		return c, err
	}
	c.until, err = parseWhen("--until", f.Until, now)
	return c, err
}

func join(reasons []telemetry.Reason) string {
	var names []string
	for _, r := range reasons {
		names = append(names, string(r))
	}
	return strings.Join(names, ", ")
}

// parseWhen reads a time, or a duration before now.
func parseWhen(flag, value string, now time.Time) (time.Time, error) {
	if value == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(value); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	ms, err := (telemetry.TimeFormat{}).Parse(value)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s %q: give a time such as 2026-05-01T12:00:00Z, or how long ago, such as 2h", flag, value)
	}
	return time.UnixMilli(ms), nil
}

func (c *choice) takes(letter *load.Letter) bool {
	return (len(c.Reason) == 0 || slices.Contains(c.Reason, letter.Reason)) &&
		(len(c.Source) == 0 || slices.Contains(c.Source, letter.Source)) &&
		(c.since.IsZero() || !letter.Time.Before(c.since)) && (c.until.IsZero() || letter.Time.Before(c.until))
}

// letters gives those that are meant and for which open is true, and counts lines that are no letters.
func (c *choice) letters(all *load.Letters, open func(load.LetterID) bool, torn *int64) iter.Seq2[load.Letter, error] {
	return func(yield func(load.Letter, error) bool) {
		n := 0
		for letter, err := range all.All() {
			switch {
			case err != nil:
				yield(letter, err)
				return
			case letter.Torn:
				*torn++
				continue
			case !c.takes(&letter) || !open(letter.ID):
				continue
			}
			if !yield(letter, nil) {
				return
			}
			if n++; n == c.Limit {
				return
			}
		}
	}
}

type listLettersCommand struct {
	letterFlags
	All    bool   `help:"Also those that were replayed."`
	Format string `enum:"text,json" default:"text" help:"text, or json: an object a line."`
}

// listed is a dead letter as it is listed.
type listed struct {
	Number   int64  `json:"number"`
	ID       string `json:"id"`
	Replayed bool   `json:"replayed"`
	*load.DeadLetter
}

// Run lists the dead letters.
func (c *listLettersCommand) Run(p *program) error {
	choice, err := c.choose(time.Now())
	if err != nil {
		return err
	}
	replayed, err := load.ReadReplayed(p.config.DeadLetterDir)
	if err != nil {
		return err
	}
	all, err := load.OpenLetters(p.config.DeadLetterDir)
	if err != nil {
		return err
	}
	defer all.Close()
	out := bufio.NewWriter(p.Out)
	lines := json.NewEncoder(out)
	lines.SetEscapeHTML(false)
	byReason := map[string]int64{}
	var n, torn int64
	for letter, err := range choice.letters(all, func(id load.LetterID) bool { return c.All || !replayed[id] }, &torn) {
		if err == nil && p.stop.Err() != nil {
			err = errors.New("interrupted")
		}
		if err == nil && c.Format == "json" {
			err = lines.Encode(listed{letter.Number, letter.ID.String(), replayed[letter.ID], &letter.DeadLetter})
		} else if err == nil {
			err = printLetter(out, &letter, replayed[letter.ID])
		}
		if err != nil {
			return errors.Join(err, out.Flush())
		}
		byReason[letter.Reason]++
		n++
	}
	if c.Format == "text" {
		fmt.Fprintf(out, "%d letters: %s\n", n, counts(byReason))
		if torn > 0 {
			fmt.Fprintf(out, "%d lines are no letters: a crash cut them short, and their records came again\n", torn)
		}
	}
	return out.Flush()
}

func printLetter(out io.Writer, l *load.Letter, replayed bool) error {
	state := ""
	if replayed {
		state = "replayed  "
	}
	field := ""
	if l.Field != "" {
		field = fmt.Sprintf(" %s %q", l.Field, l.Value)
	}
	_, err := fmt.Fprintf(out, "%6d  %s  %s%s %s:%d  %s%s: %s\n", l.Number, l.Time.UTC().Format(time.RFC3339), state, l.Source, l.Origin,
		l.Position, l.Reason, field, l.Remedy)
	return err
}

type replayLettersCommand struct {
	letterFlags
	Set    map[string]string `mapsep:"," placeholder:"FIELD=VALUE,…" help:"Values that take the place of what the records say, for example fleet_id=fleet-001."`
	DryRun bool              `help:"Only tell what would become of them; write nothing."`
	Report string            `enum:"text,json" default:"text" help:"Form of the report: text or json."`
}

// lettersReport is what a replay came to.
type lettersReport struct {
	DryRun        bool            `json:"dry_run"`
	Letters       int64           `json:"letters"`                // that are open and meant
	NotReplayable int64           `json:"letters_not_replayable"` // they stay open
	Torn          int64           `json:"lines_torn"`
	Examples      []letterExample `json:"not_replayed"` // the first of those that can't be or, in a dry run, would be refused again
	*report
}

type letterExample struct {
	Number int64  `json:"number"`
	Origin string `json:"origin"`
	Why    string `json:"why"`
}

const mostExamples = 20

func (r *lettersReport) example(number int64, origin, why string) {
	if len(r.Examples) < mostExamples {
		r.Examples = append(r.Examples, letterExample{number, origin, why})
	}
}

// Run replays the dead letters that are open and reports. Those that are stored then, or refused once more as a letter of
// their own, are open no longer.
func (c *replayLettersCommand) Run(p *program) error {
	choice, err := c.choose(time.Now())
	if err != nil {
		return err
	}
	report := &lettersReport{DryRun: c.DryRun, Examples: []letterExample{}}
	if c.DryRun {
		return c.dryRun(p, choice, report)
	}
	replayed, err := load.OpenReplayed(p.config.DeadLetterDir)
	if err != nil {
		return err
	}
	defer replayed.Close()
	all, err := load.OpenLetters(p.config.DeadLetterDir)
	if err != nil {
		return err
	}
	defer all.Close()
	source, err := c.source(report, choice.letters(all, func(id load.LetterID) bool { return !replayed.Has(id) }, &report.Torn), replayed.Add)
	if err != nil {
		return err
	}
	return c.replay(p, source, report)
}

func (c *replayLettersCommand) source(r *lettersReport, letters iter.Seq2[load.Letter, error], settled func([]load.LetterID) error) (*deadletters.Source, error) {
	origin := "" // of the letter at hand
	return deadletters.New(deadletters.Options{
		Set: c.Set,
		Letters: func(yield func(deadletters.Letter, error) bool) {
			for letter, err := range letters {
				if err == nil {
					r.Letters++
				}
				origin = fmt.Sprintf("%s:%d", letter.Origin, letter.Position)
				if !yield(deadletters.Letter{ID: letter.ID, Number: letter.Number, Raw: letter.Raw, Fields: letter.Record}, err) {
					return
				}
			}
		},
		Settled: func(ids [][16]byte) error {
			var named []load.LetterID
			for _, id := range ids {
				named = append(named, id)
			}
			return settled(named)
		},
		Passed: func(letter deadletters.Letter, why string) {
			r.NotReplayable++
			r.example(letter.Number, origin, why)
		},
	})
}

// replay runs the letters through the pipeline, and notes those that are settled.
func (c *replayLettersCommand) replay(p *program, source *deadletters.Source, r *lettersReport) error {
	report, err := p.runToEnd(source, []string{p.config.DeadLetterDir})
	if report == nil {
		return err
	}
	r.report = report
	err = errors.Join(err, source.Settle())
	if err == nil && p.stop.Err() != nil {
		err = errInterrupted
	}
	return c.finish(p, r, err)
}

// dryRun checks the letters as the pipeline would.
func (c *replayLettersCommand) dryRun(p *program, choice choice, r *lettersReport) error {
	replayed, err := load.ReadReplayed(p.config.DeadLetterDir)
	if err != nil {
		return err
	}
	all, err := load.OpenLetters(p.config.DeadLetterDir)
	if err != nil {
		return err
	}
	defer all.Close()
	source, err := c.source(r, choice.letters(all, func(id load.LetterID) bool { return !replayed[id] }, &r.Torn),
		func([]load.LetterID) error { return nil })
	if err != nil {
		return err
	}
	r.report = &report{Files: []string{p.config.DeadLetterDir}, Rejected: map[string]int64{}, Rows: map[string]tableReport{}, Errors: map[string]int64{}}
	check, now := validate.New(p.config.Fleets, p.config.DedupeRecords, nil), time.Now().UnixMilli()
	refuse := func(number int64, rejection *telemetry.Rejection) {
		r.Rejected[string(rejection.Reason)]++
		r.RejectedTotal++
		r.example(number, deadletters.Name, rejection.Error())
	}
	err = source.Run(p.stop, func(b pipeline.Batch) error {
		r.Read += int64(len(b.Items) + len(b.Rejected))
		for i := range b.Rejected {
			refuse(b.Rejected[i].Position, b.Rejected[i].Rejection)
		}
		for i := range b.Items {
			switch _, seen, rejection := check.Validate(&b.Items[i].Record, now); {
			case rejection != nil:
				refuse(b.Items[i].Position, rejection)
			case seen == telemetry.New:
				r.Stored++
			default:
				r.Duplicates++
			}
		}
		return nil
	})
	if err == nil && p.stop.Err() != nil {
		err = errors.New("interrupted")
	}
	return c.finish(p, r, err)
}

func (c *replayLettersCommand) finish(p *program, r *lettersReport, err error) error {
	left := r.RejectedTotal + r.NotReplayable
	switch {
	case err != nil:
		r.Result = err.Error()
	case r.DryRun && left > 0:
		r.Result = "a dry run: nothing was written; some letters would stay refused"
	case r.DryRun:
		r.Result = "a dry run: nothing was written; all would be stored"
	case r.NotReplayable > 0:
		r.Result = "all that is valid is stored; some letters can't be replayed"
	case left > 0:
		r.Result = "all that is valid is stored; some records were refused again"
	default:
		r.Result = "all is stored"
	}
	if e := r.print(p.Out, c.Report); e != nil {
		return errors.Join(err, e)
	}
	if err == nil && left > 0 {
		return refusedError{left}
	}
	return err
}

func (r *lettersReport) print(out io.Writer, form string) error {
	if form == "json" {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	for _, e := range r.Examples {
		fmt.Fprintf(out, "letter %d of %s: %s\n", e.Number, e.Origin, e.Why)
	}
	fmt.Fprintf(out, "letters                     %d\n", r.Letters)
	fmt.Fprintf(out, "not replayable              %d\n", r.NotReplayable)
	if r.Torn > 0 {
		fmt.Fprintf(out, "lines that are no letters   %d\n", r.Torn)
	}
	if !r.DryRun {
		return r.report.print(out, form)
	}
	fmt.Fprintf(out, "would be stored             %d\n", r.Stored)
	fmt.Fprintf(out, "duplicates                  %d\n", r.Duplicates)
	fmt.Fprintf(out, "would be refused            %d\n", r.RejectedTotal)
	for _, reason := range slices.Sorted(maps.Keys(r.Rejected)) {
		fmt.Fprintf(out, "  %-25s %d\n", reason, r.Rejected[reason])
	}
	_, err := fmt.Fprintf(out, "result                      %s\n", r.Result)
	return err
}
