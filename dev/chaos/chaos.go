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
	GoOn     bool             // continue after a failed fault
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
	form := inLong
	if o.Short {
		form = inShort
	}
	return slices.DeleteFunc(slices.Clone(faults), func(f fault) bool {
		if len(o.Only) > 0 {
			return !slices.Contains(o.Only, f.name)
		}
		return f.forms&form == 0
	}), nil
}

// Run starts the cluster, injects one fault after the other, and prints the outcomes as tables. It stops at the first failure unless
// GoOn is set.
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
	scenarios, err := p.testAll(ctx, list)
	report(o.Out, scenarios)
	return errors.Join(err, p.stop(ctx))
}

func (p *platform) testAll(ctx context.Context, list []fault) (scenarios []*scenario, err error) {
	for _, f := range list {
		s := p.test(ctx, f)
		scenarios = append(scenarios, s)
		p.printf("%-18s %s\n", s.name, s.outcome())
		if ctx.Err() != nil {
			return scenarios, ctx.Err()
		}
		if s.failed == nil {
			continue
		}
		err = errors.Join(err, fmt.Errorf("the platform failed: %s: %w", s.name, s.failed))
		if !p.GoOn {
			break
		}
		if e := p.reset(ctx); e != nil {
			return scenarios, errors.Join(err, e)
		}
	}
	return scenarios, err
}
