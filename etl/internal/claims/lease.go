package claims

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/ratelog"
)

// Lease allows its holder to act on the claims of one epoch.
type Lease struct {
	claims *Claims
	Epoch  int64
}

// Confirm waits until the last confirmed heartbeat is recent. If the instance was fenced, it waits until every device is
// claimed again, under a new ID.
func (c *Claims) Confirm(ctx context.Context) (Lease, error) {
	for {
		c.mu.Lock()
		if c.valid() {
			lease := Lease{c, c.epoch}
			c.mu.Unlock()
			return lease, nil
		}
		renewed := c.renewed
		c.mu.Unlock()
		c.wake()
		select {
		case <-renewed:
		case <-ctx.Done():
			return Lease{}, ctx.Err()
		}
	}
}

// Check waits as Confirm does. It fails with ErrFenced if the instance was fenced since the lease was obtained: what the
// holder is about to write then rests on a state that another instance may have continued.
func (l Lease) Check(ctx context.Context) error {
	current, err := l.claims.Confirm(ctx)
	if err == nil && current.Epoch != l.Epoch {
		err = ErrFenced
	}
	return err
}

// Epoch returns the number of times that the instance was fenced and has claimed its devices again.
func (c *Claims) Epoch() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.epoch
}

// valid reports whether the lease holds. The time of day counts as well as the monotonic clock, which stands still while
// a machine sleeps.
func (c *Claims) valid() bool {
	if c.confirmed.IsZero() || c.reclaiming {
		return false
	}
	now := c.now()
	return max(now.Sub(c.confirmed), now.Round(0).Sub(c.confirmed.Round(0))) <= c.options.Lease
}

// Run sends heartbeats, and claims all devices again after the instance was fenced, until ctx ends. Without it no lease
// is ever confirmed.
func (c *Claims) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.sendHeartbeats(ctx) })
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-c.reclaims:
				if err := c.reclaim(ctx); err != nil && ctx.Err() == nil {
					return fmt.Errorf("claim devices again: %w", err)
				}
			}
		}
	})
	return g.Wait()
}

func (c *Claims) sendHeartbeats(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	outage := ratelog.New(c.logger, c.now, ratelog.Interval, ratelog.Messages{
		Down: "heartbeat failed; another instance may take over this instance's devices",
		Up:   "heartbeats work again",
	})
	registered := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-c.urgent:
		}
		c.mu.Lock()
		id, role := c.id, c.role
		c.mu.Unlock()
		if id == registered {
			role = ""
		}
		started := c.now()
		fenced, err := c.heartbeat(ctx, id, role)
		if ctx.Err() != nil {
			return nil
		}
		outage.Note(err)
		switch {
		case err != nil:
		case fenced:
			c.fence(id)
			c.wake()
		default:
			registered = id
		}
		timer.Reset(max(0, c.options.Heartbeat-c.now().Sub(started)))
	}
}

func (c *Claims) wake() {
	select {
	case c.urgent <- struct{}{}:
	default:
	}
}

// heartbeat writes a heartbeat and reads the instance's own row: fenced reports that the instance was fenced, or that its
// row was removed and only the heartbeat is there.
func (c *Claims) heartbeat(ctx context.Context, id string, role cassandra.InstanceRole) (fenced bool, err error) {
	var at time.Time
	if err := c.exec.Do(ctx, cassandra.TableInstances, func(ctx context.Context) error {
		at = c.now()
		return c.stores.Strong.Heartbeat(ctx, id, role, at)
	}); err != nil {
		return false, err
	}
	instances, _, err := c.instances(ctx)
	if err != nil {
		return false, err
	}
	i := slices.IndexFunc(instances, func(i cassandra.Instance) bool { return i.ID == id })
	if i < 0 || instances[i].Fenced || instances[i].Role == "" {
		return true, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.id == id {
		c.renew(at)
	}
	return false, nil
}

// instances lists the instances. strong reports whether the read overlapped every write.
func (c *Claims) instances(ctx context.Context) (all []cassandra.Instance, strong bool, err error) {
	strong, err = executor.Read(ctx, c.exec, c.stores, cassandra.TableInstances, func(ctx context.Context, s Store) (err error) {
		all, err = s.Instances(ctx)
		return err
	})
	return all, strong, err
}

// renew extends the lease. While devices must be claimed again, that comes first: this instance's row is there now, so
// another instance can take the new claims over.
func (c *Claims) renew(at time.Time) {
	c.confirmed = at
	if c.reclaiming {
		select {
		case c.reclaims <- struct{}{}:
		default:
		}
		return
	}
	close(c.renewed)
	c.renewed = make(chan struct{})
}

// fence ends the epoch of an ID. Its claims stay for the instance that takes them over.
func (c *Claims) fence(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.id, c.reclaiming, c.confirmed = newInstanceID(), true, time.Time{}
	for _, v := range c.held {
		v.adopted = append(v.adopted, id)
	}
	c.fenced.Inc()
	c.logger.WithFields(logrus.Fields{"instance": id, "new_instance": c.id, "devices": len(c.held)}).
		Warn("this instance was taken over while paused or disconnected; claiming its devices again")
}

// reclaim claims every held device again, from the earliest day it may have stored records of.
func (c *Claims) reclaim(ctx context.Context) error {
	c.mu.Lock()
	if !c.reclaiming {
		c.mu.Unlock()
		return nil
	}
	id, held := c.id, slices.Collect(maps.Keys(c.held))
	c.mu.Unlock()
	if _, err := c.write(ctx, held, nil); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.id != id { // fenced again meanwhile
		return nil
	}
	c.epoch++
	c.reclaiming = false
	c.renew(c.confirmed)
	return nil
}
