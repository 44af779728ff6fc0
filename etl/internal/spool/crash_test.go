package spool

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTornTailIsTruncatedAtAnyByte(t *testing.T) {
	r := mustOpen(t, t.TempDir(), Options{})
	entries := []string{"first", "", "the third one", "x"}
	ends := []int64{0}
	for _, e := range entries {
		r.append(t, e)
		ends = append(ends, r.Bytes())
	}
	for size := range ends[len(ends)-1] + 1 {
		crashed := copyDir(t, r.dir)
		_ = os.Remove(filepath.Join(crashed, cursorFile)) // not written yet
		require.NoError(t, os.Truncate(segmentsIn(t, crashed)[0], size))
		after := mustOpen(t, crashed, Options{})
		whole := 0
		for whole < len(entries) && ends[whole+1] <= size {
			whole++
		}
		require.Equal(t, ends[whole], after.Bytes())
		for _, path := range segmentsIn(t, crashed) {
			info, err := os.Stat(path)
			require.NoError(t, err)
			require.Equal(t, ends[whole], info.Size())
		}
		torn := size != ends[whole]
		require.Zero(t, after.values(t)["corrupt_total"], "cut at %d", size)
		require.Equal(t, torn, strings.Contains(after.log.String(), "its sender was answered only if the disk lost what it had synced"))
		after.append(t, "new")
		got, numbers := after.drain(t)
		require.Equal(t, append(append([]string{}, entries[:whole]...), "new"), got, "cut at %d", size)
		require.EqualValues(t, whole+1, numbers[whole])
		require.NoError(t, after.Close())
	}
}

// A changed byte costs the entry that it is in and no other.
func TestCorruptByteCostsOneEntry(t *testing.T) {
	r := mustOpen(t, t.TempDir(), Options{})
	r.append(t, "first", "second", "third", "the last")
	from, to := int64(headerBytes+5), int64(2*headerBytes+11)
	for at := from; at < to; at++ {
		for _, flip := range []byte{0x01, 0x80, 0xff} {
			dir := copyDir(t, r.dir)
			flipByte(t, segmentsIn(t, dir)[0], at, flip)
			after := mustOpen(t, dir, Options{})
			after.append(t, "new")
			got, numbers := after.drain(t)
			require.Equal(t, []string{"first", "third", "the last", "new"}, got, "byte %d", at)
			require.Equal(t, []uint64{1, 3, 4, 5}, numbers)
			require.EqualValues(t, 1, after.values(t)["corrupt_total"])
			require.Contains(t, after.log.String(), "accepted entries are lost")
			require.Contains(t, after.log.String(), "from_entry=2")
			for _, n := range numbers {
				after.Ack(n)
			}
			require.Zero(t, after.Bytes())
			require.Zero(t, after.values(t)["entries"])
			require.NoError(t, after.Close())
			require.Empty(t, segmentsIn(t, dir))
		}
	}
}

// The end of a segment may be torn by a crash before anybody was answered, or damaged after it. The cursor file knows what
// was synced.
func TestDamageAtTheEndIsReportedAsLoss(t *testing.T) {
	r := mustOpen(t, t.TempDir(), Options{})
	r.append(t, "first", "second")
	from := r.Bytes()
	r.append(t, "the last")
	to := r.Bytes()
	require.NoError(t, r.Close())
	for at := from; at < to; at++ {
		for name, damage := range map[string]func(path string){
			"changed": func(path string) { flipByte(t, path, at, 0xff) },
			"cut":     func(path string) { require.NoError(t, os.Truncate(path, at)) },
		} {
			dir := copyDir(t, r.dir)
			damage(segmentsIn(t, dir)[0])
			info, err := os.Stat(segmentsIn(t, dir)[0])
			require.NoError(t, err)
			after := mustOpen(t, dir, Options{})
			require.Contains(t, after.log.String(), "accepted entries are lost", "%s at byte %d", name, at)
			require.Contains(t, after.log.String(), "from_entry=3")
			require.NotContains(t, after.log.String(), "torn")
			require.EqualValues(t, 1, after.values(t)["corrupt_total"])
			kept, err := os.Stat(segmentsIn(t, dir)[0])
			require.NoError(t, err)
			require.Equal(t, info.Size(), kept.Size(), "what is left of the entry is kept")
			after.append(t, "new")
			got, numbers := after.drain(t)
			require.Equal(t, []string{"first", "second", "new"}, got)
			require.Equal(t, []uint64{1, 2, 4}, numbers)
			for _, n := range numbers {
				after.Ack(n)
			}
			require.Zero(t, after.Bytes())
			require.Zero(t, after.values(t)["entries"])
			require.NoError(t, after.Close())
			require.Empty(t, segmentsIn(t, dir))
		}
	}
}

// Acknowledged entries are in the store: nothing is lost when they are damaged.
func TestDamageOfAcknowledgedEntriesIsNotReported(t *testing.T) {
	r := mustOpen(t, t.TempDir(), Options{})
	r.append(t, "first", "second", "third")
	_, numbers := r.drain(t)
	dir := copyDir(t, r.dir)
	for _, n := range numbers {
		r.Ack(n)
	}
	require.NoError(t, r.Close())
	cursor, err := os.ReadFile(filepath.Join(r.dir, cursorFile))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, cursorFile), cursor, 0o600))
	flipByte(t, segmentsIn(t, dir)[0], 2*headerBytes+11+headerBytes, 0xff) // in the third
	after := mustOpen(t, dir, Options{})
	require.Empty(t, after.log.String())
	require.Zero(t, after.values(t)["corrupt_total"])
	require.Zero(t, after.Bytes())
}

// A crash may leave as much as a segment of a sender's bytes behind the last intact entry. If each header in them made the
// search read as far as it pretends, the spool would take hours to open.
func TestForgedHeadersInATornTail(t *testing.T) {
	r := mustOpen(t, t.TempDir(), Options{})
	r.append(t, "first")
	dir := copyDir(t, r.dir)
	tail := make([]byte, 16<<20)
	for at := 0; at+headerBytes <= len(tail); at += headerBytes {
		binary.LittleEndian.PutUint32(tail[at:], uint32(len(tail)-at-headerBytes))
		binary.LittleEndian.PutUint64(tail[at+atNumber:], uint64(2+at%100))
	}
	f, err := os.OpenFile(segmentsIn(t, dir)[0], os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	_, err = f.Write(tail)
	require.NoError(t, errors.Join(err, f.Close()))
	after := mustOpen(t, dir, Options{})
	got, _ := after.drain(t)
	require.Equal(t, []string{"first"}, got)
	require.Zero(t, after.values(t)["corrupt_total"])
}

func flipByte(t testing.TB, path string, at int64, flip byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	require.NoError(t, err)
	b[0] ^= flip
	_, err = f.WriteAt(b, at)
	require.NoError(t, err)
}

func TestCorruption(t *testing.T) {
	const perSegment, segments = 4, 3 // entries e0 to e11 of 100 bytes each, headers included
	entry := func(i int) string { return fmt.Sprintf("%-72s", fmt.Sprint("e", i)) }
	for name, c := range map[string]struct {
		corrupt func(t *testing.T, dir string, segments []string)
		lost    []int
		count   float64
		running bool // the result is the same while the process runs
	}{
		"a range over entries":    {func(t *testing.T, _ string, s []string) { fill(t, s[1], 130, 150) }, []int{5, 6}, 1, true},
		"the start of a segment":  {func(t *testing.T, _ string, s []string) { fill(t, s[1], 0, 90) }, []int{4}, 1, true},
		"the end of a segment":    {func(t *testing.T, _ string, s []string) { fill(t, s[1], 390, 10) }, []int{7}, 1, true},
		"truncated in the middle": {func(t *testing.T, _ string, s []string) { require.NoError(t, os.Truncate(s[1], 250)) }, []int{6, 7}, 1, false},
		"two ranges":              {func(t *testing.T, _ string, s []string) { fill(t, s[0], 110, 1); fill(t, s[2], 210, 1) }, []int{1, 10}, 2, true},
		"a whole segment":         {func(t *testing.T, _ string, s []string) { fill(t, s[0], 0, 400) }, []int{0, 1, 2, 3}, 1, true},
		"an empty segment":        {func(t *testing.T, _ string, s []string) { require.NoError(t, os.Truncate(s[0], 0)) }, []int{0, 1, 2, 3}, 1, false},
		"a missing segment":       {func(t *testing.T, _ string, s []string) { require.NoError(t, os.Remove(s[1])) }, []int{4, 5, 6, 7}, 1, false},
		"the first one missing":   {func(t *testing.T, _ string, s []string) { require.NoError(t, os.Remove(s[0])) }, []int{0, 1, 2, 3}, 0, false},
		"a corrupt cursor": {func(t *testing.T, dir string, _ []string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, cursorFile), []byte("5 deadbeef\n"), 0o600))
		}, nil, 0, false},
		"other files": {func(t *testing.T, dir string, _ []string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "1.spool"), nil, 0o600))
		}, nil, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := mustOpen(t, t.TempDir(), Options{SegmentBytes: perSegment * 100})
			for i := range perSegment * segments {
				r.append(t, entry(i))
			}
			dir := copyDir(t, r.dir)
			require.Len(t, segmentsIn(t, dir), segments)
			c.corrupt(t, dir, segmentsIn(t, dir))
			var want []string
			for i := range perSegment * segments {
				if !slices.Contains(c.lost, i) {
					want = append(want, entry(i))
				}
			}
			after := mustOpen(t, dir, Options{})
			require.EqualValues(t, c.count, after.values(t)["corrupt_total"], after.log.String())
			got, numbers := after.drain(t)
			require.Equal(t, want, got)
			for _, n := range numbers {
				after.Ack(n)
			}
			require.Zero(t, after.Bytes())
			require.Zero(t, after.values(t)["entries"])

			if !c.running {
				return
			}
			c.corrupt(t, r.dir, segmentsIn(t, r.dir))
			got, numbers = r.drain(t)
			require.Equal(t, want, got)
			require.EqualValues(t, c.count, r.values(t)["corrupt_total"])
			for _, n := range numbers {
				r.Ack(n)
			}
			require.Zero(t, r.values(t)["entries"])
			r.append(t, "new")
			got, _ = r.drain(t)
			require.Equal(t, []string{"new"}, got)
		})
	}
}

// fill overwrites a range of a file.
func fill(t testing.TB, path string, from, n int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte(strings.Repeat("\xa5", int(n))), from)
	require.NoError(t, err)
}

// A payload that looks like an entry is not read as one when the entry around it is corrupt.
func TestPayloadCannotForgeAnEntry(t *testing.T) {
	r := mustOpen(t, t.TempDir(), Options{})
	inner := appendEntry(nil, []byte("forged"))
	stamp(inner, 0, 2, 0)
	r.append(t, "first", string(inner), "third")
	dir := copyDir(t, r.dir)
	flipByte(t, segmentsIn(t, dir)[0], headerBytes+5, 0xff)
	after := mustOpen(t, dir, Options{})
	got, _ := after.drain(t)
	require.Equal(t, []string{"first", "third"}, got)
}

// TestNoCrashLosesAnAcceptedEntry runs random appends, acknowledgments and restarts on a disk that may lose, when the
// machine crashes, anything that was not synced: all of it, its end, or pages in the middle.
func TestNoCrashLosesAnAcceptedEntry(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			newHistory(t, seed).run(10)
		})
	}
}

// history records what happened to the entries of a spool over several processes.
type history struct {
	t      *testing.T
	random *rand.Rand
	dir    string
	o      Options

	mu       sync.Mutex
	accepted map[string]bool
	acked    map[string]bool // not necessarily on disk
	count    int
	crashed  bool // later results do not count
}

func newHistory(t *testing.T, seed uint64) *history {
	return &history{
		t: t, random: rand.New(rand.NewPCG(seed, 7)), dir: scratch(t), o: Options{MaxBytes: 1 << 16, SegmentBytes: 1 + int64(seed*97%1500)},
		accepted: map[string]bool{}, acked: map[string]bool{},
	}
}

func (h *history) run(processes int) {
	for i := range processes {
		h.process(i == processes-1)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for e := range h.accepted {
		assert.True(h.t, h.acked[e], "%.20q was accepted and never returned", e)
	}
}

// process opens the spool, uses it, and leaves an image of the disk for the next process.
func (h *history) process(last bool) {
	t := h.t
	disk := &faulty{skipSync: true}
	h.crashed = false
	crash := make(chan string, 1) // the disk after a crash during an append
	when := h.random.IntN(30)
	share, torn := h.random.Float64(), h.random.Uint64()
	disk.sync = func() error {
		if when--; when == 0 && !last {
			h.mu.Lock()
			defer h.mu.Unlock()
			crash <- h.image(disk, share, torn)
		}
		return nil
	}
	r := mustOpenOn(t, h.dir, h.o, time.Now, disk.open)
	returned := map[string]bool{}
	latest := uint64(0)
	serials := map[int]int{} // by appender: its last returned entry
	var open []uint64
	byNumber := map[uint64]string{}
	next := func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // readable entries come at once
		defer cancel()
		if _, more, _ := r.readable(); more != nil {
			return false
		}
		e, n, err := r.Next(ctx)
		if err != nil {
			require.ErrorIs(t, err, context.DeadlineExceeded)
			return false
		}
		require.False(t, returned[string(e)], "returned twice")
		require.Greater(t, n, latest, "numbers rise")
		returned[string(e)], latest = true, n
		var appender, serial int
		_, err = fmt.Sscanf(string(e), "%d/%d ", &appender, &serial)
		require.NoError(t, err, "%q is torn", e)
		require.Greater(t, serial, serials[appender], "an appender's entries are in order")
		serials[appender] = serial
		open, byNumber[n] = append(open, n), string(e)
		return true
	}
	ackOne := func(i int) {
		h.mu.Lock()
		h.acked[byNumber[open[i]]] = true
		h.mu.Unlock()
		r.Ack(open[i])
		open = append(open[:i], open[i+1:]...)
	}
	for range 60 {
		select {
		case h.dir = <-crash:
			return
		default:
		}
		switch h.random.IntN(4) {
		case 0, 1: // concurrently
			var appending sync.WaitGroup
			for appender := range 1 + h.random.IntN(4) {
				h.count++
				e := fmt.Sprintf("%d/%d %s", appender, h.count, strings.Repeat(".", h.random.IntN(400)))
				appending.Go(func() {
					err := r.Append(t.Context(), []byte(e))
					h.mu.Lock()
					defer h.mu.Unlock()
					if h.crashed {
						return
					}
					if err == nil {
						h.accepted[e] = true
					} else {
						assert.ErrorIs(t, err, ErrFull)
					}
				})
			}
			appending.Wait()
		case 2:
			for range h.random.IntN(5) {
				next()
			}
		case 3:
			for range h.random.IntN(6) {
				if len(open) > 0 {
					ackOne(h.random.IntN(min(4, len(open))))
				}
			}
		}
	}
	select {
	case h.dir = <-crash:
		return
	default:
	}
	if !last {
		require.NoError(t, r.Close())
		return
	}
	for next() {
	}
	for len(open) > 0 {
		ackOne(0)
	}
	require.Zero(t, r.Bytes())
}

// image returns the disk after a crash during an fsync: anything that was not synced may be missing. Next returns entries
// again whose acknowledgment was not saved, so they count as not acknowledged.
func (h *history) image(disk *faulty, share float64, torn uint64) string {
	h.crashed = true
	dir := copyDir(h.t, h.dir)
	disk.mu.Lock()
	synced := maps.Clone(disk.synced)
	disk.mu.Unlock()
	random := rand.New(rand.NewPCG(torn, 3))
	for _, path := range segmentsIn(h.t, dir) {
		safe, open := synced[filepath.Join(h.dir, filepath.Base(path))]
		info, err := os.Stat(path)
		require.NoError(h.t, err)
		if !open && !strings.HasSuffix(path, lastOf(segmentsIn(h.t, dir))) || info.Size() == safe {
			continue
		}
		unsynced := info.Size() - safe
		switch random.IntN(3) {
		case 0:
			require.NoError(h.t, os.Truncate(path, safe+int64(share*float64(unsynced))))
		case 1:
			flipByte(h.t, path, safe+int64(share*float64(unsynced)), 1<<random.IntN(8))
		case 2:
			from := safe + int64(share*float64(unsynced))
			zero(h.t, path, from, min(info.Size()-from, 1+int64(random.IntN(300))))
		}
	}
	for e := range h.acked { // Next returns them again
		if h.accepted[e] && h.unacked(dir, e) {
			delete(h.acked, e)
		}
	}
	return dir
}

func lastOf(paths []string) string { return filepath.Base(paths[len(paths)-1]) }

func zero(t testing.TB, path string, from, n int64) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteAt(make([]byte, n), from)
	require.NoError(t, err)
}

// unacked reports whether an entry is after the cursor of a crashed spool, so that Next must return it again.
func (h *history) unacked(dir, e string) bool {
	var cursor uint64
	if text, err := os.ReadFile(filepath.Join(dir, cursorFile)); err == nil {
		_, err := fmt.Sscanf(string(text), "%d", &cursor)
		require.NoError(h.t, err)
	}
	for _, path := range segmentsIn(h.t, dir) {
		text, err := os.ReadFile(path)
		require.NoError(h.t, err)
		if i := strings.Index(string(text), e); i >= headerBytes {
			header := text[i-headerBytes:]
			if int(binary.LittleEndian.Uint32(header)) == len(e) && binary.LittleEndian.Uint64(header[atNumber:]) >= cursor {
				return true
			}
		}
	}
	return false
}

// asChild makes the test binary append to the spool in its working directory. It prints each accepted entry, and each
// entry, after ackPrefix, before it acknowledges it.
const (
	asChild   = "FLEET_ETL_SPOOL_TEST_CHILD"
	ackPrefix = "ack "
)

func child() int {
	s, err := Open(".", Options{MaxBytes: 1 << 30, SegmentBytes: 8 << 10}, quiet(), nil, time.Now)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	var printing sync.Mutex
	printLine := func(line string) {
		printing.Lock()
		defer printing.Unlock()
		fmt.Println(line)
	}
	start := time.Now().UnixNano()
	for appender := range 8 {
		go func() {
			for i := 0; ; i++ {
				e := fmt.Sprintf("%d-%d-%d %s", start, appender, i, strings.Repeat(".", i%300))
				if err := s.Append(context.Background(), []byte(e)); err != nil {
					panic(err)
				}
				printLine(e)
			}
		}()
	}
	for { // it never acknowledges one entry in fifty
		e, n, err := s.Next(context.Background())
		if err != nil {
			panic(err)
		}
		if n%50 == 0 {
			continue
		}
		printLine(ackPrefix + string(e))
		s.Ack(n)
	}
}

func TestKilledProcessesLoseNothing(t *testing.T) {
	dir := t.TempDir()
	accepted, acked := map[string]bool{}, map[string]bool{}
	for kill := range 8 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), asChild+"=1")
		cmd.Dir = dir
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		lines := bufio.NewReader(out)
		for n := 0; ; n++ {
			line, err := lines.ReadString('\n')
			if err != nil {
				break // killed; the process may have printed half a line
			}
			line = strings.TrimSuffix(line, "\n")
			if e, ok := strings.CutPrefix(line, ackPrefix); ok {
				acked[e] = true
			} else {
				accepted[line] = true
			}
			if n == 50+kill*37 { // some after the cursor was saved
				time.AfterFunc(time.Duration(kill)*saveInterval/4, func() { _ = cmd.Process.Kill() })
			}
		}
		require.Error(t, cmd.Wait(), "it was killed")
	}
	r := mustOpen(t, dir, Options{})
	got, _ := r.drain(t)
	returned := map[string]bool{}
	for _, e := range got {
		require.False(t, returned[e], "%q was returned twice", e)
		returned[e] = true
	}
	missing := 0
	for e := range accepted {
		if !returned[e] && !acked[e] {
			missing++
		}
	}
	require.NotEmpty(t, returned)
	require.Zero(t, missing, "of %d accepted entries, %d returned", len(accepted), len(got))
}
