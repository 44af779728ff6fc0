package app

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/deadletter"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/notifier"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/ratelog"
	"github.com/fleettracing/fleet-tracing/etl/internal/source/kafka"
	"github.com/fleettracing/fleet-tracing/etl/internal/validate"
)

// parts is a pipeline and everything that it is made of.
type parts struct {
	connector       *cassandra.Connector
	exec            *executor.Executor
	path            *recordPath
	deadLetters     *deadletter.File
	deadLetterTopic *kafka.DeadLetterTopic // nil without the source kafka
	validator       *validate.Validator
	pipeline        *pipeline.Pipeline
	rules           *rules
	publisher       *geofencePublisher
	alertmanager    *notifier.Alertmanager // nil if there is none
	alertTopic      *notifier.Kafka        // nil if there is none
}

// connect puts the pipeline together and connects to Cassandra, within wait.
func (p *program) connect(wait, linger time.Duration) (*parts, error) {
	x, err := p.wire(linger, nil)
	if err != nil {
		return nil, err
	}
	if err := p.retryUntilUp(wait, func(ctx context.Context) error {
		_, err := x.connector.Connect(ctx)
		return err
	}); err != nil {
		x.close()
		return nil, err
	}
	return x, nil
}

// wire puts the pipeline together. The record path connects to Cassandra when the pipeline runs, however long it takes:
// sources run from the first moment on, and the API spools records until then. sources names the streaming sources;
// without any, the process ends with its input.
func (p *program) wire(linger time.Duration, sources []string) (*parts, error) {
	c := p.config
	rules, err := newRules(c)
	if err != nil {
		return nil, err
	}
	x := &parts{
		rules:       rules,
		publisher:   newGeofencePublisher(rules, p.logger),
		deadLetters: deadletter.NewFile(c.DeadLetterDir, c.DeadLetterMaxBytes, time.Now),
		validator:   validate.New(p.fleets(), c.DedupeRecords, rules.geofenceAt),
		exec:        executor.New(executorOptions(c), p.logger, p.reg, time.Now),
		connector:   p.connector(),
	}
	letters := deadletter.Route{Default: x.deadLetters}
	if slices.Contains(sources, kafka.Name) {
		if x.deadLetterTopic, err = p.deadLetterTopic(); err != nil {
			return nil, err
		}
		letters.BySource = map[string]pipeline.DeadLetters{kafka.Name: x.deadLetterTopic}
	}
	x.path = &recordPath{
		config: c, role: cassandra.RoleBatch, connector: x.connector, exec: x.exec, rules: rules, linger: linger, logger: p.logger, reg: p.reg,
		deriving: make(chan struct{}),
	}
	if len(sources) > 0 {
		x.path.role = cassandra.RoleStream
		if err := p.receivers(x); err != nil {
			return nil, err
		}
	}
	x.pipeline = pipeline.New(pipeline.Options{
		Validator: x.validator, Writer: x.path, DeadLetters: letters,
		Registerer: p.reg, Now: time.Now, Queue: c.QueueBatches,
	})
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

// serveOperations serves ETL_METRICS_ADDRESS, if it is set, until stop is called.
func (p *program) serveOperations(ready func(context.Context) error) (stop func(), err error) {
	if p.config.MetricsAddress == "" {
		return func() {}, nil
	}
	s, err := newOperationsServer(operationsOptions{
		Address: p.config.MetricsAddress, Gatherer: p.reg, Pprof: p.config.Pprof, Ready: ready,
	}, p.logger)
	if err != nil {
		return nil, err
	}
	s.Start()
	return s.Stop, nil
}

// close closes the parts after the pipeline has ended.
func (x *parts) close() {
	if store, ok := x.connector.Get(); ok {
		store.Close()
	}
	_ = x.deadLetters.Close() // each record was synced when it was written
	if x.deadLetterTopic != nil {
		x.deadLetterTopic.Close()
	}
	if x.alertTopic != nil {
		x.alertTopic.Close()
	}
}

// connector returns the owner of the store.
func (p *program) connector() *cassandra.Connector {
	outage := ratelog.New(p.logger, time.Now, 10*time.Second, ratelog.Messages{Down: "cassandra unavailable, connecting"})
	return cassandra.NewConnector(p.open, outage.Note)
}

// open makes one attempt to connect.
func (p *program) open(ctx context.Context) (*cassandra.Store, error) {
	cfg, err := cassandraConfig(p.config)
	if err != nil {
		return nil, err
	}
	store, err := cassandra.Open(ctx, cfg, p.logger, prometheus.WrapRegistererWithPrefix("fleet_etl_", p.reg))
	if err != nil {
		return nil, err
	}
	p.logger.WithFields(logrus.Fields{
		"keyspace": cfg.Keyspace, "replication": store.Replication().String(), "write": store.WriteConsistency(), "read": store.ReadConsistency(),
	}).Info("connected to cassandra")
	return store, nil
}

// retryUntilUp repeats do while Cassandra is unavailable, for at most wait; 0 means no limit.
func (p *program) retryUntilUp(wait time.Duration, do func(context.Context) error) error {
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
			p.logger.WithError(err).Warn("cassandra unavailable, connecting")
		}
		select {
		case <-time.After(time.Second):
		case <-p.stop.Done():
		}
	}
}

// drain returns a context for a pipeline. After the process is asked to stop, the pipeline may run on for timeout.
func (p *program) drain(timeout time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(p.ctx)
	forget := context.AfterFunc(p.stop, func() {
		p.logger.WithField("timeout", timeout.String()).Info("stopping, storing received records")
		select {
		case <-time.After(timeout):
			p.logger.Error("drain timed out (ETL_DRAIN_TIMEOUT), aborting; the same command resumes")
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() { forget(); cancel() }
}
