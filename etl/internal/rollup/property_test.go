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

// randomRecords is a random history: the vehicle stands, drives, crawls, has gaps, outliers and jumps, and changes fleets.
func randomRecords(seed uint64, n int) []telemetry.Record {
	r := rand.New(rand.NewPCG(seed, 7))
	j := from("20:30:00")
	pick := func(of ...time.Duration) time.Duration { return of[r.IntN(len(of))] }
	every := pick(5*sec, 10*sec, 30*sec, 100*sec, 6*mins)
	hasSpeeds := r.Float64()
	wander := func(n int, km float64) { // n records at about that distance each, roughly straight on
		for angle := r.Float64() * 6.28; n > 0; n-- {
			angle += r.NormFloat64() * 0.3
			x, y := km*(0.5+r.Float64())*cosine(angle), km*(0.5+r.Float64())*cosine(angle+1.57)
			j.zone = []string{"", "", "depot", "harbor"}[r.IntN(4)]
			if j.speed = (telemetry.Optional[float64]{}); r.Float64() < hasSpeeds {
				j.speed = telemetry.Some(float64(r.IntN(1200)) / 10)
			}
			j.to(every+time.Duration(r.IntN(3000))*time.Millisecond, x, y)
		}
	}
	for len(j.records) < n {
		switch count := 1 + r.IntN(25); r.IntN(12) {
		case 0, 1, 2:
			wander(count, min(0.08+r.Float64(), 110*every.Hours()))
		case 3, 4:
			j.jitters(time.Duration(count)*every, every, 5+30*r.Float64())
		case 5: // on the edge of the radius
			j.jitters(time.Duration(count)*every, every, 195+10*r.Float64())
		case 6: // at walking speed
			wander(count, 4*every.Hours())
		case 7:
			every = pick(5*sec, 10*sec, 30*sec, 100*sec, 6*mins, 20*mins)
		case 8: // a gap, with or without movement
			far := []float64{0, 0.05, 0.19, 0.21, 3, 80}[r.IntN(6)]
			j.to(pick(40*mins, 59*mins, 61*mins, 5*time.Hour, 30*time.Hour), far, 0)
		case 9: // an outlier
			far := []float64{0.25, 0.6, 3, 40, 2000}[r.IntN(5)]
			j.to(every, far, 0)
			if r.IntN(3) == 0 {
				j.to(every, 0.02, 30*float64(r.IntN(2)))
				j.to(every, 0, 0)
			}
			j.to(every, -far, 0)
		case 10: // a jump
			if r.IntN(2) == 0 {
				j.to(every, 400*(r.Float64()-0.5), 0)
			}
		case 11:
			if r.IntN(3) == 0 {
				j.fleet = []string{"north", "south", "west"}[r.IntN(3)]
			}
		}
	}
	return j.records[:n]
}

func cosine(x float64) float64 { // a triangle wave is close enough
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

// alertsFor returns random alerts; alerts[i] are between record i and the next one.
func alertsFor(seed uint64, records []telemetry.Record) [][]alertAt {
	r := rand.New(rand.NewPCG(seed, 8))
	alerts := make([][]alertAt, len(records))
	for i := range records {
		at := records[i].TimeMs
		for r.IntN(20) == 0 {
			if until := at + 40*60_000; i+1 == len(records) || until < records[i+1].TimeMs {
				at = until
			}
			alerts[i] = append(alerts[i], alertAt{[]string{records[i].FleetID, "east"}[r.IntN(2)], at})
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

func TestRowsEqualOracle(t *testing.T) {
	kinds := map[TripKind]int{}
	for seed := range uint64(seeds) {
		records := randomRecords(seed, 20+int(seed%150))
		alerts := alertsFor(seed, records)
		var s State
		done := finals{newTable(), t}
		for i := range records {
			applyAll(&s, &records[i], alerts[i], done)
		}
		got, want := done.withCurrent(&s), oracleTable(records, slices.Concat(alerts...))
		requireSame(t, want, got, "seed %d", seed)
		requireSound(t, got, records)
		for _, r := range got.trips {
			kinds[r.Kind]++
		}
	}
	assert.Greater(t, kinds[KindTrip], seeds, "enough trips to prove something")
	assert.Greater(t, kinds[KindStop], seeds)
}

func TestRowsEqualOracleAfterEachRecord(t *testing.T) {
	for seed := range uint64(50) {
		records := randomRecords(seed+10_000, 40+int(seed))
		alerts := alertsFor(seed, records)
		var s State
		done := finals{newTable(), t}
		emitted := map[tripKey]Trip{}
		type snapshot struct {
			openFrom int64
			final    []Trip
		}
		var snapshots []snapshot
		for i := range records {
			applyAll(&s, &records[i], alerts[i], done)
			now := done.withCurrent(&s)
			requireSame(t, oracleTable(records[:i+1], slices.Concat(alerts[:i+1]...)), now, "seed %d record %d", seed, i)
			for key, was := range emitted {
				if is, stays := now.trips[key]; !stays || is.FleetID != was.FleetID {
					require.Fail(t, "an emitted row is gone", "seed %d record %d: %+v", seed, i, was)
				}
			}
			emitted = now.trips
			m := snapshot{openFrom: s.OpenFromMs()}
			for _, r := range now.sortedTrips() {
				if r.Open != (r.StartMs >= m.openFrom) {
					require.Fail(t, "a row before the last is open", "seed %d record %d: %+v", seed, i, r)
				}
				if !r.Open {
					m.final = append(m.final, r)
				}
			}
			snapshots = append(snapshots, m)
		}
		all := done.withCurrent(&s).sortedTrips()
		for i, m := range snapshots {
			n := 0
			for n < len(all) && all[n].StartMs < m.openFrom {
				n++
			}
			if !slices.Equal(m.final, all[:n]) {
				require.Equal(t, m.final, all[:n], "seed %d record %d: rows before OpenFromMs never change", seed, i)
			}
		}
	}
}

func TestStateSurvivesJSON(t *testing.T) {
	for seed := range uint64(60) {
		records := randomRecords(seed+20_000, 120)
		alerts := alertsFor(seed, records)
		var whole State
		done, cut := newTable(), newTable()
		var back State
		for i := range records {
			applyAll(&whole, &records[i], alerts[i], done)
			before := back
			text, err := json.Marshal(before)
			require.NoError(t, err)
			back = roundTrip(t, back)
			applyAll(&back, &records[i], alerts[i], cut)
			if want, got := done.withCurrent(&whole), cut.withCurrent(&back); !maps.Equal(want.hours, got.hours) || !maps.Equal(want.trips, got.trips) {
				require.Equal(t, want, got, "seed %d record %d", seed, i) // to the last bit
			}
			again, err := json.Marshal(before)
			require.NoError(t, err)
			require.Equal(t, string(text), string(again))
		}
	}
}

func TestCopyIsIndependent(t *testing.T) {
	for seed := range uint64(50) {
		records, other := randomRecords(seed+30_000, 80), randomRecords(seed+31_000, 80)
		var s State
		for i := range records {
			s.Apply(&records[i], newTable())
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
			require.Equal(t, string(text), string(after), "seed %d record %d", seed, i)
		}
	}
}

// requireSame compares tables. Floats may differ slightly, because the oracle adds them up in another order.
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

// requireSound checks the invariants of a table of one device.
func requireSound(t *testing.T, got *table, records []telemetry.Record) {
	var last Trip
	for _, r := range got.sortedTrips() {
		require.GreaterOrEqual(t, r.StartMs, last.EndMs, "they do not overlap: %+v %+v", last, r)
		require.Greater(t, r.EndMs, r.StartMs)
		require.False(t, last.Open, "only the last is open")
		require.True(t, r.MaxSpeedKmh.Valid)
		if r.StartMs == last.EndMs {
			require.NotEqual(t, last.Kind, r.Kind, "trips and stops alternate")
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
	var count int64
	for _, h := range got.hours {
		km += h.DistanceKm
		count += h.Records
	}
	for i := range records[1:] {
		if records[i].FleetID == records[i+1].FleetID && speed(records[i], records[i+1]) <= telemetry.MaxSegmentKmh {
			want += distance(records[i], records[i+1])
		}
	}
	require.InDelta(t, want, km, 1e-6*(1+want))
	require.EqualValues(t, len(records), count)
}
