package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Install creates a directory unless it exists. download creates its content as content and may use the rest of tmp. After a failure,
// nothing is left. If two processes install a directory at once, the first one stays.
func Install(dir string, download func(tmp, content string) error) error {
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "download-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	content := filepath.Join(tmp, "content")
	if err := download(tmp, content); err != nil {
		return err
	}
	err = os.Rename(content, dir)
	if _, exists := os.Stat(dir); exists == nil {
		return nil
	}
	return fmt.Errorf("install %s: %w", dir, err)
}
