// Package chaos breaks a running platform on purpose, and holds it to what it promises: what was acknowledged is stored, once and
// as it was sent; what is derived follows from it; memory is bounded; people hear of what is wrong, and that it is over; and all
// goes on by itself.
//
// Each fault has a load of its own: a fleet of vehicles that send uniquely identified records over the IoT API and remember what
// was answered. In the end every record is read back at the level ALL and compared.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
)

// Options say what is broken, and where.
type Options struct {
	Cluster  *cluster.Cluster // of two data centres with two nodes each; all nodes run
	Root     string           // of the repository, whose fleet-etl and configuration are used
	Dir      string           // for programs, state and logs; emptied at the start
	Keyspace string           // made where it is not there
	Only     []string         // names of faults; none: all
	GoOn     bool             // after a fault that was not withstood
	Short    bool             // only those that need nothing but a cluster, with nobody told of alerts
	Seed     uint64           // of what is left to chance
	Disk     string           // folder of node 4 that is a small file system of its own; empty: its disk can't be filled
	Link     Link             // between the data centres; nil: it can't be slowed down
	Out      io.Writer        // a line for each step
}

// Link is the network between the data centres.
type Link interface {
	// Slow makes each packet wait, and loses a share of them.
	Slow(delay, jitter time.Duration, loss, bytesPerSecond float64)
	Restore()
}

// Outcome is what came of one fault. Durations are in seconds.
type Outcome struct {
	Fault  string `json:"fault"`
	Title  string `json:"title"`
	Done   string `json:"done"`
	Result string `json:"result"` // held, failed or skipped
	Why    string `json:"why,omitempty"`

	Injected time.Time `json:"injected"`
	Lasted   float64   `json:"fault_seconds"` // from the injection until the cause was taken away

	Detected  float64 `json:"detected_seconds"`         // from the injection until people had heard of all of it; 0: nothing to hear
	Ingest    float64 `json:"ingest_interrupted"`       // longest time without an answer to any sender
	Storing   float64 `json:"storing_interrupted"`      // longest time without a record stored
	Recovered float64 `json:"recovered_seconds"`        // from taking the cause away until all flowed as before
	Resolved  float64 `json:"alerts_resolved_seconds"`  // … until people had heard that it is over
	Derived   float64 `json:"derived_complete_seconds"` // from the end of the load until verify found no difference

	Acknowledged int   `json:"acknowledged"`
	Stored       int   `json:"stored"`
	Missing      int   `json:"missing"`   // acknowledged and not stored
	Differing    int   `json:"differing"` // stored with other values
	Unknown      int   `json:"unknown"`   // stored and never sent
	Refused      int   `json:"refused"`   // answered as refused; all of them in the dead letters
	Resent       int   `json:"resent"`    // requests that were sent again, having had no answer or a bad one
	Differences  int   `json:"verify_differences"`
	Fixes        int   `json:"verify_fixes"`
	PeakRSS      int64 `json:"peak_rss_bytes"` // of fleet-etl

	Alerts []string `json:"alerts"` // what people heard during it
	Notes  []string `json:"notes,omitempty"`
}

// Results of a fault.
const (
	Held    = "held"
	Failed  = "failed"
	Skipped = "skipped"
)

// Report is what Run gives.
type Report struct {
	Seed     uint64    `json:"seed"`
	Machine  string    `json:"machine"`
	Took     float64   `json:"seconds"`
	Outcomes []Outcome `json:"outcomes"`
}

// ErrFailed is what Run returns when a fault was not withstood.
var ErrFailed = errors.New("the platform did not withstand a fault")

// Names of all faults, in order.
func Names() (names []string) {
	for _, f := range faults {
		names = append(names, f.name)
	}
	return names
}

// chosen are the faults that o asks for.
func (o Options) chosen() ([]fault, error) {
	for _, name := range o.Only {
		if !slices.Contains(Names(), name) {
			return nil, fmt.Errorf("no fault %q: choose from %s", name, strings.Join(Names(), ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(faults), func(f fault) bool {
		return o.Short && !f.short || len(o.Only) > 0 && !slices.Contains(o.Only, f.name)
	}), nil
}

// Run injects one fault after the other, and stops at the first that the platform does not withstand, unless it is told to go on. The
// report also comes with an error.
func Run(ctx context.Context, o Options) (report *Report, err error) {
	begun := time.Now()
	report = &Report{Seed: o.Seed, Machine: machine()}
	defer func() { report.Took = time.Since(begun).Seconds() }()
	list, err := o.chosen()
	if err != nil {
		return report, err
	}
	p, err := start(ctx, o)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, p.stop(ctx)) }()
	var failed []error
	for _, f := range list {
		outcome := p.withstand(ctx, f)
		report.Outcomes = append(report.Outcomes, outcome)
		fmt.Fprintln(o.Out, outcome)
		if ctx.Err() != nil {
			return report, ctx.Err()
		}
		if outcome.Result == Failed {
			failed = append(failed, fmt.Errorf("%w: %s: %s", ErrFailed, f.name, outcome.Why))
			if !o.GoOn {
				break
			}
			if err := p.mend(ctx); err != nil {
				return report, errors.Join(append(failed, err)...)
			}
		}
	}
	return report, errors.Join(failed...)
}

// String is the line of an outcome.
func (o Outcome) String() string {
	if o.Result == Skipped {
		return fmt.Sprintf("%-18s skipped: %s", o.Fault, o.Why)
	}
	line := fmt.Sprintf("%-18s %s  injected %s for %.1f s, detected after %.1f s, ingest interrupted for %.1f s, storing for %.1f s, recovered after %.1f s; "+
		"acknowledged %d, stored %d, missing %d, differing %d, unknown %d, refused %d; verify: %d fixes, %d differences; peak RSS %.0f MB; alerts: %s",
		o.Fault, o.Result, o.Injected.UTC().Format(time.TimeOnly), o.Lasted, o.Detected, o.Ingest, o.Storing, o.Recovered,
		o.Acknowledged, o.Stored, o.Missing, o.Differing, o.Unknown, o.Refused, o.Fixes, o.Differences, float64(o.PeakRSS)/1e6, strings.Join(o.Alerts, "; "))
	for _, n := range o.Notes {
		line += "\n" + strings.Repeat(" ", 19) + n
	}
	if o.Why != "" {
		line += "\n" + strings.Repeat(" ", 19) + "because " + o.Why
	}
	return line
}

// newRand gives each fault chances of its own, the same whichever others run.
func newRand(seed uint64, name string) *rand.Rand {
	for _, b := range []byte(name) {
		seed = seed*31 + uint64(b)
	}
	return rand.New(rand.NewPCG(seed, seed^0x9e3779b97f4a7c15))
}

// machine names what the figures were measured on.
func machine() string {
	cpus, model, memory := 0, "", 0
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(line, ":")
			switch strings.TrimSpace(key) {
			case "processor":
				cpus++
			case "model name":
				model = strings.TrimSpace(value)
			}
		}
	}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		_, _ = fmt.Sscanf(string(text), "MemTotal: %d", &memory) // 0 says that it is not known
	}
	return fmt.Sprintf("%d × %s, %d GB", cpus, model, (memory+1<<19)>>20)
}
