package csvfile

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/fleettracing/fleet-tracing/etl/internal/eventorder"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// A Source is also what package replay plays.
var _ interface {
	Records(context.Context) iter.Seq2[eventorder.Entry, error]
} = (*Source)(nil)

// gaps stores the seconds since the previous record of the device in the speed.
func gaps() func(*telemetry.Record) {
	last := map[string]int64{}
	return func(r *telemetry.Record) {
		if before, ok := last[r.DeviceID]; ok {
			r.SpeedKmh = telemetry.Some(float64(r.TimeMs-before) / 1000)
		}
		last[r.DeviceID] = r.TimeMs
	}
}

func inBounds(r *telemetry.Record) bool { return r.Lat <= 90 }

// drives is a file of some buses: duplicates with the same payload and with another, records out of bounds, broken lines.
func drives(n int, shuffle *rand.Rand) string {
	r := rand.New(rand.NewPCG(5, 6))
	var lines []string
	for i := range n {
		at := 1_800_000_000 + r.IntN(4*n)
		bus := fmt.Sprintf("bus-%d", r.IntN(9))
		line := fmt.Sprintf("%s,wuxi,%d,31.%d,120.5", bus, at, r.IntN(1000))
		lines = append(lines, line)
		switch i % 20 {
		case 3:
			lines = append(lines, line)
		case 5:
			lines = append(lines, fmt.Sprintf("%s,wuxi,%d,31.%d,120.5", bus, at, r.IntN(1000)))
		case 7:
			lines = append(lines, fmt.Sprintf("%s,wuxi,%d,99,120.5", bus, at+1))
		case 9:
			lines = append(lines, "broken")
		}
	}
	if shuffle != nil {
		shuffle.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
	}
	return header + "\n" + strings.Join(lines, "\n") + "\n"
}

func TestDerivedInEventOrderWhateverTheOrderOfLines(t *testing.T) {
	derive := func(file string) (records []telemetry.Record, refused int) {
		items, r := mustRead(t, Options{Files: []string{write(t, "f.csv", file)}, InEventOrder: gaps(), Valid: inBounds})
		for _, item := range items {
			records = append(records, item.Record)
		}
		return records, len(r)
	}
	want, wantRefused := derive(drives(3000, nil))
	for i := 1; i < len(want); i++ {
		a, b := want[i-1], want[i]
		if a.DeviceID > b.DeviceID || a.DeviceID == b.DeviceID && a.TimeMs > b.TimeMs {
			t.Fatalf("record %d is out of order: %+v, %+v", i, a, b)
		}
	}
	previous := map[string]int64{}
	for i, r := range want {
		before, known := previous[r.DeviceID]
		switch {
		case !inBounds(&r):
			if r.SpeedKmh.Valid {
				t.Fatalf("record %d is not valid but took part: %+v", i, r)
			}
			continue
		case known != r.SpeedKmh.Valid || known && r.SpeedKmh.Value != float64(r.TimeMs-before)/1000:
			t.Fatalf("record %d has %+v, the previous record of the device is at %d", i, r, before)
		}
		previous[r.DeviceID] = r.TimeMs
	}
	for seed := range uint64(5) {
		got, refused := derive(drives(3000, rand.New(rand.NewPCG(seed, 1))))
		if !reflect.DeepEqual(got, want) || refused != wantRefused || refused == 0 {
			t.Errorf("shuffle %d: %d records and %d refused, other than the %d and %d of the file in order", seed, len(got), refused, len(want), wantRefused)
		}
	}
}

func TestBatchesInEventOrder(t *testing.T) {
	a := write(t, "a.csv", header+"\nx,f,30,1,1\nbroken\nx,f,10,1,1\ny,f,10,1,1\n")
	b := write(t, "b.csv", header+"\nx,f,20,1,1\n?\nx,f,5,1,1\nx,f,10,1,1\n")
	s, err := New(Options{Files: []string{a, b}, InEventOrder: gaps()})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := s.Run(t.Context(), func(batch pipeline.Batch) error {
		text := filepath.Base(batch.Origin)
		for _, r := range batch.Rejected {
			text += fmt.Sprint(" ?", r.Position)
		}
		for _, item := range batch.Items {
			text += fmt.Sprint(" ", item.Position)
		}
		got = append(got, text)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := []string{"a.csv ?3", "b.csv ?3 4", "a.csv 4", "b.csv 5 2", "a.csv 2 5"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// Resuming sorts again. Derived values behind the position are the same as without the crash.
func TestResumeInEventOrder(t *testing.T) {
	o := Options{Files: []string{write(t, "a.csv", drives(3000, nil)), write(t, "b.csv", drives(500, nil))}, InEventOrder: gaps(), Valid: inBounds}
	all, allRefused := mustRead(t, o)
	for _, batches := range []int{0, 1, 2, 3, 50, 1_000_000} {
		t.Run(fmt.Sprint(batches), func(t *testing.T) {
			dir := t.TempDir()
			o.InEventOrder = gaps()
			stopAfter(t, dir, o, batches)
			_, s := saved(t, dir)
			o.InEventOrder = gaps()
			var err error
			if o.Checkpoint, err = OpenCheckpoint(t.Context(), dir, o); err != nil {
				t.Fatal(err)
			}
			defer func() { o.Checkpoint = nil }()
			_, line, resumed := o.Checkpoint.Resumed()
			if line != s.InOrder || resumed != (batches > 0) {
				t.Errorf("resumed at %d, %v", line, resumed)
			}
			items, refused := mustRead(t, o)
			wantRefused := allRefused[min(int(s.InOrder), len(allRefused)):]
			want := all[max(0, int(s.InOrder)-len(allRefused)):]
			if len(items)+len(refused) != len(want)+len(wantRefused) {
				t.Fatalf("%d records and %d refused, want %d and %d", len(items), len(refused), len(want), len(wantRefused))
			}
			for i := range items {
				if !reflect.DeepEqual(items[i], want[i]) {
					t.Fatalf("record %d is %+v, want %+v", i, items[i], want[i])
				}
			}
			if err := o.Checkpoint.Complete(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestADamagedFileIsNotSorted(t *testing.T) {
	packed := compress([]byte(fileOf(50_000)))
	o := Options{Files: []string{write(t, "f.csv.gz", string(packed[:len(packed)/2]))}, InEventOrder: gaps()}
	items, _, err := read(t, o)
	mentions(t, err, "f.csv.gz line", "cut short")
	if len(items) > 0 {
		t.Errorf("%d records flowed, derived from half of a file", len(items))
	}
}

func TestTrace(t *testing.T) {
	file := header + "\nx,f,30,1,1\nbroken\ny,f,10,1,1\nx,f,10,1,1\nz,f,10,99,1\nz,f,20,2,1\n"
	for _, c := range []struct {
		name string
		o    Options
		want []string
	}{
		{"as recorded", Options{}, []string{"?3", "5 x {0 false}", "4 y {0 false}", "6 z {0 false}", "7 z {0 false}", "2 x {0 false}"}},
		{"derived", Options{InEventOrder: gaps(), Valid: inBounds}, []string{"?3", "5 x {0 false}", "4 y {0 false}", "6 z {0 false}", "7 z {0 false}", "2 x {20 true}"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.Files = []string{write(t, "f.csv", file)}
			tr, err := New(c.o)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // a trace can be played again
				if c.o.InEventOrder != nil {
					tr.options.InEventOrder = gaps()
				}
				var got []string
				for e, err := range tr.Records(t.Context()) {
					if err != nil {
						t.Fatal(err)
					}
					if e.Origin != c.o.Files[0] {
						t.Errorf("origin %q", e.Origin)
					}
					if e.Rejection != nil {
						got = append(got, fmt.Sprint("?", e.Position))
						continue
					}
					got = append(got, fmt.Sprint(e.Position, " ", e.DeviceID, " ", e.SpeedKmh))
				}
				if !slices.Equal(got, c.want) {
					t.Errorf("got  %q\nwant %q", got, c.want)
				}
			}
		})
	}
	t.Run("wrong header", func(t *testing.T) {
		_, err := New(Options{Files: []string{write(t, "f.csv", "a,b\n")}})
		mentions(t, err, "no column for")
	})
	t.Run("stopped", func(t *testing.T) {
		tr, err := New(Options{Files: []string{write(t, "f.csv", fileOf(5000))}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, err := range tr.Records(ctx) {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		}
	})
}
