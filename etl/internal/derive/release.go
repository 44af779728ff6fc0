package derive

import (
	"cmp"
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// release lets go of devices that have been quiet for long, or of all: their state is stored, and their marks go.
func (d *Deriver) release(ctx context.Context, all bool) error {
	now := d.now()
	d.mu.Lock()
	if len(d.hours) > 0 {
		d.mu.Unlock()
		return nil // hours that came up meanwhile are summed first
	}
	over := len(d.devices) - d.options.Devices + d.options.Devices/10
	var idle []*device
	var oldest []*device
	for _, v := range d.devices {
		if v.pending > 0 || v.deriving || v.doubtful {
			continue
		}
		leave := all || now.Sub(v.lastSeen) >= d.options.Idle
		if !leave && over > 0 {
			oldest = append(oldest, v)
			continue
		}
		if leave {
			idle = append(idle, v)
		}
	}
	if over > len(idle) && len(oldest) > 0 {
		slices.SortFunc(oldest, func(a, b *device) int { return a.lastSeen.Compare(b.lastSeen) })
		idle = append(idle, oldest[:min(len(oldest), over-len(idle))]...)
	}
	idle = slices.DeleteFunc(idle, func(v *device) bool {
		shared := v.shared || len(v.adopted) > 0
		switch settled := !v.derivedAt.Before(v.lastSeen.Add(d.options.Settle)); {
		case v.unsure, shared && !settled && now.Sub(v.lastSeen) >= d.options.Settle:
			// Once more after its last record, and after whatever another process wrote of it by a clock that differs.
			v.doubt(v.fromDay, "shared")
			v.derivedAt = v.derivedAt.Add(-sharedEvery)
			return true
		case shared && !settled, d.others && now.Sub(v.flushedAt) < d.options.Settle+2*d.options.Flush:
			return true
		case !v.quiet() || v.owesOpen:
			v.slowDue = now
			return true
		}
		return false
	})
	for _, v := range idle {
		delete(d.devices, v.id)
		d.releasing[v.id] = make(chan struct{})
		if d.leads {
			d.rememberSilence(v)
		}
	}
	d.room.Broadcast()
	d.mu.Unlock()
	slices.SortFunc(idle, func(a, b *device) int { return cmp.Compare(a.id, b.id) })
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(meetsAtOnce)
	for _, v := range idle {
		g.Go(func() error {
			defer func() {
				d.mu.Lock()
				close(d.releasing[v.id])
				delete(d.releasing, v.id)
				d.mu.Unlock()
			}()
			return d.letGo(ctx, v)
		})
	}
	return g.Wait()
}

// letGo stores a device's state and takes its marks away. If we die in between, whoever takes over derives once too
// often.
func (d *Deriver) letGo(ctx context.Context, v *device) error {
	at := d.stamp()
	if v.state.Roll.LastMs() != 0 {
		text, err := v.stored()
		if err != nil {
			return err
		}
		day := cassandra.DeviceDay{Day: v.day, State: text, Rules: *d.rules.Load()}
		for fleet := range v.fleet {
			day.Fleets = append(day.Fleets, fleet)
		}
		if err := d.write(ctx, cassandra.TableDeviceDays, 1, func(ctx context.Context) error {
			return d.stores.Sure.WriteDeviceDay(ctx, v.id, day, at)
		}); err != nil {
			return err
		}
	}
	for _, process := range append(v.adopted, d.process) {
		if err := d.try(ctx, cassandra.TableClaims, func(ctx context.Context) error {
			return d.stores.Sure.DeleteClaim(ctx, process, v.id, at)
		}); err != nil {
			return err
		}
	}
	return nil
}

// rollUp sums the fleets' hours that changed.
func (d *Deriver) rollUp(ctx context.Context) error {
	started := d.now()
	d.mu.Lock()
	hours := d.hours
	d.hours = map[fleetHour]bool{}
	if d.others {
		for key := range hours {
			d.again[key] = started.Add(d.options.Settle)
		}
	}
	for key, at := range d.again {
		if !started.Before(at) {
			hours[key] = true
			delete(d.again, key)
		}
	}
	d.mu.Unlock()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readsAtOnce)
	for key := range hours {
		g.Go(func() error { return d.sumHour(ctx, key) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	d.metrics.rollup.Observe(d.now().Sub(started).Seconds())
	d.metrics.rolledUp.Set(float64(d.now().UnixMilli()) / 1000)
	return nil
}

func (d *Deriver) sumHour(ctx context.Context, key fleetHour) error {
	at := d.stamp() // before it is read: whoever reads last has seen every device's latest
	var rows []cassandra.HourRow
	if _, err := d.read(ctx, cassandra.TableHours, func(ctx context.Context, s Store) (err error) {
		rows, err = s.Hours(ctx, key.fleet, key.hourMs)
		return err
	}); err != nil {
		return err
	}
	sum, found := sumHours(rows)
	if !found {
		return d.try(ctx, cassandra.TableAnalytics, func(ctx context.Context) error {
			return d.stores.Sure.DeleteAnalytics(ctx, key.fleet, key.hourMs, at)
		})
	}
	sum.WriteTimeUs = at
	d.metrics.hours.Inc()
	return d.write(ctx, cassandra.TableAnalytics, 1, func(ctx context.Context) error {
		return d.stores.Sure.WriteAnalytics(ctx, []cassandra.AnalyticsRow{sum})
	})
}
