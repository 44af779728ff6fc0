package processor

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/claims"
	"github.com/fleettracing/fleet-tracing/etl/internal/derived"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// release unloads devices that have been silent for long, or all: it stores their states and deletes their claims.
func (p *Processor) release(ctx context.Context, lease claims.Lease, all bool) error {
	var begun []claims.Release
	due := p.hours.DueFleets()
	c := &derived.Changes{}
	p.mu.Lock()
	at := p.stamps.Next()
	rules := p.rules()
	var lasted []telemetry.AlertEvent
	for _, v := range p.idle(all) {
		if !p.settled(v, due) {
			continue
		}
		if len(v.held) > 0 { // it is unloaded once that is stored
			lasted = append(lasted, p.announce(v, func(time.Time) bool { return true })...)
			v.held = nil
			continue
		}
		r, ok := p.claims.BeginRelease(v.id)
		if !ok {
			continue
		}
		delete(p.devices, v.id)
		begun = append(begun, r)
		if p.claims.Leads() {
			due, ok := rules.Engine.Next(&v.state.Alerts)
			if !ok {
				due = never
			}
			p.silent[v.id] = silence{lastMs: v.state.Roll.LastMs(), dueMs: due}
		}
		if v.state.Roll.LastMs() == 0 {
			continue
		}
		c.PutDay(v.id, cassandra.DeviceDay{Day: v.day, State: v.stored(), Rules: rules.Fingerprint, Fleets: r.Fleets}, at)
	}
	p.room.Broadcast()
	p.mu.Unlock()
	p.notify(lasted)
	if len(begun) == 0 {
		return nil
	}
	failed, err := p.write(ctx, lease, c)
	if err != nil {
		p.claims.AbortRelease(begun) // a crash or a fence leaves the claims: another instance recomputes once too often
		return err
	}
	if len(failed) > 0 { // they come back, without the states that were not stored
		isFailed := func(r claims.Release) bool { return failed[r.DeviceID] != nil }
		p.claims.AbortRelease(slices.DeleteFunc(slices.Clone(begun), func(r claims.Release) bool { return !isFailed(r) }))
		begun = slices.DeleteFunc(begun, isFailed)
		if err := p.Recompute(ctx, slices.Collect(maps.Keys(failed)), p.oldest()); err != nil {
			return errors.Join(err, p.claims.FinishRelease(ctx, begun))
		}
		p.fail(failed)
	}
	return p.claims.FinishRelease(ctx, begun)
}

// idle returns the devices that could be unloaded: those without a record for long, and the oldest ones while there are too
// many. Called with p.mu held.
func (p *Processor) idle(all bool) []*device {
	now := p.now()
	over := len(p.devices) - p.options.Devices + p.options.Devices/10
	var idle, others []*device
	for _, v := range p.devices {
		switch {
		case v.recomputing || v.dirty || v.loading:
		case all || now.Sub(v.lastSeen) >= p.options.Idle:
			idle = append(idle, v)
		case over > 0:
			others = append(others, v)
		}
	}
	if more := min(over-len(idle), len(others)); more > 0 {
		slices.SortFunc(others, func(a, b *device) int { return a.lastSeen.Compare(b.lastSeen) })
		idle = append(idle, others[:more]...)
	}
	return idle
}

// settled reports whether a device can be unloaded. A device that another instance has had is recomputed once more after
// its last record, later by more than clocks may differ, because the other may have written with a fast clock. Hours of its
// fleets that are due are summed first. Called with p.mu held.
func (p *Processor) settled(v *device, due map[string]bool) bool {
	now := p.now()
	s, ok := p.claims.Status(v.id)
	if !ok || s.InFlight > 0 || slices.ContainsFunc(s.Fleets, func(fleet string) bool { return due[fleet] }) {
		return false
	}
	skew := p.options.MaxClockSkew
	had := s.Shared || s.Adopted
	since := v.recomputedAt.Before(v.lastSeen.Add(skew))
	switch {
	case v.weak, had && since && now.Sub(v.lastSeen) >= skew:
		v.markDirty(s.FromDay, reasonShared)
		v.recomputedAt = v.recomputedAt.Add(-sharedEvery)
	case had && since:
	case !p.leaving && p.claims.Peers() && now.Sub(v.flushedAt) < 2*skew: // see hourly.Sums.Run
	case !v.clean() || v.owesOpen:
		v.slowDue = now
	default:
		return true
	}
	return false
}

// silence is a device that is not in memory.
type silence struct {
	lastMs int64 // its newest record
	dueMs  int64 // event time at which its silence leads to an alert next
}

const never = int64(1<<63 - 1)
