package probe

import (
	"testing"

	"github.com/google/pprof/profile"
	"github.com/stretchr/testify/assert"
)

func TestSharesCountTheInnermostPackage(t *testing.T) {
	p := &profile.Profile{SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}}}
	sample := func(nanoseconds int64, innermostFirst ...string) {
		s := &profile.Sample{Value: []int64{1, nanoseconds}}
		for _, name := range innermostFirst {
			id := uint64(len(p.Function) + 1)
			f := &profile.Function{ID: id, Name: name}
			l := &profile.Location{ID: id, Line: []profile.Line{{Function: f}}}
			p.Function, p.Location = append(p.Function, f), append(p.Location, l)
			s.Location = append(s.Location, l)
		}
		p.Sample = append(p.Sample, s)
	}
	sample(30, "runtime.mallocgc", ours+"etl/internal/source/csvfile.(*reader).next", ours+"etl/internal/source/replay.(*Source).Run")
	sample(40, "syscall.write", "github.com/gocql/gocql.(*Conn).exec", ours+"cassandra.(*Store).WriteHistory", ours+"etl/internal/writer.(*Writer).one")
	sample(10, "runtime.scanobject", "runtime.gcDrain", "runtime.gcBgMarkWorker")
	sample(10, "runtime.futex", "runtime.schedule", "runtime.mcall")
	sample(5, ours+"etl/internal/rollup.(*Trips).Add", ours+"etl/internal/processor.(*Processor).Apply")
	sample(5, "net/http.(*conn).serve")
	assert.Equal(t, []Share{
		{"Cassandra driver", .4}, {"package source/csvfile", .3}, {"Go scheduler", .1}, {"garbage collector", .1}, {"other", .05}, {"package rollup", .05},
	}, shares(p))
}
