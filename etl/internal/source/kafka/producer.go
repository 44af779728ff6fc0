package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Compressions are those that a producer may use.
var Compressions = []string{"none", "gzip", "snappy", "lz4", "zstd"}

// producer stores records in one topic, on all replicas that are in sync.
type producer struct {
	connection Connection
	topic      string
	client     *kgo.Client
	refused    context.Context // ends with the refusal as its cause
	refuse     context.CancelCauseFunc
}

func newProducer(c Connection, topic, compression string, logger logrus.FieldLogger, now func() time.Time) (*producer, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if topic == "" {
		return nil, errors.New("topic: name one")
	}
	codec, found := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}[compression]
	if !found {
		return nil, fmt.Errorf("compression %q: take %s", compression, strings.Join(Compressions, " or "))
	}
	p := &producer{connection: c, topic: topic}
	p.refused, p.refuse = context.WithCancelCause(context.Background())
	outages := newOutages(logger, now)
	report := func(broker string, err error) {
		outages.note(broker, err)
		if refusal := c.refusal(err); refusal != nil {
			p.refuse(refusal)
		}
	}
	var err error
	p.client, err = kgo.NewClient(append(c.options(report),
		kgo.DefaultProduceTopic(topic), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerBatchCompression(codec),
		kgo.AllowAutoTopicCreation(), kgo.MaxBufferedRecords(100_000), kgo.MaxBufferedBytes(32<<20),
		kgo.ProducerLinger(0), // whoever stores waits for it
	)...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	return p, nil
}

// store returns when all records are stored, or with what came of each one that is not; ctx bounds the wait for brokers
// that do not answer.
func (p *producer) store(ctx context.Context, records []*kgo.Record) (failed map[*kgo.Record]error, err error) {
	var mu sync.Mutex
	var waiting sync.WaitGroup
	failures := map[*kgo.Record]error{}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	waiting.Add(len(records))
	stored := make(chan struct{})
	go func() { // ends with the records, at the latest when the client is closed
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
	case <-p.refused.Done():
		return nil, context.Cause(p.refused)
	case <-ctx.Done():
		return nil, fmt.Errorf("topic %q: %w before kafka had stored %d records", p.topic, ctx.Err(), len(records))
	}
}

// explain is what a failure means to people.
func (p *producer) explain(err error) error {
	if refusal := p.connection.refusal(err); refusal != nil {
		return fmt.Errorf("topic %q: %w", p.topic, refusal)
	}
	if errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID) {
		return p.connection.noSuchTopic(p.topic)
	}
	return fmt.Errorf("topic %q: %w", p.topic, err)
}

// close gives up what is not stored.
func (p *producer) close() {
	p.refuse(kgo.ErrClientClosed)
	p.client.Close()
}

func tooLarge(err error) bool { return errors.Is(err, kerr.MessageTooLarge) }

// one is any of the failures, the same one each time.
func one(records []*kgo.Record, failed map[*kgo.Record]error) error {
	i := slices.IndexFunc(records, func(r *kgo.Record) bool { return failed[r] != nil })
	return failed[records[i]]
}
