package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/backoff"
	"github.com/fleettracing/fleet-tracing/etl/internal/deadletter"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/notifier"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/ratelog"
	"github.com/fleettracing/fleet-tracing/etl/internal/registry"
	"github.com/fleettracing/fleet-tracing/etl/internal/source/kafka"
	"github.com/fleettracing/fleet-tracing/etl/internal/validate"
)

// connect wires an App that has no sources yet, and connects it to Cassandra within CASSANDRA_CONNECT_WAIT.
func (p *program) connect() (*App, error) {
	a := newApp(p)
	err := a.wire(p.config.LoadLinger, nil)
	if err == nil {
		err = p.retryUntilUp(func(ctx context.Context) error {
			_, err := a.connector.Connect(ctx)
			return err
		})
	}
	if err != nil {
		return nil, errors.Join(err, a.cleanups.run())
	}
	return a, nil
}

// wire puts the pipeline together. The record path connects to Cassandra when the pipeline runs, however long it takes:
// sources run from the first moment on, and the API spools records until then. sources names the streaming sources;
// without any, the process ends with its input.
func (a *App) wire(linger time.Duration, sources []string) (err error) {
	c := a.config
	if a.rules, err = newRules(c); err != nil {
		return err
	}
	a.publisher = newGeofencePublisher(a.rules, a.logger)
	a.clock = newClock(a.logger, a.reg, time.Now)
	bounds := executorOptions(c)
	bounds.Hold = a.clock.wrong
	a.exec = executor.New(bounds, a.logger, a.reg, time.Now)
	a.registry = registry.New(registry.Options{Unknown: registry.Policy(c.UnknownDevices), MaxDevices: c.FleetMaxDevices}, a.exec, a.logger, a.reg, time.Now)
	outage := ratelog.New(a.logger, time.Now, connectLogInterval, ratelog.Messages{Down: "cassandra unavailable, connecting"})
	a.connector = cassandra.NewConnector(a.open, outage.Note)
	a.cleanups.add("store", func() error {
		if store, ok := a.connector.Get(); ok {
			store.Close()
		}
		return nil
	})
	a.deadLetters = deadletter.NewFile(c.DeadLetterDir, deadletter.Limits{Bytes: c.DeadLetterMaxBytes, Age: c.DeadLetterMaxAge}, a.logger, a.reg, time.Now)
	a.cleanups.add("dead letters", a.deadLetters.Close)
	letters := deadletter.Route{Default: a.deadLetters}
	if slices.Contains(sources, kafka.Name) {
		topic, err := a.deadLetterTopic()
		if err != nil {
			return err
		}
		letters.BySource = map[string]pipeline.DeadLetters{kafka.Name: topic}
	}
	a.path = &recordPath{App: a, role: cassandra.RoleBatch, linger: linger, deriving: make(chan struct{})}
	if len(sources) > 0 {
		a.path.role = cassandra.RoleStream
		if a.path.receivers, err = a.receivers(); err != nil {
			return err
		}
	}
	a.pipeline = pipeline.New(pipeline.Options{
		Validator: validate.New(a.fleets(), c.DedupeRecords, a.rules.geofenceAt), Writer: a.path, DeadLetters: letters,
		Registerer: a.reg, Now: time.Now, Queue: c.QueueBatches,
	})
	return nil
}

func (a *App) deadLetterTopic() (*kafka.DeadLetterTopic, error) {
	connection, err := kafkaConnection(a.config)
	if err != nil {
		return nil, err
	}
	topic, err := kafka.NewDeadLetterTopic(connection, a.config.KafkaDeadLetterTopic, a.logger, a.reg, time.Now)
	if err != nil {
		return nil, fmt.Errorf("KAFKA_DEAD_LETTER_TOPIC: %w", err)
	}
	a.cleanups.add("dead-letter topic", func() error { topic.Close(); return nil })
	return topic, nil
}

// The interval between two notifications of an open alert, and the timeout of one.
const (
	alertResend = time.Minute
	alertWait   = 10 * time.Second
)

// receivers makes the receivers of alerts.
func (a *App) receivers() (all notifier.Receivers, err error) {
	c := a.config
	urls := strings.FieldsFunc(c.AlertmanagerURLs, func(r rune) bool { return r == ',' || r == ' ' })
	if len(urls) > 0 {
		if a.alertmanager, err = notifier.NewAlertmanager(notifier.Options{
			URLs: urls, GrafanaURL: c.GrafanaURL, RunbookURL: c.RunbookURL, Resend: alertResend, Timeout: alertWait,
		}, a.path.openAlerts, a.logger, a.reg, time.Now); err != nil {
			return nil, fmt.Errorf("ETL_ALERTMANAGER_URLS: %w", err)
		}
		all = append(all, a.alertmanager)
	}
	if c.KafkaAlertTopic != "" {
		connection, err := kafkaConnection(c)
		if err != nil {
			return nil, err
		}
		topic, err := notifier.NewKafka(connection.Client, c.KafkaAlertTopic, a.logger, a.reg, time.Now)
		if err != nil {
			return nil, fmt.Errorf("KAFKA_…: %w", err)
		}
		a.cleanups.add("alert topic", func() error { topic.Close(); return nil })
		all = append(all, topic)
	}
	return all, nil
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

// connectLogInterval is the time between two log lines while Cassandra is not reached.
const connectLogInterval = 10 * time.Second

// retryUntilUp repeats do while Cassandra is unavailable, for at most CASSANDRA_CONNECT_WAIT; 0 means no limit.
func (p *program) retryUntilUp(do func(context.Context) error) error {
	started, wait := time.Now(), p.config.CassandraConnectWait
	outage := ratelog.New(p.logger, time.Now, connectLogInterval, ratelog.Messages{Down: "cassandra unavailable, connecting"})
	for {
		err := do(p.stop)
		switch {
		case err == nil, p.stop.Err() != nil, cassandra.ReasonOf(err).Advice() == cassandra.GiveUp:
			return err
		case wait > 0 && time.Since(started) > wait:
			return fmt.Errorf("%w (gave up after %s, CASSANDRA_CONNECT_WAIT)", err, wait)
		}
		outage.Note(err)
		_ = backoff.Sleep(p.stop, time.Second)
	}
}
