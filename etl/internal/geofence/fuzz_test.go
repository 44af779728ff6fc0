package geofence

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// FuzzParse checks that errors name their origin, and that parsed geofences can be indexed, queried at any position, stored
// and read back, in a time that is bounded by the size of the text.
func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		// Generous enough for a busy machine.
		slow := time.AfterFunc(20*time.Second, func() { panic(fmt.Sprintf("%d bytes take more than 20 s", len(text))) })
		defer slow.Stop()
		geofences, err := Parse("z.json", text)
		if err != nil {
			require.Empty(t, geofences)
			for line := range strings.SplitSeq(err.Error(), "\n") {
				require.True(t, strings.HasPrefix(line, "z.json: ") || strings.HasPrefix(line, "and "), line)
			}
			return
		}
		x, err := NewIndex(geofences)
		require.NoError(t, err)
		for _, z := range geofences {
			fleet := z.Fleet
			if fleet == AllFleets {
				fleet = "any"
			}
			b := z.shape.box
			for _, lon := range []float64{b.MinX, (b.MinX + b.MaxX) / 2, b.MaxX, b.MaxX + 0.001} {
				for _, lat := range []float64{b.MinY, (b.MinY + b.MaxY) / 2, b.MaxY} {
					lat, lon := max(-90, min(90, lat)), math.Remainder(lon, 360)
					found := x.Near(fleet, lat, lon, 500, nil)
					for i, g := range found {
						require.False(t, math.IsNaN(g.InsideM) || g.InsideM < -500, "%v", g)
						require.True(t, i == 0 || smallestFirst(found[i-1], g) < 0, "smallest first, each once")
					}
					if name, ok := x.Smallest(fleet, lat, lon); ok {
						require.Contains(t, names(found), name)
					}
				}
			}
			for _, at := range [][2]float64{{90, 0}, {-90, 180}, {0, -180}, {math.NaN(), 0}, {math.Inf(1), math.Inf(-1)}, {91, 0}, {0, 181}} {
				for _, reach := range []float64{0, 1e9, math.Inf(1), math.NaN()} {
					for _, g := range x.Near(fleet, at[0], at[1], reach, nil) {
						require.True(t, onEarth(at[0], at[1]), "an invalid position is in no geofence")
						require.False(t, math.IsNaN(g.InsideM))
					}
				}
				_, ok := x.Smallest(fleet, at[0], at[1])
				require.True(t, !ok || onEarth(at[0], at[1]))
			}
			if z.RadiusM.Valid {
				continue
			}
			again, err := Parse("again", collection(feature(z.Geometry, named(z.Name, ""))))
			require.NoError(t, err, "stored geofences can be read")
			require.Equal(t, z.Geometry, again[0].Geometry)
			require.Equal(t, z.shape, again[0].shape)
		}
	})
}
