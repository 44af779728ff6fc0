package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fleettracing/fleet-tracing/etl/internal/ratelog"
)

// producer stores records in one topic, on all in-sync replicas.
type producer struct {
	connection Connection
	topic      string
	client     *kgo.Client
	failed     context.Context // ends with a permanent error as its cause
	fail       context.CancelCauseFunc
}

func newProducer(c Connection, topic string, logger logrus.FieldLogger, now func() time.Time) (*producer, error) {
	p := &producer{connection: c, topic: topic}
	p.failed, p.fail = context.WithCancelCause(context.Background())
	brokers := newBrokerOutages(logger, now)
	report := func(broker string, err error) {
		brokers.Note(broker, err)
		if permanent := c.permanent(err); permanent != nil {
			p.fail(permanent)
		}
	}
	opts, err := c.Client(report)
	if err != nil {
		return nil, err
	}
	p.client, err = kgo.NewClient(append(opts,
		kgo.DefaultProduceTopic(topic), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerBatchCompression(kgo.Lz4Compression()),
		kgo.AllowAutoTopicCreation(), kgo.MaxBufferedRecords(100_000), kgo.MaxBufferedBytes(32<<20),
		kgo.ProducerLinger(0), // callers of store wait
	)...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	return p, nil
}

// store returns when every record is stored or failed, with the errors of the failed ones. ctx bounds the wait for
// unreachable brokers.
func (p *producer) store(ctx context.Context, records []*kgo.Record) (failed map[*kgo.Record]error, err error) {
	var mu sync.Mutex
	var waiting sync.WaitGroup
	failures := map[*kgo.Record]error{}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	waiting.Add(len(records))
	stored := make(chan struct{})
	go func() { // ends when every record is stored or failed, at the latest when the client is closed
		for _, r := range records {
			p.client.Produce(ctx, r, func(r *kgo.Record, err error) {
				if err != nil {
					mu.Lock()
					failures[r] = err
					mu.Unlock()
				}
				waiting.Done()
			})
		}
		waiting.Wait()
		close(stored)
	}()
	select {
	case <-stored:
		return failures, nil
	case <-p.failed.Done():
		return nil, context.Cause(p.failed)
	case <-ctx.Done():
		return nil, fmt.Errorf("topic %q: %w before kafka had stored %d records", p.topic, ctx.Err(), len(records))
	}
}

// explain adds the topic and, where there is one, a remedy to the error of a record.
func (p *producer) explain(err error) error {
	if permanent := p.connection.permanent(err); permanent != nil {
		return fmt.Errorf("topic %q: %w", p.topic, permanent)
	}
	if errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID) {
		return p.connection.noSuchTopic(p.topic)
	}
	return fmt.Errorf("topic %q: %w", p.topic, err)
}

// close fails the records that are not stored.
func (p *producer) close() {
	p.fail(kgo.ErrClientClosed)
	p.client.Close()
}

func newBrokerOutages(logger logrus.FieldLogger, now func() time.Time) *ratelog.Outages {
	return ratelog.NewOutages(logger, now, ratelog.Interval, "broker", ratelog.Messages{
		Down: "kafka broker unavailable, retrying", Still: "kafka broker still unavailable, retrying", Up: "kafka broker available again",
	})
}
