package load

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

// DeadLetter is one refused record as a line of JSON.
type DeadLetter struct {
	Time     time.Time `json:"time"` // when it was refused
	Source   string    `json:"source"`
	Origin   string    `json:"origin"`   // file, topic, request: what position refers to
	Position int64     `json:"position"` // line, offset or index there
	Reason   string    `json:"reason"`
	Field    string    `json:"field,omitempty"`
	Value    string    `json:"value,omitempty"`
	Remedy   string    `json:"remedy"`
	Raw      string    `json:"raw"` // the record as it came

	// Record is the record by the names of telemetry.Fields, as far as the raw text could be taken apart, in texts that
	// telemetry.ParseJSON reads.
	Record map[string]string `json:"record,omitempty"`
}

const (
	deadLetterFile  = "deadletters.ndjson"
	rotatedTimeForm = "20060102T150405.000000000Z"
)

// DeadLetterFile keeps refused records in a directory: the newest in deadletters.ndjson, older ones beside it under
// the time at which they were put away. Rotated files are never removed: they are somebody's records.
type DeadLetterFile struct {
	dir     string
	maxSize int64
	now     func() time.Time

	mu   sync.Mutex
	file *os.File // nil until the first record
	size int64
}

// NewDeadLetterFile makes dead letters in dir, which is made when the first record needs it. A file that has grown to
// maxSize bytes is put away and a new one begun.
func NewDeadLetterFile(dir string, maxSize int64, now func() time.Time) *DeadLetterFile {
	return &DeadLetterFile{dir: dir, maxSize: maxSize, now: now}
}

// Path is the file that is being written.
func (d *DeadLetterFile) Path() string { return filepath.Join(d.dir, deadLetterFile) }

// Append implements pipeline.DeadLetters: it returns when the records are on disk.
func (d *DeadLetterFile) Append(_ context.Context, source, origin string, refused []pipeline.Rejected) error {
	if len(refused) == 0 {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var lines []byte
	for _, r := range refused {
		line, err := json.Marshal(DeadLetter{
			Time: d.now().UTC(), Source: source, Origin: origin, Position: r.Position,
			Reason: string(r.Reason), Field: r.Field, Value: r.Value, Remedy: r.Remedy, Raw: strings.ToValidUTF8(r.Raw, "\uFFFD"), Record: r.Fields,
		})
		if err != nil {
			return fmt.Errorf("write dead letter of %s:%d: %w", origin, r.Position, err)
		}
		lines = append(append(lines, line...), '\n')
	}
	if err := d.write(lines); err != nil {
		return fmt.Errorf("write dead letters to %s: %w", d.Path(), err)
	}
	return nil
}

func (d *DeadLetterFile) write(lines []byte) error {
	if d.file == nil {
		if err := d.open(); err != nil {
			return err
		}
	}
	if d.size > 0 && d.size+int64(len(lines)) > d.maxSize {
		if err := d.rotate(); err != nil {
			return err
		}
	}
	if _, err := d.file.Write(lines); err != nil {
		_ = d.file.Close() // it may end in half a line, which opening it anew will end
		d.file = nil
		return err
	}
	d.size += int64(len(lines))
	return d.file.Sync()
}

func (d *DeadLetterFile) open() error {
	if err := os.MkdirAll(d.dir, 0o750); err != nil {
		return err
	}
	file, err := os.OpenFile(d.Path(), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		if err := disk.SyncDir(d.dir); err != nil {
			return err
		}
	}
	d.file, d.size = file, info.Size()
	return d.endTornLine()
}

// endTornLine ends a last line that a crash cut short, so that it spoils no other.
func (d *DeadLetterFile) endTornLine() error {
	if d.size == 0 {
		return nil
	}
	last := make([]byte, 1)
	if _, err := d.file.ReadAt(last, d.size-1); err != nil {
		return err
	}
	if last[0] == '\n' {
		return nil
	}
	d.size++
	_, err := d.file.Write([]byte{'\n'})
	return err
}

func (d *DeadLetterFile) rotate() error {
	if err := d.file.Close(); err != nil {
		return err
	}
	d.file = nil
	stem := strings.TrimSuffix(d.Path(), ".ndjson") + "-" + d.now().UTC().Format(rotatedTimeForm)
	away := stem + ".ndjson"
	for n := 1; exists(away); n++ { // a clock may stand still
		away = fmt.Sprintf("%s-%03d.ndjson", stem, n)
	}
	if err := os.Rename(d.Path(), away); err != nil {
		return err
	}
	return d.open()
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Close closes the file; everything is on disk already.
func (d *DeadLetterFile) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.file == nil {
		return nil
	}
	file := d.file
	d.file = nil
	return file.Close()
}

// Files lists the dead letters of a directory, the oldest first.
func Files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	var files []string
	newest := ""
	for _, e := range entries { // sorted by name, so by time; the file that is being written has none in its name
		switch name := e.Name(); {
		case name == deadLetterFile:
			newest = filepath.Join(dir, name)
		case strings.HasPrefix(name, "deadletters-") && strings.HasSuffix(name, ".ndjson"):
			files = append(files, filepath.Join(dir, name))
		}
	}
	if newest != "" {
		files = append(files, newest)
	}
	return files, nil
}
