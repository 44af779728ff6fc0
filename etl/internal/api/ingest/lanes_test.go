package ingest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/protocol"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/spool"
)

// withLanes makes an Ingest with a spool of three lanes in memory.
func withLanes(capacity int64) (*Ingest, []*memorySpool) {
	g := newIngest(newMemorySpool(), 1_000_000)
	spools := []*memorySpool{newMemorySpool(), newMemorySpool(), newMemorySpool()}
	g.lanes = newLanes([]Spool{spools[0], spools[1], spools[2]}, capacity)
	return g, spools
}

// send appends an entry of so many bytes, or somewhat more.
func (g *Ingest) send(t *testing.T, sender, origin string, bytes int) error {
	e := entry{Sender: sender, Origin: origin, Messages: []protocol.Message{{Raw: strings.Repeat("x", bytes)}}}
	text, err := e.encode()
	require.NoError(t, err)
	return g.lanes.append(t.Context(), sender, text)
}

func TestFleetDoesNotWaitBehindBacklogOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, spools := withLanes(1 << 30)
		for i := range 200 {
			require.NoError(t, g.send(t, "flood", fmt.Sprint(i), 100_000))
		}
		require.NoError(t, g.send(t, "north", "other", 100))
		require.LessOrEqual(t, spools[0].Bytes(), int64(lightBytes+1000), "the rest is in another lane")
		require.Greater(t, spools[1].Bytes(), int64(18_000_000))

		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		var batches []pipeline.Batch
		go func() {
			ended <- g.Run(ctx, func(b pipeline.Batch) error {
				batches = append(batches, b)
				return nil
			})
		}()
		synctest.Wait()
		before, found := 0, false
		for _, b := range batches {
			for _, item := range b.Items {
				found = found || item.Sender == "north"
				if !found {
					before += len(item.Raw)
				}
			}
		}
		require.True(t, found)
		require.LessOrEqual(t, before, lightBytes)

		flood := 0
		for i := 0; i < len(batches); i++ {
			flood += len(batches[i].Items)
			batches[i].Done(pipeline.Outcome{})
			synctest.Wait()
		}
		require.Equal(t, 201, flood)
		require.Empty(t, g.lanes.senders, "it starts again in the first lane")
		require.Zero(t, g.pending.Used())
		require.NoError(t, g.send(t, "flood", "later", 100))
		require.Positive(t, spools[0].Bytes())
		stop()
		require.NoError(t, <-ended)
	})
}

func TestRecordsOfAFleetStayInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := withLanes(1 << 30)
		ctx, stop := context.WithCancel(t.Context())
		ended, stored := make(chan error, 1), make(chan pipeline.Batch, 1000)
		var got []int
		go func() {
			ended <- g.Run(ctx, func(b pipeline.Batch) error {
				for _, item := range b.Items {
					got = append(got, int(item.Position))
				}
				stored <- b
				return nil
			})
		}()
		for i := range 300 {
			e := entry{Sender: "flood", Messages: []protocol.Message{{Index: i, Raw: strings.Repeat("x", 50_000)}}}
			text, err := e.encode()
			require.NoError(t, err)
			require.NoError(t, g.lanes.append(ctx, "flood", text))
			if i%3 == 0 { // others are stored later than they are sent
				synctest.Wait()
				(<-stored).Done(pipeline.Outcome{})
			}
		}
		for synctest.Wait(); len(stored) > 0; synctest.Wait() {
			(<-stored).Done(pipeline.Outcome{})
		}
		require.Len(t, got, 300)
		require.True(t, slices.IsSorted(got))
		stop()
		require.NoError(t, <-ended)
	})
}

func TestFleetThatFillsTheSpoolIsRejectedAlone(t *testing.T) {
	g, spools := withLanes(32 << 20)
	fill := func(sender string) (bytes int) {
		for {
			if err := g.send(t, sender, "x", 500_000); err != nil {
				require.ErrorIs(t, err, spool.ErrFull)
				return bytes
			}
			bytes += 500_000
		}
	}
	require.InDelta(t, 28<<20, fill("flood"), 600_000, "but for the part of the first lane")
	require.Greater(t, fill("second"), lightBytes)
	require.NoError(t, g.send(t, "north", "x", 1000))
	require.Positive(t, spools[0].Bytes())
	require.ErrorIs(t, g.send(t, "flood", "x", 500_000), spool.ErrFull)
}

// Entries from before a restart belong to no backlog.
func TestEntriesOfEarlierProcessesAreAcknowledged(t *testing.T) {
	g, spools := withLanes(1 << 30)
	spools[2].entries = [][]byte{[]byte("old")}
	g.lanes.ack("flood", 2, 1, 3)
	require.Empty(t, g.lanes.senders)
	require.NoError(t, g.send(t, "flood", "x", 100))
	g.lanes.ack("flood", 0, 1, 1<<20)
	require.Empty(t, g.lanes.senders)
}
