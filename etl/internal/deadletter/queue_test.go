package deadletter

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
)

func open(t *testing.T, dir string) *Queue {
	t.Helper()
	s, err := Open(dir, false)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

// raws returns the raw texts and IDs of the entries, and checks their numbers and IDs.
func raws(t *testing.T, s *Queue) (all []string, ids []ID) {
	t.Helper()
	seen := map[ID]bool{}
	for e, err := range s.All() {
		require.NoError(t, err)
		require.EqualValues(t, len(all)+1, e.Number)
		require.False(t, seen[e.ID])
		require.Len(t, e.ID.String(), 32)
		seen[e.ID] = true
		all, ids = append(all, e.Raw), append(ids, e.ID)
	}
	require.Zero(t, s.Torn())
	return all, ids
}

func TestEntriesAreReadInOrderAcrossFiles(t *testing.T) {
	dir := t.TempDir()
	d := newFile(dir, 3*lengthOfEntry(t), ticking())
	var want []string
	for i := range 10 {
		want = append(want, fmt.Sprint("raw", i))
		require.NoError(t, d.Append(t.Context(), "s", "o", []pipeline.Rejected{rejected(int64(i), want[i])}))
	}
	files, err := Files(dir)
	require.NoError(t, err)
	require.Greater(t, len(files), 3)
	s := open(t, dir)
	got, before := raws(t, s)
	require.Equal(t, want, got)

	// Later entries and rotations do not change the queue, and IDs do not depend on the file.
	for range 10 {
		require.NoError(t, d.Append(t.Context(), "deadletters", "deadletters", []pipeline.Rejected{rejected(1, "again")}))
	}
	require.NoError(t, d.Close())
	got, ids := raws(t, s)
	require.Equal(t, want, got)
	require.Equal(t, before, ids)
	got, ids = raws(t, open(t, dir))
	require.Len(t, got, 20)
	require.Equal(t, before, ids[:10])
}

func TestMissingDirectoryHasNoEntries(t *testing.T) {
	got, _ := raws(t, open(t, filepath.Join(t.TempDir(), "none")))
	require.Empty(t, got)
}

func TestTornLinesAreSkippedAndCounted(t *testing.T) {
	dir := t.TempDir()
	d := newFile(dir, 1<<20, ticking())
	require.NoError(t, d.Append(t.Context(), "s", "o", rejectedN(1)))
	require.NoError(t, d.Close())
	f, err := os.OpenFile(d.Path(), os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	_, err = f.WriteString(`{"time":"2026-`)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	d = newFile(dir, 1<<20, ticking())
	require.NoError(t, d.Append(t.Context(), "s", "o", rejectedN(1)))
	require.NoError(t, d.Close())
	var numbers []int64
	s := open(t, dir)
	for e, err := range s.All() {
		require.NoError(t, err)
		numbers = append(numbers, e.Number)
	}
	require.Equal(t, []int64{1, 3}, numbers)
	require.EqualValues(t, 1, s.Torn())
}

func TestReprocessedIsDurable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	a, b, c := idOf([]byte("a")), idOf([]byte("b")), idOf([]byte("c"))
	require.Empty(t, open(t, dir).reprocessed)

	q, err := Open(dir, true)
	require.NoError(t, err)
	require.NoError(t, q.MarkReprocessed(nil))
	require.NoError(t, q.MarkReprocessed([]ID{a, b}))
	assert.True(t, q.reprocessed[a] && q.reprocessed[b] && !q.reprocessed[c])
	_, err = Open(dir, true)
	require.ErrorContains(t, err, "directory "+dir+" is in use by another process")
	require.Equal(t, map[ID]bool{a: true, b: true}, open(t, dir).reprocessed, "before Close, as after a crash")
	q.Close()

	// A torn line lists nothing, and the next line is complete.
	path := filepath.Join(dir, reprocessedName)
	info, err := os.Stat(path)
	require.NoError(t, err)
	for cut := range int64(34) {
		copied := t.TempDir()
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(copied, reprocessedName), text[:info.Size()-cut], 0o600))
		q, err := Open(copied, true)
		require.NoError(t, err)
		require.NoError(t, q.MarkReprocessed([]ID{c}))
		q.Close()
		want := map[ID]bool{a: true, c: true}
		if cut <= 1 {
			want[b] = true
		}
		require.Equal(t, want, open(t, copied).reprocessed, "cut by %d", cut)
	}
}

func TestFileThatIsRemovedWhileItIsReadIsSkipped(t *testing.T) {
	dir := t.TempDir()
	d := newFile(dir, 1, ticking())
	for i := range int64(3) {
		require.NoError(t, d.Append(t.Context(), "s", "o", []pipeline.Rejected{rejected(i, fmt.Sprint("raw", i))}))
	}
	require.NoError(t, d.Close())
	q := open(t, dir)
	files, err := Files(dir)
	require.NoError(t, err)
	require.NoError(t, os.Remove(files[0]))
	got, _ := raws(t, q)
	require.Equal(t, []string{"raw1", "raw2"}, got)
}

func TestListForgetsDeadLettersThatWereRemoved(t *testing.T) {
	dir := t.TempDir()
	d := newFile(dir, 1<<20, ticking())
	require.NoError(t, d.Append(t.Context(), "s", "o", rejectedN(2)))
	require.NoError(t, d.Close())
	_, ids := raws(t, open(t, dir))
	q, err := Open(dir, true)
	require.NoError(t, err)
	removed := ids[:1:1]
	for i := range compactBytes / lineBytes {
		removed = append(removed, idOf(fmt.Append(nil, i)))
	}
	require.NoError(t, q.MarkReprocessed(removed))
	q.Close()

	q, err = Open(dir, true)
	require.NoError(t, err)
	require.Equal(t, map[ID]bool{ids[0]: true}, q.reprocessed)
	require.NoError(t, q.MarkReprocessed(ids[1:]))
	q.Close()
	require.Equal(t, map[ID]bool{ids[0]: true, ids[1]: true}, open(t, dir).reprocessed)
	info, err := os.Stat(filepath.Join(dir, reprocessedName))
	require.NoError(t, err)
	require.EqualValues(t, 2*lineBytes, info.Size())
}
