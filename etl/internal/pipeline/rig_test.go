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
	"github.com/fleettracing/fleet-tracing/etl/internal/transform"
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

// emitting is a source that hands over the batches and ends.
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

// loader is a pipeline.Loader of one function.
type loader func(ctx context.Context, in <-chan pipeline.Clean) error

func (l loader) Run(ctx context.Context, in <-chan pipeline.Clean) error { return l(ctx, in) }

// each is a loader that gives every batch to do, until in ends or ctx does.
func each(do func(pipeline.Clean) error) loader {
	return func(ctx context.Context, in <-chan pipeline.Clean) error {
		for {
			select {
			case c, ok := <-in:
				if !ok {
					return nil
				}
				if err := do(c); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// storing is a loader for which every batch is durable at once.
func storing() loader { return each(func(c pipeline.Clean) error { c.Done(); return nil }) }

// idle is a loader that takes nothing.
func idle(ctx context.Context, _ <-chan pipeline.Clean) error {
	<-ctx.Done()
	return ctx.Err()
}

// letter is one call of Append.
type letter struct {
	source, origin string
	refused        []pipeline.Refused
}

// letters are dead letters in memory.
type letters struct {
	err    error
	append func() // told of each Append before it returns; nil: nobody

	mu  sync.Mutex
	all []letter
}

func (l *letters) Append(source, origin string, refused []pipeline.Refused) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	l.all = append(l.all, letter{source, origin, slices.Clone(refused)})
	if l.append != nil {
		l.append()
	}
	return nil
}

// journal notes what happened, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) note(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lines)
}

// rig is a pipeline with the parts that a test gives it.
type rig struct {
	*pipeline.Pipeline
	reg     *prometheus.Registry
	letters *letters
}

func newRig(l pipeline.Loader, queue int) *rig {
	reg := prometheus.NewPedanticRegistry()
	dead := &letters{}
	return &rig{
		Pipeline: &pipeline.Pipeline{
			Transform: transform.New(nil, 1000), Loader: l, DeadLetters: dead,
			Metrics: pipeline.NewMetrics(reg), Now: time.Now, Queue: queue,
		},
		reg: reg, letters: dead,
	}
}

// value gives a counter or gauge by its name with labels as in PromQL, for example up{source="a"}, the count of a
// histogram by its name with _count, and its sum with _sum.
func (r *rig) value(t *testing.T, metric string) float64 {
	t.Helper()
	values := r.values(t)
	v, ok := values[metric]
	require.True(t, ok, "no metric %s", metric)
	return v
}

func (r *rig) values(t *testing.T) map[string]float64 {
	t.Helper()
	families, err := r.reg.Gather()
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

// item is a good record of a device, so many seconds old.
func item(device string, secondsAgo int) pipeline.Item {
	return pipeline.Item{Record: telemetry.Record{
		DeviceID: device, FleetID: "wuxi", TimeMs: time.Now().UnixMilli() - int64(secondsAgo)*1000, Lat: 31.5, Lon: 120.25,
	}}
}

// batchOf is a batch of one good record, which it names as its origin.
func batchOf(device string, done func(pipeline.Outcome)) pipeline.Batch {
	return pipeline.Batch{Origin: device, Items: []pipeline.Item{item(device, 0)}, Done: done}
}

// never is a Done that must not be called.
func never(t *testing.T) func(pipeline.Outcome) {
	return func(o pipeline.Outcome) { t.Errorf("a batch that is not durable was reported as done: %+v", o) }
}
