package derive

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/rollup"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// changes is what is to be written of one device.
type changes struct {
	id     string
	hours  []rollup.Hour
	trips  []cassandra.TripRow
	alerts []alertChange
	days   []cassandra.DeviceDay
}

// alertChange is an alert as it is to be stored. escalated says that there may be a row of a lower severity.
type alertChange struct {
	row       cassandra.AlertState
	escalated bool
	opened    bool // or escalated: it is to stand among the open ones
}

// rowsAtOnce are written as one mutation.
const rowsAtOnce = 100

// take gives what waits to be written of a device. slow is set when its open rows are due as well.
func (v *device) take(slow bool) changes {
	c := changes{id: v.id, days: v.days, alerts: v.takeSteps()}
	current := newRows()
	for _, h := range v.hours {
		current.Hour(h)
	}
	for _, t := range v.trips {
		current.Trip(t)
	}
	if v.dirty || slow {
		last := newRows()
		v.state.Roll.Current(&last)
		maps.Copy(current.hours, last.hours)
		if slow {
			maps.Copy(current.trips, last.trips)
		}
	}
	v.owesOpen = !slow && (v.owesOpen || v.dirty)
	if slow {
		for a := range v.state.Alerts.Open() {
			c.alerts = append(c.alerts, alertChange{row: alertRow(v.id, a)})
		}
	}
	c.hours = slices.Collect(maps.Values(current.hours))
	for _, t := range current.trips {
		c.trips = append(c.trips, tripRow(t))
	}
	sortTrips(c.trips)
	v.hours, v.trips, v.days, v.dirty = nil, nil, nil, false
	return c
}

// takeSteps gives the alerts that took steps, each as it is after the last.
func (v *device) takeSteps() []alertChange {
	var taken []alertChange
	for _, step := range v.steps {
		row := alertRow(v.id, step.Alert)
		row.Notify = v.told[keyOfAlert(step.Alert)] != ""
		change := alertChange{row: row, escalated: step.Transition == telemetry.AlertEscalated, opened: step.Transition != telemetry.AlertResolved}
		i := slices.IndexFunc(taken, func(c alertChange) bool { return c.row.OpenedMs == row.OpenedMs && c.row.Type == row.Type })
		if i < 0 {
			taken = append(taken, change)
			continue
		}
		change.escalated = change.escalated || taken[i].escalated
		change.opened = change.opened || taken[i].opened
		taken[i] = change
	}
	v.steps, v.considered = nil, 0
	return taken
}

// rows gathers hours and trips by their keys.
type rows struct {
	hours map[fleetHour]rollup.Hour
	trips map[tripKey]rollup.Trip
}

func newRows() rows {
	return rows{hours: map[fleetHour]rollup.Hour{}, trips: map[tripKey]rollup.Trip{}}
}

// Hour and Trip note a row as it now is.
func (r *rows) Hour(h rollup.Hour) { r.hours[fleetHour{h.FleetID, h.StartMs}] = h }
func (r *rows) Trip(t rollup.Trip) { r.trips[tripKey{t.StartMs, t.Kind}] = t }

// flush writes what changed since the last time.
func (d *Deriver) flush(ctx context.Context, all bool) error {
	started := d.now()
	defer func() { d.metrics.flush.Observe(d.now().Sub(started).Seconds()) }()
	var changed []changes
	d.mu.Lock()
	at := d.stamp()
	d.stepped = nil // all that took steps are taken here
	for _, v := range d.devices {
		slow := all || !started.Before(v.slowDue)
		if v.quiet() && (!v.owesOpen || !slow) {
			continue
		}
		if slow {
			v.slowDue = started.Add(slowEvery)
		}
		v.flushedAt = started
		changed = append(changed, v.take(slow))
	}
	d.mu.Unlock()
	slices.SortFunc(changed, func(a, b changes) int { return cmp.Compare(a.id, b.id) })
	return d.writeChanges(ctx, changed, at)
}

// flushAlerts writes the alerts that took steps since the last time.
func (d *Deriver) flushAlerts(ctx context.Context) error {
	d.cycle.Lock()
	defer d.cycle.Unlock()
	var changed []changes
	d.mu.Lock()
	at := d.stamp()
	for _, v := range d.stepped {
		if len(v.steps) > 0 {
			changed = append(changed, changes{id: v.id, alerts: v.takeSteps()})
		}
	}
	d.stepped = nil
	d.mu.Unlock()
	return d.writeChanges(ctx, changed, at)
}

func (d *Deriver) writeChanges(ctx context.Context, changed []changes, at int64) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(meetsAtOnce)
	byHour := map[fleetHour][]cassandra.HourRow{}
	for i := range changed {
		c := &changed[i]
		for _, h := range c.hours {
			key := fleetHour{h.FleetID, h.StartMs}
			byHour[key] = append(byHour[key], hourRow(c.id, h))
		}
		if len(c.alerts) > 0 || len(c.trips) > 0 || len(c.days) > 0 {
			g.Go(func() error { return d.writeDevice(ctx, c, at) })
		}
	}
	for _, hours := range byHour {
		for part := range slices.Chunk(hours, rowsAtOnce) {
			g.Go(func() error {
				return d.write(ctx, cassandra.TableHours, len(part), func(ctx context.Context) error {
					return d.stores.Sure.WriteHours(ctx, part, at)
				})
			})
		}
	}
	err := g.Wait()
	d.mu.Lock()
	for key := range byHour {
		d.hours[key] = true
	}
	d.mu.Unlock()
	return err
}

// writeDevice writes what is kept by device.
func (d *Deriver) writeDevice(ctx context.Context, c *changes, at int64) error {
	for _, a := range c.alerts {
		if err := d.writeAlert(ctx, a, at); err != nil {
			return err
		}
	}
	if len(c.trips) > 0 {
		err := d.write(ctx, cassandra.TableTrips, len(c.trips), func(ctx context.Context) error {
			return d.stores.Sure.WriteTrips(ctx, c.id, c.trips, at)
		})
		if err != nil {
			return err
		}
		for _, t := range c.trips {
			if !t.Open {
				d.metrics.trips[rollup.TripKind(t.Kind)].Inc()
			}
		}
	}
	for _, day := range c.days {
		err := d.write(ctx, cassandra.TableDeviceDays, 1, func(ctx context.Context) error {
			return d.stores.Sure.WriteDeviceDay(ctx, c.id, day, at)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// writeAlert writes an alert to where it is looked for: first among its device's, from where a derivation finds it again
// whatever happens next.
func (d *Deriver) writeAlert(ctx context.Context, a alertChange, at int64) error {
	s, row := d.stores.Sure, a.row
	if err := d.write(ctx, cassandra.TableDeviceAlerts, 1, func(ctx context.Context) error {
		return s.WriteDeviceAlert(ctx, &row, at)
	}); err != nil {
		return err
	}
	if a.escalated {
		for _, lower := range telemetry.Severities {
			if telemetry.Severity(row.Severity).HigherThan(lower) {
				old := row
				old.Severity = string(lower)
				if err := d.try(ctx, cassandra.TableAlerts, func(ctx context.Context) error { return s.DeleteFleetAlert(ctx, &old, at) }); err != nil {
					return err
				}
			}
		}
	}
	if err := d.write(ctx, cassandra.TableAlerts, 1, func(ctx context.Context) error { return s.WriteFleetAlert(ctx, &row, at) }); err != nil {
		return err
	}
	switch {
	case row.EndedMs != 0:
		return d.try(ctx, cassandra.TableOpenAlerts, func(ctx context.Context) error {
			return s.DeleteOpenAlert(ctx, row.FleetID, row.DeviceID, row.Type, at)
		})
	case a.opened:
		return d.write(ctx, cassandra.TableOpenAlerts, 1, func(ctx context.Context) error { return s.WriteOpenAlert(ctx, &row, at+1) })
	}
	return nil
}
