// Package kafka consumes records from Kafka, stores rejected ones on a dead-letter topic, and produces simulated ones. The
// source is a member of a consumer group and commits an offset only when every record before it is durable.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fleettracing/fleet-tracing/etl/internal/backoff"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/ratelog"
)

// Name is the source's name, in metrics and dead letters.
const Name = "kafka"

// Where a group without committed offsets starts.
const (
	Earliest = "earliest"
	Latest   = "latest"
)

// Options say what a Source consumes. All of them must be set; package config checks all but the connection.
type Options struct {
	Connection Connection
	Topics     []string
	Group      string // consumer group; its members share the partitions
	Start      string // where a group without committed offsets starts: Earliest or Latest

	BatchRecords   int // at most so many records per batch
	FetchMaxBytes  int // bytes on the wire that each broker may send ahead, at most 50 MiB: the client reads 100 MiB, and a single batch may exceed the limit
	CommitInterval time.Duration
	RevokeWait     time.Duration // how long a rebalance waits for the records of revoked partitions to become durable
	DrainWait      time.Duration // the same for all partitions at the end
	SessionTimeout time.Duration // how long after the last heartbeat the group removes a member

	Logger     logrus.FieldLogger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

const (
	batchBytes      = 1 << 20 // approximate size of a batch's text
	pollBatches     = 8
	maxDecompress   = 64 << 20
	requestTimeout  = 10 * time.Second
	measureInterval = 10 * time.Second
	topicWait       = 5 * time.Second // brokers take a moment to know a new topic
	joinMargin      = 10 * time.Second
)

// Source consumes topics as a member of a consumer group. It implements pipeline.Source.
type Source struct {
	o       Options
	metrics *metrics
	brokers *ratelog.Outages
	topics  *ratelog.Outage
}

// New checks the connection, registers the metrics and makes a source. It does not connect yet.
func New(o Options) (*Source, error) {
	if err := o.Connection.check(); err != nil {
		return nil, fmt.Errorf("kafka options: %w", err)
	}
	return &Source{
		o: o, metrics: newMetrics(o.Registerer), brokers: newBrokerOutages(o.Logger, o.Now),
		topics: ratelog.New(o.Logger.WithField("brokers", strings.Join(o.Connection.Brokers, ",")), o.Now, ratelog.Interval, ratelog.Messages{
			Down: "kafka topic metadata unavailable, retrying",
		}),
	}, nil
}

// Name implements pipeline.Source.
func (s *Source) Name() string { return Name }

// Run implements pipeline.Source. It consumes until ctx ends; then it waits until the emitted records are durable, commits
// them and leaves the group. It waits for an unreachable broker. A missing topic and denied access are errors.
func (s *Source) Run(ctx context.Context, emit func(pipeline.Batch) error) error {
	polling, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	err := s.run(polling, fail, emit)
	if cause := context.Cause(polling); errors.As(cause, new(permanentError)) {
		return cause
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// permanentError ends polling from a connection attempt.
type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

func (s *Source) run(polling context.Context, fail context.CancelCauseFunc, emit func(pipeline.Batch) error) error {
	report := func(broker string, err error) {
		s.brokers.Note(broker, err)
		if err == nil {
			return
		}
		if permanent := s.o.Connection.permanent(err); permanent != nil {
			s.metrics.errors[errDenied].Inc()
			fail(permanentError{permanent})
			return
		}
		s.metrics.errors[errUnreachable].Inc()
	}
	if err := s.awaitTopics(polling, report); err != nil {
		return err
	}

	c := newConsumer(s)
	s.metrics.offsets.Store(c.offsets)
	defer s.metrics.offsets.Store(nil)
	start := kgo.NewOffset().AtStart()
	if s.o.Start == Latest {
		start = kgo.NewOffset().AtEnd()
	}
	var err error
	c.client, err = kgo.NewClient(append(s.o.Connection.options(report),
		kgo.ConsumerGroup(s.o.Group), kgo.ConsumeTopics(s.o.Topics...), kgo.ConsumeStartOffset(start),
		kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.SessionTimeout(s.o.SessionTimeout), kgo.HeartbeatInterval(min(3*time.Second, s.o.SessionTimeout/3)),
		kgo.RebalanceTimeout(s.o.RevokeWait+joinMargin),
		kgo.OnPartitionsAssigned(c.onAssigned), kgo.OnPartitionsRevoked(c.onRevoked), kgo.OnPartitionsLost(c.onLost),
		kgo.FetchMaxBytes(int32(s.o.FetchMaxBytes)), kgo.FetchMaxPartitionBytes(int32(min(s.o.FetchMaxBytes, 1<<20))),
		kgo.MaxDecompressBatchBytes(maxDecompress), kgo.FetchMaxWait(500*time.Millisecond),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), // the offset passes markers of transactions too
	)...)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}

	// These continue after the last poll, until the emitted records are durable.
	background, end := context.WithCancel(context.WithoutCancel(polling))
	var running sync.WaitGroup
	running.Go(func() {
		for backoff.Sleep(background, c.o.CommitInterval) == nil {
			c.commit(background)
		}
	})
	running.Go(func() {
		for backoff.Sleep(background, measureInterval) == nil {
			c.measure(background)
		}
	})

	err = c.poll(polling, emit)
	c.client.AllowRebalance()
	c.drain(polling, err)
	end()
	running.Wait()
	c.leave(polling)
	return err
}

// awaitTopics returns when a broker answers and knows the topics.
func (s *Source) awaitTopics(ctx context.Context, report func(string, error)) error {
	client, err := kgo.NewClient(s.o.Connection.options(report)...)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	var missingSince time.Time
	for {
		missing, err := s.missingTopic(ctx, admin)
		now := s.o.Now()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			if permanent := s.o.Connection.permanent(err); permanent != nil {
				s.metrics.errors[errDenied].Inc()
				return permanent
			}
			s.topics.Note(err)
		case missing == "":
			return nil
		case missingSince.IsZero():
			missingSince = now
		case now.Sub(missingSince) >= topicWait:
			return s.o.Connection.noSuchTopic(missing)
		}
		if err := backoff.Sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}

// missingTopic returns a topic that no broker knows, or "".
func (s *Source) missingTopic(ctx context.Context, admin *kadm.Client) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	topics, err := admin.ListTopics(ctx, s.o.Topics...)
	if err != nil {
		return "", err
	}
	for _, topic := range s.o.Topics {
		switch err := topics[topic].Err; {
		case errors.Is(err, kerr.UnknownTopicOrPartition), !topics.Has(topic) && err == nil:
			return topic, nil
		case err != nil:
			return "", fmt.Errorf("topic %q: %w", topic, err)
		}
	}
	return "", nil
}
