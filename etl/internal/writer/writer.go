// Package writer stores valid records: it gathers them into batches, groups their rows by partition, and writes each
// group as one mutation.
package writer

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/ack"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Options are the settings of a Writer. All of them must be set.
type Options struct {
	BatchRows   int // largest number of rows of a partition in one mutation
	DevicesKept int // devices whose latest row is kept in memory; others are read again when they send
}

// mutationBytes is the size of one mutation: a larger one costs a node no less, and delays its other requests.
const mutationBytes = 16 << 10

// Store is what the writer reads and writes.
type Store interface {
	LatestWriteTimes(ctx context.Context, deviceIDs []string) ([]cassandra.WriteTimes, error)
	WriteFleet(ctx context.Context, fleetID string) error
	WriteDevices(ctx context.Context, fleetID string, rows []cassandra.DeviceRow) error
	WriteHistory(ctx context.Context, deviceID string, day cassandra.Day, rows []cassandra.TelemetryRow) error
	WriteLatest(ctx context.Context, row *cassandra.LatestRow) error
	WriteLatestByFleet(ctx context.Context, fleetID string, bucket int32, rows []cassandra.LatestRow) error
	DeleteLatestByFleet(ctx context.Context, fleetID, deviceID string, writeTimeUs int64) error
	ClearLatest(ctx context.Context, deviceID string, writeTimeUs int64) error
}

// Writer stores batches of records. Start is called by one goroutine.
type Writer struct {
	store   Store
	exec    *executor.Executor
	options Options
	now     func() time.Time
	devices *devices
	fleets  map[string]bool // those on the list of fleets, as far as this process knows

	late          prometheus.Counter
	planned, done prometheus.Observer // time of the steps of a batch

	mu       sync.Mutex
	inFlight ack.Tracker[struct{}]
}

// New makes a writer whose metrics are registered with reg.
func New(store Store, exec *executor.Executor, o Options, reg prometheus.Registerer, now func() time.Time) *Writer {
	register := promutil.With(reg)
	duration := register.HistogramVec("fleet_etl_batch_duration_seconds",
		"Time of one batch of records in the writer, by step: plan (group and compare) and store (from then until all of it is durable).",
		cassandra.RequestBuckets, "step")
	w := &Writer{
		store: store, exec: exec, options: o, now: now, fleets: map[string]bool{},
		late: register.Counter("fleet_etl_records_late_total",
			"Records older than the newest of their device. They are stored and do not change the latest position."),
		planned: duration.WithLabelValues("plan"), done: duration.WithLabelValues("store"),
	}
	w.devices = newDevices(o.DevicesKept, w.durable)
	return w
}

// durable returns the number of the batch up to which, inclusive, everything is durable.
func (w *Writer) durable() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.inFlight.Released()
}

func (w *Writer) begin() (number uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.inFlight.Add(struct{}{})
}

func (w *Writer) finish(number uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inFlight.Ack(number, func(struct{}) {})
}

// Start plans a batch and starts its writes, as far as the limit of the executor allows. It returns when the last one is
// started, with a function that waits until all of them are durable.
func (w *Writer) Start(ctx context.Context, b *Batch) (wait func() error, err error) {
	started := w.now()
	number := w.begin()
	loaded, err := w.load(ctx, b, number)
	if err != nil {
		return nil, err
	}
	p := newPlan(b.records)
	for item := range b.items() {
		if p.add(loaded[0], item) {
			w.late.Inc()
		}
		loaded = loaded[1:]
	}
	w.planned.Observe(w.now().Sub(started).Seconds())

	// A move must be stored before the device's newest position: after a crash only that position is read, and the old
	// fleet would be forgotten.
	if err := w.writeRegistry(ctx, p); err != nil {
		return nil, err
	}
	g, ctx := errgroup.WithContext(ctx)
	err = w.startHistory(ctx, g, p)
	if err == nil {
		err = w.startLatest(ctx, g, p)
	}
	return func() error {
		if failed := g.Wait(); failed != nil {
			return failed
		}
		w.finish(number)
		w.done.Observe(w.now().Sub(started).Seconds())
		return err
	}, nil
}

// load returns the device of each record of the batch. It reads the latest rows of devices that are not in memory.
func (w *Writer) load(ctx context.Context, b *Batch, number uint64) ([]*device, error) {
	all := make([]*device, 0, b.records)
	var unknown []*device
	var ids []string
	for item := range b.items() {
		d := w.devices.get(item.DeviceID, number)
		if d == nil {
			d = w.devices.put(item.DeviceID, number)
			unknown, ids = append(unknown, d), append(ids, d.id)
		}
		all = append(all, d)
	}
	if len(unknown) == 0 {
		return all, nil
	}
	err := w.exec.Do(ctx, cassandra.TableLatest, func(ctx context.Context) error {
		stored, err := w.store.LatestWriteTimes(ctx, ids)
		for i := range stored {
			unknown[i].restore(stored[i])
		}
		return err
	})
	return all, err
}

// writeRegistry writes which fleets devices belong to, and removes what moved devices sent for their former fleets from maps
// and latest rows.
func (w *Writer) writeRegistry(ctx context.Context, p *plan) error {
	byFleet := map[string][]cassandra.DeviceRow{}
	for key, row := range p.devices {
		byFleet[key.fleet] = append(byFleet[key.fleet], row.DeviceRow)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(registryWrites)
	write := func(table string, rows int, do func(context.Context) error) {
		g.Go(func() error { return w.exec.Write(ctx, table, rows, do) })
	}
	for fleet, rows := range byFleet {
		if !w.fleets[fleet] {
			w.fleets[fleet] = true
			write(cassandra.TableFleets, 1, func(ctx context.Context) error { return w.store.WriteFleet(ctx, fleet) })
		}
		for part := range slices.Chunk(rows, w.options.BatchRows) {
			write(cassandra.TableDevices, len(part), func(ctx context.Context) error { return w.store.WriteDevices(ctx, fleet, part) })
		}
	}
	for key, version := range p.moves {
		write(cassandra.TableLatestByFleet, 1, func(ctx context.Context) error {
			return w.store.DeleteLatestByFleet(ctx, key.fleet, key.device, version)
		})
	}
	for id, version := range p.cleared {
		write(cassandra.TableLatest, 1, func(ctx context.Context) error { return w.store.ClearLatest(ctx, id, version) })
	}
	return g.Wait()
}

// registryWrites is the number of registry writes of one batch that run in parallel.
const registryWrites = 16

func (w *Writer) startHistory(ctx context.Context, g *errgroup.Group, p *plan) error {
	for key, items := range p.history {
		for len(items) > 0 {
			part := items[:w.fitting(items)]
			items = items[len(part):]
			conflicts := 0
			for _, item := range part {
				if item.Conflict {
					conflicts++
				}
			}
			err := w.exec.Start(ctx, g, cassandra.TableHistory, len(part)-conflicts, func(ctx context.Context) error {
				rows, nowMs := make([]cassandra.TelemetryRow, len(part)), w.now().UnixMilli()
				for i, item := range part {
					rows[i] = historyRow(item, nowMs)
				}
				return w.store.WriteHistory(ctx, key.device.id, key.day, rows)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// rowBytes is the approximate size of a history row on the wire, without its names.
const rowBytes = 152

// fitting returns how many of the items, at least one, fill one mutation.
func (w *Writer) fitting(items []*pipeline.Item) int {
	bytes := 0
	for i, item := range items {
		bytes += rowBytes + len(item.DeviceID) + len(item.FleetID) + len(item.Zone)
		if i > 0 && (bytes > mutationBytes || i >= w.options.BatchRows) {
			return i
		}
	}
	return len(items)
}

func (w *Writer) startLatest(ctx context.Context, g *errgroup.Group, p *plan) error {
	type mapKey struct {
		fleet  string
		bucket int32
	}
	onMap := map[mapKey][]cassandra.LatestRow{}
	for _, l := range p.latest {
		var err error
		l.rows(func(fleet string, row cassandra.LatestRow) {
			if fleet != "" {
				key := mapKey{fleet, cassandra.Bucket(row.DeviceID)}
				onMap[key] = append(onMap[key], row)
			}
			if err == nil {
				err = w.exec.Start(ctx, g, cassandra.TableLatest, 1, func(ctx context.Context) error { return w.store.WriteLatest(ctx, &row) })
			}
		})
		if err != nil {
			return err
		}
	}
	for key, rows := range onMap {
		for part := range slices.Chunk(rows, w.options.BatchRows) {
			err := w.exec.Start(ctx, g, cassandra.TableLatestByFleet, len(part), func(ctx context.Context) error {
				return w.store.WriteLatestByFleet(ctx, key.fleet, key.bucket, part)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// ttlSeconds is the rest of a record's retention.
func ttlSeconds(eventMs, nowMs int64) int32 {
	left := (telemetry.Retention.Milliseconds() - (nowMs - eventMs)) / 1000
	return int32(min(max(left, 1), telemetry.Retention.Milliseconds()/1000))
}
