package ingest

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const (
	batchRecords  = 1000 // from which a batch takes no further entry
	batchRefusing = 16   // entries with refused records in one batch: its origin names each of them
	readAhead     = 64   // entries that wait for the pipeline
)

// held is an entry on its way to the pipeline.
type held struct {
	entry
	number uint64
	weight int64 // of Limits.MaxPending
}

// pump hands what is in the journal to the pipeline, in order, until ctx ends.
func (s *Source) pump(ctx context.Context, emit func(pipeline.Batch) error) error {
	g, reading := errgroup.WithContext(ctx)
	entries := make(chan held, readAhead)
	g.Go(func() error {
		defer close(entries)
		return s.read(reading, entries)
	})
	g.Go(func() error {
		for first := range entries {
			if err := emit(s.merge(first, entries)); err != nil {
				return err
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// read takes entries from the journal, no more than may be pending.
func (s *Source) read(ctx context.Context, entries chan<- held) error {
	for {
		text, number, err := s.Journal.Next(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("read the journal: %w", err)
		}
		e, err := decodeEntry(text)
		if version := errVersion(0); errors.As(err, &version) {
			return fmt.Errorf("read the journal: entry %d: %w", number, err)
		}
		if err != nil {
			s.Logger.WithError(err).WithField("entry", number).Error("an entry of the journal can't be read; it goes to the dead letters")
			s.metrics.unreadable.Inc()
			e = unreadable(text, number, s.Now())
		}
		h := held{entry: e, number: number, weight: min(int64(len(e.records)), int64(s.Limits.MaxPending))}
		if s.pending.Acquire(ctx, h.weight) != nil {
			return nil // ctx ended; the entry stays in the journal
		}
		select {
		case entries <- h:
			s.metrics.pending.Add(float64(len(e.records)))
		case <-ctx.Done():
			s.pending.Release(h.weight)
			return nil
		}
	}
}

// unreadable keeps the bytes of an entry that makes no sense: they are somebody's records.
func unreadable(text []byte, number uint64, now time.Time) entry {
	return entry{at: now, origin: fmt.Sprintf("journal entry %d", number), records: []received{{
		rejection: telemetry.Reject(telemetry.Malformed, "", "", "an entry of the journal is damaged; raw is all of it in base64"),
		raw:       base64.StdEncoding.EncodeToString(text),
	}}}
}

// merge makes one batch of an entry and those that have come after it.
func (s *Source) merge(first held, entries <-chan held) pipeline.Batch {
	m := merging{accepted: first.at}
	m.add(first)
merging:
	for m.records() < batchRecords && len(m.refusing) < batchRefusing {
		select {
		case next, ok := <-entries:
			if !ok {
				break merging
			}
			m.add(next)
		default:
			break merging
		}
	}
	return pipeline.Batch{Origin: m.origin(), Items: m.items, Rejected: m.refused, Accepted: m.accepted, Done: func(pipeline.Outcome) {
		for _, h := range m.entries {
			s.Journal.Done(h.number)
			s.pending.Release(h.weight)
			s.metrics.pending.Sub(float64(h.count))
		}
	}}
}

// merging is a batch that is being put together.
type merging struct {
	items    []pipeline.Item
	refused  []pipeline.Rejected
	accepted time.Time
	entries  []done
	first    string
	last     string
	refusing []string
}

// done is what is left of an entry when it is stored.
type done struct {
	number uint64
	weight int64
	count  int
}

func (m *merging) records() int { return len(m.items) + len(m.refused) }

func (m *merging) add(h held) {
	before := len(m.refused)
	for i := range h.records {
		r := &h.records[i]
		if r.rejection != nil {
			refused := pipeline.Rejected{Rejection: r.rejection, Position: int64(r.index), Raw: r.raw}
			// Whatever the protocol was, a dead letter that could be read as a record can be replayed as one.
			if record, unreadable := ParseRaw(r.raw); unreadable == nil {
				refused.Fields = pipeline.FieldsOf(&record)
			}
			m.refused = append(m.refused, refused)
		} else {
			m.items = append(m.items, pipeline.Item{Record: r.record, Position: int64(r.index), Raw: r.raw})
		}
	}
	if len(m.refused) > before {
		m.refusing = append(m.refusing, h.origin)
	}
	if len(m.entries) == 0 {
		m.first = h.origin
	}
	m.last = h.origin
	if h.at.Before(m.accepted) {
		m.accepted = h.at
	}
	m.entries = append(m.entries, done{h.number, h.weight, len(h.records)})
}

// origin names the requests of which something was refused, so that the dead letters can be searched for each; where
// nothing was, the first and the last request.
func (m *merging) origin() string {
	switch {
	case len(m.refusing) > 0:
		return strings.Join(m.refusing, ",")
	case m.first == m.last:
		return m.first
	default:
		return m.first + ".." + m.last
	}
}
