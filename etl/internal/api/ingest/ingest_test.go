package ingest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

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

func (m *memorySpool) Bytes() (bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, e := range m.entries {
		if !m.done[uint64(i)+1] {
			bytes += int64(len(e))
		}
	}
	return bytes
}

func (m *memorySpool) NoteFull() {}

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

func TestLimitersAreBounded(t *testing.T) {
	l := newLimiters(1, 1, 10)
	now := time.Now()
	for i := range 1000 {
		l.reserve(fmt.Sprint(i), 1, now)
		l.reserve("busy", 1, now)
	}
	l.byName.CleanUp()
	require.LessOrEqual(t, l.byName.EstimatedSize(), 10)
	require.Positive(t, l.wait("busy", now), "a name in use stays")
}
