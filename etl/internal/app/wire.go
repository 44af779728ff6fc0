package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/deadletter"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/reload"
	"github.com/fleettracing/fleet-tracing/etl/internal/source/kafka"
	"github.com/fleettracing/fleet-tracing/etl/internal/validate"
)

// parts is a pipeline with what it is made of.
//
//	sources ─► pipeline (validator, dead letters) ─► writer ─► store
//	                                                    └─► deriver ─► store, Alertmanager, Kafka
type parts struct {
	store           atomic.Pointer[cassandra.Store] // nil until it is reached
	exec            *executor.Executor
	deadLetters     *deadletter.File
	deadLetterTopic *kafka.DeadLetterTopic // nil without the source kafka
	validator       *validate.Validator
	pipeline        *pipeline.Pipeline
	rules           *rules
	derivation      *derivation // nil where nothing is derived
	apiFiles        []reload.Target
}

// reloadTargets are the configuration files that a running process reloads.
func (x *parts) reloadTargets() []reload.Target {
	return append([]reload.Target{x.rules.target(func(set *ruleset) {
		if x.derivation != nil {
			x.derivation.useRules(set)
		}
	})}, x.apiFiles...)
}

// connect reaches the store, for which it waits so long, and puts the pipeline together.
func (p *program) connect(wait, linger time.Duration) (*parts, error) {
	store, err := p.openStore(wait)
	if err != nil {
		return nil, err
	}
	x, err := p.wire(linger, nil)
	if err != nil {
		store.Close()
		return nil, err
	}
	x.reached(store)
	return x, nil
}

// reached hands the store to those who wait for it.
func (x *parts) reached(store *cassandra.Store) {
	x.store.Store(store)
	if x.derivation != nil {
		x.derivation.open(store)
	}
}

// wire puts the pipeline together. Where the store has not been reached, the writer does so when the pipeline runs,
// however long it takes: sources run from the first moment on, and those that can keep records do. sources are the names
// of those that will run.
func (p *program) wire(linger time.Duration, sources []string) (*parts, error) {
	c := p.config
	rules, err := newRules(c)
	if err != nil {
		return nil, err
	}
	x := &parts{
		rules:       rules,
		deadLetters: deadletter.NewFile(c.DeadLetterDir, c.DeadLetterMaxBytes, time.Now),
		validator:   validate.New(p.fleets(), c.DedupeRecords, rules.geofenceAt),
	}
	letters := deadletter.Route{Default: x.deadLetters}
	if slices.Contains(sources, kafka.Name) {
		if x.deadLetterTopic, err = p.deadLetterTopic(); err != nil {
			return nil, err
		}
		letters.BySource = map[string]pipeline.DeadLetters{kafka.Name: x.deadLetterTopic}
	}
	open := func(context.Context) (*cassandra.Store, error) {
		if store := x.store.Load(); store != nil {
			return store, nil
		}
		store, err := p.openStore(0)
		if err == nil {
			x.reached(store)
		}
		return store, err
	}
	x.exec = executor.New(executorOptions(c), p.logger, p.reg, time.Now)
	path := &recordPath{config: c, reg: p.reg, exec: x.exec, open: open, linger: linger}
	x.pipeline = pipeline.New(pipeline.Options{
		Validator: x.validator, Writer: path, DeadLetters: letters,
		Registerer: p.reg, Now: time.Now, Queue: c.QueueBatches,
	})
	if c.ProcessorEnabled {
		if x.derivation, err = p.derivation(x, rules); err != nil {
			return nil, err
		}
		path.deriver = x.derivation.deriver
	}
	return x, nil
}

func (p *program) deadLetterTopic() (*kafka.DeadLetterTopic, error) {
	connection, err := kafkaConnection(p.config)
	if err != nil {
		return nil, err
	}
	topic, err := kafka.NewDeadLetterTopic(kafka.DeadLetterOptions{
		Connection: connection, Topic: p.config.KafkaDeadLetterTopic, Logger: p.logger, Registerer: p.reg,
	})
	if err != nil {
		return nil, fmt.Errorf("KAFKA_DEAD_LETTER_TOPIC: %w", err)
	}
	return topic, nil
}

// serve serves ETL_METRICS_ADDRESS, if it is set, until end is called. onReload may be nil.
func (p *program) serve(ready func(context.Context) error, onReload func() error) (end func(), err error) {
	c := p.config
	if c.MetricsAddress == "" {
		return func() {}, nil
	}
	if !c.ReloadEnabled {
		onReload = nil
	}
	s, err := newOperationsServer(operationsOptions{
		Address: c.MetricsAddress, Gatherer: p.reg, Pprof: c.Pprof, Reload: onReload,
		Ready: func(ctx context.Context) error {
			if p.stop.Err() != nil {
				return errStopping
			}
			return ready(ctx)
		},
	}, p.logger)
	if err != nil {
		return nil, err
	}
	s.Start()
	return s.Stop, nil
}

var errStopping = errors.New("stopping")

var errNotReached = errors.New("cassandra has not been reached yet")

// ready tells whether the store takes writes.
func (x *parts) ready(ctx context.Context) error {
	store := x.store.Load()
	if store == nil {
		return errNotReached
	}
	return store.Ready(ctx)
}

func (x *parts) close() {
	if store := x.store.Load(); store != nil {
		store.Close()
	}
	_ = x.deadLetters.Close() // each record was synced when it was written
	if x.deadLetterTopic != nil {
		x.deadLetterTopic.Close()
	}
}

// openStore connects, and tries again while that may help and there is time.
func (p *program) openStore(wait time.Duration) (*cassandra.Store, error) {
	cfg, err := cassandraConfig(p.config)
	if err != nil {
		return nil, err
	}
	var store *cassandra.Store
	err = p.patiently(wait, func(ctx context.Context) (err error) {
		store, err = cassandra.Open(ctx, cfg, p.logger, prometheus.WrapRegistererWithPrefix("fleet_etl_", p.reg))
		return err
	})
	if err != nil {
		return nil, err
	}
	p.logger.WithFields(logrus.Fields{
		"keyspace": cfg.Keyspace, "replication": store.Replication().String(), "write": store.WriteConsistency(), "read": store.ReadConsistency(),
	}).Info("connected to cassandra")
	return store, nil
}

// patiently repeats what fails because the cluster is not there yet, for so long; 0 is for as long as it takes.
func (p *program) patiently(wait time.Duration, do func(context.Context) error) error {
	started, said := time.Now(), time.Time{}
	for {
		err := do(p.stop)
		switch {
		case err == nil, p.stop.Err() != nil:
			return err
		case cassandra.ReasonOf(err).Advice() == cassandra.GiveUp:
			return err
		case wait > 0 && time.Since(started) > wait:
			return fmt.Errorf("%w (gave up after %s, CASSANDRA_CONNECT_WAIT)", err, wait)
		}
		if time.Since(said) > 10*time.Second {
			said = time.Now()
			p.logger.WithField("reason", err.Error()).Warn("cassandra is not there yet; trying again")
		}
		select {
		case <-time.After(time.Second):
		case <-p.stop.Done():
		}
	}
}

// drain gives a pipeline that was told to stop so long to store what it has, then ends it.
func (p *program) drain(timeout time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(p.ctx)
	forget := context.AfterFunc(p.stop, func() {
		p.logger.WithField("timeout", timeout.String()).Info("stopping: storing what was taken in")
		select {
		case <-time.After(timeout):
			p.logger.Error("gave up storing what was taken in: ETL_DRAIN_TIMEOUT is over")
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() { forget(); cancel() }
}
