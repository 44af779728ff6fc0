package deadletter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/disk"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
)

const (
	currentName = "deadletters.ndjson"
	rotatedTime = "20060102T150405.000000000Z"
)

// File appends dead letters to deadletters.ndjson in a directory and rotates it by size: a full file is renamed to the
// time of the rotation. Rotated files are never removed, since they are the only copy of the records. A File is safe for
// concurrent use.
type File struct {
	dir     string
	maxSize int64
	now     func() time.Time

	mu   sync.Mutex
	file *os.File // nil until the first entry
	size int64
}

// NewFile makes a file that is rotated before it exceeds maxSize bytes, unless one append alone does. The directory is
// created when the first entry needs it.
func NewFile(dir string, maxSize int64, now func() time.Time) *File {
	return &File{dir: dir, maxSize: maxSize, now: now}
}

// Path returns the path of the current file.
func (f *File) Path() string { return filepath.Join(f.dir, currentName) }

// Append implements pipeline.DeadLetters. It returns when the entries are on disk.
func (f *File) Append(_ context.Context, source, origin string, rejected []pipeline.Rejected) error {
	if len(rejected) == 0 {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var lines []byte
	for i := range rejected {
		line, err := json.Marshal(newEntry(f.now(), source, origin, &rejected[i]))
		if err != nil {
			return fmt.Errorf("write dead letter of %s:%d: %w", origin, rejected[i].Position, err)
		}
		lines = append(append(lines, line...), '\n')
	}
	if err := f.write(lines); err != nil {
		return fmt.Errorf("write dead letters to %s: %w", f.Path(), err)
	}
	return nil
}

func (f *File) write(lines []byte) error {
	if f.file == nil {
		if err := f.open(); err != nil {
			return err
		}
	}
	if f.size > 0 && f.size+int64(len(lines)) > f.maxSize {
		if err := f.rotate(); err != nil {
			return err
		}
	}
	if _, err := f.file.Write(lines); err != nil {
		_ = f.file.Close() // it may end in a torn line, which the next open ends
		f.file = nil
		return err
	}
	f.size += int64(len(lines))
	return f.file.Sync()
}

func (f *File) open() error {
	if err := os.MkdirAll(f.dir, 0o750); err != nil {
		return err
	}
	file, err := os.OpenFile(f.Path(), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		if err := disk.SyncDir(f.dir); err != nil {
			return err
		}
	}
	f.file, f.size = file, info.Size()
	return f.endTornLine()
}

// endTornLine ends a last line that a crash tore, so that the next entry has a line of its own.
func (f *File) endTornLine() error {
	if f.size == 0 {
		return nil
	}
	last := make([]byte, 1)
	if _, err := f.file.ReadAt(last, f.size-1); err != nil {
		return err
	}
	if last[0] == '\n' {
		return nil
	}
	f.size++
	_, err := f.file.Write([]byte{'\n'})
	return err
}

func (f *File) rotate() error {
	if err := f.file.Close(); err != nil {
		return err
	}
	f.file = nil
	stem := strings.TrimSuffix(f.Path(), ".ndjson") + "-" + f.now().UTC().Format(rotatedTime)
	rotated := stem + ".ndjson"
	for n := 1; exists(rotated); n++ { // two rotations in the same clock tick
		rotated = fmt.Sprintf("%s-%03d.ndjson", stem, n)
	}
	if err := os.Rename(f.Path(), rotated); err != nil {
		return err
	}
	return f.open()
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Close closes the file. Everything is on disk already.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return nil
	}
	file := f.file
	f.file = nil
	return file.Close()
}

// Files lists the files of a directory, the oldest first. The current file is last.
func Files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var files []string
	current := ""
	for _, e := range entries { // sorted by name, so by time
		switch name := e.Name(); {
		case name == currentName:
			current = filepath.Join(dir, name)
		case strings.HasPrefix(name, "deadletters-") && strings.HasSuffix(name, ".ndjson"):
			files = append(files, filepath.Join(dir, name))
		}
	}
	if current != "" {
		files = append(files, current)
	}
	return files, nil
}
