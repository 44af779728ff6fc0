package csvfile

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/testenv"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// seen is one line that was delivered: what it was, and where.
type seen struct {
	origin string
	line   int64
	timeMs int64
}

func linesOf(b pipeline.Batch) (all []seen) {
	for _, r := range b.Rejected {
		all = append(all, seen{b.Origin, r.Position, 0})
	}
	for _, item := range b.Items {
		all = append(all, seen{b.Origin, item.Position, item.TimeMs})
	}
	return all
}

// crash leaves a checkpoint as a killed process does.
func crash(c *Checkpoint) {
	if c.stop != nil {
		close(c.stop)
		c.saving.Wait()
		c.stop = nil
	}
}

// saved reads a checkpoint's file.
func saved(t *testing.T, dir string) (path string, s state) {
	t.Helper()
	found, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(found) != 1 {
		t.Fatalf("in the checkpoint directory: %v, want one file", found)
	}
	text, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	return found[0], s
}

// secondsApart is how much later each of threeFiles starts than the one before.
const secondsApart = 20_000

// threeFiles has what makes resuming hard: compression, blank and broken lines, CRLF, no last line end.
func threeFiles(t *testing.T) (files []string, lines int) {
	t.Helper()
	dir := t.TempDir()
	var odd strings.Builder
	odd.WriteString("\ufeff" + header + "\r\n")
	n := 0
	for i := range 9000 {
		switch i % 50 {
		case 7:
			odd.WriteString("\r\n")
			continue
		case 9:
			odd.WriteString("broken\r\n")
		default:
			odd.WriteString(lineOf(secondsApart+i+2) + "\r\n")
		}
		n++
	}
	return []string{
		write(t, filepath.Join(dir, "a.csv"), fileOf(12_000)),
		write(t, filepath.Join(dir, "b.csv.gz"), string(compress([]byte(odd.String())))),
		write(t, filepath.Join(dir, "c.csv"), strings.TrimSuffix(fileFrom(2*secondsApart, 12_000), "\n")),
	}, n + 24_000
}

// A command that is killed again and again, at any point and with its batches done in any order, loads every line, goes
// on where its checkpoint says, and keeps the shift of its first run.
func TestCrashes(t *testing.T) {
	for name, o := range map[string]Options{
		"as read":        {},
		"in event order": {InEventOrder: func(*telemetry.Record) {}},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(4) {
				testCrashes(t, o, rand.New(rand.NewPCG(seed, 0)))
			}
		})
	}
}

func testCrashes(t *testing.T, o Options, r *rand.Rand) {
	var total int
	o.Files, total = threeFiles(t)
	dir := t.TempDir()
	stored := map[seen]bool{}
	sorted := o.InEventOrder != nil
	for run := 0; ; run++ {
		if run > 1000 {
			t.Fatal("there is no progress")
		}
		var err error
		o.Shift = time.Duration(run+1) * time.Hour // only the first counts
		if o.Checkpoint, err = OpenCheckpoint(t.Context(), dir, o); err != nil {
			t.Fatal(err)
		}
		s, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		before := o.Checkpoint.state
		before.Files = slices.Clone(before.Files)

		var waiting []pipeline.Batch
		finish := func(i int) {
			for _, l := range linesOf(waiting[i]) {
				stored[l] = true
			}
			waiting[i].Done(pipeline.Outcome{})
			waiting = slices.Delete(waiting, i, i+1)
		}
		left := r.IntN(30)
		delivered := int64(0)
		err = s.Run(t.Context(), func(b pipeline.Batch) error {
			for _, l := range linesOf(b) {
				delivered++
				i := slices.Index(o.Files, b.Origin)
				if f := before.Files[i]; !sorted && (f.Done || l.line <= f.Line) {
					t.Fatalf("line %d of %s came again, though %d were stored", l.line, b.Origin, f.Line)
				}
			}
			waiting = append(waiting, b)
			for len(waiting) > 0 && r.IntN(3) > 0 {
				finish(r.IntN(len(waiting)))
			}
			if r.IntN(4) == 0 {
				if err := o.Checkpoint.save(); err != nil {
					t.Error(err)
				}
			}
			if left--; left < 0 {
				return errFull
			}
			return nil
		})
		if sorted && delivered > int64(total)-before.InOrder {
			t.Fatalf("%d lines came, though %d of %d were stored", delivered, before.InOrder, total)
		}
		if err == nil {
			if len(waiting) > 0 {
				mentions(t, o.Checkpoint.Complete(), "not everything is stored")
				saved(t, dir)
			}
			for len(waiting) > 0 {
				finish(0)
			}
			if err := o.Checkpoint.Complete(); err != nil {
				t.Fatal(err)
			}
			break
		}
		if !errors.Is(err, errFull) {
			t.Fatal(err)
		}
		crash(o.Checkpoint)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
		t.Errorf("left after completion: %v", left)
	}
	if len(stored) != total {
		t.Errorf("%d different lines were stored, want %d", len(stored), total)
	}
	for l := range stored {
		from := int64(secondsApart * slices.Index(o.Files, l.origin))
		if want := (1_800_000_000+from+l.line)*1000 + time.Hour.Milliseconds(); l.timeMs != 0 && l.timeMs != want {
			t.Fatalf("line %d has time %d, want %d: another shift", l.line, l.timeMs, want)
		}
	}
}

// stopAfter runs a command until n batches came and are done, and saves its checkpoint.
func stopAfter(t *testing.T, dir string, o Options, n int) {
	t.Helper()
	var err error
	if o.Checkpoint, err = OpenCheckpoint(t.Context(), dir, o); err != nil {
		t.Fatal(err)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context(), func(b pipeline.Batch) error {
		if n == 0 {
			return errFull
		}
		n--
		b.Done(pipeline.Outcome{})
		return nil
	}); err != nil && !errors.Is(err, errFull) {
		t.Fatal(err)
	}
	if err := o.Checkpoint.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsResumed(t *testing.T) {
	tests := []struct {
		name    string
		change  func(t *testing.T, files []string)
		sorted  bool
		file    int // -1: nothing is resumed
		line    int64
		changed []int
	}{
		{name: "nothing changed", change: func(*testing.T, []string) {}, file: 1, line: 1001},
		{name: "the file grew", change: func(t *testing.T, f []string) {
			rewrite(t, f[1], func(s string) string { return s + lineOf(1) + "\n" })
		}, file: 1, line: 1001},
		{name: "the file was cut behind the place", change: func(t *testing.T, f []string) { rewrite(t, f[1], func(s string) string { return s[:len(s)-100] }) }, file: 1, line: 1001},
		{name: "the file starts with something else", change: func(t *testing.T, f []string) {
			rewrite(t, f[1], func(s string) string { return strings.Replace(s, "bus-", "tram", 1) })
		}, file: 0, line: 2001, changed: []int{1}},
		{name: "the file is shorter", change: func(t *testing.T, f []string) { rewrite(t, f[1], func(s string) string { return s[:1000] }) }, file: 0, line: 2001, changed: []int{1}},
		{name: "another line stands at the place", change: func(t *testing.T, f []string) {
			rewrite(t, f[0], func(s string) string { return s[:66_000] + "x" + s[66_000:] })
			rewrite(t, f[1], func(string) string { return fileFrom(1, 3000) })
		}, file: -1, changed: []int{0, 1}},
		{name: "a line far from the start changed", change: func(t *testing.T, f []string) {
			rewrite(t, f[0], func(s string) string { return changeByte(s, 66_000) })
		}, file: 1, line: 1001, changed: []int{0}},
		{name: "a line of a compressed file changed", change: func(t *testing.T, f []string) {
			write(t, f[0], string(compress([]byte(changeByte(fileOf(2000), 66_000)))))
		}, file: 1, line: 1001, changed: []int{0}},
		{name: "a file was compressed", change: func(t *testing.T, f []string) {
			write(t, f[0], string(compress([]byte(fileOf(2000)))))
		}, file: 1, line: 1001},
		{name: "in event order", sorted: true, change: func(*testing.T, []string) {}, file: -2, line: 3000},
		{name: "a line changed, in event order", sorted: true, change: func(t *testing.T, f []string) {
			rewrite(t, f[0], func(s string) string { return changeByte(s, 66_000) })
		}, file: -1, changed: []int{0}},
		{name: "a file grew, in event order", sorted: true, change: func(t *testing.T, f []string) {
			rewrite(t, f[1], func(s string) string { return s + lineOf(1) + "\n" })
		}, file: -1, changed: []int{1}},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			o := Options{Files: []string{write(t, "a.csv", fileOf(2000)), write(t, "b.csv", fileOf(3000))}, Shift: time.Hour}
			if c.sorted {
				o.InEventOrder = func(*telemetry.Record) {}
			}
			stopAfter(t, dir, o, map[bool]int{false: 3, true: 6}[c.sorted])
			c.change(t, o.Files)
			cp, err := OpenCheckpoint(t.Context(), dir, o)
			if err != nil {
				t.Fatal(err)
			}
			file, line, ok := cp.Resumed()
			shift, hasShift := cp.Shift()
			switch c.file {
			case -1:
				if ok || hasShift {
					t.Errorf("resumed %s line %d with shift %s, want a new start", file, line, shift)
				}
			default:
				want := ""
				if c.file >= 0 {
					want = o.Files[c.file]
				}
				if !ok || file != want || line != c.line && !c.sorted || shift != time.Hour || !hasShift {
					t.Errorf("resumed %q line %d with shift %s, %v; want %q line %d", file, line, shift, ok, want, c.line)
				}
			}
			var changed []string
			for _, i := range c.changed {
				changed = append(changed, o.Files[i])
			}
			if !slices.Equal(cp.Changed(), changed) {
				t.Errorf("changed %q, want %q", cp.Changed(), changed)
			}
			o.Checkpoint = cp
			items, refused := mustRead(t, o)
			if c.file == 1 && len(c.changed) == 0 && items[0].Position != c.line+1 {
				t.Errorf("went on at line %d, want %d", items[0].Position, c.line+1)
			}
			if c.file == -1 && len(items)+len(refused) < 2000 {
				t.Errorf("only %d lines came", len(items)+len(refused))
			}
			if err := cp.Complete(); err != nil {
				t.Error(err)
			}
		})
	}
}

// changeByte changes one digit at or after an index.
func changeByte(s string, at int) string {
	at += strings.IndexAny(s[at:], "123456789")
	return s[:at] + "0" + s[at+1:]
}

// A load fails at its end when a file has changed since it was read, whatever its size and time say.
func TestFileThatChangesDuringALoad(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, path string){
		"it grows": func(t *testing.T, path string) {
			rewrite(t, path, func(s string) string { return s + lineOf(1) + "\n" })
		},
		"a line that was read": func(t *testing.T, path string) {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			rewrite(t, path, func(s string) string { return changeByte(s, 100) })
			if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
				t.Fatal(err)
			}
		},
		"another file takes its place": func(t *testing.T, path string) {
			if err := os.Rename(write(t, "other.csv", fileFrom(5, 3000)), path); err != nil {
				t.Fatal(err)
			}
		},
		"it is removed": func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		for how, o := range map[string]Options{
			"as read": {}, "in event order": {InEventOrder: func(*telemetry.Record) {}},
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				o := o
				o.Files = []string{write(t, "a.csv", fileOf(3000)), write(t, "b.csv", fileFrom(secondsApart, 3000))}
				dir := t.TempDir()
				var err error
				if o.Checkpoint, err = OpenCheckpoint(t.Context(), dir, o); err != nil {
					t.Fatal(err)
				}
				s, err := New(o)
				if err != nil {
					t.Fatal(err)
				}
				batches := 0
				err = s.Run(t.Context(), func(b pipeline.Batch) error {
					if batches++; batches == 5 {
						change(t, o.Files[0])
					}
					b.Done(pipeline.Outcome{})
					return nil
				})
				mentions(t, err, "a.csv")
				if err := o.Checkpoint.Close(); err != nil {
					t.Fatal(err)
				}
				if name == "it is removed" {
					return
				}
				mentions(t, err, "was changed while it was loaded", "run the command again")
				if o.Checkpoint, err = OpenCheckpoint(t.Context(), dir, o); err != nil {
					t.Fatal(err)
				}
				if items, _ := mustRead(t, o); len(items) == 0 {
					t.Error("the next run loads nothing of what changed")
				}
				if err := o.Checkpoint.Complete(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func rewrite(t *testing.T, path string, change func(string) string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, change(string(text)))
}

func TestResumeOfGzip(t *testing.T) {
	dir := t.TempDir()
	plain := fileOf(60_000)
	packed := compress([]byte(plain))
	o := Options{Files: []string{write(t, "f.csv.gz", string(packed[:len(packed)/2]))}}

	// The truncated file is loaded as far as it goes; the whole one goes on from there.
	var err error
	if o.Checkpoint, err = OpenCheckpoint(t.Context(), dir, o); err != nil {
		t.Fatal(err)
	}
	before, _, err := read(t, o)
	mentions(t, err, "cut short")
	if err := o.Checkpoint.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, o.Files[0], string(packed))
	if o.Checkpoint, err = OpenCheckpoint(t.Context(), dir, o); err != nil {
		t.Fatal(err)
	}
	if _, line, ok := o.Checkpoint.Resumed(); !ok || line != before[len(before)-1].Position {
		t.Errorf("resumed line %d, %v; want %d", line, ok, before[len(before)-1].Position)
	}
	after, _ := mustRead(t, o)
	if len(before) == 0 || len(before)+len(after) != 60_000 || after[0].Raw != lineOf(len(before)+2) {
		t.Errorf("%d records and then %d, from %q", len(before), len(after), after[0].Raw)
	}
	if err := o.Checkpoint.Close(); err != nil {
		t.Fatal(err)
	}

	// A place that is not a stored line end is not resumed from.
	path, s := saved(t, dir)
	for name, offset := range map[string]int64{"no line end": 1000, "behind the end": 100 << 20} {
		s.Files[0].Done, s.Files[0].Offset = false, offset
		text, _ := json.Marshal(s)
		write(t, path, string(text))
		if o.Checkpoint, err = OpenCheckpoint(t.Context(), dir, o); err != nil {
			t.Fatal(err)
		}
		if changed := o.Checkpoint.Changed(); !slices.Equal(changed, o.Files) {
			t.Errorf("%s: changed %q, want the file", name, changed)
		}
		if items, _ := mustRead(t, o); len(items) != 60_000 {
			t.Errorf("%s: %d records, want all again", name, len(items))
		}
		if err := o.Checkpoint.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNothingIsLeftToDo(t *testing.T) {
	dir := t.TempDir()
	o := Options{Files: []string{write(t, "a.csv", fileOf(10)), write(t, "header.csv", header+"\n"), write(t, "blank.csv", header+"\n\n\n")}}
	stopAfter(t, dir, o, 10)
	_, s := saved(t, dir)
	for _, f := range s.Files {
		if !f.Done {
			t.Errorf("%s is not done", f.Path)
		}
	}
	var err error
	if o.Checkpoint, err = OpenCheckpoint(t.Context(), dir, o); err != nil {
		t.Fatal(err)
	}
	if items, _ := mustRead(t, o); len(items) > 0 {
		t.Errorf("%d records came again", len(items))
	}
	if err := cmp.Or(o.Checkpoint.Complete(), o.Checkpoint.Close()); err != nil {
		t.Fatal(err)
	}
	if o.Checkpoint, err = OpenCheckpoint(t.Context(), dir, o); err != nil {
		t.Fatal(err)
	}
	if items, _ := mustRead(t, o); len(items) != 10 {
		t.Errorf("after completion the command loads %d records, want all 10 again", len(items))
	}
	if err := o.Checkpoint.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCommandsHaveCheckpointsOfTheirOwn(t *testing.T) {
	dir := t.TempDir()
	a, b := write(t, "a.csv", fileOf(10)), write(t, "b.csv", fileOf(10))
	paths := map[string]string{}
	for name, o := range map[string]Options{
		"one file":       {Files: []string{a}},
		"another file":   {Files: []string{b}},
		"two files":      {Files: []string{a, b}},
		"mapped":         {Files: []string{a}, Map: map[string]string{"zone": "lat"}},
		"set":            {Files: []string{a}, Set: map[string]string{"zone": "lat"}},
		"times":          {Files: []string{a}, Times: telemetry.TimeFormat{Layout: time.DateTime}},
		"place of times": {Files: []string{a}, Times: telemetry.TimeFormat{Location: time.FixedZone("CST", 0)}},
		"target":         {Files: []string{a}, Target: []string{"a keyspace"}},
		"another target": {Files: []string{a}, Target: []string{"a keyspace", "settings"}},
		"sorted":         {Files: []string{a}, InEventOrder: func(*telemetry.Record) {}},
	} {
		c, err := OpenCheckpoint(t.Context(), dir, o)
		if err != nil {
			t.Fatal(err)
		}
		if other, taken := paths[c.path]; taken {
			t.Errorf("%s and %s have one checkpoint", name, other)
		}
		paths[c.path] = name
	}
	t.Chdir(filepath.Dir(a))
	c, err := OpenCheckpoint(t.Context(), dir, Options{Files: []string{"a.csv"}, Map: map[string]string{}, Shift: time.Hour})
	if err != nil || paths[c.path] != "one file" {
		t.Errorf("another way to the same file has another checkpoint, %v", err)
	}
}

func TestStandardInputHasNoCheckpoint(t *testing.T) {
	for name, o := range map[string]Options{
		"alone":          {Files: []string{Stdin}},
		"in event order": {Files: []string{Stdin, write(t, "a.csv", fileOf(5))}, InEventOrder: func(*telemetry.Record) {}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			o.Stdin = strings.NewReader(fileOf(5))
			var err error
			if o.Checkpoint, err = OpenCheckpoint(t.Context(), dir, o); err != nil {
				t.Fatal(err)
			}
			if items, _ := mustRead(t, o); len(items) != 5*len(o.Files) {
				t.Errorf("%d records", len(items))
			}
			if err := o.Checkpoint.Complete(); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("there is something in %s", dir)
			}
		})
	}
	t.Run("among files", func(t *testing.T) {
		dir := t.TempDir()
		o := Options{Files: []string{write(t, "a.csv", fileOf(2000)), Stdin, write(t, "b.csv", fileOf(2000))}, Stdin: strings.NewReader(fileOf(5))}
		stopAfter(t, dir, o, 4)
		o.Stdin = strings.NewReader(fileOf(7))
		var err error
		if o.Checkpoint, err = OpenCheckpoint(t.Context(), dir, o); err != nil {
			t.Fatal(err)
		}
		if items, _ := mustRead(t, o); len(items) != 7+1000 {
			t.Errorf("%d records came after the crash, want standard input whole and half of the last file", len(items))
		}
		if err := o.Checkpoint.Complete(); err != nil {
			t.Error(err)
		}
	})
}

func TestBadCheckpoints(t *testing.T) {
	dir := t.TempDir()
	o := Options{Files: []string{write(t, "a.csv", fileOf(2000))}}
	stopAfter(t, dir, o, 1)
	path, s := saved(t, dir)
	good, _ := json.Marshal(s)
	for name, text := range map[string]string{
		"empty": "", "cut short": string(good[:len(good)/2]), "no JSON": "offset=3",
		"of a later program": strings.Replace(string(good), `"version":2`, `"version":3`, 1),
		"of other files":     strings.Replace(string(good), "a.csv", "b.csv", 1),
		"no place":           strings.Replace(string(good), `"offset":`, `"offset":-`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			write(t, path, text)
			_, err := OpenCheckpoint(t.Context(), dir, o)
			mentions(t, err, "read checkpoint "+path, "delete it to read everything again")
		})
	}
	t.Run("directory is a file", func(t *testing.T) {
		_, err := OpenCheckpoint(t.Context(), path, o)
		mentions(t, err, "create checkpoint directory", "use another directory")
	})
	t.Run("file is gone", func(t *testing.T) {
		_, err := OpenCheckpoint(t.Context(), dir, Options{Files: []string{"gone.csv"}})
		mentions(t, err, "read file gone.csv: no such file")
	})
	t.Run("can't be written", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "state")
		o := o
		var err error
		if o.Checkpoint, err = OpenCheckpoint(t.Context(), dir, o); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		items, _, err := read(t, o)
		mentions(t, err, "write checkpoint "+dir, "use another directory")
		if len(items) > 0 {
			t.Error("records flowed though their shift could not be kept")
		}
	})
}

// The state is saved about once a second, and what a killed process left half-written is cleared away.
func TestSavedOnceASecond(t *testing.T) {
	dir := t.TempDir()
	o := Options{Files: []string{write(t, "a.csv", fileOf(3000))}}
	synctest.Test(t, func(t *testing.T) {
		var err error
		if o.Checkpoint, err = OpenCheckpoint(t.Context(), dir, o); err != nil {
			t.Fatal(err)
		}
		s, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		var lines []int64
		if err := s.Run(t.Context(), func(b pipeline.Batch) error {
			b.Done(pipeline.Outcome{})
			_, now := saved(t, dir)
			lines = append(lines, now.Files[0].Line)
			time.Sleep(1100 * time.Millisecond)
			synctest.Wait()
			_, now = saved(t, dir)
			lines = append(lines, now.Files[0].Line)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if want := "[0 1001 1001 2001 2001 3001]"; fmt.Sprint(lines) != want {
			t.Errorf("saved lines %v, want %s", lines, want)
		}
		crash(o.Checkpoint)
	})
	path, _ := saved(t, dir)
	write(t, path+".new-123", "half")
	if _, err := OpenCheckpoint(t.Context(), dir, o); err != nil {
		t.Fatal(err)
	}
	saved(t, dir)
}

func TestCheckpointWaitsForRoomAndNeedsNoneAtTheEnd(t *testing.T) {
	small := testenv.NewSmallDisk(t, 64)
	small.Fill()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var notes []error
		note := func(err error) { mu.Lock(); defer mu.Unlock(); notes = append(notes, err) }
		noted := func() (n int, last error) { mu.Lock(); defer mu.Unlock(); return len(notes), notes[len(notes)-1] }
		o := Options{Files: []string{write(t, "a.csv", fileOf(10))}, DiskNote: note}
		var err error
		if o.Checkpoint, err = OpenCheckpoint(t.Context(), small.Dir, o); err != nil {
			t.Fatal(err)
		}
		s, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		var records atomic.Int64
		ended := make(chan error, 1)
		go func() {
			ended <- s.Run(t.Context(), func(b pipeline.Batch) error {
				records.Add(int64(len(b.Items)))
				b.Done(pipeline.Outcome{})
				return nil
			})
		}()
		time.Sleep(time.Hour)
		synctest.Wait()
		if n, _ := noted(); len(ended) > 0 || records.Load() > 0 || n < 3600 {
			t.Errorf("%d records and %d notes after an hour with a full disk", records.Load(), n)
		}
		small.Free()
		err = <-ended
		if _, last := noted(); err != nil || records.Load() != 10 || last != nil {
			t.Errorf("%d records, %v", records.Load(), err)
		}
		small.Fill()
		if err := cmp.Or(o.Checkpoint.Complete(), o.Checkpoint.Close()); err != nil {
			t.Errorf("everything is stored, but %v", err)
		}
		if left, _ := filepath.Glob(filepath.Join(small.Dir, "csvfile-*")); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	})
}
