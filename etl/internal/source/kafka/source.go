// Package kafka takes records from Kafka, puts refused ones on a topic of their own, and sends simulated ones there. As a
// source it is a member of a consumer group that commits an offset only when everything before it is durable.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
)

// Name is the source's name, in metrics and dead letters.
const Name = "kafka"

// Where a group that has committed nothing begins.
const (
	Earliest = "earliest"
	Latest   = "latest"
)

// Options say what a Source consumes. A duration or number that is zero is the default.
type Options struct {
	Connection Connection
	Topics     []string
	Group      string // consumer group; its members share the partitions
	Start      string // where a group without offsets begins: Earliest (also when empty) or Latest

	BatchRecords   int           // records of one batch at the most; 1000
	FetchMaxBytes  int           // bytes, as they come over the wire, that each broker may send ahead; 8 MiB
	CommitInterval time.Duration // 1 s
	RevokeWait     time.Duration // how long a partition that is taken away may take to become durable; 20 s
	DrainWait      time.Duration // the same for all of them at the end; 25 s
	SessionTimeout time.Duration // how long after its last sign of life the group gives a member up; 45 s

	Logger     logrus.FieldLogger
	Registerer prometheus.Registerer
	Now        func() time.Time // nil is time.Now
}

const (
	batchBytes     = 1 << 20 // text of one batch, about
	pollBatches    = 8
	maxDecompress  = 64 << 20
	requestTimeout = 10 * time.Second
	measureEvery   = 10 * time.Second
	topicWait      = 5 * time.Second // a topic that was just made takes a moment to be known
	joinMargin     = 10 * time.Second
)

// Source is a member of a consumer group as a source of the pipeline.
type Source struct {
	o       Options
	metrics *metrics
	outages *outages
}

// New checks the options, registers the metrics and makes a source. It connects to nothing.
func New(o Options) (*Source, error) {
	if o.Start == "" {
		o.Start = Earliest
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	for _, d := range []struct {
		to        *time.Duration
		otherwise time.Duration
	}{
		{&o.CommitInterval, time.Second}, {&o.RevokeWait, 20 * time.Second}, {&o.DrainWait, 25 * time.Second}, {&o.SessionTimeout, 45 * time.Second},
	} {
		if *d.to == 0 {
			*d.to = d.otherwise
		}
	}
	if o.BatchRecords == 0 {
		o.BatchRecords = 1000
	}
	if o.FetchMaxBytes == 0 {
		o.FetchMaxBytes = 8 << 20
	}
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("kafka options: %w", err)
	}
	s := &Source{o: o, metrics: newMetrics(o.Registerer), outages: newOutages(o.Logger, o.Now)}
	return s, nil
}

func (o *Options) check() error {
	if err := o.Connection.check(); err != nil {
		return err
	}
	switch {
	case len(o.Topics) == 0 || slices.Contains(o.Topics, ""):
		return fmt.Errorf("topics %q: name at least one", strings.Join(o.Topics, ","))
	case o.Group == "":
		return errors.New("group: name the consumer group")
	case o.Start != Earliest && o.Start != Latest:
		return fmt.Errorf("start %q: take %s or %s", o.Start, Earliest, Latest)
	case o.BatchRecords < 1:
		return fmt.Errorf("batch records %d: give at least 1", o.BatchRecords)
	case o.FetchMaxBytes < 64<<10 || o.FetchMaxBytes > 50<<20: // the client reads 100 MiB at the most, and a batch may exceed the limit
		return fmt.Errorf("fetch bytes %d: give 65536 to %d", o.FetchMaxBytes, 50<<20)
	case o.CommitInterval < 0 || o.RevokeWait < 0 || o.DrainWait < 0 || o.SessionTimeout < 0:
		return errors.New("a duration is below 0: give at least 0, which is the default")
	}
	return nil
}

// Name implements pipeline.Source.
func (s *Source) Name() string { return Name }

// Run implements pipeline.Source. It consumes until ctx ends; then it waits for what it handed over to become durable,
// commits that and leaves the group. A broker that does not answer is waited for; a topic that is not there, or a
// refusal, is an error.
func (s *Source) Run(ctx context.Context, emit func(pipeline.Batch) error) error {
	reading, refuse := context.WithCancelCause(ctx)
	defer refuse(nil)
	err := s.run(reading, refuse, emit)
	if refusal := context.Cause(reading); errors.As(refusal, new(refused)) {
		return refusal
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// refused marks a refusal by Kafka as the cause of the end.
type refused struct{ error }

func (r refused) Unwrap() error { return r.error }

func (s *Source) run(reading context.Context, refuse context.CancelCauseFunc, emit func(pipeline.Batch) error) error {
	report := func(broker string, err error) {
		s.outages.note(broker, err)
		if err == nil {
			return
		}
		if refusal := s.o.Connection.refusal(err); refusal != nil {
			s.metrics.errors.WithLabelValues(errRefused).Inc()
			refuse(refused{refusal})
			return
		}
		s.metrics.errors.WithLabelValues(errUnreachable).Inc()
	}
	if err := s.awaitTopics(reading, report); err != nil {
		return err
	}

	m := &member{Source: s, ledger: newLedger(), assigned: make(chan struct{}, 1)}
	s.metrics.ledger.Store(m.ledger)
	defer s.metrics.ledger.Store(nil)
	start := kgo.NewOffset().AtStart()
	if s.o.Start == Latest {
		start = kgo.NewOffset().AtEnd()
	}
	var err error
	m.client, err = kgo.NewClient(append(s.o.Connection.options(report),
		kgo.ConsumerGroup(s.o.Group), kgo.ConsumeTopics(s.o.Topics...), kgo.ConsumeStartOffset(start),
		kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.SessionTimeout(s.o.SessionTimeout), kgo.HeartbeatInterval(min(3*time.Second, s.o.SessionTimeout/3)),
		kgo.RebalanceTimeout(s.o.RevokeWait+joinMargin),
		kgo.OnPartitionsAssigned(m.onAssigned), kgo.OnPartitionsRevoked(m.onRevoked), kgo.OnPartitionsLost(m.onLost),
		kgo.FetchMaxBytes(int32(s.o.FetchMaxBytes)), kgo.FetchMaxPartitionBytes(int32(min(s.o.FetchMaxBytes, 1<<20))),
		kgo.MaxDecompressBatchBytes(maxDecompress), kgo.FetchMaxWait(500*time.Millisecond),
	)...)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}

	// These go on after the end of reading, until what was handed over is durable.
	background, end := context.WithCancel(context.WithoutCancel(reading))
	var running sync.WaitGroup
	running.Go(func() { m.keepCommitting(background) })
	running.Go(func() { m.keepMeasuring(background) })

	err = m.read(reading, emit)
	m.client.AllowRebalance()
	m.finish(reading, err)
	end()
	running.Wait()
	m.leave(reading)
	return err
}

// awaitTopics returns when a broker has answered and knows the topics.
func (s *Source) awaitTopics(ctx context.Context, report func(string, error)) error {
	client, err := kgo.NewClient(s.o.Connection.options(report)...)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	var missed time.Time // when a topic was first found missing
	for {
		missing, err := s.missingTopic(ctx, admin)
		now := s.o.Now()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			if refusal := s.o.Connection.refusal(err); refusal != nil {
				s.metrics.errors.WithLabelValues(errRefused).Inc()
				return refusal
			}
			if s.outages.due("topics") {
				s.o.Logger.WithFields(logrus.Fields{"brokers": strings.Join(s.o.Connection.Brokers, ","), "reason": err.Error()}).
					Warn("kafka does not answer; trying again")
			}
		case missing == "":
			return nil
		case missed.IsZero():
			missed = now
		case now.Sub(missed) >= topicWait:
			return s.o.Connection.noSuchTopic(missing)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

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
