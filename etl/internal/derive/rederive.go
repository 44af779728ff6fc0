package derive

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/rollup"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// rederive derives doubtful devices anew from what is stored.
func (d *Deriver) rederive(ctx context.Context, all bool) error {
	now := d.now()
	doubtful := d.each(func(v *device) bool {
		return v.doubtful && v.pending == 0 && (all || !v.shared || now.Sub(v.derivedAt) >= sharedEvery)
	})
	// Those that sent lately go first, and those of which nothing was ever derived last. What takes longer than the time
	// between two flushes goes on after the next one: a backlog holds nothing up that is live.
	slices.SortStableFunc(doubtful, func(a, b *device) int {
		return cmp.Or(cmp.Compare(b2i(a.reason == "gap"), b2i(b.reason == "gap")), b.lastSeen.Compare(a.lastSeen))
	})
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readsAtOnce)
	for _, v := range doubtful {
		if !all && d.now().Sub(now) > d.options.Flush {
			break
		}
		g.Go(func() error { return d.rederiveDevice(ctx, v) })
	}
	return g.Wait()
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// existing is what is stored of what follows from the fixes that a device is derived from.
type existing struct {
	days   []cassandra.DeviceDay
	trips  []cassandra.TripRow
	alerts []cassandra.AlertState
	open   []cassandra.AlertState // those that stand among the open ones
	byHand map[alertKey]bool      // open alerts that somebody has resolved
}

// aheadOf is the latest event time that anything can have at a time.
func aheadOf(now time.Time) int64 { return now.Add(telemetry.MaxAhead).UnixMilli() }

func (d *Deriver) rederiveDevice(ctx context.Context, v *device) error {
	started := d.now()
	d.mu.Lock()
	first, reason := v.doubtDay, v.reason
	v.deriving, v.doubtful = true, false
	shared, adopted := v.shared || len(v.adopted) > 0, slices.Clone(v.adopted)
	whole := v.whole
	v.whole = false
	fleets := slices.Collect(maps.Keys(v.fleet))
	d.mu.Unlock()
	engine, rules := d.engine.Load(), *d.rules.Load()
	at := d.stamp() // before anything is read
	last := cassandra.DayOf(aheadOf(started))

	var fresh *outcome
	var old existing
	alone := false
	sure, err := d.read(ctx, cassandra.TableHistory, func(ctx context.Context, s Store) (err error) {
		if shared { // whoever has taken his mark away has stored everything that is read next
			marks, err := s.Marks(ctx, v.id)
			if err != nil {
				return err
			}
			alone = !slices.ContainsFunc(marks, func(m cassandra.Mark) bool {
				return m.ProcessID != d.process && !slices.Contains(adopted, m.ProcessID)
			})
		}
		if fresh, err = replay(ctx, s, engine, v.id, first, last, rules, started.UnixMilli()); err != nil {
			return err
		}
		old, err = stored(ctx, s, v.id, first, &fresh.base, aheadOf(started), fleets)
		return err
	})
	if err == nil {
		err = d.replace(ctx, v.id, shared, whole, fleets, first, last, fresh, old, at)
	}
	if err != nil {
		return err
	}
	if whole && !sure {
		d.mu.Lock()
		v.whole = true
		d.mu.Unlock()
	}
	d.metrics.rederived[reason].Inc()
	d.metrics.rederive.Observe(d.now().Sub(started).Seconds())
	if shared {
		d.noteAlone(v, alone && sure, started)
	}
	told := d.install(v, fresh, old, started, sure, first)
	d.tell(told)
	return d.writeOpen(ctx, v, fresh, old.byHand, at)
}

// noteAlone ends the sharing of a device when nobody else has had it for longer than clocks may differ.
func (d *Deriver) noteAlone(v *device, alone bool, started time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !alone:
		v.aloneSince = time.Time{}
	case v.aloneSince.IsZero():
		v.aloneSince = started
	case started.Sub(v.aloneSince) >= d.options.Settle:
		v.shared, v.sharers, v.aloneSince = false, nil, time.Time{}
	}
}

// writeOpen writes the open alerts that a derivation came to, but for those that somebody has resolved.
func (d *Deriver) writeOpen(ctx context.Context, v *device, fresh *outcome, byHand map[alertKey]bool, at int64) error {
	var open []cassandra.AlertState
	d.mu.Lock()
	for key, a := range fresh.alerts {
		if a.EndedMs == 0 && !byHand[key] {
			row := alertRow(v.id, a)
			row.Notify = v.told[key] != ""
			open = append(open, row)
		}
	}
	d.mu.Unlock()
	for _, row := range open {
		if err := d.write(ctx, cassandra.TableOpenAlerts, 1, func(ctx context.Context) error {
			return d.stores.Sure.WriteOpenAlert(ctx, &row, at+1)
		}); err != nil {
			return err
		}
	}
	return nil
}

// stored reads what is stored of the rows that can change when a device is derived anew from a day on.
func stored(ctx context.Context, s Store, deviceID string, first cassandra.Day, base *state, untilMs int64, fleets []string) (old existing, err error) {
	from := first.Time().UnixMilli()
	if old.days, err = s.DaysFrom(ctx, deviceID, first); err != nil {
		return old, err
	}
	tripsFrom := from
	if open := base.Roll.OpenFromMs(); base.Roll.LastMs() != 0 && open < tripsFrom {
		tripsFrom = open
	}
	if old.trips, err = s.Trips(ctx, deviceID, tripsFrom, untilMs); err != nil {
		return old, err
	}
	// Alerts that were open then may have ended otherwise, and the silence after the last fix may have meant something.
	if base.Roll.LastMs() != 0 {
		from = min(from, base.Roll.LastMs()+1)
	}
	open, oldest := map[alertKey]bool{}, from
	for a := range base.Alerts.Open() {
		open[keyOfAlert(a)] = true
		oldest = min(oldest, a.OpenedMs)
	}
	if old.alerts, err = s.DeviceAlerts(ctx, deviceID, oldest, untilMs); err != nil {
		return old, err
	}
	old.alerts = slices.DeleteFunc(old.alerts, func(a cassandra.AlertState) bool {
		return a.OpenedMs < from && !open[keyOfRow(a)]
	})
	for _, a := range old.alerts {
		if !slices.Contains(fleets, a.FleetID) {
			fleets = append(slices.Clone(fleets), a.FleetID)
		}
	}
	if old.open, err = openOf(ctx, s, deviceID, fleets); err != nil {
		return old, err
	}
	for _, a := range old.alerts {
		if a.EndedMs != 0 || old.isOpen(keyOfRow(a)) {
			continue
		}
		lives, err := livesOf(ctx, s, &a)
		if err != nil {
			return old, err
		}
		if slices.ContainsFunc(lives, func(l cassandra.AlertState) bool { return l.Resolved && l.EndedMs == 0 }) {
			if old.byHand == nil {
				old.byHand = map[alertKey]bool{}
			}
			old.byHand[keyOfRow(a)] = true
		}
	}
	return old, nil
}

func (o *existing) isOpen(key alertKey) bool {
	return slices.ContainsFunc(o.open, func(row cassandra.AlertState) bool { return keyOfRow(row) == key })
}

// livesOf is the rows of a device's alert among its fleet's: one, unless it stands there by several severities.
func livesOf(ctx context.Context, s Store, a *cassandra.AlertState) ([]cassandra.AlertState, error) {
	lives, err := s.AlertLives(ctx, a.FleetID, cassandra.DayOf(a.OpenedMs), a.OpenedMs, a.OpenedMs)
	return slices.DeleteFunc(lives, func(l cassandra.AlertState) bool { return l.DeviceID != a.DeviceID || l.Type != a.Type }), err
}

// replace writes what follows from a device's fixes and takes back what does not any more. With whole set it trusts no
// row of an alert for that of its device being right.
func (d *Deriver) replace(ctx context.Context, id string, shared, whole bool, fleets []string, first, last cassandra.Day, fresh *outcome, old existing, at int64) error {
	s := d.stores.Sure
	c := changes{id: id, days: fresh.days}

	// Alerts: a row that is none any more goes, and with it what it added to its hour.
	gone := map[fleetHour]bool{}
	for _, was := range old.alerts {
		is, stays := fresh.alerts[keyOfRow(was)]
		if stays && string(is.Severity) == was.Severity && is.FleetID == was.FleetID && (is.EndedMs != 0 || was.EndedMs == 0) {
			continue
		}
		before := at
		if stays {
			before-- // it has another severity, fleet or no end any more, and is written again just after it is taken back
		}
		if err := d.try(ctx, cassandra.TableAlerts, func(ctx context.Context) error { return s.DeleteAlert(ctx, &was, before) }); err != nil {
			return err
		}
		if was.EndedMs == 0 && (!stays || is.FleetID != was.FleetID) {
			if err := d.try(ctx, cassandra.TableOpenAlerts, func(ctx context.Context) error {
				return s.DeleteOpenAlert(ctx, was.FleetID, id, was.Type, at)
			}); err != nil {
				return err
			}
		}
		gone[fleetHour{was.FleetID, was.OpenedMs - was.OpenedMs%hourMs}] = true
		if stays {
			continue
		}
		// The device's own row goes last: as long as it is there, a derivation finds the others.
		if err := d.try(ctx, cassandra.TableDeviceAlerts, func(ctx context.Context) error {
			return s.DeleteDeviceAlert(ctx, id, was.OpenedMs, was.Type, at)
		}); err != nil {
			return err
		}
	}
	known := map[alertKey]cassandra.AlertState{}
	for _, was := range old.alerts {
		known[keyOfRow(was)] = was
	}
	for key, a := range fresh.alerts {
		row := alertRow(id, a)
		if shared || whole {
			if err := d.takeBackOthers(ctx, row, fleets, at); err != nil {
				return err
			}
		}
		was, there := known[key]
		// Of a shared device another process may have taken back, by a clock that is ahead, what its fleet's row says.
		if there && sameAlert(row, was) && !shared && !whole {
			continue
		}
		c.alerts = append(c.alerts, alertChange{row: row})
	}

	// Trips and stops.
	var trips []cassandra.TripRow
	for _, t := range fresh.trips {
		trips = append(trips, tripRow(t))
	}
	for _, was := range old.trips {
		if _, stays := fresh.trips[tripKey{was.StartMs, rollup.TripKind(was.Kind)}]; !stays {
			if err := d.try(ctx, cassandra.TableTrips, func(ctx context.Context) error {
				return s.DeleteTrip(ctx, id, was.StartMs, was.Kind, at)
			}); err != nil {
				return err
			}
		}
	}
	for _, t := range trips {
		if !slices.ContainsFunc(old.trips, func(was cassandra.TripRow) bool { return sameTrip(t, was) }) {
			c.trips = append(c.trips, t)
		}
	}
	sortTrips(c.trips)

	// Hours, those in fleets of which the device no longer turns out to have been among them.
	for _, day := range slices.Concat(fresh.days, old.days) {
		for _, fleet := range day.Fleets {
			if !slices.Contains(fleets, fleet) {
				fleets = append(fleets, fleet)
			}
		}
	}
	if len(fleets) > 1 {
		for day := first; day <= last; day++ {
			if !slices.ContainsFunc(fresh.days, func(f cassandra.DeviceDay) bool { return f.Day == day }) {
				continue
			}
			for _, fleet := range fleets {
				for h := range int64(24) {
					gone[fleetHour{fleet, day.Time().UnixMilli() + h*hourMs}] = true
				}
			}
		}
	}
	for key, h := range fresh.hours {
		delete(gone, key)
		c.hours = append(c.hours, h)
	}
	for key := range gone {
		if err := d.try(ctx, cassandra.TableHours, func(ctx context.Context) error { return s.DeleteHour(ctx, key.fleet, key.hourMs, id, at) }); err != nil {
			return err
		}
	}
	d.mu.Lock()
	for key := range gone {
		d.hours[key] = true
	}
	d.mu.Unlock()
	return d.writeChanges(ctx, []changes{c}, at)
}

// takeBackOthers takes an alert off the fleets and severities that another process may have found it in, when it had seen
// other records. The device's own row, which has one fleet and severity, does not tell.
func (d *Deriver) takeBackOthers(ctx context.Context, is cassandra.AlertState, fleets []string, at int64) error {
	for _, fleet := range fleets {
		if fleet != is.FleetID {
			if err := d.try(ctx, cassandra.TableOpenAlerts, func(ctx context.Context) error {
				return d.stores.Sure.DeleteOpenAlert(ctx, fleet, is.DeviceID, is.Type, at)
			}); err != nil {
				return err
			}
		}
		for _, severity := range telemetry.Severities {
			if fleet == is.FleetID && string(severity) == is.Severity {
				continue
			}
			other := is
			other.FleetID, other.Severity = fleet, string(severity)
			if err := d.try(ctx, cassandra.TableAlerts, func(ctx context.Context) error { return d.stores.Sure.DeleteAlert(ctx, &other, at) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// reconsider brings what people know of a device's alerts together with what a derivation came to: it recalls what another
// process told them, follows an alert that now opens at another time, and tells them of those that are none any more.
func (d *Deriver) reconsider(v *device, fresh *outcome, old *existing) (steps []Step) {
	v.recallTold(old.open)
	for _, a := range old.alerts {
		// Whoever stored it was about to put it among the open ones.
		if key := keyOfRow(a); a.EndedMs == 0 && !old.isOpen(key) && !old.byHand[key] && v.told[key] == "" && d.isNews(AlertOf(a)) {
			v.knowTold(key, telemetry.Severity(a.Severity))
		}
	}
	for key, severity := range v.told {
		if _, stays := fresh.alerts[key]; stays {
			continue
		}
		delete(v.told, key)
		now, moved := alertKey{}, false
		for other, a := range fresh.alerts {
			if other.kind == key.kind && (a.EndedMs == 0 || a.EndedMs > key.openedMs) && (!moved || other.openedMs > now.openedMs) {
				now, moved = other, true
			}
		}
		if moved {
			if v.told[now] == "" {
				v.told[now] = severity
			}
			continue
		}
		for _, was := range old.alerts {
			if keyOfRow(was) == key {
				none := AlertOf(was)
				none.EndedMs = max(d.now().UnixMilli(), none.OpenedMs)
				steps = append(steps, Step{Alert: none, Transition: telemetry.AlertResolved, From: severity})
			}
		}
	}
	return steps
}

// install makes a derivation the device's state and feeds it what was stored meanwhile. It gives what people are to be
// told of.
func (d *Deriver) install(v *device, fresh *outcome, old existing, started time.Time, sure bool, first cassandra.Day) []Step {
	d.mu.Lock()
	defer d.mu.Unlock()
	engine := d.engine.Load()
	known := map[alertKey]bool{}
	for _, a := range old.alerts {
		known[keyOfRow(a)] = true
	}
	steps := d.reconsider(v, fresh, &old)
	for _, step := range fresh.steps {
		if key := keyOfAlert(step.Alert); step.Transition == telemetry.AlertOpened && (known[key] || v.told[key] != "") {
			continue
		}
		if out, ok := d.telling(v, step); ok {
			d.metrics.step(step)
			steps = append(steps, out)
		}
	}
	v.state, v.day, v.unadvanced, v.old = fresh.state, fresh.day, fresh.unadvanced, nil
	v.knownMs = max(v.knownMs, v.state.advancedMs())
	v.hours, v.trips, v.steps, v.days, v.considered = nil, nil, nil, nil, 0
	v.dirty, v.owesOpen = false, false
	v.deriving, v.derivedAt, v.unsure, v.flushedAt = false, started, !sure, d.now()
	for _, day := range fresh.days {
		v.join(day.Fleets)
	}
	backlog := v.backlog
	v.backlog = nil
	if v.overflow {
		v.overflow = false
		v.doubt(first, "gap")
		return steps
	}
	slices.SortStableFunc(backlog, func(a, b telemetry.Record) int { return int(a.TimeMs - b.TimeMs) })
	for i := range backlog {
		r := &backlog[i]
		if seen, ok := fresh.fixes[r.TimeMs]; ok && seen == r.PayloadHash() {
			continue // it was read
		}
		d.feed(engine, v, r)
	}
	return append(steps, d.news(v)...)
}
