package processor

import (
	"context"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/claims"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// sweep loads silent devices of the store that no instance has in memory, once their silence leads to an alert.
func (p *Processor) sweep(ctx context.Context, _ claims.Lease, all bool) error {
	if all || !p.options.Stream || !p.claims.Leads() {
		return nil
	}
	now := p.now()
	if now.Sub(p.sweptAt) >= sweepEvery {
		p.sweptAt = now
		if err := p.listSilent(ctx); err != nil {
			return err
		}
	}
	wants := map[string]*claims.Want{}
	dirty := p.dirty()
	p.mu.Lock()
	for id, s := range p.silent {
		if len(wants) == sweepAtOnce || dirty > sweepAtOnce {
			break // until the loaded ones are recomputed
		}
		if s.dueMs > now.UnixMilli() || p.devices[id] != nil {
			continue
		}
		wants[id] = &claims.Want{FromDay: cassandra.DayOf(s.lastMs)}
		delete(p.silent, id)
	}
	p.mu.Unlock()
	if len(wants) == 0 {
		return nil
	}
	acquired, err := p.Acquire(ctx, wants)
	if err != nil {
		return err
	}
	p.mu.Lock()
	for _, a := range acquired {
		if v := p.devices[a.DeviceID]; v != nil {
			v.lastSeen = now.Add(-p.options.Idle)
		}
	}
	p.mu.Unlock()
	p.advance()
	return nil
}

// listSilent notes the devices of all fleets that are not in memory, and when their silence leads to an alert.
func (p *Processor) listSilent(ctx context.Context) error {
	fleets, err := p.fleets(ctx)
	if err != nil {
		return err
	}
	engine := p.rules().Engine
	for _, fleet := range fleets {
		if telemetry.PlatformFleet(fleet) {
			continue
		}
		var latest []cassandra.Telemetry
		read, err := p.readPartition(ctx, partition{table: cassandra.TableLatestByFleet, fleet: fleet}, func(ctx context.Context) (err error) {
			latest, err = p.stores.Fallback.LatestOfFleet(ctx, fleet)
			return err
		})
		if err != nil {
			return err
		}
		if !read {
			continue
		}
		p.mu.Lock()
		for _, t := range latest {
			ms := t.Ts.UnixMilli()
			if p.devices[t.DeviceID] != nil || p.silent[t.DeviceID].lastMs >= ms {
				continue
			}
			s := silence{lastMs: ms, dueMs: ms + cassandra.OpenAlertTTL.Milliseconds()} // its open alerts may have expired
			if after, ok := engine.OfflineAfter(fleet, t.DeviceID); ok {
				s.dueMs = ms + after.Milliseconds()
			}
			p.silent[t.DeviceID] = s
		}
		p.mu.Unlock()
	}
	return nil
}
