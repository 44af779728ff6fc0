package claims

import (
	"context"
	"slices"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
)

// sighting is what this instance knows of the heartbeats of another.
type sighting struct {
	wrote  time.Time // last heartbeat, by the other's clock
	since  time.Time // when this instance first saw that heartbeat
	fenced time.Time // when this instance knew that the other is fenced
}

// Polled is what other instances have changed.
type Polled struct {
	Shared  []string              // claimed devices that are shared now
	Adopted []Acquired            // devices taken over; the caller calls Applied with one record for each
	Hours   []cassandra.FleetHour // hours to sum again, left by an instance that ended
	Waiting bool                  // there is more to take over, or with wait set there may be soon
}

// retryAfter is how long an instance is skipped whose claims can't be read.
const retryAfter = 5 * time.Minute

// adoptAtOnce is the number of devices of one instance that are taken over at once.
const adoptAtOnce = 2000

// Poll reads which claimed devices are shared, and takes over what instances left that ended, or that are silent and
// fenced. wait asks to wait for instances that may be silent. summed reports whether hours that Poll returned earlier
// are summed. Poll is called by one goroutine.
func (c *Claims) Poll(ctx context.Context, wait bool, summed func([]cassandra.FleetHour) bool) (p Polled, err error) {
	instances, _, err := c.instances(ctx)
	if err != nil {
		return p, err
	}
	own, now := c.InstanceID(), c.now()
	running, first, successor := 0, own, false
	var gone []string
	seen := map[string]sighting{}
	for _, i := range instances {
		s := c.seen[i.ID]
		if !s.wrote.Equal(i.HeartbeatAt) || s.since.IsZero() {
			s.wrote, s.since = i.HeartbeatAt, now
		}
		// By its own clock, and by this clock alone where its clock is ahead.
		silent := max(now.Sub(i.HeartbeatAt)-c.options.MaxClockSkew, now.Sub(s.since))
		switch {
		case i.ID == own:
			running++
		case i.Role == cassandra.RoleEnded || exited(i.ID):
			gone = append(gone, i.ID)
		case i.Fenced || silent > c.options.FenceAfter:
			if c.fenceOther(ctx, i, &s); !s.fenced.IsZero() && c.now().Sub(s.fenced) > c.options.Lease {
				gone = append(gone, i.ID)
			} else {
				p.Waiting = true
			}
		default:
			running++
			first = min(first, i.ID)
			fresh := silent <= 2*c.options.Heartbeat
			successor = successor || fresh && i.Role == cassandra.RoleStream
			p.Waiting = p.Waiting || wait && !fresh
		}
		seen[i.ID] = s
	}
	c.seen = seen
	c.running.Set(float64(running))
	c.leads.Store(first == own)
	c.successor.Store(successor)
	if slices.ContainsFunc(instances, func(i cassandra.Instance) bool { return i.ID != own }) {
		c.peersAt = now
		c.peers.Store(true)
	} else if now.Sub(c.peersAt) >= 2*(c.options.FenceAfter+c.options.Lease) {
		c.peers.Store(false)
	}
	if p.Shared, err = c.noteShared(ctx, own); err != nil {
		return p, err
	}
	c.mu.Lock()
	role := c.role
	c.mu.Unlock()
	if successor && role == cassandra.RoleBatch {
		return p, nil // the other takes them over
	}
	for _, id := range gone {
		if err := c.takeOver(ctx, id, &p, summed); err != nil {
			return p, err
		}
	}
	return p, nil
}

// noteShared reads and notes which devices are shared, and acknowledges that.
func (c *Claims) noteShared(ctx context.Context, own string) (shared []string, err error) {
	if _, err := executor.Read(ctx, c.exec, c.stores, cassandra.TableSharedDevices, func(ctx context.Context, s Store) (err error) {
		shared, err = s.SharedDevices(ctx, own)
		return err
	}); err != nil || len(shared) == 0 {
		return nil, err
	}
	c.mu.Lock()
	for _, id := range shared {
		if v := c.held[id]; v != nil {
			v.shared, v.aloneSince = true, time.Time{}
		}
	}
	c.mu.Unlock()
	return shared, c.exec.Do(ctx, cassandra.TableSharedDevices, func(ctx context.Context) error {
		return c.stores.Strong.RemoveSharedDevices(ctx, own, shared)
	})
}

// fenceOther fences a silent instance. It makes one attempt: where too few replicas are up, takeover waits, and the
// writes of records must not.
func (c *Claims) fenceOther(ctx context.Context, i cassandra.Instance, s *sighting) {
	if !s.fenced.IsZero() {
		return
	}
	if !i.Fenced {
		if err := c.stores.Strong.FenceInstance(ctx, i.ID); err != nil {
			c.logger.WithError(err).WithField("instance", i.ID).Debug("silent instance is not fenced yet")
			return
		}
	}
	s.fenced = c.now()
}

// takeOver claims the devices that another instance claimed, and collects the hours that it left.
func (c *Claims) takeOver(ctx context.Context, instance string, p *Polled, summed func([]cassandra.FleetHour) bool) error {
	var left []cassandra.Claim
	var hours []cassandra.FleetHour
	logger := c.logger.WithField("from_instance", instance)
	if c.now().Before(c.retry[instance]) {
		return nil
	}
	strong, err := executor.ReadWithin(ctx, executor.PartitionLimit, c.exec, c.stores, cassandra.TableClaimsByInstance, func(ctx context.Context, s Store) (err error) {
		left, hours, err = s.Leftovers(ctx, instance)
		return err
	})
	if cassandra.Permanent(err) { // its devices wait: those of others must not
		c.retry[instance] = c.now().Add(retryAfter)
		logger.WithError(err).Warn("reading the claims of an instance that ended failed, trying again in 5 minutes")
		return nil
	}
	if err != nil {
		return err
	}
	delete(c.retry, instance)
	if len(left) == 0 {
		if known := c.pending[instance]; len(hours) > 0 && known == nil {
			c.pending[instance] = hours
			p.Hours = append(p.Hours, hours...)
			logger.WithField("hours", len(hours)).Info("summing hours again that another instance left")
		}
		if !strong || len(hours) > 0 && !summed(c.pending[instance]) {
			p.Waiting = true
			return nil
		}
		delete(c.pending, instance)
		logger.Info("removed an instance that ended; it holds no claims")
		return c.remove(ctx, instance)
	}
	p.Waiting = true
	ids := c.adopt(instance, left)
	if len(ids) == 0 {
		return nil
	}
	logger.WithField("devices", len(ids)).Info("taking over devices of an instance that ended or fell silent")
	c.takenOver.Add(float64(len(ids)))
	adopted, err := c.write(ctx, ids, nil)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		// The other writes no more: the device is not shared because of it.
		if v := c.held[id]; v != nil {
			delete(v.sharers, instance)
			v.shared = len(v.sharers) > 0
		}
	}
	p.Adopted = append(p.Adopted, adopted...)
	return nil
}

// adopt holds the devices of another instance.
func (c *Claims) adopt(instance string, left []cassandra.Claim) (ids []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, other := range left {
		if len(ids) == adoptAtOnce {
			break
		}
		v := c.held[other.DeviceID]
		if c.releasing[other.DeviceID] != nil || v != nil && slices.Contains(v.adopted, instance) {
			continue
		}
		if v == nil {
			v = newClaim(other.FromDay)
			c.held[other.DeviceID] = v
		}
		v.fromDay = min(v.fromDay, other.FromDay)
		v.adopted = append(v.adopted, instance)
		c.stamps.After(other.WriteTimeUs) // its clock may be ahead: the claim is deleted later than it was written
		v.inFlight++                      // until the caller has loaded it
		ids = append(ids, other.DeviceID)
	}
	return ids
}

// LeaveHours leaves hours of fleets for another instance to sum again.
func (c *Claims) LeaveHours(ctx context.Context, hours []cassandra.FleetHour) error {
	id := c.InstanceID()
	return c.exec.Do(ctx, cassandra.TablePendingHours, func(ctx context.Context) error { return c.stores.Strong.AddPendingHours(ctx, id, hours) })
}

// StopAccepting announces that this instance is ending: from now on it accepts nothing that others leave.
func (c *Claims) StopAccepting(ctx context.Context) error {
	c.mu.Lock()
	id, before := c.id, c.role
	c.role = cassandra.RoleBatch
	c.mu.Unlock()
	if before == cassandra.RoleBatch {
		return nil
	}
	return c.announce(ctx, id, cassandra.RoleBatch)
}

// Leave leaves the claims and hours of this instance to another. It announces that before it looks for the other: of two
// instances that end at the same time, at least one sees that the other does. ok is false if there is none.
func (c *Claims) Leave(ctx context.Context) (ok bool, err error) {
	id := c.InstanceID()
	if err := c.announce(ctx, id, cassandra.RoleEnded); err != nil {
		return false, err
	}
	instances, _, err := c.instances(ctx)
	if err != nil {
		return false, err
	}
	if slices.ContainsFunc(instances, func(i cassandra.Instance) bool {
		return i.ID != id && i.Role == cassandra.RoleStream && !i.Fenced && c.now().Sub(i.HeartbeatAt) <= c.options.MaxClockSkew+2*c.options.Heartbeat
	}) {
		return true, nil
	}
	return false, c.announce(ctx, id, cassandra.RoleBatch)
}

func (c *Claims) announce(ctx context.Context, id string, role cassandra.InstanceRole) error {
	return c.exec.Do(ctx, cassandra.TableInstances, func(ctx context.Context) error { return c.stores.Strong.Heartbeat(ctx, id, role, c.now()) })
}

// Remove removes this instance. Run must have ended, or its next heartbeat would write the row again.
func (c *Claims) Remove(ctx context.Context) error { return c.remove(ctx, c.InstanceID()) }

func (c *Claims) remove(ctx context.Context, id string) error {
	return c.exec.Do(ctx, cassandra.TableInstances, func(ctx context.Context) error { return c.stores.Strong.RemoveInstance(ctx, id) })
}
