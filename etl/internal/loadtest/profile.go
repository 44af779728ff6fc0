package loadtest

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/google/pprof/profile"
)

// Share is a part of a whole, 0 to 1.
type Share struct {
	Name  string  `json:"name"`
	Share float64 `json:"share"`
}

const ours = "github.com/fleettracing/fleet-tracing/"

// stages are the parts of fleet-etl by the packages that they are made of. What the Go runtime does on behalf of a part
// counts as the part's; what it does by itself is its own line.
var stages = []struct{ prefix, name string }{
	{ours + "etl/internal/loadtest", "the bench itself"},
	{ours + "etl/internal/source", "extract: read and parse"},
	{ours + "etl/internal/validate", "transform: check, dedupe, complete"},
	{ours + "etl/internal/pipeline", "transform: check, dedupe, complete"},
	{ours + "etl/internal/derive", "derive: alerts, trips, hours"},
	{ours + "etl/internal/alerting", "derive: alerts, trips, hours"},
	{ours + "etl/internal/rollup", "derive: alerts, trips, hours"},
	{ours + "etl/internal/geofence", "derive: alerts, trips, hours"},
	{ours + "etl/internal/writer", "writer: group, plan"},
	{ours + "etl/internal/executor", "executor: limit, retry"},
	{ours + "cassandra", "store: statements and values"},
	{"github.com/gocql/gocql", "driver"},
	{"runtime.gcBgMarkWorker", "garbage collector"},
	{"runtime.bgsweep", "garbage collector"},
	{"runtime.bgscavenge", "garbage collector"},
	{"runtime.", "Go scheduler"},
}

// sharesOf reads a CPU profile: each sample belongs to the innermost of our parts, or of the driver, that it was in.
func sharesOf(cpu []byte) ([]Share, error) {
	p, err := profile.Parse(bytes.NewReader(cpu))
	if err != nil {
		return nil, fmt.Errorf("CPU profile: %w", err)
	}
	sums := map[string]float64{}
	var total float64
	for _, s := range p.Sample {
		spent := float64(s.Value[len(s.Value)-1])
		total += spent
		sums[partOf(s)] += spent
	}
	shares := make([]Share, 0, len(sums))
	for name, sum := range sums {
		shares = append(shares, Share{name, sum / total})
	}
	slices.SortFunc(shares, func(a, b Share) int { return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(a.Name, b.Name)) })
	return shares, nil
}

func partOf(s *profile.Sample) string {
	runtime := ""
	for _, at := range s.Location { // from the innermost outwards
		for _, line := range at.Line {
			name := line.Function.Name
			for _, stage := range stages {
				if !strings.HasPrefix(name, stage.prefix) {
					continue
				}
				if !strings.HasPrefix(stage.prefix, "runtime.") {
					return stage.name
				}
				if stage.prefix != "runtime." || runtime == "" {
					runtime = stage.name
				}
				break
			}
		}
	}
	if runtime != "" {
		return runtime
	}
	return "other"
}
