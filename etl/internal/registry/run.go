package registry

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/backoff"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// run is the state of one call of Run. Only the methods that say so are called by another goroutine.
type run struct {
	*Registry
	store      Store
	background *errgroup.Group
	out        chan<- pipeline.ValidBatch
	refreshing atomic.Bool

	// While owners can't be set, or many are, records of devices that need one wait. Everything else goes on.
	held      []pipeline.ValidBatch
	heldBytes int
	wants     map[string]want // owners that they need
	fleets    map[string]*fleetDevices
	trying    bool // a goroutine tries to set them
	paused    bool // the last attempt failed: no other is made but by that goroutine
	pause     time.Duration
	tried     chan attempt
}

// attempt is an attempt to set owners.
type attempt struct{ wants, failed map[string]want }

// want is an owner to set.
type want struct {
	from *owner // present owner; nil: none
	to   cassandra.Owner
}

// Run passes on the records that their senders may write, until in is closed, and rejects the others. Where the owner of a
// new device can't be set, because too few replicas are up, the device's records wait and the others of the batch go on.
func (g *Registry) Run(ctx context.Context, store Store, in <-chan pipeline.ValidBatch, out chan<- pipeline.ValidBatch) error {
	group, ctx := errgroup.WithContext(ctx)
	running, end := context.WithCancel(ctx)
	r := &run{Registry: g, store: store, background: group, out: out, wants: map[string]want{}, fleets: map[string]*fleetDevices{}, tried: make(chan attempt, 1)}
	group.Go(func() error {
		defer end()
		return r.run(running, in)
	})
	return group.Wait()
}

func (r *run) run(ctx context.Context, in <-chan pipeline.ValidBatch) error {
	for in != nil || len(r.held) > 0 {
		more := in
		if r.heldBytes >= r.waitingBytes {
			more = nil
		}
		var err error
		select {
		case b, ok := <-more:
			if !ok {
				in = nil
				continue
			}
			err = r.handle(ctx, b)
		case a := <-r.tried:
			err = r.again(ctx, a)
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if len(r.held) > 0 && !r.trying {
			r.tryLater(ctx)
		}
		r.waiting.Set(float64(r.heldBytes))
	}
	return nil
}

// handle passes on what can be passed on of a batch.
func (r *run) handle(ctx context.Context, b pipeline.ValidBatch) error {
	owners, failed, err := r.ownersOf(ctx, b.Items)
	if err != nil {
		return err
	}
	var rejected []pipeline.RejectedItem
	var wait []pipeline.Item
	var stale []string
	nowMs := r.now().UnixMilli()
	kept := b.Items[:0]
	for i := range b.Items {
		item, o := &b.Items[i], owners[i]
		if len(failed) > 0 && mayWrite(item.Sender, item.FleetID) && (o == nil || item.Sender == pipeline.Trusted && item.FleetID != o.FleetID) {
			if _, waits := failed[item.DeviceID]; waits {
				wait = append(wait, *item)
				continue
			}
		}
		if rejection := r.check(o, item); rejection != nil {
			wrong := *item // its place is taken by the next record
			rejected = append(rejected, pipeline.RejectedItem{Item: &wrong, Rejection: rejection})
			continue
		}
		if item.TimeMs > o.newest.Load() {
			o.newest.Store(item.TimeMs)
		}
		if !r.isFresh(o, nowMs) {
			o.readMs.Store(nowMs)
			stale = append(stale, item.DeviceID)
		}
		kept = append(kept, *item)
	}
	if len(rejected) > 0 {
		if err := b.Reject(ctx, rejected); err != nil {
			return err
		}
	}
	r.refresh(ctx, stale)
	b.Items = kept
	if len(wait) > 0 {
		b = r.hold(b, wait, failed)
	}
	select {
	case r.out <- b:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// check returns why a record is not stored. A device without an owner has none because of the policy or the limit.
func (r *run) check(o *owner, item *pipeline.Item) *telemetry.Rejection {
	switch {
	case o != nil || !mayWrite(item.Sender, item.FleetID):
		return o.check(item.Sender, &item.Record)
	case r.Unknown == Hold:
		return telemetry.Reject(telemetry.HeldDevice, telemetry.FieldDeviceID, item.DeviceID,
			"register the device (fleet-etl devices claim), then reprocess the dead letter")
	case r.Unknown == Reject:
		return telemetry.Reject(telemetry.UnknownDevice, telemetry.FieldDeviceID, item.DeviceID,
			"register the device (fleet-etl devices claim), then send the record again")
	default:
		return telemetry.Reject(telemetry.TooManyDevices, telemetry.FieldDeviceID, item.DeviceID,
			"its fleet may have "+strconv.Itoa(r.MaxDevices)+" devices: raise ETL_FLEET_MAX_DEVICES or register the device (fleet-etl devices claim), then reprocess the dead letter")
	}
}

// hold keeps records of a batch back and returns the batch with the others. The source is notified when all are durable.
func (r *run) hold(b pipeline.ValidBatch, wait []pipeline.Item, failed map[string]want) pipeline.ValidBatch {
	var left atomic.Int32
	left.Store(2)
	whole := b.Done
	b.Done = func() {
		if left.Add(-1) == 0 {
			whole()
		}
	}
	held := b
	held.Items = wait
	r.held = append(r.held, held)
	for i := range wait {
		item := &wait[i]
		r.heldBytes += int(unsafe.Sizeof(*item)) + len(item.DeviceID) + len(item.FleetID) + len(item.Zone)
		r.wants[item.DeviceID] = failed[item.DeviceID]
	}
	return b
}

// tryLater tries in the background to set the owners that are missing, after a failure with a pause.
func (r *run) tryLater(ctx context.Context) {
	r.trying = true
	if r.paused {
		r.pause = min(max(firstPause, 2*r.pause), longestPause)
	}
	pause, wants := r.pause, maps.Clone(r.wants)
	r.background.Go(func() error {
		if backoff.Sleep(ctx, pause) != nil {
			return nil
		}
		_, failed, err := r.set(ctx, wants)
		if err != nil {
			return err
		}
		r.tried <- attempt{wants, failed}
		return nil
	})
}

// again handles the batches that wait, after an attempt.
func (r *run) again(ctx context.Context, a attempt) error {
	r.trying, r.paused = false, len(a.failed) > 0
	if !r.paused {
		r.pause = 0
	}
	held := r.held
	r.held, r.heldBytes = nil, 0
	maps.DeleteFunc(r.wants, func(id string, _ want) bool { _, tried := a.wants[id]; return tried })
	maps.Copy(r.wants, a.failed)
	for _, b := range held {
		if err := r.handle(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// ownersOf returns the owner of the device of each item. nil is none, because of the policy or the limit, or because it can't
// be set.
func (r *run) ownersOf(ctx context.Context, items []pipeline.Item) (owners []*owner, failed map[string]want, err error) {
	owners = make([]*owner, len(items))
	nowMs := r.now().UnixMilli()
	missing := map[string]bool{} // devices to read
	var ids []string
	for i := range items {
		item := &items[i]
		o, ok := r.owners.GetIfPresent(item.DeviceID)
		if ok && !r.isFresh(o, nowMs) && o.check(item.Sender, &item.Record) != nil {
			ok = false // another process may have moved the device
		}
		if ok {
			owners[i] = o
		} else if !missing[item.DeviceID] && mayWrite(item.Sender, item.FleetID) {
			missing[item.DeviceID] = true
			ids = append(ids, item.DeviceID)
		}
	}
	failed = map[string]want{}
	update := func(found map[string]*owner) {
		for i := range items {
			if o := found[items[i].DeviceID]; o != nil {
				owners[i] = o
			}
		}
	}
	if len(ids) > 0 {
		found, err := r.find(ctx, items, ids, failed)
		if err != nil {
			return nil, nil, err
		}
		update(found)
	}
	moves, err := r.moves(ctx, items, owners)
	if err != nil || len(moves) == 0 {
		return owners, failed, err
	}
	moved, unmoved, err := r.setNow(ctx, moves)
	if err != nil {
		return nil, nil, err
	}
	update(moved)
	maps.Copy(failed, unmoved)
	return owners, failed, nil
}

// find reads the owners of devices that are not in memory, and sets missing ones: the fleet of the newest stored record,
// which is from before there were owners, or that of the first record of the batch whose fleet may have another device. It
// adds to failed what can't be set.
func (r *run) find(ctx context.Context, items []pipeline.Item, ids []string, failed map[string]want) (map[string]*owner, error) {
	ids = slices.DeleteFunc(ids, func(id string) bool {
		w, waits := r.wants[id]
		if waits {
			failed[id] = w
		}
		return waits
	})
	found, without, err := r.read(ctx, ids)
	if err != nil || len(without) == 0 {
		return found, err
	}
	stored, err := r.latest(ctx, without)
	if err != nil {
		return nil, err
	}
	newest := map[string]cassandra.WriteTimes{}
	for i, id := range without {
		newest[id] = stored[i]
	}
	wants := map[string]want{}
	for i := range items {
		item := &items[i]
		id := item.DeviceID
		was, isWithout := newest[id]
		if _, wanted := wants[id]; wanted || !isWithout || !mayWrite(item.Sender, item.FleetID) {
			continue
		}
		to := cassandra.Owner{DeviceID: id, FleetID: item.FleetID, Since: item.Time(), SetBy: cassandra.SetByRecord}
		if was.Found && was.FleetID != "" {
			to.FleetID, to.Since = was.FleetID, timeOf(was)
		} else if !telemetry.PlatformFleet(item.FleetID) && (r.Unknown != Accept || !r.takeRoom(ctx, item)) {
			continue
		}
		wants[id] = want{to: to}
	}
	if len(wants) > together { // new devices of one sender must not delay the others
		maps.Copy(failed, wants)
		return found, nil
	}
	set, unset, err := r.setNow(ctx, wants)
	maps.Copy(found, set)
	maps.Copy(failed, unset)
	return found, err
}

// fleetDevices is how many devices a fleet has: as read, and registered since.
type fleetDevices struct {
	devices    int
	registered int // since they were read
	read       time.Time
	warned     bool // since they were read
}

// takeRoom counts a new device of a record's fleet, and reports whether the sender may register it. Other processes and
// administrators register devices, too, so the devices are read again from time to time. The rows that are read are written
// some time after their owners are set: the count falls only when none was set since the last time.
func (r *run) takeRoom(ctx context.Context, item *pipeline.Item) bool {
	fleet := r.fleets[item.FleetID]
	if limited := r.MaxDevices > 0 && item.Sender != pipeline.Trusted; limited {
		if fleet == nil {
			fleet = &fleetDevices{}
			r.fleets[item.FleetID] = fleet
		}
		if now := r.now(); now.Sub(fleet.read) >= freshFor {
			n, err := r.count(ctx, item.FleetID)
			if err != nil {
				r.logger.WithError(err).WithField("fleet", item.FleetID).Warn("counting the devices of a fleet failed, using the last count")
			} else {
				if n > fleet.devices || fleet.registered == 0 {
					fleet.devices = n
				}
				fleet.registered = 0
			}
			fleet.read, fleet.warned = now, false
		}
		if fleet.devices >= r.MaxDevices {
			if !fleet.warned {
				fleet.warned = true
				r.logger.WithFields(logrus.Fields{"fleet": item.FleetID, "limit": r.MaxDevices}).Warn("fleet has as many devices as it may have, rejecting new ones")
			}
			return false
		}
	}
	if fleet != nil {
		fleet.devices++
		fleet.registered++
	}
	return true
}

// count reads how many devices a fleet has, up to the limit.
func (r *run) count(ctx context.Context, fleetID string) (n int, err error) {
	ctx, end := context.WithTimeout(ctx, timeout)
	defer end()
	for page := ""; ; {
		devices, err := r.store.Devices(ctx, fleetID, pageRows, page)
		if err != nil {
			return 0, err
		}
		n += len(devices.Rows)
		if page = devices.Next; page == "" || n >= r.MaxDevices {
			return n, nil
		}
	}
}

func timeOf(w cassandra.WriteTimes) time.Time { return time.UnixMilli(w.LastUs / 1000).UTC() }

// moves returns the devices that records of trusted senders move to another fleet, because they are newer than every record
// of the device.
func (r *run) moves(ctx context.Context, items []pipeline.Item, owners []*owner) (map[string]want, error) {
	newer := map[string][]*pipeline.Item{}
	ownerOf := map[string]*owner{}
	for i := range items {
		item, o := &items[i], owners[i]
		if o == nil || item.Sender != pipeline.Trusted || item.FleetID == o.FleetID || item.TimeMs <= max(o.sinceMs, o.newest.Load()) {
			continue
		}
		newer[item.DeviceID] = append(newer[item.DeviceID], item)
		ownerOf[item.DeviceID] = o
	}
	if len(newer) == 0 {
		return nil, nil
	}
	ids := slices.Sorted(maps.Keys(newer))
	stored, err := r.latest(ctx, ids)
	if err != nil {
		return nil, err
	}
	moves := map[string]want{}
	for i, id := range ids {
		o := ownerOf[id]
		o.newest.Store(max(o.newest.Load(), stored[i].LastUs/1000))
		records := newer[id]
		slices.SortStableFunc(records, func(a, b *pipeline.Item) int { return int(min(max(a.TimeMs-b.TimeMs, -1), 1)) })
		last := records[len(records)-1]
		if last.TimeMs <= o.newest.Load() {
			continue
		}
		since := last // the first of the records for that fleet
		for _, record := range slices.Backward(records) {
			if record.FleetID != last.FleetID || record.TimeMs <= o.newest.Load() {
				break
			}
			since = record
		}
		moves[id] = want{o, cassandra.Owner{DeviceID: id, FleetID: last.FleetID, Since: since.Time(), SetBy: cassandra.SetByTrusted}}
	}
	return moves, nil
}

// refresh reads owners again in the background, one batch at a time.
func (r *run) refresh(ctx context.Context, ids []string) {
	if len(ids) == 0 || !r.refreshing.CompareAndSwap(false, true) {
		return
	}
	r.background.Go(func() error {
		defer r.refreshing.Store(false)
		if _, _, err := r.read(ctx, ids); ctx.Err() == nil {
			return err
		}
		return nil
	})
}

// read reads the owners of devices, and lists the devices that have none. It is safe for concurrent use.
func (r *run) read(ctx context.Context, ids []string) (owners map[string]*owner, without []string, err error) {
	owners = map[string]*owner{}
	if len(ids) == 0 {
		return owners, nil, nil
	}
	var found []cassandra.Owner
	err = r.exec.Do(ctx, cassandra.TableOwners, func(ctx context.Context) (err error) {
		found, err = r.store.Owners(ctx, ids)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	for i, o := range found {
		if o.FleetID == "" {
			r.owners.Invalidate(ids[i])
			without = append(without, ids[i])
		} else {
			owners[ids[i]] = r.remember(o)
		}
	}
	return owners, without, nil
}

func (r *run) latest(ctx context.Context, ids []string) (stored []cassandra.WriteTimes, err error) {
	err = r.exec.Do(ctx, cassandra.TableLatest, func(ctx context.Context) (err error) {
		stored, err = r.store.LatestWriteTimes(ctx, ids)
		return err
	})
	return stored, err
}

// setNow sets owners, unless the last attempt failed: then another one is due later.
func (r *run) setNow(ctx context.Context, wants map[string]want) (set map[string]*owner, failed map[string]want, err error) {
	if r.paused {
		return nil, wants, nil
	}
	set, failed, err = r.set(ctx, wants)
	r.paused = len(failed) > 0
	return set, failed, err
}

// set sets owners, and returns the owners in force, and the wants that failed. It is safe for concurrent use. It does not
// use the executor: too few replicas for a transaction can be enough for everything else.
func (r *run) set(ctx context.Context, wants map[string]want) (set map[string]*owner, failed map[string]want, err error) {
	var groups [][]want // in no order: after a timeout the others have their turn
	firsts := map[int32][]want{}
	for id, w := range wants {
		if w.from != nil {
			groups = append(groups, []want{w})
		} else {
			firsts[cassandra.OwnerBucket(id)] = append(firsts[cassandra.OwnerBucket(id)], w)
		}
	}
	for _, bucket := range firsts {
		groups = slices.AppendSeq(groups, slices.Chunk(bucket, together))
	}
	owners, errs := make([][]*owner, len(groups)), make([]error, len(groups))
	var g errgroup.Group
	g.SetLimit(parallel)
	var slow atomic.Bool // a transaction timed out: the next ones would, too
	for i, group := range groups {
		g.Go(func() error {
			if slow.Load() {
				errs[i] = errTimeout
				return nil
			}
			limited, end := context.WithTimeout(ctx, timeout)
			defer end()
			if owners[i], errs[i] = r.setTogether(limited, group); errs[i] != nil && limited.Err() != nil {
				errs[i] = errTimeout
				slow.Store(true)
			}
			return nil
		})
	}
	_ = g.Wait() // every transaction has its own error
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	set, failed = map[string]*owner{}, map[string]want{}
	var last error
	for i, group := range groups {
		if errs[i] != nil && cassandra.ReasonOf(errs[i]).Advice() == cassandra.GiveUp {
			return nil, nil, errs[i]
		}
		for k, w := range group {
			switch {
			case errs[i] != nil:
				failed[w.to.DeviceID], last = w, errs[i]
			case owners[i][k] == nil:
				failed[w.to.DeviceID], last = w, errNotVisible
			default:
				set[w.to.DeviceID] = owners[i][k]
			}
		}
	}
	if len(wants) > 0 {
		r.outage.Note(last)
	}
	return set, failed, nil
}
