package probe

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/pprof/profile"
)

// Share is a part of a whole, 0 to 1.
type Share struct {
	Name  string  `json:"name"`
	Share float64 `json:"share"`
}

// cpuProfile takes a CPU profile of a program that serves /debug/pprof.
func cpuProfile(ctx context.Context, address string, lasts time.Duration) (*profile.Profile, error) {
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", address, max(1, int(lasts.Seconds())))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("take a CPU profile: %w", err)
	}
	defer response.Body.Close()
	p, err := profile.Parse(response.Body)
	if err != nil {
		return nil, fmt.Errorf("take a CPU profile: status %s: %w", response.Status, err)
	}
	return p, nil
}

// The packages that samples are counted for. The Go runtime's work for one of them is part of it; the work that the
// runtime does on its own has a line of its own.
const ours = "github.com/fleettracing/fleet-tracing/"

var runtimeParts = []struct{ prefix, name string }{
	{"runtime.gcBgMarkWorker", "garbage collector"},
	{"runtime.bgsweep", "garbage collector"},
	{"runtime.bgscavenge", "garbage collector"},
	{"runtime.", "Go scheduler"},
}

// shares counts each sample for the innermost of our packages, or of the driver, on its stack.
func shares(p *profile.Profile) []Share {
	sums := map[string]float64{}
	var total float64
	for _, s := range p.Sample {
		spent := float64(s.Value[len(s.Value)-1])
		total += spent
		sums[partOf(s)] += spent
	}
	parts := make([]Share, 0, len(sums))
	for name, sum := range sums {
		parts = append(parts, Share{name, sum / total})
	}
	slices.SortFunc(parts, func(a, b Share) int { return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(a.Name, b.Name)) })
	return parts
}

func partOf(s *profile.Sample) string {
	part := "other"
	for _, at := range s.Location { // from the innermost outward
		for _, line := range at.Line {
			name := line.Function.Name
			if strings.HasPrefix(name, "github.com/gocql/gocql.") {
				return "Cassandra driver"
			}
			if inside, ok := strings.CutPrefix(name, ours); ok {
				inside = strings.TrimPrefix(inside, "etl/internal/")
				dir, function := "", inside
				if i := strings.LastIndexByte(inside, '/'); i >= 0 {
					dir, function = inside[:i+1], inside[i+1:]
				}
				pkg, _, _ := strings.Cut(function, ".")
				return "package " + dir + pkg
			}
			for _, r := range runtimeParts {
				if strings.HasPrefix(name, r.prefix) && part != "garbage collector" {
					part = r.name
					break
				}
			}
		}
	}
	return part
}
