package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if os.Getenv(asChild) != "" {
		os.Exit(child())
	}
	os.Exit(m.Run())
}

// harness is an open spool with its metrics and log.
type harness struct {
	*Spool
	reg *prometheus.Registry
	log *strings.Builder
}

func quiet() logrus.FieldLogger {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	return logger
}

func mustOpen(t testing.TB, dir string, o Options) *harness {
	t.Helper()
	return mustOpenOn(t, dir, o, time.Now, createFile)
}

func mustOpenOn(t testing.TB, dir string, o Options, now func() time.Time, create func(string) (segmentFile, error)) *harness {
	t.Helper()
	log := &strings.Builder{}
	logger := logrus.New()
	logger.SetOutput(log)
	reg := prometheus.NewPedanticRegistry()
	if o.MaxBytes == 0 {
		o.MaxBytes = 1 << 30
	}
	s, err := open(dir, o, logger, reg, now, create)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return &harness{s, reg, log}
}

func (r *harness) append(t testing.TB, entries ...string) {
	t.Helper()
	for _, e := range entries {
		require.NoError(t, r.Append(t.Context(), []byte(e)))
	}
}

// drain returns every entry that Next returns without waiting.
func (r *harness) drain(t testing.TB) (entries []string, numbers []uint64) {
	t.Helper()
	for {
		if _, more, err := r.readable(); err != nil || more != nil {
			require.NoError(t, err)
			return entries, numbers
		}
		// Corruption may leave nothing to read.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		e, n, err := r.Next(ctx)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return entries, numbers
		}
		require.NoError(t, err)
		entries, numbers = append(entries, string(e)), append(numbers, n)
	}
}

// values returns the metrics by name, with labels as in PromQL.
func (r *harness) values(t testing.TB) map[string]float64 {
	t.Helper()
	families, err := r.reg.Gather()
	require.NoError(t, err)
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := strings.TrimPrefix(f.GetName(), "fleet_etl_spool_")
			for _, l := range m.Label {
				name += "{" + l.GetValue() + "}"
			}
			switch {
			case m.Counter != nil:
				values[name] = m.Counter.GetValue()
			case m.Gauge != nil:
				values[name] = m.Gauge.GetValue()
			case m.Histogram != nil:
				values[name] = float64(m.Histogram.GetSampleCount())
			}
		}
	}
	return values
}

// segmentsIn returns the paths of the segments in a directory, the oldest first.
func segmentsIn(t testing.TB, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix))
	require.NoError(t, err)
	return files
}

// scratch returns a directory in memory, where fsync is fast, if there is one: some tests open hundreds of spools.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "spool")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// copyDir copies a directory as a crash leaves it when everything was on disk.
func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := scratch(t)
	files, err := os.ReadDir(from)
	require.NoError(t, err)
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(from, f.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // finished meanwhile
		}
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(to, f.Name()), text, 0o600))
	}
	return to
}

// faulty is a disk with injected faults.
type faulty struct {
	mu       sync.Mutex
	create   func(path string) error
	write    func(b []byte) (n int, err error) // n bytes are written nevertheless
	sync     func() error                      // before the real one
	truncate func() error
	skipSync bool             // fsync returns at once
	synced   map[string]int64 // by path: the size at the last fsync
	creates  int
}

func (d *faulty) open(path string) (segmentFile, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.creates++
	if d.create != nil {
		if err := d.create(path); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return nil, err
	}
	return &faultyFile{f, d}, nil
}

type faultyFile struct {
	*os.File
	disk *faulty
}

func (f *faultyFile) WriteAt(b []byte, offset int64) (int, error) {
	if f.disk.write != nil {
		if n, err := f.disk.write(b); err != nil {
			_, _ = f.File.WriteAt(b[:n], offset)
			return n, err
		}
	}
	return f.File.WriteAt(b, offset)
}

func (f *faultyFile) Sync() error {
	if f.disk.sync != nil {
		if err := f.disk.sync(); err != nil {
			return err
		}
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	f.disk.mu.Lock()
	if f.disk.synced == nil {
		f.disk.synced = map[string]int64{}
	}
	f.disk.synced[f.Name()] = info.Size()
	f.disk.mu.Unlock()
	if f.disk.skipSync {
		return nil
	}
	return f.File.Sync()
}

func (f *faultyFile) Truncate(size int64) error {
	if f.disk.truncate != nil {
		if err := f.disk.truncate(); err != nil {
			return err
		}
	}
	return f.File.Truncate(size)
}

// many returns n different entries.
func many(n int) (entries []string) {
	for i := range n {
		entries = append(entries, fmt.Sprintf("entry %d %s", i, strings.Repeat("x", i%50)))
	}
	return entries
}
