package pipeline_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
	"github.com/fleettracing/fleet-tracing/etl/internal/validate"
)

// source is a pipeline.Source of one function.
type source struct {
	name string
	run  func(ctx context.Context, emit func(pipeline.Batch) error) error
}

func (s source) Name() string { return s.name }

func (s source) Run(ctx context.Context, emit func(pipeline.Batch) error) error {
	return s.run(ctx, emit)
}

// emitting is a source that emits the batches and ends.
func emitting(name string, batches ...pipeline.Batch) source {
	return source{name, func(_ context.Context, emit func(pipeline.Batch) error) error {
		for _, b := range batches {
			if err := emit(b); err != nil {
				return err
			}
		}
		return nil
	}}
}

// writer is a pipeline.Writer of one function.
type writer func(ctx context.Context, in <-chan pipeline.ValidBatch) error

func (w writer) Run(ctx context.Context, in <-chan pipeline.ValidBatch) error { return w(ctx, in) }

// each is a writer that calls do for each batch, until in or ctx ends.
func each(do func(pipeline.ValidBatch) error) writer {
	return func(ctx context.Context, in <-chan pipeline.ValidBatch) error {
		for {
			select {
			case b, ok := <-in:
				if !ok {
					return nil
				}
				if err := do(b); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// storing is a writer that makes every batch durable at once.
func storing() writer { return each(func(b pipeline.ValidBatch) error { b.Done(); return nil }) }

// idle is a writer that accepts nothing.
func idle(ctx context.Context, _ <-chan pipeline.ValidBatch) error {
	<-ctx.Done()
	return ctx.Err()
}

// appended is one call of Append.
type appended struct {
	source, origin string
	rejected       []pipeline.Rejected
}

// deadLetters keeps dead letters in memory.
type deadLetters struct {
	err      error
	onAppend func() // called by each Append before it returns; may be nil

	mu  sync.Mutex
	all []appended
}

func (d *deadLetters) Append(_ context.Context, source, origin string, rejected []pipeline.Rejected) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return d.err
	}
	d.all = append(d.all, appended{source, origin, slices.Clone(rejected)})
	if d.onAppend != nil {
		d.onAppend()
	}
	return nil
}

// events records what happened, in order.
type events struct {
	mu    sync.Mutex
	lines []string
}

func (e *events) add(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lines = append(e.lines, fmt.Sprintf(format, args...))
}

func (e *events) all() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.lines)
}

// harness is a pipeline with the writer of a test, its metrics and its dead letters.
type harness struct {
	*pipeline.Pipeline
	reg         *prometheus.Registry
	deadLetters *deadLetters
}

func newHarness(w pipeline.Writer, queue int) *harness {
	reg := prometheus.NewPedanticRegistry()
	dead := &deadLetters{}
	return &harness{
		Pipeline: pipeline.New(pipeline.Options{
			Validator: validate.New(nil, 1000, nil), Writer: w, DeadLetters: dead, Registerer: reg, Now: time.Now, Queue: queue,
		}),
		reg: reg, deadLetters: dead,
	}
}

// value returns a counter or gauge by its name with labels as in PromQL, for example up{source="a"}, the count of a
// histogram by its name with _count, and its sum with _sum.
func (h *harness) value(t *testing.T, metric string) float64 {
	t.Helper()
	values := h.values(t)
	v, ok := values[metric]
	require.True(t, ok, "no metric %s", metric)
	return v
}

func (h *harness) values(t *testing.T) map[string]float64 {
	t.Helper()
	families, err := h.reg.Gather()
	require.NoError(t, err)
	values := map[string]float64{}
	for _, family := range families {
		for _, m := range family.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			suffix := ""
			if len(labels) > 0 {
				suffix = "{" + strings.Join(labels, ",") + "}"
			}
			switch {
			case m.Counter != nil:
				values[family.GetName()+suffix] = m.Counter.GetValue()
			case m.Gauge != nil:
				values[family.GetName()+suffix] = m.Gauge.GetValue()
			case m.Histogram != nil:
				values[family.GetName()+"_count"+suffix] = float64(m.Histogram.GetSampleCount())
				values[family.GetName()+"_sum"+suffix] = m.Histogram.GetSampleSum()
			}
		}
	}
	return values
}

// item is a valid record of a device.
func item(device string, secondsAgo int) pipeline.Item {
	return pipeline.Item{Record: telemetry.Record{
		DeviceID: device, FleetID: "wuxi", TimeMs: time.Now().UnixMilli() - int64(secondsAgo)*1000, Lat: 31.5, Lon: 120.25,
	}}
}

// batchOf is a batch of one valid record. Its origin is the device.
func batchOf(device string, done func(pipeline.Outcome)) pipeline.Batch {
	return pipeline.Batch{Origin: device, Items: []pipeline.Item{item(device, 0)}, Done: done}
}

// never is a Done that must not be called.
func never(t *testing.T) func(pipeline.Outcome) {
	return func(o pipeline.Outcome) { t.Errorf("Done was called for a batch that is not durable: %+v", o) }
}
