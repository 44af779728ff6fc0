// Package spool is a bounded first-in first-out log on disk. An entry survives a crash once Append has returned, so a
// source without a memory of its own, such as a device that sends over HTTP, can be answered before its records are in
// the store.
//
//	Append ─► group ─► write, fsync ─► segments ─► Next ─► … ─► Ack ─► cursor ─► finished segments are removed
//
// Next returns entries in the order in which they were written, each once per process. After a restart it returns the
// unacknowledged ones again. Entries are in segments: files named after the number of their first entry. The cursor, a
// file of its own, is the number before which every entry is acknowledged.
package spool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/etl/internal/ack"
	"github.com/fleettracing/fleet-tracing/etl/internal/disk"
	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
)

// ErrFull says that an entry does not fit now: the spool holds Options.MaxBytes, or the disk is full.
var ErrFull = errors.New("spool is full")

// ErrTooLarge says that an entry never fits.
var ErrTooLarge = errors.New("entry is too large for the spool")

// ErrClosed is the error of a closed spool.
var ErrClosed = errors.New("spool is closed")

// MaxEntry is the maximum length of an entry in bytes.
const MaxEntry = 16 << 20

// defaultSegmentBytes is small enough that disk space is freed soon, and large enough that new files are rare.
const defaultSegmentBytes = 16 << 20

// groupBytes is the maximum size of one write, unless a single entry is larger. Entries beyond it wait.
const groupBytes = 4 << 20

// saveInterval is how long an acknowledgment may not be on disk. After a crash, Next returns its entry again.
const saveInterval = 200 * time.Millisecond

// Options bound a spool.
type Options struct {
	// MaxBytes is the capacity, more than 0, including 28 bytes per entry. An entry counts until it and every entry before it are
	// acknowledged. The files may take one segment and the longest entry more.
	MaxBytes int64
	// SegmentBytes is the size at which a new segment begins; 0 is 16 MiB. Disk space is freed by whole segments.
	SegmentBytes int64
}

// Spool is an open spool. It is safe for concurrent use.
type Spool struct {
	dir     string
	o       Options
	logger  logrus.FieldLogger
	now     func() time.Time
	create  func(path string) (segmentFile, error)
	lock    *os.File
	metrics *metrics

	appends chan appending
	closing chan struct{}
	running sync.WaitGroup

	reading sync.Mutex // one Next at a time
	ahead   readAhead  // from readPos on

	// Used by the write loop only.
	out segmentFile // of active

	mu       sync.Mutex
	closed   bool
	reserved int64         // bytes of the entries that are not written yet
	appended chan struct{} // closed when there is more to read

	segments []*segment            // those with unacknowledged entries, and the active one
	active   *segment              // the one that is written to; nil until there is something to write
	next     uint64                // number of the next entry that is written
	readPos  position              // of the next entry that is read
	unacked  ack.Tracker[position] // the ends of the entries that Next returned

	cursor       uint64 // number of the first unacknowledged entry
	cursorOffset int64  // its offset in the first segment
	used         int64  // bytes from the cursor on
	entries      int64  // entries from the cursor on

	finished   []*segment // acknowledged, to be removed
	saved      marks      // what the cursor file has
	saveFailed bool       // the last attempt to save it failed
}

// position is the boundary between two entries.
type position struct {
	segment *segment // nil when nothing was read yet
	offset  int64
	number  uint64 // of the entry that follows
}

// Open opens the spool in a directory, which is created when it is missing, and recovers it after a crash. It truncates a
// torn tail. Corruption anywhere else costs the entries that it hit and no others. Both are logged and counted. An error
// names the directory or file.
func Open(dir string, o Options, logger logrus.FieldLogger, reg prometheus.Registerer, now func() time.Time) (*Spool, error) {
	return open(dir, o, logger, reg, now, createFile)
}

func open(dir string, o Options, logger logrus.FieldLogger, reg prometheus.Registerer, now func() time.Time, create func(string) (segmentFile, error)) (*Spool, error) {
	s, err := recovered(dir, o, logger, newMetrics(reg), now, create)
	if err != nil {
		return nil, err
	}
	registerGauges(reg, o, s)
	return s, nil
}

// OpenLanes opens as many spools, the first one in the directory itself and the others in directories in it. They share
// their metrics. The caller bounds them together: each has a capacity of Options.MaxBytes.
func OpenLanes(dir string, lanes int, o Options, logger logrus.FieldLogger, reg prometheus.Registerer, now func() time.Time) ([]*Spool, error) {
	m := newMetrics(reg)
	var all []*Spool
	for i := range lanes {
		of := dir
		if i > 0 {
			of = filepath.Join(dir, fmt.Sprint("lane-", i))
		}
		s, err := recovered(of, o, logger, m, now, createFile)
		if err != nil {
			for _, s := range all {
				err = errors.Join(err, s.Close())
			}
			return nil, err
		}
		all = append(all, s)
	}
	registerGauges(reg, o, all...)
	return all, nil
}

// recovered opens a spool without metrics of its own.
func recovered(dir string, o Options, logger logrus.FieldLogger, m *metrics, now func() time.Time, create func(string) (segmentFile, error)) (*Spool, error) {
	o.SegmentBytes = cmp.Or(o.SegmentBytes, defaultSegmentBytes)
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	lock, err := disk.Lock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	s := &Spool{
		dir: dir, o: o, logger: logger.WithField("spool", dir), now: now, create: create, lock: lock,
		appends: make(chan appending), closing: make(chan struct{}), appended: make(chan struct{}), metrics: m,
	}
	if err := s.recover(); err != nil {
		lock.Close()
		return nil, fmt.Errorf("open spool: %w", err)
	}
	s.running.Go(s.writeLoop)
	s.running.Go(s.saveLoop)
	return s, nil
}

// Append adds an entry, which belongs to the spool from now on, at the end and returns when it is on disk. Concurrent
// appends share one fsync. When it does not fit, the error is ErrFull or ErrTooLarge, and Next will not return the
// entry. When ctx ends first, Next may return it.
func (s *Spool) Append(ctx context.Context, entry []byte) error {
	err := s.append(ctx, entry)
	if errors.Is(err, ErrFull) {
		s.metrics.full.Inc()
	}
	if err != nil {
		return fmt.Errorf("append to spool %s: %w", s.dir, err)
	}
	return nil
}

// NoteFull counts an entry that the caller rejected, because the capacity of several spools is used.
func (s *Spool) NoteFull() { s.metrics.full.Inc() }

func (s *Spool) append(ctx context.Context, entry []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	size := int64(headerBytes + len(entry))
	if len(entry) > MaxEntry || size > s.o.MaxBytes {
		return fmt.Errorf("%w: %d bytes: give at most %d", ErrTooLarge, len(entry), min(MaxEntry, s.o.MaxBytes-headerBytes))
	}
	if err := s.reserve(size); err != nil {
		return err
	}
	a := appending{entry, make(chan error, 1)}
	select {
	case s.appends <- a:
	case <-ctx.Done():
		s.release(size)
		return ctx.Err()
	case <-s.closing:
		s.release(size)
		return ErrClosed
	}
	select {
	case err := <-a.written:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reserve takes space for an entry that is not written yet.
func (s *Spool) reserve(bytes int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if used := s.used + s.reserved; used+bytes > s.o.MaxBytes {
		return fmt.Errorf("%w: it holds %d bytes of %d", ErrFull, used, s.o.MaxBytes)
	}
	s.reserved += bytes
	return nil
}

// release returns the space of entries that were not written.
func (s *Spool) release(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved -= bytes
}

// Next waits for the next entry and returns it with its number. The entry belongs to the caller. Any error but ErrClosed
// and that of ctx is a disk error; the next call tries again.
func (s *Spool) Next(ctx context.Context) (entry []byte, number uint64, err error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	for {
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		at, more, err := s.readable()
		if err != nil {
			return nil, 0, err
		}
		if more == nil {
			e, ok, err := s.read(at)
			if err != nil {
				s.metrics.failed("read")
				return nil, 0, fmt.Errorf("read spool: %w", err)
			}
			if ok {
				return e.payload, e.number, nil
			}
			continue
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		case <-s.closing:
			return nil, 0, ErrClosed
		}
	}
}

// Ack acknowledges an entry that Next returned: its records are durable. Entries are acknowledged in any order.
func (s *Spool) Ack(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	item, ok := s.unacked.Find(func(end position) int { return cmp.Compare(end.number, number+1) })
	if !ok {
		return
	}
	released := position{}
	s.unacked.Ack(item, func(end position) { released = end })
	s.moveCursor(released)
}

// moveCursor moves the cursor to a position before which every entry is acknowledged, or nowhere without a segment. When
// every entry that was read is acknowledged, it moves the cursor to the reader, which may have skipped a corrupt range or
// left a segment.
func (s *Spool) moveCursor(to position) {
	if s.unacked.Len() == 0 {
		to = s.readPos
	}
	if to.segment == nil {
		return // the usual case of an acknowledgment out of order
	}
	i := slices.Index(s.segments, to.segment)
	if i < 0 {
		return // the segment is finished already
	}
	for range i {
		s.setCursor(s.segments[0].size, s.segments[0].end)
		s.finishSegment()
	}
	s.setCursor(to.offset, to.number)
	if to.segment != s.active && to.offset == to.segment.size {
		s.finishSegment()
	}
}

// setCursor sets the cursor within the first segment.
func (s *Spool) setCursor(offset int64, number uint64) {
	s.used -= offset - s.cursorOffset
	s.entries -= int64(number - max(s.cursor, s.segments[0].first))
	s.cursor, s.cursorOffset = number, offset
}

// finishSegment drops the first segment, whose entries are all acknowledged.
func (s *Spool) finishSegment() {
	s.finished = append(s.finished, s.segments[0])
	s.segments[0] = nil // the array outlives the slice
	s.segments = s.segments[1:]
	s.cursorOffset = 0
}

// Bytes returns how much of Options.MaxBytes is used: by the first unacknowledged entry and all that follow it.
func (s *Spool) Bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}

// Close writes what is being appended, saves the cursor and unlocks the directory. Append and Next return ErrClosed then.
func (s *Spool) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.closing)
	s.mu.Unlock()
	s.running.Wait()
	s.seal()
	err := errors.Join(s.removeEmpty(), s.saveCursor(), s.removeFinished())
	s.lock.Close()
	if err != nil {
		return fmt.Errorf("close spool %s: %w", s.dir, err)
	}
	return nil
}

func (s *Spool) path(name string) string { return filepath.Join(s.dir, name) }

// syncBuckets are the classic buckets of fsync durations, in seconds.
var syncBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}

// operations are the disk operations that may fail.
var operations = []string{"create", "write", "sync", "read", "cursor", "remove"}

type metrics struct {
	full    prometheus.Counter
	corrupt prometheus.Counter
	errors  map[string]prometheus.Counter
	sync    prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	register := promutil.With(reg)
	return &metrics{
		full: register.Counter("fleet_etl_spool_full_total", "Entries that were rejected because the spool or its disk was full."),
		corrupt: register.Counter("fleet_etl_spool_corrupt_total",
			"Corrupt ranges found in the spool: accepted records in them are lost. The log names the ranges."),
		errors: promutil.Counters(register, "fleet_etl_spool_errors_total",
			"Failed disk operations of the spool, by operation (create, write, sync, read, cursor, remove).", "operation", operations...),
		sync: register.Histogram("fleet_etl_spool_sync_duration_seconds",
			"Duration of an fsync of the spool. Requests that arrive meanwhile share the next one.", syncBuckets),
	}
}

// registerGauges registers the gauges, which read the state of open spools that share a capacity.
func registerGauges(reg prometheus.Registerer, o Options, spools ...*Spool) {
	gauge := promutil.With(reg).GaugeFunc
	sum := func(of func(*Spool) float64) func() float64 {
		return func() (total float64) {
			for _, s := range spools {
				total += of(s)
			}
			return total
		}
	}
	gauge("fleet_etl_spool_bytes", "Bytes in the spool from the first unacknowledged entry on, up to fleet_etl_spool_capacity_bytes.",
		sum(func(s *Spool) float64 { return float64(s.Bytes()) }))
	gauge("fleet_etl_spool_capacity_bytes", "Capacity of the spool in bytes. While it is full, the API answers 503.",
		func() float64 { return float64(o.MaxBytes) })
	gauge("fleet_etl_spool_entries", "Entries in the spool: accepted requests whose records may not be in the store yet.", sum(func(s *Spool) float64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return float64(s.entries)
	}))
	gauge("fleet_etl_spool_oldest_seconds", "Age of the oldest unacknowledged entry in the spool; 0 when there is none.", func() (oldest float64) {
		for _, s := range spools {
			oldest = max(oldest, s.oldestSeconds())
		}
		return oldest
	})
}

func (m *metrics) failed(operation string) { m.errors[operation].Inc() }
