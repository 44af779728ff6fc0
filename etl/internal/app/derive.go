package app

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/derive"
	"github.com/fleettracing/fleet-tracing/etl/internal/notifier"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// The rhythm of what needs no setting.
const (
	deviceIdle  = 2 * time.Minute  // after which a device's state is stored and let go
	processDead = 30 * time.Second // without a sign of life
	alertResend = time.Minute
	alertWait   = 10 * time.Second
)

// derivation is what follows from stored records, and who is told.
type derivation struct {
	p         *program
	deriver   *derive.Deriver
	rules     *rules
	publisher *geofencePublisher
	store     atomic.Pointer[cassandra.Store]
	manager   *notifier.Alertmanager // nil if there is none
	kafka     *notifier.Kafka        // nil if there is none
	receivers notifier.Receivers
}

func (p *program) derivation(x *parts, r *rules) (*derivation, error) {
	c := p.config
	current := r.current.Load()
	d := &derivation{p: p, rules: r, publisher: newGeofencePublisher(r, p.logger)}
	d.deriver = derive.New(derive.Options{
		Flush: c.ProcessorFlushInterval, Settle: c.ProcessorMaxClockSkew, Idle: deviceIdle, Devices: c.DevicesInMemory, NewsAge: c.AlertNotifyMaxAge,
		ProcessDead: processDead, Tell: func(events []telemetry.AlertEvent) { d.receivers.Notify(events) },
	}, current.engine, current.fingerprint, x.exec, p.logger, p.reg, time.Now)
	return d, nil
}

// useRules puts a reloaded ruleset into effect.
func (d *derivation) useRules(set *ruleset) {
	d.deriver.SetEngine(set.engine, set.fingerprint)
	d.publisher.notify()
}

// open hands over the store.
func (d *derivation) open(store *cassandra.Store) {
	d.deriver.Open(derive.Stores{Sure: store.Strong(), Weak: store.Fallback()})
	d.store.Store(store) // last: whoever sees it asks the deriver
}

// listen makes the receivers of alerts.
func (d *derivation) listen() error {
	c := d.p.config
	if urls := alertmanagerURLs(c); len(urls) > 0 {
		open := func(ctx context.Context) ([]telemetry.Alert, error) {
			if d.store.Load() == nil {
				return nil, errNotReached
			}
			return d.deriver.OpenAlerts(ctx)
		}
		manager, err := notifier.NewAlertmanager(notifier.Options{
			URLs: urls, GrafanaURL: c.GrafanaURL, RunbookURL: c.RunbookURL, Resend: alertResend, Timeout: alertWait,
		}, open, d.p.logger, d.p.reg, time.Now)
		if err != nil {
			return fmt.Errorf("ETL_ALERTMANAGER_URLS: %w", err)
		}
		d.manager = manager
		d.receivers = append(d.receivers, manager)
	}
	if c.KafkaAlertTopic != "" {
		connection, err := kafkaConnection(c)
		if err != nil {
			return err
		}
		client, err := connection.Client()
		if err != nil {
			return fmt.Errorf("KAFKA_…: %w", err)
		}
		if d.kafka, err = notifier.NewKafka(client, c.KafkaAlertTopic, d.p.logger, d.p.reg, time.Now); err != nil {
			return fmt.Errorf("KAFKA_ALERT_TOPIC: %w", err)
		}
		d.receivers = append(d.receivers, d.kafka)
	}
	return nil
}

// stream runs sources until told to stop, with all that follows from what they bring.
func (p *program) stream(ctx context.Context, x *parts, sources []pipeline.Source) error {
	d := x.derivation
	if d == nil {
		return x.pipeline.Run(ctx, p.stop, sources...)
	}
	d.deriver.Sweep()
	if err := d.listen(); err != nil {
		return err
	}
	if d.kafka != nil {
		defer d.kafka.Close()
	}
	side, end := context.WithCancel(ctx)
	defer end()
	var sides errgroup.Group
	sides.Go(func() error {
		if d.reached(side) {
			d.publisher.Run(side, d.store.Load())
		}
		return nil
	})
	if d.manager != nil {
		sides.Go(func() error {
			d.reached(side) // until then there is nothing to tell of
			return d.manager.Run(side)
		})
	}
	err := p.derived(ctx, x, false, sources...)
	end() // after the last alert was told of
	return errors.Join(err, sides.Wait())
}

// reached waits for the store; it tells whether it is there when ctx ends.
func (d *derivation) reached(ctx context.Context) bool {
	for d.store.Load() == nil {
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// toEnd runs one source to its end, with all that follows from what it brings. It tells nobody itself; a process that
// streams tells of what is news.
func (p *program) toEnd(ctx context.Context, x *parts, source pipeline.Source) error {
	if x.derivation == nil {
		return x.pipeline.Run(ctx, p.stop, source)
	}
	if err := x.derivation.publisher.publish(ctx, x.store.Load()); err != nil {
		return err
	}
	return p.derived(ctx, x, true, source)
}

// derived runs sources, and then derives what is left to be.
func (p *program) derived(ctx context.Context, x *parts, wait bool, sources ...pipeline.Source) error {
	deriver := x.derivation.deriver
	g, running := errgroup.WithContext(ctx)
	stop, end := context.WithCancel(running)
	defer end()
	g.Go(func() error { return deriver.Run(running, stop) })
	g.Go(func() error {
		defer end()
		return x.pipeline.Run(running, p.stop, sources...)
	})
	if err := g.Wait(); err != nil {
		return err
	}
	err := deriver.Finish(ctx, wait && p.stop.Err() == nil)
	if err != nil && ctx.Err() != nil {
		p.logger.WithError(err).Warn("all is stored, but not all that follows from it: the next process derives the rest")
		return nil
	}
	return err
}
