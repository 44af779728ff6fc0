package deadletter

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/dev/testenv"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// ticking returns a clock that advances by 1 s per call.
func ticking() func() time.Time {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.FixedZone("CST", 8*3600))
	return func() time.Time { at = at.Add(time.Second); return at }
}

func quiet() logrus.FieldLogger {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	return logger
}

// newFile makes a File that keeps everything, with another size of its files.
func newFile(dir string, fileBytes int64, now func() time.Time) *File {
	f := NewFile(dir, Limits{Bytes: 1 << 40}, quiet(), nil, now)
	f.fileBytes = fileBytes
	return f
}

// linesOf returns the lines of a directory, by file, the oldest first.
func linesOf(t *testing.T, dir string) (lines [][]string) {
	t.Helper()
	files, err := Files(dir)
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		require.True(t, strings.HasSuffix(string(text), "\n"), "%s ends with a line", file)
		lines = append(lines, strings.Split(strings.TrimSuffix(string(text), "\n"), "\n"))
	}
	return lines
}

// Other programs read these files: names and formats are a contract.
func TestEntryIsALineOfJSON(t *testing.T) {
	dir := t.TempDir()
	d := newFile(dir, 1<<20, ticking())
	require.NoError(t, d.Append(t.Context(), "csvfile", "day 1.csv", []pipeline.Rejected{
		rejected(7, "truck-1,\"wu\nxi\",<&>,91"),
		{Rejection: telemetry.Reject(telemetry.TooLarge, "", "", "send at most 64 KiB"), Sender: "wuxi", Position: 8},
	}))
	require.NoError(t, d.Close())
	lines := linesOf(t, dir)
	require.Len(t, lines, 1)
	require.Len(t, lines[0], 2)
	assert.JSONEq(t, `{"time": "2026-03-01T04:00:01Z", "source": "csvfile", "origin": "day 1.csv", "position": 7, "reason": "lat_range",
		"field": "lat", "value": "91", "remedy": "give degrees from -90 to 90", "raw": "truck-1,\"wu\nxi\",<&>,91"}`, lines[0][0])
	assert.JSONEq(t, `{"time": "2026-03-01T04:00:02Z", "source": "csvfile", "origin": "day 1.csv", "position": 8, "reason": "too_large",
		"sender": "wuxi", "remedy": "send at most 64 KiB", "raw": ""}`, lines[0][1])
}

func TestAppendReturnsWhenEntriesAreOnDisk(t *testing.T) {
	dir := t.TempDir()
	d := newFile(dir, 1<<20, ticking())
	for i := range int64(3) {
		require.NoError(t, d.Append(t.Context(), "s", "o", []pipeline.Rejected{rejected(i, "raw")}))
		assert.Len(t, linesOf(t, dir)[0], int(i)+1, "without Close, as after a crash")
	}
	require.NoError(t, d.Close())
}

func TestAppendOfNothingCreatesNoFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "letters")
	d := newFile(dir, 1<<20, ticking())
	require.NoError(t, d.Append(t.Context(), "s", "o", nil))
	require.NoError(t, d.Close())
	assert.NoDirExists(t, dir)
	files, err := Files(dir)
	require.NoError(t, err)
	assert.Empty(t, files)
}

func TestFullFileIsRotated(t *testing.T) {
	one := lengthOfEntry(t)
	for name, c := range map[string]struct {
		maxSize int64
		appends []int // entries per append
		want    []int // entries per file
	}{
		"just full":                    {3 * one, []int{1, 1, 1}, []int{3}},
		"one more":                     {3 * one, []int{1, 1, 1, 1}, []int{3, 1}},
		"a byte too few":               {3*one - 1, []int{1, 1, 1}, []int{2, 1}},
		"a batch is not split":         {3 * one, []int{2, 2}, []int{2, 2}},
		"a batch larger than any file": {3 * one, []int{1, 10, 1}, []int{1, 10, 1}},
		"each too large for a file":    {1, []int{1, 1, 1}, []int{1, 1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d := newFile(dir, c.maxSize, ticking())
			for _, n := range c.appends {
				require.NoError(t, d.Append(t.Context(), "s", "o", rejectedN(n)))
			}
			require.NoError(t, d.Close())
			var got []int
			for _, lines := range linesOf(t, dir) {
				got = append(got, len(lines))
			}
			assert.Equal(t, c.want, got)
		})
	}
}

func rejectedN(n int) (all []pipeline.Rejected) {
	for range n {
		all = append(all, rejected(1, "raw"))
	}
	return all
}

func lengthOfEntry(t *testing.T) int64 {
	t.Helper()
	dir := t.TempDir()
	d := newFile(dir, 1<<20, ticking())
	require.NoError(t, d.Append(t.Context(), "s", "o", rejectedN(1)))
	require.NoError(t, d.Close())
	info, err := os.Stat(d.Path())
	require.NoError(t, err)
	return info.Size()
}

// The file of the previous process counts towards the size limit.
func TestFileIsContinuedAfterRestart(t *testing.T) {
	one := lengthOfEntry(t)
	dir := t.TempDir()
	clock := ticking()
	for range 5 {
		d := newFile(dir, 2*one, clock)
		require.NoError(t, d.Append(t.Context(), "s", "o", rejectedN(1)))
		require.NoError(t, d.Close())
	}
	lines := linesOf(t, dir)
	require.Len(t, lines, 3)
	assert.Len(t, lines[0], 2)
	assert.Len(t, lines[1], 2)
	assert.Len(t, lines[2], 1)
}

func TestTornLineIsEndedOnce(t *testing.T) {
	for name, left := range map[string]string{
		"torn":                  `{"raw":"torn`,
		"torn in a character":   "{\"raw\":\"\xe6\x97",
		"whole but for its end": `{"raw":"x"}`,
		"whole":                 `{"raw":"x"}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "deadletters.ndjson"), []byte(left), 0o600))
			d := newFile(dir, 1<<20, ticking())
			require.NoError(t, d.Append(t.Context(), "s", "o", rejectedN(1)))
			require.NoError(t, d.Append(t.Context(), "s", "o", rejectedN(1)))
			require.NoError(t, d.Close())
			lines := linesOf(t, dir)[0]
			require.Len(t, lines, 3)
			assert.Equal(t, strings.TrimSuffix(left, "\n"), lines[0], "the torn line is unchanged")
			assert.True(t, json.Valid([]byte(lines[1])))
			assert.True(t, json.Valid([]byte(lines[2])))
		})
	}
}

func TestFilesAreListedOldestFirst(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{
		"deadletters.ndjson", "deadletters-20260301T120000.000000000Z.ndjson", "deadletters-20251231T235959.999999999Z.ndjson",
		"deadletters-20260301T120000.000000001Z.ndjson", "checkpoint.json", "deadletters.txt", "old.ndjson",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	files, err := Files(dir)
	require.NoError(t, err)
	for i := range files {
		files[i] = filepath.Base(files[i])
	}
	assert.Equal(t, []string{
		"deadletters-20251231T235959.999999999Z.ndjson", "deadletters-20260301T120000.000000000Z.ndjson",
		"deadletters-20260301T120000.000000001Z.ndjson", "deadletters.ndjson",
	}, files)
}

func TestFileIsSafeForConcurrentUse(t *testing.T) {
	dir := t.TempDir()
	d := newFile(dir, 2000, ticking())
	var done sync.WaitGroup
	for range 8 {
		done.Go(func() {
			for range 20 {
				assert.NoError(t, d.Append(t.Context(), "s", "o", rejectedN(2)))
			}
		})
	}
	done.Wait()
	require.NoError(t, d.Close())
	require.NoError(t, d.Close(), "closing twice is allowed")
	n := 0
	for _, lines := range linesOf(t, dir) {
		for _, line := range lines {
			require.True(t, json.Valid([]byte(line)), line)
			n++
		}
	}
	assert.Equal(t, 8*20*2, n)
}

func TestEntryHasTheParsedFields(t *testing.T) {
	dir := t.TempDir()
	d := newFile(dir, 1<<20, ticking())
	r := rejected(7, "truck-1;91")
	r.Fields = map[string]string{"device_id": "truck-1", "lat": "91"}
	require.NoError(t, d.Append(t.Context(), "csvfile", "a.csv", []pipeline.Rejected{r}))
	require.NoError(t, d.Close())
	var line map[string]any
	require.NoError(t, json.Unmarshal([]byte(linesOf(t, dir)[0][0]), &line))
	assert.Equal(t, map[string]any{"device_id": "truck-1", "lat": "91"}, line["record"])
}

func rejected(position int64, raw string) pipeline.Rejected {
	return pipeline.Rejected{Rejection: telemetry.Reject(telemetry.LatRange, "lat", "91", "give degrees from -90 to 90"), Position: position, Raw: raw}
}

func TestAppendWaitsUntilItCanWrite(t *testing.T) {
	for name, fault := range map[string]func(t *testing.T) (dir string, repair func()){
		"the disk is full": func(t *testing.T) (string, func()) {
			small := testenv.NewSmallDisk(t, 64)
			small.Fill()
			return small.Dir, small.Free
		},
		"the directory can't be made": func(t *testing.T) (string, func()) {
			dir := filepath.Join(t.TempDir(), "file")
			require.NoError(t, os.WriteFile(dir, nil, 0o600))
			return dir, func() { require.NoError(t, os.Remove(dir)) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, repair := fault(t)
			synctest.Test(t, func(t *testing.T) {
				for range 2 { // also after a restart
					d := newFile(dir, 1<<20, time.Now)
					stopped, cancel := context.WithTimeout(t.Context(), time.Hour)
					defer cancel()
					err := d.Append(stopped, "s", "o", rejectedN(1))
					require.ErrorIs(t, err, context.DeadlineExceeded)
					require.ErrorContains(t, err, "write dead letters to "+dir)
					require.InDelta(t, 3600, testutil.ToFloat64(d.metrics.errors), 1, "it tried again each second")
					require.NoError(t, d.Close())
				}
				d := newFile(dir, 1<<20, time.Now)
				appended := make(chan error, 2)
				for range 2 {
					go func() { appended <- d.Append(t.Context(), "s", "o", rejectedN(100)) }()
				}
				time.Sleep(time.Hour)
				require.Empty(t, appended)
				repair()
				time.Sleep(time.Minute)
				require.NoError(t, <-appended)
				require.NoError(t, <-appended)
				require.NoError(t, d.Close())
				require.Len(t, linesOf(t, dir)[0], 200, "nothing is torn or twice")
			})
		})
	}
}

func TestOldestDeadLettersAreRemovedBySize(t *testing.T) {
	one := lengthOfEntry(t)
	dir := t.TempDir()
	limits := Limits{Bytes: 8 * 3 * one}
	reg := prometheus.NewPedanticRegistry()
	d := NewFile(dir, limits, quiet(), reg, ticking())
	for i := range int64(100) {
		require.NoError(t, d.Append(t.Context(), "s", "o", []pipeline.Rejected{rejected(i%10, fmt.Sprintf("r%02d", i))}))
		require.LessOrEqual(t, sizeOf(dir), limits.Bytes)
	}
	require.NoError(t, d.Close())
	var lines []string
	for _, file := range linesOf(t, dir) {
		lines = append(lines, file...)
	}
	require.Greater(t, len(lines), 18, "little more is removed than must be")
	require.Contains(t, lines[len(lines)-1], `"r99"`)
	require.Contains(t, lines[0], fmt.Sprintf(`"r%02d"`, 100-len(lines)), "the newest are left")
	removed := testutil.ToFloat64(d.metrics.removed[removedSize])
	require.EqualValues(t, 100*one, removed+float64(sizeOf(dir)))
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(fmt.Sprintf(`
# HELP fleet_etl_dead_letter_bytes Bytes of the dead-letter files, up to fleet_etl_dead_letter_capacity_bytes.
# TYPE fleet_etl_dead_letter_bytes gauge
fleet_etl_dead_letter_bytes %d
`, sizeOf(dir))), "fleet_etl_dead_letter_bytes"))
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, problems)
}

func TestOldDeadLettersAreRemovedByAge(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	d := NewFile(dir, Limits{Bytes: 1 << 30, Age: 72 * time.Hour}, quiet(), nil, func() time.Time { return now })
	count := func() (n int) {
		t.Helper()
		files, err := Files(dir)
		require.NoError(t, err)
		for _, file := range files {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			n += strings.Count(string(text), "\n")
		}
		return n
	}
	require.NoError(t, d.maintain(), "nothing is there yet")
	require.NoDirExists(t, filepath.Join(dir, "deadletters.ndjson"))
	for range 5 { // one per 12 hours: the first, after two days, is in a file of its day
		require.NoError(t, d.Append(t.Context(), "s", "o", rejectedN(1)))
		require.NoError(t, os.Chtimes(d.Path(), now, now))
		now = now.Add(12 * time.Hour)
	}
	require.Equal(t, 5, count())
	require.NoError(t, d.Close())

	d = NewFile(dir, Limits{Bytes: 1 << 30, Age: 72 * time.Hour}, quiet(), nil, func() time.Time { return now })
	require.NoError(t, d.maintain())
	require.Equal(t, 5, count(), "none is older than three days")
	now = now.Add(49 * time.Hour) // the first is 109 hours old, the last 61
	require.NoError(t, d.maintain())
	require.Equal(t, 2, count())
	now = now.Add(25 * time.Hour)
	require.NoError(t, d.maintain(), "without a new dead letter")
	require.Zero(t, count())
	require.Positive(t, testutil.ToFloat64(d.metrics.removed[removedAge]))
	require.Zero(t, testutil.ToFloat64(d.metrics.removed[removedSize]))
}

// A load and a run may share a directory, and an operator may remove files.
func TestFileFollowsItsName(t *testing.T) {
	one := lengthOfEntry(t)
	dir := t.TempDir()
	first, second := newFile(dir, 2*one, ticking()), newFile(dir, 2*one, ticking())
	require.NoError(t, first.Append(t.Context(), "s", "o", rejectedN(1)))
	require.NoError(t, second.Append(t.Context(), "s", "o", rejectedN(2)), "it rotates the file of the first")
	require.NoError(t, first.Append(t.Context(), "s", "o", rejectedN(1)))
	require.Len(t, linesOf(t, dir)[0], 1, "nothing is added to a rotated file, which may be removed at any time")
	require.NoError(t, os.Remove(first.Path()))
	require.NoError(t, first.Append(t.Context(), "s", "o", rejectedN(1)))
	require.FileExists(t, first.Path())
	require.NoError(t, first.Close())
	require.NoError(t, second.Close())
}

func TestRotationOverwritesNoFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state[1]")
	at := time.Now()
	d := newFile(dir, 1, func() time.Time { return at }) // each entry fills a file, and the clock does not advance
	for i := range int64(5) {
		require.NoError(t, d.Append(t.Context(), "s", "o", []pipeline.Rejected{rejected(i, "raw")}))
	}
	require.NoError(t, d.Close())
	files, err := Files(dir)
	require.NoError(t, err)
	require.Len(t, files, 5)
}
