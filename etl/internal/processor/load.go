package processor

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/claims"
	"github.com/fleettracing/fleet-tracing/etl/internal/derived"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/recompute"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// WaitForRoom holds a batch back while there are too many devices in memory and some of them can be unloaded.
func (p *Processor) WaitForRoom(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { p.room.Broadcast() })
	defer stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.devices) >= p.options.Devices && ctx.Err() == nil && p.hasUnused() {
		p.crowded.Store(true)
		p.wake()
		p.room.Wait()
	}
	p.crowded.Store(false)
	return ctx.Err()
}

// hasUnused reports whether a device in memory can be unloaded once it is derived. Called with p.mu held.
func (p *Processor) hasUnused() bool {
	for id, v := range p.devices {
		if s, ok := p.claims.Status(id); !v.failing() && (!ok || s.InFlight == 0) {
			return true
		}
	}
	return false
}

// Acquire claims devices, and reads the states of the newly claimed ones. Their records are written later: a device without
// a state and without records is new.
func (p *Processor) Acquire(ctx context.Context, wants map[string]*claims.Want) ([]claims.Acquired, error) {
	acquired, err := p.claims.Acquire(ctx, wants)
	if err != nil {
		return nil, err
	}
	return acquired, p.load(ctx, acquired, reasonShared)
}

// load reads the states of devices. Devices of other instances are recomputed, for the given reason.
func (p *Processor) load(ctx context.Context, acquired []claims.Acquired, reason string) error {
	p.mu.Lock()
	for _, a := range acquired {
		v := p.device(a.DeviceID)
		v.loading = true
		delete(p.silent, a.DeviceID)
	}
	p.mu.Unlock()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(loadsInParallel)
	for _, a := range acquired {
		g.Go(func() error { return p.loadDevice(ctx, a, reason) })
	}
	return g.Wait()
}

// device returns the device, which is new if it is not in memory. Called with p.mu held.
func (p *Processor) device(id string) *device {
	v := p.devices[id]
	if v == nil {
		v = &device{id: id, lastSeen: p.now(), loading: true}
		p.devices[id] = v
	}
	return v
}

func (p *Processor) loadDevice(ctx context.Context, a claims.Acquired, reason string) error {
	var last cassandra.DeviceDay
	var later, open []cassandra.Alert
	var state derived.State
	found, valid, unknown := false, false, false
	if a.Err != nil {
		p.skip(a.DeviceID, a.Err)
		return nil
	}
	strong, err := executor.ReadWithin(ctx, executor.PartitionLimit, p.exec, p.stores, cassandra.TableDeviceDays, func(ctx context.Context, s Store) (err error) {
		if last, found, err = s.LastDeviceDay(ctx, a.DeviceID, cassandra.DayOf(p.now().UnixMilli())+1); err != nil {
			return err
		}
		if !found {
			// Nothing was ever derived. The device may have records all the same.
			_, err = s.Latest(ctx, a.DeviceID)
			if unknown = cassandra.ReasonOf(err) == cassandra.ReasonNotFound; unknown {
				err = nil
			}
			return err
		}
		if state, valid = derived.Decode(last.State); !valid {
			return nil
		}
		if later, err = s.DeviceAlerts(ctx, a.DeviceID, state.Roll.LastMs()+1, recompute.Latest(p.now())); err != nil {
			return err
		}
		var fleets []string
		for a := range state.Alerts.Open() {
			fleets = append(fleets, a.FleetID)
		}
		for _, a := range later {
			fleets = append(fleets, a.FleetID)
		}
		open, err = recompute.OpenAlerts(ctx, s, a.DeviceID, fleets)
		return err
	})
	if cassandra.Permanent(err) {
		p.skip(a.DeviceID, err)
		return nil
	}
	if err != nil {
		return err
	}
	p.claims.Join(a.DeviceID, last.Fleets)

	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.device(a.DeviceID)
	v.loading = false
	switch {
	case reason == reasonTakenOver:
		v.markDirty(a.FromDay, reason)
		v.whole, v.resend = true, true // the other may have ended between two rows of one alert, or before it sent one
	case a.Shared:
		v.markDirty(a.FromDay, reason)
	case !strong || !a.Strong:
		v.markDirty(a.FromDay, reasonGap)
	}
	switch {
	case found && valid:
		p.stamps.After(last.WriteTimeUs)
		if v.state.Roll.LastMs() != 0 {
			break // it was in memory before another instance's claim was taken over
		}
		v.state, v.day = state, last.Day
		v.knownMs = v.state.AdvancedMs()
		v.restoreNotified(open)
		if mustRenew(&state, open) {
			v.markDirty(last.Day, reasonExpiring)
		}
		for _, row := range open {
			if !row.Notify {
				v.hold(derived.KeyOfRow(row), p.now())
			}
		}
		if len(later) > 0 {
			v.later = make(map[derived.AlertKey]telemetry.Severity, len(later))
		}
		for _, a := range later {
			v.later[derived.KeyOfRow(a)] = telemetry.Severity(a.Severity)
		}
	case found:
		p.stamps.After(last.WriteTimeUs)
		v.markDirty(last.Day, reasonGap)
	case !unknown:
		v.markDirty(p.oldest(), reasonGap)
	}
	return nil
}

// skip skips a device whose state can't be read.
func (p *Processor) skip(id string, err error) {
	p.mu.Lock()
	v := p.device(id)
	v.loading = false
	v.markDirty(p.oldest(), reasonGap)
	p.mu.Unlock()
	p.fail(map[string]error{id: err})
}

// Recompute has devices recomputed from a day on by the next cycle.
func (p *Processor) Recompute(ctx context.Context, deviceIDs []string, from cassandra.Day) error {
	wants := map[string]*claims.Want{}
	for _, id := range deviceIDs {
		wants[id] = &claims.Want{FromDay: from}
	}
	if _, err := p.Acquire(ctx, wants); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range deviceIDs {
		v := p.device(id)
		v.markDirty(from, reasonGap)
		v.whole = true
	}
	return nil
}

// oldest is the first day that stored records can have.
func (p *Processor) oldest() cassandra.Day {
	return cassandra.DayOf(p.now().Add(-telemetry.Retention).UnixMilli()) - 1
}
