package deadletter

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReprocessedIsDurable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	a, b, c := idOf([]byte("a")), idOf([]byte("b")), idOf([]byte("c"))
	none, err := ReadReprocessed(dir)
	require.NoError(t, err)
	require.Empty(t, none.ids)

	r, err := OpenReprocessed(dir)
	require.NoError(t, err)
	require.NoError(t, r.Add(nil))
	require.NoError(t, r.Add([]ID{a, b}))
	assert.True(t, r.Has(a) && r.Has(b) && !r.Has(c))
	_, err = OpenReprocessed(dir)
	require.ErrorContains(t, err, "directory "+dir+" is in use by another process")
	listed, err := ReadReprocessed(dir)
	require.NoError(t, err)
	require.Equal(t, map[ID]bool{a: true, b: true}, listed.ids, "before Close, as after a crash")
	r.Close()

	// A torn line lists nothing, and the next line is complete.
	path := filepath.Join(dir, reprocessedName)
	info, err := os.Stat(path)
	require.NoError(t, err)
	for cut := range int64(34) {
		copied := t.TempDir()
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(copied, reprocessedName), text[:info.Size()-cut], 0o600))
		r, err := OpenReprocessed(copied)
		require.NoError(t, err)
		require.NoError(t, r.Add([]ID{c}))
		r.Close()
		listed, err := ReadReprocessed(copied)
		require.NoError(t, err)
		want := map[ID]bool{a: true, c: true}
		if cut <= 1 {
			want[b] = true
		}
		require.Equal(t, want, listed.ids, "cut by %d", cut)
	}
}
