package deadletter

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/fleettracing/fleet-tracing/etl/internal/disk"
)

// reprocessedName is the file that lists the reprocessed dead letters, one ID per line. It only grows. A line that a
// crash tore lists none; its dead letter is reprocessed again, which changes nothing in the store.
const reprocessedName = "deadletters.reprocessed"

// Reprocessed records which dead letters of a directory were reprocessed: they are stored, or were rejected again as a
// new dead letter.
type Reprocessed struct {
	file *os.File // nil when it is only read
	ids  map[ID]bool
}

// OpenReprocessed opens the list of a directory, which is created when it is missing. It fails while another process has
// the list open: both would reprocess the same dead letters.
func OpenReprocessed(dir string) (_ *Reprocessed, err error) {
	r := &Reprocessed{ids: map[ID]bool{}}
	defer func() {
		if err != nil {
			r.Close()
			err = fmt.Errorf("open reprocessed dead letters: %w", err)
		}
	}()
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	if r.file, err = disk.Lock(filepath.Join(dir, reprocessedName)); err != nil {
		return nil, err
	}
	if err := readIDs(r.file, r.ids); err != nil {
		return nil, err
	}
	if info, err := r.file.Stat(); err != nil || info.Size() == 0 {
		return r, errors.Join(err, disk.SyncDir(dir))
	}
	_, err = r.file.WriteString("\n") // ends a line that a crash tore
	return r, err
}

// Has reports whether a dead letter was reprocessed.
func (r *Reprocessed) Has(id ID) bool { return r.ids[id] }

// Add adds dead letters and returns when that is on disk. It does nothing to a list that is only read.
func (r *Reprocessed) Add(ids []ID) error {
	if len(ids) == 0 || r.file == nil {
		return nil
	}
	var lines []byte
	for _, id := range ids {
		lines = append(hex.AppendEncode(lines, id[:]), '\n')
		r.ids[id] = true
	}
	_, err := r.file.Write(lines)
	if err == nil {
		err = r.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("write reprocessed dead letters: %w", err)
	}
	return nil
}

// Close releases the lock. Everything is on disk already.
func (r *Reprocessed) Close() {
	if r.file != nil {
		r.file.Close()
	}
}

// ReadReprocessed reads the list of a directory without a lock.
func ReadReprocessed(dir string) (*Reprocessed, error) {
	r := &Reprocessed{ids: map[ID]bool{}}
	f, err := os.Open(filepath.Join(dir, reprocessedName))
	if err == nil {
		defer f.Close()
		err = readIDs(f, r.ids)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read reprocessed dead letters: %w", err)
	}
	return r, nil
}

func readIDs(in io.Reader, ids map[ID]bool) error {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var id ID
		if line := lines.Bytes(); len(line) == 2*len(id) {
			if _, err := hex.Decode(id[:], line); err == nil {
				ids[id] = true
			}
		}
	}
	return lines.Err()
}
