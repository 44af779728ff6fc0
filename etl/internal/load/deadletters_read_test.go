package load

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
)

func openLetters(t *testing.T, dir string) *Letters {
	t.Helper()
	l, err := OpenLetters(dir)
	require.NoError(t, err)
	t.Cleanup(l.Close)
	return l
}

// raws are the raw texts of the letters, which must be numbered and named.
func raws(t *testing.T, l *Letters) (all []string, ids []LetterID) {
	t.Helper()
	seen := map[LetterID]bool{}
	for letter, err := range l.All() {
		require.NoError(t, err)
		require.EqualValues(t, len(all)+1, letter.Number)
		require.False(t, letter.Torn)
		require.False(t, seen[letter.ID])
		require.Len(t, letter.ID.String(), 32)
		seen[letter.ID] = true
		all, ids = append(all, letter.Raw), append(ids, letter.ID)
	}
	return all, ids
}

func TestLettersAreReadInOrderOfTimeOverAllFiles(t *testing.T) {
	dir := t.TempDir()
	d := NewDeadLetterFile(dir, 3*lengthOfLetter(t), ticking())
	var want []string
	for i := range 10 {
		want = append(want, fmt.Sprint("raw", i))
		require.NoError(t, d.Append(t.Context(), "s", "o", []pipeline.Rejected{refused(int64(i), want[i])}))
	}
	files, err := Files(dir)
	require.NoError(t, err)
	require.Greater(t, len(files), 3)
	l := openLetters(t, dir)
	got, before := raws(t, l)
	require.Equal(t, want, got)

	// What is written later, and where files are put away to meanwhile, changes nothing; nor do names depend on it.
	for range 10 {
		require.NoError(t, d.Append(t.Context(), "deadletters", "deadletters", []pipeline.Rejected{refused(1, "again")}))
	}
	require.NoError(t, d.Close())
	got, ids := raws(t, l)
	require.Equal(t, want, got)
	require.Equal(t, before, ids)
	got, ids = raws(t, openLetters(t, dir))
	require.Len(t, got, 20)
	require.Equal(t, before, ids[:10])
}

func TestLettersOfNowhere(t *testing.T) {
	got, _ := raws(t, openLetters(t, filepath.Join(t.TempDir(), "none")))
	require.Empty(t, got)
}

func TestATornLineIsNoLetter(t *testing.T) {
	dir := t.TempDir()
	d := NewDeadLetterFile(dir, 1<<20, ticking())
	require.NoError(t, d.Append(t.Context(), "s", "o", letters(1)))
	require.NoError(t, d.Close())
	f, err := os.OpenFile(d.Path(), os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	_, err = f.WriteString(`{"time":"2026-`)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	d = NewDeadLetterFile(dir, 1<<20, ticking())
	require.NoError(t, d.Append(t.Context(), "s", "o", letters(1)))
	require.NoError(t, d.Close())
	var torn []bool
	for letter, err := range openLetters(t, dir).All() {
		require.NoError(t, err)
		torn = append(torn, letter.Torn)
	}
	require.Equal(t, []bool{false, true, false}, torn)
}

func TestReplayedLettersAreNotedForGood(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made")
	a, b, c := letterID([]byte("a")), letterID([]byte("b")), letterID([]byte("c"))
	none, err := ReadReplayed(dir)
	require.NoError(t, err)
	require.Empty(t, none)

	r, err := OpenReplayed(dir)
	require.NoError(t, err)
	require.NoError(t, r.Add(nil))
	require.NoError(t, r.Add([]LetterID{a, b}))
	assert.True(t, r.Has(a) && r.Has(b) && !r.Has(c))
	_, err = OpenReplayed(dir)
	require.ErrorContains(t, err, "another process replays the dead letters of "+dir)
	noted, err := ReadReplayed(dir)
	require.NoError(t, err)
	require.Equal(t, map[LetterID]bool{a: true, b: true}, noted, "before Close, as after a crash")
	r.Close()

	// A line that a crash cut short names nothing and spoils no other.
	path := filepath.Join(dir, replayedFile)
	info, err := os.Stat(path)
	require.NoError(t, err)
	for cut := range int64(34) {
		copied := t.TempDir()
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(copied, replayedFile), text[:info.Size()-cut], 0o600))
		r, err := OpenReplayed(copied)
		require.NoError(t, err)
		require.NoError(t, r.Add([]LetterID{c}))
		r.Close()
		noted, err := ReadReplayed(copied)
		require.NoError(t, err)
		want := map[LetterID]bool{a: true, c: true}
		if cut <= 1 {
			want[b] = true
		}
		require.Equal(t, want, noted, "cut by %d", cut)
	}
}
