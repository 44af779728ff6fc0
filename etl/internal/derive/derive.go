// Package derive keeps up what follows from the stored telemetry: alerts, trips and stops, and hourly figures. It holds
// a state for each device that sends, feeds it the device's fixes in event order once they are stored, and writes what
// comes of them. Where it can't know the order, because a fix is late, came twice with two contents, or another process
// has records of the device too, it derives the device anew from what is stored. So the rows are a function of the
// stored telemetry, whoever wrote it and in whatever order.
//
// Three rules make that hold:
//
//   - A mark says that a process may have stored records of a device that nothing was derived from. It is set before the
//     first of them is written, and goes only when everything that follows from them is written, too. Marks of a process
//     that died are taken over by another.
//   - Rows carry the time at which the telemetry they follow from was looked at. Of two writers the one who looked last
//     wins, and he has seen everything that was stored before.
//   - Who finds another's mark on a device tells him. Both then derive it from the store alone, and once more after the
//     last of its records, later by more than their clocks differ.
package derive

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/alerting"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Store is what is read and written. *cassandra.Store implements it.
type Store interface {
	states
	figures
	alerts
	marks
}

type states interface {
	Positions(ctx context.Context, deviceID string, day cassandra.Day) ([]cassandra.Telemetry, error)
	Latest(ctx context.Context, deviceID string) (cassandra.Telemetry, error)
	LatestOfFleet(ctx context.Context, fleetID string) ([]cassandra.Telemetry, error)
	Fleets(ctx context.Context) ([]string, error)
	LastDeviceDay(ctx context.Context, deviceID string, day cassandra.Day) (cassandra.DeviceDay, bool, error)
	DeviceDays(ctx context.Context, deviceID string, day cassandra.Day) ([]cassandra.DeviceDay, error)
	WriteDeviceDay(ctx context.Context, deviceID string, d cassandra.DeviceDay, writeTimeUs int64) error
}

type figures interface {
	Hours(ctx context.Context, fleetID string, hourMs int64) ([]cassandra.HourRow, error)
	WriteHours(ctx context.Context, rows []cassandra.HourRow, writeTimeUs int64) error
	DeleteHour(ctx context.Context, fleetID string, hourMs int64, deviceID string, writeTimeUs int64) error
	AnalyticsRows(ctx context.Context, fleetID string, day cassandra.Day) ([]cassandra.AnalyticsRow, error)
	WriteAnalytics(ctx context.Context, rows []cassandra.AnalyticsRow) error
	DeleteAnalytics(ctx context.Context, fleetID string, hourMs, writeTimeUs int64) error
	Trips(ctx context.Context, deviceID string, fromMs, toMs int64) ([]cassandra.TripRow, error)
	WriteTrips(ctx context.Context, deviceID string, rows []cassandra.TripRow, writeTimeUs int64) error
	DeleteTrip(ctx context.Context, deviceID string, startMs int64, kind string, writeTimeUs int64) error
}

type alerts interface {
	DeviceAlerts(ctx context.Context, deviceID string, fromMs, toMs int64) ([]cassandra.AlertState, error)
	WriteDeviceAlert(ctx context.Context, r *cassandra.AlertState, writeTimeUs int64) error
	DeleteDeviceAlert(ctx context.Context, deviceID string, openedMs int64, alertType string, writeTimeUs int64) error
	FleetAlerts(ctx context.Context, fleetID string, day cassandra.Day, fromMs, toMs int64) ([]cassandra.AlertState, error)
	WriteFleetAlert(ctx context.Context, r *cassandra.AlertState, writeTimeUs int64) error
	DeleteFleetAlert(ctx context.Context, r *cassandra.AlertState, writeTimeUs int64) error
	OpenAlerts(ctx context.Context, fleetID string) ([]cassandra.AlertState, error)
	OpenAlertsOfDevice(ctx context.Context, fleetID, deviceID string) ([]cassandra.AlertState, error)
	WriteOpenAlert(ctx context.Context, r *cassandra.AlertState, writeTimeUs int64) error
	DeleteOpenAlert(ctx context.Context, fleetID, deviceID, alertType string, writeTimeUs int64) error
}

type marks interface {
	WriteClaim(ctx context.Context, m cassandra.Claim, writeTimeUs int64) error
	DeleteClaim(ctx context.Context, processID, deviceID string, writeTimeUs int64) error
	ClaimsOfDevice(ctx context.Context, deviceID string) ([]cassandra.Claim, error)
	ClaimsOfInstance(ctx context.Context, processID string) ([]cassandra.Claim, error)
	Heartbeat(ctx context.Context, processID string, now time.Time) error
	Instances(ctx context.Context) ([]cassandra.Instance, error)
	AddSharedDevices(ctx context.Context, processID string, deviceIDs []string) error
	AckSharedDevices(ctx context.Context, processID string, deviceIDs []string) error
	RemoveInstance(ctx context.Context, processID string) error
}

// Tries does requests until they succeed, can't succeed or ctx ends. *executor.Executor implements it.
type Tries interface {
	// Write writes rows of a table, with a bound on writes in flight.
	Write(ctx context.Context, table string, rows int, write func(context.Context) error) error
	// Do reads from a table.
	Do(ctx context.Context, table string, read func(context.Context) error) error
}

// Stores are two views of one store: Sure reads at a level that meets every acknowledged write, Weak at that of writes,
// for when too few replicas live.
type Stores struct{ Sure, Weak Store }

// Options are the settings of a Deriver. All of them must be set, but for Tell.
type Options struct {
	Flush       time.Duration                // between two writes of what changed
	Settle      time.Duration                // how far apart the clocks of processes may be
	Idle        time.Duration                // after how long without a fix a device is let go
	Devices     int                          // devices whose state is kept at the most, but for those under way
	NewsAge     time.Duration                // an alert that is older when it is found is no news
	Tell        func([]telemetry.AlertEvent) // tells people; must not block
	ProcessDead time.Duration                // after how long without a sign of life a process counts as dead
}

// The rhythm of what needs no setting.
const (
	beatEvery    = 5 * time.Second
	slowEvery    = 30 * time.Second // open trips and alerts are written again
	sweepEvery   = time.Minute
	sharedEvery  = 15 * time.Second // a shared device is derived anew
	readsAtOnce  = 8                // devices that are derived anew at once
	meetsAtOnce  = 64
	adoptAtOnce  = 2000 // devices of a dead process that are taken over at once
	sweepAtOnce  = 200  // devices that have fallen silent and are met at once
	backlogLimit = 4096 // records of one device that wait while it is derived anew
)

// Deriver keeps up what follows from the stored telemetry.
type Deriver struct {
	process string
	options Options
	tries   Tries
	logger  logrus.FieldLogger
	now     func() time.Time
	metrics *metrics

	engine atomic.Pointer[alerting.Engine]
	rules  atomic.Pointer[string] // fingerprint of what engine goes by

	stores    Stores // from Open on
	connected chan struct{}
	lastStamp atomic.Int64
	sweeps    atomic.Bool

	mu        sync.Mutex
	devices   map[string]*device
	releasing map[string]chan struct{} // devices whose mark is being taken away
	urgent    chan struct{}            // something is to be written at once
	stepped   []*device                // devices whose alerts took steps since the last flush
	room      *sync.Cond               // devices were let go, or windows followed
	crowded   bool                     // somebody waits for devices to be let go
	hours     map[fleetHour]bool
	again     map[fleetHour]time.Time // hours that are summed once more, because another process may have done so, too
	others    bool                    // there are other processes, or were lately
	othersAt  time.Time
	signs     map[string]sign    // of life of all processes, for lookAround alone
	silent    map[string]silence // devices that are not in memory, where this process looks after them
	swept     time.Time
	leads     bool // this process looks after devices that have fallen silent

	cycle sync.Mutex // held while rows are written: one writer of a device's rows at a time
}

type fleetHour struct {
	fleet  string
	hourMs int64
}

// New makes a deriver. engine has the alerts' rules and zones, whose fingerprint is kept with what is derived.
func New(o Options, engine *alerting.Engine, fingerprint string, tries Tries, logger logrus.FieldLogger, reg prometheus.Registerer, now func() time.Time) *Deriver {
	d := &Deriver{
		process: processID(), options: o, tries: tries, logger: logger, now: now,
		connected: make(chan struct{}),
		devices:   map[string]*device{}, releasing: map[string]chan struct{}{},
		urgent: make(chan struct{}, 1), hours: map[fleetHour]bool{}, again: map[fleetHour]time.Time{}, silent: map[string]silence{},
	}
	d.room = sync.NewCond(&d.mu)
	d.SetEngine(engine, fingerprint)
	d.metrics = newMetrics(reg, d)
	return d
}

// SetEngine changes the rules. States go on under the new ones.
func (d *Deriver) SetEngine(engine *alerting.Engine, fingerprint string) {
	d.engine.Store(engine)
	d.rules.Store(&fingerprint)
}

// Open gives the deriver its store, once. Everything waits until then.
func (d *Deriver) Open(s Stores) {
	d.stores = s
	close(d.connected)
}

// stamp is a write timestamp: the time of day in µs, never the same twice and never going back. The one before it and the
// one after it belong to it, too: what is taken back to be written again goes before, and alerts stand among the open
// ones after, since another of the type may go at the same time.
//
// The clocks of processes differ. Whoever goes on with what another has written goes on with later timestamps, which
// after sees to; and what several write at once is written once more when the difference is over.
func (d *Deriver) stamp() int64 {
	for {
		last := d.lastStamp.Load()
		next := max(last+3, d.now().UnixMicro())
		if d.lastStamp.CompareAndSwap(last, next) {
			return next
		}
	}
}

// Sweep has the deriver look for devices of the store that have fallen silent, too. It is called before Run.
func (d *Deriver) Sweep() { d.sweeps.Store(true) }

// OpenAlerts is the open alerts that people are to be told of, those of all fleets, from the store. Reads are tried again until ctx
// ends: a node that dies takes those under way along.
func (d *Deriver) OpenAlerts(ctx context.Context) ([]telemetry.Alert, error) {
	var fleets []string
	if _, err := d.read(ctx, cassandra.TableFleets, func(ctx context.Context, s Store) (err error) {
		fleets, err = s.Fleets(ctx)
		return err
	}); err != nil {
		return nil, err
	}
	open := map[telemetry.Severity]int{}
	var told []telemetry.Alert
	for _, fleet := range fleets {
		var rows []cassandra.AlertState
		if err := d.repeat(ctx, cassandra.TableOpenAlerts, func(ctx context.Context) (err error) {
			rows, err = d.stores.Weak.OpenAlerts(ctx, fleet)
			return err
		}); err != nil {
			return nil, err
		}
		for _, row := range rows {
			open[telemetry.Severity(row.Severity)]++
			if row.Notify {
				told = append(told, AlertOf(row))
			}
		}
	}
	for _, severity := range telemetry.Severities {
		d.metrics.open[severity].Set(float64(open[severity]))
	}
	return told, nil
}

// after makes all stamps from now on later than one that was read.
func (d *Deriver) after(stamp int64) {
	for {
		last := d.lastStamp.Load()
		if stamp+1 <= last || d.lastStamp.CompareAndSwap(last, stamp+1) {
			return
		}
	}
}

// Run writes what changes until stop ends, or at once until ctx does: then what it was about to write is left to who
// takes over. It gives no sign of life before Open.
func (d *Deriver) Run(ctx, stop context.Context) error {
	select {
	case <-d.connected:
	case <-stop.Done():
		return nil
	case <-ctx.Done():
		return nil
	}
	defer d.keepBeating(ctx)()
	looked, counted := time.Time{}, time.Time{}
	flushed := d.now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		urgent := false
		select {
		case <-ctx.Done():
			return nil
		case <-stop.Done():
			return nil
		case <-d.urgent:
			urgent = true
		case <-timer.C:
		}
		now := d.now()
		var err error
		if urgent && now.Sub(flushed) < d.options.Flush && !d.isCrowded() {
			err = d.flushAlerts(ctx)
		} else {
			flushed = now
			if now.Sub(looked) >= beatEvery {
				looked = now
				_, err = d.lookAround(ctx, false)
			}
			if err == nil {
				err = d.once(ctx, false)
			}
			if err == nil && d.sweeps.Load() && now.Sub(counted) >= slowEvery {
				counted = now
				if _, err := d.OpenAlerts(ctx); err != nil && ctx.Err() == nil {
					d.logger.WithError(err).Warn("open alerts can't be counted")
				}
			}
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("derive: %w", err)
		}
		timer.Reset(max(0, d.options.Flush-d.now().Sub(flushed)))
	}
}

// keepBeating gives signs of life, however long everything else takes, until the returned function is called.
func (d *Deriver) keepBeating(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(beatEvery)
		defer ticker.Stop()
		for {
			// What can't be told now is told the next time.
			if err := d.beat(ctx); err != nil && ctx.Err() == nil {
				d.logger.WithError(err).Warn("sign of life can't be given; others may take over what this process derives")
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

func (d *Deriver) beat(ctx context.Context) error {
	return d.try(ctx, cassandra.TableInstances, func(ctx context.Context) error { return d.stores.Sure.Heartbeat(ctx, d.process, d.now()) })
}

// once goes once through everything that there is to do. With all set, devices are let go as if they had been silent for
// long.
func (d *Deriver) once(ctx context.Context, all bool) error {
	d.cycle.Lock()
	defer d.cycle.Unlock()
	d.advance()
	if d.sweeps.Load() && d.leads && !all {
		if err := d.sweep(ctx); err != nil {
			return err
		}
	}
	if err := d.flush(ctx, all); err != nil {
		return err
	}
	if err := d.rederive(ctx, all); err != nil {
		return err
	}
	if err := d.rollUp(ctx); err != nil {
		return err
	}
	return d.release(ctx, all)
}

// Finish derives and writes everything, and lets go of every device and of the process's place. With wait set it waits
// for processes that may have died to be known as dead, so that what they left is derived as well.
func (d *Deriver) Finish(ctx context.Context, wait bool) error {
	select {
	case <-d.connected:
	default:
		return nil // nothing was ever stored
	}
	quiet := d.keepBeating(ctx)
	err := d.finish(ctx, wait)
	quiet() // before the process is taken off the list, where a sign of life would put it back
	if err != nil {
		return fmt.Errorf("derive what is left: %w", err)
	}
	return d.try(ctx, cassandra.TableInstances, func(ctx context.Context) error { return d.stores.Sure.RemoveInstance(ctx, d.process) })
}

func (d *Deriver) finish(ctx context.Context, wait bool) error {
	for {
		waiting, err := d.lookAround(ctx, wait)
		if err == nil {
			err = d.once(ctx, true)
		}
		if err != nil {
			return err
		}
		if d.done() && !waiting {
			return nil
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// done tells whether nothing is left to be written.
func (d *Deriver) done() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.devices) == 0 && len(d.hours) == 0 && len(d.again) == 0
}

// held is the number of devices with state.
func (d *Deriver) held() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.devices)
}

func (d *Deriver) isCrowded() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.crowded
}

// wake asks for what is urgent to be written.
func (d *Deriver) wake() {
	select {
	case d.urgent <- struct{}{}:
	default:
	}
}

// write writes rows of a table, and counts what fails, however often it is tried.
func (d *Deriver) write(ctx context.Context, table string, rows int, write func(context.Context) error) error {
	failures := d.metrics.errors["write"]
	if table == cassandra.TableClaims || table == cassandra.TableInstances {
		failures = d.metrics.errors["mark"]
	}
	return d.tries.Write(ctx, table, rows, func(ctx context.Context) error { return count(failures, write(ctx)) })
}

// try does a write that is of no rows that are counted.
func (d *Deriver) try(ctx context.Context, table string, write func(context.Context) error) error {
	return d.write(ctx, table, 0, write)
}

func count(failures prometheus.Counter, err error) error {
	if err != nil {
		failures.Inc()
	}
	return err
}

// read reads at the sure level, and at that of writes where too few replicas live; sure tells which it was.
func (d *Deriver) read(ctx context.Context, table string, read func(context.Context, Store) error) (sure bool, err error) {
	err = d.repeat(ctx, table, func(ctx context.Context) error {
		sure = true
		err := read(ctx, d.stores.Sure)
		if cassandra.ReasonOf(err).TooFewReplicas() {
			sure = false
			err = read(ctx, d.stores.Weak)
		}
		return err
	})
	return sure, err
}

// repeat does a read until it succeeds or ctx ends, and counts the tries that fail.
func (d *Deriver) repeat(ctx context.Context, table string, read func(context.Context) error) error {
	return d.tries.Do(ctx, table, func(ctx context.Context) error { return count(d.metrics.errors["read"], read(ctx)) })
}

// pick gives the devices that are chosen, in no order.
func (d *Deriver) pick(chosen func(*device) bool) []*device {
	d.mu.Lock()
	defer d.mu.Unlock()
	var found []*device
	for _, v := range d.devices {
		if chosen(v) {
			found = append(found, v)
		}
	}
	return found
}

// doubtful is the number of devices that wait to be derived anew.
func (d *Deriver) doubtful() int { return len(d.pick(func(v *device) bool { return v.doubtful })) }
