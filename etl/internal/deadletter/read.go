package deadletter

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
)

// Snapshot is the dead letters of a directory at one time. Entries appended later are not part of it, so that
// reprocessing does not read the dead letters that it makes.
type Snapshot struct {
	current *os.File // open from the start, since it may be rotated; nil when there is none
	end     int64    // of current
	rotated []string
	torn    int64
}

// Open takes a snapshot of a directory.
func Open(dir string) (*Snapshot, error) {
	s := &Snapshot{}
	var info os.FileInfo
	current, err := os.Open(filepath.Join(dir, currentName))
	if err == nil {
		s.current = current
		if info, err = current.Stat(); err == nil {
			s.end = info.Size()
		}
	}
	if err == nil || errors.Is(err, os.ErrNotExist) {
		s.rotated, err = Files(dir)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("read dead letters: %w", err)
	}
	s.rotated = slices.DeleteFunc(s.rotated, func(path string) bool {
		other, err := os.Stat(path)
		return filepath.Base(path) == currentName || err == nil && info != nil && os.SameFile(info, other) // rotated just now
	})
	return s, nil
}

// All returns the entries, the oldest first. An error, which names the file, comes last.
func (s *Snapshot) All() iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		var number int64
		s.torn = 0
		for _, path := range s.rotated {
			f, err := os.Open(path)
			if err != nil {
				yield(Entry{}, fmt.Errorf("read dead letters: %w", err))
				return
			}
			more := s.read(f, &number, yield)
			f.Close()
			if !more {
				return
			}
		}
		if s.current != nil {
			s.read(io.NewSectionReader(s.current, 0, s.end), &number, yield)
		}
	}
}

// Torn returns how many lines the last iteration over All skipped because a crash tore them.
func (s *Snapshot) Torn() int64 { return s.torn }

func (s *Snapshot) read(in io.Reader, number *int64, yield func(Entry, error) bool) (more bool) {
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
			if json.Unmarshal(line, &e) != nil || e.Reason == "" {
				s.torn++
			} else if !yield(e, nil) {
				return false
			}
		}
		if err == io.EOF {
			return true
		}
	}
}

// Close closes the snapshot's file.
func (s *Snapshot) Close() {
	if s.current != nil {
		s.current.Close()
	}
}
