package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
)

// member is one membership of the group: one Run of a Source.
//
//	poll ─► batches of a partition ─► emit ─ … ─► Done ─► ledger ─► commit, every second
//	                                                         ▲
//	rebalance: assign, close ─ settle ─ commit ─ forget ─────┘
type member struct {
	*Source
	client   *kgo.Client
	ledger   *ledger
	assigned chan struct{} // told when partitions came

	// A commit that is under way while its partition goes elsewhere could overwrite what the new owner commits, so
	// partitions are let go only between commits.
	committing sync.Mutex
}

// polled is what one poll gave of one partition.
type polled struct {
	*partition
	records []*kgo.Record
}

// read hands over what it polls until ctx ends or Kafka refuses. While the pipeline is full, emit blocks and nothing is
// polled; the client fetches no more than FetchMaxBytes ahead from each broker and goes on showing the group that we live.
func (m *member) read(ctx context.Context, emit func(pipeline.Batch) error) error {
	for {
		fetches := m.client.PollRecords(ctx, pollBatches*m.o.BatchRecords)
		// Until AllowRebalance the records belong to the assignment that the ledger knows.
		var all []polled
		fetches.EachPartition(func(f kgo.FetchTopicPartition) {
			p := m.ledger.find(f.Topic, f.Partition)
			if p == nil {
				return
			}
			m.ledger.reaches(p, f.HighWatermark)
			if len(f.Records) > 0 {
				all = append(all, polled{p, f.Records})
			}
		})
		m.client.AllowRebalance()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := m.heed(fetches.Errors()); err != nil {
			return err
		}
		for _, p := range all {
			if err := m.handOver(p, emit); err != nil {
				return err
			}
		}
	}
}

// heed counts and tells errors; those that no waiting mends are returned.
func (m *member) heed(errs []kgo.FetchError) error {
	for _, e := range errs {
		if refusal := m.o.Connection.refusal(e.Err); refusal != nil {
			m.metrics.errors.WithLabelValues(errRefused).Inc()
			return refusal
		}
		reason := errOther
		switch {
		case errors.Is(e.Err, kgo.ErrClientClosed), errors.Is(e.Err, context.Canceled):
			continue
		case errors.As(e.Err, new(*kgo.ErrGroupSession)):
			reason = errGroup
		case errors.As(e.Err, new(*kgo.ErrDataLoss)), errors.As(e.Err, new(*kgo.ErrDecompressTooLarge)):
			reason = errDataLoss
		}
		m.metrics.errors.WithLabelValues(reason).Inc()
		if m.outages.due(fmt.Sprintf("fetch %s of %s/%d", reason, e.Topic, e.Partition)) {
			m.o.Logger.WithFields(logrus.Fields{"topic": e.Topic, "partition": e.Partition, "reason": e.Err.Error()}).
				Warn("kafka gives no records; trying again")
		}
	}
	return nil
}

// handOver emits a partition's records in batches.
func (m *member) handOver(p polled, emit func(pipeline.Batch) error) error {
	taken := m.o.Now()
	begin := p.records[0].Offset
	batch, size := pipeline.Batch{}, 0
	for i, r := range p.records {
		if skipped := read(&batch, r); skipped != "" {
			m.metrics.skipped.WithLabelValues(skipped).Inc()
		}
		size += len(r.Value)
		if i < len(p.records)-1 && len(batch.Items)+len(batch.Rejected) < m.o.BatchRecords && size < batchBytes {
			continue
		}
		s := m.ledger.begin(p.partition, begin, r.Offset+1, r.LeaderEpoch)
		if s == nil {
			return nil // the partition's new owner reads them
		}
		begin = r.Offset + 1
		if len(batch.Items)+len(batch.Rejected) == 0 {
			m.ledger.done(s)
			size = 0
			continue
		}
		batch.Origin, batch.Accepted = fmt.Sprintf("%s/%d", p.topic, p.number), taken
		batch.Done = func(pipeline.Outcome) { m.ledger.done(s) }
		if err := emit(batch); err != nil {
			return pipelineEnded{err}
		}
		batch, size = pipeline.Batch{}, 0
	}
	return nil
}

func (m *member) onAssigned(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
	if len(parts) == 0 {
		return
	}
	m.metrics.rebalances.WithLabelValues(assigned).Inc()
	m.ledger.assign(parts)
	m.o.Logger.WithField("partitions", shown(parts)).Info("kafka partitions assigned")
	select {
	case m.assigned <- struct{}{}:
	default:
	}
}

// onRevoked gives partitions up in order: what was handed over becomes durable and is committed first.
func (m *member) onRevoked(ctx context.Context, _ *kgo.Client, parts map[string][]int32) {
	closed := m.ledger.close(parts)
	if len(closed) == 0 {
		return
	}
	m.metrics.rebalances.WithLabelValues(revoked).Inc()
	wait, cancel := context.WithTimeout(ctx, m.o.RevokeWait)
	defer cancel()
	open := m.ledger.settle(wait, closed)
	m.commit(ctx)
	m.release(closed)
	log := m.o.Logger.WithField("partitions", shown(parts))
	if open > 0 {
		log.WithField("batches", open).Warn("kafka partitions revoked before all of their records were durable; their new owner reads those again")
		return
	}
	log.Info("kafka partitions revoked")
}

// onLost is told when the group has given partitions to others already: nothing of theirs may be committed.
func (m *member) onLost(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
	closed := m.ledger.close(parts)
	if len(closed) == 0 {
		return
	}
	m.metrics.rebalances.WithLabelValues(lost).Inc()
	m.release(closed)
	m.o.Logger.WithField("partitions", shown(parts)).Warn("kafka partitions lost; what was not committed is read again")
}

func (m *member) release(parts []*partition) {
	m.committing.Lock()
	defer m.committing.Unlock()
	m.ledger.forget(parts)
}

func shown(parts map[string][]int32) string { return fmt.Sprint(parts) }

func (m *member) keepCommitting(ctx context.Context) {
	tick := time.NewTicker(m.o.CommitInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			m.commit(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// commit tells the group what is durable. What it can't tell now, it tells with the next commit.
func (m *member) commit(ctx context.Context) {
	m.committing.Lock()
	defer m.committing.Unlock()
	due := m.ledger.due()
	if len(due) == 0 {
		return
	}
	offsets := map[string]map[int32]kgo.EpochOffset{}
	at := map[place]*partition{}
	for p, s := range due {
		if offsets[p.topic] == nil {
			offsets[p.topic] = map[int32]kgo.EpochOffset{}
		}
		offsets[p.topic][p.number] = kgo.EpochOffset{Epoch: s.epoch, Offset: s.next}
		at[place{p.topic, p.number}] = p
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var failed error
	m.client.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, answer *kmsg.OffsetCommitResponse, err error) {
		if failed = err; err != nil {
			return
		}
		for _, topic := range answer.Topics {
			for _, n := range topic.Partitions {
				p := at[place{topic.Topic, n.Partition}]
				if err := kerr.ErrorForCode(n.ErrorCode); err != nil {
					failed = fmt.Errorf("%s/%d: %w", topic.Topic, n.Partition, err)
				} else if p != nil {
					m.ledger.commit(p, due[p].next)
				}
			}
		}
	})
	if failed == nil {
		m.metrics.commits.WithLabelValues(commitDone).Inc()
		return
	}
	m.metrics.commits.WithLabelValues(commitFailed).Inc()
	if m.outages.due("commit") && !errors.Is(failed, context.Canceled) {
		m.o.Logger.WithField("reason", failed.Error()).Warn("offsets were not committed to kafka; trying again")
	}
}

// keepMeasuring reads where partitions end: while the pipeline is full nothing is fetched, and that is just when the lag
// grows.
func (m *member) keepMeasuring(ctx context.Context) {
	admin := kadm.NewClient(m.client)
	tick := time.NewTicker(measureEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-m.assigned:
		case <-ctx.Done():
			return
		}
		m.measure(ctx, admin)
	}
}

// measure leaves things as they are where Kafka does not answer: whoever reads and commits speaks of that.
func (m *member) measure(ctx context.Context, admin *kadm.Client) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	committed := m.client.CommittedOffsets()
	begins, err := admin.ListStartOffsets(ctx, m.o.Topics...)
	if err != nil {
		return
	}
	ends, err := admin.ListEndOffsets(ctx, m.o.Topics...)
	if err != nil {
		return
	}
	for _, s := range m.ledger.standings() {
		end, found := ends.Lookup(s.topic, s.number)
		if !found || end.Err != nil {
			continue
		}
		if p := m.ledger.find(s.topic, s.number); p != nil {
			m.ledger.reaches(p, end.Offset)
		}
		if s.position != unknown {
			continue
		}
		begin, _ := begins.Lookup(s.topic, s.number)
		switch offset, found := committed[s.topic][s.number]; {
		case found && offset.Offset >= 0:
			m.ledger.from(s.topic, s.number, offset.Offset)
		case m.o.Start == Latest:
			m.ledger.from(s.topic, s.number, end.Offset)
		case begin.Err == nil:
			m.ledger.from(s.topic, s.number, begin.Offset)
		}
	}
}

// pipelineEnded marks that the pipeline takes nothing more.
type pipelineEnded struct{ error }

func (e pipelineEnded) Unwrap() error { return e.error }

// finish waits, at the end of reading, for what was handed over, and commits it. Only where we were told to stop is there
// something to wait for: a pipeline that failed makes nothing durable.
func (m *member) finish(ctx context.Context, err error) {
	all := m.ledger.closeAll()
	background := context.WithoutCancel(ctx)
	wait, cancel := context.WithTimeout(background, m.o.DrainWait)
	defer cancel()
	if ctx.Err() == nil || !errors.Is(context.Cause(ctx), ctx.Err()) || errors.As(err, new(pipelineEnded)) {
		cancel()
	}
	if open := m.ledger.settle(wait, all); open > 0 {
		m.o.Logger.WithField("batches", open).Warn("kafka consumer ends before all records were durable; they are read again")
	}
	m.commit(background)
	m.release(all)
}

// leave hands the partitions on at once instead of after the session's timeout.
func (m *member) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout/2)
	defer cancel()
	if err := m.client.LeaveGroupContext(ctx); err != nil {
		m.o.Logger.WithField("reason", err.Error()).Warn("kafka consumer ends without leaving its group; its partitions move when the session is over")
	}
	m.client.CloseAllowingRebalance()
}
