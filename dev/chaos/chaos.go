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
