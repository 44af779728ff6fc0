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
	"github.com/fleettracing/fleet-tracing/etl/internal/csvline"
	"github.com/fleettracing/fleet-tracing/etl/internal/disk"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
)

// Checkpoint stores on disk how far the files of one command are durable, so that the same command resumes from there after
// a crash. It advances only over batches before which everything is durable. The zero Checkpoint stores nothing.
type Checkpoint struct {
	path    string
	changed []string
	resumes bool // an earlier run left progress that still applies
	files   []string

	mu      sync.Mutex
	state   state
	unsaved bool
	pending ack.Tracker[progress] // points that are not durable yet
	sent    bool                  // the last batch was sent

	stop   chan struct{} // nil: the state is not saved every second
	saving sync.WaitGroup
}

// state is the content of a checkpoint's file.
type state struct {
	Version int         `json:"version"`
	ShiftMs int64       `json:"shift_ms"`
	InOrder int64       `json:"in_order,omitempty"` // entries stored in sorted order; then files have no places
	Files   []fileState `json:"files"`
}

type fileState struct {
	Path      string `json:"path"`
	Size      int64  `json:"size"`       // bytes, as on disk
	HeadBytes int64  `json:"head_bytes"` // length of the hashed start of the file
	Head      string `json:"head_sha256"`
	Offset    int64  `json:"offset"` // bytes stored, decompressed
	Line      int64  `json:"line"`   // lines stored, header included
	Done      bool   `json:"done"`
}

const (
	stateVersion = 1
	headBytes    = 64 << 10
	saveEvery    = time.Second
)

// progress is a point in the input: a place in a file, or the number of an entry in sorted order.
type progress struct {
	file    int
	place   csvline.Place
	done    bool // end of the file
	inOrder int64
}

// OpenCheckpoint opens the checkpoint of an earlier run of the same command, or creates one. A command is identified by its
// files, Map, Set, Times and whether it has InEventOrder. A file that became shorter or starts differently is read from the
// start; in event order, any change of any file restarts everything. An unreadable checkpoint is an error that names it.
// Standard input in event order has no checkpoint.
func OpenCheckpoint(dir string, o Options) (*Checkpoint, error) {
	sorted := o.InEventOrder != nil
	c := &Checkpoint{files: o.Files, state: state{Version: stateVersion}}
	for _, path := range o.Files {
		f, err := inspect(path)
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
		return nil, fmt.Errorf("create checkpoint directory: %w: use another directory", err)
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

// commandHash identifies a command.
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

// inspect returns the size and the hashed start of a file.
func inspect(path string) (fileState, error) {
	if path == Stdin {
		return fileState{Path: Stdin}, nil
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return fileState{}, err
	}
	f, info, err := openRegular(path)
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

// load reads the state of an earlier run, or returns nil if there is none.
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
		return nil, fmt.Errorf("unsupported version %d, want %d", old.Version, stateVersion)
	}
	ok := old.InOrder >= 0 && slices.EqualFunc(old.Files, c.state.Files, func(a, b fileState) bool {
		return a.Path == b.Path && a.Offset >= 0 && a.Line >= 0 && (a.Offset > 0) == (a.Line > 0) && a.HeadBytes >= 0
	})
	if !ok {
		return nil, errors.New("it does not match the command that it is named after")
	}
	return &old, nil
}

// resume adopts the places in unchanged files. A sorted order resumes only if all files are unchanged.
func (c *Checkpoint) resume(old *state, sorted bool) error {
	all := true
	for i := range old.Files {
		was, is := &old.Files[i], &c.state.Files[i]
		if was.Path == Stdin {
			continue
		}
		same, err := was.continuedBy(is)
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

// continuedBy returns whether a file still starts with the part that was stored.
func (was *fileState) continuedBy(is *fileState) (bool, error) {
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
		return is.Size >= was.Size, nil // skip checks the place
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

// Resumed returns the last line that an earlier run stored, and its file; ok is false without such a run. In event order,
// the file is empty and the line is the number of stored lines.
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

// Changed returns the files that an earlier run stored in part and that restart because they have changed.
func (c *Checkpoint) Changed() []string { return c.changed }

// Shift returns the shift of the event times in the earlier run that is resumed. New applies it.
func (c *Checkpoint) Shift() (shift time.Duration, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Duration(c.state.ShiftMs) * time.Millisecond, c.resumes
}

// begin saves the state before the first batch is sent, so that the shift stays the same after a crash. Then it saves it
// every second until Close or Complete.
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
	c.stop = make(chan struct{})
	c.saving.Go(func() {
		for {
			select {
			case <-c.stop:
				return
			case <-time.After(saveEvery):
				_ = c.save() // retried at the next tick and by Close, which returns the error
			}
		}
	})
	return nil
}

// from returns the place to resume a file from, and whether the file is done.
func (c *Checkpoint) from(file int) (at csvline.Place, done bool) {
	if c.path == "" {
		return csvline.Place{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.state.Files[file]
	return csvline.Place{Offset: f.Offset, Line: f.Line}, f.Done
}

// inOrder returns the number of entries of the sorted order that are stored.
func (c *Checkpoint) inOrder() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.InOrder
}

// add registers a batch that ends at a point, and returns its Done. A point without a batch is done at once.
func (c *Checkpoint) add(p progress) func(pipeline.Outcome) {
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

// advance sets the state to a point before which everything is durable.
func (c *Checkpoint) advance(p progress) {
	c.unsaved = true
	if p.inOrder > 0 {
		c.state.InOrder = p.inOrder
		return
	}
	if f := &c.state.Files[p.file]; f.Path != Stdin {
		f.Offset, f.Line, f.Done = p.place.Offset, p.place.Line, p.done
	}
}

// allSent records that no batch follows.
func (c *Checkpoint) allSent() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = true
}

// Close saves the checkpoint a last time. Call it when no further batch can complete.
func (c *Checkpoint) Close() error {
	c.stopSaving()
	return c.save()
}

func (c *Checkpoint) stopSaving() {
	if c.stop != nil {
		close(c.stop)
		c.saving.Wait()
		c.stop = nil
	}
}

// Complete removes the checkpoint, so that the same command starts from the beginning. Call it instead of Close, or before
// it, when everything is stored. It fails and keeps the checkpoint while a batch is not durable.
func (c *Checkpoint) Complete() error {
	if c.path == "" {
		return nil
	}
	c.stopSaving()
	c.mu.Lock()
	complete := c.sent && c.pending.Len() == 0
	c.unsaved = c.unsaved && !complete // a full disk has no room for what is removed next
	c.mu.Unlock()
	if !complete {
		return errors.Join(c.save(), fmt.Errorf("checkpoint %s: not everything is stored: run the command again to resume", c.path))
	}
	if err := os.Remove(c.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove checkpoint: %w: delete it, or the next run resumes where this one ended", err)
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
		return fmt.Errorf("write checkpoint %s: %w: free disk space, or use another directory", c.path, cause(err))
	}
	return nil
}
