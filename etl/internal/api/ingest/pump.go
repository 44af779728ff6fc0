package ingest

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/protocol"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const (
	batchRecords   = 1000    // a batch with as many records takes no further entry
	batchBytes     = 1 << 20 // nor does a batch of so much memory
	batchRejecting = 16      // entries with rejected records in one batch: its origin names each of them
	readAhead      = 64      // entries that wait for the pipeline
)

// pendingEntry is an entry between the spool and the pipeline.
type pendingEntry struct {
	entry
	lane   int // of the spool
	number uint64
	size   int64 // in the spool, bytes
	memory int64 // of Limits.MaxPending, bytes
}

// fieldsMemory is the memory of the fields of a decoded record that was rejected, in bytes.
const fieldsMemory = 1536

// memory is how much the records of an entry take, in bytes.
func (e *entry) memory() (bytes int64) {
	for i := range e.Messages {
		m := &e.Messages[i]
		bytes += messageMemory + int64(len(m.Raw))
		if m.Rejection != nil && m.Decoded() {
			bytes += fieldsMemory
		}
	}
	return bytes
}

// Run passes the entries of the spool to the pipeline, those of a lane in order, until ctx ends.
func (g *Ingest) Run(ctx context.Context, emit func(pipeline.Batch) error) error {
	group, reading := errgroup.WithContext(ctx)
	var emitting sync.Mutex
	for lane := range g.lanes.spools {
		entries := make(chan pendingEntry, readAhead)
		group.Go(func() error {
			defer close(entries)
			return g.read(reading, lane, entries)
		})
		group.Go(func() error {
			for first := range entries {
				b := g.batch(first, entries)
				emitting.Lock()
				err := emit(b)
				emitting.Unlock()
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// read reads entries from a lane of the spool, no more than may be pending.
func (g *Ingest) read(ctx context.Context, lane int, entries chan<- pendingEntry) error {
	for {
		text, number, err := g.lanes.spools[lane].Next(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("read the spool: %w", err)
		}
		e, err := decodeEntry(text)
		if errors.Is(err, errVersion) {
			return fmt.Errorf("read the spool: entry %d: %w", number, err)
		}
		if err != nil {
			g.Logger.WithError(err).WithField("entry", number).Error("spool entry unreadable, sending it to the dead-letter queue")
			g.metrics.unreadable.Inc()
			e = unreadable(text, number, g.Now())
		}
		if lane > 0 {
			g.lanes.inOrder(ctx, e.Sender)
		}
		p := pendingEntry{entry: e, lane: lane, number: number, size: int64(len(text)), memory: min(e.memory(), g.Limits.MaxPending)}
		if g.pending.Acquire(ctx, laneName(lane), p.memory) != nil {
			return nil // ctx ended; the entry stays in the spool
		}
		select {
		case entries <- p:
			g.metrics.pending.Add(float64(len(e.Messages)))
			g.metrics.pendingBytes.Add(float64(p.memory))
		case <-ctx.Done():
			g.pending.Release(laneName(lane), p.memory)
			return nil
		}
	}
}

// laneName names a lane of the spool in the pipeline.
func laneName(lane int) string { return "lane " + strconv.Itoa(lane) }

// damagedPart is the length of a part of a damaged entry, in bytes: a multiple of 3, so that the parts in base64 make one text.
const damagedPart = 48 << 10

// unreadable preserves the bytes of a damaged entry, in parts: they contain records of a sender.
func unreadable(text []byte, number uint64, now time.Time) entry {
	e := entry{AcceptedMs: now.UnixMilli(), Origin: fmt.Sprintf("spool entry %d", number)}
	for part := range slices.Chunk(text, damagedPart) {
		e.Messages = append(e.Messages, protocol.Message{
			Index:     len(e.Messages),
			Rejection: telemetry.Reject(telemetry.Malformed, "", "", "the spool entry is damaged; the raw texts of this origin, in the order of position, are all of it in base64"),
			Raw:       base64.StdEncoding.EncodeToString(part),
		})
	}
	return e
}

// batch merges an entry with the entries that wait behind it.
func (g *Ingest) batch(first pendingEntry, entries <-chan pendingEntry) pipeline.Batch {
	b := pipeline.Batch{Accepted: time.UnixMilli(first.AcceptedMs), Lane: laneName(first.lane)}
	var merged []pendingEntry
	var rejecting []string // origins of entries with rejected records
	var memory int64
	for e, more := first, true; more; {
		before := len(b.Rejected)
		addMessages(&b, &e.entry)
		if len(b.Rejected) > before {
			rejecting = append(rejecting, e.Origin)
		}
		if at := time.UnixMilli(e.AcceptedMs); at.Before(b.Accepted) {
			b.Accepted = at // of the oldest entry
		}
		e.Messages = nil // Done does not need them
		merged, memory = append(merged, e), memory+e.memory
		more = false
		if len(b.Items)+len(b.Rejected) < batchRecords && memory < batchBytes && len(rejecting) < batchRejecting {
			select {
			case e, more = <-entries:
			default:
			}
		}
	}
	// The origin names every request with rejected records, so that the dead letters can be searched for each of them.
	b.Origin = strings.Join(rejecting, ",")
	if last := merged[len(merged)-1].Origin; b.Origin == "" && last == first.Origin {
		b.Origin = last
	} else if b.Origin == "" {
		b.Origin = first.Origin + ".." + last
	}
	records := len(b.Items) + len(b.Rejected)
	b.Done = func(pipeline.Outcome) {
		for _, e := range merged {
			g.lanes.ack(e.Sender, e.lane, e.number, e.size)
			g.pending.Release(laneName(e.lane), e.memory)
		}
		g.metrics.pending.Sub(float64(records))
		g.metrics.pendingBytes.Sub(float64(memory))
	}
	return b
}

func addMessages(b *pipeline.Batch, e *entry) {
	for i := range e.Messages {
		m := &e.Messages[i]
		if m.Rejection == nil {
			b.Items = append(b.Items, pipeline.Item{
				Record: m.Record, Sender: e.Sender, Position: int64(m.Index), Raw: m.Raw, AcceptedMs: e.AcceptedMs,
			})
			continue
		}
		rejected := pipeline.Rejected{Rejection: m.Rejection, Sender: e.Sender, Position: int64(m.Index), Raw: m.Raw}
		if m.Decoded() {
			rejected.Fields = pipeline.FieldsOf(&m.Record)
		}
		b.Rejected = append(b.Rejected, rejected)
	}
}
