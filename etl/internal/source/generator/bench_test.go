package generator

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"
)

func BenchmarkSimulator(b *testing.B) {
	for _, vehicles := range []int{1_000, 100_000} {
		for _, interval := range []time.Duration{time.Second, 10 * time.Second, time.Minute} {
			b.Run(fmt.Sprintf("vehicles=%d/interval=%v", vehicles, interval), func(b *testing.B) {
				s := simulator(b, Options{Seed: 1, Vehicles: vehicles, Interval: interval, Start: monday.Add(3 * time.Hour)})
				var e Emission
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					s.Next(&e)
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
			})
		}
	}
}

func BenchmarkWriteCSV(b *testing.B)    { benchmarkWrite(b, WriteCSV) }
func BenchmarkWriteNDJSON(b *testing.B) { benchmarkWrite(b, WriteNDJSON) }

func benchmarkWrite(b *testing.B, write func(context.Context, io.Writer, *Simulator) (Counts, error)) {
	s := simulator(b, Options{
		Seed: 1, Vehicles: 1000, Interval: 10 * time.Second, Start: monday.Add(3 * time.Hour), Records: b.N,
		Late: 0.02, Duplicate: 0.01, Broken: 0.01,
	})
	b.ReportAllocs()
	b.ResetTimer()
	counts, err := write(b.Context(), io.Discard, s)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(counts.Lines())/b.Elapsed().Seconds(), "records/s")
}

func TestManyVehiclesFitIntoMemory(t *testing.T) {
	const vehicles, most = 100_000, 200 << 20
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	s := simulator(t, Options{
		Seed: 1, Vehicles: vehicles, Fleets: 100, Interval: 10 * time.Second, Start: monday, Late: 0.05, Duplicate: 0.02,
	})
	var e Emission
	for range 5 * vehicles {
		s.Next(&e)
	}
	used := heap() - before
	runtime.KeepAlive(s)
	t.Logf("%d vehicles take %d MiB", vehicles, used>>20)
	if used > most {
		t.Errorf("%d vehicles take %d MiB, want at most %d", vehicles, used>>20, most>>20)
	}
}
