// Package claims decides which instance of fleet-etl derives which device. A claim says that an instance may have stored
// records of a device whose derived rows are not all stored yet. It is written before the first record and deleted after
// the last derived row, so a crash leaves claims and never a gap.
//
// An instance sends heartbeats. Another instance fences one that is silent, waits until the fenced instance can no longer
// act on its claims, and takes them over. An instance may act on its claims only for a lease after each heartbeat that
// did not find it fenced. If it is fenced, because it was paused or disconnected, it continues under a new ID: it
// claims its devices again before it acknowledges a record or writes a derived row.
//
// Several instances may claim one device. Each writes its claim and then reads the others', so at least one of two sees
// the other and notifies it on its row. The device is then shared: every instance derives it from the store alone.
package claims

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
	"github.com/fleettracing/fleet-tracing/etl/internal/stamp"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Store keeps instances and claims.
type Store interface {
	Heartbeat(ctx context.Context, instanceID string, role cassandra.InstanceRole, now time.Time) error
	Instances(ctx context.Context) ([]cassandra.Instance, error)
	FenceInstance(ctx context.Context, instanceID string) error
	RemoveInstance(ctx context.Context, instanceID string) error
	SharedDevices(ctx context.Context, instanceID string) ([]string, error)
	AddSharedDevices(ctx context.Context, instanceID string, deviceIDs []string) error
	RemoveSharedDevices(ctx context.Context, instanceID string, deviceIDs []string) error
	ApplyInstanceClaims(ctx context.Context, rows []cassandra.Mutation[cassandra.Claim]) error
	ApplyDeviceClaims(ctx context.Context, rows []cassandra.Mutation[cassandra.Claim]) error
	ClaimsOfDevices(ctx context.Context, deviceIDs ...string) ([]cassandra.Claim, error)
	Leftovers(ctx context.Context, instanceID string) ([]cassandra.Claim, []cassandra.FleetHour, error)
	AddPendingHours(ctx context.Context, instanceID string, hours []cassandra.FleetHour) error
}

// Options are the settings of Claims. All of them must be set.
type Options struct {
	Role         cassandra.InstanceRole
	Heartbeat    time.Duration // interval of heartbeats
	Lease        time.Duration // how long after a confirmed heartbeat the instance may act on its claims
	FenceAfter   time.Duration // silence after which an instance is fenced; at least Lease
	MaxClockSkew time.Duration // largest expected clock difference between instances
}

// ErrFenced means that this instance was fenced since the lease was obtained, and that its work must be done again.
var ErrFenced = errors.New("this instance was fenced")

// Claims are the claims of this process. They are safe for concurrent use.
type Claims struct {
	options Options
	stores  executor.Views[Store]
	exec    *executor.Executor
	stamps  *stamp.Clock
	logger  logrus.FieldLogger
	now     func() time.Time

	running           prometheus.Gauge
	fenced, takenOver prometheus.Counter

	urgent   chan struct{} // a heartbeat is needed at once
	reclaims chan struct{} // the instance has a new ID, and its devices must be claimed again

	mu         sync.Mutex
	id         string
	role       cassandra.InstanceRole
	epoch      int64         // number of times that the instance was fenced and has claimed its devices again
	reclaiming bool          // fenced, and not all devices are claimed again
	confirmed  time.Time     // start of the last heartbeat that did not find the instance fenced
	renewed    chan struct{} // closed when the lease is renewed
	held       map[string]*claim
	releasing  map[string]chan struct{} // devices whose claims are being deleted

	peers     atomic.Bool // there are other instances, or were until recently
	successor atomic.Bool // an instance accepts what this one leaves
	leads     atomic.Bool // this instance looks after silent devices

	// Used by Poll alone.
	peersAt time.Time                        // when there were other instances
	seen    map[string]sighting              // of all instances
	pending map[string][]cassandra.FleetHour // hours that ended instances have left, by instance
	retry   map[string]time.Time             // instances whose claims can't be read, and when they are tried again
}

// claim is a device that this instance claims.
type claim struct {
	fromDay    cassandra.Day
	fleets     map[string]bool
	written    bool            // it is stored; until then every caller of Acquire writes it
	unchecked  bool            // the claims of others can't be read
	inFlight   int             // records that are announced and not applied yet
	adopted    []string        // ended or fenced instances whose claims are deleted with this one
	shared     bool            // another instance has records of the device too
	sharers    map[string]bool // the instances it was seen to be shared with
	aloneSince time.Time       // when it was first seen not to be shared any more
}

func newClaim(from cassandra.Day) *claim {
	return &claim{fromDay: from, fleets: map[string]bool{}}
}

func (c *claim) join(fleets []string) (changed bool) {
	for _, fleet := range fleets {
		changed = changed || !c.fleets[fleet]
		c.fleets[fleet] = true
	}
	return changed
}

// New makes claims and registers their metrics with reg.
func New(o Options, stores executor.Views[Store], exec *executor.Executor, stamps *stamp.Clock, logger logrus.FieldLogger, reg prometheus.Registerer, now func() time.Time) *Claims {
	register := promutil.With(reg)
	return &Claims{
		options: o, stores: stores, exec: exec, stamps: stamps, logger: logger, now: now,
		running: register.Gauge("fleet_etl_instances", "Instances of fleet-etl on this keyspace that send heartbeats, this one included."),
		fenced: register.Counter("fleet_etl_claims_fenced_total",
			"Times that this process was taken over while paused or disconnected, and claimed its devices again."),
		takenOver: register.Counter("fleet_etl_claims_taken_over_total", "Devices taken over from instances that ended or fell silent."),
		urgent:    make(chan struct{}, 1), reclaims: make(chan struct{}, 1),
		id: newInstanceID(), role: o.Role, renewed: make(chan struct{}), held: map[string]*claim{}, releasing: map[string]chan struct{}{},
		seen: map[string]sighting{}, pending: map[string][]cassandra.FleetHour{},
		retry: map[string]time.Time{},
	}
}

// InstanceID is the ID of this instance in its current epoch.
func (c *Claims) InstanceID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.id
}

// Want is what a caller is about to store of one device.
type Want struct {
	Records int
	FromDay cassandra.Day // of the earliest record
	Fleets  []string
}

// WantsOf returns what storing some records wants. Fleets of the platform itself need no claim: nothing is derived from
// their records.
func WantsOf(records iter.Seq[*telemetry.Record]) map[string]*Want {
	wants := map[string]*Want{}
	for r := range records {
		if telemetry.PlatformFleet(r.FleetID) {
			continue
		}
		day := cassandra.DayOf(r.TimeMs)
		w := wants[r.DeviceID]
		if w == nil {
			w = &Want{FromDay: day}
			wants[r.DeviceID] = w
		}
		w.Records++
		w.FromDay = min(w.FromDay, day)
		if !slices.Contains(w.Fleets, r.FleetID) {
			w.Fleets = append(w.Fleets, r.FleetID)
		}
	}
	return wants
}

// Acquired is a device that this instance has begun to claim.
type Acquired struct {
	DeviceID string
	FromDay  cassandra.Day
	Shared   bool  // other instances claim it too
	Strong   bool  // the claims of all other instances are known
	Err      error // the claims of other instances can't be read; see Check
}

// Acquire claims devices before their records are stored. It returns the devices that were not claimed before. The
// caller calls Applied once for each record.
func (c *Claims) Acquire(ctx context.Context, wants map[string]*Want) ([]Acquired, error) {
	if _, err := c.Confirm(ctx); err != nil {
		return nil, err
	}
	var fresh, changed []string
	for id, want := range wants {
		isNew, isChanged, err := c.hold(ctx, id, want)
		if err != nil {
			return nil, err
		}
		if isNew {
			fresh = append(fresh, id)
		} else if isChanged {
			changed = append(changed, id)
		}
	}
	if len(fresh)+len(changed) == 0 {
		return nil, nil
	}
	return c.write(ctx, fresh, changed)
}

// hold notes what is announced of a device. It waits while the device's claims are being deleted.
func (c *Claims) hold(ctx context.Context, id string, want *Want) (isNew, isChanged bool, err error) {
	for {
		c.mu.Lock()
		released := c.releasing[id]
		if released == nil {
			break
		}
		c.mu.Unlock()
		select {
		case <-released:
		case <-ctx.Done():
			return false, false, ctx.Err()
		}
	}
	defer c.mu.Unlock()
	v := c.held[id]
	if v == nil {
		v = newClaim(want.FromDay)
		c.held[id], isNew = v, true
	}
	v.inFlight += want.Records
	isChanged = v.join(want.Fleets) || !v.written
	if want.FromDay < v.fromDay {
		v.fromDay, isChanged = want.FromDay, true
	}
	return isNew, isChanged, nil
}

// write stores the claims as they are now. For the new ones it reads the claims of others, and notifies those.
func (c *Claims) write(ctx context.Context, fresh, changed []string) ([]Acquired, error) {
	rows := cassandra.Put(c.stamps.Next(), c.rows(slices.Concat(fresh, changed))...)
	isNew := make(map[string]bool, len(fresh))
	for _, id := range fresh {
		isNew[id] = true
	}
	var mu sync.Mutex
	var acquired []Acquired
	if err := c.inBuckets(ctx, rows, func(ctx context.Context, part []cassandra.Mutation[cassandra.Claim]) error {
		if err := c.run(ctx, cassandra.TableClaimsByInstance, part, c.stores.Strong.ApplyInstanceClaims); err != nil {
			return err
		}
		if err := c.run(ctx, cassandra.TableClaims, part, c.stores.Strong.ApplyDeviceClaims); err != nil {
			return err
		}
		var ids []string
		for i := range part {
			if id := part[i].Row.DeviceID; isNew[id] {
				ids = append(ids, id)
			}
		}
		found, err := c.notifyOthers(ctx, ids)
		if cassandra.Permanent(err) {
			found, err = c.uncheck(ids, err), nil
		}
		mu.Lock()
		defer mu.Unlock()
		acquired = append(acquired, found...)
		return err
	}); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, row := range rows {
		if v := c.held[row.Row.DeviceID]; v != nil {
			v.written = true
		}
	}
	return acquired, nil
}

// rows returns the claims on held devices as they are now.
func (c *Claims) rows(ids []string) (rows []cassandra.Claim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		if v := c.held[id]; v != nil { // or it was released meanwhile
			rows = append(rows, cassandra.Claim{InstanceID: c.id, DeviceID: id, FromDay: v.fromDay, Fleets: slices.Collect(maps.Keys(v.fleets))})
		}
	}
	return rows
}

// notifyOthers reads the claims of others on devices of one bucket that this instance claims, and notifies the others
// that these are shared.
func (c *Claims) notifyOthers(ctx context.Context, ids []string) ([]Acquired, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	others, strong, err := c.Others(ctx, ids...)
	if err != nil {
		return nil, err
	}
	shared := map[string][]string{} // devices by the other instance
	for id, claims := range others {
		for _, other := range claims {
			shared[other.InstanceID] = append(shared[other.InstanceID], id)
		}
	}
	for instance, devices := range shared {
		if err := c.exec.Do(ctx, cassandra.TableSharedDevices, func(ctx context.Context) error {
			return c.stores.Strong.AddSharedDevices(ctx, instance, devices)
		}); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var acquired []Acquired
	for _, id := range ids {
		v := c.held[id]
		if v == nil {
			continue // released meanwhile
		}
		v.unchecked = false
		for _, other := range others[id] {
			v.shared = true
			if v.sharers == nil {
				v.sharers = map[string]bool{}
			}
			v.sharers[other.InstanceID] = true
			v.fromDay = min(v.fromDay, other.FromDay)
			v.join(other.Fleets)
		}
		acquired = append(acquired, Acquired{DeviceID: id, FromDay: v.fromDay, Shared: len(others[id]) > 0, Strong: strong})
	}
	return acquired, nil
}

// uncheck notes that the claims of others on some devices can't be read.
func (c *Claims) uncheck(ids []string, err error) (acquired []Acquired) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		if v := c.held[id]; v != nil {
			v.unchecked = true
			acquired = append(acquired, Acquired{DeviceID: id, FromDay: v.fromDay, Err: err})
		}
	}
	return acquired
}

// Check reads the claims of others on a claimed device, and notifies them, after Acquire could not. It reports whether the
// device is shared.
func (c *Claims) Check(ctx context.Context, id string) (shared bool, err error) {
	checked, err := c.notifyOthers(ctx, []string{id})
	return len(checked) > 0 && checked[0].Shared, err
}

// Others reads the claims of other instances on devices of one bucket, by device. strong reports whether the read
// overlapped every write.
func (c *Claims) Others(ctx context.Context, ids ...string) (others map[string][]cassandra.Claim, strong bool, err error) {
	var claims []cassandra.Claim
	strong, err = executor.ReadWithin(ctx, executor.PartitionLimit, c.exec, c.stores, cassandra.TableClaims, func(ctx context.Context, s Store) (err error) {
		claims, err = s.ClaimsOfDevices(ctx, ids...)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	if claims, err = c.withoutReturned(ctx, claims, strong); err != nil {
		return nil, false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	others = map[string][]cassandra.Claim{}
	for _, other := range claims {
		v := c.held[other.DeviceID]
		switch {
		case other.InstanceID == c.id:
		case v != nil && slices.Contains(v.adopted, other.InstanceID):
			v.join(other.Fleets) // the other may have written rows of them
		default:
			others[other.DeviceID] = append(others[other.DeviceID], other)
		}
	}
	return others, strong, nil
}

// withoutReturned deletes claims that a node has brought back which was down when they were deleted, and returns the others. An
// instance is registered before its first claim, and removed after its last claim is deleted: a claim without an instance
// is such a claim.
func (c *Claims) withoutReturned(ctx context.Context, claims []cassandra.Claim, strong bool) ([]cassandra.Claim, error) {
	own := c.InstanceID()
	if !strong || !slices.ContainsFunc(claims, func(other cassandra.Claim) bool { return other.InstanceID != own }) {
		return claims, nil
	}
	instances, strong, err := c.instances(ctx)
	if err != nil || !strong {
		return claims, err
	}
	registered := map[string]bool{own: true}
	for _, i := range instances {
		registered[i.ID] = true
	}
	var returned []cassandra.Claim
	kept := slices.DeleteFunc(slices.Clone(claims), func(other cassandra.Claim) bool {
		gone := !registered[other.InstanceID]
		if gone {
			returned = append(returned, other)
		}
		return gone
	})
	if len(returned) == 0 {
		return kept, nil
	}
	return kept, c.exec.Do(ctx, cassandra.TableClaims, func(ctx context.Context) error {
		return c.stores.Strong.ApplyDeviceClaims(ctx, cassandra.Remove(c.stamps.Next(), returned...))
	})
}

// Status is what is known of the claims on a device.
type Status struct {
	FromDay  cassandra.Day
	Fleets   []string
	InFlight int
	Shared   bool // another instance has records of the device too
	Adopted  bool // it was taken over from another instance

	Unchecked bool // the claims of others could not be read; see Check
}

// Status returns the status of a device that this instance claims; ok is false if it does not.
func (c *Claims) Status(id string) (s Status, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.held[id]
	if v == nil {
		return Status{}, false
	}
	return Status{
		FromDay: v.fromDay, Fleets: slices.Collect(maps.Keys(v.fleets)), InFlight: v.inFlight, Shared: v.shared, Adopted: len(v.adopted) > 0, Unchecked: v.unchecked,
	}, true
}

// Applied ends what Acquire announced for some records of a device. It reports whether the device is shared.
func (c *Claims) Applied(id string, records int) (shared bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.held[id]
	if v == nil {
		return false
	}
	v.inFlight -= records
	return v.shared
}

// NoteOthers records whether other instances claimed a shared device at a time at which it was derived from the store. A
// device that is alone for longer than clocks may differ is not shared any more.
func (c *Claims) NoteOthers(id string, others bool, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.held[id]
	switch {
	case v == nil:
	case others:
		v.aloneSince = time.Time{}
	case v.aloneSince.IsZero():
		v.aloneSince = at
	case at.Sub(v.aloneSince) >= c.options.MaxClockSkew:
		v.shared, v.sharers, v.aloneSince = false, nil, time.Time{}
	}
}

// Join adds fleets to a claimed device, without writing them.
func (c *Claims) Join(id string, fleets []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v := c.held[id]; v != nil {
		v.join(fleets)
	}
}

// Peers reports whether there are other instances, or were until recently.
func (c *Claims) Peers() bool { return c.peers.Load() }

// Successor reports whether a running instance accepts what this one leaves.
func (c *Claims) Successor() bool { return c.successor.Load() }

// Leads reports whether this instance looks after devices that are silent.
func (c *Claims) Leads() bool { return c.leads.Load() }

// Release is a device whose claims are about to be deleted.
type Release struct {
	DeviceID string
	Fleets   []string
	claims   []string // IDs whose claims are deleted
}

// BeginRelease withdraws a device from this instance, unless records of it are in flight. Acquire of the device waits for
// FinishRelease.
func (c *Claims) BeginRelease(id string) (r Release, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.held[id]
	if v == nil || v.inFlight > 0 {
		return Release{}, false
	}
	delete(c.held, id)
	c.releasing[id] = make(chan struct{})
	return Release{DeviceID: id, Fleets: slices.Collect(maps.Keys(v.fleets)), claims: append(slices.Clone(v.adopted), c.id)}, true
}

// FinishRelease deletes the claims of devices whose derived rows are all stored.
func (c *Claims) FinishRelease(ctx context.Context, all []Release) error {
	defer c.AbortRelease(all)
	var gone []cassandra.Claim
	for _, r := range all {
		for _, instance := range r.claims {
			gone = append(gone, cassandra.Claim{InstanceID: instance, DeviceID: r.DeviceID})
		}
	}
	return c.inBuckets(ctx, cassandra.Remove(c.stamps.Next(), gone...), func(ctx context.Context, part []cassandra.Mutation[cassandra.Claim]) error {
		if err := c.run(ctx, cassandra.TableClaims, part, c.stores.Strong.ApplyDeviceClaims); err != nil {
			return err
		}
		return c.run(ctx, cassandra.TableClaimsByInstance, part, c.stores.Strong.ApplyInstanceClaims)
	})
}

// AbortRelease leaves the claims of devices as they are: another instance takes them over.
func (c *Claims) AbortRelease(all []Release) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range all {
		close(c.releasing[r.DeviceID])
		delete(c.releasing, r.DeviceID)
	}
}

// claimRows bounds one mutation of claims, and bucketsInParallel the number of them that are written at once.
const (
	claimRows         = 100
	bucketsInParallel = 64
)

// inBuckets calls apply with rows of one instance and bucket at a time, in parallel.
func (c *Claims) inBuckets(ctx context.Context, rows []cassandra.Mutation[cassandra.Claim], apply func(context.Context, []cassandra.Mutation[cassandra.Claim]) error) error {
	type bucket struct {
		instance string
		number   int32
	}
	groups := map[bucket][]cassandra.Mutation[cassandra.Claim]{}
	for _, row := range rows {
		key := bucket{row.Row.InstanceID, cassandra.ClaimBucket(row.Row.DeviceID)}
		groups[key] = append(groups[key], row)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(bucketsInParallel)
	for _, group := range groups {
		for part := range slices.Chunk(group, claimRows) {
			g.Go(func() error { return apply(ctx, part) })
		}
	}
	return g.Wait()
}

// run applies rows of claims, with its place among the writes in flight. Those may be held by writes that wait for the
// lease, so claiming devices again takes no place. Writes about instances never take one: they do not wait behind others.
func (c *Claims) run(ctx context.Context, table string, rows []cassandra.Mutation[cassandra.Claim], apply func(context.Context, []cassandra.Mutation[cassandra.Claim]) error) error {
	c.mu.Lock()
	reclaiming := c.reclaiming
	c.mu.Unlock()
	write := func(ctx context.Context) error { return apply(ctx, rows) }
	if reclaiming {
		return c.exec.Do(ctx, table, write)
	}
	return c.exec.Write(ctx, table, 0, write)
}
