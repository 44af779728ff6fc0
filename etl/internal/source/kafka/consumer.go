package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/sirupsen/logrus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/time/rate"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/ratelog"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// consumer is one membership in the consumer group: one Run of a Source.
//
//	poll ─► batches of a partition ─► emit ─ … ─► Done ─► offset tracker ─► commit, every second
//	                                                            ▲
//	rebalance: assign, close ─ wait ─ commit ─ remove ──────────┘
type consumer struct {
	*Source
	client  *kgo.Client
	offsets *offsetTracker

	commits     *ratelog.Outage
	fetchErrors map[string]*rate.Sometimes // by reason and partition

	// A commit in progress could overwrite what the new owner of a partition commits, so partitions are given up only
	// between commits.
	committing sync.Mutex
}

func newConsumer(s *Source) *consumer {
	return &consumer{
		Source: s, offsets: newOffsetTracker(),
		commits: ratelog.New(s.o.Logger, s.o.Now, ratelog.Interval, ratelog.Messages{
			Down: "kafka offset commit failed, retrying", Up: "kafka offsets committed again",
		}),
		fetchErrors: map[string]*rate.Sometimes{},
	}
}

// polled is what one poll returned of one partition: records, or a batch that is too large to decompress.
type polled struct {
	*partition
	records  []*kgo.Record
	tooLarge *kgo.ErrDecompressTooLarge
}

// poll emits what it reads until ctx ends or Kafka denies access. While the pipeline is full, emit blocks and nothing is
// polled. The client then fetches at most FetchMaxBytes ahead from each broker, and its heartbeats to the group go on.
func (c *consumer) poll(ctx context.Context, emit func(pipeline.Batch) error) error {
	for {
		fetches := c.client.PollRecords(ctx, pollBatches*c.o.BatchRecords)
		// Until AllowRebalance, the records belong to the assignment that the offset tracker has.
		var all []polled
		beyond := map[string]map[int32]kgo.EpochOffset{} // where to continue after batches that are too large
		fetches.EachPartition(func(f kgo.FetchTopicPartition) {
			p := c.offsets.find(f.Topic, f.Partition)
			if p == nil {
				return
			}
			c.offsets.setEnd(p, f.LastStableOffset)
			if len(f.Records) > 0 {
				all = append(all, polled{partition: p, records: f.Records})
			}
			if tooLarge := (*kgo.ErrDecompressTooLarge)(nil); errors.As(f.Err, &tooLarge) {
				all = append(all, polled{partition: p, tooLarge: tooLarge})
				if beyond[f.Topic] == nil {
					beyond[f.Topic] = map[int32]kgo.EpochOffset{}
				}
				beyond[f.Topic][f.Partition] = kgo.EpochOffset{Epoch: tooLarge.Epoch, Offset: tooLarge.NextOffset}
			}
		})
		if len(beyond) > 0 {
			c.client.SetOffsets(beyond)
		}
		c.client.AllowRebalance()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := c.handleFetchErrors(fetches.Errors()); err != nil {
			return err
		}
		for _, p := range all {
			do := c.emitBatches
			if p.tooLarge != nil {
				do = c.reject
			}
			if err := do(p, emit); err != nil {
				return err
			}
		}
	}
}

// handleFetchErrors counts and logs errors. It returns one that a retry can't fix.
func (c *consumer) handleFetchErrors(errs []kgo.FetchError) error {
	for _, e := range errs {
		if permanent := c.o.Connection.permanent(e.Err); permanent != nil {
			c.metrics.errors[errDenied].Inc()
			return permanent
		}
		reason := errOther
		switch {
		case errors.Is(e.Err, kgo.ErrClientClosed), errors.Is(e.Err, context.Canceled):
			continue
		case errors.As(e.Err, new(*kgo.ErrGroupSession)):
			reason = errGroup
		case errors.As(e.Err, new(*kgo.ErrDataLoss)):
			reason = errDataLoss
		case errors.As(e.Err, new(*kgo.ErrDecompressTooLarge)):
			c.metrics.errors[errTooLarge].Inc()
			continue // reject logs it
		}
		c.metrics.errors[reason].Inc()
		key := fmt.Sprintf("%s %s/%d", reason, e.Topic, e.Partition)
		if c.fetchErrors[key] == nil {
			c.fetchErrors[key] = &rate.Sometimes{Interval: ratelog.Interval}
		}
		c.fetchErrors[key].Do(func() {
			c.o.Logger.WithError(e.Err).WithFields(logrus.Fields{"topic": e.Topic, "partition": e.Partition}).Warn("kafka fetch failed, retrying")
		})
	}
	return nil
}

// emitBatches emits a partition's records in batches.
func (c *consumer) emitBatches(p polled, emit func(pipeline.Batch) error) error {
	accepted := c.o.Now()
	first := p.records[0].Offset
	batch, size := pipeline.Batch{}, 0
	for i, r := range p.records {
		if skipped := parse(&batch, r); skipped != "" {
			c.metrics.skipped[skipped].Inc()
		}
		size += len(r.Value)
		if i < len(p.records)-1 && len(batch.Items)+len(batch.Rejected) < c.o.BatchRecords && size < batchBytes {
			continue
		}
		number, ok := c.offsets.begin(p.partition, first, r.Offset+1, r.LeaderEpoch)
		if !ok {
			return nil // the partition's new owner reads them
		}
		first = r.Offset + 1
		if len(batch.Items)+len(batch.Rejected) == 0 {
			c.offsets.ack(p.partition, number)
			size = 0
			continue
		}
		batch.Origin, batch.Sender, batch.Accepted = fmt.Sprintf("%s/%d", p.topic, p.number), pipeline.Trusted, accepted
		batch.Done = func(pipeline.Outcome) { c.offsets.ack(p.partition, number) }
		if err := emit(batch); err != nil {
			return pipelineError{err}
		}
		batch, size = pipeline.Batch{}, 0
	}
	return nil
}

// reject makes a dead letter of a batch that is too large, and the partition continues after it. The records can't be
// read without decompressing them, so the dead letter has their offsets.
func (c *consumer) reject(p polled, emit func(pipeline.Batch) error) error {
	first, next := p.tooLarge.Offset, p.tooLarge.NextOffset
	number, ok := c.offsets.begin(p.partition, first, next, p.tooLarge.Epoch)
	if !ok {
		return nil // the partition's new owner reads it
	}
	c.o.Logger.WithFields(logrus.Fields{"topic": p.topic, "partition": p.number, "from_offset": first, "to_offset": next - 1}).
		Warn("kafka batch too large, sending its offsets to the dead-letter queue")
	err := emit(pipeline.Batch{
		Origin: fmt.Sprintf("%s/%d", p.topic, p.number), Accepted: c.o.Now(),
		Rejected: []pipeline.Rejected{{Position: first, Rejection: telemetry.Reject(telemetry.TooLarge, "", "", fmt.Sprintf(
			"the batch of offsets %d to %d decompresses to more than %d MiB: send its records again in smaller batches", first, next-1, maxDecompress>>20))}},
		Done: func(pipeline.Outcome) { c.offsets.ack(p.partition, number) },
	})
	if err != nil {
		return pipelineError{err}
	}
	return nil
}

func (c *consumer) onAssigned(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
	if len(parts) == 0 {
		return
	}
	c.metrics.rebalances[eventAssigned].Inc()
	c.offsets.assign(parts)
	c.o.Logger.WithField("partitions", fmt.Sprint(parts)).Info("kafka partitions assigned")
}

// onRevoked gives partitions up after their emitted records are durable and committed.
func (c *consumer) onRevoked(ctx context.Context, _ *kgo.Client, parts map[string][]int32) {
	closed := c.offsets.close(parts)
	if len(closed) == 0 {
		return
	}
	c.metrics.rebalances[eventRevoked].Inc()
	wait, cancel := context.WithTimeout(ctx, c.o.RevokeWait)
	defer cancel()
	inFlight := c.offsets.wait(wait, closed)
	c.commit(ctx)
	c.remove(closed)
	log := c.o.Logger.WithField("partitions", fmt.Sprint(parts))
	if inFlight > 0 {
		log.WithField("batches", inFlight).Warn("kafka partitions revoked before all records were durable; their new owner reads those again")
		return
	}
	log.Info("kafka partitions revoked")
}

// onLost gives up partitions that the group has assigned to others already: nothing of theirs may be committed.
func (c *consumer) onLost(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
	closed := c.offsets.close(parts)
	if len(closed) == 0 {
		return
	}
	c.metrics.rebalances[eventLost].Inc()
	c.remove(closed)
	c.o.Logger.WithField("partitions", fmt.Sprint(parts)).Warn("kafka partitions lost; their new owner reads uncommitted records again")
}

func (c *consumer) remove(parts []*partition) {
	c.committing.Lock()
	defer c.committing.Unlock()
	c.offsets.remove(parts)
}

// commit commits what is durable. The next commit repeats what fails now.
func (c *consumer) commit(ctx context.Context) {
	c.committing.Lock()
	defer c.committing.Unlock()
	uncommitted := c.offsets.uncommitted()
	if len(uncommitted) == 0 {
		return
	}
	request := map[string]map[int32]kgo.EpochOffset{}
	for p, o := range uncommitted {
		if request[p.topic] == nil {
			request[p.topic] = map[int32]kgo.EpochOffset{}
		}
		request[p.topic][p.number] = kgo.EpochOffset{Epoch: o.epoch, Offset: o.next}
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var failed error
	c.client.CommitOffsetsSync(ctx, request, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, response *kmsg.OffsetCommitResponse, err error) {
		if failed = err; err != nil {
			return
		}
		for _, topic := range response.Topics {
			for _, n := range topic.Partitions {
				if err := kerr.ErrorForCode(n.ErrorCode); err != nil {
					failed = fmt.Errorf("%s/%d: %w", topic.Topic, n.Partition, err)
				} else if p := c.offsets.find(topic.Topic, n.Partition); p != nil {
					c.offsets.setCommitted(p, uncommitted[p].next)
				}
			}
		}
	})
	result := commitDone
	if failed != nil {
		result = commitFailed
	}
	c.metrics.commits[result].Inc()
	if !errors.Is(failed, context.Canceled) {
		c.commits.Note(failed)
	}
}

// measure reads where partitions end. Fetches report that too, but there are none while the pipeline is full, which is when
// the lag grows. It ignores errors: fetches and commits log an unreachable Kafka.
func (c *consumer) measure(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	admin, committed := kadm.NewClient(c.client), c.client.CommittedOffsets()
	begins, err := admin.ListStartOffsets(ctx, c.o.Topics...)
	if err != nil {
		return
	}
	ends, err := admin.ListCommittedOffsets(ctx, c.o.Topics...) // up to the first open transaction
	if err != nil {
		return
	}
	c.offsets.each(func(p *partition) {
		end, found := ends.Lookup(p.topic, p.number)
		if !found || end.Err != nil {
			return
		}
		first := int64(unknown)
		begin, _ := begins.Lookup(p.topic, p.number)
		switch offset, found := committed[p.topic][p.number]; {
		case found && offset.Offset >= 0:
			first = offset.Offset
		case c.o.Start == Latest:
			first = end.Offset
		case begin.Err == nil:
			first = begin.Offset
		}
		p.measured(first, end.Offset)
	})
}

// pipelineError is an error of emit: the pipeline accepts nothing more.
type pipelineError struct{ error }

func (e pipelineError) Unwrap() error { return e.error }

// drain waits, after the last poll, until the emitted records are durable, and commits them. It waits only after a stop:
// a pipeline that failed makes nothing durable.
func (c *consumer) drain(ctx context.Context, err error) {
	all := c.offsets.closeAll()
	background := context.WithoutCancel(ctx)
	wait, cancel := context.WithTimeout(background, c.o.DrainWait)
	defer cancel()
	if ctx.Err() == nil || !errors.Is(context.Cause(ctx), ctx.Err()) || errors.As(err, new(pipelineError)) {
		cancel()
	}
	if inFlight := c.offsets.wait(wait, all); inFlight > 0 {
		c.o.Logger.WithField("batches", inFlight).Warn("kafka consumer stops before all records are durable; they are read again")
	}
	c.commit(background)
	c.remove(all)
}

// leave lets the group reassign the partitions at once instead of after the session timeout.
func (c *consumer) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout/2)
	defer cancel()
	if err := c.client.LeaveGroupContext(ctx); err != nil {
		c.o.Logger.WithError(err).Warn("kafka consumer stops without leaving its group; its partitions are reassigned after the session timeout")
	}
	c.client.CloseAllowingRebalance()
}
