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
	doubtful := d.pick(func(v *device) bool {
		return v.doubtful && v.pending == 0 && (all || !v.shared || now.Sub(v.derivedAt) >= sharedEvery)
	})
	// Those that sent lately go first, and those of which nothing was ever derived last. What takes longer than the time
	// between two flushes goes on after the next one: a backlog holds nothing up that is live.
	d.mu.Lock()
	slices.SortFunc(doubtful, func(a, b *device) int {
		return cmp.Or(cmp.Compare(b2i(a.reason == "gap"), b2i(b.reason == "gap")), b.lastSeen.Compare(a.lastSeen), cmp.Compare(a.id, b.id))
	})
	d.mu.Unlock()
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

// replacement is a derivation of a device that takes the place of what is stored of it.
type replacement struct {
	id     string
	first  cassandra.Day // from which on it is derived anew
	fleets []string      // that the device was seen in
	shared bool          // another process has, or had, records of it too
	whole  bool          // no row of an alert is trusted for that of its device being right
	at     int64         // when what it follows from was looked at
	fresh  *outcome
	old    existing
}

func (d *Deriver) rederiveDevice(ctx context.Context, v *device) error {
	started := d.now()
	d.mu.Lock()
	r := &replacement{
		id: v.id, first: v.doubtDay, fleets: slices.Collect(maps.Keys(v.fleet)), shared: v.shared || len(v.adopted) > 0, whole: v.whole,
	}
	reason, adopted := v.reason, slices.Clone(v.adopted)
	v.deriving, v.doubtful, v.whole = true, false, false
	d.mu.Unlock()
	engine, rules := d.engine.Load(), *d.rules.Load()
	r.at = d.stamp() // before anything is read
	until := aheadOf(started)

	alone := false
	sure, err := d.read(ctx, cassandra.TableHistory, func(ctx context.Context, s Store) (err error) {
		if r.shared { // whoever has taken his mark away has stored everything that is read next
			marks, err := s.ClaimsOfDevice(ctx, v.id)
			if err != nil {
				return err
			}
			alone = !slices.ContainsFunc(marks, func(m cassandra.Claim) bool {
				return m.InstanceID != d.process && !slices.Contains(adopted, m.InstanceID)
			})
		}
		if r.fresh, err = replay(ctx, s, engine, v.id, r.first, cassandra.DayOf(until), rules, started.UnixMilli()); err != nil {
			return err
		}
		r.old, err = stored(ctx, s, v.id, r.first, &r.fresh.base, until, r.fleets)
		return err
	})
	if err == nil {
		err = d.replace(ctx, r)
	}
	if err != nil {
		return err
	}
	if r.whole && !sure {
		d.mu.Lock()
		v.whole = true
		d.mu.Unlock()
	}
	d.metrics.rederived[reason].Inc()
	d.metrics.rederive.Observe(d.now().Sub(started).Seconds())
	if r.shared {
		d.noteAlone(v, alone && sure, started)
	}
	d.tell(d.install(v, r, started, sure))
	return d.writeOpen(ctx, v, r)
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
func (d *Deriver) writeOpen(ctx context.Context, v *device, r *replacement) error {
	var open []cassandra.AlertState
	d.mu.Lock()
	for key, a := range r.fresh.alerts {
		if a.EndedMs == 0 && !r.old.byHand[key] {
			row := alertRow(v.id, a)
			row.Notify = v.told[key] != ""
			open = append(open, row)
		}
	}
	d.mu.Unlock()
	for _, row := range open {
		if err := d.write(ctx, cassandra.TableOpenAlerts, 1, func(ctx context.Context) error {
			return d.stores.Sure.WriteOpenAlert(ctx, &row, r.at+1)
		}); err != nil {
			return err
		}
	}
	return nil
}

// stored reads what is stored of the rows that can change when a device is derived anew from a day on.
func stored(ctx context.Context, s Store, deviceID string, first cassandra.Day, base *state, untilMs int64, fleets []string) (old existing, err error) {
	from := first.Time().UnixMilli()
	if old.days, err = s.DeviceDays(ctx, deviceID, first); err != nil {
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
	lives, err := s.FleetAlerts(ctx, a.FleetID, cassandra.DayOf(a.OpenedMs), a.OpenedMs, a.OpenedMs)
	return slices.DeleteFunc(lives, func(l cassandra.AlertState) bool { return l.DeviceID != a.DeviceID || l.Type != a.Type }), err
}

// replace writes what follows from a device's fixes and takes back what does not any more.
func (d *Deriver) replace(ctx context.Context, r *replacement) (err error) {
	c := changes{id: r.id, days: r.fresh.days}
	gone := map[fleetHour]bool{} // hours to which the device may not add anything any more
	if err := d.takeBackAlerts(ctx, r, gone); err != nil {
		return err
	}
	if c.alerts, err = d.alertsAnew(ctx, r); err != nil {
		return err
	}
	if c.trips, err = d.replaceTrips(ctx, r); err != nil {
		return err
	}
	if c.hours, err = d.replaceHours(ctx, r, gone); err != nil {
		return err
	}
	return d.writeChanges(ctx, []changes{c}, r.at)
}

// takeBackAlerts takes back rows of alerts that are none any more, or that are written again. It notes the hours that they
// were added to.
func (d *Deriver) takeBackAlerts(ctx context.Context, r *replacement, gone map[fleetHour]bool) error {
	s := d.stores.Sure
	for _, was := range r.old.alerts {
		is, stays := r.fresh.alerts[keyOfRow(was)]
		if stays && string(is.Severity) == was.Severity && is.FleetID == was.FleetID && (is.EndedMs != 0 || was.EndedMs == 0) {
			continue
		}
		before := r.at
		if stays {
			before-- // it has another severity, fleet or no end any more, and is written again just after it is taken back
		}
		if err := d.try(ctx, cassandra.TableAlerts, func(ctx context.Context) error { return s.DeleteFleetAlert(ctx, &was, before) }); err != nil {
			return err
		}
		if was.EndedMs == 0 && (!stays || is.FleetID != was.FleetID) {
			if err := d.try(ctx, cassandra.TableOpenAlerts, func(ctx context.Context) error {
				return s.DeleteOpenAlert(ctx, was.FleetID, r.id, was.Type, r.at)
			}); err != nil {
				return err
			}
		}
		gone[fleetHour{was.FleetID, hourOf(was.OpenedMs)}] = true
		if stays {
			continue
		}
		// The device's own row goes last: as long as it is there, a derivation finds the others.
		if err := d.try(ctx, cassandra.TableDeviceAlerts, func(ctx context.Context) error {
			return s.DeleteDeviceAlert(ctx, r.id, was.OpenedMs, was.Type, r.at)
		}); err != nil {
			return err
		}
	}
	return nil
}

// alertsAnew gives the alerts that are to be written, and takes back what others may have written of them.
func (d *Deriver) alertsAnew(ctx context.Context, r *replacement) (anew []alertChange, err error) {
	known := map[alertKey]cassandra.AlertState{}
	for _, was := range r.old.alerts {
		known[keyOfRow(was)] = was
	}
	for key, a := range r.fresh.alerts {
		row := alertRow(r.id, a)
		// Of a shared device another process may have taken back, by a clock that is ahead, what its fleet's row says.
		if r.shared || r.whole {
			if err := d.takeBackOthers(ctx, r, row); err != nil {
				return nil, err
			}
		} else if was, there := known[key]; there && sameAlert(row, was) {
			continue
		}
		anew = append(anew, alertChange{row: row})
	}
	return anew, nil
}

// replaceTrips takes back trips and stops that are none any more, and gives those that are to be written.
func (d *Deriver) replaceTrips(ctx context.Context, r *replacement) (anew []cassandra.TripRow, err error) {
	known := map[tripKey]cassandra.TripRow{}
	for _, was := range r.old.trips {
		key := tripKey{was.StartMs, rollup.TripKind(was.Kind)}
		known[key] = was
		if _, stays := r.fresh.trips[key]; stays {
			continue
		}
		if err := d.try(ctx, cassandra.TableTrips, func(ctx context.Context) error {
			return d.stores.Sure.DeleteTrip(ctx, r.id, was.StartMs, was.Kind, r.at)
		}); err != nil {
			return nil, err
		}
	}
	for key, t := range r.fresh.trips {
		row := tripRow(t)
		if was, there := known[key]; !there || !sameTrip(row, was) {
			anew = append(anew, row)
		}
	}
	sortTrips(anew)
	return anew, nil
}

// replaceHours takes back what the device added to hours that are gone, and to those of fleets of which it turns out not
// to have been. It gives what it adds now.
func (d *Deriver) replaceHours(ctx context.Context, r *replacement, gone map[fleetHour]bool) ([]rollup.Hour, error) {
	fleets := r.fleets
	for _, day := range slices.Concat(r.fresh.days, r.old.days) {
		for _, fleet := range day.Fleets {
			if !slices.Contains(fleets, fleet) {
				fleets = append(fleets, fleet)
			}
		}
	}
	if len(fleets) > 1 {
		for _, day := range r.fresh.days {
			for _, fleet := range fleets {
				for h := range int64(24) {
					gone[fleetHour{fleet, day.Day.Time().UnixMilli() + h*hourMs}] = true
				}
			}
		}
	}
	for key := range r.fresh.hours {
		delete(gone, key)
	}
	for key := range gone {
		if err := d.try(ctx, cassandra.TableHours, func(ctx context.Context) error {
			return d.stores.Sure.DeleteHour(ctx, key.fleet, key.hourMs, r.id, r.at)
		}); err != nil {
			return nil, err
		}
	}
	d.mu.Lock()
	maps.Copy(d.hours, gone)
	d.mu.Unlock()
	return slices.Collect(maps.Values(r.fresh.hours)), nil
}

// takeBackOthers takes an alert off the fleets and severities that another process may have found it in, when it had seen
// other records. The device's own row, which has one fleet and severity, does not tell.
func (d *Deriver) takeBackOthers(ctx context.Context, r *replacement, is cassandra.AlertState) error {
	for _, fleet := range r.fleets {
		if fleet != is.FleetID {
			if err := d.try(ctx, cassandra.TableOpenAlerts, func(ctx context.Context) error {
				return d.stores.Sure.DeleteOpenAlert(ctx, fleet, is.DeviceID, is.Type, r.at)
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
			if err := d.try(ctx, cassandra.TableAlerts, func(ctx context.Context) error { return d.stores.Sure.DeleteFleetAlert(ctx, &other, r.at) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// reconsider brings what people know of a device's alerts together with what a derivation came to: it recalls what another
// process told them, follows an alert that now opens at another time, and tells them of those that are none any more.
func (d *Deriver) reconsider(v *device, fresh *outcome, old *existing) (steps []telemetry.AlertEvent) {
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
				steps = append(steps, telemetry.AlertEvent{Alert: none, Transition: telemetry.AlertResolved, From: severity})
			}
		}
	}
	return steps
}

// install makes a derivation the device's state and feeds it what was stored meanwhile. It gives what people are to be
// told of.
func (d *Deriver) install(v *device, r *replacement, started time.Time, sure bool) []telemetry.AlertEvent {
	d.mu.Lock()
	defer d.mu.Unlock()
	engine, fresh := d.engine.Load(), r.fresh
	known := map[alertKey]bool{}
	for _, a := range r.old.alerts {
		known[keyOfRow(a)] = true
	}
	steps := d.reconsider(v, fresh, &r.old)
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
		v.doubt(r.first, "gap")
		return steps
	}
	slices.SortStableFunc(backlog, func(a, b telemetry.Record) int { return int(a.TimeMs - b.TimeMs) })
	for i := range backlog {
		record := &backlog[i]
		if seen, ok := fresh.fixes[record.TimeMs]; ok && seen == record.PayloadHash() {
			continue // it was read
		}
		d.feed(engine, v, record)
	}
	return append(steps, d.news(v)...)
}
