package csvfile

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/testenv"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

func TestCompressedAndPipedFilesReadLikePlainOnes(t *testing.T) {
	plain := fileOf(4321)
	half := len(plain) / 2
	want, _ := mustRead(t, Options{Files: []string{write(t, "f.csv", plain)}})
	if len(want) != 4321 {
		t.Fatalf("%d records", len(want))
	}
	members := string(compress([]byte(plain[:half]))) + string(compress([]byte(plain[half:])))
	for _, c := range []struct {
		name string
		o    Options
	}{
		{"gzip", Options{Files: []string{write(t, "f.csv.gz", string(compress([]byte(plain))))}}},
		{"gzip in two members", Options{Files: []string{write(t, "f.csv.gz", members)}}},
		{"gzip under another name", Options{Files: []string{write(t, "f.csv", members)}}},
		{"plain under the name of gzip", Options{Files: []string{write(t, "f.csv.gz", plain)}}},
		{"standard input", Options{Files: []string{Stdin}, Stdin: strings.NewReader(plain)}},
		{"gzip from standard input", Options{Files: []string{Stdin}, Stdin: strings.NewReader(members)}},
		{"no last line end", Options{Files: []string{write(t, "f.csv", strings.TrimSuffix(plain, "\n"))}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, refused := mustRead(t, c.o)
			if len(refused) > 0 || len(got) != len(want) {
				t.Fatalf("%d records, %d refused", len(got), len(refused))
			}
			for i := range got {
				if !reflect.DeepEqual(got[i], want[i]) {
					t.Fatalf("record %d is %+v, want %+v", i, got[i], want[i])
				}
			}
		})
	}
}

// Damage costs the lines behind it, and says where it is.
func TestDamagedGzip(t *testing.T) {
	plain := fileOf(50_000)
	packed := compress([]byte(plain))
	third := len(packed) / 3
	flipped := bytes.Clone(packed)
	for i := range 64 {
		flipped[third+i] ^= 0x55
	}
	wrongSum := bytes.Clone(packed)
	wrongSum[len(wrongSum)-8] ^= 1
	for _, c := range []struct {
		name string
		data []byte
		all  bool
		says []string
	}{
		{"truncated", packed[:third], false, []string{"unexpected EOF: the gzip data is cut short", "run the command again"}},
		{"corrupt", flipped, false, []string{"the gzip data is damaged", "intact file"}},
		{"wrong checksum", wrongSum, true, []string{"gzip: invalid checksum", "intact file"}},
		{"rubbish behind it", append(bytes.Clone(packed), "rubbish"...), true, []string{"the gzip data"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := write(t, "f.csv.gz", string(c.data))
			items, refused, err := read(t, Options{Files: []string{path, write(t, "next.csv", fileOf(3))}})
			mentions(t, err, append(c.says, fmt.Sprintf("read file %s line %d: ", path, len(items)+len(refused)+2))...)
			if c.all != (len(items) == 50_000) || len(items) < 10_000 {
				t.Errorf("%d records before the damage", len(items))
			}
			for i, item := range items {
				if c.name == "corrupt" && i > 10_000 {
					break // what comes out of damaged data before its end is anything
				}
				if item.Raw != lineOf(i+2) || item.Position != int64(i+2) {
					t.Fatalf("line %d is %q at %d", i+2, item.Raw, item.Position)
				}
			}
			if c.name == "truncated" && len(refused) > 0 {
				t.Errorf("an incomplete line was taken: %+v", refused[0])
			}
		})
	}
	t.Run("header cut short", func(t *testing.T) {
		_, err := New(Options{Files: []string{write(t, "f.csv.gz", string(packed[:20]))}})
		mentions(t, err, "f.csv.gz line 1: unexpected EOF: the gzip data is cut short")
		_, err = New(Options{Files: []string{write(t, "f.csv.gz", string(packed[:5]))}})
		mentions(t, err, "f.csv.gz line 1: unexpected EOF: the gzip data is cut short")
	})
}

func TestBatches(t *testing.T) {
	files := []string{write(t, "a.csv", fileOf(2500)), write(t, "b.csv", fileOf(10))}
	s, err := New(Options{Files: files})
	if err != nil {
		t.Fatal(err)
	}
	if s.Name() != "csvfile" {
		t.Errorf("name %q", s.Name())
	}
	var got []string
	if err := s.Run(t.Context(), func(b pipeline.Batch) error {
		got = append(got, fmt.Sprintf("%s:%d+%d", filepath.Base(b.Origin), b.Items[0].Position, len(b.Items)))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if want := "[a.csv:2+1000 a.csv:1002+1000 a.csv:2002+500 b.csv:2+10]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestProgress(t *testing.T) {
	plain := fileOf(20_000)
	packed := string(compress([]byte(plain)))
	for _, c := range []struct {
		name  string
		o     Options
		total int64
	}{
		{"files", Options{Files: []string{write(t, "f.csv", plain), write(t, "g.csv.gz", packed)}}, int64(len(plain) + len(packed))},
		{"in event order", Options{Files: []string{write(t, "f.csv", plain)}, InEventOrder: func(*telemetry.Record) {}}, int64(len(plain))},
		{"standard input", Options{Files: []string{Stdin}, Stdin: strings.NewReader(plain)}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := New(c.o)
			if err != nil {
				t.Fatal(err)
			}
			if done, total := s.Progress(); done != 0 || total != c.total {
				t.Errorf("at first %d of %d, want 0 of %d", done, total, c.total)
			}
			var last int64
			steps := 0
			if err := s.Run(t.Context(), func(pipeline.Batch) error {
				done, _ := s.Progress()
				if done < last {
					t.Errorf("%d after %d", done, last)
				}
				if done > last {
					steps++
				}
				last = done
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			done, _ := s.Progress()
			if want := cmp.Or(c.total, int64(len(plain))); done != want || steps < 4 {
				t.Errorf("at last %d after %d steps, want %d", done, steps, want)
			}
		})
	}
}

func TestEndsOfARun(t *testing.T) {
	for name, o := range map[string]Options{
		"as read":        {},
		"in event order": {InEventOrder: func(*telemetry.Record) {}},
	} {
		t.Run(name, func(t *testing.T) {
			o.Files = []string{write(t, "f.csv", fileOf(5000))}
			s, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Run(t.Context(), func(pipeline.Batch) error { return errFull }); !errors.Is(err, errFull) {
				t.Errorf("got %v, want what emit said", err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			n := 0
			err = s.Run(ctx, func(pipeline.Batch) error {
				if n++; n == 2 {
					cancel()
					return ctx.Err()
				}
				return nil
			})
			if err != nil || n != 2 {
				t.Errorf("after cancelling: %v, %d batches", err, n)
			}
		})
	}
}

// Records of an idle pipe are emitted at once, and stopping does not wait for more.
func TestQuietStandardInput(t *testing.T) {
	in, out := io.Pipe()
	defer out.Close()
	s, err := New(Options{Files: []string{Stdin}, Stdin: in})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	flowed := make(chan string)
	ended := make(chan error)
	go func() {
		ended <- s.Run(ctx, func(b pipeline.Batch) error {
			flowed <- b.Items[0].Raw
			return nil
		})
	}()
	fmt.Fprintln(out, header)
	fmt.Fprintln(out, lineOf(2))
	if got := <-flowed; got != lineOf(2) {
		t.Errorf("got %q", got)
	}
	fmt.Fprint(out, "bus-1,wu")
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("stopped with %v", err)
	}
}

func TestTimeRange(t *testing.T) {
	file := header + "\n" +
		"bus-1,wuxi,1793527200,31.5,120.5\n" +
		"bus-1,wuxi,1793523600,99,120.5\n" + // out of bounds, but with a time
		"bus-1,wuxi,yesterday,31.5,120.5\n" +
		"bus-1,wuxi,0,31.5\n" +
		"bus-2,wuxi,1793530800,31.5,120.5\n"
	o := Options{Files: []string{write(t, "f.csv", file)}, Shift: time.Hour}
	first, last, n, err := TimeRange(t.Context(), o)
	if err != nil || first != 1793523600_000 || last != 1793530800_000 || n != 3 {
		t.Errorf("got %d to %d, %d records, %v", first, last, n, err)
	}
	_, _, _, err = TimeRange(t.Context(), Options{Files: []string{Stdin}, Stdin: strings.NewReader(file)})
	mentions(t, err, "time range of standard input", "save it to a file")
	first, last, n, err = TimeRange(t.Context(), Options{Files: []string{write(t, "f.csv", header+"\n?\n")}})
	if err != nil || first != 0 || last != 0 || n != 0 {
		t.Errorf("without a record: %d to %d, %d records, %v", first, last, n, err)
	}
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, _, err = TimeRange(stopped, o); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want a canceled context", err)
	}
}

// The recording of taxis has local times, its own column names and no fleet.
func TestRecordingOfTaxis(t *testing.T) {
	o := Options{
		Files: []string{testenv.Taxis(t)},
		Map:   map[string]string{"lon": "longitude", "lat": "latitude", "device_id": "taxi"},
		Set:   map[string]string{"fleet_id": "wuxi"},
		Times: telemetry.TimeFormat{Location: time.FixedZone("Asia/Shanghai", 8*3600)},
	}
	items, refused := mustRead(t, o)
	taxis := map[string]bool{}
	for i, item := range items {
		taxis[item.DeviceID] = true
		if item.Position != int64(i+2) {
			t.Fatalf("record %d is at line %d", i, item.Position)
		}
	}
	if len(items) != 20_188 || len(taxis) != 475 || len(refused) > 0 {
		t.Errorf("%d records of %d taxis, %d refused; want 20188 of 475", len(items), len(taxis), len(refused))
	}
	if got, want := items[0].Time(), time.Date(2020, 7, 18, 9, 14, 32, 0, time.UTC); !got.Equal(want) {
		t.Errorf("first at %s, want %s", got, want)
	}
}
