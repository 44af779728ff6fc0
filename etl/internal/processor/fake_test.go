package processor

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
	"github.com/fleettracing/fleet-tracing/etl/internal/derived"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// fakeStore keeps rows as Cassandra does: of two writes of a row the one with the later timestamp stays, and a deletion
// removes what was written up to its timestamp.
type fakeStore struct {
	mu           sync.Mutex
	tables       map[string]map[string]*cell
	history      map[string]map[int64]telemetry.Record // by device
	instances    map[string]*cassandra.Instance
	pendingHours map[string][]cassandra.FleetHour
}

type cell struct {
	row            any
	wrote, deleted int64
}

func newFakeStore() *fakeStore {
	return &fakeStore{
		tables: map[string]map[string]*cell{}, history: map[string]map[int64]telemetry.Record{}, instances: map[string]*cassandra.Instance{}, pendingHours: map[string][]cassandra.FleetHour{},
	}
}

// errKilled is the error of every request of a process that was killed.
var errKilled = errors.New("killed")

// view is the route of one process to the store.
type view struct {
	*fakeStore
	left   int // requests until the process is killed; negative: it is not
	die    context.CancelFunc
	resume time.Time // until then the process is paused, or has lost its route: its requests wait, and then take effect
}

// alive waits while the process is paused, and fails once it is killed.
func (f *view) alive() error {
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
		return errKilled
	}
	if f.left > 0 {
		f.left--
	}
	return nil
}

func (f *view) pause(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resume = time.Now().Add(d)
}

func (f *view) paused() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Until(f.resume) > 0
}

func (f *view) setLeft(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left = n
}

func (f *view) killed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.left == 0
}

// apply applies rows of one partition.
func apply[R any](f *view, table string, rows []cassandra.Mutation[R], key func(*R) string, row func(R, string) R) error {
	if err := f.alive(); err != nil {
		return err
	}
	for i := range rows {
		k := key(&rows[i].Row)
		if rows[i].Delete {
			f.remove(table, k, rows[i].WriteTimeUs)
		} else {
			f.put(table, k, row(rows[i].Row, k), rows[i].WriteTimeUs)
		}
	}
	return nil
}

func same[R any](r R, _ string) R { return r }

func withoutNotify(r cassandra.Alert, _ string) cassandra.Alert {
	r.Notify = false
	return r
}

func (f *view) ApplyDeviceDays(_ context.Context, deviceID string, rows []cassandra.Mutation[cassandra.DeviceDay]) error {
	days := f.days(deviceID)
	for i := range rows {
		rows[i].Row.WriteTimeUs = rows[i].WriteTimeUs
	}
	return apply(f, cassandra.TableDeviceDays, rows, func(d *cassandra.DeviceDay) string { return keyOf(deviceID, int64(d.Day)) },
		func(d cassandra.DeviceDay, _ string) cassandra.DeviceDay {
			for _, was := range days {
				if was.Day == d.Day {
					for _, fleet := range was.Fleets {
						if !slices.Contains(d.Fleets, fleet) {
							d.Fleets = append(slices.Clone(d.Fleets), fleet)
						}
					}
				}
			}
			return d
		})
}

func (f *view) ApplyHours(_ context.Context, rows []cassandra.Mutation[cassandra.HourRow]) error {
	return apply(f, cassandra.TableHours, rows, func(r *cassandra.HourRow) string { return keyOf(r.FleetID, r.HourMs, r.DeviceID) }, same)
}

func (f *view) ApplyTrips(_ context.Context, deviceID string, rows []cassandra.Mutation[cassandra.TripRow]) error {
	return apply(f, cassandra.TableTrips, rows, func(r *cassandra.TripRow) string { return keyOf(deviceID, r.StartMs, r.Kind) }, same)
}

func (f *view) ApplyDeviceAlerts(_ context.Context, rows []cassandra.Mutation[cassandra.Alert]) error {
	return apply(f, cassandra.TableDeviceAlerts, rows, func(r *cassandra.Alert) string { return keyOf(r.DeviceID, r.OpenedMs, r.Type) }, withoutNotify)
}

func (f *view) ApplyFleetAlerts(_ context.Context, rows []cassandra.Mutation[cassandra.Alert]) error {
	return apply(f, cassandra.TableAlerts, rows, fleetAlertKey, func(r cassandra.Alert, key string) cassandra.Alert {
		r.Notify = false
		for _, was := range list[cassandra.Alert](f.fakeStore, cassandra.TableAlerts, key) {
			r.Resolved = r.Resolved || was.Resolved && was.EndedMs == 0 // a resolution by hand has the last word
		}
		return r
	})
}

func (f *view) ApplyOpenAlerts(_ context.Context, rows []cassandra.Mutation[cassandra.Alert]) error {
	return apply(f, cassandra.TableOpenAlerts, rows, func(r *cassandra.Alert) string { return keyOf(r.FleetID, r.DeviceID, r.Type) }, same)
}

func (f *view) ApplyInstanceClaims(_ context.Context, rows []cassandra.Mutation[cassandra.Claim]) error {
	return apply(f, cassandra.TableClaimsByInstance, rows, func(c *cassandra.Claim) string { return keyOf(c.InstanceID, c.DeviceID) }, same)
}

func (f *view) ApplyDeviceClaim(_ context.Context, row cassandra.Mutation[cassandra.Claim]) error {
	return apply(f, cassandra.TableClaims, []cassandra.Mutation[cassandra.Claim]{row}, func(c *cassandra.Claim) string { return keyOf(c.DeviceID, c.InstanceID) }, same)
}

func (f *fakeStore) put(table, key string, row any, at int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.at(table, key)
	if at >= c.wrote {
		c.row, c.wrote = row, at
	}
}

func (f *fakeStore) remove(table, key string, at int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.at(table, key)
	c.deleted = max(c.deleted, at)
}

func (f *fakeStore) at(table, key string) *cell {
	if f.tables[table] == nil {
		f.tables[table] = map[string]*cell{}
	}
	c := f.tables[table][key]
	if c == nil {
		c = &cell{}
		f.tables[table][key] = c
	}
	return c
}

// list returns the rows of a table whose keys have a prefix, in the order of their keys.
func list[T any](f *fakeStore, table, prefix string) []T {
	f.mu.Lock()
	defer f.mu.Unlock()
	var rows []T
	for _, key := range slices.Sorted(maps.Keys(f.tables[table])) {
		if c := f.tables[table][key]; strings.HasPrefix(key, prefix) && c.row != nil && c.wrote > c.deleted {
			rows = append(rows, c.row.(T))
		}
	}
	return rows
}

func keyOf(parts ...any) string {
	var b strings.Builder
	for _, p := range parts {
		if n, ok := p.(int64); ok {
			p = fmt.Sprintf("%020d", n)
		}
		fmt.Fprintf(&b, "%v|", p)
	}
	return b.String()
}

// write stores a record as the writer does: of two payloads with one time the higher hash stays.
func (f *fakeStore) write(r *telemetry.Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.history[r.DeviceID] == nil {
		f.history[r.DeviceID] = map[int64]telemetry.Record{}
	}
	if was, ok := f.history[r.DeviceID][r.TimeMs]; !ok || r.PayloadHash() > was.PayloadHash() {
		f.history[r.DeviceID][r.TimeMs] = *r
	}
}

func telemetryOf(r telemetry.Record) cassandra.Telemetry {
	t := cassandra.Telemetry{DeviceID: r.DeviceID, FleetID: r.FleetID, Ts: time.UnixMilli(r.TimeMs).UTC(), Lat: r.Lat, Lon: r.Lon, Zone: r.Zone}
	if r.SpeedKmh.Valid {
		t.SpeedKmh = &r.SpeedKmh.Value
	}
	if r.BatteryPct.Valid {
		t.BatteryPct = &r.BatteryPct.Value
	}
	if r.TempC.Valid {
		t.TempC = &r.TempC.Value
	}
	return t
}

func (f *view) Positions(_ context.Context, deviceID string, day cassandra.Day) ([]cassandra.Telemetry, error) {
	if err := f.alive(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var rows []cassandra.Telemetry
	for ms, r := range f.history[deviceID] {
		if cassandra.DayOf(ms) == day {
			rows = append(rows, telemetryOf(r))
		}
	}
	slices.SortFunc(rows, func(a, b cassandra.Telemetry) int { return a.Ts.Compare(b.Ts) })
	return rows, nil
}

func (f *view) Latest(_ context.Context, deviceID string) (cassandra.Telemetry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.history[deviceID]) == 0 {
		return cassandra.Telemetry{}, &cassandra.Error{Op: "read", Reason: cassandra.ReasonNotFound, Err: cassandra.ErrNotFound}
	}
	return telemetryOf(f.history[deviceID][slices.Max(slices.Collect(maps.Keys(f.history[deviceID])))]), nil
}

func (f *view) LatestOfFleet(ctx context.Context, fleetID string) ([]cassandra.Telemetry, error) {
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

func (f *view) Fleets(context.Context) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fleets := map[string]bool{}
	for _, fixes := range f.history {
		for _, r := range fixes {
			fleets[r.FleetID] = true
		}
	}
	return slices.Sorted(maps.Keys(fleets)), nil
}

func (f *view) days(deviceID string) []cassandra.DeviceDay {
	days := list[cassandra.DeviceDay](f.fakeStore, cassandra.TableDeviceDays, keyOf(deviceID))
	slices.SortFunc(days, func(a, b cassandra.DeviceDay) int { return cmp.Compare(a.Day, b.Day) })
	return days
}

func (f *view) LastDeviceDay(_ context.Context, deviceID string, day cassandra.Day) (found cassandra.DeviceDay, ok bool, err error) {
	for _, d := range f.days(deviceID) {
		if d.Day <= day {
			found, ok = d, true
		}
	}
	return found, ok, f.alive()
}

func (f *view) DeviceDays(_ context.Context, deviceID string, day cassandra.Day) ([]cassandra.DeviceDay, error) {
	return slices.DeleteFunc(f.days(deviceID), func(d cassandra.DeviceDay) bool { return d.Day < day }), f.alive()
}

func (f *view) Hours(_ context.Context, fleetID string, hour int64) ([]cassandra.HourRow, error) {
	return list[cassandra.HourRow](f.fakeStore, cassandra.TableHours, keyOf(fleetID, hour)), f.alive()
}

func (f *view) AnalyticsRows(_ context.Context, fleetID string, day cassandra.Day) ([]cassandra.AnalyticsRow, error) {
	return list[cassandra.AnalyticsRow](f.fakeStore, cassandra.TableAnalytics, keyOf(fleetID, int64(day))), f.alive()
}

func (f *view) WriteAnalytics(_ context.Context, rows []cassandra.AnalyticsRow) error {
	if err := f.alive(); err != nil {
		return err
	}
	for _, r := range rows {
		at := r.WriteTimeUs
		r.WriteTimeUs = 0
		f.put(cassandra.TableAnalytics, keyOf(r.FleetID, int64(r.Day), int64(r.Hour)), r, at)
	}
	return nil
}

func (f *view) DeleteAnalytics(_ context.Context, fleetID string, hour, at int64) error {
	if err := f.alive(); err != nil {
		return err
	}
	f.remove(cassandra.TableAnalytics, keyOf(fleetID, int64(cassandra.DayOf(hour)), hour%(24*derived.HourMs)/derived.HourMs), at)
	return nil
}

func (f *view) Trips(_ context.Context, deviceID string, from, to int64) ([]cassandra.TripRow, error) {
	rows := list[cassandra.TripRow](f.fakeStore, cassandra.TableTrips, keyOf(deviceID))
	return slices.DeleteFunc(rows, func(r cassandra.TripRow) bool { return r.StartMs < from || r.StartMs > to }), f.alive()
}

func (f *view) DeviceAlerts(_ context.Context, deviceID string, from, to int64) ([]cassandra.Alert, error) {
	rows := list[cassandra.Alert](f.fakeStore, cassandra.TableDeviceAlerts, keyOf(deviceID))
	return slices.DeleteFunc(rows, func(r cassandra.Alert) bool { return r.OpenedMs < from || r.OpenedMs > to }), f.alive()
}

func fleetAlertKey(r *cassandra.Alert) string {
	return keyOf(r.FleetID, int64(cassandra.DayOf(r.OpenedMs)), r.Severity, r.OpenedMs, r.DeviceID, r.Type)
}

func (f *view) FleetAlerts(_ context.Context, fleetID string, day cassandra.Day, from, to int64) ([]cassandra.Alert, error) {
	rows := list[cassandra.Alert](f.fakeStore, cassandra.TableAlerts, keyOf(fleetID, int64(day)))
	return slices.DeleteFunc(rows, func(r cassandra.Alert) bool { return r.OpenedMs < from || r.OpenedMs > to }), f.alive()
}

// resolve resolves an alert by hand.
func (f *view) resolve(r cassandra.Alert, at int64) {
	f.remove(cassandra.TableOpenAlerts, keyOf(r.FleetID, r.DeviceID, r.Type), at)
	r.Notify, r.Resolved = false, true
	f.put(cassandra.TableAlerts, fleetAlertKey(&r), r, at)
}

func (f *view) OpenAlerts(_ context.Context, fleetID string) ([]cassandra.Alert, error) {
	return list[cassandra.Alert](f.fakeStore, cassandra.TableOpenAlerts, keyOf(fleetID)), f.alive()
}

func (f *view) OpenAlertsOfDevice(_ context.Context, fleetID, deviceID string) ([]cassandra.Alert, error) {
	return list[cassandra.Alert](f.fakeStore, cassandra.TableOpenAlerts, keyOf(fleetID, deviceID)), f.alive()
}

func (f *view) ClaimsOfDevice(_ context.Context, deviceID string) ([]cassandra.Claim, error) {
	return list[cassandra.Claim](f.fakeStore, cassandra.TableClaims, keyOf(deviceID)), f.alive()
}

func (f *view) Leftovers(_ context.Context, instanceID string) ([]cassandra.Claim, []cassandra.FleetHour, error) {
	if err := f.alive(); err != nil {
		return nil, nil, err
	}
	claims := list[cassandra.Claim](f.fakeStore, cassandra.TableClaimsByInstance, keyOf(instanceID))
	f.mu.Lock()
	defer f.mu.Unlock()
	return claims, slices.Clone(f.pendingHours[instanceID]), nil
}

func (f *view) AddPendingHours(_ context.Context, instanceID string, hours []cassandra.FleetHour) error {
	if err := f.alive(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pendingHours[instanceID] = append(f.pendingHours[instanceID], hours...)
	return nil
}

// instance returns the row of an instance. Called with f.mu held.
func (f *fakeStore) instance(id string) *cassandra.Instance {
	if f.instances[id] == nil {
		f.instances[id] = &cassandra.Instance{ID: id}
	}
	return f.instances[id]
}

func (f *view) Heartbeat(_ context.Context, instanceID string, role cassandra.InstanceRole, now time.Time) error {
	if err := f.alive(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.instance(instanceID)
	if i.HeartbeatAt = now; role != "" {
		i.Role = role
	}
	return nil
}

func (f *view) FenceInstance(_ context.Context, instanceID string) error {
	if err := f.alive(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.instance(instanceID).Fenced = true
	return nil
}

func (f *view) Instances(context.Context) ([]cassandra.Instance, error) {
	if err := f.alive(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []cassandra.Instance
	for _, id := range slices.Sorted(maps.Keys(f.instances)) {
		i := *f.instances[id]
		i.SharedDevices = slices.Clone(i.SharedDevices)
		found = append(found, i)
	}
	return found, nil
}

func (f *view) UpdateSharedDevices(_ context.Context, instanceID string, add, remove []string) error {
	if err := f.alive(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(add) > 0 {
		i := f.instance(instanceID)
		i.SharedDevices = append(i.SharedDevices, add...)
	}
	if i := f.instances[instanceID]; i != nil {
		i.SharedDevices = slices.DeleteFunc(i.SharedDevices, func(id string) bool { return slices.Contains(remove, id) })
	}
	return nil
}

func (f *view) RemoveInstance(_ context.Context, instanceID string) error {
	if err := f.alive(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.instances, instanceID)
	delete(f.pendingHours, instanceID)
	return nil
}

func (f *view) DeviceIDs(context.Context, string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.history)), nil
}
