package rollup

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// life is a random vehicle's: it stands, drives, crawls, falls silent, goes astray, is elsewhere at once, changes fleets.
func life(seed uint64, fixes int) []telemetry.Record {
	r := rand.New(rand.NewPCG(seed, 7))
	j := from("20:30:00")
	pick := func(of ...time.Duration) time.Duration { return of[r.IntN(len(of))] }
	every := pick(5*sec, 10*sec, 30*sec, 100*sec, 6*mins)
	hasSpeeds := r.Float64()
	wander := func(n int, km float64) { // n fixes with so much way each, more or less straight on
		for angle := r.Float64() * 6.28; n > 0; n-- {
			angle += r.NormFloat64() * 0.3
			x, y := km*(0.5+r.Float64())*cosine(angle), km*(0.5+r.Float64())*cosine(angle+1.57)
			j.zone = []string{"", "", "depot", "harbour"}[r.IntN(4)]
			if j.speed = (telemetry.Optional[float64]{}); r.Float64() < hasSpeeds {
				j.speed = telemetry.Some(float64(r.IntN(1200)) / 10)
			}
			j.to(every+time.Duration(r.IntN(3000))*time.Millisecond, x, y)
		}
	}
	for len(j.fixes) < fixes {
		switch n := 1 + r.IntN(25); r.IntN(12) {
		case 0, 1, 2:
			wander(n, min(0.08+r.Float64(), 110*every.Hours()))
		case 3, 4:
			j.jitters(time.Duration(n)*every, every, 5+30*r.Float64())
		case 5: // on the edge of the radius
			j.jitters(time.Duration(n)*every, every, 195+10*r.Float64())
		case 6: // at a walk
			wander(n, 4*every.Hours())
		case 7:
			every = pick(5*sec, 10*sec, 30*sec, 100*sec, 6*mins, 20*mins)
		case 8: // silent, and then there or elsewhere
			far := []float64{0, 0.05, 0.19, 0.21, 3, 80}[r.IntN(6)]
			j.to(pick(40*mins, 59*mins, 61*mins, 5*time.Hour, 30*time.Hour), far, 0)
		case 9: // astray, and back
			far := []float64{0.25, 0.6, 3, 40, 2000}[r.IntN(5)]
			j.to(every, far, 0)
			if r.IntN(3) == 0 {
				j.to(every, 0.02, 30*float64(r.IntN(2)))
				j.to(every, 0, 0)
			}
			j.to(every, -far, 0)
		case 10: // elsewhere at once
			if r.IntN(2) == 0 {
				j.to(every, 400*(r.Float64()-0.5), 0)
			}
		case 11:
			if r.IntN(3) == 0 {
				j.fleet = []string{"north", "south", "west"}[r.IntN(3)]
			}
		}
	}
	return j.fixes[:fixes]
}

func cosine(x float64) float64 { // a triangle wave does
	for x > 6.28 {
		x -= 6.28
	}
	for x < 0 {
		x += 6.28
	}
	if x > 3.14 {
		x = 6.28 - x
	}
	return 1 - x/1.57
}

// alertsFor is some alerts after fixes, before the next ones: alerts[i] follow fix i.
func alertsFor(seed uint64, fixes []telemetry.Record) [][]alertAt {
	r := rand.New(rand.NewPCG(seed, 8))
	alerts := make([][]alertAt, len(fixes))
	for i := range fixes {
		at := fixes[i].TimeMs
		for r.IntN(20) == 0 {
			if until := at + 40*60_000; i+1 == len(fixes) || until < fixes[i+1].TimeMs {
				at = until
			}
			alerts[i] = append(alerts[i], alertAt{[]string{fixes[i].FleetID, "east"}[r.IntN(2)], at})
		}
	}
	return alerts
}

func applyAll(s *State, r *telemetry.Record, alerts []alertAt, sink Sink) {
	s.Apply(r, sink)
	for _, a := range alerts {
		s.AddAlert(a.fleet, a.ms, sink)
	}
}

const seeds = 500

func TestTheFoldIsWhatTheSlowWaySays(t *testing.T) {
	kinds := map[TripKind]int{}
	for seed := range uint64(seeds) {
		fixes := life(seed, 20+int(seed%150))
		alerts := alertsFor(seed, fixes)
		var s State
		done := finals{newTable(), t}
		for i := range fixes {
			applyAll(&s, &fixes[i], alerts[i], done)
		}
		got, want := done.and(&s), oracleTable(fixes, slices.Concat(alerts...))
		requireSame(t, want, got, "seed %d", seed)
		requireSound(t, got, fixes)
		for _, r := range got.trips {
			kinds[r.Kind]++
		}
	}
	assert.Greater(t, kinds[KindTrip], seeds, "the lives are worth looking at")
	assert.Greater(t, kinds[KindStop], seeds)
}

func TestEveryMomentShowsWhatTheSlowWaySaysOfThePast(t *testing.T) {
	for seed := range uint64(50) {
		fixes := life(seed+10_000, 40+int(seed))
		alerts := alertsFor(seed, fixes)
		var s State
		done := finals{newTable(), t}
		shown := map[tripKey]Trip{}
		type moment struct {
			openFrom int64
			settled  []Trip
		}
		var moments []moment
		for i := range fixes {
			applyAll(&s, &fixes[i], alerts[i], done)
			now := done.and(&s)
			requireSame(t, oracleTable(fixes[:i+1], slices.Concat(alerts[:i+1]...)), now, "seed %d fix %d", seed, i)
			for key, was := range shown {
				if is, stays := now.trips[key]; !stays || is.FleetID != was.FleetID {
					require.Fail(t, "a row that was shown is gone", "seed %d fix %d: %+v", seed, i, was)
				}
			}
			shown = now.trips
			m := moment{openFrom: s.OpenFromMs()}
			for _, r := range now.sortedTrips() {
				if r.Open != (r.StartMs >= m.openFrom) {
					require.Fail(t, "another than the last is open", "seed %d fix %d: %+v", seed, i, r)
				}
				if !r.Open {
					m.settled = append(m.settled, r)
				}
			}
			moments = append(moments, m)
		}
		all := done.and(&s).sortedTrips()
		for i, m := range moments {
			n := 0
			for n < len(all) && all[n].StartMs < m.openFrom {
				n++
			}
			if !slices.Equal(m.settled, all[:n]) {
				require.Equal(t, m.settled, all[:n], "seed %d fix %d: what began before OpenFromMs never changes", seed, i)
			}
		}
	}
}

func TestAStateThatWasWrittenGoesOnTheSame(t *testing.T) {
	for seed := range uint64(60) {
		fixes := life(seed+20_000, 120)
		alerts := alertsFor(seed, fixes)
		var whole State
		done, cut := newTable(), newTable()
		var back State
		for i := range fixes {
			applyAll(&whole, &fixes[i], alerts[i], done)
			before := back
			text, err := json.Marshal(before)
			require.NoError(t, err)
			back = through(t, back)
			applyAll(&back, &fixes[i], alerts[i], cut)
			if want, got := done.and(&whole), cut.and(&back); !maps.Equal(want.hours, got.hours) || !maps.Equal(want.trips, got.trips) {
				require.Equal(t, want, got, "seed %d fix %d", seed, i) // to the last bit
			}
			again, err := json.Marshal(before)
			require.NoError(t, err)
			require.Equal(t, string(text), string(again))
		}
	}
}

func TestACopyIsIndependent(t *testing.T) {
	for seed := range uint64(50) {
		fixes, other := life(seed+30_000, 80), life(seed+31_000, 80)
		var s State
		for i := range fixes {
			s.Apply(&fixes[i], newTable())
			text, err := json.Marshal(s)
			require.NoError(t, err)
			twin := s
			for k := range 6 {
				r := other[(i+k)%len(other)]
				r.TimeMs = twin.LastMs() + 10_000
				r.FleetID = []string{"north", "south", "west"}[k%3]
				applyAll(&twin, &r, []alertAt{{"east", r.TimeMs}}, newTable())
			}
			after, err := json.Marshal(s)
			require.NoError(t, err)
			require.Equal(t, string(text), string(after), "seed %d fix %d", seed, i)
		}
	}
}

// requireSame compares tables, floats nearly: the slow way adds up in another order.
func requireSame(t *testing.T, want, got *table, format string, args ...any) {
	near := func(a, b float64) bool { return math.Abs(a-b) <= 1e-9*(1+math.Abs(a)) }
	wantHours, gotHours := want.sortedHours(), got.sortedHours()
	same := len(wantHours) == len(gotHours)
	for i := 0; same && i < len(wantHours); i++ {
		w, g := wantHours[i], gotHours[i]
		same = near(w.DistanceKm, g.DistanceKm) && near(w.SpeedSumKmh, g.SpeedSumKmh)
		g.DistanceKm, g.SpeedSumKmh = w.DistanceKm, w.SpeedSumKmh
		same = same && w == g
	}
	if !same {
		require.Equal(t, wantHours, gotHours, fmt.Sprintf(format, args...))
	}
	wantTrips, gotTrips := want.sortedTrips(), got.sortedTrips()
	same = len(wantTrips) == len(gotTrips)
	for i := 0; same && i < len(wantTrips); i++ {
		w, g := wantTrips[i], gotTrips[i]
		same = near(w.DistanceKm, g.DistanceKm) && near(w.MaxSpeedKmh.Value, g.MaxSpeedKmh.Value)
		g.DistanceKm, g.MaxSpeedKmh.Value = w.DistanceKm, w.MaxSpeedKmh.Value
		same = same && w == g
	}
	if !same {
		require.Equal(t, wantTrips, gotTrips, fmt.Sprintf(format, args...))
	}
}

// requireSound checks what is true of any table of one device.
func requireSound(t *testing.T, got *table, fixes []telemetry.Record) {
	var last Trip
	for _, r := range got.sortedTrips() {
		require.GreaterOrEqual(t, r.StartMs, last.EndMs, "they do not overlap: %+v %+v", last, r)
		require.Greater(t, r.EndMs, r.StartMs)
		require.False(t, last.Open, "only the last is open")
		require.True(t, r.MaxSpeedKmh.Valid)
		if r.StartMs == last.EndMs {
			require.NotEqual(t, last.Kind, r.Kind, "a trip leads to a stop, a stop to a trip")
		}
		switch r.Kind {
		case KindTrip:
			require.GreaterOrEqual(t, r.DistanceKm, 0.2-1e-9)
			require.LessOrEqual(t, r.IdleMs, r.EndMs-r.StartMs)
		case KindStop:
			require.GreaterOrEqual(t, r.EndMs-r.StartMs, int64(180_000))
			require.Zero(t, r.IdleMs)
		}
		last = r
	}
	var km, want float64
	var records int64
	for _, h := range got.hours {
		km += h.DistanceKm
		records += h.Records
	}
	for i := range fixes[1:] {
		if speed(fixes[i], fixes[i+1]) <= telemetry.MaxLegKmh {
			want += far(fixes[i], fixes[i+1])
		}
	}
	require.InDelta(t, want, km, 1e-6*(1+want))
	require.EqualValues(t, len(fixes), records)
}
