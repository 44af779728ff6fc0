package eventorder

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/testenv"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

func record(device string, timeMs int64, lat float64, origin string, position int64) Entry {
	return Entry{
		Item: pipeline.Item{
			Record:   telemetry.Record{DeviceID: device, FleetID: "wuxi", TimeMs: timeMs, Lat: lat, Lon: 120},
			Position: position,
			Raw:      fmt.Sprintf("%s,%d,%g", device, timeMs, lat),
		},
		Origin: origin,
	}
}

func rejected(origin string, position int64) Entry {
	return Entry{
		Item:      pipeline.Item{Position: position, Raw: "?"},
		Origin:    origin,
		Rejection: telemetry.Reject(telemetry.Malformed, "lat", "?", "give a decimal number"),
		Fields:    map[string]string{"device_id": "bus-1", "lat": "?"},
	}
}

func each(entries []Entry) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for _, e := range entries {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func collect(t *testing.T, in iter.Seq2[Entry, error]) []Entry {
	t.Helper()
	var out []Entry
	for e, err := range in {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

func places(entries []Entry) string {
	var s []string
	for _, e := range entries {
		s = append(s, fmt.Sprintf("%s:%d", e.Origin, e.Position))
	}
	return strings.Join(s, " ")
}

func TestEncoding(t *testing.T) {
	full := record("bus-1", -5, 31.5, "b.csv", 1<<40)
	full.Zone = "port"
	full.SpeedKmh, full.HeadingDeg = telemetry.Some(0.0), telemetry.Some(359.5)
	full.TempC, full.BatteryPct = telemetry.Some(-12.25), telemetry.Some[int32](100)
	full.AccuracyM = telemetry.Some(4.5)
	accurate := record("bus-2", 7, 1, "b.csv", 9)
	accurate.AccuracyM = telemetry.Some(0.0)
	some := record("", 1<<62, -0.0, "a.csv", 0)
	some.HeadingDeg = telemetry.Some(1.0)
	some.Raw = strings.Repeat("é", 40_000)
	for name, want := range map[string]Entry{
		"every field": full, "few fields": some, "only the accuracy": accurate, "refused": rejected("b.csv", 7), "zero": {Origin: "a.csv"},
	} {
		t.Run(name, func(t *testing.T) {
			origins := []string{"a.csv", "b.csv"}
			encoded := ByTime.appendEntry([]byte("before"), &want, uint32(slices.Index(origins, want.Origin)))[len("before"):]
			got, err := readEntry(encoded, origins)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			for n := range len(encoded) {
				if n > 200 && n < len(encoded)-10 {
					continue
				}
				if _, err := readEntry(encoded[:n], origins); err == nil {
					t.Fatalf("%d of %d bytes were read as an entry", n, len(encoded))
				}
			}
		})
	}
}

func TestOrders(t *testing.T) {
	in := []Entry{
		record("b", 10, 1, "x", 2),
		record("a", 20, 1, "x", 3),
		rejected("x", 4),
		record("a", 10, 1, "x", 5),
		record("a", -10, 1, "y", 2),
		record("a", 10, 1, "y", 3), // the same payload as x:5
		rejected("y", 4),
		record("long-name-b", 0, 1, "y", 5),
		record("long-name-a", 0, 1, "y", 6),
		record("long-name-", 0, 1, "y", 7),
	}
	for _, c := range []struct {
		name  string
		order Order
		want  string
	}{
		{"by device", ByDevice, "x:4 y:4 y:2 x:5 y:3 x:3 x:2 y:7 y:6 y:5"},
		{"by time", ByTime, "x:4 y:4 y:2 y:7 y:6 y:5 x:5 y:3 x:2 x:3"},
	} {
		for _, memory := range []int{1, 300, 0} {
			t.Run(fmt.Sprint(c.name, " in ", memory), func(t *testing.T) {
				s := Sorter{Dir: t.TempDir(), Memory: memory}
				if got := places(collect(t, s.Sort(t.Context(), c.order, each(in)))); got != c.want {
					t.Errorf("got  %s\nwant %s", got, c.want)
				}
			})
		}
	}
}

func TestTiesDoNotDependOnArrival(t *testing.T) {
	a, b := record("a", 1, 1, "x", 2), record("a", 1, 2, "x", 3)
	one := collect(t, Sorter{}.Sort(t.Context(), ByDevice, each([]Entry{a, b})))
	a.Position, b.Position = b.Position, a.Position
	two := collect(t, Sorter{}.Sort(t.Context(), ByDevice, each([]Entry{b, a})))
	if one[0].Lat != two[0].Lat {
		t.Error("two payloads of one instant were ranked by where they stood")
	}
}

// many makes entries that are the same for the same n, in no order.
func many(n int) []Entry {
	r := rand.New(rand.NewPCG(1, 2))
	in := make([]Entry, n)
	for i := range in {
		in[i] = record(fmt.Sprintf("vehicle-%04d", r.IntN(500)), 1_595_000_000_000+r.Int64N(1e7), r.Float64(), "f.csv", int64(i+2))
		if r.IntN(100) == 0 {
			in[i] = rejected("f.csv", int64(i+2))
		}
	}
	return in
}

func TestSpillingGivesWhatSortingInMemoryGives(t *testing.T) {
	in := many(20_000)
	dir := t.TempDir()
	for _, order := range []Order{ByDevice, ByTime} {
		want := collect(t, Sorter{}.Sort(t.Context(), order, each(in)))
		for _, memory := range []int{10_000, 1 << 20} {
			got := collect(t, Sorter{Dir: dir, Memory: memory}.Sort(t.Context(), order, each(in)))
			if !reflect.DeepEqual(got, want) {
				t.Errorf("order %d: %d bytes of memory give another result", order, memory)
			}
		}
	}
	nothingLeft(t, dir)
}

func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if runtime.GOOS != "linux" {
		return
	}
	open, _ := filepath.Glob("/proc/self/fd/*")
	for _, fd := range open {
		if to, _ := os.Readlink(fd); strings.HasPrefix(to, dir) {
			t.Errorf("still open: %s", to)
		}
	}
}

func TestTemporaryFileGoesAwayHoweverTheSortEnds(t *testing.T) {
	broken := errors.New("read f.csv: broken")
	in := many(5_000)
	for _, c := range []struct {
		name string
		stop func(n int, cancel func()) (leave bool)
		in   iter.Seq2[Entry, error]
		want error
	}{
		{name: "left early", stop: func(n int, _ func()) bool { return n == 10 }},
		{name: "canceled while merging", stop: func(n int, cancel func()) bool { cancel(); return false }, want: context.Canceled},
		{name: "input broken", want: broken, in: func(yield func(Entry, error) bool) {
			for e := range each(in) {
				if !yield(e, nil) {
					return
				}
			}
			yield(Entry{}, broken)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if c.in == nil {
				c.in = each(in)
			}
			dir, n := t.TempDir(), 0
			var last error
			for _, err := range (Sorter{Dir: dir, Memory: 10_000}).Sort(ctx, ByTime, c.in) {
				last = err
				if n++; c.stop != nil && c.stop(n, cancel) {
					break
				}
			}
			if !errors.Is(last, c.want) {
				t.Errorf("ended with %v, want %v", last, c.want)
			}
			if c.want == broken && n != 1 {
				t.Errorf("%d results came from a broken input, want its error alone", n)
			}
			nothingLeft(t, dir)
		})
	}
}

func TestCancelledBeforeItsInputEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	endless := func(yield func(Entry, error) bool) {
		for i := int64(0); yield(record("a", i, 1, "x", i), nil); i++ {
			if i == 5_000 {
				cancel()
			}
		}
	}
	for _, err := range (Sorter{}).Sort(ctx, ByTime, endless) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want a canceled context", err)
		}
	}
}

func TestNoPlaceForTheTemporaryFile(t *testing.T) {
	var last error
	s := Sorter{Dir: filepath.Join(t.TempDir(), "absent"), Memory: 1000}
	for _, last = range s.Sort(t.Context(), ByTime, each(many(100))) {
	}
	if !errors.Is(last, os.ErrNotExist) || !strings.Contains(last.Error(), "use another directory") {
		t.Errorf("got %v", last)
	}
}

// BenchmarkSort tells the cost of an entry and the greatest heap seen while sorting.
func BenchmarkSort(b *testing.B) {
	for _, n := range []int{1_000_000, 10_000_000} {
		for name, order := range map[string]Order{"device": ByDevice, "time": ByTime} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				if n > 1_000_000 && testing.Short() {
					b.Skip("ten million entries are left out with -short")
				}
				var peak uint64
				b.ReportAllocs()
				for b.Loop() {
					peak = max(peak, sortMany(b, n, order))
				}
				b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
				b.ReportMetric(float64(peak)/1e6, "peak-heap-MB")
			})
		}
	}
}

func sortMany(b *testing.B, n int, order Order) (peak uint64) {
	r := rand.New(rand.NewPCG(1, 2))
	devices := make([]string, 2000)
	for i := range devices {
		devices[i] = fmt.Sprintf("vehicle-%05d", i)
	}
	e := record("", 0, 0, "f.csv", 0)
	e.Raw = "vehicle-00042,wuxi,2020-07-18T09:07:17Z,31.2784533,119.67815,43.5,180.0,88,21.5,port"
	e.SpeedKmh, e.HeadingDeg, e.TempC = telemetry.Some(43.5), telemetry.Some(180.0), telemetry.Some(21.5)
	e.BatteryPct = telemetry.Some[int32](88)
	look := func() {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		peak = max(peak, m.HeapAlloc)
	}
	in := func(yield func(Entry, error) bool) {
		for i := range n {
			e.DeviceID, e.TimeMs, e.Lat, e.Position = devices[r.IntN(len(devices))], int64(i)*10+r.Int64N(60_000), r.Float64(), int64(i)
			if i%100_000 == 0 {
				look()
			}
			if !yield(e, nil) {
				return
			}
		}
	}
	got := 0
	for _, err := range (Sorter{Dir: b.TempDir()}).Sort(b.Context(), order, in) {
		if err != nil {
			b.Fatal(err)
		}
		if got++; got%100_000 == 0 {
			look()
		}
	}
	if got != n {
		b.Fatalf("%d entries came out of %d", got, n)
	}
	return peak
}

func TestSortWaitsForRoomOnItsDisk(t *testing.T) {
	small := testenv.NewSmallDisk(t, 4<<10)
	small.Fill()
	in := many(2000)
	want := places(collect(t, Sorter{}.Sort(t.Context(), ByTime, each(in))))
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var notes []error
		note := func(err error) { mu.Lock(); defer mu.Unlock(); notes = append(notes, err) }
		noted := func() (n int, last error) { mu.Lock(); defer mu.Unlock(); return len(notes), notes[len(notes)-1] }
		s := Sorter{Dir: small.Dir, Memory: 8 << 10, DiskNote: note}
		sorted := make(chan []Entry, 1)
		go func() { sorted <- collect(t, s.Sort(t.Context(), ByTime, each(in))) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		if n, last := noted(); len(sorted) > 0 || n < 3600 || !errors.Is(last, syscall.ENOSPC) {
			t.Errorf("%d results and %d notes after an hour with a full disk", len(sorted), n)
		}
		small.Free()
		if got := places(<-sorted); got != want {
			t.Error("the order is another one than with room")
		}
		if _, last := noted(); last != nil {
			t.Error("the note that the disk has room again is missing")
		}
		ended, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		small.Fill()
		for _, err := range s.Sort(ended, ByTime, each(in)) {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("%v, want that the disk is full", err)
			}
		}
	})
}
