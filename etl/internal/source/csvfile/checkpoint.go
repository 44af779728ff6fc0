package csvfile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/ack"
	"github.com/fleettracing/fleet-tracing/etl/internal/disk"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
)

// Checkpoint remembers on disk how far the files of one command are stored, so that the same command goes on from
// there after a crash. It takes in every batch that is done, but moves on only over those before which nothing is
// missing. The zero Checkpoint keeps nothing.
type Checkpoint struct {
	path    string
	changed []string
	resumes bool // an earlier run left something that still holds
	files   []string

	mu      sync.Mutex
	state   state
	unsaved bool
	pending ack.Tracker[progress] // points that were passed and are not durable yet
	sent    bool                  // the last batch was sent

	stop    chan struct{}
	stopped chan struct{}
}

// state is the content of a checkpoint's file.
type state struct {
	Version int         `json:"version"`
	ShiftMs int64       `json:"shift_ms"`
	InOrder int64       `json:"in_order,omitempty"` // entries stored in the sorted order; files have no places then
	Files   []fileState `json:"files"`
}

type fileState struct {
	Path      string `json:"path"`
	Size      int64  `json:"size"`       // bytes, as on disk
	HeadBytes int64  `json:"head_bytes"` // how much of the file's start the hash covers
	Head      string `json:"head_sha256"`
	Offset    int64  `json:"offset"` // bytes stored, uncompressed
	Line      int64  `json:"line"`   // lines stored, the header included
	Done      bool   `json:"done"`
}

const (
	stateVersion = 1
	headBytes    = 64 << 10
	saveEvery    = time.Second
)

// progress is a point in the input: a place in a file or a number in the sorted order.
type progress struct {
	file    int
	place   place
	done    bool // the file's end
	inOrder int64
}

// OpenCheckpoint finds what an earlier run of the same command left in the directory, or starts a new checkpoint. A
// command is its files, Map, Set, Times and whether it has InEventOrder. A file that is shorter than before or starts
// with something else is read anew; in event order, any change of any file starts everything anew. A checkpoint that
// can't be read is an error, which names its file. Reading standard input in event order leaves no checkpoint.
func OpenCheckpoint(dir string, o Options) (*Checkpoint, error) {
	sorted := o.InEventOrder != nil
	c := &Checkpoint{files: o.Files, state: state{Version: stateVersion}}
	for _, path := range o.Files {
		f, err := look(path)
		if err != nil {
			return nil, fmt.Errorf("read file %s: %w", path, cause(err))
		}
		c.state.Files = append(c.state.Files, f)
	}
	if onlyStdin := !slices.ContainsFunc(o.Files, func(p string) bool { return p != Stdin }); onlyStdin ||
		sorted && slices.Contains(o.Files, Stdin) {
		return c, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make checkpoint directory: %w: name another directory", err)
	}
	c.path = filepath.Join(dir, "csvfile-"+commandHash(o, c.state.Files)+".json")
	disk.RemoveTemporary(c.path)
	old, err := c.load()
	if err != nil {
		return nil, fmt.Errorf("read checkpoint %s: %w: delete it to read everything again", c.path, err)
	}
	if old != nil {
		if err := c.resume(old, sorted); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// commandHash names a command.
func commandHash(o Options, files []fileState) string {
	id := struct {
		Files            []string
		Map, Set         map[string]string `json:",omitempty"`
		Layout, Location string
		Sorted           bool
	}{Map: o.Map, Set: o.Set, Layout: o.Times.Layout, Location: o.Times.Location.String(), Sorted: o.InEventOrder != nil}
	for _, f := range files {
		id.Files = append(id.Files, f.Path)
	}
	text, err := json.Marshal(id)
	if err != nil {
		panic(err) // strings and maps of strings
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// look takes the measure of a file.
func look(path string) (fileState, error) {
	if path == Stdin {
		return fileState{Path: Stdin}, nil
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return fileState{}, err
	}
	info, err := os.Stat(path)
	if err == nil {
		err = checkRegular(info, path)
	}
	if err != nil {
		return fileState{}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return fileState{}, err
	}
	defer f.Close()
	head, err := io.ReadAll(io.LimitReader(f, headBytes))
	if err != nil {
		return fileState{}, err
	}
	return fileState{Path: abs, Size: info.Size(), HeadBytes: int64(len(head)), Head: hash(head)}, nil
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// load reads the state of an earlier run; nil when there is none.
func (c *Checkpoint) load() (*state, error) {
	text, err := os.ReadFile(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, cause(err)
	}
	var old state
	if err := json.Unmarshal(text, &old); err != nil {
		return nil, err
	}
	if old.Version != stateVersion {
		return nil, fmt.Errorf("version %d is not %d, which this program writes", old.Version, stateVersion)
	}
	ok := old.InOrder >= 0 && slices.EqualFunc(old.Files, c.state.Files, func(a, b fileState) bool {
		return a.Path == b.Path && a.Offset >= 0 && a.Line >= 0 && (a.Offset > 0) == (a.Line > 0) && a.HeadBytes >= 0
	})
	if !ok {
		return nil, errors.New("it doesn't fit the command that it is named after")
	}
	return &old, nil
}

// resume takes over the places of the files that are what they were. The sorted order is what it was only if all are.
func (c *Checkpoint) resume(old *state, sorted bool) error {
	all := true
	for i := range old.Files {
		was, is := &old.Files[i], &c.state.Files[i]
		if was.Path == Stdin {
			continue
		}
		same, err := was.goesOn(is)
		if err != nil {
			return fmt.Errorf("read file %s: %w", c.files[i], cause(err))
		}
		if !same || sorted && was.Size != is.Size {
			all = false
			if was.Line > 0 || old.InOrder > 0 {
				c.changed = append(c.changed, c.files[i])
			}
			continue
		}
		c.resumes = true
		is.Offset, is.Line = was.Offset, was.Line
		is.Done = was.Done && was.Size == is.Size
	}
	if sorted && !all {
		c.resumes = false
	}
	if c.resumes {
		c.state.ShiftMs, c.state.InOrder = old.ShiftMs, old.InOrder
	}
	return nil
}

// goesOn tells whether a file still starts with what was stored of it.
func (was *fileState) goesOn(is *fileState) (bool, error) {
	f, err := os.Open(was.Path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	head, err := io.ReadAll(io.LimitReader(f, min(was.HeadBytes, headBytes)))
	if err != nil {
		return false, err
	}
	if hash(head) != was.Head {
		return false, nil
	}
	if bytes.HasPrefix(head, gzipMagic) {
		return is.Size >= was.Size, nil // the place in it is checked when it is reached
	}
	if was.Offset == 0 || was.Offset == is.Size {
		return true, nil
	}
	var last [1]byte
	if _, err := f.ReadAt(last[:], was.Offset-1); err == io.EOF {
		return false, nil
	} else if err != nil {
		return false, err
	}
	return last[0] == '\n', nil
}

// Resumed tells the last line that an earlier run stored, and its file; ok is false when there was no such run. In
// event order the file is empty and the line is how many lines were stored.
func (c *Checkpoint) Resumed() (file string, line int64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.resumes {
		return "", 0, false
	}
	if c.state.InOrder > 0 {
		return "", c.state.InOrder, true
	}
	for i := len(c.files) - 1; i >= 0; i-- {
		if f := c.state.Files[i]; f.Line > 0 {
			return c.files[i], f.Line, true
		}
	}
	return "", 0, false
}

// Changed is the files of which an earlier run stored something and that are read anew because they were changed.
func (c *Checkpoint) Changed() []string { return c.changed }

// Shift is what an earlier run that is gone on with added to the event times. New takes it by itself; there is no need
// to compute another.
func (c *Checkpoint) Shift() (shift time.Duration, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Duration(c.state.ShiftMs) * time.Millisecond, c.resumes
}

// begin saves the state before the first batch is sent, because the shift must not be another one after a crash, and
// starts to save it about once a second until Close or Complete.
func (c *Checkpoint) begin(shiftMs int64) error {
	if c.path == "" {
		return nil
	}
	c.mu.Lock()
	c.state.ShiftMs, c.unsaved = shiftMs, true
	c.mu.Unlock()
	if err := c.save(); err != nil {
		return err
	}
	c.stop, c.stopped = make(chan struct{}), make(chan struct{})
	go c.keepSaving()
	return nil
}

func (c *Checkpoint) keepSaving() {
	defer close(c.stopped)
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-c.stop:
			return
		case <-tick.C:
			_ = c.save() // what fails now is tried again, and at last by Close, which tells
		}
	}
}

// from is where to go on in a file, or that there is nothing left of it.
func (c *Checkpoint) from(file int) (at place, done bool) {
	if c.path == "" {
		return place{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.state.Files[file]
	return place{offset: f.Offset, line: f.Line}, f.Done
}

// inOrder is how many entries of the sorted order were stored.
func (c *Checkpoint) inOrder() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.InOrder
}

// expect returns the Done of a batch that is about to be sent and ends at a point.
func (c *Checkpoint) expect(p progress) func(pipeline.Outcome) {
	if c.path == "" {
		return func(pipeline.Outcome) {}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	number := c.pending.Add(p)
	return func(pipeline.Outcome) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.pending.Ack(number, c.advance)
	}
}

// pass passes a point without a batch.
func (c *Checkpoint) pass(p progress) {
	if c.path != "" {
		c.expect(p)(pipeline.Outcome{})
	}
}

// advance sets the state to a point before which everything is durable.
func (c *Checkpoint) advance(p progress) {
	c.unsaved = true
	if p.inOrder > 0 {
		c.state.InOrder = p.inOrder
		return
	}
	if f := &c.state.Files[p.file]; f.Path != Stdin {
		f.Offset, f.Line, f.Done = p.place.offset, p.place.line, p.done
	}
}

// allSent takes note that no batch follows.
func (c *Checkpoint) allSent() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = true
}

// Close saves the checkpoint a last time. Call it when no batch can become done any more.
func (c *Checkpoint) Close() error {
	if c.stop != nil {
		close(c.stop)
		<-c.stopped
		c.stop = nil
	}
	return c.save()
}

// Complete removes the checkpoint, so that the same command starts anew. Call it instead of Close, or before it, when
// everything is stored. As long as a batch is not done, it is an error, and the checkpoint stays.
func (c *Checkpoint) Complete() error {
	if c.path == "" {
		return nil
	}
	if err := c.Close(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.sent || c.pending.Len() > 0 {
		return fmt.Errorf("checkpoint %s: not everything is stored: run the command again to go on", c.path)
	}
	if err := os.Remove(c.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove checkpoint: %w: delete it, or the next run starts where this one ended", err)
	}
	return disk.SyncDir(filepath.Dir(c.path))
}

// save writes the state in place of the file's content, or leaves the file as it was. Nothing is written when nothing
// is new.
func (c *Checkpoint) save() error {
	c.mu.Lock()
	if !c.unsaved || c.path == "" {
		c.mu.Unlock()
		return nil
	}
	c.unsaved = false
	text, err := json.Marshal(&c.state)
	c.mu.Unlock()
	if err == nil {
		err = disk.ReplaceFile(c.path, append(text, '\n'))
	}
	if err != nil {
		c.mu.Lock()
		c.unsaved = true
		c.mu.Unlock()
		return fmt.Errorf("write checkpoint %s: %w: make room there, or name another directory", c.path, cause(err))
	}
	return nil
}
