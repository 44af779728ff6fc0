package derive

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/alerting"
	"github.com/fleettracing/fleet-tracing/etl/internal/rollup"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Difference is one row that is not what follows from the stored telemetry.
type Difference struct {
	Table string // where
	Key   string // which row
	What  string // what is wrong with it
}

func (d Difference) String() string { return fmt.Sprintf("%s %s: %s", d.Table, d.Key, d.What) }

// Devices is the devices of a fleet, those that moved to another among them.
type Devices func(ctx context.Context, fleetID string) ([]string, error)

// Verifier computes what follows from the stored telemetry and compares it with what is stored.
type Verifier struct {
	Store   Store // reads at a level that meets every acknowledged write
	Engine  *alerting.Engine
	Rules   string // fingerprint of what Engine goes by
	Devices Devices
	Now     func() time.Time
}

// Report is what a verification found.
type Report struct {
	Fleets, Devices, DeviceDays, Fixes, Trips, Alerts, Hours int

	Moving      int // devices that send right now: what is open of them, and their current hour, is on its way to the store
	OtherRules  int // days of devices that were derived by other rules than those in force
	Differences []Difference
}

// justNow is how fresh something may be to be on its way to the store still.
const justNow = 3 * time.Minute

// justDecided is how long after its end a trip or stop may be known to have ended, and be on its way to the store still.
const justDecided = 10 * time.Minute

// Verify looks at the fleets' days from first to last.
func (v *Verifier) Verify(ctx context.Context, fleets []string, first, last cassandra.Day) (*Report, error) {
	report := &Report{Fleets: len(fleets)}
	hours := map[fleetHour]map[string]cassandra.HourRow{}
	moving := map[fleetHour]bool{} // hours that change while they are looked at
	seen := map[string]bool{}
	for _, fleet := range fleets {
		ids, err := v.Devices(ctx, fleet)
		if err != nil {
			return nil, err
		}
		ids = slices.DeleteFunc(ids, func(id string) bool { again := seen[id]; seen[id] = true; return again })
		found := make([]*checked, len(ids))
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(readsAtOnce)
		for i, id := range ids {
			g.Go(func() (err error) {
				found[i], err = v.device(ctx, id, first, last)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return nil, err
		}
		for i, c := range found {
			report.add(c)
			for key, h := range c.outcome.hours {
				if day := cassandra.DayOf(key.hourMs); day < first || day > last {
					continue
				}
				if c.moving && key.hourMs >= hourOf(c.outcome.lastFix.TimeMs) {
					moving[key] = true
				}
				if hours[key] == nil {
					hours[key] = map[string]cassandra.HourRow{}
				}
				hours[key][ids[i]] = hourRow(ids[i], h)
			}
		}
	}
	if err := v.hours(ctx, report, fleets, hours, moving, first, last); err != nil {
		return nil, err
	}
	slices.SortFunc(report.Differences, func(a, b Difference) int {
		return slices.Compare([]string{a.Table, a.Key, a.What}, []string{b.Table, b.Key, b.What})
	})
	return report, nil
}

// checked is one device with what was found of it.
type checked struct {
	outcome     *outcome
	differences []Difference
	days        int
	otherRules  int
	fixes       int
	alerts      int
	moving      bool
}

func (c *checked) differ(table, key, format string, args ...any) {
	c.differences = append(c.differences, Difference{table, key, fmt.Sprintf(format, args...)})
}

func (r *Report) add(c *checked) {
	r.Devices++
	if c.moving {
		r.Moving++
	}
	r.DeviceDays += c.days
	r.OtherRules += c.otherRules
	r.Fixes += c.fixes
	r.Trips += len(c.outcome.trips)
	r.Alerts += c.alerts
	r.Differences = append(r.Differences, c.differences...)
}

// device checks what is kept by device.
func (v *Verifier) device(ctx context.Context, id string, first, last cassandra.Day) (*checked, error) {
	now := v.Now()
	until := min((last+1).Time().UnixMilli()-1, now.UnixMilli())
	o, err := replay(ctx, v.Store, v.Engine, id, first, last, v.Rules, until)
	if err != nil {
		return nil, err
	}
	c := &checked{outcome: o, days: len(o.days), moving: now.UnixMilli()-o.lastFix.TimeMs < justNow.Milliseconds()}
	var fleets []string
	if o.lastFix.FleetID != "" {
		fleets = append(fleets, o.lastFix.FleetID)
	}
	old, err := stored(ctx, v.Store, id, first, &o.base, until, fleets)
	if err != nil {
		return nil, err
	}
	ours := map[cassandra.Day]cassandra.DeviceDay{}
	for _, day := range old.days {
		if day.Day <= last {
			ours[day.Day] = day
		}
	}
	for _, day := range o.days {
		if was, ok := ours[day.Day]; ok && was.Rules != v.Rules {
			c.otherRules++
		}
	}
	c.fixes = o.count
	v.trips(c, id, old.trips, last)
	complete := until == now.UnixMilli()
	if err := v.alerts(ctx, c, id, &old, first, until, complete); err != nil {
		return nil, err
	}
	if complete && !c.moving {
		v.open(c, &old, first)
	}
	return c, v.latest(ctx, c, id, last)
}

// latest checks that the newest fix is on the map.
func (v *Verifier) latest(ctx context.Context, c *checked, id string, last cassandra.Day) error {
	if c.outcome.lastFix.TimeMs == 0 || last < cassandra.DayOf(v.Now().UnixMilli()) {
		return nil // there may be newer ones than those looked at
	}
	row, err := v.Store.Latest(ctx, id)
	if cassandra.ReasonOf(err) == cassandra.ReasonNotFound {
		c.differ(cassandra.TableLatest, id, "missing; its newest fix is of %s", formatMs(c.outcome.lastFix.TimeMs))
		return nil
	}
	if err != nil {
		return err
	}
	fix := &c.outcome.lastFix
	if c.moving && row.Ts.UnixMilli() > fix.TimeMs {
		return nil // it sent meanwhile
	}
	if row.Ts.UnixMilli() != fix.TimeMs || row.Lat != fix.Lat || row.Lon != fix.Lon || row.FleetID != fix.FleetID {
		c.differ(cassandra.TableLatest, id, "has %s at %g, %g in fleet %s; the newest fix is %s at %g, %g in fleet %s",
			formatMs(row.Ts.UnixMilli()), row.Lat, row.Lon, row.FleetID, formatMs(fix.TimeMs), fix.Lat, fix.Lon, fix.FleetID)
	}
	return nil
}

func (v *Verifier) trips(c *checked, id string, old []cassandra.TripRow, last cassandra.Day) {
	known := map[tripKey]cassandra.TripRow{}
	for _, t := range old {
		known[tripKey{t.StartMs, rollup.TripKind(t.Kind)}] = t
	}
	for key, t := range c.outcome.trips {
		row, name := tripRow(t), id+" "+string(t.Kind)+" of "+formatMs(t.StartMs)
		was, ok := known[key]
		delete(known, key)
		switch {
		case c.moving && v.Now().UnixMilli()-t.EndMs < justDecided.Milliseconds():
			// It goes on, or it has just been found that it does not.
		case !ok:
			c.differ(cassandra.TableTrips, name, "missing; it ends at %s", formatMs(t.EndMs))
		case t.Open && last < cassandra.DayOf(v.Now().UnixMilli()):
			// It goes on in days that are not looked at.
		case !sameTrip(row, was):
			c.differ(cassandra.TableTrips, name, "%s; should be %s", shown(was), shown(row))
		}
	}
	for key, t := range known {
		if c.moving && v.Now().UnixMilli()-t.EndMs < justDecided.Milliseconds() {
			continue
		}
		c.differ(cassandra.TableTrips, id+" "+string(key.kind)+" of "+formatMs(key.startMs), "there is none")
	}
}

// shown is a trip in words.
func shown(t cassandra.TripRow) string {
	state := "ended"
	if t.Open {
		state = "open"
	}
	speed := "none"
	if t.MaxSpeedKmh != nil {
		speed = fmt.Sprint(*t.MaxSpeedKmh)
	}
	return fmt.Sprintf("%s at %s in %g,%g (%s) after %g km, at most %s km/h, %g s idle, from %g,%g (%s) in fleet %s",
		state, formatMs(t.EndMs), t.EndLat, t.EndLon, t.EndZone, t.DistanceKm, speed, t.IdleS, t.StartLat, t.StartLon, t.StartZone, t.FleetID)
}

// alerts checks a device's alerts against its fixes, and those of its fleet against them. complete says that they are
// looked at up to now.
func (v *Verifier) alerts(ctx context.Context, c *checked, id string, old *existing, first cassandra.Day, untilMs int64, complete bool) error {
	known := map[alertKey]cassandra.AlertState{}
	for _, a := range old.alerts {
		known[keyOfRow(a)] = a
	}
	for key, a := range c.outcome.alerts {
		row := alertRow(id, a)
		if a.OpenedMs < first.Time().UnixMilli() || a.OpenedMs > untilMs {
			continue
		}
		c.alerts++
		name := alertName(row)
		was, ok := known[key]
		delete(known, key)
		if !ok {
			if (a.Type == telemetry.DeviceOffline || c.moving) && v.Now().UnixMilli()-a.OpenedMs < justNow.Milliseconds() {
				continue
			}
			c.differ(cassandra.TableDeviceAlerts, name, "missing: %s", a.Message)
			continue
		}
		settled := complete && !c.moving
		if a.EndedMs != 0 {
			settled = !c.moving || v.Now().UnixMilli()-a.EndedMs > justNow.Milliseconds()
		}
		if was.EndedMs != row.EndedMs && settled {
			c.differ(cassandra.TableDeviceAlerts, name, "ends at %s, should end at %s", formatMs(was.EndedMs), formatMs(row.EndedMs))
		}
		if was.Severity != row.Severity || was.FleetID != row.FleetID || was.StartedMs != row.StartedMs {
			if settled && (a.EndedMs != 0 || a.Type != telemetry.DeviceOffline) {
				c.differ(cassandra.TableDeviceAlerts, name, "is %s in fleet %s since %s, should be %s in %s since %s",
					was.Severity, was.FleetID, formatMs(was.StartedMs), row.Severity, row.FleetID, formatMs(row.StartedMs))
			}
		}
		lives, err := livesOf(ctx, v.Store, &was)
		if err != nil {
			return err
		}
		switch {
		case len(lives) == 0:
			c.differ(cassandra.TableAlerts, name, "missing")
		case len(lives) > 1:
			c.differ(cassandra.TableAlerts, name, "stands there %d times, by severity", len(lives))
		case c.moving && was.EndedMs == 0:
		case lives[0].EndedMs != was.EndedMs || was.EndedMs != 0 && !lives[0].Resolved:
			c.differ(cassandra.TableAlerts, name, "ends at %s, its device's row at %s", formatMs(lives[0].EndedMs), formatMs(was.EndedMs))
		}
	}
	for _, a := range known {
		if a.OpenedMs < first.Time().UnixMilli() {
			continue
		}
		c.differ(cassandra.TableDeviceAlerts, alertName(a), "there is none: %s", a.Message)
	}
	return nil
}

// open checks that those of a device's alerts that are open stand among its fleet's open ones, and no others.
func (v *Verifier) open(c *checked, old *existing, first cassandra.Day) {
	for _, was := range old.alerts {
		key := keyOfRow(was)
		a, ok := c.outcome.alerts[key]
		if !ok || a.EndedMs != 0 || old.byHand[key] || v.Now().UnixMilli()-a.OpenedMs < justNow.Milliseconds() {
			continue
		}
		if !old.isOpen(key) {
			c.differ(cassandra.TableOpenAlerts, alertName(was), "missing: %s", a.Message)
		}
	}
	for _, row := range old.open {
		a, ok := c.outcome.alerts[keyOfRow(row)]
		switch {
		case ok && a.EndedMs != 0:
			c.differ(cassandra.TableOpenAlerts, alertName(row), "it ended at %s", formatMs(a.EndedMs))
		case !ok && row.OpenedMs >= first.Time().UnixMilli():
			c.differ(cassandra.TableOpenAlerts, alertName(row), "there is none: %s", row.Message)
		case ok && a.FleetID != row.FleetID:
			c.differ(cassandra.TableOpenAlerts, alertName(row), "is in fleet %s, should be in %s", row.FleetID, a.FleetID)
		}
	}
}

// hours checks what devices add to hours, and the sums.
func (v *Verifier) hours(ctx context.Context, report *Report, fleets []string, hours map[fleetHour]map[string]cassandra.HourRow, moving map[fleetHour]bool, first, last cassandra.Day) error {
	differ := func(table, key, format string, args ...any) {
		report.Differences = append(report.Differences, Difference{table, key, fmt.Sprintf(format, args...)})
	}
	for _, fleet := range fleets {
		for day := first; day <= last; day++ {
			sums, err := v.Store.AnalyticsRows(ctx, fleet, day)
			if err != nil {
				return err
			}
			byHour := map[int32]cassandra.AnalyticsRow{}
			for _, sum := range sums {
				byHour[sum.Hour] = sum
			}
			for h := range int32(24) {
				key := fleetHour{fleet, day.Time().UnixMilli() + int64(h)*hourMs}
				name := fmt.Sprintf("%s %s", fleet, formatMs(key.hourMs))
				should := hours[key]
				was, there := byHour[h]
				if len(should) == 0 && !there || moving[key] {
					continue
				}
				report.Hours++
				rows, err := v.Store.Hours(ctx, fleet, key.hourMs)
				if err != nil {
					return err
				}
				for _, row := range rows {
					if want, ok := should[row.DeviceID]; !ok {
						differ(cassandra.TableHours, name+" "+row.DeviceID, "adds something, should add nothing")
					} else if row != want {
						differ(cassandra.TableHours, name+" "+row.DeviceID, "adds %g km of %d records and %d alerts, should add %g km of %d records and %d alerts",
							row.DistanceKm, row.Records, row.Alerts, want.DistanceKm, want.Records, want.Alerts)
					}
				}
				if len(rows) < len(should) {
					differ(cassandra.TableHours, name, "has %d devices, should have %d", len(rows), len(should))
				}
				sum, ok := sumHours(slices.Collect(maps.Values(should)))
				switch {
				case !there:
					differ(cassandra.TableAnalytics, name, "missing")
				case !ok:
					differ(cassandra.TableAnalytics, name, "there is none")
				case !sameAnalytics(sum, was):
					differ(cassandra.TableAnalytics, name, "is %g km, %d devices, %d alerts; should be %g km, %d devices, %d alerts",
						was.TotalDistanceKm, was.ActiveDevicesCount, was.AlertsCount, sum.TotalDistanceKm, sum.ActiveDevicesCount, sum.AlertsCount)
				}
			}
		}
	}
	return nil
}

func alertName(a cassandra.AlertState) string {
	return a.DeviceID + " " + a.Type + " of " + formatMs(a.OpenedMs)
}

func formatMs(ms int64) string {
	if ms == 0 {
		return "never"
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}
