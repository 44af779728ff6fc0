package executor

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// latency keeps the durations of writes by table, exactly enough for percentiles: two digits, from 1 µs to 10 min.
type latency struct {
	mu     sync.Mutex
	tables map[string]*hdrhistogram.Histogram
}

func newLatency() *latency { return &latency{tables: map[string]*hdrhistogram.Histogram{}} }

func (l *latency) record(table string, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.tables[table]
	if h == nil {
		h = hdrhistogram.New(1, (10 * time.Minute).Microseconds(), 2)
		l.tables[table] = h
	}
	_ = h.RecordValue(min(took.Microseconds(), h.HighestTrackableValue()))
}

// Quantiles describe the writes of one table.
type Quantiles struct {
	Writes        int64
	P50, P95, P99 time.Duration
	Max           time.Duration
}

func (l *latency) quantiles() map[string]Quantiles {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[string]Quantiles, len(l.tables))
	for table, h := range l.tables {
		at := func(q float64) time.Duration { return time.Duration(h.ValueAtQuantile(q)) * time.Microsecond }
		out[table] = Quantiles{Writes: h.TotalCount(), P50: at(50), P95: at(95), P99: at(99), Max: time.Duration(h.Max()) * time.Microsecond}
	}
	return out
}
