package deadletter

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/etl/internal/backoff"
	"github.com/fleettracing/fleet-tracing/etl/internal/disk"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
	"github.com/fleettracing/fleet-tracing/etl/internal/ratelog"
)

const (
	currentName = "deadletters.ndjson"
	rotatedTime = "20060102T150405.000000000Z"

	maxFileBytes  = 64 << 20
	maxFileAge    = 24 * time.Hour
	retryInterval = time.Second
	checkInterval = time.Minute
)

// Limits bound the dead letters of a directory. The oldest are removed, by whole files.
type Limits struct {
	Bytes int64         // of all files. The current one is rotated at an eighth of it, 64 MiB at most
	Age   time.Duration // of a dead letter; it is removed within a day after. 0 keeps all
}

// File appends dead letters to deadletters.ndjson in a directory and rotates it by size and age: it is renamed to the time
// of the rotation. It is safe for concurrent use. Several processes may append to one directory.
type File struct {
	dir       string
	limits    Limits
	fileBytes int64 // at which a file is rotated
	logger    logrus.FieldLogger
	now       func() time.Time
	outage    *ratelog.Outage
	metrics   metrics

	busy  chan struct{} // holds a token while the fields below are in use
	file  *os.File      // nil until the first entry
	size  int64
	began time.Time // time of the first entry
}

type metrics struct {
	errors  prometheus.Counter
	removed map[string]prometheus.Counter // by reason, in bytes
}

// Why a file is removed.
const (
	removedSize = "size"
	removedAge  = "age"
)

// NewFile makes a File and registers its metrics. The directory is created when the first entry needs it.
func NewFile(dir string, limits Limits, logger logrus.FieldLogger, reg prometheus.Registerer, now func() time.Time) *File {
	register := promutil.With(reg)
	f := &File{
		dir: dir, limits: limits, fileBytes: min(maxFileBytes, limits.Bytes/8), logger: logger, now: now, busy: make(chan struct{}, 1),
		outage: ratelog.New(logger.WithField("directory", dir), now, ratelog.Interval, ratelog.Messages{
			Down: "writing dead letters failed, waiting: free disk space, or fix the directory",
			Up:   "dead letters are written again",
		}),
		metrics: metrics{
			errors: register.Counter("fleet_etl_dead_letter_errors_total",
				"Failed writes of dead letters to files. They are retried every second, and the pipeline waits until then."),
			removed: promutil.Counters(register, "fleet_etl_dead_letter_removed_bytes_total",
				"Bytes of dead letters that were removed, by reason: size (the queue was full) or age.", "reason", removedSize, removedAge),
		},
	}
	register.GaugeFunc("fleet_etl_dead_letter_bytes", "Bytes of the dead-letter files, up to fleet_etl_dead_letter_capacity_bytes.",
		func() float64 { return float64(sizeOf(dir)) })
	register.GaugeFunc("fleet_etl_dead_letter_capacity_bytes", "Maximum bytes of the dead-letter files. Beyond it, the oldest file is removed.",
		func() float64 { return float64(limits.Bytes) })
	return f
}

// Path returns the path of the current file.
func (f *File) Path() string { return filepath.Join(f.dir, currentName) }

// Append implements pipeline.DeadLetters. It returns when the entries are on disk. While they can't be written, because the
// disk is full or for another reason, it tries again each second until ctx ends.
func (f *File) Append(ctx context.Context, source, origin string, rejected []pipeline.Rejected) error {
	if len(rejected) == 0 {
		return nil
	}
	if err := f.acquire(ctx); err != nil {
		return fmt.Errorf("write dead letters to %s: %w", f.Path(), err)
	}
	defer f.release()
	var lines []byte
	for i := range rejected {
		line, err := json.Marshal(newEntry(f.now(), source, origin, &rejected[i]))
		if err != nil {
			return fmt.Errorf("write dead letter of %s:%d: %w", origin, rejected[i].Position, err)
		}
		lines = append(append(lines, line...), '\n')
	}
	for {
		err := f.write(lines)
		f.outage.Note(err)
		if err == nil {
			return nil
		}
		f.metrics.errors.Inc()
		if ended := backoff.Sleep(ctx, retryInterval); ended != nil {
			return fmt.Errorf("write dead letters to %s: %w: %w", f.Path(), ended, err)
		}
	}
}

func (f *File) acquire(ctx context.Context) error {
	select {
	case f.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *File) release() { <-f.busy }

// Run removes old dead letters until ctx ends, also while no records are rejected.
func (f *File) Run(ctx context.Context) {
	for backoff.Sleep(ctx, checkInterval) == nil {
		if f.acquire(ctx) != nil {
			return
		}
		if err := f.maintain(); err != nil {
			f.logger.WithError(err).WithField("directory", f.dir).Warn("removing old dead letters failed, retrying")
		}
		f.release()
	}
}

// maintain rotates the current file by age, and removes old files.
func (f *File) maintain() error {
	if !exists(f.Path()) {
		return f.prune()
	}
	return f.prepare(0)
}

// prepare opens a file that stays below its size limit with so many bytes more.
func (f *File) prepare(bytes int64) error {
	if f.file != nil && !f.current() {
		f.close()
	}
	if f.file == nil {
		if err := f.open(); err != nil {
			return err
		}
	}
	if f.size > 0 && (f.size+bytes > f.fileBytes || f.limits.Age > 0 && f.now().Sub(f.began) > min(maxFileAge, f.limits.Age)) {
		if err := f.rotate(); err != nil {
			return err
		}
	}
	return f.prune()
}

// current reports whether the open file still has its name. Another process may have rotated it, or an operator removed it.
func (f *File) current() bool {
	open, err := f.file.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(f.Path())
	return err == nil && os.SameFile(open, named)
}

func (f *File) write(lines []byte) error {
	if err := f.prepare(int64(len(lines))); err != nil {
		return err
	}
	n, err := f.file.Write(lines)
	if err == nil {
		if err = f.file.Sync(); err == nil {
			f.size += int64(n)
			return nil
		}
	}
	// Some of the lines may be on disk. They are removed, since the retry writes them again. If another process has appended
	// since, they stay, and the next open ends the torn line.
	if info, e := f.file.Stat(); e == nil && info.Size() == f.size+int64(n) {
		_ = f.file.Truncate(f.size)
	}
	f.close()
	return err
}

func (f *File) open() error {
	if err := os.MkdirAll(f.dir, 0o750); err != nil {
		return err
	}
	file, err := os.OpenFile(f.Path(), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	f.file = file
	if err := f.adopt(); err != nil {
		f.close()
		return err
	}
	return nil
}

// adopt finds out what the file already has.
func (f *File) adopt() error {
	info, err := f.file.Stat()
	if err != nil {
		return err
	}
	f.size, f.began = info.Size(), f.now()
	if f.size == 0 {
		return disk.SyncDir(f.dir)
	}
	first, err := bufio.NewReader(io.NewSectionReader(f.file, 0, f.size)).ReadBytes('\n')
	var e Entry
	if err == nil && json.Unmarshal(first, &e) == nil && !e.Time.IsZero() {
		f.began = e.Time
	}
	return f.endTornLine()
}

// endTornLine ends a last line that a crash tore, so that the next entry has a line of its own.
func (f *File) endTornLine() error {
	last := make([]byte, 1)
	if _, err := f.file.ReadAt(last, f.size-1); err != nil {
		return err
	}
	if last[0] == '\n' {
		return nil
	}
	_, err := f.file.Write([]byte{'\n'})
	f.size++
	return err
}

func (f *File) rotate() error {
	f.close()
	stem := strings.TrimSuffix(f.Path(), ".ndjson") + "-" + f.now().UTC().Format(rotatedTime)
	rotated := stem + ".ndjson"
	for n := 1; exists(rotated); n++ { // two rotations in the same clock tick
		rotated = fmt.Sprintf("%s-%03d.ndjson", stem, n)
	}
	if err := os.Rename(f.Path(), rotated); err != nil {
		return err
	}
	return f.open()
}

// prune removes the oldest rotated files, while all of them and a full current file have more bytes than the limit, or when
// they are too old.
func (f *File) prune() error {
	files, err := Files(f.dir)
	if err != nil {
		return err
	}
	var rotated []os.FileInfo
	var total int64
	for _, path := range files {
		info, err := os.Stat(path)
		if errors.Is(err, os.ErrNotExist) || filepath.Base(path) == currentName {
			continue
		}
		if err != nil {
			return err
		}
		rotated, total = append(rotated, info), total+info.Size()
	}
	for _, info := range rotated {
		log := f.logger.WithFields(logrus.Fields{"file": filepath.Join(f.dir, info.Name()), "bytes": info.Size()})
		full := total > f.limits.Bytes-f.fileBytes
		if !full && (f.limits.Age == 0 || f.now().Sub(info.ModTime()) <= f.limits.Age) {
			continue
		}
		if err := os.Remove(filepath.Join(f.dir, info.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		total -= info.Size()
		if full {
			f.metrics.removed[removedSize].Add(float64(info.Size()))
			log.Warn("dead-letter queue full, removed its oldest file")
		} else {
			f.metrics.removed[removedAge].Add(float64(info.Size()))
			log.Info("removed a file of old dead letters")
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func (f *File) close() {
	if f.file != nil {
		_ = f.file.Close() // each write was synced
	}
	f.file = nil
}

// Close closes the file. Everything is on disk already.
func (f *File) Close() error {
	f.busy <- struct{}{}
	defer f.release()
	f.close()
	return nil
}

// sizeOf returns the bytes of the dead letters in a directory, with the list of reprocessed ones.
func sizeOf(dir string) (bytes int64) {
	files, _ := Files(dir)
	for _, path := range append(files, filepath.Join(dir, reprocessedName)) {
		if info, err := os.Stat(path); err == nil {
			bytes += info.Size()
		}
	}
	return bytes
}

// Files lists the files of a directory, the oldest first. The current file is last.
func Files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var files []string
	current := ""
	for _, e := range entries { // sorted by name, so by time
		switch name := e.Name(); {
		case name == currentName:
			current = filepath.Join(dir, name)
		case strings.HasPrefix(name, "deadletters-") && strings.HasSuffix(name, ".ndjson"):
			files = append(files, filepath.Join(dir, name))
		}
	}
	if current != "" {
		files = append(files, current)
	}
	return files, nil
}
