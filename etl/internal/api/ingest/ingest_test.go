package ingest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memorySpool is a spool in memory.
type memorySpool struct {
	mu      sync.Mutex
	changed *sync.Cond
	entries [][]byte
	next    int
	done    map[uint64]bool
}

func newMemorySpool(entries ...[]byte) *memorySpool {
	m := &memorySpool{done: map[uint64]bool{}, entries: entries}
	m.changed = sync.NewCond(&m.mu)
	return m
}

func (m *memorySpool) Append(_ context.Context, entry []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.entries = append(m.entries, entry)
	m.changed.Broadcast()
	return nil
}

func (m *memorySpool) Next(ctx context.Context) ([]byte, uint64, error) {
	defer context.AfterFunc(ctx, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.changed.Broadcast()
	})()
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.next == len(m.entries) {
		if ctx.Err() != nil {
			return nil, 0, ctx.Err()
		}
		m.changed.Wait()
	}
	m.next++
	return m.entries[m.next-1], uint64(m.next), nil
}

func (m *memorySpool) Ack(number uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done[number] {
		panic("done twice")
	}
	m.done[number] = true
}

func (m *memorySpool) counts() (appended, done int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.entries), len(m.done)
}

func TestInvalidOptionsAreRejectedByName(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"no spool":      {func(o *Options) { o.Spool = nil }, "no spool"},
		"no check":      {func(o *Options) { o.Check = nil }, "no check"},
		"no records":    {func(o *Options) { o.Limits.MaxRecords = 0 }, "limit MaxRecords 0: give more than 0"},
		"little memory": {func(o *Options) { o.Limits.MaxBodies = 1 }, "limit MaxBodies 1: give at least MaxBody"},
		"no burst":      {func(o *Options) { o.Limits.TokenBurst = 0 }, "limit TokenBurst 0"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newIngest(newMemorySpool(), 1).Options
			o.Registerer = prometheus.NewRegistry()
			c.change(&o)
			_, err := New(o)
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestLimitersAreBounded(t *testing.T) {
	l, err := newLimiters(1, 1, 10)
	require.NoError(t, err)
	now := time.Now()
	for i := range 1000 {
		l.reserve(fmt.Sprint(i), 1, now)
		l.reserve("busy", 1, now)
	}
	l.byName.CleanUp()
	require.LessOrEqual(t, l.byName.EstimatedSize(), 10)
	require.Positive(t, l.wait("busy", now), "a name in use stays")
}
