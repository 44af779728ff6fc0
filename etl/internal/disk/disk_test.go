package disk

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLockExcludesOthersUntilClosed(t *testing.T) {
	dir := t.TempDir()
	first, err := Lock(filepath.Join(dir, "lock"))
	require.NoError(t, err)
	_, err = Lock(filepath.Join(dir, "lock"))
	require.EqualError(t, err, "directory "+dir+" is in use by another process: end it, or use another directory")
	require.NoError(t, first.Close())
	again, err := Lock(filepath.Join(dir, "lock"))
	require.NoError(t, err)
	require.NoError(t, again.Close())
}

func TestReplaceFileReplacesOrLeavesTheContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	for _, content := range []string{"old", "new"} {
		require.NoError(t, ReplaceFile(path, []byte(content)))
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, content, string(got))
	}
	require.Error(t, ReplaceFile(filepath.Join(path, "below a file"), nil))
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1, "no temporary file is left")
}

func TestRemoveTemporaryKeepsTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	require.NoError(t, ReplaceFile(path, nil))
	require.NoError(t, os.WriteFile(path+".new-123", nil, 0o600))
	RemoveTemporary(path)
	require.FileExists(t, path)
	require.NoFileExists(t, path+".new-123")
}
