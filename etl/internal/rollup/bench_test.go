package rollup

import (
	"encoding/json"
	"runtime"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// discard is a sink that keeps nothing.
type discard struct{}

func (discard) Hour(Hour) {}
func (discard) Trip(Trip) {}

// workday is a vehicle's day: it drives, waits and stands.
func workday() *journey {
	j := from("06:00:00")
	for range 12 {
		j.drives(8, 48, 10*sec).stands(60*sec, 10*sec).drives(8, 48, 10*sec).jitters(20*mins, 10*sec, 15)
	}
	return j
}

func TestApplyRarelyAllocates(t *testing.T) {
	records := workday().records
	var s State
	allocs := testing.AllocsPerRun(1, func() {
		s = State{}
		for i := range records {
			s.Apply(&records[i], discard{})
		}
	})
	assert.LessOrEqual(t, allocs, 24.0, "of %d records, one when the vehicle leaves a stop", len(records))
	assert.LessOrEqual(t, unsafe.Sizeof(s), uintptr(340))
	text, err := json.Marshal(s)
	require.NoError(t, err)
	assert.Less(t, len(text), 700)
}

func BenchmarkApply(b *testing.B) {
	records := workday().records
	b.ReportAllocs()
	var s State
	for n := 0; b.Loop(); n++ {
		if n == len(records) {
			n, s = 0, State{}
		}
		s.Apply(&records[n], discard{})
	}
}

func BenchmarkMemory(b *testing.B) {
	const devices = 100_000
	records := workday().records
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	for b.Loop() {
		before := heap()
		states := make([]State, devices)
		for d := range states {
			for i := range 30 {
				states[d].Apply(&records[d%(len(records)-30)+i], discard{})
			}
		}
		b.ReportMetric(float64(heap()-before)/devices, "B/device")
		runtime.KeepAlive(states)
	}
}

func BenchmarkJSON(b *testing.B) {
	records := workday().records
	var s State
	for i := range records {
		s.Apply(&records[i], discard{})
	}
	var text []byte
	for b.Loop() {
		text, _ = json.Marshal(s)
		_ = json.Unmarshal(text, &s)
	}
	b.ReportMetric(float64(len(text)), "B/state")
}
