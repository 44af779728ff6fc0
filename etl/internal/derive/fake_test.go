package derive

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

// fakeStore keeps rows as Cassandra does: of two writes of a row the one with the later timestamp stays, and a deletion
// takes away what was written up to its timestamp.
type fakeStore struct {
	mu        sync.Mutex
	tables    map[string]map[string]*cell
	history   map[string]map[int64]telemetry.Record // by device
	processes map[string]*cassandra.Instance
}

type cell struct {
	row            any
	wrote, deleted int64
}

func newFakeStore() *fakeStore {
	return &fakeStore{
		tables: map[string]map[string]*cell{}, history: map[string]map[int64]telemetry.Record{}, processes: map[string]*cassandra.Instance{},
	}
}

// errDead is what a process gets that was killed.
var errDead = errors.New("killed")

// view is a process's way to the store. After so many requests the process is dead.
type view struct {
	*fakeStore
	left int // requests until it dies; negative: never
}

func (f *view) alive() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left == 0 {
		return errDead
	}
	if f.left > 0 {
		f.left--
	}
	return nil
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

// list gives the rows of a table whose keys begin so, by their keys.
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

// write stores a record, as the loader does: of two payloads of an instant the higher hash stays.
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

func (f *view) WriteDeviceDay(_ context.Context, deviceID string, d cassandra.DeviceDay, at int64) error {
	if err := f.alive(); err != nil {
		return err
	}
	for _, was := range f.days(deviceID) {
		if was.Day == d.Day {
			for _, fleet := range was.Fleets {
				if !slices.Contains(d.Fleets, fleet) {
					d.Fleets = append(slices.Clone(d.Fleets), fleet)
				}
			}
		}
	}
	d.WriteTimeUs = at
	f.put(cassandra.TableDeviceDays, keyOf(deviceID, int64(d.Day)), d, at)
	return nil
}

func (f *view) Hours(_ context.Context, fleetID string, hour int64) ([]cassandra.HourRow, error) {
	return list[cassandra.HourRow](f.fakeStore, cassandra.TableHours, keyOf(fleetID, hour)), f.alive()
}

func (f *view) WriteHours(_ context.Context, rows []cassandra.HourRow, at int64) error {
	if err := f.alive(); err != nil {
		return err
	}
	for _, r := range rows {
		f.put(cassandra.TableHours, keyOf(r.FleetID, r.HourMs, r.DeviceID), r, at)
	}
	return nil
}

func (f *view) DeleteHour(_ context.Context, fleetID string, hour int64, deviceID string, at int64) error {
	if err := f.alive(); err != nil {
		return err
	}
	f.remove(cassandra.TableHours, keyOf(fleetID, hour, deviceID), at)
	return nil
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
	f.remove(cassandra.TableAnalytics, keyOf(fleetID, int64(cassandra.DayOf(hour)), hour%(24*hourMs)/hourMs), at)
	return nil
}

func (f *view) Trips(_ context.Context, deviceID string, from, to int64) ([]cassandra.TripRow, error) {
	rows := list[cassandra.TripRow](f.fakeStore, cassandra.TableTrips, keyOf(deviceID))
	return slices.DeleteFunc(rows, func(r cassandra.TripRow) bool { return r.StartMs < from || r.StartMs > to }), f.alive()
}

func (f *view) WriteTrips(_ context.Context, deviceID string, rows []cassandra.TripRow, at int64) error {
	if err := f.alive(); err != nil {
		return err
	}
	for _, r := range rows {
		f.put(cassandra.TableTrips, keyOf(deviceID, r.StartMs, r.Kind), r, at)
	}
	return nil
}

func (f *view) DeleteTrip(_ context.Context, deviceID string, start int64, kind string, at int64) error {
	if err := f.alive(); err != nil {
		return err
	}
	f.remove(cassandra.TableTrips, keyOf(deviceID, start, kind), at)
	return nil
}

func (f *view) DeviceAlerts(_ context.Context, deviceID string, from, to int64) ([]cassandra.AlertState, error) {
	rows := list[cassandra.AlertState](f.fakeStore, cassandra.TableDeviceAlerts, keyOf(deviceID))
	return slices.DeleteFunc(rows, func(r cassandra.AlertState) bool { return r.OpenedMs < from || r.OpenedMs > to }), f.alive()
}

func (f *view) WriteDeviceAlert(_ context.Context, r *cassandra.AlertState, at int64) error {
	if err := f.alive(); err != nil {
		return err
	}
	row := *r
	row.Notify = false
	f.put(cassandra.TableDeviceAlerts, keyOf(r.DeviceID, r.OpenedMs, r.Type), row, at)
	return nil
}

func (f *view) DeleteDeviceAlert(_ context.Context, deviceID string, opened int64, kind string, at int64) error {
	if err := f.alive(); err != nil {
		return err
	}
	f.remove(cassandra.TableDeviceAlerts, keyOf(deviceID, opened, kind), at)
	return nil
}

func lifeKey(r *cassandra.AlertState) string {
	return keyOf(r.FleetID, int64(cassandra.DayOf(r.OpenedMs)), r.Severity, r.OpenedMs, r.DeviceID, r.Type)
}

func (f *view) FleetAlerts(_ context.Context, fleetID string, day cassandra.Day, from, to int64) ([]cassandra.AlertState, error) {
	rows := list[cassandra.AlertState](f.fakeStore, cassandra.TableAlerts, keyOf(fleetID, int64(day)))
	return slices.DeleteFunc(rows, func(r cassandra.AlertState) bool { return r.OpenedMs < from || r.OpenedMs > to }), f.alive()
}

func (f *view) WriteFleetAlert(_ context.Context, r *cassandra.AlertState, at int64) error {
	if err := f.alive(); err != nil {
		return err
	}
	row := *r
	row.Notify = false
	for _, was := range list[cassandra.AlertState](f.fakeStore, cassandra.TableAlerts, lifeKey(r)) {
		row.Resolved = row.Resolved || was.Resolved && was.EndedMs == 0 // who resolved it by hand has the last word
	}
	f.put(cassandra.TableAlerts, lifeKey(r), row, at)
	return nil
}

// resolve is what somebody does by hand.
func (f *view) resolve(r cassandra.AlertState, at int64) {
	f.remove(cassandra.TableOpenAlerts, keyOf(r.FleetID, r.DeviceID, r.Type), at)
	r.Notify, r.Resolved = false, true
	f.put(cassandra.TableAlerts, lifeKey(&r), r, at)
}

func (f *view) DeleteFleetAlert(_ context.Context, r *cassandra.AlertState, at int64) error {
	if err := f.alive(); err != nil {
		return err
	}
	f.remove(cassandra.TableAlerts, lifeKey(r), at)
	return nil
}

func (f *view) OpenAlerts(_ context.Context, fleetID string) ([]cassandra.AlertState, error) {
	return list[cassandra.AlertState](f.fakeStore, cassandra.TableOpenAlerts, keyOf(fleetID)), f.alive()
}

func (f *view) OpenAlertsOfDevice(_ context.Context, fleetID, deviceID string) ([]cassandra.AlertState, error) {
	return list[cassandra.AlertState](f.fakeStore, cassandra.TableOpenAlerts, keyOf(fleetID, deviceID)), f.alive()
}

func (f *view) WriteOpenAlert(_ context.Context, r *cassandra.AlertState, at int64) error {
	if err := f.alive(); err != nil {
		return err
	}
	f.put(cassandra.TableOpenAlerts, keyOf(r.FleetID, r.DeviceID, r.Type), *r, at)
	return nil
}

func (f *view) DeleteOpenAlert(_ context.Context, fleetID, deviceID, kind string, at int64) error {
	if err := f.alive(); err != nil {
		return err
	}
	f.remove(cassandra.TableOpenAlerts, keyOf(fleetID, deviceID, kind), at)
	return nil
}

func (f *view) WriteClaim(_ context.Context, m cassandra.Claim, at int64) error {
	if err := f.alive(); err != nil {
		return err
	}
	f.put(cassandra.TableClaimsByInstance, keyOf(m.InstanceID, m.DeviceID), m, at)
	f.put(cassandra.TableClaims, keyOf(m.DeviceID, m.InstanceID), m, at)
	return nil
}

func (f *view) DeleteClaim(_ context.Context, processID, deviceID string, at int64) error {
	if err := f.alive(); err != nil {
		return err
	}
	f.remove(cassandra.TableClaims, keyOf(deviceID, processID), at)
	f.remove(cassandra.TableClaimsByInstance, keyOf(processID, deviceID), at)
	return nil
}

func (f *view) ClaimsOfDevice(_ context.Context, deviceID string) ([]cassandra.Claim, error) {
	return list[cassandra.Claim](f.fakeStore, cassandra.TableClaims, keyOf(deviceID)), f.alive()
}

func (f *view) ClaimsOfInstance(_ context.Context, processID string) ([]cassandra.Claim, error) {
	return list[cassandra.Claim](f.fakeStore, cassandra.TableClaimsByInstance, keyOf(processID)), f.alive()
}

func (f *view) Heartbeat(_ context.Context, processID string, now time.Time) error {
	if err := f.alive(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.processes[processID] == nil {
		f.processes[processID] = &cassandra.Instance{ID: processID}
	}
	f.processes[processID].HeartbeatAt = now
	return nil
}

func (f *view) Instances(context.Context) ([]cassandra.Instance, error) {
	if err := f.alive(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []cassandra.Instance
	for _, id := range slices.Sorted(maps.Keys(f.processes)) {
		p := *f.processes[id]
		p.SharedDevices = slices.Clone(p.SharedDevices)
		found = append(found, p)
	}
	return found, nil
}

func (f *view) AddSharedDevices(_ context.Context, processID string, deviceIDs []string) error {
	if err := f.alive(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.processes[processID] == nil {
		f.processes[processID] = &cassandra.Instance{ID: processID}
	}
	f.processes[processID].SharedDevices = append(f.processes[processID].SharedDevices, deviceIDs...)
	return nil
}

func (f *view) AckSharedDevices(_ context.Context, processID string, deviceIDs []string) error {
	if err := f.alive(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.processes[processID]; p != nil {
		p.SharedDevices = slices.DeleteFunc(p.SharedDevices, func(id string) bool { return slices.Contains(deviceIDs, id) })
	}
	return nil
}

func (f *view) RemoveInstance(_ context.Context, processID string) error {
	if err := f.alive(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.processes, processID)
	return nil
}

// once tries everything once.
type once struct{}

func (once) Write(ctx context.Context, _ string, _ int, write func(context.Context) error) error {
	return write(ctx)
}
func (once) Do(ctx context.Context, _ string, read func(context.Context) error) error {
	return read(ctx)
}
