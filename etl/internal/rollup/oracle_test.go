package rollup

import (
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// The oracle sees all records at once. It shares only the distance formula with the package.

type alertAt struct {
	fleet string
	ms    int64
}

func oracleTable(records []telemetry.Record, alerts []alertAt) *table {
	out := newTable()
	hour := func(fleet string, ms int64) {
		key := hourKey{fleet, ms / 3_600_000 * 3_600_000}
		if _, known := out.hours[key]; !known {
			out.Hour(oracleHour(records, alerts, fleet, key.startMs))
		}
	}
	for i := range records {
		hour(records[i].FleetID, records[i].TimeMs)
	}
	for _, a := range alerts {
		hour(a.fleet, a.ms)
	}
	for from := 0; from < len(records); {
		to := from
		for to < len(records) && records[to].FleetID == records[from].FleetID {
			to++
		}
		runs := trusted(records[from:to])
		for i, run := range runs {
			cut(run, to == len(records) && i == len(runs)-1, out)
		}
		from = to
	}
	return out
}

func oracleHour(records []telemetry.Record, alerts []alertAt, fleet string, startMs int64) Hour {
	h := Hour{FleetID: fleet, StartMs: startMs}
	in := func(ms int64) bool { return startMs <= ms && ms < startMs+3_600_000 }
	for i, r := range records {
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
		if i == 0 || records[i-1].FleetID != fleet || speed(records[i-1], r) > 300 {
			continue
		}
		h.DistanceKm += distance(records[i-1], r)
		if ms := r.TimeMs - records[i-1].TimeMs; speed(records[i-1], r) >= 3 && ms <= 600_000 {
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

func distance(a, b telemetry.Record) float64 { return telemetry.DistanceKm(a.Lat, a.Lon, b.Lat, b.Lon) }

func speed(a, b telemetry.Record) float64 {
	return distance(a, b) * 3_600_000 / float64(b.TimeMs-a.TimeMs)
}

// trusted removes outliers and splits the rest at jumps that are real.
func trusted(records []telemetry.Record) (runs [][]telemetry.Record) {
	run := []telemetry.Record{records[0]}
	for i := 1; i < len(records); i++ {
		last := run[len(run)-1]
		if speed(last, records[i]) <= 300 {
			run = append(run, records[i])
			continue
		}
		if i+1 < len(records) && speed(last, records[i+1]) > 300 && speed(records[i], records[i+1]) <= 300 {
			runs = append(runs, run)
			run = []telemetry.Record{records[i]}
		}
	}
	return append(runs, run)
}

// cut divides a run into trips and stops; open means that the run continues.
func cut(p []telemetry.Record, open bool, out *table) {
	emit := func(kind TripKind, from, to int, open bool) {
		t := Trip{
			Kind: kind, FleetID: p[0].FleetID, StartMs: p[from].TimeMs, EndMs: p[to].TimeMs, Open: open,
			StartLat: p[from].Lat, StartLon: p[from].Lon, StartZone: p[from].Zone, EndLat: p[to].Lat, EndLon: p[to].Lon, EndZone: p[to].Zone,
		}
		var maxMean float64
		for i := from + 1; i <= to; i++ {
			t.DistanceKm += distance(p[i-1], p[i])
			maxMean = max(maxMean, speed(p[i-1], p[i]))
			if ms := p[i].TimeMs - p[i-1].TimeMs; kind == KindTrip && ms <= 600_000 && speed(p[i-1], p[i]) < 3 {
				t.IdleMs += ms
			}
			if v := p[i].SpeedKmh; v.Valid && (!t.MaxSpeedKmh.Valid || v.Value > t.MaxSpeedKmh.Value) {
				t.MaxSpeedKmh = v
			}
		}
		if !t.MaxSpeedKmh.Valid {
			t.MaxSpeedKmh = telemetry.Some(maxMean)
		}
		out.Trip(t)
	}
	path := func(from, to int) (km float64) {
		for i := from + 1; i <= to; i++ {
			km += distance(p[i-1], p[i])
		}
		return km
	}
	ms := func(from, to int) int64 { return p[to].TimeMs - p[from].TimeMs }
	// stays returns the last of the records from i on that all lie within 200 m of the record at center.
	stays := func(center, i int) int {
		for i+1 < len(p) && distance(p[center], p[i+1]) <= 0.2 {
			i++
		}
		return i
	}
	end := len(p) - 1

	// drive follows a trip that began at from, onward from at. known is false while its kind is undecided.
	var drive func(from, at int, known bool)
	var stand func(from, center, at int)
	drive = func(from, at int, known bool) {
		for {
			last := stays(at, at)
			switch {
			case ms(at, last) >= 180_000:
				if at > from {
					emit(KindTrip, from, at, false)
				}
				stand(at, at, last)
				return
			case last == end:
				if known || at > from {
					emit(KindTrip, from, end, open)
				}
				return
			case ms(last, last+1) > 3_600_000:
				if known || at > from {
					emit(KindTrip, from, last, false)
				}
				drive(last+1, last+1, false)
				return
			}
			at = last + 1
		}
	}
	// stand follows a stop that began at from, has its center at center and continues at at.
	stand = func(from, center, at int) {
		last := stays(center, at)
		if last == end {
			emit(KindStop, from, end, open)
			return
		}
		if ms(last, last+1) > 3_600_000 {
			emit(KindStop, from, last, false)
			drive(last+1, last+1, false)
			return
		}
		halt := last + 1 // where it may stand outside
		for i := last + 1; i <= end; i++ {
			home, outside := distance(p[center], p[i]) <= 0.2, distance(p[halt], p[i]) <= 0.2
			if ms(i-1, i) > 3_600_000 && !home && !outside {
				if path(last, halt) >= 0.2 {
					emit(KindStop, from, last, false)
					emit(KindTrip, last, i-1, false)
				} else {
					emit(KindStop, from, i-1, false)
				}
				drive(i, i, false)
				return
			}
			if home {
				stand(from, center, i)
				return
			}
			if !outside {
				halt = i
			}
			moved := path(last, halt) >= 0.2
			if !moved && ms(halt, i) >= 180_000 {
				stand(from, halt, i)
				return
			}
			if moved && (ms(halt, i) >= 180_000 || ms(last, i) >= 180_000) {
				emit(KindStop, from, last, false)
				drive(last, halt, true)
				return
			}
		}
		if open || path(last, halt) < 0.2 {
			emit(KindStop, from, end, open)
			return
		}
		emit(KindStop, from, last, false)
		emit(KindTrip, last, end, false)
	}
	drive(0, 0, false)
}
