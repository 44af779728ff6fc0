package ingest

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/protocol"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const (
	batchRecords   = 1000 // a batch with as many records takes no further entry
	batchRejecting = 16   // entries with rejected records in one batch: its origin names each of them
	readAhead      = 64   // entries that wait for the pipeline
)

// pendingEntry is an entry between the spool and the pipeline.
type pendingEntry struct {
	entry
	number uint64
	weight int64 // of Limits.MaxPending
}

func (e *pendingEntry) acceptedAt() time.Time { return time.UnixMilli(e.AcceptedMs) }

// Run passes the entries of the spool to the pipeline, in order, until ctx ends.
func (g *Ingest) Run(ctx context.Context, emit func(pipeline.Batch) error) error {
	group, reading := errgroup.WithContext(ctx)
	entries := make(chan pendingEntry, readAhead)
	group.Go(func() error {
		defer close(entries)
		return g.read(reading, entries)
	})
	group.Go(func() error {
		for first := range entries {
			if err := emit(g.batch(first, entries)); err != nil {
				return err
			}
		}
		return nil
	})
	if err := group.Wait(); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// read reads entries from the spool, no more than may be pending.
func (g *Ingest) read(ctx context.Context, entries chan<- pendingEntry) error {
	for {
		text, number, err := g.Spool.Next(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("read the spool: %w", err)
		}
		e, err := decodeEntry(text)
		if version := errVersion(0); errors.As(err, &version) {
			return fmt.Errorf("read the spool: entry %d: %w", number, err)
		}
		if err != nil {
			g.Logger.WithError(err).WithField("entry", number).Error("spool entry unreadable, sending it to the dead-letter queue")
			g.metrics.unreadable.Inc()
			e = unreadable(text, number, g.Now())
		}
		p := pendingEntry{entry: e, number: number, weight: min(int64(len(e.Messages)), int64(g.Limits.MaxPending))}
		if g.pending.Acquire(ctx, p.weight) != nil {
			return nil // ctx ended; the entry stays in the spool
		}
		select {
		case entries <- p:
			g.metrics.pending.Add(float64(len(e.Messages)))
		case <-ctx.Done():
			g.pending.Release(p.weight)
			return nil
		}
	}
}

// unreadable preserves the bytes of a damaged entry: they contain records of a sender.
func unreadable(text []byte, number uint64, now time.Time) entry {
	return entry{AcceptedMs: now.UnixMilli(), Origin: fmt.Sprintf("spool entry %d", number), Messages: []protocol.Message{{
		Rejection: telemetry.Reject(telemetry.Malformed, "", "", "the spool entry is damaged; raw is all of it in base64"),
		Raw:       base64.StdEncoding.EncodeToString(text),
	}}}
}

// batch merges an entry with the entries that wait behind it.
func (g *Ingest) batch(first pendingEntry, entries <-chan pendingEntry) pipeline.Batch {
	b := builder{accepted: first.acceptedAt()}
	b.add(first)
merging:
	for b.records() < batchRecords && len(b.rejecting) < batchRejecting {
		select {
		case next, ok := <-entries:
			if !ok {
				break merging
			}
			b.add(next)
		default:
			break merging
		}
	}
	return pipeline.Batch{Origin: b.origin(), Items: b.items, Rejected: b.rejected, Accepted: b.accepted, Done: func(pipeline.Outcome) {
		for _, e := range b.entries {
			g.Spool.Ack(e.number)
			g.pending.Release(e.weight)
			g.metrics.pending.Sub(float64(e.records))
		}
	}}
}

// builder collects the entries of a batch.
type builder struct {
	items     []pipeline.Item
	rejected  []pipeline.Rejected
	accepted  time.Time // of the oldest entry
	entries   []merged
	first     string // origin of the first entry
	last      string
	rejecting []string // origins of entries with rejected records
}

// merged is what Done needs of an entry.
type merged struct {
	number  uint64
	weight  int64
	records int
}

func (b *builder) records() int { return len(b.items) + len(b.rejected) }

func (b *builder) add(e pendingEntry) {
	before := len(b.rejected)
	for i := range e.Messages {
		m := &e.Messages[i]
		if m.Rejection != nil {
			rejected := pipeline.Rejected{Rejection: m.Rejection, Position: int64(m.Index), Raw: m.Raw}
			// In every protocol, a dead letter that can be read as a record can be reprocessed as one.
			if record, unreadable := protocol.ParseRaw(m.Raw); unreadable == nil {
				rejected.Fields = pipeline.FieldsOf(&record)
			}
			b.rejected = append(b.rejected, rejected)
		} else {
			b.items = append(b.items, pipeline.Item{Record: m.Record, Position: int64(m.Index), Raw: m.Raw})
		}
	}
	if len(b.rejected) > before {
		b.rejecting = append(b.rejecting, e.Origin)
	}
	if len(b.entries) == 0 {
		b.first = e.Origin
	}
	b.last = e.Origin
	if at := e.acceptedAt(); at.Before(b.accepted) {
		b.accepted = at
	}
	b.entries = append(b.entries, merged{e.number, e.weight, len(e.Messages)})
}

// origin names every request with rejected records, so that the dead letters can be searched for each of them. Without
// rejected records it names the first and the last request.
func (b *builder) origin() string {
	switch {
	case len(b.rejecting) > 0:
		return strings.Join(b.rejecting, ",")
	case b.first == b.last:
		return b.first
	default:
		return b.first + ".." + b.last
	}
}
