// Package load stores clean records through package cassandra: it gathers them into windows, groups their rows by
// partition, writes them with bounded and adapting concurrency, repeats what failed, and reports a batch as done once
// every row that came of it is durable.
package load

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Mode is how rows are sent.
type Mode string

// The two ways of writing.
const (
	Batch Mode = "batch" // rows of one partition together, as one mutation
	Async Mode = "async" // each row as a statement of its own
)

// Options are the settings of a Writer. All of them must be set.
type Options struct {
	Mode          Mode
	WindowRecords int           // records that are planned together at the most
	Linger        time.Duration // how long a window waits for more records
	BatchRows     int           // rows of one mutation at the most
	MaxInFlight   int           // requests under way at the most; the limit adapts below it
	RetryRate     float64       // retries a second, over all writes
	DevicesKept   int           // devices whose state is kept in memory; others are read again when they come back
}

// The bounds that are no settings: they follow from Cassandra's own.
const (
	batchBytes    = 16 << 10 // of one mutation: beyond that a node gains nothing and its other requests wait longer
	windowsAtOnce = 2        // one is written while the next is planned
	minInFlight   = 4
	startInFlight = 16
	slowAnswer    = 250 * time.Millisecond
)

// Follower is told of the records that are stored: of a window's before they are written, and again when all of them
// are durable. Windows are numbered from 1 without a gap, and may become durable in another order.
type Follower interface {
	Before(ctx context.Context, records iter.Seq[*telemetry.Record]) error
	Stored(window int64, records []*telemetry.Record)
}

// Writer stores records. It implements pipeline.Writer.
type Writer struct {
	open    func(context.Context) (*cassandra.Store, error)
	store   *cassandra.Store // from Run on
	options Options
	logger  logrus.FieldLogger
	now     func() time.Time
	metrics *metrics
	windows underWay
	devices *devices
	limit   *limiter
	retry   *retrier
	fleets  map[string]bool // those on the list of fleets, as far as this process knows
	latency *Latency

	follower Follower // nil: nobody is told
}

// Follow has the follower told of what is stored. It is called before Run.
func (w *Writer) Follow(f Follower) { w.follower = f }

// NewWriter makes a writer whose metrics are registered with reg. open gives it the store when Run begins; until it
// returns, records wait. The store stays its owner's to close.
func NewWriter(open func(context.Context) (*cassandra.Store, error), o Options, logger logrus.FieldLogger, reg prometheus.Registerer, now func() time.Time) *Writer {
	w := &Writer{
		open: open, options: o, logger: logger, now: now,
		windows: underWay{windows: map[int64]bool{}},
		limit:   newLimiter(min(startInFlight, o.MaxInFlight), min(minInFlight, o.MaxInFlight), o.MaxInFlight, slowAnswer, now),
		fleets:  map[string]bool{},
		latency: newLatency(),
	}
	w.devices = newDevices(o.DevicesKept, w.windows.settled)
	w.metrics = newMetrics(reg, w.limit)
	w.retry = &retrier{
		budget: rate.NewLimiter(rate.Limit(o.RetryRate), int(o.RetryRate)+1),
		first:  20 * time.Millisecond,
		most:   2 * time.Second,
		store: &availability{
			pause: time.Second, remind: 30 * time.Second, now: now, logger: logger,
			set: w.metrics.setStoreUp,
		},
	}
	return w
}

// Latency gives the times that writes took so far, by table.
func (w *Writer) Latency() *Latency { return w.latency }

// Retries is the number of writes that were tried again so far.
func (w *Writer) Retries() int64 {
	w.metrics.mu.Lock()
	defer w.metrics.mu.Unlock()
	return w.metrics.counts.retries
}

// Rows is the number of rows written so far, by table.
func (w *Writer) Rows() map[string]int64 {
	w.metrics.mu.Lock()
	defer w.metrics.mu.Unlock()
	return maps.Clone(w.metrics.counts.rows)
}

// Errors is the number of writes that failed so far, by reason, those that succeeded later among them.
func (w *Writer) Errors() map[string]int64 {
	w.metrics.mu.Lock()
	defer w.metrics.mu.Unlock()
	errs := map[string]int64{}
	for reason, n := range w.metrics.counts.errors {
		errs[string(reason)] = n
	}
	return errs
}

// Run implements pipeline.Writer.
//
//	in ─► gather ─► windows ─► plan ─► registry and moves ─► history, latest (bounded, side by side) ─► Done
func (w *Writer) Run(ctx context.Context, in <-chan pipeline.ValidBatch) error {
	w.metrics.setStoreUp(false)
	var err error
	if w.store, err = w.open(ctx); err != nil {
		return err
	}
	w.metrics.setStoreUp(true)
	g, ctx := errgroup.WithContext(ctx)
	windows := make(chan *window)
	g.Go(func() error {
		defer close(windows)
		return w.gather(ctx, in, windows)
	})
	g.Go(func() error { return w.writeAll(ctx, windows) })
	return g.Wait()
}

// gather fills windows. A window that has waited long enough goes as soon as somebody takes it, and grows until then:
// when the store is the slow one, windows become larger and their writes fewer.
func (w *Writer) gather(ctx context.Context, in <-chan pipeline.ValidBatch, windows chan<- *window) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	current := &window{}
	for {
		var ready chan<- *window // nil, so never chosen, until the window may go
		var more <-chan pipeline.ValidBatch
		var due <-chan time.Time
		if current.records < w.options.WindowRecords {
			more = in
		}
		if len(current.batches) > 0 {
			if age := w.now().Sub(current.opened); more == nil || age >= w.options.Linger {
				ready = windows
			} else {
				timer.Reset(w.options.Linger - age)
				due = timer.C
			}
		}
		select {
		case c, ok := <-more:
			if ok {
				current.add(c, w.now())
				continue
			}
			if len(current.batches) == 0 {
				return nil
			}
			select {
			case windows <- current:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		case ready <- current:
			current = &window{}
		case <-due:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// writeAll plans and writes windows, a few at once, and waits for them all.
func (w *Writer) writeAll(ctx context.Context, windows <-chan *window) error {
	g, ctx := errgroup.WithContext(ctx)
	slots := semaphore.NewWeighted(windowsAtOnce)
	g.Go(func() error {
		for win := range windows {
			if err := slots.Acquire(ctx, 1); err != nil {
				return err
			}
			if err := w.write(ctx, g, win, func() { slots.Release(1) }); err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}

// write plans one window and starts its writes in g. release is called when the window is durable.
func (w *Writer) write(ctx context.Context, g *errgroup.Group, win *window, release func()) error {
	started := w.now()
	win.number = w.windows.start()
	met, err := w.meet(ctx, win)
	if err != nil {
		return err
	}
	if w.follower != nil {
		if err := w.follower.Before(ctx, win.all()); err != nil {
			return err
		}
	}
	p := newPlan(win.records)
	n := 0
	for _, c := range win.batches {
		for i := range c.Items {
			if p.add(met[n], &c.Items[i]) {
				w.metrics.late.Inc()
			}
			n++
		}
	}
	w.metrics.plan.Observe(w.now().Sub(started).Seconds())

	// Who moved must be known before its newest fix stands, because after a crash that fix is all that is read: nobody
	// would remember the old fleet.
	if err := w.writeRegistry(ctx, p); err != nil {
		return err
	}
	var pending atomic.Int64
	pending.Store(1) // held until everything is started
	finish := func() {
		if pending.Add(-1) == 0 {
			w.windows.end(win.number)
			win.done()
			if w.follower != nil {
				w.follower.Stored(win.number, slices.AppendSeq(make([]*telemetry.Record, 0, win.records), win.all()))
			}
			w.metrics.store.Observe(w.now().Sub(started).Seconds())
			release()
		}
	}
	start := func(table string, rows int, write func(context.Context) error) error {
		if err := w.limit.acquire(ctx); err != nil {
			return err
		}
		pending.Add(1)
		g.Go(func() error {
			defer w.limit.release()
			if err := w.one(ctx, table, rows, write); err != nil {
				return err
			}
			finish()
			return nil
		})
		return nil
	}
	if err := w.startHistory(p, start); err != nil {
		return err
	}
	if err := w.startLatest(p, start); err != nil {
		return err
	}
	finish()
	return nil
}

// meet gives the device of each of the window's records, and reads what is stored of those that are not in memory.
func (w *Writer) meet(ctx context.Context, win *window) ([]*device, error) {
	met := make([]*device, 0, win.records)
	var strangers []*device
	var ids []string
	for _, c := range win.batches {
		for i := range c.Items {
			id := c.Items[i].DeviceID
			d := w.devices.touch(id, win.number)
			if d == nil {
				d = w.devices.put(id, win.number)
				strangers, ids = append(strangers, d), append(ids, d.id)
			}
			met = append(met, d)
		}
	}
	if len(strangers) == 0 {
		return met, nil
	}
	err := w.repeat(ctx, cassandra.TableLatest, func(ctx context.Context) error {
		stored, err := w.store.LatestWriteTimes(ctx, ids)
		for i := range stored {
			strangers[i].recall(stored[i])
		}
		return err
	})
	return met, err
}

// writeRegistry writes who belongs where and takes moved devices off their old maps, and waits for it.
func (w *Writer) writeRegistry(ctx context.Context, p *plan) error {
	byFleet := map[string][]cassandra.DeviceRow{}
	for key, row := range p.devices {
		byFleet[key.fleet] = append(byFleet[key.fleet], row.DeviceRow)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(startInFlight)
	write := func(table string, rows int, do func(context.Context) error) {
		g.Go(func() error { return w.one(ctx, table, rows, do) })
	}
	for fleet, rows := range byFleet {
		if !w.fleets[fleet] {
			w.fleets[fleet] = true
			write(cassandra.TableFleets, 1, func(ctx context.Context) error { return w.store.WriteFleet(ctx, fleet) })
		}
		for len(rows) > 0 {
			part := rows[:min(len(rows), w.rowsAtOnce())]
			rows = rows[len(part):]
			write(cassandra.TableDevices, len(part), func(ctx context.Context) error { return w.store.WriteDevices(ctx, fleet, part) })
		}
	}
	for _, m := range p.moves {
		write(cassandra.TableLatestByFleet, 1, func(ctx context.Context) error {
			return w.store.DeleteLatestByFleet(ctx, m.fleet, m.device, m.version)
		})
	}
	return g.Wait()
}

// starter starts one write of some rows of a table, when there is a place for it.
type starter func(table string, rows int, write func(context.Context) error) error

func (w *Writer) startHistory(p *plan, start starter) error {
	for i := range p.groups {
		key, items := p.groups[i].groupKey, p.groups[i].items
		for len(items) > 0 {
			part := items[:w.fitting(items)]
			items = items[len(part):]
			again := 0
			for _, item := range part {
				if item.Conflict {
					again++
				}
			}
			err := start(cassandra.TableHistory, len(part)-again, func(ctx context.Context) error {
				return w.store.WriteHistory(ctx, key.device.id, key.day, historyRows(part, w.now().UnixMilli()))
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// rowBytes is about what a row of history takes on the wire besides its names.
const rowBytes = 152

// fitting is how many of the items, at least one, make a mutation of the right size.
func (w *Writer) fitting(items []*pipeline.Item) int {
	bytes := 0
	for i, item := range items {
		bytes += rowBytes + len(item.DeviceID) + len(item.FleetID) + len(item.Zone)
		if i > 0 && (bytes > batchBytes || i >= w.rowsAtOnce()) {
			return i
		}
	}
	return len(items)
}

func (w *Writer) rowsAtOnce() int {
	if w.options.Mode == Async {
		return 1
	}
	return w.options.BatchRows
}

func (w *Writer) startLatest(p *plan, start starter) error {
	type mapKey struct {
		fleet  string
		bucket int32
	}
	onMap := map[mapKey][]cassandra.LatestRow{}
	for i := range p.latest {
		var err error
		p.latest[i].rows(func(fleet string, row cassandra.LatestRow) {
			if fleet != "" {
				key := mapKey{fleet, cassandra.Bucket(row.DeviceID)}
				onMap[key] = append(onMap[key], row)
			}
			if err == nil {
				err = start(cassandra.TableLatest, 1, func(ctx context.Context) error { return w.store.WriteLatest(ctx, &row) })
			}
		})
		if err != nil {
			return err
		}
	}
	for key, rows := range onMap {
		for len(rows) > 0 {
			part := rows[:min(len(rows), w.rowsAtOnce())]
			rows = rows[len(part):]
			err := start(cassandra.TableLatestByFleet, len(part), func(ctx context.Context) error {
				return w.store.WriteLatestByFleet(ctx, key.fleet, key.bucket, part)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// Write does one write of some rows of a table besides those of records, with its place among the writes under way,
// however many tries it takes.
func (w *Writer) Write(ctx context.Context, table string, rows int, write func(context.Context) error) error {
	if err := w.limit.acquire(ctx); err != nil {
		return err
	}
	defer w.limit.release()
	return w.one(ctx, table, rows, write)
}

// Repeat does a read of a table, however many tries it takes.
func (w *Writer) Repeat(ctx context.Context, table string, read func(context.Context) error) error {
	return w.repeat(ctx, table, read)
}

// one does one write of some rows of a table, however many tries it takes.
func (w *Writer) one(ctx context.Context, table string, rows int, write func(context.Context) error) error {
	started := w.now()
	if err := w.repeat(ctx, table, write); err != nil {
		return err
	}
	took := w.now().Sub(started)
	w.metrics.wrote(table, rows, took)
	w.latency.record(table, took)
	return nil
}

func (w *Writer) repeat(ctx context.Context, table string, do func(context.Context) error) error {
	timed := func(ctx context.Context) error {
		started := w.now()
		err := do(ctx)
		w.limit.observe(w.now().Sub(started), err != nil && ctx.Err() == nil)
		return err
	}
	err := w.retry.do(ctx, timed, func(reason cassandra.Reason) { w.metrics.failed(table, reason) })
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("store records: %w", err)
	}
	return err
}

func historyRows(items []*pipeline.Item, nowMs int64) []cassandra.TelemetryRow {
	rows := make([]cassandra.TelemetryRow, len(items))
	for i, item := range items {
		rows[i] = historyRow(item, nowMs)
	}
	return rows
}

// ttlSeconds is what is left of a record's time in the store.
func ttlSeconds(eventMs, nowMs int64) int32 {
	left := (telemetry.Retention.Milliseconds() - (nowMs - eventMs)) / 1000
	return int32(min(max(left, 1), telemetry.Retention.Milliseconds()/1000))
}
