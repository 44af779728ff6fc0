package processor

import (
	"context"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/claims"
	"github.com/fleettracing/fleet-tracing/etl/internal/derived"
)

// rollUp sums the hours of fleets that changed.
func (p *Processor) rollUp(ctx context.Context, lease claims.Lease, _ bool) error {
	started := p.now()
	peers := p.claims.Peers()
	p.mu.Lock()
	hours := p.hours
	p.hours = map[cassandra.FleetHour]bool{}
	if peers {
		for h := range hours {
			p.sumAgain[h] = started.Add(p.options.MaxClockSkew)
		}
	}
	for h, at := range p.sumAgain {
		if !started.Before(at) {
			hours[h] = true
			delete(p.sumAgain, h)
		}
	}
	p.mu.Unlock()
	if err := p.sumHours(ctx, lease, slices.Collect(maps.Keys(hours))); err != nil {
		p.mu.Lock()
		maps.Copy(p.hours, hours)
		p.mu.Unlock()
		return err
	}
	p.metrics.rollup.Observe(p.now().Sub(started).Seconds())
	p.metrics.rolledUp.Set(float64(p.now().UnixMilli()) / 1000)
	return nil
}

// sumHours sums hours of fleets and writes the sums, one mutation per fleet and day.
func (p *Processor) sumHours(ctx context.Context, lease claims.Lease, hours []cassandra.FleetHour) error {
	type fleetDay struct {
		fleet string
		day   cassandra.Day
	}
	var mu sync.Mutex
	sums := map[fleetDay][]cassandra.AnalyticsRow{}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(readsInParallel)
	for _, h := range hours {
		g.Go(func() error {
			sum, found, err := p.sumHour(gctx, lease, h)
			if err != nil || !found {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			key := fleetDay{h.FleetID, sum.Day}
			sums[key] = append(sums[key], sum)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	g, gctx = errgroup.WithContext(ctx)
	var failed error
	for _, rows := range sums {
		if failed == nil {
			failed = p.exec.Start(gctx, g, cassandra.TableAnalytics, len(rows), func(ctx context.Context) error {
				if err := lease.Check(ctx); err != nil {
					return err
				}
				return p.stores.Strong.WriteAnalytics(ctx, rows)
			})
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	p.metrics.hours.Add(float64(len(hours)))
	return failed
}

// sumHour sums one hour. The stamp precedes the read: the last reader has seen the latest row of every device.
func (p *Processor) sumHour(ctx context.Context, lease claims.Lease, h cassandra.FleetHour) (sum cassandra.AnalyticsRow, found bool, err error) {
	at := p.stamps.Next()
	var rows []cassandra.HourRow
	if _, err := p.read(ctx, cassandra.TableHours, func(ctx context.Context, s Store) (err error) {
		rows, err = s.Hours(ctx, h.FleetID, h.HourMs)
		return err
	}); err != nil {
		return sum, false, err
	}
	if sum, found = derived.SumHours(rows); found {
		sum.WriteTimeUs = at
		return sum, true, nil
	}
	return sum, false, p.exec.Write(ctx, cassandra.TableAnalytics, 0, func(ctx context.Context) error {
		if err := lease.Check(ctx); err != nil {
			return err
		}
		return p.stores.Strong.DeleteAnalytics(ctx, h.FleetID, h.HourMs, at)
	})
}
