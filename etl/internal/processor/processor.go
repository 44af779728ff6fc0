// Package processor derives alerts, trips, stops and hourly statistics from stored records. It keeps the state of each
// device that sends, applies the device's records in event order once they are stored, and writes what follows. Where
// the order is unknown, because a record is late, two payloads have one time, or another instance has records of the
// device too, it recomputes the device from the store. So derived rows are a function of the stored records, whatever
// their order and the number of processes.
package processor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/backoff"
	"github.com/fleettracing/fleet-tracing/etl/internal/claims"
	"github.com/fleettracing/fleet-tracing/etl/internal/derived"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/hourly"
	"github.com/fleettracing/fleet-tracing/etl/internal/ratelog"
	"github.com/fleettracing/fleet-tracing/etl/internal/recompute"
	"github.com/fleettracing/fleet-tracing/etl/internal/stamp"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Store is what the processor reads, besides what a recomputation reads, and what it writes.
type Store interface {
	recompute.Store
	derived.Store
	hourly.Store
	devices
}

type devices interface {
	Latest(ctx context.Context, deviceID string) (cassandra.Telemetry, error)
	LatestOfFleet(ctx context.Context, fleetID string) ([]cassandra.Telemetry, error)
	Fleets(ctx context.Context) ([]string, error)
	OpenAlertsOfBucket(ctx context.Context, fleetID string, bucket int32) ([]cassandra.Alert, error)
}

// Options are the settings of a Processor. All of them must be set.
type Options struct {
	Flush        time.Duration // interval of writes; without Stream, rows that wait for memory shorten it
	MaxClockSkew time.Duration // largest expected clock difference between instances
	Idle         time.Duration // time without a record after which a device is unloaded
	Devices      int           // devices in memory, besides those with records in flight
	NotifyMaxAge time.Duration // alerts detected later than this after they opened are notified only if they last
	Stream       bool          // store alerts soon, and look after devices of the store that are silent
}

// These intervals and bounds need no setting.
const (
	pollEvery         = 5 * time.Second
	alertsEvery       = 300 * time.Millisecond // alerts are stored at most this often
	slowEvery         = 30 * time.Second       // open trips and alerts are written again
	heldFor           = 30 * time.Second       // an old alert that is open for so long after it was found is notified
	sweepEvery        = time.Minute
	sharedEvery       = 15 * time.Second // a shared device is recomputed
	retryAfter        = 5 * time.Minute  // a device whose rows can't be read or written is recomputed, a partition of a fleet read
	recomputeLimit    = 2 * time.Minute  // for the reads of one recomputation
	readsInParallel   = 8                // devices that are recomputed, or hours that are summed, in parallel
	loadsInParallel   = 64
	recomputeTogether = 64      // devices whose recomputed rows are written together, or days of them
	sweepAtOnce       = 200     // silent devices that are loaded at once
	backlogLimit      = 4096    // records of one device that wait while it is recomputed
	waitingLimit      = 100_000 // derived rows that wait to be written, at some 300 bytes each
)

// Processor derives rows from stored records.
type Processor struct {
	options Options
	rules   func() derived.Rules
	stores  executor.Views[Store]
	exec    *executor.Executor
	rows    derived.Writer
	hours   *hourly.Sums
	claims  *claims.Claims
	stamps  *stamp.Clock
	notify  func([]telemetry.AlertEvent)
	logger  logrus.FieldLogger
	now     func() time.Time
	metrics *metrics

	failures *ratelog.Outages // by device

	urgent chan struct{} // alerts are to be written soon

	mu      sync.Mutex
	epoch   int64 // of the claims
	devices map[string]*device
	room    *sync.Cond         // devices were unloaded, or records applied
	crowded atomic.Bool        // a batch waits for devices to be unloaded
	waiting int                // derived rows that wait for the next flush
	alerted []*device          // devices with alert events since the last flush
	silent  map[string]silence // devices that are not in memory, if this instance looks after them
	sweptAt time.Time
	expires map[string]bool // devices with open alerts that must be written again
	leaving bool            // hours that must be summed again are left to another instance

	cycle sync.Mutex // held while rows are written: one writer of a device's rows at a time

	open       map[partition]openAlerts // used by OpenAlerts alone
	unreadable *unreadable
}

// New makes a processor and registers its metrics with reg. rules returns the rules in force. notify receives the events
// that do not come from Apply; it must not block.
func New(o Options, rules func() derived.Rules, stores executor.Views[Store], exec *executor.Executor, c *claims.Claims, stamps *stamp.Clock,
	notify func([]telemetry.AlertEvent), logger logrus.FieldLogger, reg prometheus.Registerer, now func() time.Time) *Processor {
	p := &Processor{
		options: o, rules: rules, stores: stores, exec: exec, rows: derived.Writer{Store: stores.Strong, Exec: exec}, claims: c, stamps: stamps,
		notify: notify, logger: logger, now: now,
		urgent: make(chan struct{}, 1), devices: map[string]*device{},
		silent: map[string]silence{},
		hours:  hourly.New(o.MaxClockSkew, executor.Views[hourly.Store]{Strong: stores.Strong, Fallback: stores.Fallback}, exec, stamps, logger, reg, now),
	}
	p.failures = ratelog.NewOutages(logger, now, ratelog.Interval, "device", ratelog.Messages{
		Down:  "deriving a device failed, skipping it and trying again every 5 minutes",
		Still: "deriving a device still fails",
		Up:    "deriving a device works again",
	})
	p.unreadable = newUnreadable(logger, now)
	p.room = sync.NewCond(&p.mu)
	p.metrics = newMetrics(reg, p)
	return p
}

// Run writes what changes until stop ends, or at once until ctx does: what is not written then is left to the instance
// that takes over.
func (p *Processor) Run(ctx, stop context.Context) error {
	var polled, flushed, alerts time.Time
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		urgent := false
		select {
		case <-ctx.Done():
			return nil
		case <-stop.Done():
			return nil
		case <-p.urgent:
			urgent = true
		case <-timer.C:
		}
		now := p.now()
		var err error
		switch {
		case urgent && p.options.Stream && now.Sub(flushed) < p.options.Flush && !p.crowded.Load():
			if wait := alertsEvery - now.Sub(alerts); wait > 0 {
				timer.Reset(min(wait, p.options.Flush-now.Sub(flushed)))
				if backoff.Sleep(stop, wait) != nil {
					return nil
				}
			}
			alerts = p.now()
			err = p.underLease(ctx, p.flushAlerts)
		default:
			flushed = now
			if now.Sub(polled) >= pollEvery {
				polled = now
				_, err = p.poll(ctx, false)
			}
			if err == nil {
				err = p.runCycle(ctx, false)
			}
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("derive: %w", err)
		}
		timer.Reset(max(0, p.options.Flush-p.now().Sub(flushed)))
	}
}

// runCycle does once everything that is due. With all set, every device is unloaded as if it had been silent.
func (p *Processor) runCycle(ctx context.Context, all bool) error {
	return p.underLease(ctx, func(ctx context.Context, lease claims.Lease) error {
		p.advance()
		p.renewOpenAlerts()
		for _, step := range []func(context.Context, claims.Lease, bool) error{p.sweep, p.flush, p.recompute, p.sumHours, p.release} {
			if err := step(ctx, lease, all); err != nil {
				return err
			}
		}
		return nil
	})
}

// underLease calls write with a lease, one call at a time. A write that finds this instance fenced ends early: the next
// cycle recomputes every device.
func (p *Processor) underLease(ctx context.Context, write func(context.Context, claims.Lease) error) error {
	p.cycle.Lock()
	defer p.cycle.Unlock()
	lease, err := p.claims.Confirm(ctx)
	if err != nil {
		return err
	}
	if err = write(ctx, lease); errors.Is(err, claims.ErrFenced) {
		return nil
	}
	return err
}

// syncEpoch marks every device dirty if this instance was fenced since the last call: another instance may have continued
// its states. Called with p.mu held, before a state is used.
func (p *Processor) syncEpoch() {
	epoch := p.claims.Epoch()
	if epoch == p.epoch {
		return
	}
	p.epoch = epoch
	for id, v := range p.devices {
		if s, ok := p.claims.Status(id); ok {
			v.markDirty(s.FromDay, reasonFenced)
			v.whole, v.recomputing, v.backlog, v.overflow = true, false, nil, false
		}
	}
}

// poll takes over devices and hours of other instances.
func (p *Processor) poll(ctx context.Context, wait bool) (waiting bool, err error) {
	polled, err := p.claims.Poll(ctx, wait, p.hours.Done)
	if err != nil {
		return false, err
	}
	p.mu.Lock()
	for _, id := range polled.Shared {
		if v := p.devices[id]; v != nil {
			if s, ok := p.claims.Status(id); ok {
				v.markDirty(s.FromDay, reasonShared)
			}
		}
	}
	p.mu.Unlock()
	p.hours.AddLater(polled.Hours)
	err = p.load(ctx, polled.Adopted, reasonTakenOver)
	for _, a := range polled.Adopted {
		p.claims.Applied(a.DeviceID, 1)
	}
	return polled.Waiting, err
}

// Finish derives and writes everything, and releases every device. Devices and hours that must wait because of the clocks
// of other instances are left to a running instance, if there is one that accepts them; left reports that. Devices and
// hours whose rows can't be read or written are left in any case. With wait
// set, Finish waits for instances that may have failed, to derive what they left.
func (p *Processor) Finish(ctx context.Context, wait bool) (left bool, err error) {
	if err := p.claims.StopAccepting(ctx); err != nil {
		return false, err
	}
	settled := false
	for {
		waiting, err := p.poll(ctx, wait)
		if err == nil {
			err = p.runCycle(ctx, true)
		}
		if err != nil {
			return false, fmt.Errorf("derive what is left: %w", err)
		}
		if p.claims.Successor() {
			if finished, left, err := p.handOver(ctx); finished || err != nil {
				return left, err
			}
		} else if p.loaded() == p.failed() && !p.hours.Due() && len(p.hours.Later()) == 0 {
			// The claims of failed devices that were taken over stay, so there would always be more to take over.
			if !waiting || settled && p.failed() > 0 {
				return p.leaveFailed(ctx)
			}
			settled = true
		}
		if err := backoff.Sleep(ctx, 200*time.Millisecond); err != nil {
			return false, err
		}
	}
}

// leaveFailed leaves the devices and hours whose rows can't be read or written to the next instance.
func (p *Processor) leaveFailed(ctx context.Context) (left bool, err error) {
	hours := p.hours.Failed()
	if len(hours) > 0 {
		err = p.claims.LeaveHours(ctx, hours)
	}
	return p.failed()+len(hours) > 0, err
}

// handOver leaves devices and hours to another instance, once all of them are derived. finished is false until then; left
// reports whether anything was left.
func (p *Processor) handOver(ctx context.Context) (finished, left bool, err error) {
	hours := p.hours.Later()
	busy := p.pick(func(v *device) bool {
		return !v.failing() && (v.dirty || v.recomputing || v.loading || !v.clean())
	})
	if len(busy) > 0 || p.hours.Due() {
		return false, false, nil
	}
	if len(hours) > 0 {
		if err := p.claims.LeaveHours(ctx, hours); err != nil {
			return false, false, err
		}
		p.mu.Lock()
		p.leaving = true
		p.mu.Unlock()
		if err := p.runCycle(ctx, true); err != nil { // releases the devices that waited for these hours
			return false, false, err
		}
	}
	devices := p.loaded()
	if devices == 0 && len(hours) == 0 {
		return true, false, nil
	}
	left, err = p.claims.Leave(ctx)
	if left {
		p.logger.WithFields(logrus.Fields{"devices": devices, "hours": len(hours)}).
			Info("another instance takes over what must wait because clocks may differ")
	}
	return left, left, err
}

// loaded is the number of devices in memory.
func (p *Processor) loaded() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.devices)
}

// dirty is the number of devices that wait to be recomputed.
func (p *Processor) dirty() int {
	return len(p.pick(func(v *device) bool { return v.dirty && !v.failing() }))
}

// failed is the number of devices whose rows can't be read or written.
func (p *Processor) failed() int { return len(p.pick((*device).failing)) }

// pick returns the chosen devices, in no order.
func (p *Processor) pick(chosen func(*device) bool) []*device {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []*device
	for _, v := range p.devices {
		if chosen(v) {
			found = append(found, v)
		}
	}
	return found
}

// wake has alerts written soon, and without Stream everything.
func (p *Processor) wake() {
	select {
	case p.urgent <- struct{}{}:
	default:
	}
}

func (p *Processor) fleets(ctx context.Context) (all []string, err error) {
	_, err = executor.ReadWithin(ctx, executor.PartitionLimit, p.exec, p.stores, cassandra.TableFleets, func(ctx context.Context, s Store) (err error) {
		all, err = s.Fleets(ctx)
		return err
	})
	return all, err
}
