package app

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/ack"
	"github.com/fleettracing/fleet-tracing/etl/internal/config"
	"github.com/fleettracing/fleet-tracing/etl/internal/derive"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
	"github.com/fleettracing/fleet-tracing/etl/internal/writer"
)

// batchesInFlight is the number of batches that are stored at once: one is written while the next is planned.
const batchesInFlight = 2

// recordPath takes valid records from the pipeline to the store. It implements pipeline.Writer.
//
//	source ─► validate ─► buffer ─► deriver.Before ─► writer ─► acknowledge ─► deriver.Stored
type recordPath struct {
	config  *config.Config
	reg     prometheus.Registerer
	exec    *executor.Executor
	open    func(context.Context) (*cassandra.Store, error) // waits for the store
	linger  time.Duration
	deriver *derive.Deriver // nil where nothing is derived

	mu    sync.Mutex
	order ack.Tracker[*writer.Batch] // batches that are not derived from yet
}

// Run implements pipeline.Writer.
func (p *recordPath) Run(ctx context.Context, in <-chan pipeline.ValidBatch) error {
	p.exec.SetConnected(false)
	store, err := p.open(ctx)
	if err != nil {
		return err
	}
	p.exec.SetConnected(true)
	c := p.config
	w := writer.New(store, p.exec, writerOptions(c), p.reg, time.Now)
	g, ctx := errgroup.WithContext(ctx)
	batches := make(chan *writer.Batch)
	g.Go(func() error {
		defer close(batches)
		return writer.Buffer{Records: c.BufferRecords, Linger: p.linger, Now: time.Now}.Run(ctx, in, batches)
	})
	g.Go(func() error {
		if err := p.store(ctx, w, batches); err != nil {
			return fmt.Errorf("store records: %w", err)
		}
		return nil
	})
	return g.Wait()
}

// store stores batches in their order, a few at once, and waits for them all.
func (p *recordPath) store(ctx context.Context, w *writer.Writer, batches <-chan *writer.Batch) error {
	g, ctx := errgroup.WithContext(ctx)
	slots := semaphore.NewWeighted(batchesInFlight)
	g.Go(func() error {
		for b := range batches {
			if err := slots.Acquire(ctx, 1); err != nil {
				return err
			}
			if p.deriver != nil {
				if err := p.deriver.Before(ctx, b.Records()); err != nil {
					return err
				}
			}
			stored, err := w.Start(ctx, b)
			if err != nil {
				return err
			}
			p.mu.Lock()
			number := p.order.Add(b)
			p.mu.Unlock()
			g.Go(func() error {
				defer slots.Release(1)
				if err := stored(); err != nil {
					return err
				}
				b.Done()
				p.mu.Lock()
				defer p.mu.Unlock()
				p.order.Ack(number, p.derive)
				return nil
			})
		}
		return nil
	})
	return g.Wait()
}

// derive passes a stored batch on. Batches come in their order, whichever was durable first.
func (p *recordPath) derive(b *writer.Batch) {
	if p.deriver != nil {
		p.deriver.Stored(slices.AppendSeq([]*telemetry.Record(nil), b.Records()))
	}
}
