package geofence

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// The more geofences a city has, the smaller they are, so that a position is in one or two of them.
func BenchmarkIndex(b *testing.B) {
	for _, c := range []struct {
		geofences int
		meters    float64
	}{{1_000, 1_000}, {10_000, 320}} {
		r := rand.New(rand.NewPCG(11, 12))
		x := mustIndex(b, randomGeofences(b, r, c.geofences, 52.2, 9.5, 52.6, 10, c.meters))
		at := make([][2]float64, 4096)
		for i := range at {
			at[i] = [2]float64{52.2 + 0.4*r.Float64(), 9.5 + 0.5*r.Float64()}
		}
		found := make([]telemetry.NearbyGeofence, 0, 64)
		b.Run(fmt.Sprintf("Near/%d", c.geofences), func(b *testing.B) {
			b.ReportAllocs()
			hits := 0
			for i := 0; b.Loop(); i++ {
				p := at[i%len(at)]
				found = x.Near("f", p[0], p[1], 30, found[:0])
				hits += len(found)
			}
			b.ReportMetric(float64(hits)/float64(b.N), "geofences/op")
		})
		b.Run(fmt.Sprintf("Smallest/%d", c.geofences), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				p := at[i%len(at)]
				_, _ = x.Smallest("f", p[0], p[1])
			}
		})
	}
}

// An outline with many corners, by its blocks and by a scan of each edge.
func BenchmarkOutline(b *testing.B) {
	r := rand.New(rand.NewPCG(13, 14))
	for _, corners := range []int{12, 16, 24, 32, 100, 9_999} {
		geofences := mustParse(b, feature(rings{{star(r, 52, 9, 5000, corners)}}.text(), named("z", "")))
		blocks := geofences[0].shape.outline
		at := make([][2]float64, 1024)
		for i := range at {
			at[i] = [2]float64{8000 * (r.Float64() - 0.5), 8000 * (r.Float64() - 0.5)}
		}
		for name, o := range map[string]outline{"blocks": blocks, "each": {edges: blocks.edges}} {
			b.Run(fmt.Sprintf("%s/%d", name, corners), func(b *testing.B) {
				for i := 0; b.Loop(); i++ {
					p := at[i%len(at)]
					limit := 900.0
					if o.contains(p[0], p[1]) {
						limit = 1e12
					}
					_ = o.distance2(p[0], p[1], 0.6, limit)
				}
			})
		}
	}
}

func BenchmarkParse(b *testing.B) {
	r := rand.New(rand.NewPCG(15, 16))
	features := make([]json.RawMessage, 10_000)
	for i := range features {
		features[i] = json.RawMessage(feature(rings{{star(r, 52+r.Float64(), 9+r.Float64(), 300, 30)}}.text(), named(fmt.Sprint("z", i), "")))
	}
	text, _ := json.Marshal(map[string]any{"type": "FeatureCollection", "features": features})
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		geofences, err := Parse("z.json", text)
		if err != nil {
			b.Fatal(err)
		}
		mustIndex(b, geofences)
	}
}
