package deadletter

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/fleettracing/fleet-tracing/etl/internal/disk"
)

// reprocessedName is the file that lists the reprocessed dead letters, one ID per line. A line that a crash tore lists
// none; its dead letter is reprocessed again, which changes nothing in the store.
const reprocessedName = "deadletters.reprocessed"

// Queue is the dead letters of a directory at one time, and the list of reprocessed ones: they are stored, or were
// rejected again as a new dead letter. Entries appended later are not part of it, so that reprocessing does not read the
// dead letters that it makes.
type Queue struct {
	current *os.File // open from the start, since it may be rotated; nil when there is none
	end     int64    // of current
	rotated []string
	torn    int64

	list        *os.File // locked; nil when it is only read
	reprocessed map[ID]bool
}

// Open opens a directory to list or to reprocess its dead letters. To reprocess, it creates a missing directory, and it
// fails while another process has the directory open for that: both would reprocess the same dead letters.
func Open(dir string, reprocess bool) (_ *Queue, err error) {
	q := &Queue{}
	defer func() {
		if err != nil {
			q.Close()
			err = fmt.Errorf("open dead letters: %w", err)
		}
	}()
	if err := q.readList(dir, reprocess); err != nil {
		return nil, err
	}
	var info os.FileInfo
	switch q.current, err = os.Open(filepath.Join(dir, currentName)); {
	case err == nil:
		if info, err = q.current.Stat(); err != nil {
			return nil, err
		}
		q.end = info.Size()
	case !errors.Is(err, os.ErrNotExist):
		return nil, err
	}
	if q.rotated, err = Files(dir); err != nil {
		return nil, err
	}
	q.rotated = slices.DeleteFunc(q.rotated, func(path string) bool {
		other, err := os.Stat(path)
		return filepath.Base(path) == currentName || err == nil && info != nil && os.SameFile(info, other) // rotated just now
	})
	if reprocess {
		if err := q.compact(); err != nil {
			return nil, err
		}
	}
	return q, nil
}

// compactBytes is the size from which the list is read for dead letters that were removed since.
const compactBytes = 1 << 20

// compact removes from a long list what is not in the directory any more. After a crash meanwhile, some dead letters are
// reprocessed again, which changes nothing in the store.
func (q *Queue) compact() error {
	if len(q.reprocessed)*lineBytes < compactBytes {
		return nil
	}
	kept := map[ID]bool{}
	for e, err := range q.All() {
		if err != nil {
			return err
		}
		if e.Reprocessed {
			kept[e.ID] = true
		}
	}
	if len(kept) == len(q.reprocessed) {
		return nil
	}
	q.reprocessed = map[ID]bool{}
	if err := q.list.Truncate(0); err != nil {
		return err
	}
	return q.MarkReprocessed(slices.Collect(maps.Keys(kept)))
}

// readList reads the list of reprocessed dead letters. With lock set, it can be added to.
func (q *Queue) readList(dir string, lock bool) (err error) {
	path := filepath.Join(dir, reprocessedName)
	if lock {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return err
		}
		if q.list, err = disk.Lock(path); err != nil {
			return err
		}
	}
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	q.reprocessed = parseIDs(text)
	switch {
	case !lock:
		return nil
	case len(text) == 0:
		return disk.SyncDir(dir)
	case text[len(text)-1] == '\n':
		return nil
	}
	_, err = q.list.WriteString("\n") // ends a line that a crash tore
	return err
}

// lineBytes is the length of a line of the list.
const lineBytes = 2*len(ID{}) + 1

func parseIDs(text []byte) map[ID]bool {
	ids := map[ID]bool{}
	for line := range bytes.SplitSeq(text, []byte("\n")) {
		var id ID
		if len(line) != 2*len(id) {
			continue
		}
		if _, err := hex.Decode(id[:], line); err == nil {
			ids[id] = true
		}
	}
	return ids
}

// All returns the entries, the oldest first. An error, which names the file, comes last.
func (q *Queue) All() iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		var number int64
		q.torn = 0
		for _, path := range q.rotated {
			f, err := os.Open(path)
			if errors.Is(err, os.ErrNotExist) {
				continue // removed meanwhile, as the queue is full or the file is old
			}
			if err != nil {
				yield(Entry{}, fmt.Errorf("read dead letters: %w", err))
				return
			}
			more := q.read(f, &number, yield)
			f.Close()
			if !more {
				return
			}
		}
		if q.current != nil {
			q.read(io.NewSectionReader(q.current, 0, q.end), &number, yield)
		}
	}
}

// Torn returns how many lines the last iteration over All skipped because a crash tore them.
func (q *Queue) Torn() int64 { return q.torn }

func (q *Queue) read(in io.Reader, number *int64, yield func(Entry, error) bool) (more bool) {
	lines := bufio.NewReaderSize(in, 64<<10)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil && err != io.EOF {
			yield(Entry{}, fmt.Errorf("read dead letters: %w", err))
			return false
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			*number++
			e := Entry{ID: idOf(line), Number: *number}
			e.Reprocessed = q.reprocessed[e.ID]
			if json.Unmarshal(line, &e) != nil || e.Reason == "" {
				q.torn++
			} else if !yield(e, nil) {
				return false
			}
		}
		if err == io.EOF {
			return true
		}
	}
}

// MarkReprocessed adds dead letters to the list and returns when that is on disk. It does nothing to a list that is only
// read.
func (q *Queue) MarkReprocessed(ids []ID) error {
	if len(ids) == 0 || q.list == nil {
		return nil
	}
	var lines []byte
	for _, id := range ids {
		lines = append(hex.AppendEncode(lines, id[:]), '\n')
		q.reprocessed[id] = true
	}
	_, err := q.list.Write(lines)
	if err == nil {
		err = q.list.Sync()
	}
	if err != nil {
		return fmt.Errorf("write reprocessed dead letters: %w", err)
	}
	return nil
}

// Close closes the files and releases the lock. Everything is on disk already.
func (q *Queue) Close() {
	for _, f := range []*os.File{q.current, q.list} {
		if f != nil {
			f.Close()
		}
	}
}
