package load

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"syscall"

	"github.com/fleettracing/fleet-tracing/etl/internal/disk"
)

// LetterID names a dead letter whatever file it lies in: it is a hash of its line.
type LetterID [16]byte

// String gives 32 hexadecimal digits.
func (id LetterID) String() string { return hex.EncodeToString(id[:]) }

func letterID(line []byte) (id LetterID) {
	sum := sha256.Sum256(line)
	copy(id[:], sum[:])
	return id
}

// Letter is a dead letter as it was read.
type Letter struct {
	DeadLetter
	ID     LetterID
	Number int64 // its place among all letters of the directory, from 1
	File   string
	Torn   bool // the line is no dead letter: a crash cut it short; only Number and File count then
}

// Letters are the dead letters of a directory as they were at one time: what is written later is not among them, so who
// replays letters doesn't meet those that come of it.
type Letters struct {
	newest *os.File // opened at once, since it may be put away under another name; nil when there is none
	end    int64    // of newest
	older  []string
}

// OpenLetters finds the dead letters of a directory.
func OpenLetters(dir string) (*Letters, error) {
	l := &Letters{}
	newest, err := os.Open(filepath.Join(dir, deadLetterFile))
	var info os.FileInfo
	if err == nil {
		l.newest = newest
		info, err = newest.Stat()
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		l.Close()
		return nil, fmt.Errorf("read dead letters: %w", err)
	}
	files, err := Files(dir)
	if err != nil {
		l.Close()
		return nil, err
	}
	for _, path := range files {
		if filepath.Base(path) == deadLetterFile {
			continue
		}
		if other, err := os.Stat(path); err == nil && info != nil && os.SameFile(info, other) {
			continue // it was put away just now
		}
		l.older = append(l.older, path)
	}
	if info != nil {
		l.end = info.Size()
	}
	return l, nil
}

// All gives the letters, the oldest first. An error, which names the file, comes last.
func (l *Letters) All() iter.Seq2[Letter, error] {
	return func(yield func(Letter, error) bool) {
		var number int64
		for _, path := range l.older {
			f, err := os.Open(path)
			if err != nil {
				yield(Letter{}, fmt.Errorf("read dead letters: %w", err))
				return
			}
			more := readLetters(f, path, &number, yield)
			f.Close()
			if !more {
				return
			}
		}
		if l.newest != nil {
			readLetters(io.NewSectionReader(l.newest, 0, l.end), l.newest.Name(), &number, yield)
		}
	}
}

func readLetters(in io.Reader, path string, number *int64, yield func(Letter, error) bool) (more bool) {
	lines := bufio.NewReaderSize(in, 64<<10)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil && err != io.EOF {
			yield(Letter{}, fmt.Errorf("read dead letters: %w", err))
			return false
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			*number++
			letter := Letter{ID: letterID(line), Number: *number, File: path}
			letter.Torn = json.Unmarshal(line, &letter.DeadLetter) != nil || letter.Reason == ""
			if !yield(letter, nil) {
				return false
			}
		}
		if err == io.EOF {
			return true
		}
	}
}

// Close closes the file that was opened.
func (l *Letters) Close() {
	if l.newest != nil {
		l.newest.Close()
	}
}

// replayedFile names the dead letters that were replayed, a line each. It only grows; a line that a crash cut short names
// none, so its letter is replayed once more, which changes nothing in the store.
const replayedFile = "deadletters.replayed"

// ReadReplayed gives the letters of a directory that were replayed: they are stored, or were refused once more as a letter
// of their own.
func ReadReplayed(dir string) (map[LetterID]bool, error) {
	replayed := map[LetterID]bool{}
	f, err := os.Open(filepath.Join(dir, replayedFile))
	if errors.Is(err, os.ErrNotExist) {
		return replayed, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read replayed dead letters: %w", err)
	}
	defer f.Close()
	return replayed, addReplayed(f, replayed)
}

func addReplayed(in io.Reader, to map[LetterID]bool) error {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var id LetterID
		if n, err := hex.Decode(id[:], lines.Bytes()[:min(len(lines.Bytes()), 2*len(id))]); err == nil && n == len(id) && len(lines.Bytes()) == 2*n {
			to[id] = true
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read replayed dead letters: %w", err)
	}
	return nil
}

// Replayed notes which dead letters of a directory were replayed. One process at a time does.
type Replayed struct {
	file *os.File
	done map[LetterID]bool
}

// OpenReplayed opens the notes of a directory, which is made when it is missing. It fails while another process has them.
func OpenReplayed(dir string) (*Replayed, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("open replayed dead letters: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(dir, replayedFile), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open replayed dead letters: %w", err)
	}
	r := &Replayed{file: file, done: map[LetterID]bool{}}
	if err := r.begin(dir); err != nil {
		file.Close()
		return nil, fmt.Errorf("open replayed dead letters: %w", err)
	}
	return r, nil
}

func (r *Replayed) begin(dir string) error {
	if err := syscall.Flock(int(r.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("another process replays the dead letters of %s: wait for it to end", dir)
		}
		return err
	}
	if err := addReplayed(r.file, r.done); err != nil {
		return err
	}
	if info, err := r.file.Stat(); err != nil || info.Size() == 0 {
		return errors.Join(err, disk.SyncDir(dir))
	}
	_, err := r.file.WriteString("\n") // ends a line that a crash cut short
	return err
}

// Has tells whether a letter was replayed.
func (r *Replayed) Has(id LetterID) bool { return r.done[id] }

// Add notes letters and returns when that is on disk.
func (r *Replayed) Add(ids []LetterID) error {
	if len(ids) == 0 {
		return nil
	}
	var lines []byte
	for _, id := range ids {
		lines = append(hex.AppendEncode(lines, id[:]), '\n')
		r.done[id] = true
	}
	_, err := r.file.Write(lines)
	if err == nil {
		err = r.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("note replayed dead letters: %w", err)
	}
	return nil
}

// Close lets go of the notes; everything is on disk already.
func (r *Replayed) Close() { r.file.Close() }
