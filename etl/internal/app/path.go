package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/ack"
	"github.com/fleettracing/fleet-tracing/etl/internal/claims"
	"github.com/fleettracing/fleet-tracing/etl/internal/derived"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/notifier"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/processor"
	"github.com/fleettracing/fleet-tracing/etl/internal/stamp"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
	"github.com/fleettracing/fleet-tracing/etl/internal/writer"
)

// These intervals need no setting. An instance that crashes is taken over after fenceAfter and lease, 30 s.
const (
	heartbeatInterval = 5 * time.Second
	lease             = 10 * time.Second
	fenceAfter        = 20 * time.Second
	deviceIdle        = 2 * time.Minute // after which a device's state is stored and unloaded
	loadFlush         = time.Minute     // least interval of a load's derived writes: full mutations matter more than freshness
)

// batchesInFlight is the number of batches that are stored at once: one is written while the next is planned.
const batchesInFlight = 2

// recordPath takes valid records to the store, and derives what follows from them. It implements pipeline.Writer.
//
//	source ─► validate ─► registry ─► buffer ─► claims.Acquire ─► writer.Start ─► claims.Confirm ─► acknowledge ─► processor.Apply ─► receivers
//	                         │                       │                                  │                               │
//	                    owners of devices   heartbeats, takeover                lease, fencing              flush, recompute, roll up
type recordPath struct {
	*App
	role      cassandra.InstanceRole
	linger    time.Duration
	receivers notifier.Receivers

	derivation *derivation   // nil until the store is reached, and where nothing is derived
	deriving   chan struct{} // closed once derivation is set
	mu         sync.Mutex
	order      ack.Tracker[*writer.Batch] // batches that are not applied yet
}

// derivation is everything that derives rows from stored records.
type derivation struct {
	claims    *claims.Claims
	processor *processor.Processor
	cancel    context.CancelFunc // ends the heartbeats
	ended     chan error         // receives the result of the heartbeats
}

// Run stores records until in is closed. The devices stay claimed: Finish must follow, unless Run fails.
func (p *recordPath) Run(ctx context.Context, in <-chan pipeline.ValidBatch) (err error) {
	p.exec.SetConnected(false)
	store, err := p.connector.Wait(ctx)
	if err != nil {
		return err
	}
	p.exec.SetConnected(true)
	if err := p.checkClock(ctx, store); err != nil {
		return err
	}
	w := writer.New(store, p.exec, writerOptions(p.config), p.reg, time.Now)
	g, ctx := errgroup.WithContext(ctx)
	stored, end := context.WithCancel(ctx)
	defer end()
	if p.config.ProcessorEnabled {
		d := p.derive(ctx, store)
		defer func() {
			if err != nil {
				_ = d.close() // the first failure counts
			}
		}()
		g.Go(func() error { return d.processor.Run(ctx, stored) })
		g.Go(func() error { return d.watch(stored) })
	}
	owned := make(chan pipeline.ValidBatch)
	g.Go(func() error {
		defer close(owned)
		if err := p.registry.Run(ctx, store, in, owned); err != nil {
			return fmt.Errorf("check the owners of devices: %w", err)
		}
		return nil
	})
	g.Go(func() error { p.clock.run(stored, store.ClusterTime); return nil })
	batches := make(chan *writer.Batch)
	g.Go(func() error {
		defer close(batches)
		return writer.Buffer{Records: p.config.BufferRecords, Linger: p.linger, Now: time.Now}.Run(ctx, owned, batches)
	})
	g.Go(func() error {
		defer end()
		if err := p.store(ctx, w, batches); err != nil {
			return fmt.Errorf("store records: %w", err)
		}
		return nil
	})
	return g.Wait()
}

// checkClock compares the clocks before the first write. A process that ends with its input fails if they differ too much:
// others wait until they do not.
func (p *recordPath) checkClock(ctx context.Context, store *cassandra.Store) error {
	if err := p.exec.Do(ctx, cassandra.TableInstances, func(ctx context.Context) error { return p.clock.compare(ctx, store.ClusterTime) }); err != nil {
		return err
	}
	if p.role == cassandra.RoleBatch {
		return p.clock.error()
	}
	return nil
}

// derive starts the heartbeats of this instance, which last until Finish. It is called once.
func (p *recordPath) derive(ctx context.Context, store *cassandra.Store) *derivation {
	strong, fallback, stamps := store.Strong(), store.Fallback(), stamp.New(time.Now)
	d := &derivation{ended: make(chan error, 1)}
	d.claims = claims.New(claims.Options{
		Role: p.role, Heartbeat: heartbeatInterval, Lease: lease, FenceAfter: fenceAfter, MaxClockSkew: p.config.ProcessorMaxClockSkew,
	}, executor.Views[claims.Store]{Strong: strong, Fallback: fallback}, p.exec, stamps, p.logger, p.reg, time.Now)
	flush := p.config.ProcessorFlushInterval
	if p.role == cassandra.RoleBatch {
		flush = max(flush, loadFlush)
	}
	d.processor = processor.New(processor.Options{
		Flush: flush, MaxClockSkew: p.config.ProcessorMaxClockSkew, Idle: deviceIdle,
		Devices: p.config.DevicesInMemory, NotifyMaxAge: p.config.AlertNotifyMaxAge, Stream: p.role == cassandra.RoleStream,
	}, p.rulesInForce, executor.Views[processor.Store]{Strong: strong, Fallback: fallback}, p.exec, d.claims, stamps,
		p.receivers.Notify, p.logger, p.reg, time.Now)
	ctx, d.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go func() { d.ended <- d.claims.Run(ctx) }()
	p.derivation = d
	close(p.deriving)
	return d
}

func (p *recordPath) rulesInForce() derived.Rules {
	set := p.rules.current.Load()
	return derived.Rules{Engine: set.engine, Fingerprint: set.fingerprint}
}

// store stores batches in their order, a few at once, and waits for them all.
func (p *recordPath) store(ctx context.Context, w *writer.Writer, batches <-chan *writer.Batch) error {
	d := p.derivation
	g, ctx := errgroup.WithContext(ctx)
	slots := semaphore.NewWeighted(batchesInFlight)
	g.Go(func() error {
		for b := range batches {
			if err := slots.Acquire(ctx, 1); err != nil {
				return err
			}
			if d != nil {
				if err := d.processor.WaitForRoom(ctx); err != nil {
					return err
				}
				if _, err := d.processor.Acquire(ctx, claims.WantsOf(b.Records())); err != nil {
					return err
				}
			}
			wait, err := w.Start(ctx, b)
			if err != nil {
				return err
			}
			p.mu.Lock()
			number := p.order.Add(b)
			p.mu.Unlock()
			g.Go(func() error {
				defer slots.Release(1)
				if err := wait(); err != nil {
					return err
				}
				if d != nil {
					if _, err := d.claims.Confirm(ctx); err != nil {
						return err
					}
				}
				b.Done()
				p.mu.Lock()
				defer p.mu.Unlock()
				p.order.Ack(number, p.apply)
				return nil
			})
		}
		return nil
	})
	return g.Wait()
}

// apply derives what follows from a stored batch. Batches come in order, even if a later one was durable first.
func (p *recordPath) apply(b *writer.Batch) {
	if d := p.derivation; d != nil {
		p.receivers.Notify(d.processor.Apply(slices.Collect(b.Records())))
	}
}

// Finish derives and writes everything that is left, after Run. With wait set it also waits for instances that may have
// failed, to derive what they left.
func (p *recordPath) Finish(ctx context.Context, wait bool) error {
	d := p.derivation
	if d == nil {
		return nil
	}
	left, err := d.processor.Finish(ctx, wait)
	if err := errors.Join(err, d.close()); err != nil {
		return err
	}
	if left {
		return nil // with this instance's row, for the one that takes over
	}
	return d.claims.Remove(ctx)
}

// watch returns when the heartbeats fail, or ctx ends.
func (d *derivation) watch(ctx context.Context) error {
	select {
	case err := <-d.ended:
		d.ended <- err
		return err
	case <-ctx.Done():
		return nil
	}
}

// close ends the heartbeats.
func (d *derivation) close() error {
	d.cancel()
	return <-d.ended
}

// recompute derives devices from a day on, and writes all of their rows.
func (p *recordPath) recompute(ctx context.Context, deviceIDs []string, from cassandra.Day) error {
	store, err := p.connector.Wait(ctx)
	if err != nil {
		return err
	}
	if err := p.checkClock(ctx, store); err != nil {
		return err
	}
	d := p.derive(ctx, store)
	for part := range slices.Chunk(deviceIDs, 1000) {
		if err := d.processor.Recompute(ctx, part, from); err != nil {
			return errors.Join(err, d.close())
		}
		if _, err := d.processor.Finish(ctx, false); err != nil {
			return errors.Join(err, d.close())
		}
	}
	return p.Finish(ctx, false)
}

// openAlerts reads the open alerts that receivers are to be notified of. It waits until the store is reached.
func (p *recordPath) openAlerts(ctx context.Context) ([]telemetry.Alert, error) {
	select {
	case <-p.deriving:
		return p.derivation.processor.OpenAlerts(ctx)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
