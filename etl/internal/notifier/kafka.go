package notifier

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fleettracing/fleet-tracing/etl/internal/ratelog"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const (
	bufferedRecords = 10_000
	bufferedBytes   = 16 << 20
	flushTimeout    = 5 * time.Second
)

// Kafka produces each event as JSON to a topic. The key is the device's id, so all events of a device are in one
// partition and in order. An event may be there more than once: fleet_id, device_id, type, opened_at and transition
// identify it.
type Kafka struct {
	client  *kgo.Client
	logger  logrus.FieldLogger
	now     func() time.Time
	metrics *metrics
	outage  *ratelog.Outage
}

// NewKafka makes a producer. It opens no connection. connect returns the options with seed brokers, client id, TLS and
// login; a client with them calls report after each attempt to connect.
func NewKafka(connect func(report func(broker string, err error)) ([]kgo.Opt, error), topic string,
	logger logrus.FieldLogger, reg prometheus.Registerer, now func() time.Time) (*Kafka, error) {
	logger = logger.WithField("topic", topic)
	// While no broker is reachable, records only wait, and nothing else reports that.
	brokers := ratelog.NewOutages(logger, now, ratelog.Interval, "broker", ratelog.Messages{
		Down:  "kafka broker unavailable, buffering alerts",
		Still: "kafka broker still unavailable",
		Up:    "kafka broker available again",
	})
	opts, err := connect(brokers.Note)
	if err != nil {
		return nil, fmt.Errorf("kafka alerts: %w", err)
	}
	k := &Kafka{
		logger: logger, now: now,
		outage: ratelog.New(logger, now, ratelog.Interval, ratelog.Messages{
			Down:  "producing alerts to kafka failed, some are lost to the topic",
			Still: "producing alerts to kafka still fails",
			Up:    "producing alerts to kafka works again",
		}),
	}
	k.client, err = kgo.NewClient(append(opts,
		kgo.DefaultProduceTopic(topic), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerBatchCompression(kgo.Lz4Compression()),
		kgo.AllowAutoTopicCreation(), kgo.MaxBufferedRecords(bufferedRecords), kgo.MaxBufferedBytes(bufferedBytes),
	)...)
	if err != nil {
		return nil, fmt.Errorf("kafka alerts: client: %w", err)
	}
	k.metrics = newMetrics(reg, "kafka")
	return k, nil
}

// Notify produces the events. They wait in a bounded buffer while Kafka is unavailable. Events that do not fit count as
// dropped.
func (k *Kafka) Notify(events []telemetry.AlertEvent) {
	for i := range events {
		started := k.now()
		value, err := json.Marshal(&events[i])
		if err != nil {
			k.done(started, fmt.Errorf("encode alert of %s: %w", events[i].DeviceID, err))
			continue
		}
		record := &kgo.Record{Key: []byte(events[i].DeviceID), Value: value}
		k.client.TryProduce(context.Background(), record, func(_ *kgo.Record, err error) { k.done(started, err) })
	}
}

func (k *Kafka) done(started time.Time, err error) {
	switch {
	case errors.Is(err, kgo.ErrAborting), errors.Is(err, kgo.ErrClientClosed):
		k.metrics.count(dropped, 1)
		return // Close logs them together
	case errors.Is(err, kgo.ErrMaxBuffered):
		k.metrics.count(dropped, 1)
	default:
		k.metrics.attempt(1, err, started, k.now())
	}
	k.outage.Note(err)
}

// Close flushes the buffer for at most five seconds and closes the connections.
func (k *Kafka) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	if err := k.client.Flush(ctx); err != nil {
		k.logger.WithError(err).WithField("alerts", k.client.BufferedProduceRecords()).
			Warn("flush of alerts to kafka timed out, they are lost to the topic")
		aborting, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = k.client.AbortBufferedRecords(aborting) // so that they are counted; it fails only if that takes too long
	}
	k.client.Close()
}
