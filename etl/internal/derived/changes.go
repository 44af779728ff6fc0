package derived

import (
	"context"
	"iter"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/rollup"
)

// Changes are rows to write and to delete, grouped by partition. The zero value has none.
type Changes struct {
	deviceAlerts groups[deviceMonth, cassandra.Alert]
	goneAlerts   groups[deviceMonth, cassandra.Alert] // deletions of device alerts
	fleetAlerts  groups[severityDay, cassandra.Alert]
	openAlerts   groups[fleetBucket, cassandra.Alert]
	trips        groups[deviceMonth, cassandra.TripRow]
	hours        groups[hourBucket, cassandra.HourRow]
	days         groups[string, cassandra.DeviceDay]
}

type groups[K comparable, R any] map[K][]cassandra.Mutation[R]

func (g *groups[K, R]) add(key K, row R, gone bool, at int64) {
	if *g == nil {
		*g = groups[K, R]{}
	}
	(*g)[key] = append((*g)[key], cassandra.Mutation[R]{Row: row, Delete: gone, WriteTimeUs: at})
}

type deviceMonth struct {
	device string
	month  cassandra.Day
}

type severityDay struct {
	fleet    string
	day      cassandra.Day
	severity string
}

type fleetBucket struct {
	fleet  string
	bucket int32
}

type hourBucket struct {
	cassandra.FleetHour
	bucket int32
}

// PutAlert writes an alert to the rows of its device and of its fleet.
func (c *Changes) PutAlert(r cassandra.Alert, at int64) {
	c.deviceAlerts.add(alertMonth(r), r, false, at)
	c.fleetAlerts.add(alertDay(r), r, false, at)
}

// DeleteDeviceAlert deletes an alert from the rows of its device.
func (c *Changes) DeleteDeviceAlert(r cassandra.Alert, at int64) {
	c.goneAlerts.add(alertMonth(r), r, true, at)
}

// DeleteFleetAlert deletes an alert from the rows of its fleet, day and severity.
func (c *Changes) DeleteFleetAlert(r cassandra.Alert, at int64) {
	c.fleetAlerts.add(alertDay(r), r, true, at)
}

func alertMonth(r cassandra.Alert) deviceMonth {
	return deviceMonth{r.DeviceID, cassandra.DayOf(r.OpenedMs).Month()}
}

func alertDay(r cassandra.Alert) severityDay {
	return severityDay{r.FleetID, cassandra.DayOf(r.OpenedMs), r.Severity}
}

func openBucket(r cassandra.Alert) fleetBucket {
	return fleetBucket{r.FleetID, cassandra.OpenAlertBucket(r.DeviceID)}
}

// PutOpenAlert writes an alert among the open ones of its fleet.
func (c *Changes) PutOpenAlert(r cassandra.Alert, at int64) {
	c.openAlerts.add(openBucket(r), r, false, at)
}

// DeleteOpenAlert deletes an alert from the open ones of its fleet.
func (c *Changes) DeleteOpenAlert(r cassandra.Alert, at int64) {
	c.openAlerts.add(openBucket(r), r, true, at)
}

// PutTrip writes a trip or stop.
func (c *Changes) PutTrip(deviceID string, r cassandra.TripRow, at int64) {
	c.trips.add(deviceMonth{deviceID, cassandra.DayOf(r.StartMs).Month()}, r, false, at)
}

// DeleteTrip deletes a trip or stop.
func (c *Changes) DeleteTrip(deviceID string, r cassandra.TripRow, at int64) {
	c.trips.add(deviceMonth{deviceID, cassandra.DayOf(r.StartMs).Month()}, r, true, at)
}

// PutHour writes what a device adds to an hour.
func (c *Changes) PutHour(r cassandra.HourRow, at int64) {
	c.hours.add(hourBucket{cassandra.FleetHour{FleetID: r.FleetID, HourMs: r.HourMs}, cassandra.HourBucket(r.DeviceID)}, r, false, at)
}

// DeleteHour deletes what a device added to an hour.
func (c *Changes) DeleteHour(h cassandra.FleetHour, deviceID string, at int64) {
	c.hours.add(hourBucket{h, cassandra.HourBucket(deviceID)}, cassandra.HourRow{FleetID: h.FleetID, HourMs: h.HourMs, DeviceID: deviceID}, true, at)
}

// PutDay writes the state of a device at the end of a day.
func (c *Changes) PutDay(deviceID string, d cassandra.DeviceDay, at int64) {
	c.days.add(deviceID, d, false, at)
}

// Hours yields the hours of fleets that change.
func (c *Changes) Hours() iter.Seq[cassandra.FleetHour] {
	hours := map[cassandra.FleetHour]bool{}
	for key := range c.hours {
		hours[key.FleetHour] = true
	}
	return maps.Keys(hours)
}

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

// Write writes the changes. It calls guard before each attempt of a request, and fails with guard's error. It returns the
// devices with a row that can't be written, and the error. The rows of all others are written.
//
// An alert is several rows. The row of its device comes first and goes last, so that a recomputation after a crash finds
// the alert and completes the others.
func (w *Writer) Write(ctx context.Context, c *Changes, guard func(context.Context) error) (failed map[string]error, err error) {
	var mu sync.Mutex
	fail := func(device string, err error) {
		mu.Lock()
		defer mu.Unlock()
		if failed == nil {
			failed = map[string]error{}
		}
		failed[device] = err
	}
	for _, writes := range []func(*phase){
		func(p *phase) {
			start(p, cassandra.TableDeviceAlerts, c.deviceAlerts, alertDevice, keyless[deviceMonth](w.Store.ApplyDeviceAlerts))
			start(p, cassandra.TableTrips, c.trips, func(key deviceMonth, _ *cassandra.TripRow) string { return key.device }, func(ctx context.Context, key deviceMonth, rows []cassandra.Mutation[cassandra.TripRow]) error {
				return w.Store.ApplyTrips(ctx, key.device, rows)
			})
			start(p, cassandra.TableHours, c.hours, func(_ hourBucket, r *cassandra.HourRow) string { return r.DeviceID },
				keyless[hourBucket](w.Store.ApplyHours))
			start(p, cassandra.TableDeviceDays, c.days, func(id string, _ *cassandra.DeviceDay) string { return id }, w.Store.ApplyDeviceDays)
		},
		func(p *phase) {
			start(p, cassandra.TableAlerts, c.fleetAlerts, alertDevice, keyless[severityDay](w.Store.ApplyFleetAlerts))
		},
		func(p *phase) {
			start(p, cassandra.TableOpenAlerts, c.openAlerts, alertDevice, keyless[fleetBucket](w.Store.ApplyOpenAlerts))
		},
		func(p *phase) {
			start(p, cassandra.TableDeviceAlerts, c.goneAlerts, alertDevice, keyless[deviceMonth](w.Store.ApplyDeviceAlerts))
		},
	} {
		g, gctx := errgroup.WithContext(ctx)
		p := &phase{exec: w.Exec, group: g, ctx: gctx, guard: guard, fail: fail}
		writes(p)
		if err := g.Wait(); err != nil {
			return nil, err
		}
		if p.err != nil {
			return nil, p.err
		}
	}
	return failed, nil
}

// phase is writes that run in parallel.
type phase struct {
	exec  *executor.Executor
	group *errgroup.Group
	ctx   context.Context
	guard func(context.Context) error
	fail  func(device string, err error)
	err   error // of a write that was not started
}

func alertDevice[K comparable](_ K, a *cassandra.Alert) string { return a.DeviceID }

// keyless makes a write of rows alone one of rows and their key.
func keyless[K comparable, R any](apply func(context.Context, []cassandra.Mutation[R]) error) func(context.Context, K, []cassandra.Mutation[R]) error {
	return func(ctx context.Context, _ K, rows []cassandra.Mutation[R]) error { return apply(ctx, rows) }
}

// start starts one write for each mutation of the groups. The rows of a mutation that can't be written are written one by
// one, so that a row fails only its device.
func start[K comparable, R any](p *phase, table string, all groups[K, R], device func(K, *R) string, apply func(context.Context, K, []cassandra.Mutation[R]) error) {
	for key, rows := range all {
		write := func(ctx context.Context, rows []cassandra.Mutation[R]) error {
			if err := p.guard(ctx); err != nil {
				return err
			}
			return apply(ctx, key, rows)
		}
		for part := range slices.Chunk(rows, mutationRows) {
			written := 0
			for i := range part {
				if !part[i].Delete {
					written++
				}
			}
			if p.err == nil {
				p.err = p.exec.Start(p.ctx, p.group, table, written, func(ctx context.Context) error {
					err := write(ctx, part)
					if !cassandra.Permanent(err) {
						return err
					}
					for i := range part {
						if err := write(ctx, part[i:i+1]); cassandra.Permanent(err) {
							p.fail(device(key, &part[i].Row), err)
						} else if err != nil {
							return err
						}
					}
					return nil
				})
			}
		}
	}
}
