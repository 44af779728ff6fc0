// Package registry decides whether the sender of a record may write to its device. Each device has one owner, the fleet
// that it belongs to. The first record of a new device, or an administrator, sets it by a lightweight transaction. A sender
// of one fleet writes to devices of that fleet only. A trusted sender writes to all of them, and moves a device to another
// fleet by a record that is newer than all others of the device. The senders of one fleet register a limited number of devices.
//
//	validate ─► Registry.Run ─► buffer ─► claims.Acquire ─► writer
//	                 │    └─► dead letters (wrong_fleet, …)
//	            owners in memory ◄── API
package registry

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"
	"unique"

	"github.com/maypok86/otter/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
	"github.com/fleettracing/fleet-tracing/etl/internal/ratelog"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Policy says what happens to records of devices without an owner.
type Policy string

// The policies.
const (
	Accept Policy = "accept" // the first record makes its fleet the owner
	Hold   Policy = "hold"   // they become dead letters, to be reprocessed once the device has an owner
	Reject Policy = "reject" // they are rejected
)

// Store keeps the owners of devices.
type Store interface {
	Owners(ctx context.Context, deviceIDs []string) ([]cassandra.Owner, error)
	SetFirstOwners(ctx context.Context, owners []cassandra.Owner) ([]cassandra.Owner, error)
	MoveOwner(ctx context.Context, from, to cassandra.Owner) (cassandra.Owner, error)
	LatestWriteTimes(ctx context.Context, deviceIDs []string) ([]cassandra.WriteTimes, error)
	Devices(ctx context.Context, fleetID string, size int, page string) (cassandra.Page[cassandra.Device], error)
}

// Options are what a registry decides by.
type Options struct {
	Unknown    Policy
	MaxDevices int // of a fleet: beyond it, its senders register no further ones; 0: unlimited
}

// These bounds need no setting.
const (
	cacheBytes   = 32 << 20         // of owners in memory
	freshFor     = time.Minute      // a move or a new device of another process takes effect within it
	parallel     = 64               // transactions
	together     = 100              // owners that one transaction sets
	timeout      = 2 * time.Second  // of a transaction, or until the devices of a fleet are counted
	pageRows     = 5000             // devices that are read at once to count them
	waitingBytes = 32 << 20         // of records that wait for an owner; above it, the pipeline waits. More than the API reads of one fleet
	firstPause   = time.Second      // before the next attempt, doubled each time
	longestPause = 16 * time.Second // so a cluster that is back is noticed soon
)

// Registry decides which records are stored. It is safe for concurrent use, but Run is called once.
type Registry struct {
	Options
	waitingBytes int
	exec         *executor.Executor
	logger       logrus.FieldLogger
	now          func() time.Time
	outage       *ratelog.Outage

	owners     *otter.Cache[string, *owner]
	registered prometheus.Counter
	moved      prometheus.Counter
	waiting    prometheus.Gauge
}

// owner is the owner of a device as it was read. It is never changed, but for the atomic fields.
type owner struct {
	cassandra.Owner
	sinceMs int64
	readMs  atomic.Int64 // clock
	newest  atomic.Int64 // newest event time that this process has seen since
}

// New makes a registry and registers its metrics.
func New(o Options, exec *executor.Executor, logger logrus.FieldLogger, reg prometheus.Registerer, now func() time.Time) *Registry {
	register := promutil.With(reg)
	g := &Registry{
		Options: o, waitingBytes: waitingBytes, exec: exec, logger: logger, now: now,
		outage: ratelog.New(logger, now, ratelog.Interval, ratelog.Messages{
			Down: "setting the owners of devices failed, records of new devices wait", Up: "setting the owners of devices works again",
		}),
		owners: otter.Must(&otter.Options[string, *owner]{
			MaximumWeight: cacheBytes, Executor: func(evict func()) { evict() }, Weigher: func(id string, o *owner) uint32 { return uint32(entryBytes + len(id) + len(o.FleetID)) },
		}),
		registered: register.Counter("fleet_etl_registry_devices_registered_total", "Devices whose first record made a fleet their owner."),
		moved:      register.Counter("fleet_etl_registry_devices_moved_total", "Devices that a record of a trusted sender moved to another fleet."),
		waiting: register.Gauge("fleet_etl_registry_waiting_bytes",
			"Records of new devices that wait for an owner: there are many of them, or too few replicas are up. At 32 MiB, all records wait."),
	}
	register.GaugeFunc("fleet_etl_registry_cache_bytes", "Owners of devices in memory, at most 32 MiB.", func() float64 { return float64(g.owners.WeightedSize()) })
	return g
}

// entryBytes is the approximate size of an owner in memory, without its names.
const entryBytes = 320

// remember keeps an owner in memory. Fleets share their names.
func (g *Registry) remember(o cassandra.Owner) *owner {
	o.FleetID = unique.Make(o.FleetID).Value()
	if o.FormerFleet != "" {
		o.FormerFleet = unique.Make(o.FormerFleet).Value()
	}
	o.DeviceID = unique.Make(o.DeviceID).Value()
	is := &owner{Owner: o, sinceMs: o.Since.UnixMilli()}
	is.readMs.Store(g.now().UnixMilli())
	if was, ok := g.owners.GetIfPresent(o.DeviceID); ok {
		is.newest.Store(was.newest.Load())
	}
	g.owners.Set(o.DeviceID, is)
	return is
}

func (g *Registry) isFresh(o *owner, nowMs int64) bool {
	return nowMs-o.readMs.Load() < freshFor.Milliseconds()
}

// Check returns why a sender can't write a record, as far as owners are in memory.
func (g *Registry) Check(sender string, r *telemetry.Record) *telemetry.Rejection {
	if o, ok := g.owners.GetIfPresent(r.DeviceID); ok && g.isFresh(o, g.now().UnixMilli()) {
		return o.check(sender, r)
	}
	return nil
}

// mayWrite reports whether a sender may write to a fleet at all.
func mayWrite(sender, fleet string) bool {
	return sender == "" || sender == pipeline.Trusted || sender == fleet
}

// check returns why a sender can't write a record of the device. It does not reveal the owner.
func (o *owner) check(sender string, r *telemetry.Record) *telemetry.Rejection {
	switch {
	case sender == pipeline.Trusted:
		return nil
	case !mayWrite(sender, r.FleetID):
		return telemetry.Reject(telemetry.ForbiddenFleet, telemetry.FieldFleetID, r.FleetID, "its sender may write to fleet "+sender+" only")
	case r.FleetID != o.FleetID:
		return telemetry.Reject(telemetry.WrongFleet, telemetry.FieldDeviceID, r.DeviceID,
			"the device belongs to another fleet: correct the device ID, or ask an administrator to move the device (fleet-etl devices claim)")
	case o.FormerFleet != "" && r.TimeMs < o.sinceMs:
		return telemetry.Reject(telemetry.WrongFleet, telemetry.FieldTimestamp, strconv.FormatInt(r.TimeMs, 10),
			"the device belonged to another fleet until "+o.Since.UTC().Format(time.RFC3339)+": send later records, or ask an administrator")
	}
	return nil
}

// setTogether sets the owners of devices by one transaction: first owners of one bucket, or one move. It keeps those in force
// in memory and returns them; nil is one that another process is setting. It is safe for concurrent use.
func (r *run) setTogether(ctx context.Context, wants []want) ([]*owner, error) {
	var inForce []cassandra.Owner
	var err error
	if first := wants[0]; first.from == nil {
		to := make([]cassandra.Owner, len(wants))
		for i, w := range wants {
			to[i] = w.to
		}
		inForce, err = r.store.SetFirstOwners(ctx, to)
	} else if o, ok := r.owners.GetIfPresent(first.to.DeviceID); ok && o.newest.Load() >= first.to.Since.UnixMilli() {
		return []*owner{o}, nil // while the record waited, the owner sent a newer one
	} else {
		inForce = make([]cassandra.Owner, 1)
		inForce[0], err = r.store.MoveOwner(ctx, first.from.Owner, first.to)
	}
	if err != nil {
		return nil, err
	}
	owners := make([]*owner, len(wants))
	for i, is := range inForce {
		w := wants[i]
		switch {
		case is.FleetID == "":
			continue
		case is.FleetID != w.to.FleetID || !is.Since.Equal(w.to.Since):
		case w.from == nil:
			r.registered.Inc()
		default:
			r.moved.Inc()
			r.logger.WithFields(logrus.Fields{"device": is.DeviceID, "from": w.from.FleetID, "to": is.FleetID, "since": is.Since.UTC().Format(time.RFC3339)}).
				Info("device moved to another fleet")
		}
		owners[i] = r.remember(is)
	}
	return owners, nil
}

var (
	errNotVisible = &cassandra.Error{Op: "read " + cassandra.TableOwners, Reason: cassandra.ReasonTimeout, Err: errors.New("an owner is being set by another process")}
	errTimeout    = &cassandra.Error{Op: "write " + cassandra.TableOwners, Reason: cassandra.ReasonTimeout, Err: context.DeadlineExceeded}
)

// Claim makes a fleet the owner of a device by order of an administrator. If the device has another owner, it belongs to the
// fleet from the event time since on. It returns the owner before, if there was one.
func Claim(ctx context.Context, s Store, fleetID, deviceID string, since time.Time) (before cassandra.Owner, err error) {
	to := cassandra.Owner{DeviceID: deviceID, FleetID: fleetID, Since: since, SetBy: cassandra.SetByAdministrator}
	for {
		owners, err := s.Owners(ctx, []string{deviceID})
		if err != nil {
			return before, err
		}
		if before = owners[0]; before.FleetID == "" {
			stored, err := s.LatestWriteTimes(ctx, []string{deviceID})
			if err != nil {
				return before, err
			}
			first := to
			if stored[0].Found && stored[0].FleetID != "" && stored[0].FleetID != fleetID {
				first = cassandra.Owner{DeviceID: deviceID, FleetID: stored[0].FleetID, Since: timeOf(stored[0]), SetBy: cassandra.SetByRecord}
			}
			set, err := s.SetFirstOwners(ctx, []cassandra.Owner{first})
			if err != nil || set[0].FleetID == fleetID {
				return before, err
			}
			continue
		}
		if before.FleetID == fleetID {
			return before, nil
		}
		is, err := s.MoveOwner(ctx, before, to)
		if err != nil || is.FleetID == fleetID {
			return before, err
		}
	}
}
