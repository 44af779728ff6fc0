// Package spool is a bounded first-in first-out log on disk. What Append has returned from survives a crash, so a source
// that has no memory of its own, as a device that sends over HTTP, can be answered before the store has its record.
//
//	Append ─► group ─► write, fsync ─► segments ─► Next ─► … ─► Done ─► mark ─► done segments are removed
//
// Entries are given in the order in which they were written, each once in a process; after a restart those that are not
// done are given again. Entries lie in segments, files that are named by the number of their first entry. The mark, a file
// of its own, is the number before which everything is done.
package spool

import (
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
)

// ErrFull says that an entry has no room: the spool holds Options.MaxBytes, or the disk is full. It may have some later.
var ErrFull = errors.New("spool is full")

// ErrClosed is the error of a spool that was closed.
var ErrClosed = errors.New("spool is closed")

// MaxEntry is the longest entry in bytes.
const MaxEntry = 16 << 20

// defaultSegmentBytes is Options.SegmentBytes where it is 0.
const defaultSegmentBytes = 16 << 20

// groupBytes is how much is written at once at the most, unless a single entry is longer. Appenders beyond it wait.
const groupBytes = 4 << 20

// saveEvery is how long a done entry may not be marked so on disk, and so be given again after a crash.
const saveEvery = 200 * time.Millisecond

// Options bound a spool.
type Options struct {
	// MaxBytes is how much the spool holds, 24 bytes for each entry included. An entry counts until it and every one
	// before it are done. On disk there may be a segment and the longest entry more.
	MaxBytes int64
	// SegmentBytes is the size at which a new segment is begun; 0 is 16 MiB. Room on disk is freed by whole segments.
	SegmentBytes int64
}

// Spool is an opened spool. All its methods may be called at once.
type Spool struct {
	dir     string
	o       Options
	logger  logrus.FieldLogger
	now     func() time.Time
	create  func(path string) (segmentFile, error)
	lock    *os.File
	metrics *metrics
	opened  time.Time

	wake    chan struct{} // a group has its first entry
	closing chan struct{}
	running sync.WaitGroup
	reading chan struct{} // held by who reads

	file *os.File // of at.segment, for who reads; nil until it is read from

	// Of the goroutine that writes.
	out      segmentFile // of active
	leftover string      // a segment that holds no entry and may still be on disk
	spare    []byte      // a buffer for the next group

	mu        sync.Mutex
	closed    bool
	gathering *group
	reserved  int64         // bytes of the groups that are not written yet
	appended  chan struct{} // closed when there is more to read

	segments []*segment // those with entries that are not done, and the active one
	active   *segment   // the one that is written to; nil until there is something to write
	next     uint64     // number of the next entry that is written
	at       position   // of the next entry that is read
	given    []given    // what was read from the mark on

	mark       uint64 // number of the first entry that is not done
	markOffset int64  // where it stands in the first segment
	held       int64  // bytes from the mark on
	entries    int64  // entries from the mark on
	pace       pace

	finished []*segment // to be removed
	saved    uint64     // the mark that is on disk
	unsaved  bool       // the last try to save it failed
}

// position is a place between two entries.
type position struct {
	segment *segment // nil where nothing was read yet
	offset  int64
	number  uint64 // of the entry that follows
}

// given is an entry that Next gave.
type given struct {
	number uint64
	timeMs int64
	behind position
	done   bool
}

// Open opens the spool in dir, which is made when it is missing, and recovers it after a crash. What a crash left torn at
// the end is cut off. Damage anywhere else costs the entries that it hit and no others. Both are logged and counted. An
// error names the directory or the file at fault.
func Open(dir string, o Options, logger logrus.FieldLogger, reg prometheus.Registerer, now func() time.Time) (*Spool, error) {
	return open(dir, o, logger, reg, now, createFile)
}

func open(dir string, o Options, logger logrus.FieldLogger, reg prometheus.Registerer, now func() time.Time, create func(string) (segmentFile, error)) (*Spool, error) {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = defaultSegmentBytes
	}
	switch {
	case o.MaxBytes <= 0:
		return nil, fmt.Errorf("open spool %s: capacity of %d bytes: give more than 0", dir, o.MaxBytes)
	case o.SegmentBytes < 0:
		return nil, fmt.Errorf("open spool %s: segments of %d bytes: give more than 0", dir, o.SegmentBytes)
	}
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	s := &Spool{
		dir: dir, o: o, logger: logger.WithField("spool", dir), now: now, create: create, lock: lock, opened: now(),
		wake: make(chan struct{}, 1), closing: make(chan struct{}), reading: make(chan struct{}, 1),
		gathering: newGroup(nil), appended: make(chan struct{}),
	}
	s.metrics = newMetrics(s)
	if err := s.recover(); err != nil {
		lock.Close()
		return nil, fmt.Errorf("open spool: %w", err)
	}
	if reg != nil {
		s.metrics.register(reg)
	}
	s.running.Go(s.write)
	s.running.Go(s.keepSaving)
	return s, nil
}

// Append puts an entry at the end and returns when it is on disk. Appenders that come at once share one fsync. The error
// is ErrFull when there is no room; the entry will not be given then. When ctx ends first, it may be.
func (s *Spool) Append(ctx context.Context, entry []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	size := int64(headerBytes + len(entry))
	if len(entry) > MaxEntry || size > s.o.MaxBytes {
		return fmt.Errorf("append to spool %s: entry of %d bytes: give at most %d", s.dir, len(entry), min(MaxEntry, s.o.MaxBytes-headerBytes))
	}
	g, err := s.join(ctx, entry, size)
	if err != nil {
		return s.appendError(err)
	}
	select {
	case <-g.written:
		return s.appendError(g.err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// join puts an entry into the group that is written next, and waits while that is full.
func (s *Spool) join(ctx context.Context, entry []byte, size int64) (*group, error) {
	for {
		s.mu.Lock()
		g := s.gathering
		switch {
		case s.closed:
			s.mu.Unlock()
			return nil, ErrClosed
		case s.held+s.reserved+size > s.o.MaxBytes:
			held := s.held + s.reserved
			s.mu.Unlock()
			return nil, fmt.Errorf("%w: it holds %d bytes of %d", ErrFull, held, s.o.MaxBytes)
		case g.takes(size, min(groupBytes, s.o.SegmentBytes)):
			s.reserved += size
			g.add(entry)
			s.mu.Unlock()
			select {
			case s.wake <- struct{}{}:
			default:
			}
			return g, nil
		}
		s.mu.Unlock()
		select {
		case <-g.taken:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *Spool) appendError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrFull):
		s.metrics.full.Inc()
	}
	return fmt.Errorf("append to spool %s: %w", s.dir, err)
}

// Next gives the next entry and its number, for which it waits. The entry belongs to the caller. An error that is neither
// of ctx nor ErrClosed is of the disk; the next call tries again.
func (s *Spool) Next(ctx context.Context) (entry []byte, number uint64, err error) {
	select {
	case s.reading <- struct{}{}:
		defer func() { <-s.reading }()
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		at, more, err := s.readable()
		if err != nil {
			return nil, 0, err
		}
		if more == nil {
			payload, number, ok, err := s.read(at)
			if err != nil {
				return nil, 0, fmt.Errorf("read spool: %w", err)
			}
			if ok {
				return payload, number, nil
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

// Done says that an entry which Next gave is stored for good. Entries may be done in any order.
func (s *Spool) Done(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := slices.BinarySearchFunc(s.given, number, func(g given, n uint64) int {
		switch {
		case g.number < n:
			return -1
		case g.number > n:
			return 1
		}
		return 0
	})
	if !ok || s.given[i].done {
		return
	}
	s.given[i].done = true
	s.settle()
}

// settle moves the mark over what is done.
func (s *Spool) settle() {
	before := s.held
	n := 0
	for n < len(s.given) && s.given[n].done {
		n++
	}
	switch {
	case n == len(s.given):
		s.given = s.given[:0]
		s.pass(s.at)
	case n > 0:
		s.pass(s.given[n-1].behind)
		s.given = slices.Delete(s.given, 0, n)
	}
	s.pace.add(s.now(), before-s.held)
}

// pass moves the mark to a place before which everything is done.
func (s *Spool) pass(to position) {
	i := slices.Index(s.segments, to.segment)
	if i < 0 {
		return // nothing was read, or its segment is done already
	}
	for range i {
		s.advance(s.segments[0].size, s.segments[0].end)
		s.finish()
	}
	s.advance(to.offset, to.number)
	if to.segment != s.active && to.offset == to.segment.size {
		s.finish()
	}
}

// advance moves the mark in the first segment.
func (s *Spool) advance(offset int64, number uint64) {
	s.held -= offset - s.markOffset
	s.entries -= int64(number - max(s.mark, s.segments[0].first))
	s.mark, s.markOffset = number, offset
}

// finish leaves the first segment, which has nothing that is not done.
func (s *Spool) finish() {
	s.finished = append(s.finished, s.segments[0])
	s.segments = slices.Delete(s.segments, 0, 1)
	s.markOffset = 0
}

// Bytes is how much of Options.MaxBytes is taken: by the entries that are not done, and by those behind them.
func (s *Spool) Bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

// Close writes what is being appended, saves the mark and lets go of the directory. Append and Next give ErrClosed then.
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
	s.reading <- struct{}{} // whoever reads ends first
	s.closeReader()
	<-s.reading
	s.mu.Lock()
	s.seal()
	s.settle()
	s.mu.Unlock()
	err := errors.Join(s.saveMark(), s.removeFinished())
	s.lock.Close()
	if err != nil {
		return fmt.Errorf("close spool %s: %w", s.dir, err)
	}
	return nil
}

func (s *Spool) path(name string) string { return filepath.Join(s.dir, name) }
