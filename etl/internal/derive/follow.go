package derive

import (
	"cmp"
	"context"
	"iter"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/alerting"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// announced is what a window has of one device.
type announced struct {
	records int
	day     cassandra.Day // the earliest
	fleets  []string
}

// Before is told of the records of a window before they are written. It returns when each of their devices is marked.
func (d *Deriver) Before(ctx context.Context, records iter.Seq[*telemetry.Record]) error {
	select {
	case <-d.connected:
	case <-ctx.Done():
		return ctx.Err()
	}
	window := map[string]*announced{}
	for r := range records {
		if telemetry.PlatformFleet(r.FleetID) {
			continue
		}
		day := cassandra.DayOf(r.TimeMs)
		a := window[r.DeviceID]
		if a == nil {
			a = &announced{day: day}
			window[r.DeviceID] = a
		}
		a.records++
		a.day = min(a.day, day)
		if !slices.Contains(a.fleets, r.FleetID) {
			a.fleets = append(a.fleets, r.FleetID)
		}
	}
	if err := d.waitForRoom(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(meetsAtOnce)
	for id, a := range window {
		for {
			v, met, wait := d.touch(id, a)
			if wait != nil { // its mark is being taken away
				select {
				case <-wait:
					continue
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			if !met {
				g.Go(func() error { return d.meet(ctx, v, "shared") })
			} else if v != nil {
				g.Go(func() error { return d.mark(ctx, v) })
			}
			break
		}
	}
	return g.Wait()
}

// waitForRoom holds a window back while there are too many devices and some of them can be let go.
func (d *Deriver) waitForRoom(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { d.room.Broadcast() })
	defer stop()
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.devices) >= d.options.Devices && ctx.Err() == nil {
		free := false
		for _, v := range d.devices {
			if v.pending == 0 {
				free = true
				break
			}
		}
		if !free {
			break
		}
		d.crowded = true
		d.wake()
		d.room.Wait()
	}
	d.crowded = false
	return ctx.Err()
}

// touch notes what is announced of a device. v is nil when nothing is to be done for it; met is false when it has to be
// met; wait is there when it has to be touched again once that is closed.
func (d *Deriver) touch(id string, a *announced) (v *device, met bool, wait chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if wait := d.releasing[id]; wait != nil {
		return nil, false, wait
	}
	v = d.devices[id]
	if v == nil {
		v = newDevice(id, a.day, d.now())
		v.pending = a.records
		v.join(a.fleets)
		d.devices[id] = v
		delete(d.silent, id)
		return v, false, nil
	}
	v.pending += a.records
	changed := v.join(a.fleets)
	if a.day < v.fromDay {
		v.fromDay, changed = a.day, true
	}
	if !changed {
		return nil, true, nil
	}
	return v, true, nil
}

// mark writes the device's mark as it is now.
func (d *Deriver) mark(ctx context.Context, v *device) error {
	d.mu.Lock()
	m := cassandra.Claim{InstanceID: d.process, DeviceID: v.id, FromDay: v.fromDay}
	for fleet := range v.fleet {
		m.Fleets = append(m.Fleets, fleet)
	}
	d.mu.Unlock()
	at := d.stamp()
	return d.try(ctx, cassandra.TableClaims, func(ctx context.Context) error { return d.stores.Sure.WriteClaim(ctx, m, at) })
}

// meet marks a device that was not in memory, looks for others' marks on it, which are the reason to derive it anew, and
// takes over its state.
func (d *Deriver) meet(ctx context.Context, v *device, reason string) error {
	if err := d.mark(ctx, v); err != nil {
		return err
	}
	var others []cassandra.Claim
	var last cassandra.DeviceDay
	var old, open []cassandra.AlertState
	found, stranger := false, false
	sure, err := d.read(ctx, cassandra.TableClaims, func(ctx context.Context, s Store) error {
		marks, err := s.ClaimsOfDevice(ctx, v.id)
		if err != nil {
			return err
		}
		others = slices.DeleteFunc(marks, func(m cassandra.Claim) bool { return m.InstanceID == d.process })
		if last, found, err = s.LastDeviceDay(ctx, v.id, cassandra.DayOf(d.now().UnixMilli())+1); err != nil {
			return err
		}
		if found {
			if restored, ok := decodeState(last.State); ok {
				if old, err = s.DeviceAlerts(ctx, v.id, restored.Roll.LastMs()+1, aheadOf(d.now())); err != nil {
					return err
				}
				open, err = openOf(ctx, s, v.id, fleetsOf(slices.Collect(restored.Alerts.Open()), old))
			}
			return err
		}
		// Nothing was ever derived of it. It may have a history all the same.
		_, err = s.Latest(ctx, v.id)
		stranger = cassandra.ReasonOf(err) == cassandra.ReasonNotFound
		if stranger {
			err = nil
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, m := range others {
		if err := d.try(ctx, cassandra.TableInstances, func(ctx context.Context) error {
			return d.stores.Sure.AddSharedDevices(ctx, m.InstanceID, []string{v.id})
		}); err != nil {
			return err
		}
	}

	d.mu.Lock()
	defer d.mu.Unlock()
	if found {
		d.after(last.WriteTimeUs)
		s, ok := decodeState(last.State)
		if ok {
			v.state, v.day = s, last.Day
			v.knownMs = s.advancedMs()
			v.recallTold(open)
			for _, a := range old {
				if v.old == nil {
					v.old = map[alertKey]telemetry.Severity{}
				}
				v.old[keyOfRow(a)] = telemetry.Severity(a.Severity)
			}
		} else {
			v.doubt(last.Day, "gap")
		}
		v.join(last.Fleets)
	} else if !stranger {
		v.doubt(d.oldest(), "gap")
	}
	for _, m := range others {
		v.shared = true
		if v.sharers == nil {
			v.sharers = map[string]bool{}
		}
		v.sharers[m.InstanceID] = true
		v.doubt(m.FromDay, reason)
		v.fromDay = min(v.fromDay, m.FromDay)
		v.join(m.Fleets)
	}
	if !sure {
		v.doubt(v.fromDay, "gap")
	}
	return nil
}

// Rederive has devices derived anew from a day on, when Finish is called.
func (d *Deriver) Rederive(ctx context.Context, deviceIDs []string, from cassandra.Day) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(meetsAtOnce)
	for _, id := range deviceIDs {
		v, met, _ := d.touch(id, &announced{day: from})
		if met {
			continue
		}
		g.Go(func() error {
			err := d.meet(ctx, v, "shared")
			d.mu.Lock()
			defer d.mu.Unlock()
			v.doubt(from, "gap")
			v.whole = true
			return err
		})
	}
	return g.Wait()
}

// fleetsOf is the fleets of alerts.
func fleetsOf(alerts []telemetry.Alert, rows []cassandra.AlertState) (fleets []string) {
	add := func(fleet string) {
		if !slices.Contains(fleets, fleet) {
			fleets = append(fleets, fleet)
		}
	}
	for _, a := range alerts {
		add(a.FleetID)
	}
	for _, r := range rows {
		add(r.FleetID)
	}
	return fleets
}

// openOf is the stored open alerts of a device in some fleets.
func openOf(ctx context.Context, s Store, deviceID string, fleets []string) (open []cassandra.AlertState, err error) {
	for _, fleet := range fleets {
		rows, err := s.OpenAlertsOfDevice(ctx, fleet, deviceID)
		if err != nil {
			return nil, err
		}
		open = append(open, rows...)
	}
	return open, nil
}

// oldest is the first day that stored telemetry can be of.
func (d *Deriver) oldest() cassandra.Day {
	return cassandra.DayOf(d.now().Add(-telemetry.Retention).UnixMilli()) - 1
}

// Stored follows records that are durable. Batches come in the order in which Before announced them.
func (d *Deriver) Stored(records []*telemetry.Record) {
	started := d.now()
	d.mu.Lock()
	steps := d.follow(records)
	d.room.Broadcast()
	d.mu.Unlock()
	if len(records) > 0 {
		d.metrics.fold.Observe(d.now().Sub(started).Seconds())
	}
	d.tell(steps)
}

// follow feeds the records of a window to their devices, in event order.
func (d *Deriver) follow(records []*telemetry.Record) []telemetry.AlertEvent {
	now := d.now()
	engine := d.engine.Load()
	var touched []*device
	for _, r := range records {
		if telemetry.PlatformFleet(r.FleetID) {
			continue
		}
		v := d.devices[r.DeviceID]
		if len(v.batch) == 0 {
			touched = append(touched, v)
		}
		v.batch = append(v.batch, r)
	}
	var steps []telemetry.AlertEvent
	for _, v := range touched {
		inOrder := func(a, b *telemetry.Record) int { return cmp.Compare(a.TimeMs, b.TimeMs) }
		if !slices.IsSortedFunc(v.batch, inOrder) {
			slices.SortStableFunc(v.batch, inOrder)
		}
		v.lastSeen = now
		v.pending -= len(v.batch)
		for _, r := range v.batch {
			d.feed(engine, v, r)
		}
		steps = append(steps, d.news(v)...)
		clear(v.batch) // the window's records are let go
		if v.batch = v.batch[:0]; cap(v.batch) > batchKept {
			v.batch = nil
		}
	}
	return steps
}

// batchKept is how many records of a window a device keeps room for.
const batchKept = 32

// feed gives a device one more of its stored records.
func (d *Deriver) feed(engine *alerting.Engine, v *device, r *telemetry.Record) {
	switch {
	case v.deriving:
		if len(v.backlog) >= backlogLimit {
			v.overflow = true
		} else {
			v.backlog = append(v.backlog, *r)
		}
	case v.doubtful:
		v.doubt(cassandra.DayOf(r.TimeMs), v.reason)
	case v.shared:
		v.doubt(cassandra.DayOf(r.TimeMs), "shared")
	case r.TimeMs <= v.state.advancedMs(), v.breaksSilence(r.TimeMs):
		v.doubt(cassandra.DayOf(r.TimeMs), "late")
	default:
		day := cassandra.DayOf(r.TimeMs)
		if day != v.day && v.day != 0 {
			d.endDay(v)
		}
		v.day = day
		v.state.apply(engine, r, v)
		v.dirty, v.unadvanced, v.oldOver = true, nil, true
	}
}

// endDay keeps the state at the end of the device's day, to be written.
func (d *Deriver) endDay(v *device) {
	if text, err := v.stored(); err == nil { // states always can be written
		v.days = append(v.days, cassandra.DeviceDay{Day: v.day, State: text, Rules: *d.rules.Load()})
	}
}

// news picks what people are to be told of the steps that a device has made since the last time.
func (d *Deriver) news(v *device) []telemetry.AlertEvent {
	var told []telemetry.AlertEvent
	for _, step := range v.steps[v.considered:] {
		if severity, ok := v.old[keyOfAlert(step.Alert)]; ok && step.Transition != telemetry.AlertResolved && !step.Severity.HigherThan(severity) {
			continue // it was raised before the state was stored
		}
		d.metrics.step(step)
		if out, ok := d.telling(v, step); ok {
			told = append(told, out)
		}
	}
	if len(v.steps) > v.considered {
		d.stepped = append(d.stepped, v)
		d.wake()
	}
	v.considered = len(v.steps)
	if v.oldOver {
		v.old, v.oldOver = nil, false
	}
	v.knownMs = max(v.knownMs, v.state.advancedMs())
	return told
}

// telling gives a step as people are to be told of it, and notes that they know. ok is false where it is no news: what was
// raised at an event time that had been passed already came of late records, and of an alert that people do not know they
// hear nothing later either.
func (d *Deriver) telling(v *device, step telemetry.AlertEvent) (out telemetry.AlertEvent, ok bool) {
	key := keyOfAlert(step.Alert)
	out = telemetry.AlertEvent{Alert: step.Alert, Transition: step.Transition, From: v.told[key]}
	out.DeviceID = v.id
	switch step.Transition {
	case telemetry.AlertOpened:
		if ok = step.OpenedMs > v.knownMs && d.isNews(step.Alert); ok {
			v.knowTold(key, step.Severity)
		}
	case telemetry.AlertEscalated:
		if ok = out.From != "" && step.Severity.HigherThan(out.From); ok {
			v.told[key] = step.Severity
		}
	case telemetry.AlertResolved:
		ok = out.From != ""
		delete(v.told, key)
	}
	return out, ok
}

// isNews tells whether people are to be told of an alert that was found just now.
func (d *Deriver) isNews(a telemetry.Alert) bool {
	return d.now().UnixMilli()-a.OpenedMs <= d.options.NewsAge.Milliseconds()
}

// advance tells devices that time went on: those that have fallen silent are offline.
func (d *Deriver) advance() {
	d.mu.Lock()
	now := d.now()
	engine := d.engine.Load()
	var steps []telemetry.AlertEvent
	for _, v := range d.devices {
		if v.doubtful || v.deriving || v.pending > 0 || v.state.Roll.LastMs() == 0 {
			continue
		}
		v.advance(engine, now.UnixMilli())
		if len(v.steps) > v.considered {
			steps = append(steps, d.news(v)...)
		}
	}
	d.mu.Unlock()
	d.tell(steps)
}

func (d *Deriver) tell(steps []telemetry.AlertEvent) {
	if len(steps) > 0 && d.options.Tell != nil {
		d.options.Tell(steps)
	}
}
