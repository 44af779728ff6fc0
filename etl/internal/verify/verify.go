// Package verify recomputes what follows from the stored records and compares it with the derived rows that are stored.
package verify

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/derived"
	"github.com/fleettracing/fleet-tracing/etl/internal/recompute"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Difference is one row that does not follow from the stored records.
type Difference struct {
	Table string // where
	Key   string // which row
	What  string // what is wrong with it
}

func (d Difference) String() string { return fmt.Sprintf("%s %s: %s", d.Table, d.Key, d.What) }

// Store is what is compared. Its reads overlap every acknowledged write.
type Store interface {
	recompute.Store
	rows
}

type rows interface {
	DeviceIDs(ctx context.Context, fleetID string) ([]string, error) // devices that moved to another fleet included
	Latest(ctx context.Context, deviceID string) (cassandra.Telemetry, error)
	Hours(ctx context.Context, fleetID string, hourMs int64) ([]cassandra.HourRow, error)
	Analytics(ctx context.Context, fleetID string, first, last cassandra.Day) ([]cassandra.AnalyticsRow, error)
	ClaimsOfDevices(ctx context.Context, deviceIDs ...string) ([]cassandra.Claim, error)
}

// Verifier compares stored rows with what follows from the stored records.
type Verifier struct {
	Store Store
	Rules derived.Rules
	Now   func() time.Time
}

// Report is the result of a verification.
type Report struct {
	Fleets, Devices, DeviceDays, Records, Trips, Alerts, Hours int

	OtherRules  int // device days that were derived with other rules than those in force
	NotVerified NotVerified
	Differences []Difference
}

// NotVerified counts what could not be compared, by reason. None of it is known to be right.
type NotVerified struct {
	Sending int // devices that sent within the last three minutes: their open trips and alerts
	Pending int // devices that an instance still derives, and whose rows differ
	Hours   int // hours to which such devices add
}

// Any reports whether anything could not be compared.
func (n NotVerified) Any() bool { return n.Sending+n.Pending+n.Hours > 0 }

// writeDelay is how recent something may be to be on its way to the store still.
const writeDelay = 3 * time.Minute

// tripDelay is how long after its end a trip or stop may be known to have ended, and be on its way to the store still.
const tripDelay = 10 * time.Minute

// readsInParallel is the number of devices that are read in parallel.
const readsInParallel = 8

// verification is one call of Verify. Its maps have what the records of all devices lead to.
type verification struct {
	*Verifier
	report      *Report
	first, last cassandra.Day
	alerts      map[fleetAlert]bool
	hours       map[cassandra.FleetHour]map[string]cassandra.HourRow // by device
	unsettled   map[cassandra.FleetHour]bool                         // hours that change while they are read
	claimed     map[string]bool                                      // devices that an instance derives, or that can't be read; false for others
}

// Verify compares the days of fleets from first to last.
func (v *Verifier) Verify(ctx context.Context, fleets []string, first, last cassandra.Day) (*Report, error) {
	x := &verification{
		Verifier: v, report: &Report{Fleets: len(fleets)}, first: first, last: last, alerts: map[fleetAlert]bool{},
		hours: map[cassandra.FleetHour]map[string]cassandra.HourRow{}, unsettled: map[cassandra.FleetHour]bool{}, claimed: map[string]bool{},
	}
	for _, fleet := range fleets {
		var ids []string
		if err := x.skipping(ctx, cassandra.TableDevices, fleet, func(ctx context.Context) (err error) {
			ids, err = v.Store.DeviceIDs(ctx, fleet)
			return err
		}); err != nil {
			return nil, err
		}
		ids = slices.DeleteFunc(ids, func(id string) bool { _, seen := x.claimed[id]; return seen })
		found := make([]*comparison, len(ids))
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(readsInParallel)
		for i, id := range ids {
			g.Go(func() error {
				failed, err := limited(gctx, func(ctx context.Context) (err error) {
					found[i], err = v.device(ctx, id, first, last)
					return err
				})
				if failed != nil {
					found[i] = &comparison{failed: failed}
				}
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return nil, err
		}
		for i, c := range found {
			x.add(ids[i], c)
		}
	}
	pending := map[string]bool{} // devices with such alerts
	for _, fleet := range fleets {
		if err := x.skipping(ctx, cassandra.TableAlerts, fleet, func(ctx context.Context) error {
			return x.fleetAlerts(ctx, fleet, pending)
		}); err != nil {
			return nil, err
		}
		for day := first; day <= last; day++ {
			if err := x.hoursOfDay(ctx, fleet, day); err != nil {
				return nil, err
			}
		}
	}
	x.report.NotVerified.Pending += len(pending)
	slices.SortFunc(x.report.Differences, func(a, b Difference) int {
		return slices.Compare([]string{a.Table, a.Key, a.What}, []string{b.Table, b.Key, b.What})
	})
	return x.report, nil
}

// readLimit is how long the rows of one device, or of one part of a fleet, may take to be read.
const readLimit = 10 * time.Minute

// limited runs reads that others do not depend on. failed is the error if the fault is in what they read, or they take too
// long. err is set if other reads would fail as well.
func limited(ctx context.Context, read func(context.Context) error) (failed, err error) {
	attempt, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	err = read(attempt)
	switch {
	case err == nil || ctx.Err() != nil:
		return nil, err
	case attempt.Err() != nil || cassandra.Permanent(err) || cassandra.ReasonOf(err).Advice() == cassandra.Retry:
		return err, nil
	}
	return nil, err
}

// skipping runs reads of a fleet, and reports the fleet or its part as a difference if they fail.
func (x *verification) skipping(ctx context.Context, table, key string, read func(context.Context) error) error {
	failed, err := limited(ctx, read)
	if failed != nil {
		x.report.Differences = append(x.report.Differences, Difference{table, key, "can't be verified: " + failed.Error()})
	}
	return err
}

// add adds the comparison of a device to the report, and notes what its records lead to.
func (x *verification) add(id string, c *comparison) {
	r := x.report
	r.Devices++
	if c.failed != nil {
		r.Differences = append(r.Differences, Difference{cassandra.TableHistory, id, "can't be verified: " + c.failed.Error()})
		x.claimed[id] = true // so that nothing is said of the hours that it may add to
		return
	}
	if c.sending {
		r.NotVerified.Sending++
	}
	r.DeviceDays += len(c.outcome.Days)
	r.OtherRules += c.otherRules
	r.Records += c.outcome.Count
	r.Trips += len(c.outcome.Trips)
	r.Alerts += c.alerts
	if c.pending() {
		r.NotVerified.Pending++
	} else {
		r.Differences = append(r.Differences, c.differences...)
	}
	for key, h := range c.outcome.Hours {
		if day := cassandra.DayOf(key.HourMs); day < x.first || day > x.last {
			continue
		}
		if c.pending() || c.sending && key.HourMs >= derived.HourOf(c.outcome.LastRecord.TimeMs) {
			x.unsettled[key] = true
		}
		if x.hours[key] == nil {
			x.hours[key] = map[string]cassandra.HourRow{}
		}
		x.hours[key][id] = derived.HourRow(id, h)
	}
	for key, a := range c.outcome.Alerts {
		x.alerts[fleetAlert{a.FleetID, id, key}] = true
	}
	x.claimed[id] = len(c.claims) > 0
}

// comparison is one device with the differences that were found.
type comparison struct {
	id          string
	nowMs       int64
	first, last cassandra.Day
	untilMs     int64 // end of the range, or now
	claims      []cassandra.Claim
	outcome     *recompute.Outcome // the rows that should be stored
	existing    recompute.Existing // the stored rows
	sending     bool               // it sent lately
	differences []Difference
	otherRules  int
	alerts      int
	failed      error // the device's rows can't be read
}

// pending reports whether the differences of the device may disappear: an instance still derives it.
func (c *comparison) pending() bool { return len(c.claims) > 0 && len(c.differences) > 0 }

func (c *comparison) differ(table, key, format string, args ...any) {
	c.differences = append(c.differences, Difference{table, key, fmt.Sprintf(format, args...)})
}

// within reports whether a time is at most some time ago.
func (c *comparison) within(ms int64, delay time.Duration) bool {
	return c.nowMs-ms < delay.Milliseconds()
}

// device compares the rows of one device.
func (v *Verifier) device(ctx context.Context, id string, first, last cassandra.Day) (c *comparison, err error) {
	c = &comparison{id: id, nowMs: v.Now().UnixMilli(), first: first, last: last}
	c.untilMs = min((last+1).Time().UnixMilli()-1, c.nowMs)
	// The claims come first: an instance that has deleted its claim has stored everything that is read next.
	if c.claims, err = v.Store.ClaimsOfDevices(ctx, id); err != nil {
		return nil, err
	}
	o, err := recompute.Replay(ctx, v.Store, v.Rules, id, first, last, c.untilMs)
	if err != nil {
		return nil, err
	}
	c.outcome, c.sending = o, c.within(o.LastRecord.TimeMs, writeDelay)
	var fleets []string
	if o.LastRecord.FleetID != "" {
		fleets = append(fleets, o.LastRecord.FleetID)
	}
	if c.existing, err = recompute.ReadExisting(ctx, v.Store, id, first, &o.Base, c.untilMs, fleets); err != nil {
		return nil, err
	}
	for _, was := range c.existing.Days {
		if was.Rules != v.Rules.Fingerprint && slices.ContainsFunc(o.Days, func(day cassandra.DeviceDay) bool { return day.Day == was.Day }) {
			c.otherRules++
		}
	}
	c.compareTrips()
	if err := c.compareAlerts(ctx, v.Store); err != nil {
		return nil, err
	}
	if c.untilMs == c.nowMs && !c.sending {
		c.compareOpen()
	}
	return c, c.compareLatest(ctx, v.Store)
}

// compareLatest compares the latest position.
func (c *comparison) compareLatest(ctx context.Context, s Store) error {
	if c.outcome.LastRecord.TimeMs == 0 || c.last < cassandra.DayOf(c.nowMs) {
		return nil // later days may have newer records
	}
	row, err := s.Latest(ctx, c.id)
	if cassandra.ReasonOf(err) == cassandra.ReasonNotFound {
		c.differ(cassandra.TableLatest, c.id, "missing; its newest record is of %s", formatMs(c.outcome.LastRecord.TimeMs))
		return nil
	}
	if err != nil {
		return err
	}
	want := &c.outcome.LastRecord
	if c.sending && row.Ts.UnixMilli() > want.TimeMs {
		return nil // it sent meanwhile
	}
	if row.Ts.UnixMilli() != want.TimeMs || row.Lat != want.Lat || row.Lon != want.Lon || row.FleetID != want.FleetID {
		c.differ(cassandra.TableLatest, c.id, "has %s at %g, %g in fleet %s; the newest record is %s at %g, %g in fleet %s",
			formatMs(row.Ts.UnixMilli()), row.Lat, row.Lon, row.FleetID, formatMs(want.TimeMs), want.Lat, want.Lon, want.FleetID)
	}
	return nil
}

func (c *comparison) compareTrips() {
	known := derived.ByKey(c.existing.Trips, derived.KeyOfTrip)
	name := func(key derived.TripKey) string {
		return c.id + " " + string(key.Kind) + " of " + formatMs(key.StartMs)
	}
	for key, t := range c.outcome.Trips {
		row := derived.TripRow(t)
		was, ok := known[key]
		delete(known, key)
		switch {
		case c.sending && c.within(t.EndMs, tripDelay):
			// It continues, or has just been found to have ended.
		case !ok:
			c.differ(cassandra.TableTrips, name(key), "missing; it ends at %s", formatMs(t.EndMs))
		case t.Open && c.last < cassandra.DayOf(c.nowMs):
			// It continues in days outside the range.
		case !derived.SameTrip(row, was):
			c.differ(cassandra.TableTrips, name(key), "%s; should be %s", describe(was), describe(row))
		}
	}
	for key, t := range known {
		if !c.sending || !c.within(t.EndMs, tripDelay) {
			c.differ(cassandra.TableTrips, name(key), "should not exist")
		}
	}
}

// describe returns a trip in words.
func describe(t cassandra.TripRow) string {
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

// compareAlerts compares a device's alerts, and the rows of its fleets with them.
func (c *comparison) compareAlerts(ctx context.Context, s Store) error {
	known := derived.ByKey(c.existing.Alerts, derived.KeyOfRow)
	for key, a := range c.outcome.Alerts {
		row := derived.AlertRow(c.id, a)
		if a.OpenedMs < c.first.Time().UnixMilli() || a.OpenedMs > c.untilMs {
			continue
		}
		c.alerts++
		name := alertName(row)
		was, ok := known[key]
		delete(known, key)
		if !ok {
			if a.Type != telemetry.DeviceOffline && !c.sending || !c.within(a.OpenedMs, writeDelay) {
				c.differ(cassandra.TableDeviceAlerts, name, "missing: %s", a.Message)
			}
			continue
		}
		settled := c.untilMs == c.nowMs && !c.sending
		if a.EndedMs != 0 {
			settled = !c.sending || !c.within(a.EndedMs, writeDelay)
		}
		if was.EndedMs != row.EndedMs && settled {
			c.differ(cassandra.TableDeviceAlerts, name, "ends at %s, should end at %s", formatMs(was.EndedMs), formatMs(row.EndedMs))
		}
		same := was.Severity == row.Severity && was.FleetID == row.FleetID && was.StartedMs == row.StartedMs
		if !same && settled && (a.EndedMs != 0 || a.Type != telemetry.DeviceOffline) {
			c.differ(cassandra.TableDeviceAlerts, name, "is %s in fleet %s since %s, should be %s in %s since %s",
				was.Severity, was.FleetID, formatMs(was.StartedMs), row.Severity, row.FleetID, formatMs(row.StartedMs))
		}
		rows, err := recompute.FleetRows(ctx, s, &was)
		if err != nil {
			return err
		}
		switch {
		case len(rows) == 0:
			c.differ(cassandra.TableAlerts, name, "missing")
		case len(rows) > 1:
			c.differ(cassandra.TableAlerts, name, "exists %d times, with different severities", len(rows))
		case c.sending && was.EndedMs == 0:
		case rows[0].EndedMs != was.EndedMs || was.EndedMs != 0 && !rows[0].Resolved:
			c.differ(cassandra.TableAlerts, name, "ends at %s, the row of its device at %s", formatMs(rows[0].EndedMs), formatMs(was.EndedMs))
		}
	}
	for _, a := range known {
		if a.OpenedMs >= c.first.Time().UnixMilli() {
			c.differ(cassandra.TableDeviceAlerts, alertName(a), "should not exist: %s", a.Message)
		}
	}
	return nil
}

// fleetAlert identifies an alert of a fleet.
type fleetAlert struct {
	fleet, device string
	key           derived.AlertKey
}

// fleetAlerts finds alerts of a fleet that no record leads to and that have no row of their device: the comparison
// of the device did not find those. It adds devices to pending that an instance still derives.
func (x *verification) fleetAlerts(ctx context.Context, fleet string, pending map[string]bool) error {
	rows, err := x.Store.Alerts(ctx, cassandra.AlertQuery{FleetID: fleet, From: x.first.Time(), To: (x.last + 1).Time().Add(-time.Millisecond)})
	if err != nil {
		return err
	}
	for _, row := range rows {
		if x.alerts[fleetAlert{fleet, row.DeviceID, derived.KeyOfRow(row)}] {
			continue
		}
		ofDevice, err := x.Store.DeviceAlerts(ctx, row.DeviceID, row.OpenedMs, row.OpenedMs)
		if cassandra.Permanent(err) {
			pending[row.DeviceID] = true
			continue
		}
		if err != nil {
			return err
		}
		if slices.ContainsFunc(ofDevice, func(a cassandra.Alert) bool { return a.Type == row.Type && a.FleetID == row.FleetID }) {
			continue
		}
		// The row of the device is deleted last, so both may have been deleted since.
		again, err := recompute.FleetRows(ctx, x.Store, &row)
		if err != nil {
			return err
		}
		claims, err := x.Store.ClaimsOfDevices(ctx, row.DeviceID)
		switch {
		case err != nil:
			return err
		case len(again) == 0:
		case x.claimed[row.DeviceID] || len(claims) > 0:
			pending[row.DeviceID] = true
		default:
			x.report.Differences = append(x.report.Differences, Difference{cassandra.TableAlerts, alertName(row), "should not exist: " + row.Message})
		}
	}
	return nil
}

// compareOpen compares the open alerts of a device.
func (c *comparison) compareOpen() {
	for _, was := range c.existing.Alerts {
		key := derived.KeyOfRow(was)
		a, ok := c.outcome.Alerts[key]
		if ok && a.EndedMs == 0 && !c.within(a.OpenedMs, writeDelay) && !c.existing.ManuallyResolved[key] && !c.existing.IsOpen(key) {
			c.differ(cassandra.TableOpenAlerts, alertName(was), "missing: %s", a.Message)
		}
	}
	for _, row := range c.existing.Open {
		a, ok := c.outcome.Alerts[derived.KeyOfRow(row)]
		switch {
		case ok && a.EndedMs != 0:
			c.differ(cassandra.TableOpenAlerts, alertName(row), "it ended at %s", formatMs(a.EndedMs))
		case !ok && row.OpenedMs >= c.first.Time().UnixMilli():
			c.differ(cassandra.TableOpenAlerts, alertName(row), "should not exist: %s", row.Message)
		case ok && a.FleetID != row.FleetID:
			c.differ(cassandra.TableOpenAlerts, alertName(row), "is in fleet %s, should be in %s", row.FleetID, a.FleetID)
		}
	}
}

// hoursOfDay compares the hours of a fleet.
func (x *verification) hoursOfDay(ctx context.Context, fleet string, day cassandra.Day) error {
	var sums []cassandra.AnalyticsRow
	differences := len(x.report.Differences)
	if err := x.skipping(ctx, cassandra.TableAnalytics, fleet+" "+day.String(), func(ctx context.Context) (err error) {
		sums, err = x.Store.Analytics(ctx, fleet, day, day)
		return err
	}); err != nil || len(x.report.Differences) > differences {
		return err
	}
	byHour := derived.ByKey(sums, func(r cassandra.AnalyticsRow) int32 { return r.Hour })
	for h := range int32(24) {
		key := cassandra.FleetHour{FleetID: fleet, HourMs: day.Time().UnixMilli() + int64(h)*derived.HourMs}
		sum, stored := byHour[h]
		if err := x.hour(ctx, key, sum, stored); err != nil {
			return err
		}
	}
	return nil
}

// hour compares what devices add to an hour, and the sum, if one is stored. It does not compare an hour
// that changes while it is read, and does not judge one of a claimed device that differs: an instance still derives it.
func (x *verification) hour(ctx context.Context, key cassandra.FleetHour, sum cassandra.AnalyticsRow, stored bool) error {
	if x.unsettled[key] {
		x.report.NotVerified.Hours++
		return nil
	}
	want, name := x.hours[key], key.FleetID+" "+formatMs(key.HourMs)
	var rows []cassandra.HourRow
	differences := len(x.report.Differences)
	err := x.skipping(ctx, cassandra.TableHours, name, func(ctx context.Context) (err error) {
		rows, err = x.Store.Hours(ctx, key.FleetID, key.HourMs)
		return err
	})
	if err != nil || len(x.report.Differences) > differences || len(rows) == 0 && !stored && len(want) == 0 {
		return err
	}
	c, claimed := &comparison{}, false
	for _, row := range rows {
		claimed = claimed || x.claimed[row.DeviceID]
		if should, ok := want[row.DeviceID]; !ok {
			c.differ(cassandra.TableHours, name+" "+row.DeviceID, "should not exist")
		} else if row != should {
			c.differ(cassandra.TableHours, name+" "+row.DeviceID, "adds %g km of %d records and %d alerts, should add %g km of %d records and %d alerts",
				row.DistanceKm, row.Records, row.Alerts, should.DistanceKm, should.Records, should.Alerts)
		}
	}
	for id := range want {
		claimed = claimed || x.claimed[id]
	}
	if len(rows) < len(want) {
		c.differ(cassandra.TableHours, name, "has %d devices, should have %d", len(rows), len(want))
	}
	should, exists := derived.SumHours(slices.Collect(maps.Values(want)))
	switch {
	case !stored && exists:
		c.differ(cassandra.TableAnalytics, name, "missing")
	case stored && !exists:
		c.differ(cassandra.TableAnalytics, name, "should not exist")
	case exists && !derived.SameAnalytics(should, sum):
		c.differ(cassandra.TableAnalytics, name, "is %g km, %d devices, %d alerts; should be %g km, %d devices, %d alerts",
			sum.TotalDistanceKm, sum.ActiveDevicesCount, sum.AlertsCount, should.TotalDistanceKm, should.ActiveDevicesCount, should.AlertsCount)
	}
	if claimed && len(c.differences) > 0 {
		x.report.NotVerified.Hours++
		return nil
	}
	x.report.Hours++
	x.report.Differences = append(x.report.Differences, c.differences...)
	return nil
}

func alertName(a cassandra.Alert) string {
	return a.DeviceID + " " + a.Type + " of " + formatMs(a.OpenedMs)
}

func formatMs(ms int64) string {
	if ms == 0 {
		return "never"
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}
