package rollup

import (
	"encoding/json"
	"runtime"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// nowhere is a sink that keeps nothing.
type nowhere struct{}

func (nowhere) Hour(Hour) {}
func (nowhere) Trip(Trip) {}

// shift is a vehicle's day of work: it drives, waits, stands, and is left for the night.
func shift() *journey {
	j := from("06:00:00")
	for range 12 {
		j.drives(8, 48, 10*sec).stands(60*sec, 10*sec).drives(8, 48, 10*sec).jitters(20*mins, 10*sec, 15)
	}
	return j
}

func TestTheUsualFixCostsNoMemory(t *testing.T) {
	fixes := shift().fixes
	var s State
	rise := testing.AllocsPerRun(1, func() {
		s = State{}
		for i := range fixes {
			s.Apply(&fixes[i], nowhere{})
		}
	})
	assert.LessOrEqual(t, rise, 24.0, "of %d fixes, one where a stop is left", len(fixes))
	assert.LessOrEqual(t, unsafe.Sizeof(s), uintptr(340))
	text, err := json.Marshal(s)
	require.NoError(t, err)
	assert.Less(t, len(text), 700)
}

func BenchmarkApply(b *testing.B) {
	fixes := shift().fixes
	b.ReportAllocs()
	var s State
	for n := 0; b.Loop(); n++ {
		if n == len(fixes) {
			n, s = 0, State{}
		}
		s.Apply(&fixes[n], nowhere{})
	}
}

func BenchmarkMemory(b *testing.B) {
	const devices = 100_000
	fixes := shift().fixes
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
				states[d].Apply(&fixes[d%(len(fixes)-30)+i], nowhere{})
			}
		}
		b.ReportMetric(float64(heap()-before)/devices, "B/device")
		runtime.KeepAlive(states)
	}
}

func BenchmarkJSON(b *testing.B) {
	fixes := shift().fixes
	var s State
	for i := range fixes {
		s.Apply(&fixes[i], nowhere{})
	}
	var text []byte
	for b.Loop() {
		text, _ = json.Marshal(s)
		_ = json.Unmarshal(text, &s)
	}
	b.ReportMetric(float64(len(text)), "B/state")
}
