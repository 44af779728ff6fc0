package processor

import (
	"cmp"
	"slices"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/derived"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Apply applies records that are stored to the states of their devices, in event order, and returns the alert events that
// receivers are to be notified of. Batches come in the order in which their devices were claimed.
func (p *Processor) Apply(records []*telemetry.Record) []telemetry.AlertEvent {
	if len(records) == 0 {
		return nil
	}
	started := p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.syncEpoch()
	rules := p.rules()
	var touched []*device
	for _, r := range records {
		if telemetry.PlatformFleet(r.FleetID) {
			continue
		}
		v := p.device(r.DeviceID)
		if len(v.batch) == 0 {
			touched = append(touched, v)
		}
		v.batch = append(v.batch, r)
	}
	var events []telemetry.AlertEvent
	inOrder := func(a, b *telemetry.Record) int { return cmp.Compare(a.TimeMs, b.TimeMs) }
	for _, v := range touched {
		if !slices.IsSortedFunc(v.batch, inOrder) {
			slices.SortStableFunc(v.batch, inOrder)
		}
		v.lastSeen = started
		shared := p.claims.Applied(v.id, len(v.batch))
		p.waiting -= v.waiting()
		for _, r := range v.batch {
			p.apply(rules, v, r, shared)
		}
		p.waiting += v.waiting()
		events = append(events, p.newEvents(v)...)
		clear(v.batch) // which keeps the batch's records in memory
		if v.batch = v.batch[:0]; cap(v.batch) > batchKept {
			v.batch = nil
		}
	}
	if p.waiting >= waitingLimit {
		p.wake()
	}
	p.room.Broadcast()
	p.metrics.apply.Observe(p.now().Sub(started).Seconds())
	return events
}

// batchKept is the number of records of a batch that a device keeps memory for.
const batchKept = 32

// apply applies one stored record to its device.
func (p *Processor) apply(rules derived.Rules, v *device, r *telemetry.Record, shared bool) {
	day := cassandra.DayOf(r.TimeMs)
	switch {
	case v.recomputing:
		if len(v.backlog) >= backlogLimit {
			v.overflow = true
		} else {
			v.backlog = append(v.backlog, *r)
		}
	case v.dirty:
		v.markDirty(day, v.reason)
	case shared, v.loading:
		v.markDirty(day, reasonShared)
	case r.TimeMs <= v.state.AdvancedMs(), v.breaksSilence(r.TimeMs):
		v.markDirty(day, reasonLate)
	default:
		if day != v.day && v.day != 0 { // the state at its end is to be written
			v.days = append(v.days, cassandra.DeviceDay{Day: v.day, State: v.stored(), Rules: rules.Fingerprint})
		}
		v.day = day
		v.state.Apply(rules.Engine, r, v)
		v.changed, v.beforeSilence, v.laterOver = true, nil, true
	}
}

// newEvents returns the events to notify among those since the last call.
func (p *Processor) newEvents(v *device) []telemetry.AlertEvent {
	var events []telemetry.AlertEvent
	for _, event := range v.events[v.considered:] {
		if severity, ok := v.later[derived.KeyOf(event.Alert)]; ok && event.Transition != telemetry.AlertResolved && !event.Severity.HigherThan(severity) {
			continue // it opened before the state was stored
		}
		p.metrics.alert(event)
		if out, ok := p.notification(v, event); ok {
			events = append(events, out)
		}
	}
	if len(v.events) > v.considered {
		p.alerted = append(p.alerted, v)
		if p.options.Stream {
			p.wake()
		}
	}
	v.considered = len(v.events)
	if v.laterOver {
		v.later, v.laterOver = nil, false
	}
	v.knownMs = max(v.knownMs, v.state.AdvancedMs())
	return events
}

// notification returns the event to send for a change of an alert, and records that receivers know it. ok is false if it
// must not be sent: an opening long ago, or at an event time that has passed, is held, and without a notified opening
// nothing later is sent either.
func (p *Processor) notification(v *device, event telemetry.AlertEvent) (out telemetry.AlertEvent, ok bool) {
	key := derived.KeyOf(event.Alert)
	out = telemetry.AlertEvent{Alert: event.Alert, Transition: event.Transition, From: v.notified[key]}
	out.DeviceID = v.id
	switch event.Transition {
	case telemetry.AlertOpened:
		if ok = event.OpenedMs > v.knownMs && p.isRecent(event.Alert); ok {
			v.noteNotified(key, event.Severity)
		} else {
			v.hold(key, p.now())
		}
	case telemetry.AlertEscalated:
		if ok = out.From != "" && event.Severity.HigherThan(out.From); ok {
			v.notified[key] = event.Severity
		}
	case telemetry.AlertResolved:
		ok = out.From != ""
		delete(v.notified, key)
		delete(v.held, key)
	}
	return out, ok
}

// announce returns the openings to notify of alerts that are held and open. They lasted: the device's later records, if
// any waited, did not resolve them.
func (p *Processor) announce(v *device, found func(time.Time) bool) (events []telemetry.AlertEvent) {
	for a := range v.state.Alerts.Open() {
		key := derived.KeyOf(a)
		at, held := v.held[key]
		if !held || !found(at) {
			continue
		}
		delete(v.held, key)
		v.noteNotified(key, a.Severity)
		v.announced = append(v.announced, key)
		a.DeviceID = v.id
		events = append(events, telemetry.AlertEvent{Alert: a, Transition: telemetry.AlertOpened})
	}
	return events
}

// isRecent reports whether receivers are to be notified at once of an alert that was detected now.
func (p *Processor) isRecent(a telemetry.Alert) bool {
	return p.now().UnixMilli()-a.OpenedMs <= p.options.NotifyMaxAge.Milliseconds()
}

// advance lets time pass for devices without a record: silent ones go offline. It announces alerts that lasted.
func (p *Processor) advance() {
	p.mu.Lock()
	p.syncEpoch()
	now := p.now()
	rules := p.rules()
	var events []telemetry.AlertEvent
	for _, v := range p.devices {
		if v.dirty || v.recomputing || v.loading || v.state.Roll.LastMs() == 0 {
			continue
		}
		if p.options.Stream && len(v.held) > 0 {
			events = append(events, p.announce(v, func(found time.Time) bool { return now.Sub(found) >= heldFor })...)
		}
		if next, ok := rules.Engine.Next(&v.state.Alerts); !ok || next > now.UnixMilli() {
			continue
		}
		if s, ok := p.claims.Status(v.id); !ok || s.InFlight > 0 {
			continue
		}
		v.advance(rules.Engine, now.UnixMilli())
		if len(v.events) > v.considered {
			events = append(events, p.newEvents(v)...)
		}
	}
	p.mu.Unlock()
	p.notify(events)
}
