package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Lock locks a directory, against this process and all others, until unlock is called. If it has to wait, it calls waiting once with
// the pid of the holder. An error of waiting ends the wait. The kernel releases the lock when the holder ends.
func Lock(ctx context.Context, dir string, waiting func(holder string) error) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for reported := false; ; reported = true {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
			err = nil
		}
		if err == nil && !reported {
			holder, _ := os.ReadFile(path)
			err = waiting(strings.TrimSpace(string(holder)))
		}
		if err == nil {
			err = Sleep(ctx, PollEvery)
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
	// The pid is only for messages. The lock works without it.
	if err := f.Truncate(0); err == nil {
		fmt.Fprintln(f, os.Getpid())
	}
	return func() { f.Close() }, nil
}

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
