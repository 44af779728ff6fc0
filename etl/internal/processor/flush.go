package processor

import (
	"context"
	"maps"
	"slices"

	"github.com/fleettracing/fleet-tracing/etl/internal/claims"
	"github.com/fleettracing/fleet-tracing/etl/internal/derived"
	"github.com/fleettracing/fleet-tracing/etl/internal/rollup"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// take adds to c what waits to be written of a device. slow is set when its open trip and alerts are due as well.
func (v *device) take(c *derived.Changes, at int64, slow bool) {
	v.takeAlerts(c, at)
	for _, day := range v.days {
		c.PutDay(v.id, day, at)
	}
	current := derived.NewStats()
	for _, h := range v.hours {
		current.Hour(h)
	}
	for _, t := range v.trips {
		current.Trip(t)
	}
	if v.changed || slow {
		last := derived.NewStats()
		v.state.Roll.Current(&last)
		maps.Copy(current.Hours, last.Hours)
		if slow {
			maps.Copy(current.Trips, last.Trips)
		}
	}
	v.owesOpen = !slow && (v.owesOpen || v.changed)
	if slow {
		for a := range v.state.Alerts.Open() {
			c.PutAlert(derived.AlertRow(v.id, a), at)
		}
	}
	for _, h := range current.Hours {
		c.PutHour(derived.HourRow(v.id, h), at)
	}
	for _, t := range current.Trips {
		c.PutTrip(v.id, derived.TripRow(t), at)
	}
	v.hours, v.trips, v.days, v.changed = nil, nil, nil, false
}

// alertChange is an alert whose state changed since the last flush.
type alertChange struct {
	event     telemetry.AlertEvent // the last
	isNew     bool                 // it opened since the last flush, so nothing of it is stored
	escalated bool                 // a row of a lower severity may be stored
	opened    bool                 // or escalated: the open alert must be written
}

// takeAlerts adds to c the alerts that changed, each as it is after its last event. An alert that opened and ended since
// the last flush was never among the open ones.
func (v *device) takeAlerts(c *derived.Changes, at int64) {
	var order []derived.AlertKey
	changes := map[derived.AlertKey]*alertChange{}
	for _, event := range v.events {
		key := derived.KeyOf(event.Alert)
		change := changes[key]
		if change == nil {
			change = &alertChange{isNew: event.Transition == telemetry.AlertOpened}
			changes[key] = change
			order = append(order, key)
		}
		change.event = event
		change.escalated = change.escalated || event.Transition == telemetry.AlertEscalated
		change.opened = change.opened || event.Transition != telemetry.AlertResolved
	}
	for _, key := range order {
		change := changes[key]
		row := derived.AlertRow(v.id, change.event.Alert)
		row.Notify = v.notified[key] != ""
		if change.escalated && !change.isNew {
			for _, lower := range telemetry.Severities {
				if telemetry.Severity(row.Severity).HigherThan(lower) {
					old := row
					old.Severity = string(lower)
					c.DeleteFleetAlert(old, at)
				}
			}
		}
		c.PutAlert(row, at)
		switch {
		case row.EndedMs == 0 && change.opened:
			c.PutOpenAlert(row, at+1)
		case row.EndedMs != 0 && !change.isNew:
			c.DeleteOpenAlert(row, at)
		}
	}
	if len(v.announced) > 0 {
		for a := range v.state.Alerts.Open() {
			if slices.Contains(v.announced, derived.KeyOf(a)) {
				row := derived.AlertRow(v.id, a)
				row.Notify = true
				c.PutOpenAlert(row, at+1)
			}
		}
	}
	v.events, v.announced, v.considered = nil, nil, 0
}

// flush writes what changed since the last time.
func (p *Processor) flush(ctx context.Context, lease claims.Lease, all bool) error {
	started := p.now()
	defer func() { p.metrics.flush.Observe(p.now().Sub(started).Seconds()) }()
	c := &derived.Changes{}
	p.mu.Lock()
	at := p.stamps.Next()
	p.alerted, p.waiting = nil, 0 // all of them are taken here
	for _, v := range p.devices {
		if v.dirty || v.recomputing || v.loading {
			continue // its recomputation writes everything
		}
		slow := all || !started.Before(v.slowDue)
		if v.clean() && (!v.owesOpen || !slow) {
			continue
		}
		if slow {
			v.slowDue = started.Add(slowEvery)
		}
		v.flushedAt = started
		v.take(c, at, slow)
	}
	p.mu.Unlock()
	_, err := p.write(ctx, lease, c)
	return err
}

// flushAlerts writes the alerts that changed since the last time.
func (p *Processor) flushAlerts(ctx context.Context, lease claims.Lease) error {
	c := &derived.Changes{}
	p.mu.Lock()
	p.syncEpoch()
	at := p.stamps.Next()
	for _, v := range p.alerted {
		if len(v.events)+len(v.announced) > 0 && !v.dirty && !v.recomputing {
			v.takeAlerts(c, at)
		}
	}
	p.alerted = nil
	p.mu.Unlock()
	_, err := p.write(ctx, lease, c)
	return err
}

// write writes changes under a lease, and notes the hours that must be summed. It returns the devices with a row that can't
// be written.
func (p *Processor) write(ctx context.Context, lease claims.Lease, c *derived.Changes) (failed map[string]error, err error) {
	failed, err = p.rows.Write(ctx, c, lease.Check)
	p.hours.Add(c.Hours())
	if err != nil {
		return nil, err
	}
	p.fail(failed)
	for _, kind := range []rollup.TripKind{rollup.KindTrip, rollup.KindStop} {
		p.metrics.trips[kind].Add(float64(c.EndedTrips(kind)))
	}
	return failed, nil
}

// fail skips devices whose rows can't be read or written, until they are recomputed later. Their claims stay, so that the
// next instance derives them if this one ends.
func (p *Processor) fail(failed map[string]error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, err := range failed {
		if v := p.devices[id]; v != nil {
			s, _ := p.claims.Status(id)
			v.markDirty(s.FromDay, reasonGap)
			v.whole, v.retryAt = true, p.now().Add(retryAfter)
			p.failures.Note(id, err)
		}
	}
}

// sumHours sums the hours of fleets that changed, for one flush interval.
func (p *Processor) sumHours(ctx context.Context, lease claims.Lease, all bool) error {
	limit := p.options.Flush
	if all {
		limit = 0
	}
	return p.hours.Run(ctx, lease, p.claims.Peers(), limit)
}
