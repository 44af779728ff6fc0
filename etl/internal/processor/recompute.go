package processor

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/claims"
	"github.com/fleettracing/fleet-tracing/etl/internal/derived"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/fair"
	"github.com/fleettracing/fleet-tracing/etl/internal/recompute"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// recomputation is a device that is recomputed.
type recomputation struct {
	device  *device
	reason  string
	status  claims.Status
	started time.Time
	request recompute.Request
	result  *recompute.Result
	strong  bool  // the reads overlapped every write
	others  bool  // other instances claim the device
	err     error // the device's rows can't be read
}

// recompute recomputes dirty devices, those of the fleets in turn: of a fleet, devices that sent recently go first, devices
// without derived rows last. A run ends after one flush interval and continues after the next flush, so that a backlog does
// not delay live devices.
func (p *Processor) recompute(ctx context.Context, lease claims.Lease, all bool) error {
	now := p.now()
	fleets := map[*device]string{}
	dirty := p.pick(func(v *device) bool {
		if !v.dirty || v.loading || now.Before(v.retryAt) {
			return false
		}
		s, ok := p.claims.Status(v.id)
		if len(s.Fleets) > 0 {
			fleets[v] = slices.Min(s.Fleets)
		}
		return ok && s.InFlight == 0 && (all || !s.Shared || now.Sub(v.recomputedAt) >= sharedEvery)
	})
	p.mu.Lock()
	gap := func(v *device) int {
		if v.reason == reasonGap {
			return 1
		}
		return 0
	}
	slices.SortFunc(dirty, func(a, b *device) int {
		return cmp.Or(cmp.Compare(gap(a), gap(b)), b.lastSeen.Compare(a.lastSeen), cmp.Compare(a.id, b.id))
	})
	from := make(map[*device]cassandra.Day, len(dirty))
	for _, v := range dirty {
		from[v] = v.dirtyFrom
	}
	p.mu.Unlock()
	dirty = fair.Interleave(dirty, func(v *device) string { return fleets[v] })
	for today := cassandra.DayOf(now.UnixMilli()); len(dirty) > 0 && (all || p.now().Sub(now) <= p.options.Flush); {
		n, days := 0, 0
		for n < len(dirty) && n < recomputeTogether && days < recomputeTogether {
			days += max(1, int(today-from[dirty[n]]))
			n++
		}
		if err := p.recomputeDevices(ctx, lease, dirty[:n]); err != nil {
			return err
		}
		dirty = dirty[n:]
	}
	return nil
}

// recomputeDevices recomputes some devices and writes the rows of all of them together.
func (p *Processor) recomputeDevices(ctx context.Context, lease claims.Lease, devices []*device) error {
	part := make([]*recomputation, len(devices))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(readsInParallel)
	for i, v := range devices {
		part[i] = p.beginRecomputation(v)
		g.Go(func() error {
			err := p.compute(gctx, part[i])
			if cassandra.Permanent(err) {
				part[i].err = err
				return nil
			}
			return err
		})
	}
	err := g.Wait()
	unreadable, unwritable := map[string]error{}, map[string]error{}
	if err == nil {
		rows := &derived.Changes{}
		for _, r := range part {
			if r.err != nil {
				unreadable[r.device.id] = r.err
			} else {
				r.result.AddTo(rows)
			}
		}
		unwritable, err = p.write(ctx, lease, rows)
	}
	if err != nil {
		p.abortRecomputation(part)
		return err
	}
	open := &derived.Changes{}
	for _, r := range part {
		if unreadable[r.device.id] != nil || unwritable[r.device.id] != nil {
			p.abortRecomputation([]*recomputation{r})
			continue
		}
		p.metrics.recomputed[r.reason].Inc()
		p.metrics.recompute.Observe(p.now().Sub(r.started).Seconds())
		if r.request.Shared {
			p.claims.NoteOthers(r.device.id, r.others || !r.strong, r.started)
		}
		events, notified := p.install(r)
		p.notify(events)
		r.result.AddOpenAlerts(open, func(key derived.AlertKey) bool { return notified[key] != "" })
	}
	p.fail(unreadable)
	_, err = p.write(ctx, lease, open)
	return err
}

func (p *Processor) beginRecomputation(v *device) *recomputation {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := &recomputation{device: v, reason: v.reason, started: p.now()}
	r.status, _ = p.claims.Status(v.id)
	r.request = recompute.Request{
		DeviceID: v.id, From: v.dirtyFrom, Fleets: r.status.Fleets, Shared: r.status.Shared || r.status.Adopted, Whole: v.whole,
		At: p.stamps.Next(), Now: r.started, // before anything is read
	}
	v.recomputing, v.dirty, v.whole = true, false, false
	return r
}

// abortRecomputation leaves devices dirty.
func (p *Processor) abortRecomputation(part []*recomputation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range part {
		v := r.device
		v.recomputing, v.backlog, v.overflow = false, nil, false
		v.whole = true
		v.markDirty(r.request.From, r.reason)
	}
}

// compute reads what a device is recomputed from.
func (p *Processor) compute(ctx context.Context, r *recomputation) (err error) {
	if r.status.Unchecked {
		shared, err := p.claims.Check(ctx, r.device.id)
		if err != nil {
			return err
		}
		r.request.Shared = r.request.Shared || shared
	}
	if r.request.Shared { // an instance that has deleted its claim has stored everything that is read next
		others, strong, err := p.claims.Others(ctx, r.device.id)
		if err != nil {
			return err
		}
		r.others = len(others) > 0 || !strong
	}
	rules := p.rules()
	r.strong, err = executor.ReadWithin(ctx, recomputeLimit, p.exec, p.stores, cassandra.TableHistory, func(ctx context.Context, s Store) (err error) {
		r.result, err = recompute.Device(ctx, s, rules, r.request)
		return err
	})
	return err
}

// install makes a recomputation the device's state and applies the records that were stored meanwhile. It returns the events
// to notify, and the alerts that receivers know.
func (p *Processor) install(r *recomputation) (events []telemetry.AlertEvent, notified map[derived.AlertKey]telemetry.Severity) {
	p.mu.Lock()
	defer p.mu.Unlock()
	v, fresh := r.device, r.result
	rules := p.rules()
	if v.failing() {
		v.retryAt = time.Time{}
		p.failures.Note(v.id, nil)
	}
	if r.request.Whole && !r.strong {
		v.whole = true
	}
	known := derived.ByKey(fresh.Existing.Alerts, derived.KeyOfRow)
	events = p.reconcile(v, fresh)
	for _, event := range fresh.Events {
		key := derived.KeyOf(event.Alert)
		_, stored := known[key]
		again := v.resend && stored && (v.notified[key] != "" || fresh.Alerts[key].EndedMs != 0 && p.isRecent(event.Alert))
		if event.Transition != telemetry.AlertOpened || !stored && v.notified[key] == "" {
			if out, ok := p.notification(v, event); ok {
				p.metrics.alert(event)
				events = append(events, out)
				continue
			}
		}
		if again {
			event.DeviceID = v.id
			events = append(events, event)
		}
	}
	held := v.held
	v.held = nil
	for key, a := range fresh.Alerts {
		switch from := v.notified[key]; {
		case a.EndedMs != 0 || fresh.Existing.ManuallyResolved[key]:
		case from == "":
			found, ok := held[key]
			if !ok {
				found = p.now()
			}
			v.hold(key, found)
		case a.Severity.HigherThan(from): // it took the place of an alert that receivers know
			v.notified[key] = a.Severity
			a.DeviceID = v.id
			events = append(events, telemetry.AlertEvent{Alert: a, Transition: telemetry.AlertEscalated, From: from})
		}
	}
	v.resend = false
	notified = maps.Clone(v.notified)
	v.state, v.day, v.beforeSilence, v.later = fresh.State, fresh.LastDay, fresh.BeforeSilence, nil
	v.knownMs = max(v.knownMs, v.state.AdvancedMs())
	v.hours, v.trips, v.events, v.announced, v.days, v.considered = nil, nil, nil, nil, nil, 0
	v.changed, v.owesOpen = false, false
	v.recomputing, v.recomputedAt, v.weak, v.flushedAt = false, r.started, !r.strong, p.now()
	for _, day := range fresh.Days {
		p.claims.Join(v.id, day.Fleets)
	}
	backlog := v.backlog
	v.backlog = nil
	if v.overflow {
		v.overflow = false
		v.markDirty(r.request.From, reasonGap)
		return events, notified
	}
	slices.SortStableFunc(backlog, func(a, b telemetry.Record) int { return cmp.Compare(a.TimeMs, b.TimeMs) })
	status, _ := p.claims.Status(v.id)
	for i := range backlog {
		if record := &backlog[i]; !fresh.Includes(record) {
			p.apply(rules, v, record, status.Shared)
		}
	}
	return append(events, p.newEvents(v)...), notified
}

// reconcile brings what receivers know of a device's alerts together with what a recomputation found: it restores what
// another instance notified, follows an alert that opens at another time now, and resolves alerts that do not exist.
func (p *Processor) reconcile(v *device, fresh *recompute.Result) (events []telemetry.AlertEvent) {
	old := &fresh.Existing
	v.restoreNotified(old.Open)
	for _, a := range old.Alerts {
		// The instance that stored it was about to write it among the open ones.
		key := derived.KeyOfRow(a)
		if a.EndedMs == 0 && !old.IsOpen(key) && !old.ManuallyResolved[key] && v.notified[key] == "" && p.isRecent(derived.AlertOf(a)) {
			v.noteNotified(key, telemetry.Severity(a.Severity))
		}
	}
	for key, severity := range v.notified {
		if _, stays := fresh.Alerts[key]; stays {
			continue
		}
		delete(v.notified, key)
		successor, moved := derived.AlertKey{}, false
		for other, a := range fresh.Alerts {
			if other.Type == key.Type && (a.EndedMs == 0 || a.EndedMs > key.OpenedMs) && (!moved || other.OpenedMs > successor.OpenedMs) {
				successor, moved = other, true
			}
		}
		if moved {
			if v.notified[successor] == "" {
				v.notified[successor] = severity
			}
			continue
		}
		for _, was := range old.Alerts {
			if derived.KeyOfRow(was) == key {
				gone := derived.AlertOf(was)
				gone.EndedMs = max(p.now().UnixMilli(), gone.OpenedMs)
				events = append(events, telemetry.AlertEvent{Alert: gone, Transition: telemetry.AlertResolved, From: severity})
			}
		}
	}
	return events
}
