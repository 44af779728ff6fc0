package load

import (
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// window is a stretch of the stream that is planned and written together: the longer, the more rows a partition has in
// it and the fewer latest rows there are for the same records.
type window struct {
	number  int64 // from 1
	batches []pipeline.ValidBatch
	records int
	opened  time.Time // when its first batch came
}

func (w *window) add(c pipeline.ValidBatch, now time.Time) {
	if len(w.batches) == 0 {
		w.opened = now
	}
	w.batches = append(w.batches, c)
	w.records += max(1, len(c.Items)) // a batch of which nothing is left takes room too
}

// all is every record of the window.
func (w *window) all() iter.Seq[*telemetry.Record] {
	return func(yield func(*telemetry.Record) bool) {
		for _, c := range w.batches {
			for i := range c.Items {
				if !yield(&c.Items[i].Record) {
					return
				}
			}
		}
	}
}

func (w *window) done() {
	for _, c := range w.batches {
		c.Done()
	}
}

// underWay knows which windows are not durable yet.
type underWay struct {
	mu      sync.Mutex
	last    int64
	windows map[int64]bool
}

func (u *underWay) start() (number int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.last++
	u.windows[u.last] = true
	return u.last
}

func (u *underWay) end(number int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.windows, number)
}

// settled is the window up to which, inclusive, everything is durable.
func (u *underWay) settled() int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.windows) == 0 {
		return u.last
	}
	return slices.Min(slices.Collect(maps.Keys(u.windows))) - 1
}
