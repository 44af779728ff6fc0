package rollup

import (
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// The oracle knows all fixes at once and looks at them as often as it likes. It shares nothing with the fold but the
// formula of the distance.

type alertAt struct {
	fleet string
	ms    int64
}

func oracleTable(fixes []telemetry.Record, alerts []alertAt) *table {
	out := newTable()
	hour := func(fleet string, ms int64) {
		key := hourKey{fleet, ms / 3_600_000 * 3_600_000}
		if _, known := out.hours[key]; !known {
			out.Hour(oracleHour(fixes, alerts, fleet, key.startMs))
		}
	}
	for i := range fixes {
		hour(fixes[i].FleetID, fixes[i].TimeMs)
	}
	for _, a := range alerts {
		hour(a.fleet, a.ms)
	}
	for from := 0; from < len(fixes); {
		to := from
		for to < len(fixes) && fixes[to].FleetID == fixes[from].FleetID {
			to++
		}
		runs := believable(fixes[from:to])
		for i, run := range runs {
			cut(run, to == len(fixes) && i == len(runs)-1, out)
		}
		from = to
	}
	return out
}

func oracleHour(fixes []telemetry.Record, alerts []alertAt, fleet string, startMs int64) Hour {
	h := Hour{FleetID: fleet, StartMs: startMs}
	in := func(ms int64) bool { return startMs <= ms && ms < startMs+3_600_000 }
	for i, r := range fixes {
		if r.FleetID != fleet || !in(r.TimeMs) {
			continue
		}
		h.Records++
		if r.SpeedKmh.Valid {
			h.SpeedCount++
			h.SpeedSumKmh += r.SpeedKmh.Value
			if !h.MaxSpeedKmh.Valid || h.MaxSpeedKmh.Value < r.SpeedKmh.Value {
				h.MaxSpeedKmh = r.SpeedKmh
			}
		}
		if i == 0 || speed(fixes[i-1], r) > 300 {
			continue
		}
		h.DistanceKm += far(fixes[i-1], r)
		if ms := r.TimeMs - fixes[i-1].TimeMs; speed(fixes[i-1], r) >= 3 && ms <= 600_000 {
			h.DrivingMs += ms
		}
	}
	for _, a := range alerts {
		if a.fleet == fleet && in(a.ms) {
			h.Alerts++
		}
	}
	return h
}

func far(a, b telemetry.Record) float64 { return telemetry.DistanceKm(a.Lat, a.Lon, b.Lat, b.Lon) }

func speed(a, b telemetry.Record) float64 {
	return far(a, b) * 3_600_000 / float64(b.TimeMs-a.TimeMs)
}

// believable leaves out what was astray, and parts the rest where the vehicle really was elsewhere at once.
func believable(fixes []telemetry.Record) (runs [][]telemetry.Record) {
	run := []telemetry.Record{fixes[0]}
	for i := 1; i < len(fixes); i++ {
		last := run[len(run)-1]
		if speed(last, fixes[i]) <= 300 {
			run = append(run, fixes[i])
			continue
		}
		if i+1 < len(fixes) && speed(last, fixes[i+1]) > 300 && speed(fixes[i], fixes[i+1]) <= 300 {
			runs = append(runs, run)
			run = []telemetry.Record{fixes[i]}
		}
	}
	return append(runs, run)
}

// cut gives the trips and stops of a run; open says that it goes on.
func cut(p []telemetry.Record, open bool, out *table) {
	give := func(kind TripKind, from, to int, open bool) {
		t := Trip{
			Kind: kind, FleetID: p[0].FleetID, StartMs: p[from].TimeMs, EndMs: p[to].TimeMs, Open: open,
			StartLat: p[from].Lat, StartLon: p[from].Lon, StartZone: p[from].Zone, EndLat: p[to].Lat, EndLon: p[to].Lon, EndZone: p[to].Zone,
		}
		var leg float64
		for i := from + 1; i <= to; i++ {
			t.DistanceKm += far(p[i-1], p[i])
			leg = max(leg, speed(p[i-1], p[i]))
			if ms := p[i].TimeMs - p[i-1].TimeMs; kind == KindTrip && ms <= 600_000 && speed(p[i-1], p[i]) < 3 {
				t.IdleMs += ms
			}
			if v := p[i].SpeedKmh; v.Valid && (!t.MaxSpeedKmh.Valid || v.Value > t.MaxSpeedKmh.Value) {
				t.MaxSpeedKmh = v
			}
		}
		if !t.MaxSpeedKmh.Valid {
			t.MaxSpeedKmh = telemetry.Some(leg)
		}
		out.Trip(t)
	}
	path := func(from, to int) (km float64) {
		for i := from + 1; i <= to; i++ {
			km += far(p[i-1], p[i])
		}
		return km
	}
	ms := func(from, to int) int64 { return p[to].TimeMs - p[from].TimeMs }
	// stays is the last of the fixes from i on that all lie within 200 m of the one at a place.
	stays := func(place, i int) int {
		for i+1 < len(p) && far(p[place], p[i+1]) <= 0.2 {
			i++
		}
		return i
	}
	end := len(p) - 1

	// drive follows a trip that began at a fix (or may not be known for one yet) from another fix on.
	var drive func(from, at int, known bool)
	var stand func(from, place, at int)
	drive = func(from, at int, known bool) {
		for {
			last := stays(at, at)
			switch {
			case ms(at, last) >= 180_000:
				if at > from {
					give(KindTrip, from, at, false)
				}
				stand(at, at, last)
				return
			case last == end:
				if known || at > from {
					give(KindTrip, from, end, open)
				}
				return
			case ms(last, last+1) > 3_600_000:
				if known || at > from {
					give(KindTrip, from, last, false)
				}
				drive(last+1, last+1, false)
				return
			}
			at = last + 1
		}
	}
	// stand follows a stop that began at a fix, lies about another and is not left by a third.
	stand = func(from, place, at int) {
		last := stays(place, at)
		if last == end {
			give(KindStop, from, end, open)
			return
		}
		if ms(last, last+1) > 3_600_000 {
			give(KindStop, from, last, false)
			drive(last+1, last+1, false)
			return
		}
		halt := last + 1 // where it stands outside, if it does
		for i := last + 1; i <= end; i++ {
			home, outside := far(p[place], p[i]) <= 0.2, far(p[halt], p[i]) <= 0.2
			if ms(i-1, i) > 3_600_000 && !home && !outside {
				if path(last, halt) >= 0.2 {
					give(KindStop, from, last, false)
					give(KindTrip, last, i-1, false)
				} else {
					give(KindStop, from, i-1, false)
				}
				drive(i, i, false)
				return
			}
			if home {
				stand(from, place, i)
				return
			}
			if !outside {
				halt = i
			}
			far := path(last, halt) >= 0.2
			if !far && ms(halt, i) >= 180_000 {
				stand(from, halt, i)
				return
			}
			if far && (ms(halt, i) >= 180_000 || ms(last, i) >= 180_000) {
				give(KindStop, from, last, false)
				drive(last, halt, true)
				return
			}
		}
		if open || path(last, halt) < 0.2 {
			give(KindStop, from, end, open)
			return
		}
		give(KindStop, from, last, false)
		give(KindTrip, last, end, false)
	}
	drive(0, 0, false)
}
