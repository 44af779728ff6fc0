// Package fakestore is a store in memory for the tests of packages that derive rows. It keeps rows as Cassandra does, and it can
// pause a process or kill it after any request.
package fakestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Store keeps rows as Cassandra does: of two writes of a row the one with the later timestamp stays, and a deletion
// removes what was written up to its timestamp.
type Store struct {
	mu           sync.Mutex
	tables       map[string]map[string]*Cell
	history      map[string]map[int64]telemetry.Record // by device
	instances    map[string]*cassandra.Instance
	pendingHours map[string][]cassandra.FleetHour
	shared       map[string][]string          // devices by instance
	owners       map[string][]cassandra.Owner // by device, the present one first
	majority     error                        // of lightweight transactions; nil: they succeed
}

// Cell is one row with its timestamps. The row exists if it was written after it was deleted, until it expires.
type Cell struct {
	Row            any
	Wrote, Deleted int64
	Expires        time.Time // zero: never
}

// New returns an empty store.
func New() *Store {
	return &Store{
		tables: map[string]map[string]*Cell{}, history: map[string]map[int64]telemetry.Record{},
		instances: map[string]*cassandra.Instance{}, pendingHours: map[string][]cassandra.FleetHour{},
		shared: map[string][]string{},
		owners: map[string][]cassandra.Owner{},
	}
}

// View returns a route to the store for one process. If the process is killed, its first request after that calls die.
func (f *Store) View(die func()) *View { return &View{Store: f, left: -1, die: die} }

// Cells returns the existing rows of a table, in the order of their keys. Changes to them change the store.
func (f *Store) Cells(table string) []*Cell {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cells(table, "")
}

// cells returns the existing rows whose keys have a prefix. Called with f.mu held.
func (f *Store) cells(table, prefix string) (cells []*Cell) {
	var keys []string
	for key, c := range f.tables[table] {
		if strings.HasPrefix(key, prefix) && c.exists() {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		cells = append(cells, f.tables[table][key])
	}
	return cells
}

func (c *Cell) exists() bool {
	return c.Row != nil && c.Wrote > c.Deleted && (c.Expires.IsZero() || time.Now().Before(c.Expires))
}

// Records returns the stored records, by device and event time.
func (f *Store) Records() map[string]map[int64]telemetry.Record {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make(map[string]map[int64]telemetry.Record, len(f.history))
	for id, records := range f.history {
		all[id] = maps.Clone(records)
	}
	return all
}

// SetHeartbeat changes the time of an instance's last heartbeat.
func (f *Store) SetHeartbeat(instanceID string, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.instance(instanceID).HeartbeatAt = at
}

// PendingHours returns the hours that instances have left, by instance.
func (f *Store) PendingHours() map[string][]cassandra.FleetHour {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.pendingHours)
}

// ErrKilled is the error of every request of a process that was killed.
var ErrKilled = errors.New("killed")

// View is the route of one process to the store.
type View struct {
	*Store
	left   int // requests until the process is killed; negative: it is not
	die    func()
	resume time.Time // until then the process is paused, or has lost its route: its requests wait, and then take effect
}

// Request begins a request. It waits while the process is paused, and fails once it is killed.
func (f *View) Request() error {
	for {
		f.mu.Lock()
		wait := time.Until(f.resume)
		if wait <= 0 {
			break
		}
		f.mu.Unlock()
		time.Sleep(wait)
	}
	defer f.mu.Unlock()
	if f.left == 0 {
		if f.die != nil {
			f.die()
		}
		return ErrKilled
	}
	if f.left > 0 {
		f.left--
	}
	return nil
}

// change makes a change in one request.
func (f *View) change(do func()) error {
	if err := f.Request(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
	return nil
}

// Pause pauses the process for a time.
func (f *View) Pause(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resume = time.Now().Add(d)
}

// Paused reports whether the process is paused.
func (f *View) Paused() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Until(f.resume) > 0
}

// KillAfter kills the process after n more requests. A negative n lets it run.
func (f *View) KillAfter(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left = n
}

// Killed reports whether the process was killed.
func (f *View) Killed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.left == 0
}

// apply applies rows of one partition.
func apply[R any](f *View, table string, rows []cassandra.Mutation[R], key func(*R) string) error {
	return f.change(func() {
		for i := range rows {
			c := f.at(table, key(&rows[i].Row))
			switch at := rows[i].WriteTimeUs; {
			case rows[i].Delete:
				c.Deleted = max(c.Deleted, at)
			case at >= c.Wrote:
				c.Row, c.Wrote = rows[i].Row, at
				if table == cassandra.TableOpenAlerts {
					c.Expires = time.Now().Add(cassandra.OpenAlertTTL)
				}
			}
		}
	})
}

// at returns a row, which may not exist yet. Called with f.mu held.
func (f *Store) at(table, key string) *Cell {
	if f.tables[table] == nil {
		f.tables[table] = map[string]*Cell{}
	}
	c := f.tables[table][key]
	if c == nil {
		c = &Cell{}
		f.tables[table][key] = c
	}
	return c
}

func (f *View) ApplyDeviceDays(_ context.Context, deviceID string, rows []cassandra.Mutation[cassandra.DeviceDay]) error {
	days := f.days(deviceID)
	for i := range rows {
		d := &rows[i].Row
		d.WriteTimeUs = rows[i].WriteTimeUs
		for _, was := range days {
			if was.Day == d.Day { // writes only add fleets
				d.Fleets = slices.Compact(slices.Sorted(slices.Values(slices.Concat(d.Fleets, was.Fleets))))
			}
		}
	}
	return apply(f, cassandra.TableDeviceDays, rows, func(d *cassandra.DeviceDay) string { return KeyOf(deviceID, int64(d.Day)) })
}

func (f *View) ApplyHours(_ context.Context, rows []cassandra.Mutation[cassandra.HourRow]) error {
	return apply(f, cassandra.TableHours, rows, func(r *cassandra.HourRow) string { return KeyOf(r.FleetID, r.HourMs, r.DeviceID) })
}

func (f *View) ApplyTrips(_ context.Context, deviceID string, rows []cassandra.Mutation[cassandra.TripRow]) error {
	return apply(f, cassandra.TableTrips, rows, func(r *cassandra.TripRow) string { return KeyOf(deviceID, r.StartMs, r.Kind) })
}

func (f *View) ApplyDeviceAlerts(_ context.Context, rows []cassandra.Mutation[cassandra.Alert]) error {
	return apply(f, cassandra.TableDeviceAlerts, withoutNotify(rows), func(r *cassandra.Alert) string { return KeyOf(r.DeviceID, r.OpenedMs, r.Type) })
}

func (f *View) ApplyFleetAlerts(_ context.Context, rows []cassandra.Mutation[cassandra.Alert]) error {
	rows = withoutNotify(rows)
	for i := range rows {
		for _, was := range List[cassandra.Alert](f.Store, cassandra.TableAlerts, fleetAlertKey(&rows[i].Row)) {
			rows[i].Row.Resolved = rows[i].Row.Resolved || was.Resolved && was.EndedMs == 0 // a resolution by hand has the last word
		}
	}
	return apply(f, cassandra.TableAlerts, rows, fleetAlertKey)
}

// withoutNotify returns a copy of rows as the tables without that column have them.
func withoutNotify(rows []cassandra.Mutation[cassandra.Alert]) []cassandra.Mutation[cassandra.Alert] {
	rows = slices.Clone(rows)
	for i := range rows {
		rows[i].Row.Notify = false
	}
	return rows
}

func (f *View) ApplyOpenAlerts(_ context.Context, rows []cassandra.Mutation[cassandra.Alert]) error {
	return apply(f, cassandra.TableOpenAlerts, rows, openAlertKey)
}

func openAlertKey(r *cassandra.Alert) string { return KeyOf(r.FleetID, r.DeviceID, r.Type) }

func (f *View) ApplyInstanceClaims(_ context.Context, rows []cassandra.Mutation[cassandra.Claim]) error {
	rows = slices.Clone(rows)
	for i := range rows {
		rows[i].Row.WriteTimeUs = rows[i].WriteTimeUs
	}
	return apply(f, cassandra.TableClaimsByInstance, rows, func(c *cassandra.Claim) string { return KeyOf(c.InstanceID, c.DeviceID) })
}

func (f *View) ApplyDeviceClaims(_ context.Context, rows []cassandra.Mutation[cassandra.Claim]) error {
	return apply(f, cassandra.TableClaims, rows, func(c *cassandra.Claim) string { return KeyOf(c.DeviceID, c.InstanceID) })
}

// List returns the rows of a table whose keys have a prefix, in the order of their keys.
func List[T any](f *Store, table, prefix string) []T {
	f.mu.Lock()
	defer f.mu.Unlock()
	rows := []T{}
	for _, c := range f.cells(table, prefix) {
		rows = append(rows, c.Row.(T))
	}
	return rows
}

// KeyOf returns the key of a row, whose parts sort as their values do.
func KeyOf(parts ...any) string {
	var b strings.Builder
	for _, p := range parts {
		if n, ok := p.(int64); ok {
			p = fmt.Sprintf("%020d", n)
		}
		fmt.Fprintf(&b, "%v|", p)
	}
	return b.String()
}

// Write stores a record as the writer does: of two payloads with one time the higher hash stays.
func (f *Store) Write(r *telemetry.Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.history[r.DeviceID] == nil {
		f.history[r.DeviceID] = map[int64]telemetry.Record{}
	}
	if was, ok := f.history[r.DeviceID][r.TimeMs]; !ok || r.PayloadHash() > was.PayloadHash() {
		f.history[r.DeviceID][r.TimeMs] = *r
	}
}

// TelemetryOf converts a record to its stored row.
func TelemetryOf(r telemetry.Record) cassandra.Telemetry {
	return cassandra.Telemetry{
		DeviceID: r.DeviceID, FleetID: r.FleetID, Ts: time.UnixMilli(r.TimeMs).UTC(), Lat: r.Lat, Lon: r.Lon, Zone: r.Zone,
		SpeedKmh: r.SpeedKmh.Ptr(), BatteryPct: r.BatteryPct.Ptr(), TempC: r.TempC.Ptr(),
	}
}

func (f *View) Positions(_ context.Context, deviceID string, day cassandra.Day) (rows []cassandra.Telemetry, err error) {
	err = f.change(func() {
		for _, ms := range slices.Sorted(maps.Keys(f.history[deviceID])) {
			if cassandra.DayOf(ms) == day {
				rows = append(rows, TelemetryOf(f.history[deviceID][ms]))
			}
		}
	})
	return rows, err
}

func (f *View) Latest(_ context.Context, deviceID string) (cassandra.Telemetry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.history[deviceID]) == 0 {
		return cassandra.Telemetry{}, &cassandra.Error{Op: "read", Reason: cassandra.ReasonNotFound, Err: cassandra.ErrNotFound}
	}
	return TelemetryOf(f.history[deviceID][slices.Max(slices.Collect(maps.Keys(f.history[deviceID])))]), nil
}

func (f *View) LatestOfFleet(ctx context.Context, fleetID string) ([]cassandra.Telemetry, error) {
	f.mu.Lock()
	ids := slices.Sorted(maps.Keys(f.history))
	f.mu.Unlock()
	var rows []cassandra.Telemetry
	for _, id := range ids {
		if t, err := f.Latest(ctx, id); err == nil && t.FleetID == fleetID {
			rows = append(rows, t)
		}
	}
	return rows, nil
}

func (f *View) Fleets(context.Context) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fleets := map[string]bool{}
	for _, records := range f.history {
		for _, r := range records {
			fleets[r.FleetID] = true
		}
	}
	return slices.Sorted(maps.Keys(fleets)), nil
}

func (f *View) days(deviceID string) []cassandra.DeviceDay {
	return List[cassandra.DeviceDay](f.Store, cassandra.TableDeviceDays, KeyOf(deviceID))
}

func (f *View) LastDeviceDay(_ context.Context, deviceID string, day cassandra.Day) (found cassandra.DeviceDay, ok bool, err error) {
	for _, d := range f.days(deviceID) {
		if d.Day <= day {
			found, ok = d, true
		}
	}
	return found, ok, f.Request()
}

func (f *View) DeviceDays(_ context.Context, deviceID string, day cassandra.Day) ([]cassandra.DeviceDay, error) {
	return slices.DeleteFunc(f.days(deviceID), func(d cassandra.DeviceDay) bool { return d.Day < day }), f.Request()
}

func (f *View) Hours(_ context.Context, fleetID string, hour int64) ([]cassandra.HourRow, error) {
	return List[cassandra.HourRow](f.Store, cassandra.TableHours, KeyOf(fleetID, hour)), f.Request()
}

func (f *View) Analytics(_ context.Context, fleetID string, first, last cassandra.Day) (rows []cassandra.AnalyticsRow, err error) {
	for day := first; day <= last; day++ {
		rows = append(rows, List[cassandra.AnalyticsRow](f.Store, cassandra.TableAnalytics, KeyOf(fleetID, int64(day)))...)
	}
	return rows, f.Request()
}

func (f *View) ApplyAnalytics(_ context.Context, rows []cassandra.Mutation[cassandra.AnalyticsRow]) error {
	return apply(f, cassandra.TableAnalytics, rows, func(r *cassandra.AnalyticsRow) string { return KeyOf(r.FleetID, int64(r.Day), int64(r.Hour)) })
}

func (f *View) Trips(_ context.Context, deviceID string, from, to int64) ([]cassandra.TripRow, error) {
	rows := List[cassandra.TripRow](f.Store, cassandra.TableTrips, KeyOf(deviceID))
	return slices.DeleteFunc(rows, func(r cassandra.TripRow) bool { return r.StartMs < from || r.StartMs > to }), f.Request()
}

func (f *View) DeviceAlerts(_ context.Context, deviceID string, from, to int64) ([]cassandra.Alert, error) {
	rows := List[cassandra.Alert](f.Store, cassandra.TableDeviceAlerts, KeyOf(deviceID))
	return slices.DeleteFunc(rows, func(r cassandra.Alert) bool { return r.OpenedMs < from || r.OpenedMs > to }), f.Request()
}

func fleetAlertKey(r *cassandra.Alert) string {
	return KeyOf(r.FleetID, int64(cassandra.DayOf(r.OpenedMs)), r.Severity, r.OpenedMs, r.DeviceID, r.Type)
}

func (f *View) Alerts(_ context.Context, q cassandra.AlertQuery) ([]cassandra.Alert, error) {
	rows := List[cassandra.Alert](f.Store, cassandra.TableAlerts, KeyOf(q.FleetID))
	return slices.DeleteFunc(rows, func(r cassandra.Alert) bool { return r.Opened().Before(q.From) || r.Opened().After(q.To) }), f.Request()
}

// Resolve resolves an alert by hand.
func (f *View) Resolve(r cassandra.Alert, at int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	open, alert := f.at(cassandra.TableOpenAlerts, openAlertKey(&r)), f.at(cassandra.TableAlerts, fleetAlertKey(&r))
	open.Deleted = max(open.Deleted, at)
	if r.Notify, r.Resolved = false, true; at >= alert.Wrote {
		alert.Row, alert.Wrote = r, at
	}
}

func (f *View) OpenAlerts(_ context.Context, fleetID string) ([]cassandra.Alert, error) {
	return f.openAlerts(KeyOf(fleetID)), f.Request()
}

func (f *View) OpenAlertsOfBucket(_ context.Context, fleetID string, bucket int32) ([]cassandra.Alert, error) {
	rows := f.openAlerts(KeyOf(fleetID))
	return slices.DeleteFunc(rows, func(r cassandra.Alert) bool { return cassandra.OpenAlertBucket(r.DeviceID) != bucket }), f.Request()
}

func (f *View) OpenAlertsOfDevice(_ context.Context, fleetID, deviceID string) ([]cassandra.Alert, error) {
	return f.openAlerts(KeyOf(fleetID, deviceID)), f.Request()
}

func (f *Store) openAlerts(prefix string) []cassandra.Alert {
	f.mu.Lock()
	defer f.mu.Unlock()
	rows := []cassandra.Alert{}
	for _, c := range f.cells(cassandra.TableOpenAlerts, prefix) {
		r, left := c.Row.(cassandra.Alert), time.Until(c.Expires)
		if r.Expiring = left < cassandra.OpenAlertTTL/2; left >= cassandra.OpenAlertTTL/4 {
			rows = append(rows, r)
		}
	}
	return rows
}

func (f *View) ClaimsOfDevices(_ context.Context, deviceIDs ...string) (claims []cassandra.Claim, err error) {
	for _, id := range deviceIDs {
		claims = append(claims, List[cassandra.Claim](f.Store, cassandra.TableClaims, KeyOf(id))...)
	}
	return claims, f.Request()
}

func (f *View) Leftovers(_ context.Context, instanceID string) (claims []cassandra.Claim, hours []cassandra.FleetHour, err error) {
	err = f.change(func() { hours = slices.Clone(f.pendingHours[instanceID]) })
	return List[cassandra.Claim](f.Store, cassandra.TableClaimsByInstance, KeyOf(instanceID)), hours, err
}

func (f *View) AddPendingHours(_ context.Context, instanceID string, hours []cassandra.FleetHour) error {
	return f.change(func() { f.pendingHours[instanceID] = append(f.pendingHours[instanceID], hours...) })
}

// instance returns the row of an instance. Called with f.mu held.
func (f *Store) instance(id string) *cassandra.Instance {
	if f.instances[id] == nil {
		f.instances[id] = &cassandra.Instance{ID: id}
	}
	return f.instances[id]
}

func (f *View) Heartbeat(_ context.Context, instanceID string, role cassandra.InstanceRole, now time.Time) error {
	return f.change(func() {
		i := f.instance(instanceID)
		i.HeartbeatAt, i.Role = now, cmp.Or(role, i.Role)
	})
}

func (f *View) FenceInstance(_ context.Context, instanceID string) error {
	return f.change(func() { f.instance(instanceID).Fenced = true })
}

func (f *View) Instances(context.Context) (found []cassandra.Instance, err error) {
	err = f.change(func() {
		for _, id := range slices.Sorted(maps.Keys(f.instances)) {
			i := *f.instances[id]
			found = append(found, i)
		}
	})
	return found, err
}

func (f *View) AddSharedDevices(_ context.Context, instanceID string, deviceIDs []string) error {
	return f.change(func() { f.shared[instanceID] = append(f.shared[instanceID], deviceIDs...) })
}

func (f *View) RemoveSharedDevices(_ context.Context, instanceID string, deviceIDs []string) error {
	return f.change(func() {
		f.shared[instanceID] = slices.DeleteFunc(f.shared[instanceID], func(id string) bool { return slices.Contains(deviceIDs, id) })
	})
}

func (f *View) SharedDevices(_ context.Context, instanceID string) (shared []string, err error) {
	err = f.change(func() { shared = slices.Clone(f.shared[instanceID]) })
	return shared, err
}

func (f *View) RemoveInstance(_ context.Context, instanceID string) error {
	return f.change(func() {
		delete(f.instances, instanceID)
		delete(f.pendingHours, instanceID)
	})
}

func (f *View) DeviceIDs(context.Context, string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.history)), nil
}

// FailTransactions has lightweight transactions fail with an error, or succeed with nil.
func (f *Store) FailTransactions(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.majority = err
}

func (f *View) Owners(_ context.Context, deviceIDs []string) (owners []cassandra.Owner, err error) {
	err = f.change(func() {
		for _, id := range deviceIDs {
			owners = append(owners, f.owner(id))
		}
	})
	return owners, err
}

// owner returns the owner of a device. Called with f.mu held.
func (f *Store) owner(id string) cassandra.Owner {
	if all := f.owners[id]; len(all) > 0 {
		return all[0]
	}
	return cassandra.Owner{DeviceID: id}
}

func (f *View) SetFirstOwners(_ context.Context, owners []cassandra.Owner) (inForce []cassandra.Owner, err error) {
	err = f.transact(func() {
		for _, o := range owners {
			if len(f.owners[o.DeviceID]) == 0 {
				f.owners[o.DeviceID] = []cassandra.Owner{o}
			}
			inForce = append(inForce, f.owner(o.DeviceID))
		}
	})
	return inForce, err
}

func (f *View) MoveOwner(_ context.Context, from, to cassandra.Owner) (is cassandra.Owner, err error) {
	err = f.transact(func() {
		if was := f.owner(to.DeviceID); was.FleetID == from.FleetID && was.Since.Equal(from.Since) {
			to.FormerFleet = from.FleetID
			f.owners[to.DeviceID] = append([]cassandra.Owner{to}, f.owners[to.DeviceID]...)
		}
		is = f.owner(to.DeviceID)
	})
	return is, err
}

func (f *View) transact(do func()) (err error) {
	changed := f.change(func() {
		if err = f.majority; err == nil {
			do()
		}
	})
	return cmp.Or(changed, err)
}

func (f *View) FormerOwners(_ context.Context, deviceID string) (former []cassandra.Owner, err error) {
	err = f.change(func() { former = slices.Clone(f.owners[deviceID][min(1, len(f.owners[deviceID])):]) })
	return former, err
}

// Devices lists the devices of whose records the newest is of a fleet, as one page.
func (f *View) Devices(_ context.Context, fleetID string, _ int, _ string) (page cassandra.Page[cassandra.Device], err error) {
	err = f.change(func() {
		for id, history := range f.history {
			if newest := history[slices.Max(slices.Collect(maps.Keys(history)))]; newest.FleetID == fleetID {
				page.Rows = append(page.Rows, cassandra.Device{FleetID: fleetID, DeviceID: id, Status: cassandra.StatusActive})
			}
		}
	})
	return page, err
}

func (f *View) LatestWriteTimes(_ context.Context, deviceIDs []string) (all []cassandra.WriteTimes, err error) {
	err = f.change(func() {
		for _, id := range deviceIDs {
			var w cassandra.WriteTimes
			for ms, r := range f.history[id] {
				if us := ms*1000 + int64(r.PayloadHash()%1000); us > w.LastUs {
					w = cassandra.WriteTimes{Found: true, FleetID: r.FleetID, LastUs: us}
				}
			}
			all = append(all, w)
		}
	})
	return all, err
}
