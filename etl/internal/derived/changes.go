package derived

import (
	"context"
	"iter"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/rollup"
)

// Changes are rows to write and to delete, grouped by partition.
type Changes struct {
	deviceAlerts groups[deviceMonth, cassandra.Alert]
	goneAlerts   groups[deviceMonth, cassandra.Alert] // deletions of device alerts
	fleetAlerts  groups[severityDay, cassandra.Alert]
	openAlerts   groups[string, cassandra.Alert]
	trips        groups[deviceMonth, cassandra.TripRow]
	hours        groups[cassandra.FleetHour, cassandra.HourRow]
	days         groups[string, cassandra.DeviceDay]
}

type groups[K comparable, R any] map[K][]cassandra.Mutation[R]

type deviceMonth struct {
	device string
	month  cassandra.Day
}

type severityDay struct {
	fleet    string
	day      cassandra.Day
	severity string
}

// NewChanges returns no changes.
func NewChanges() *Changes {
	return &Changes{
		deviceAlerts: groups[deviceMonth, cassandra.Alert]{}, goneAlerts: groups[deviceMonth, cassandra.Alert]{},
		fleetAlerts: groups[severityDay, cassandra.Alert]{}, openAlerts: groups[string, cassandra.Alert]{},
		trips: groups[deviceMonth, cassandra.TripRow]{}, hours: groups[cassandra.FleetHour, cassandra.HourRow]{},
		days: groups[string, cassandra.DeviceDay]{},
	}
}

// PutAlert writes an alert to the rows of its device and of its fleet.
func (c *Changes) PutAlert(r cassandra.Alert, at int64) {
	key := deviceMonth{r.DeviceID, cassandra.DayOf(r.OpenedMs).Month()}
	c.deviceAlerts[key] = append(c.deviceAlerts[key], cassandra.Mutation[cassandra.Alert]{Row: r, WriteTimeUs: at})
	c.fleetAlert(r, at, false)
}

// DeleteDeviceAlert deletes an alert from the rows of its device.
func (c *Changes) DeleteDeviceAlert(r cassandra.Alert, at int64) {
	key := deviceMonth{r.DeviceID, cassandra.DayOf(r.OpenedMs).Month()}
	c.goneAlerts[key] = append(c.goneAlerts[key], cassandra.Mutation[cassandra.Alert]{Row: r, Delete: true, WriteTimeUs: at})
}

// DeleteFleetAlert deletes an alert from the rows of its fleet, day and severity.
func (c *Changes) DeleteFleetAlert(r cassandra.Alert, at int64) { c.fleetAlert(r, at, true) }

func (c *Changes) fleetAlert(r cassandra.Alert, at int64, gone bool) {
	key := severityDay{r.FleetID, cassandra.DayOf(r.OpenedMs), r.Severity}
	c.fleetAlerts[key] = append(c.fleetAlerts[key], cassandra.Mutation[cassandra.Alert]{Row: r, Delete: gone, WriteTimeUs: at})
}

// PutOpenAlert writes an alert among the open ones of its fleet.
func (c *Changes) PutOpenAlert(r cassandra.Alert, at int64) {
	c.openAlerts[r.FleetID] = append(c.openAlerts[r.FleetID], cassandra.Mutation[cassandra.Alert]{Row: r, WriteTimeUs: at})
}

// DeleteOpenAlert deletes an alert from the open ones of its fleet.
func (c *Changes) DeleteOpenAlert(r cassandra.Alert, at int64) {
	c.openAlerts[r.FleetID] = append(c.openAlerts[r.FleetID], cassandra.Mutation[cassandra.Alert]{Row: r, Delete: true, WriteTimeUs: at})
}

// PutTrip writes a trip or stop.
func (c *Changes) PutTrip(deviceID string, r cassandra.TripRow, at int64) {
	c.trip(deviceID, r, at, false)
}

// DeleteTrip deletes a trip or stop.
func (c *Changes) DeleteTrip(deviceID string, r cassandra.TripRow, at int64) {
	c.trip(deviceID, r, at, true)
}

func (c *Changes) trip(deviceID string, r cassandra.TripRow, at int64, gone bool) {
	key := deviceMonth{deviceID, cassandra.DayOf(r.StartMs).Month()}
	c.trips[key] = append(c.trips[key], cassandra.Mutation[cassandra.TripRow]{Row: r, Delete: gone, WriteTimeUs: at})
}

// PutHour writes what a device adds to an hour.
func (c *Changes) PutHour(r cassandra.HourRow, at int64) { c.hour(r, at, false) }

// DeleteHour deletes what a device added to an hour.
func (c *Changes) DeleteHour(h cassandra.FleetHour, deviceID string, at int64) {
	c.hour(cassandra.HourRow{FleetID: h.FleetID, HourMs: h.HourMs, DeviceID: deviceID}, at, true)
}

func (c *Changes) hour(r cassandra.HourRow, at int64, gone bool) {
	key := cassandra.FleetHour{FleetID: r.FleetID, HourMs: r.HourMs}
	c.hours[key] = append(c.hours[key], cassandra.Mutation[cassandra.HourRow]{Row: r, Delete: gone, WriteTimeUs: at})
}

// PutDay writes the state of a device at the end of a day.
func (c *Changes) PutDay(deviceID string, d cassandra.DeviceDay, at int64) {
	c.days[deviceID] = append(c.days[deviceID], cassandra.Mutation[cassandra.DeviceDay]{Row: d, WriteTimeUs: at})
}

// Hours yields the hours of fleets that change.
func (c *Changes) Hours() iter.Seq[cassandra.FleetHour] { return maps.Keys(c.hours) }

// EndedTrips counts the trips and stops of a kind that are written with an end.
func (c *Changes) EndedTrips(kind rollup.TripKind) (n int) {
	for _, rows := range c.trips {
		for i := range rows {
			if !rows[i].Delete && !rows[i].Row.Open && rows[i].Row.Kind == string(kind) {
				n++
			}
		}
	}
	return n
}

// Add adds the changes of another device.
func (c *Changes) Add(other *Changes) {
	add(c.deviceAlerts, other.deviceAlerts)
	add(c.goneAlerts, other.goneAlerts)
	add(c.fleetAlerts, other.fleetAlerts)
	add(c.openAlerts, other.openAlerts)
	add(c.trips, other.trips)
	add(c.hours, other.hours)
	add(c.days, other.days)
}

func add[K comparable, R any](all, other groups[K, R]) {
	for key, rows := range other {
		all[key] = append(all[key], rows...)
	}
}

// Store is what a Writer writes to. Each method applies rows of one partition.
type Store interface {
	ApplyDeviceAlerts(ctx context.Context, rows []cassandra.Mutation[cassandra.Alert]) error
	ApplyFleetAlerts(ctx context.Context, rows []cassandra.Mutation[cassandra.Alert]) error
	ApplyOpenAlerts(ctx context.Context, rows []cassandra.Mutation[cassandra.Alert]) error
	ApplyTrips(ctx context.Context, deviceID string, rows []cassandra.Mutation[cassandra.TripRow]) error
	ApplyHours(ctx context.Context, rows []cassandra.Mutation[cassandra.HourRow]) error
	ApplyDeviceDays(ctx context.Context, deviceID string, rows []cassandra.Mutation[cassandra.DeviceDay]) error
}

// Writer writes changes.
type Writer struct {
	Store Store
	Exec  *executor.Executor
}

// mutationRows bounds one mutation to about 16 KiB: a row has some 300 bytes.
const mutationRows = 50

// Write writes the changes. It calls guard before each attempt of a request, and fails with guard's error.
//
// An alert is several rows. The row of its device comes first and goes last, so that a recomputation after a crash finds
// the alert and completes the others.
func (w *Writer) Write(ctx context.Context, c *Changes, guard func(context.Context) error) error {
	return inOrder(
		func() error {
			p := w.phase(ctx, guard)
			start(p, cassandra.TableDeviceAlerts, c.deviceAlerts, func(ctx context.Context, _ deviceMonth, rows []cassandra.Mutation[cassandra.Alert]) error {
				return w.Store.ApplyDeviceAlerts(ctx, rows)
			})
			start(p, cassandra.TableTrips, c.trips, func(ctx context.Context, key deviceMonth, rows []cassandra.Mutation[cassandra.TripRow]) error {
				return w.Store.ApplyTrips(ctx, key.device, rows)
			})
			start(p, cassandra.TableHours, c.hours, func(ctx context.Context, _ cassandra.FleetHour, rows []cassandra.Mutation[cassandra.HourRow]) error {
				return w.Store.ApplyHours(ctx, rows)
			})
			start(p, cassandra.TableDeviceDays, c.days, w.Store.ApplyDeviceDays)
			return p.wait()
		},
		func() error {
			p := w.phase(ctx, guard)
			start(p, cassandra.TableAlerts, c.fleetAlerts, func(ctx context.Context, _ severityDay, rows []cassandra.Mutation[cassandra.Alert]) error {
				return w.Store.ApplyFleetAlerts(ctx, rows)
			})
			return p.wait()
		},
		func() error {
			p := w.phase(ctx, guard)
			start(p, cassandra.TableOpenAlerts, c.openAlerts, func(ctx context.Context, _ string, rows []cassandra.Mutation[cassandra.Alert]) error {
				return w.Store.ApplyOpenAlerts(ctx, rows)
			})
			return p.wait()
		},
		func() error {
			p := w.phase(ctx, guard)
			start(p, cassandra.TableDeviceAlerts, c.goneAlerts, func(ctx context.Context, _ deviceMonth, rows []cassandra.Mutation[cassandra.Alert]) error {
				return w.Store.ApplyDeviceAlerts(ctx, rows)
			})
			return p.wait()
		})
}

func inOrder(phases ...func() error) error {
	for _, phase := range phases {
		if err := phase(); err != nil {
			return err
		}
	}
	return nil
}

// phase is writes that run in parallel.
type phase struct {
	exec  *executor.Executor
	group *errgroup.Group
	ctx   context.Context
	guard func(context.Context) error
	err   error // of a write that was not started
}

func (w *Writer) phase(ctx context.Context, guard func(context.Context) error) *phase {
	g, ctx := errgroup.WithContext(ctx)
	return &phase{exec: w.Exec, group: g, ctx: ctx, guard: guard}
}

func (p *phase) wait() error {
	if err := p.group.Wait(); err != nil {
		return err
	}
	return p.err
}

// start starts one write for each mutation of the groups.
func start[K comparable, R any](p *phase, table string, all groups[K, R], apply func(context.Context, K, []cassandra.Mutation[R]) error) {
	for key, rows := range all {
		for part := range slices.Chunk(rows, mutationRows) {
			written := 0
			for i := range part {
				if !part[i].Delete {
					written++
				}
			}
			if p.err == nil {
				p.err = p.exec.Start(p.ctx, p.group, table, written, func(ctx context.Context) error {
					if err := p.guard(ctx); err != nil {
						return err
					}
					return apply(ctx, key, part)
				})
			}
		}
	}
}
