// Package chaos injects faults into a running platform and checks what the platform promises: acknowledged records are stored once
// and unchanged, derived rows follow from them, memory is bounded, every alert fires and resolves, and the platform recovers
// without help.
//
// Each fault has its own load: a fleet of vehicles that send unique records over the HTTP API and remember every response. At the
// end every record is read back at consistency level ALL and compared.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
)

// Options configure Run.
type Options struct {
	Cluster  *cluster.Cluster // two data centers of two nodes
	Root     string           // repository, whose fleet-etl and configuration are used
	Dir      string           // for programs, state and logs; emptied at the start
	Keyspace string           // created if missing
	Only     []string         // names of faults; empty: all of the form
	Short    bool             // only the faults that need nothing but a cluster, without Prometheus and Alertmanager
	Seed     uint64           // of the random choices
	Disk     string           // directory of node 4 on its own small file system; empty: none
	Tunnel   *Tunnel          // networks of the data centers; nil: none of their own
	Out      io.Writer        // progress, one line per step
}

// Names returns the names of all faults in order.
func Names() (names []string) {
	for _, f := range faults {
		names = append(names, f.name)
	}
	return names
}

// selected returns the faults to inject.
func (o Options) selected() ([]fault, error) {
	for _, name := range o.Only {
		if !slices.Contains(Names(), name) {
			return nil, fmt.Errorf("no fault %q: choose from %s", name, strings.Join(Names(), ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(faults), func(f fault) bool {
		switch {
		case len(o.Only) > 0:
			return !slices.Contains(o.Only, f.name)
		case o.Short:
			return f.forms&inShort == 0
		}
		return f.forms&inLong == 0
	}), nil
}

// Run starts the cluster, injects one fault after the other until the platform fails, and prints the outcomes as tables.
func Run(ctx context.Context, o Options) error {
	list, err := o.selected()
	if err != nil {
		return err
	}
	if err := o.Cluster.Up(ctx); err != nil {
		return err
	}
	p, err := start(ctx, o)
	if err != nil {
		return err
	}
	var scenarios []*scenario
	for _, f := range list {
		s := p.test(ctx, f)
		scenarios = append(scenarios, s)
		p.printf("%-18s %s\n", s.name, s.outcome())
		if s.failed != nil {
			err = fmt.Errorf("the platform failed: %s: %w", s.name, s.failed)
			break
		}
	}
	report(o.Out, scenarios)
	return errors.Join(err, ctx.Err(), p.stop(ctx))
}

// report prints the outcomes as tables in Markdown.
func report(w io.Writer, scenarios []*scenario) {
	table(w, "fault | outcome | lasted | alerts fired after | no response for | nothing stored for | recovered after | alerts resolved after | peak RSS", scenarios, func(s *scenario) string {
		outcome, _, _ := strings.Cut(s.outcome(), ":")
		if s.skipped != nil {
			return s.outcome() + " | | | | | | |"
		}
		fired, resolved := "–", "–"
		if s.detected > 0 {
			fired, resolved = seconds(s.detected), seconds(s.resolved)
		}
		return fmt.Sprintf("%s | %s | %s | %s | %s | %s | %s | %.0f MB", outcome, seconds(s.lasted), fired, seconds(s.ingest), seconds(s.storing),
			seconds(s.recovered), resolved, float64(s.peakRSS)/1e6)
	})
	injected := slices.DeleteFunc(slices.Clone(scenarios), func(s *scenario) bool { return s.skipped != nil })
	table(w, "fault | acknowledged | stored | missing | differing | never sent | requests sent again | verify: records | verify: differences", injected, func(s *scenario) string {
		return fmt.Sprintf("%d | %d | %d | %d | %d | %d | %d | %d", s.acknowledged, s.stored, s.missing, s.differing, s.unknown, s.resent, s.verified, s.differences)
	})
	for _, s := range scenarios {
		fmt.Fprint(w, s.tenant.table())
	}
	fmt.Fprintln(w)
	for _, s := range scenarios {
		lines := []string{fmt.Sprintf("- **%s** (`%s`): %s", s.title, s.name, s.injects)}
		if len(s.alerts) > 0 {
			lines = append(lines, "Alerts: "+strings.Join(s.alerts, "; "))
		}
		lines = append(lines, s.notes...)
		if s.failed != nil {
			lines = append(lines, "Failed: "+strings.ReplaceAll(s.failed.Error(), "\n", "; "))
		}
		for i, line := range lines {
			lines[i] = strings.TrimSuffix(line, ".") + "."
		}
		fmt.Fprintln(w, strings.Join(lines, "\n  "))
	}
}

// table prints a table with a row for each scenario.
func table(w io.Writer, head string, scenarios []*scenario, row func(*scenario) string) {
	fmt.Fprintf(w, "\n| %s |\n%s|\n", head, strings.Repeat("|---", strings.Count(head, "|")+1))
	for _, s := range scenarios {
		fmt.Fprintf(w, "| %s | %s |\n", s.title, row(s))
	}
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
