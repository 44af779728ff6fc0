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

// Writes summarizes the writes to one table. Times are in seconds.
type Writes struct {
	Writes int64   `json:"writes"`
	Rows   int64   `json:"rows"`
	P50    float64 `json:"p50_seconds"`
	P95    float64 `json:"p95_seconds"`
	P99    float64 `json:"p99_seconds"`
	Max    float64 `json:"max_seconds"`
}

func (l *latency) writes() map[string]Writes {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[string]Writes, len(l.tables))
	for table, h := range l.tables {
		at := func(q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1e6 }
		out[table] = Writes{Writes: h.TotalCount(), P50: at(50), P95: at(95), P99: at(99), Max: at(100)}
	}
	return out
}
