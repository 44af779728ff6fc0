package load

import (
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
)

// window is a stretch of the stream that is planned and written together: the longer, the more rows a partition has in
// it and the fewer latest rows there are for the same records.
type window struct {
	batches []pipeline.Clean
	records int
	opened  time.Time // when its first batch came
}

func (w *window) add(c pipeline.Clean, now time.Time) {
	if len(w.batches) == 0 {
		w.opened = now
	}
	w.batches = append(w.batches, c)
	w.records += len(c.Items)
}

func (w *window) done() {
	for _, c := range w.batches {
		c.Done()
	}
}
