// Package disk makes changes of files survive a crash of the machine, waits for room on a full disk, and locks files against
// other processes.
package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// SyncDir syncs a directory after files in it were created, renamed or removed.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Lock opens a file, which is created when it is missing, for reading and appending, and locks it until it is closed.
// While another process has the lock, Lock fails at once. The system unlocks the file when the process ends.
func Lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("directory %s is in use by another process: end it, or use another directory", filepath.Dir(path))
		}
		return nil, fmt.Errorf("lock file %s: %w", path, err)
	}
	return f, nil
}

// ReplaceFile replaces the content of a file, durably and in one step: after a crash it has the old content or the new.
func ReplaceFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+newSuffix)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// newSuffix is the pattern at the end of the names of temporary files.
const newSuffix = ".new-*"

// RemoveTemporary removes temporary files that killed processes left of ReplaceFile.
func RemoveTemporary(path string) {
	left, _ := filepath.Glob(path + newSuffix)
	for _, name := range left {
		os.Remove(name)
	}
}

// Full reports whether an error says that a disk, or the quota of its user, has no room.
func Full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// WaitForRoom repeats an operation each second while the disk is full, until ctx ends. It passes to note that the disk is
// full, and nil once it is not. note may be nil.
func WaitForRoom(ctx context.Context, note func(error), do func() error) error {
	for {
		err := do()
		if note != nil && (err == nil || Full(err)) {
			note(err)
		}
		if !Full(err) {
			return err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return err
		}
	}
}

// Writer writes to a file, and waits while the disk is full.
type Writer struct {
	ctx  context.Context
	file *os.File
	note func(error)
}

// NewWriter makes a Writer. It calls note as WaitForRoom does.
func NewWriter(ctx context.Context, file *os.File, note func(error)) Writer {
	return Writer{ctx, file, note}
}

// Write implements io.Writer.
func (w Writer) Write(b []byte) (n int, err error) {
	err = WaitForRoom(w.ctx, w.note, func() error {
		more, err := w.file.Write(b[n:])
		n += more
		return err
	})
	return n, err
}
