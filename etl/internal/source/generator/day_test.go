package generator

import (
	"math"
	"testing"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

func TestDayOfAFleet(t *testing.T) {
	const vehicles = 50
	opts := Options{Seed: 7, Vehicles: vehicles, Interval: 10 * time.Second, Records: vehicles * 8640,
		Start: time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC)}
	s, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	cooled := map[string]float64{} // set points
	for i := range s.vehicles {
		if v := &s.vehicles[i]; v.cargo.cooled && v.cargo.sensor {
			cooled[v.id] = v.cargo.setPoint
		}
	}

	seen := map[string]int{}            // records
	who := map[string]map[string]bool{} // vehicles
	drained, charged := map[string]bool{}, map[string]bool{}
	last := map[string]telemetry.Record{}
	note := func(what, id string, is bool) {
		if is {
			seen[what]++
			if who[what] == nil {
				who[what] = map[string]bool{}
			}
			who[what][id] = true
		}
	}
	warmest, coldest := math.Inf(-1), math.Inf(1)
	for e := (Emission{}); s.Next(&e); {
		r := &e.Record
		note("speed over 90", r.DeviceID, r.SpeedKmh.Value > 90)
		note("speed over 120", r.DeviceID, r.SpeedKmh.Value > 120)
		note("no battery", r.DeviceID, !r.BatteryPct.Valid)
		note("no temperature", r.DeviceID, !r.TempC.Valid)
		note("zone "+r.Zone, r.DeviceID, true)
		if r.BatteryPct.Valid {
			pct := r.BatteryPct.Value
			if pct < 0 || pct > 100 {
				t.Fatalf("%s %v: battery %d %%", r.DeviceID, r.Time(), pct)
			}
			note("battery under 20", r.DeviceID, pct < 20)
			note("battery under 10", r.DeviceID, pct < 10)
			if before, ok := last[r.DeviceID]; ok {
				drained[r.DeviceID] = drained[r.DeviceID] || pct < before.BatteryPct.Value
				charged[r.DeviceID] = charged[r.DeviceID] || pct > before.BatteryPct.Value
				if pct > before.BatteryPct.Value && before.SpeedKmh.Value > 0 && r.SpeedKmh.Value > 0 {
					t.Fatalf("%s %v: charges while it drives", r.DeviceID, r.Time())
				}
			}
			last[r.DeviceID] = *r
		}
		if r.TempC.Valid {
			if setPoint, ok := cooled[r.DeviceID]; ok {
				note("cooling lost", r.DeviceID, r.TempC.Value > setPoint+4)
			} else {
				warmest, coldest = max(warmest, r.TempC.Value), min(coldest, r.TempC.Value)
			}
		}
	}

	for what, most := range map[string]float64{
		"speed over 90": 0.1, "speed over 120": 0.01, "battery under 20": 0.1, "battery under 10": 0.02, "cooling lost": 0.1,
	} {
		share := float64(seen[what]) / float64(opts.Records)
		t.Logf("%s: %d vehicles, %.2f %% of the records", what, len(who[what]), share*100)
		if seen[what] == 0 || share > most {
			t.Errorf("%s in %.3f %% of the records, want some but at most %.0f %%", what, share*100, most*100)
		}
	}
	for _, what := range []string{"no battery", "no temperature"} {
		if n := len(who[what]); n == 0 || n > vehicles/4 {
			t.Errorf("%d of %d vehicles have %s, want a few", n, vehicles, what)
		}
	}
	for _, zone := range []string{"depot", "city-centre", "industrial", "airport", "harbour", ""} {
		if seen["zone "+zone] == 0 {
			t.Errorf("no vehicle was in zone %q", zone)
		}
	}
	if n := len(drained); n < vehicles*8/10 || len(charged) < vehicles*7/10 {
		t.Errorf("%d batteries drained and %d charged, want nearly all of %d", n, len(charged), vehicles)
	}
	if coldest < -5 || warmest > 25 || warmest-coldest < 5 {
		t.Errorf("ordinary holds were at %.1f to %.1f °C on a day of November", coldest, warmest)
	}
}

func TestVehiclesMoveAtAnyHour(t *testing.T) {
	opts := Options{Seed: 1, Vehicles: 100, Interval: time.Minute, Start: monday, Records: 100 * 1440}
	moving := map[int]map[string]bool{}
	for _, e := range run(t, opts) {
		h := e.At.Hour()
		if moving[h] == nil {
			moving[h] = map[string]bool{}
		}
		if e.Record.SpeedKmh.Value > 0 {
			moving[h][e.Record.DeviceID] = true
		}
	}
	for h, ids := range moving {
		if len(ids) < 8 {
			t.Errorf("%d of 100 vehicles move between %d and %d h", len(ids), h, h+1)
		}
	}
	if len(moving[9]) < 3*len(moving[2])/2 {
		t.Errorf("%d vehicles are on the road at 9 h, %d at 2 h", len(moving[9]), len(moving[2]))
	}
}

func TestOutsideTemperatureFollowsDayAndYear(t *testing.T) {
	at := func(month time.Month, hour int) (sum float64) {
		for d := range 28 {
			sum += outside(float64(time.Date(2026, month, 1+d, hour, 0, 0, 0, time.UTC).Unix())) / 28
		}
		return sum
	}
	if night, noon := at(7, 3), at(7, 14); noon-night < 6 {
		t.Errorf("July is %.1f °C at 3 h and %.1f °C at 14 h", night, noon)
	}
	if january, july := at(1, 12), at(7, 12); july-january < 12 {
		t.Errorf("noon is %.1f °C in January and %.1f °C in July", january, july)
	}
	for m := range 3 * 24 * 60 {
		unix := float64(monday.Unix()) + float64(m)*minute
		if step := outside(unix+minute) - outside(unix); math.Abs(step) > 0.1 {
			t.Fatalf("%.2f °C within a minute", step)
		}
	}
}
