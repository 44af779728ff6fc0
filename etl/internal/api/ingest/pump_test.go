package ingest

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/protocol"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// spooled is an entry with a record per device. Records of odd devices are rejected.
func spooled(origin string, at int64, devices ...int) []byte {
	e := entry{AcceptedMs: at, Origin: origin, Sender: "fleet of " + origin}
	for i, d := range devices {
		m := protocol.Message{Index: i, Raw: fmt.Sprint("raw ", d)}
		if d%2 == 1 {
			m.Rejection = telemetry.Reject(telemetry.LatRange, "lat", "91", "less")
		} else {
			m.Record = telemetry.Record{DeviceID: fmt.Sprint("v", d), FleetID: "wuxi", TimeMs: 1_795_000_000_000, Lat: 1, Lon: 2}
		}
		e.Messages = append(e.Messages, m)
	}
	text, err := e.encode()
	if err != nil {
		panic(err)
	}
	return text
}

// newIngest makes an Ingest with a spool in memory, and with so many pending records of the function spooled.
func newIngest(spool Spool, pending int) *Ingest {
	limits := DefaultLimits()
	limits.MaxPending = int64(pending) * (messageMemory + int64(len("raw 2")))
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	return New(Options{
		Spool: spool, Limits: limits, Logger: logger, Registerer: prometheus.NewRegistry(), Now: time.Now,
		Check:      func(*telemetry.Record, int64) *telemetry.Rejection { return nil },
		CheckOwner: func(string, *telemetry.Record) *telemetry.Rejection { return nil },
		Seen:       func(*telemetry.Record) telemetry.Seen { return telemetry.New },
		Reject:     func(context.Context, string, []pipeline.Rejected) error { return nil },
	})
}

func TestSmallEntriesAreMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spool := newMemorySpool(spooled("a", 3000, 2))
		s := newIngest(spool, 100)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		var batches []pipeline.Batch
		gate := make(chan struct{})
		go func() {
			ended <- s.Run(ctx, func(b pipeline.Batch) error {
				<-gate
				batches = append(batches, b)
				return nil
			})
		}()
		synctest.Wait() // the first entry is emitted before the others arrive
		require.NoError(t, spool.Append(ctx, spooled("b", 1000, 4)))
		require.NoError(t, spool.Append(ctx, spooled("c", 2000, 6)))
		synctest.Wait()
		close(gate)
		synctest.Wait()
		require.Len(t, batches, 2, "the others are one batch")
		require.Equal(t, "a", batches[0].Origin)
		require.Len(t, batches[0].Items, 1)
		last := batches[1]
		require.Equal(t, "b..c", last.Origin)
		require.Len(t, last.Items, 2)
		require.Equal(t, []string{"fleet of b", "fleet of c"}, []string{last.Items[0].Sender, last.Items[1].Sender}, "each record keeps its sender")
		require.Equal(t, int64(1000), last.Accepted.UnixMilli(), "time of the oldest entry")
		require.Equal(t, []int64{1000, 2000}, []int64{last.Items[0].AcceptedMs, last.Items[1].AcceptedMs}, "each record was accepted with its own entry")
		_, done := spool.counts()
		require.Zero(t, done, "no record is stored yet")
		last.Done(pipeline.Outcome{})
		_, done = spool.counts()
		require.Equal(t, len(last.Items), done)
		stop()
		require.NoError(t, <-ended)
	})
}

func TestOriginNamesRequestsWithRejectedRecords(t *testing.T) {
	entries := make(chan pendingEntry, 100)
	s := newIngest(newMemorySpool(), 100)
	add := func(origin string, devices ...int) pendingEntry {
		e, err := decodeEntry(spooled(origin, 1, devices...))
		require.NoError(t, err)
		return pendingEntry{entry: e, memory: e.memory()}
	}
	entries <- add("b", 1, 2)
	entries <- add("c", 2)
	entries <- add("d", 3)
	b := s.batch(add("a", 2), entries)
	require.Equal(t, "b,d", b.Origin)
	require.Len(t, b.Items, 3)
	require.Equal(t, []int64{0, 0}, []int64{b.Rejected[0].Position, b.Rejected[1].Position})

	for i := range 40 {
		entries <- add(fmt.Sprint(i), 1)
	}
	b = s.batch(add("first", 1), entries)
	require.Len(t, b.Rejected, batchRejecting, "so that an origin stays short")

	for len(entries) > 0 {
		<-entries
	}
	many := make([]int, 600)
	entries <- add("y", many...)
	entries <- add("z", many...)
	b = s.batch(add("x", many...), entries)
	require.Len(t, b.Items, 1200)
	require.Equal(t, "x..y", b.Origin)

	for len(entries) > 0 {
		<-entries
	}
	large := func(origin string) pendingEntry {
		return pendingEntry{entry: entry{Origin: origin, Messages: []protocol.Message{{Raw: "x"}}}, memory: batchBytes / 2}
	}
	entries <- large("y")
	entries <- large("z")
	b = s.batch(large("x"), entries)
	require.Len(t, b.Items, 2, "a batch is bounded in bytes")
	require.Equal(t, "x..y", b.Origin)
}

func TestPendingRecordsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var entries [][]byte
		for i := range 10 {
			entries = append(entries, spooled(fmt.Sprint(i), 1, 2, 4, 6))
		}
		s := newIngest(newMemorySpool(entries...), 7)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		var batches []pipeline.Batch
		go func() {
			ended <- s.Run(ctx, func(b pipeline.Batch) error { batches = append(batches, b); return nil })
		}()
		handed := func() (n int) {
			synctest.Wait()
			for _, b := range batches {
				n += len(b.Items)
			}
			return n
		}
		require.Equal(t, 6, handed(), "a third entry would exceed the limit")
		for stored := 0; stored < len(batches); stored++ {
			batches[stored].Done(pipeline.Outcome{})
			require.LessOrEqual(t, handed(), 30)
		}
		require.Equal(t, 30, handed())
		stop()
		require.NoError(t, <-ended)
	})
}

func TestEntryLargerThanPendingLimitPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newIngest(newMemorySpool(spooled("a", 1, 2, 4, 6, 8), spooled("b", 1, 2)), 2)
		ctx, stop := context.WithCancel(t.Context())
		n := 0
		ended := make(chan error, 1)
		go func() {
			ended <- s.Run(ctx, func(b pipeline.Batch) error { n += len(b.Items); b.Done(pipeline.Outcome{}); return nil })
		}()
		synctest.Wait()
		require.Equal(t, 5, n)
		stop()
		require.NoError(t, <-ended)
	})
}

func TestDamagedEntryBecomesDeadLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		torn := append(spooled("a", 1, 2)[:20], bytes.Repeat([]byte("x"), 2*damagedPart)...)
		spool := newMemorySpool(torn, spooled("b", 1, 2))
		s := newIngest(spool, 100)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		var rejected []pipeline.Rejected
		n := 0
		go func() {
			ended <- s.Run(ctx, func(b pipeline.Batch) error {
				n += len(b.Items)
				rejected = append(rejected, b.Rejected...)
				b.Done(pipeline.Outcome{})
				return nil
			})
		}()
		synctest.Wait()
		require.Equal(t, 1, n, "the next entry is not delayed")
		require.Len(t, rejected, 3, "in parts")
		raw := ""
		for i, r := range rejected {
			require.EqualValues(t, i, r.Position)
			require.LessOrEqual(t, len(r.Raw), telemetry.MaxRawLen)
			raw += r.Raw
		}
		whole, err := base64.StdEncoding.DecodeString(raw)
		require.NoError(t, err)
		require.Equal(t, torn, whole)
		_, done := spool.counts()
		require.Equal(t, 2, done)
		stop()
		require.NoError(t, <-ended)
	})
}

type brokenSpool struct{ *memorySpool }

var errDisk = errors.New("input/output error")

func (brokenSpool) Next(context.Context) ([]byte, uint64, error) { return nil, 0, errDisk }

func TestFatalErrors(t *testing.T) {
	later := spooled("a", 1, 2)
	later[0] = 2
	for name, c := range map[string]struct {
		spool func() Spool
		emit  error
		want  string
	}{
		"the spool can't be read":     {func() Spool { return brokenSpool{newMemorySpool()} }, nil, "read the spool: input/output error"},
		"an entry of a later version": {func() Spool { return newMemorySpool(later) }, nil, "read the spool: entry 1: entry version 2"},
		"the pipeline fails":          {func() Spool { return newMemorySpool(spooled("a", 1, 2)) }, errors.New("store failed"), "store failed"},
	} {
		t.Run(name, func(t *testing.T) {
			err := newIngest(c.spool(), 10).Run(t.Context(), func(pipeline.Batch) error { return c.emit })
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestUnstoredEntriesComeAgainAfterRestart(t *testing.T) {
	spool := newMemorySpool()
	s := newIngest(spool, 100)
	e := entry{AcceptedMs: time.Now().UnixMilli(), Origin: "a", Messages: []protocol.Message{{Record: telemetry.Record{DeviceID: "v", FleetID: "wuxi", TimeMs: time.Now().UnixMilli()}}}}
	text, err := e.encode()
	require.NoError(t, err)
	require.NoError(t, spool.Append(t.Context(), text))
	ctx, stop := context.WithCancel(t.Context())
	err = s.Run(ctx, func(pipeline.Batch) error { stop(); return ctx.Err() }) // stopped before the record was stored
	require.NoError(t, err)
	_, done := spool.counts()
	require.Zero(t, done)
	spool.next = 0 // as after a restart
	ctx, stop = context.WithCancel(t.Context())
	devices := ""
	err = newIngest(spool, 100).Run(ctx, func(b pipeline.Batch) error { devices += b.Items[0].DeviceID; stop(); return nil })
	require.NoError(t, err)
	require.Equal(t, "v", devices)
}
