package load

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// ticking is a clock that moves a second each time it is looked at.
func ticking() func() time.Time {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.FixedZone("CST", 8*3600))
	return func() time.Time { at = at.Add(time.Second); return at }
}

// linesOf gives the lines of all dead letters of a directory, the oldest first, by file.
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

// Others read these files: names and forms are a contract.
func TestADeadLetterIsALineOfJSON(t *testing.T) {
	dir := t.TempDir()
	d := NewDeadLetterFile(dir, 1<<20, ticking())
	require.NoError(t, d.Append(t.Context(), "csvfile", "day 1.csv", []pipeline.Rejected{
		refused(7, "truck-1,\"wu\nxi\",<&>,91"),
		{Rejection: telemetry.Reject(telemetry.TooLarge, "", "", "send at most 64 KiB"), Position: 8},
	}))
	require.NoError(t, d.Close())
	lines := linesOf(t, dir)
	require.Len(t, lines, 1)
	require.Len(t, lines[0], 2)
	assert.JSONEq(t, `{"time": "2026-03-01T04:00:01Z", "source": "csvfile", "origin": "day 1.csv", "position": 7, "reason": "lat_range",
		"field": "lat", "value": "91", "remedy": "give degrees from -90 to 90", "raw": "truck-1,\"wu\nxi\",<&>,91"}`, lines[0][0])
	assert.JSONEq(t, `{"time": "2026-03-01T04:00:02Z", "source": "csvfile", "origin": "day 1.csv", "position": 8, "reason": "too_large",
		"remedy": "send at most 64 KiB", "raw": ""}`, lines[0][1])
}

func TestDeadLettersAreOnDiskBeforeAppendReturns(t *testing.T) {
	dir := t.TempDir()
	d := NewDeadLetterFile(dir, 1<<20, ticking())
	for i := range int64(3) {
		require.NoError(t, d.Append(t.Context(), "s", "o", []pipeline.Rejected{refused(i, "raw")}))
		assert.Len(t, linesOf(t, dir)[0], int(i)+1, "without Close, as after a crash")
	}
	require.NoError(t, d.Close())
}

func TestNothingRefusedMakesNoFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "letters")
	d := NewDeadLetterFile(dir, 1<<20, ticking())
	require.NoError(t, d.Append(t.Context(), "s", "o", nil))
	require.NoError(t, d.Close())
	assert.NoDirExists(t, dir)
	files, err := Files(dir)
	require.NoError(t, err)
	assert.Empty(t, files)
}

func TestAFileOfDeadLettersIsPutAwayWhenItIsFull(t *testing.T) {
	one := lengthOfLetter(t)
	for name, c := range map[string]struct {
		maxSize int64
		appends []int // letters of each
		want    []int // letters of each file
	}{
		"just full":                    {3 * one, []int{1, 1, 1}, []int{3}},
		"one more":                     {3 * one, []int{1, 1, 1, 1}, []int{3, 1}},
		"a byte too few":               {3*one - 1, []int{1, 1, 1}, []int{2, 1}},
		"a batch is not cut":           {3 * one, []int{2, 2}, []int{2, 2}},
		"a batch larger than any file": {3 * one, []int{1, 10, 1}, []int{1, 10, 1}},
		"each too large for a file":    {1, []int{1, 1, 1}, []int{1, 1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d := NewDeadLetterFile(dir, c.maxSize, ticking())
			for _, n := range c.appends {
				require.NoError(t, d.Append(t.Context(), "s", "o", letters(n)))
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

func letters(n int) (all []pipeline.Rejected) {
	for range n {
		all = append(all, refused(1, "raw"))
	}
	return all
}

func lengthOfLetter(t *testing.T) int64 {
	t.Helper()
	dir := t.TempDir()
	d := NewDeadLetterFile(dir, 1<<20, ticking())
	require.NoError(t, d.Append(t.Context(), "s", "o", letters(1)))
	require.NoError(t, d.Close())
	info, err := os.Stat(d.Path())
	require.NoError(t, err)
	return info.Size()
}

// A process that starts goes on with the file that the one before left, and its size counts.
func TestDeadLettersGoOnWhereTheyWere(t *testing.T) {
	one := lengthOfLetter(t)
	dir := t.TempDir()
	clock := ticking()
	for range 5 {
		d := NewDeadLetterFile(dir, 2*one, clock)
		require.NoError(t, d.Append(t.Context(), "s", "o", letters(1)))
		require.NoError(t, d.Close())
	}
	lines := linesOf(t, dir)
	require.Len(t, lines, 3)
	assert.Len(t, lines[0], 2)
	assert.Len(t, lines[1], 2)
	assert.Len(t, lines[2], 1)
}

func TestATornLetterIsEndedOnce(t *testing.T) {
	for name, left := range map[string]string{
		"torn":                  `{"raw":"torn`,
		"torn in a character":   "{\"raw\":\"\xe6\x97",
		"whole but for its end": `{"raw":"x"}`,
		"whole":                 `{"raw":"x"}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "deadletters.ndjson"), []byte(left), 0o600))
			d := NewDeadLetterFile(dir, 1<<20, ticking())
			require.NoError(t, d.Append(t.Context(), "s", "o", letters(1)))
			require.NoError(t, d.Append(t.Context(), "s", "o", letters(1)))
			require.NoError(t, d.Close())
			lines := linesOf(t, dir)[0]
			require.Len(t, lines, 3)
			assert.Equal(t, strings.TrimSuffix(left, "\n"), lines[0], "it stays as it is")
			assert.True(t, json.Valid([]byte(lines[1])))
			assert.True(t, json.Valid([]byte(lines[2])))
		})
	}
}

func TestFilesListsDeadLettersAloneTheOldestFirst(t *testing.T) {
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

func TestDeadLettersOfSeveralPipelines(t *testing.T) {
	dir := t.TempDir()
	d := NewDeadLetterFile(dir, 2000, ticking())
	var done sync.WaitGroup
	for range 8 {
		done.Go(func() {
			for range 20 {
				assert.NoError(t, d.Append(t.Context(), "s", "o", letters(2)))
			}
		})
	}
	done.Wait()
	require.NoError(t, d.Close())
	require.NoError(t, d.Close(), "twice does no harm")
	n := 0
	for _, lines := range linesOf(t, dir) {
		for _, line := range lines {
			require.True(t, json.Valid([]byte(line)), line)
			n++
		}
	}
	assert.Equal(t, 8*20*2, n)
}

func TestADeadLetterHasTheRecordAsFarAsItIsKnown(t *testing.T) {
	dir := t.TempDir()
	d := NewDeadLetterFile(dir, 1<<20, ticking())
	r := refused(7, "truck-1;91")
	r.Fields = map[string]string{"device_id": "truck-1", "lat": "91"}
	require.NoError(t, d.Append(t.Context(), "csvfile", "a.csv", []pipeline.Rejected{r}))
	require.NoError(t, d.Close())
	var line map[string]any
	require.NoError(t, json.Unmarshal([]byte(linesOf(t, dir)[0][0]), &line))
	assert.Equal(t, map[string]any{"device_id": "truck-1", "lat": "91"}, line["record"])
}
