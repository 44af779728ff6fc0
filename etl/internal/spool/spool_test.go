package spool

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/dev/testenv"
)

func TestUnacknowledgedEntriesAreReturnedAfterRestart(t *testing.T) {
	for name, c := range map[string]struct {
		segment int64
		acked   []uint64
		again   []int // entries that Next returns after a restart
	}{
		"none":                  {0, nil, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
		"some":                  {0, []uint64{1, 2, 3}, []int{3, 4, 5, 6, 7, 8, 9}},
		"out of order":          {0, []uint64{3, 1, 2}, []int{3, 4, 5, 6, 7, 8, 9}},
		"a gap":                 {0, []uint64{1, 3, 4}, []int{1, 2, 3, 4, 5, 6, 7, 8, 9}},
		"twice and unknown":     {0, []uint64{2, 2, 1, 1, 77, 0}, []int{2, 3, 4, 5, 6, 7, 8, 9}},
		"all":                   {0, []uint64{10, 9, 8, 7, 6, 5, 4, 3, 2, 1}, nil},
		"one entry per segment": {1, []uint64{1, 2, 4, 3}, []int{4, 5, 6, 7, 8, 9}},
		"all, in many segments": {1, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir, entries := filepath.Join(t.TempDir(), "new", "directory"), many(10)
			r := mustOpen(t, dir, Options{SegmentBytes: c.segment})
			r.append(t, entries...)
			got, numbers := r.drain(t)
			require.Equal(t, entries, got)
			require.Equal(t, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, numbers)
			for _, n := range c.acked {
				r.Ack(n)
			}
			require.NoError(t, r.Close())
			if len(c.again) == 0 {
				require.Empty(t, segmentsIn(t, dir), "finished segments are removed")
				require.Zero(t, r.Bytes())
			} else if c.segment == 1 {
				require.Len(t, segmentsIn(t, dir), len(c.again))
			}

			r = mustOpen(t, dir, Options{SegmentBytes: c.segment})
			var want []string
			size := int64(0)
			for _, i := range c.again {
				want = append(want, entries[i])
				size += int64(headerBytes + len(entries[i]))
			}
			require.Equal(t, size, r.Bytes())
			require.EqualValues(t, len(want), r.values(t)["entries"])
			r.append(t, "new")
			got, numbers = r.drain(t)
			require.Equal(t, append(want, "new"), got)
			require.EqualValues(t, 11, numbers[len(numbers)-1], "numbers are unique")
			require.Zero(t, r.values(t)["corrupt_total"])
		})
	}
}

func TestEmptyAndLongestEntry(t *testing.T) {
	dir := t.TempDir()
	r := mustOpen(t, dir, Options{})
	long := strings.Repeat("long", MaxEntry/4)
	r.append(t, "", long, "short")
	err := r.Append(t.Context(), make([]byte, MaxEntry+1))
	require.ErrorContains(t, err, "16777217 bytes: give at most 16777216")
	require.ErrorIs(t, err, ErrTooLarge)
	require.NotErrorIs(t, err, ErrFull, "a retry would not help")
	require.NoError(t, r.Close())
	r = mustOpen(t, dir, Options{})
	got, _ := r.drain(t)
	require.Len(t, got, 3)
	require.True(t, got[0] == "" && got[1] == long && got[2] == "short")
}

func TestNextWaitsForAnEntry(t *testing.T) {
	r := mustOpen(t, t.TempDir(), Options{SegmentBytes: 100})
	got := make(chan string)
	var reading sync.WaitGroup
	reading.Go(func() {
		for range 50 {
			e, n, err := r.Next(t.Context())
			assert.NoError(t, err)
			r.Ack(n)
			got <- string(e)
		}
	})
	for i := range 50 {
		entry := fmt.Sprint("entry ", i)
		r.append(t, entry)
		require.Equal(t, entry, <-got)
	}
	reading.Wait()
	require.Zero(t, r.Bytes())
}

func TestWaitingEndsWithContextAndClose(t *testing.T) {
	r := mustOpen(t, t.TempDir(), Options{})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, r.Append(ended, []byte("x")), context.Canceled)
	_, _, err := r.Next(ended)
	require.ErrorIs(t, err, context.Canceled)

	waiting := make(chan error)
	for range 2 { // the second waits for the first
		go func() { _, _, err := r.Next(t.Context()); waiting <- err }()
	}
	require.NoError(t, r.Close())
	require.ErrorIs(t, <-waiting, ErrClosed)
	require.ErrorIs(t, <-waiting, ErrClosed)
	require.ErrorIs(t, r.Append(t.Context(), []byte("x")), ErrClosed)
	require.NoError(t, r.Close(), "closing twice is allowed")
}

func TestCanceledAppendAffectsNoOther(t *testing.T) {
	disk, blocked, proceed := &faulty{}, make(chan struct{}), make(chan struct{})
	disk.sync = func() error { blocked <- struct{}{}; <-proceed; return nil }
	r := mustOpenOn(t, t.TempDir(), Options{}, time.Now, disk.open)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() { result <- r.Append(ctx, []byte("canceled")) }()
	<-blocked
	_, more, _ := r.readable()
	require.NotNil(t, more, "Next returns only what is on disk")
	cancel()
	require.ErrorIs(t, <-result, context.Canceled)
	go func() { result <- r.Append(t.Context(), []byte("kept")) }()
	proceed <- struct{}{}
	<-blocked
	proceed <- struct{}{}
	require.NoError(t, <-result)
	got, _ := r.drain(t)
	require.Equal(t, []string{"canceled", "kept"}, got)
	require.Zero(t, r.reserved)
}

func TestConcurrentAppendsShareAnFsync(t *testing.T) {
	const appenders = 200
	disk, syncs := &faulty{}, atomic.Int64{}
	blocked, proceed := make(chan struct{}), make(chan struct{})
	disk.sync = func() error {
		if syncs.Add(1) == 1 {
			close(blocked)
			<-proceed
		}
		return nil
	}
	r := mustOpenOn(t, t.TempDir(), Options{}, time.Now, disk.open)
	var appending sync.WaitGroup
	waiting := int64(0)
	add := func(i int) {
		entry := fmt.Appendf(nil, "entry %d", i)
		waiting += int64(headerBytes + len(entry))
		appending.Go(func() { assert.NoError(t, r.Append(t.Context(), entry)) })
	}
	add(0)
	<-blocked
	for i := 1; i < appenders; i++ {
		add(i)
	}
	require.Eventually(t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.reserved == waiting
	}, 10*time.Second, time.Millisecond)
	close(proceed)
	appending.Wait()
	require.EqualValues(t, 2, syncs.Load())
	require.EqualValues(t, 2, r.values(t)["sync_duration_seconds"])
	got, _ := r.drain(t)
	require.Len(t, got, appenders)
}

func TestFullGroupBlocksAppend(t *testing.T) {
	disk, blocked, proceed := &faulty{}, make(chan struct{}, 100), make(chan struct{})
	disk.sync = func() error { blocked <- struct{}{}; <-proceed; return nil }
	r := mustOpenOn(t, t.TempDir(), Options{SegmentBytes: 1000}, time.Now, disk.open)
	var appending sync.WaitGroup
	for range 20 {
		appending.Go(func() { assert.NoError(t, r.Append(t.Context(), make([]byte, 300))) })
	}
	<-blocked
	require.Eventually(t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.reserved == 20*(headerBytes+300)
	}, 10*time.Second, time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() { result <- r.Append(ctx, make([]byte, 300)) }()
	cancel()
	require.ErrorIs(t, <-result, context.Canceled, "waiting for the next group ends with the context")
	close(proceed)
	appending.Wait()
	require.Zero(t, r.reserved)
	got, _ := r.drain(t)
	require.Len(t, got, 20)
	for _, path := range segmentsIn(t, r.dir) {
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.LessOrEqual(t, info.Size(), int64(1000))
	}
}

func TestFullSpoolRejectsUntilAcknowledged(t *testing.T) {
	const one = headerBytes + 10
	r := mustOpen(t, t.TempDir(), Options{MaxBytes: 3 * one, SegmentBytes: 1})
	entry := []byte("0123456789")
	for range 3 {
		require.NoError(t, r.Append(t.Context(), entry))
	}
	err := r.Append(t.Context(), entry)
	require.ErrorIs(t, err, ErrFull)
	require.ErrorContains(t, err, "append to spool "+r.dir+": spool is full: it holds 114 bytes of 114")
	require.EqualValues(t, 1, r.values(t)["full_total"])
	_, numbers := r.drain(t)
	r.Ack(numbers[1])
	require.ErrorIs(t, r.Append(t.Context(), entry), ErrFull, "an acknowledged entry takes space until all earlier ones are acknowledged")
	r.Ack(numbers[0])
	require.EqualValues(t, one, r.Bytes())
	require.NoError(t, r.Append(t.Context(), entry))
	require.NoError(t, r.Append(t.Context(), entry))
	require.ErrorIs(t, r.Append(t.Context(), entry), ErrFull)
	require.EqualValues(t, 3*one, r.values(t)["bytes"])

	err = r.Append(t.Context(), make([]byte, 3*one))
	require.ErrorIs(t, err, ErrTooLarge)
	require.NotErrorIs(t, err, ErrFull, "the entry never fits")
	require.ErrorContains(t, err, "give at most 86")
}

// The disk is full at each step, with and without short writes.
func TestFullDiskRejectsUntilThereIsRoom(t *testing.T) {
	for name, fail := range map[string]func(d *faulty){
		"nothing written":    func(d *faulty) { d.write = short(0) },
		"half written":       func(d *faulty) { d.write = short(0.5) },
		"almost all written": func(d *faulty) { d.write = short(0.999) },
		"over quota":         func(d *faulty) { d.write = func([]byte) (int, error) { return 0, syscall.EDQUOT } },
		"fsync fails":        func(d *faulty) { d.sync = func() error { return syscall.ENOSPC } },
		"no new segment":     func(d *faulty) { d.create = func(string) error { return syscall.ENOSPC } },
		"and truncate fails": func(d *faulty) {
			d.write, d.truncate = short(0.7), func() error { return syscall.EIO }
		},
		"fsync and truncate fail": func(d *faulty) {
			d.sync, d.truncate = func() error { return syscall.ENOSPC }, func() error { return syscall.EIO }
		},
	} {
		for _, before := range []int{0, 1, 5} {
			t.Run(fmt.Sprintf("%s, after %d entries", name, before), func(t *testing.T) {
				disk := &faulty{}
				r := mustOpenOn(t, t.TempDir(), Options{SegmentBytes: 1 << 10}, time.Now, disk.open)
				want := many(before)
				r.append(t, want...)
				fail(disk)
				for range 3 {
					err := r.Append(t.Context(), []byte(strings.Repeat("rejected", 150)))
					require.ErrorIs(t, err, ErrFull)
					require.ErrorContains(t, err, "append to spool "+r.dir)
				}
				crashed := copyDir(t, r.dir)
				disk.write, disk.sync, disk.create, disk.truncate = nil, nil, nil, nil
				r.append(t, "accepted", "and more")
				want = append(want, "accepted", "and more")
				again := copyDir(t, r.dir)
				got, numbers := r.drain(t)
				require.Equal(t, want, got)
				require.EqualValues(t, len(want), numbers[len(numbers)-1], "no number is skipped")
				require.EqualValues(t, 3, r.values(t)["full_total"])
				require.Zero(t, r.reserved)
				for _, n := range numbers {
					r.Ack(n)
				}
				require.Zero(t, r.Bytes())
				require.NoError(t, r.Close())
				require.Empty(t, segmentsIn(t, r.dir))

				after := mustOpen(t, again, Options{})
				got, _ = after.drain(t)
				require.Equal(t, want, got, "after a crash")
				require.Zero(t, after.values(t)["corrupt_total"])
				after = mustOpen(t, crashed, Options{})
				got, _ = after.drain(t)
				for len(got) > len(want)-2 && strings.HasPrefix(got[len(got)-1], "rejected") {
					got = got[:len(got)-1] // complete, but never accepted
				}
				require.Equal(t, want[:len(want)-2], append([]string{}, got...))
			})
		}
	}
}

func short(share float64) func([]byte) (int, error) {
	return func(b []byte) (int, error) { return int(share * float64(len(b))), syscall.ENOSPC }
}

func TestFullFileSystem(t *testing.T) {
	dir := testenv.NewSmallDisk(t, 64).Dir
	r := mustOpen(t, dir, Options{SegmentBytes: 8 << 10})
	defer r.Close()
	var want, got []string
	entry := strings.Repeat("x", 1000)
	for round := range 5 {
		for i := 0; ; i++ {
			e := fmt.Sprint(round, " ", i, " ", entry)
			if err := r.Append(t.Context(), []byte(e)); err != nil {
				require.ErrorIs(t, err, ErrFull)
				require.ErrorIs(t, err, syscall.ENOSPC)
				break
			}
			want = append(want, e)
			require.Less(t, i, 64, "a disk of 64 KiB is full by now")
		}
		entries, numbers := r.drain(t)
		got = append(got, entries...)
		require.Equal(t, want, got)
		for _, n := range numbers {
			r.Ack(n)
		}
		require.Eventually(t, func() bool { return len(segmentsIn(t, dir)) <= 1 }, 10*time.Second, time.Millisecond)
	}
	require.Greater(t, len(want), 5*30, "space is freed each time")
	require.Zero(t, r.Bytes())
	require.NoError(t, r.Close())
	require.Empty(t, segmentsIn(t, dir))
}

func TestFailedFsyncWritesEntriesToNewSegment(t *testing.T) {
	for _, before := range []int{0, 3} {
		t.Run(fmt.Sprint("after entries: ", before), func(t *testing.T) {
			disk := &faulty{}
			r := mustOpenOn(t, t.TempDir(), Options{}, time.Now, disk.open)
			want := many(before)
			r.append(t, want...)
			creates := disk.creates
			failures := 1
			disk.sync = func() error {
				if failures > 0 {
					failures--
					return syscall.EIO
				}
				return nil
			}
			r.append(t, "saved")
			require.Equal(t, max(creates, 1)+1, disk.creates, "in a new segment")
			require.EqualValues(t, 1, r.values(t)["errors_total{sync}"])
			require.Contains(t, r.log.String(), "fsync failed")
			r.append(t, "and more")
			require.Equal(t, max(creates, 1)+1, disk.creates, "later entries go to the same segment")

			failures = 2
			err := r.Append(t.Context(), []byte("lost"))
			require.ErrorIs(t, err, syscall.EIO)
			require.NotErrorIs(t, err, ErrFull)
			r.append(t, "last")
			want = append(want, "saved", "and more", "last")
			crashed := copyDir(t, r.dir)
			got, _ := r.drain(t)
			require.Equal(t, want, got)
			after := mustOpen(t, crashed, Options{})
			got, _ = after.drain(t)
			require.Equal(t, want, got)
		})
	}
}

// A directory in the place of a file opens, and fails to be read, as a file on a bad disk does.
func TestUnreadableSegmentCostsItsEntriesOnly(t *testing.T) {
	for name, broken := range map[string]struct {
		segment int
		running bool
		want    []string
	}{
		"the first":              {0, false, []string{"b", "c"}},
		"one between others":     {1, false, []string{"a", "c"}},
		"the last":               {2, false, []string{"a", "b"}},
		"one while it is read":   {1, true, []string{"a", "c"}},
		"the first when running": {0, true, []string{"b", "c"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			r := mustOpen(t, dir, Options{SegmentBytes: 1})
			r.append(t, "a", "b", "c")
			if !broken.running {
				require.NoError(t, r.Close())
			}
			path := segmentsIn(t, dir)[broken.segment]
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.Mkdir(path, 0o700))
			if !broken.running {
				r = mustOpen(t, dir, Options{SegmentBytes: 1})
			}

			r.append(t, "d")
			got, numbers := r.drain(t)
			require.Equal(t, append(broken.want, "d"), got)
			require.Contains(t, r.log.String(), "spool segment unreadable")
			require.Equal(t, 1.0, r.values(t)["corrupt_total"], "one range of entries is lost")

			for _, n := range numbers {
				r.Ack(n)
			}
			require.NoError(t, r.Close())
			require.DirExists(t, path+unreadableSuffix, "the file is kept")
			got, _ = mustOpen(t, dir, Options{SegmentBytes: 1}).drain(t)
			require.Empty(t, got)
		})
	}
}

func TestDirectoryIsLocked(t *testing.T) {
	dir := t.TempDir()
	r := mustOpen(t, dir, Options{})
	_, err := Open(dir, Options{MaxBytes: 1}, quiet(), nil, time.Now)
	require.ErrorContains(t, err, "open spool: directory "+dir+" is in use by another process")
	require.NoError(t, r.Close())
	mustOpen(t, dir, Options{})
}

func TestInvalidDirectories(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for name, c := range map[string]struct {
		dir  string
		o    Options
		want string
	}{
		"a file":       {file, Options{MaxBytes: 1}, "not a directory"},
		"below a file": {filepath.Join(file, "x"), Options{MaxBytes: 1}, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(c.dir, c.o, quiet(), nil, time.Now)
			require.ErrorContains(t, err, "open spool")
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestCursorIsSavedWhileRunning(t *testing.T) {
	r := mustOpen(t, t.TempDir(), Options{SegmentBytes: 1})
	entries := many(20)
	r.append(t, entries...)
	_, numbers := r.drain(t)
	for _, n := range numbers[:15] {
		r.Ack(n)
	}
	require.Eventually(t, func() bool { return len(segmentsIn(t, r.dir)) == 5 }, 10*time.Second, time.Millisecond)
	crashed := mustOpen(t, copyDir(t, r.dir), Options{})
	got, _ := crashed.drain(t)
	require.Equal(t, entries[15:], got)
	text, err := os.ReadFile(filepath.Join(r.dir, cursorFile))
	require.NoError(t, err)
	require.Regexp(t, `^16 21 [0-9a-f]{8}\n$`, string(text))
}

func TestMetrics(t *testing.T) {
	at := time.UnixMilli(1_800_000_000_000)
	var mu sync.Mutex
	now := func() time.Time { mu.Lock(); defer mu.Unlock(); return at }
	advance := func(d time.Duration) { mu.Lock(); at = at.Add(d); mu.Unlock() }
	dir := t.TempDir()
	r := mustOpenOn(t, dir, Options{MaxBytes: 10_000, SegmentBytes: 500}, now, createFile)
	const one = headerBytes + 72
	entry := strings.Repeat("x", 72)
	v := r.values(t)
	for _, name := range []string{"bytes", "entries", "oldest_seconds", "full_total", "corrupt_total", "sync_duration_seconds"} {
		require.Contains(t, v, name)
		require.Zero(t, v[name], name)
	}
	for _, operation := range operations {
		require.Contains(t, v, "errors_total{"+operation+"}")
	}
	require.EqualValues(t, 10_000, v["capacity_bytes"])

	for range 20 { // one per second
		r.append(t, entry)
		advance(time.Second)
	}
	v = r.values(t)
	require.EqualValues(t, 20*one, v["bytes"])
	require.EqualValues(t, 20, v["entries"])
	require.EqualValues(t, 20, v["oldest_seconds"])
	for range 10 { // ten in 40 s
		_, n, err := r.Next(t.Context())
		require.NoError(t, err)
		r.Ack(n)
		advance(2 * time.Second)
	}
	v = r.values(t)
	require.EqualValues(t, 10*one, v["bytes"])
	require.EqualValues(t, 10, v["entries"])
	require.EqualValues(t, 30, v["oldest_seconds"], "the eleventh was written 10 s after the first, 40 s ago")
	_, n, err := r.Next(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 30, r.values(t)["oldest_seconds"], "reading does not acknowledge")
	advance(50 * time.Second)
	require.EqualValues(t, 80, r.values(t)["oldest_seconds"])
	r.Ack(n)
	crashed := mustOpenOn(t, copyDir(t, dir), Options{}, now, createFile)
	require.LessOrEqual(t, 79., crashed.values(t)["oldest_seconds"], "the age survives the process")
	_, numbers := r.drain(t)
	for _, n := range numbers {
		r.Ack(n)
	}
	v = r.values(t)
	for _, name := range []string{"bytes", "entries", "oldest_seconds"} {
		require.Zero(t, v[name], name)
	}
}

// The time of an acknowledgment must not depend on how many entries wait.
func BenchmarkAck(b *testing.B) {
	for _, waiting := range []int{1000, 100_000} {
		b.Run(fmt.Sprintf("waiting=%d", waiting), func(b *testing.B) {
			r := mustOpen(b, b.TempDir(), Options{})
			g := r.newSegment(1, 0)
			r.segments = append(r.segments, g)
			next := uint64(1)
			read := func() {
				g.size, g.end, r.used, r.entries = g.size+headerBytes, next+1, r.used+headerBytes, r.entries+1
				r.readPos = position{g, g.size, next + 1}
				r.unacked.Add(r.readPos)
				next++
			}
			for range waiting {
				read()
			}
			for b.Loop() {
				read()
				r.Ack(next - uint64(waiting) - 1)
			}
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	entry := []byte(strings.Repeat("x", 300))
	for _, appenders := range []int{1, 64} {
		b.Run(fmt.Sprintf("appenders=%d", appenders), func(b *testing.B) {
			s, err := Open(b.TempDir(), Options{MaxBytes: 1 << 40}, quiet(), nil, time.Now)
			require.NoError(b, err)
			defer s.Close()
			b.SetBytes(int64(len(entry)))
			b.ResetTimer()
			var left atomic.Int64
			left.Store(int64(b.N))
			var appending sync.WaitGroup
			for range appenders {
				appending.Go(func() {
					for left.Add(-1) >= 0 {
						if err := s.Append(b.Context(), entry); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			appending.Wait()
		})
	}
}

func TestLanesShareTheirMetrics(t *testing.T) {
	dir := t.TempDir()
	reg := prometheus.NewRegistry()
	lanes, err := OpenLanes(dir, 3, Options{MaxBytes: 1000}, quiet(), reg, time.Now)
	require.NoError(t, err)
	_, err = OpenLanes(dir, 3, Options{MaxBytes: 1000}, quiet(), nil, time.Now)
	require.Error(t, err, "another process has it")
	for i, text := range []string{"zero", "", "two"} {
		if text != "" {
			require.NoError(t, lanes[i].Append(t.Context(), []byte(text)))
		}
	}
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`# HELP fleet_etl_spool_entries Entries in the spool: accepted requests whose records may not be in the store yet.
# TYPE fleet_etl_spool_entries gauge
fleet_etl_spool_entries 2
`), "fleet_etl_spool_entries"))
	for _, s := range lanes {
		require.NoError(t, s.Close())
	}
	lanes, err = OpenLanes(dir, 3, Options{MaxBytes: 1000}, quiet(), nil, time.Now)
	require.NoError(t, err)
	for i, want := range map[int]string{0: "zero", 2: "two"} {
		entry, number, err := lanes[i].Next(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, string(entry))
		lanes[i].Ack(number)
	}
	for _, s := range lanes {
		require.Zero(t, s.Bytes())
		require.NoError(t, s.Close())
	}
}
