package spool

import (
	"bufio"
	"context"
	"encoding/binary"
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

func TestATornTailIsCutOffAtAnyByte(t *testing.T) {
	r := mustOpen(t, t.TempDir(), Options{})
	entries := []string{"first", "", "the third one", "x"}
	ends := []int64{0}
	for _, e := range entries {
		r.append(t, e)
		ends = append(ends, r.Bytes())
	}
	for size := range ends[len(ends)-1] + 1 {
		crashed := copyDir(t, r.dir)
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
		require.Equal(t, torn, after.values(t)["corrupt_total"] == 1, "cut at %d", size)
		require.Equal(t, torn, strings.Contains(after.log.String(), "torn entry"))
		after.append(t, "new")
		got, numbers := after.given(t)
		require.Equal(t, append(append([]string{}, entries[:whole]...), "new"), got, "cut at %d", size)
		require.EqualValues(t, whole+1, numbers[whole])
		require.NoError(t, after.Close())
	}
}

// Whatever a byte in the middle becomes, it costs the entry that it is in and no other.
func TestDamageCostsOneEntry(t *testing.T) {
	r := mustOpen(t, t.TempDir(), Options{})
	r.append(t, "first", "second", "third", "the last")
	from, to := int64(headerBytes+5), int64(2*headerBytes+11)
	for at := from; at < to; at++ {
		for _, flip := range []byte{0x01, 0x80, 0xff} {
			dir := copyDir(t, r.dir)
			flipByte(t, segmentsIn(t, dir)[0], at, flip)
			after := mustOpen(t, dir, Options{})
			after.append(t, "new")
			got, numbers := after.given(t)
			require.Equal(t, []string{"first", "third", "the last", "new"}, got, "byte %d", at)
			require.Equal(t, []uint64{1, 3, 4, 5}, numbers)
			require.EqualValues(t, 1, after.values(t)["corrupt_total"])
			require.Contains(t, after.log.String(), "entries that were accepted are lost")
			require.Contains(t, after.log.String(), "from_entry=2")
			for _, n := range numbers {
				after.Done(n)
			}
			require.Zero(t, after.Bytes())
			require.Zero(t, after.values(t)["entries"])
			require.NoError(t, after.Close())
			require.Empty(t, segmentsIn(t, dir))
		}
	}
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

func TestDamageOfManyKinds(t *testing.T) {
	const perSegment, segments = 4, 3 // entries e0 to e11, of 100 bytes each with their headers
	entry := func(i int) string { return fmt.Sprintf("%-76s", fmt.Sprint("e", i)) }
	for name, c := range map[string]struct {
		spoil   func(t *testing.T, dir string, segments []string)
		lost    []int
		corrupt float64
		running bool // it is the same when it happens under a running process
	}{
		"a stretch over entries": {func(t *testing.T, _ string, s []string) { fill(t, s[1], 130, 150) }, []int{5, 6}, 1, true},
		"a segment's beginning":  {func(t *testing.T, _ string, s []string) { fill(t, s[1], 0, 90) }, []int{4}, 1, true},
		"a segment's end":        {func(t *testing.T, _ string, s []string) { fill(t, s[1], 390, 10) }, []int{7}, 1, true},
		"cut in the middle":      {func(t *testing.T, _ string, s []string) { require.NoError(t, os.Truncate(s[1], 250)) }, []int{6, 7}, 1, false},
		"two places":             {func(t *testing.T, _ string, s []string) { fill(t, s[0], 110, 1); fill(t, s[2], 310, 1) }, []int{1, 11}, 2, true},
		"a whole segment":        {func(t *testing.T, _ string, s []string) { fill(t, s[0], 0, 400) }, []int{0, 1, 2, 3}, 1, true},
		"an empty segment":       {func(t *testing.T, _ string, s []string) { require.NoError(t, os.Truncate(s[0], 0)) }, []int{0, 1, 2, 3}, 1, false},
		"a segment gone":         {func(t *testing.T, _ string, s []string) { require.NoError(t, os.Remove(s[1])) }, []int{4, 5, 6, 7}, 1, false},
		"the first one gone":     {func(t *testing.T, _ string, s []string) { require.NoError(t, os.Remove(s[0])) }, []int{0, 1, 2, 3}, 0, false},
		"a mark of nonsense": {func(t *testing.T, dir string, _ []string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, markFile), []byte("5 deadbeef\n"), 0o600))
		}, nil, 1, false},
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
			c.spoil(t, dir, segmentsIn(t, dir))
			var want []string
			for i := range perSegment * segments {
				if !slices.Contains(c.lost, i) {
					want = append(want, entry(i))
				}
			}
			after := mustOpen(t, dir, Options{})
			require.EqualValues(t, c.corrupt, after.values(t)["corrupt_total"], after.log.String())
			got, numbers := after.given(t)
			require.Equal(t, want, got)
			for _, n := range numbers {
				after.Done(n)
			}
			require.Zero(t, after.Bytes())
			require.Zero(t, after.values(t)["entries"])

			if !c.running {
				return
			}
			c.spoil(t, r.dir, segmentsIn(t, r.dir))
			got, numbers = r.given(t)
			require.Equal(t, want, got)
			require.EqualValues(t, c.corrupt, r.values(t)["corrupt_total"])
			for _, n := range numbers {
				r.Done(n)
			}
			require.Zero(t, r.values(t)["entries"])
			r.append(t, "it goes on")
			got, _ = r.given(t)
			require.Equal(t, []string{"it goes on"}, got)
		})
	}
}

// fill overwrites a stretch of a file.
func fill(t testing.TB, path string, from, n int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte(strings.Repeat("\xa5", int(n))), from)
	require.NoError(t, err)
}

// Who sends can't forge an entry that comes to light when the one around it is damaged.
func TestAPayloadDoesNotPassForAnEntry(t *testing.T) {
	r := mustOpen(t, t.TempDir(), Options{})
	inner := appendEntry(nil, []byte("forged"))
	stamp(inner, 0, 2, 0)
	r.append(t, "first", string(inner), "third")
	dir := copyDir(t, r.dir)
	flipByte(t, segmentsIn(t, dir)[0], headerBytes+5, 0xff)
	after := mustOpen(t, dir, Options{})
	got, _ := after.given(t)
	require.Equal(t, []string{"first", "third"}, got)
}

// TestNoCrashLosesAnAcceptedEntry plays appends, dones and restarts at random on a disk that may lose, when the machine
// fails, anything that was not synced: all of it, its end, or pages in its midst.
func TestNoCrashLosesAnAcceptedEntry(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			newHistory(t, seed).play(10)
		})
	}
}

// history is what happened to the entries of a spool over its lives.
type history struct {
	t    *testing.T
	dice *rand.Rand
	dir  string
	o    Options

	mu       sync.Mutex
	accepted map[string]bool
	done     map[string]bool // told so, not necessarily on disk
	count    int
	crashed  bool // what comes now comes too late
}

func newHistory(t *testing.T, seed uint64) *history {
	return &history{
		t: t, dice: rand.New(rand.NewPCG(seed, 7)), dir: scratch(t), o: Options{MaxBytes: 1 << 16, SegmentBytes: 1 + int64(seed*97%1500)},
		accepted: map[string]bool{}, done: map[string]bool{},
	}
}

func (h *history) play(lives int) {
	for life := range lives {
		h.live(life == lives-1)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for e := range h.accepted {
		assert.True(h.t, h.done[e], "%.20q was accepted and never given", e)
	}
}

// live opens the spool, works on it, and leaves an image of the disk for the next life.
func (h *history) live(last bool) {
	t := h.t
	disk := &faulty{untrue: true}
	h.crashed = false
	crash := make(chan string, 1) // the image of a crash amid an append
	when := h.dice.IntN(30)
	share, torn := h.dice.Float64(), h.dice.Uint64()
	disk.sync = func() error {
		if when--; when == 0 && !last {
			h.mu.Lock()
			defer h.mu.Unlock()
			crash <- h.image(disk, share, torn)
		}
		return nil
	}
	r := mustOpenOn(t, h.dir, h.o, time.Now, disk.open)
	given := map[string]bool{}
	latest := uint64(0)
	place := map[int]int{} // by appender: the last of its entries that was given
	var open []uint64
	byNumber := map[uint64]string{}
	take := func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // what is readable comes at once
		defer cancel()
		if _, more, _ := r.readable(); more != nil {
			return false
		}
		e, n, err := r.Next(ctx)
		if err != nil {
			require.ErrorIs(t, err, context.DeadlineExceeded)
			return false
		}
		require.False(t, given[string(e)], "given twice")
		require.Greater(t, n, latest, "numbers rise")
		given[string(e)], latest = true, n
		var appender, serial int
		_, err = fmt.Sscanf(string(e), "%d/%d ", &appender, &serial)
		require.NoError(t, err, "%q is torn", e)
		require.Greater(t, serial, place[appender], "an appender's entries are in order")
		place[appender] = serial
		open, byNumber[n] = append(open, n), string(e)
		return true
	}
	finish := func(i int) {
		h.mu.Lock()
		h.done[byNumber[open[i]]] = true
		h.mu.Unlock()
		r.Done(open[i])
		open = append(open[:i], open[i+1:]...)
	}
	for range 60 {
		select {
		case h.dir = <-crash:
			return
		default:
		}
		switch h.dice.IntN(4) {
		case 0, 1: // some at once
			var appending sync.WaitGroup
			for appender := range 1 + h.dice.IntN(4) {
				h.count++
				e := fmt.Sprintf("%d/%d %s", appender, h.count, strings.Repeat(".", h.dice.IntN(400)))
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
			for range h.dice.IntN(5) {
				take()
			}
		case 3:
			for range h.dice.IntN(6) {
				if len(open) > 0 {
					finish(h.dice.IntN(min(4, len(open))))
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
	for take() {
	}
	for len(open) > 0 {
		finish(0)
	}
	require.Zero(t, r.Bytes())
}

// image is the disk after the machine failed amid an fsync: of what was not synced, anything may be missing. Entries
// whose being done was not saved are given again, so they count as accepted and not done.
func (h *history) image(disk *faulty, share float64, torn uint64) string {
	h.crashed = true
	dir := copyDir(h.t, h.dir)
	disk.mu.Lock()
	synced := maps.Clone(disk.synced)
	disk.mu.Unlock()
	dice := rand.New(rand.NewPCG(torn, 3))
	for _, path := range segmentsIn(h.t, dir) {
		safe, mine := synced[filepath.Join(h.dir, filepath.Base(path))]
		info, err := os.Stat(path)
		require.NoError(h.t, err)
		if !mine && !strings.HasSuffix(path, lastOf(segmentsIn(h.t, dir))) || info.Size() == safe {
			continue
		}
		unsynced := info.Size() - safe
		switch dice.IntN(3) {
		case 0:
			require.NoError(h.t, os.Truncate(path, safe+int64(share*float64(unsynced))))
		case 1:
			flipByte(h.t, path, safe+int64(share*float64(unsynced)), 1<<dice.IntN(8))
		case 2:
			from := safe + int64(share*float64(unsynced))
			zero(h.t, path, from, min(info.Size()-from, 1+int64(dice.IntN(300))))
		}
	}
	for e := range h.done { // given again at the most
		if h.accepted[e] && h.stillThere(dir, e) {
			delete(h.done, e)
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

// stillThere tells whether an entry is behind the mark of a crashed spool, and so has to be given again.
func (h *history) stillThere(dir, e string) bool {
	var mark uint64
	if text, err := os.ReadFile(filepath.Join(dir, markFile)); err == nil {
		_, err := fmt.Sscanf(string(text), "%d", &mark)
		require.NoError(h.t, err)
	}
	for _, path := range segmentsIn(h.t, dir) {
		text, err := os.ReadFile(path)
		require.NoError(h.t, err)
		if i := strings.Index(string(text), e); i >= headerBytes {
			header := text[i-headerBytes:]
			if int(binary.LittleEndian.Uint32(header)) == len(e) && binary.LittleEndian.Uint64(header[atNumber:]) >= mark {
				return true
			}
		}
	}
	return false
}

// asChild makes the test binary append to the spool in its working directory, and print each entry that is accepted, and
// each, after didPrefix, before it is done.
const (
	asChild   = "FLEET_ETL_SPOOL_TEST_CHILD"
	didPrefix = "did "
)

func child() int {
	s, err := Open(".", Options{MaxBytes: 1 << 30, SegmentBytes: 8 << 10}, quiet(), nil, time.Now)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	var printing sync.Mutex
	tell := func(line string) {
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
				tell(e)
			}
		}()
	}
	for { // of what it reads, one in fifty is never done
		e, n, err := s.Next(context.Background())
		if err != nil {
			panic(err)
		}
		if n%50 == 0 {
			continue
		}
		tell(didPrefix + string(e))
		s.Done(n)
	}
}

func TestKilledProcessesLoseNothing(t *testing.T) {
	dir := t.TempDir()
	accepted, did := map[string]bool{}, map[string]bool{}
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
				break // dead; half a line was never promised
			}
			line = strings.TrimSuffix(line, "\n")
			if e, ok := strings.CutPrefix(line, didPrefix); ok {
				did[e] = true
			} else {
				accepted[line] = true
			}
			if n == 50+kill*37 { // some die after the mark was saved
				time.AfterFunc(time.Duration(kill)*saveEvery/4, func() { _ = cmd.Process.Kill() })
			}
		}
		require.Error(t, cmd.Wait(), "it was killed")
	}
	r := mustOpen(t, dir, Options{})
	got, _ := r.given(t)
	given := map[string]bool{}
	for _, e := range got {
		require.False(t, given[e], "%q is given twice", e)
		given[e] = true
	}
	missing := 0
	for e := range accepted {
		if !given[e] && !did[e] {
			missing++
		}
	}
	require.NotEmpty(t, given)
	require.Zero(t, missing, "of %d accepted, %d given", len(accepted), len(got))
}
