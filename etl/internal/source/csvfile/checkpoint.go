package csvfile

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
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
	sorted  bool // the lines are stored in event order
	files   []string
	hashes  []hash.Hash // by file, of its stored part; nil: nothing is stored

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

// fileState is how far a file is stored. In sorted order it is the end of the file that was sorted.
type fileState struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`             // bytes, as on disk
	Offset int64  `json:"offset"`           // bytes stored, decompressed
	Line   int64  `json:"line"`             // lines stored, header included
	Sum    []byte `json:"sha256,omitempty"` // of the bytes stored
	Done   bool   `json:"done"`
}

const (
	stateVersion = 2
	saveEvery    = time.Second
)

// progress is a point in the input: a place in a file, or the number of an entry in sorted order.
type progress struct {
	file    int
	place   csvline.Place
	sum     []byte // of the bytes before place
	done    bool   // end of the file
	inOrder int64
}

// OpenCheckpoint opens the checkpoint of an earlier run of the same command, or creates one. A command is identified by its
// files, Target, Map, Set, Times and whether it has InEventOrder. A file in which a stored byte has changed is read from the
// start; in event order, any change of any file restarts everything. An unreadable checkpoint is an error that names it.
// Standard input in event order has no checkpoint.
func OpenCheckpoint(ctx context.Context, dir string, o Options) (*Checkpoint, error) {
	sorted := o.InEventOrder != nil
	c := &Checkpoint{files: o.Files, sorted: sorted, hashes: make([]hash.Hash, len(o.Files)), state: state{Version: stateVersion}}
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
		if err := c.resume(ctx, old); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// commandHash identifies a command.
func commandHash(o Options, files []fileState) string {
	id := struct {
		Files, Target    []string
		Map, Set         map[string]string `json:",omitempty"`
		Layout, Location string
		Sorted           bool
	}{Target: o.Target, Map: o.Map, Set: o.Set, Layout: o.Times.Layout, Location: o.Times.Location.String(), Sorted: o.InEventOrder != nil}
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

// inspect returns the size of a file.
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
	return fileState{Path: abs, Size: info.Size()}, f.Close()
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
		return a.Path == b.Path && a.Offset >= 0 && a.Line >= 0 && (a.Offset > 0) == (a.Line > 0)
	})
	if !ok {
		return nil, errors.New("it does not match the command that it is named after")
	}
	return &old, nil
}

// resume adopts the places in unchanged files. A sorted order resumes only if all files are unchanged.
func (c *Checkpoint) resume(ctx context.Context, old *state) error {
	all := true
	for i := range old.Files {
		was, is := &old.Files[i], &c.state.Files[i]
		if was.Path == Stdin {
			continue
		}
		stored, whole, err := hashFile(ctx, c.files[i], was.Offset)
		if err != nil && err != errChanged {
			return fmt.Errorf("read file %s: %w", c.files[i], explain(err))
		}
		unchanged := err == nil && bytes.Equal(stored.Sum(nil), was.Sum) && (whole || !c.sorted)
		if was.Line == 0 { // nothing is stored of it
			unchanged = is.Size >= was.Size
		}
		if !unchanged {
			all = false
			if was.Line > 0 {
				c.changed = append(c.changed, c.files[i])
			}
			continue
		}
		c.resumes = true
		is.Offset, is.Line, is.Sum, is.Done = was.Offset, was.Line, was.Sum, was.Done && whole
		c.hashes[i] = stored
	}
	if c.sorted && !all {
		c.resumes = false
	}
	if c.resumes {
		c.state.ShiftMs, c.state.InOrder = old.ShiftMs, old.InOrder
	}
	return nil
}

// Resumed returns the last line that an earlier run stored, and its file; ok is false without such a run. In event order,
// the file is empty and the line is the number of stored lines.
func (c *Checkpoint) Resumed() (file string, line int64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.resumes {
		return "", 0, false
	}
	if c.sorted {
		return "", c.state.InOrder, c.state.InOrder > 0
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

// from returns where to resume a file.
func (c *Checkpoint) from(file int) start {
	if c.path == "" || c.hashes[file] == nil {
		return start{hash: sha256.New()}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.state.Files[file]
	return start{csvline.Place{Offset: f.Offset, Line: f.Line}, c.hashes[file], f.Done}
}

// sortedFrom records the files that were sorted. They must be the ones that the resumed run sorted.
func (c *Checkpoint) sortedFrom(files []*file) error {
	if c.path == "" {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, f := range files {
		was := &c.state.Files[i]
		if c.state.InOrder > 0 && !bytes.Equal(was.Sum, f.sum) {
			return f.errorAt(1, errChanged)
		}
		was.Offset, was.Line, was.Sum = f.end.Offset, f.end.Line, f.sum
	}
	return nil
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
		f.Offset, f.Line, f.Sum, f.Done = p.place.Offset, p.place.Line, p.sum, p.done
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
