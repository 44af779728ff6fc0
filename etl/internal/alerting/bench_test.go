package alerting_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/fleettracing/fleet-tracing/etl/internal/alerting"
	"github.com/fleettracing/fleet-tracing/etl/internal/geofence"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const metresPerDegree = 111_195.08

// everything is rules in which every type is on.
const everything = `
defaults:
  temperature: {high: {LOW: 30, HIGH: 40}, low: {LOW: -20, HIGH: -30}}
  geofence_enter: {zones: ["*"]}
  geofence_exit: {zones: ["*"]}
  geofence_dwell: {zones: {"*": 1h}}
fleets:
  acme: {speed_limit: {limit: 110}}
`

// town is a thousand zones of 100 to 600 m over an area of 40 by 40 km, half of them hexagons, some with a limit.
func town(b *testing.B) alerting.Zones {
	b.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	var text strings.Builder
	text.WriteString(`{"type":"FeatureCollection","features":[`)
	for i := range 1000 {
		if i > 0 {
			text.WriteByte(',')
		}
		lat, lon, radius := random.Float64()*0.36, random.Float64()*0.36, 100+random.Float64()*500
		properties := fmt.Sprintf(`"name":"zone-%d","fleet":"acme"`, i)
		if i%4 == 0 {
			properties += `,"speed_limit_kmh":50`
		}
		if i%2 == 0 {
			fmt.Fprintf(&text, `{"type":"Feature","properties":{%s,"radius_m":%f},"geometry":{"type":"Point","coordinates":[%f,%f]}}`, properties, radius, lon, lat)
			continue
		}
		var ring []string
		for k := range 7 {
			a := float64(k%6) * math.Pi / 3
			ring = append(ring, fmt.Sprintf("[%f,%f]", lon+radius*math.Cos(a)/metresPerDegree, lat+radius*math.Sin(a)/metresPerDegree))
		}
		fmt.Fprintf(&text, `{"type":"Feature","properties":{%s},"geometry":{"type":"Polygon","coordinates":[[%s]]}}`, properties, strings.Join(ring, ","))
	}
	text.WriteString("]}")
	zones, err := geofence.Parse("zones.geojson", []byte(text.String()))
	if err != nil {
		b.Fatal(err)
	}
	index, err := geofence.NewIndex(zones)
	if err != nil {
		b.Fatal(err)
	}
	return index
}

// fleet is vehicles that drive to and fro in the town, a fix every ten seconds.
type fleet struct {
	random  *rand.Rand
	records []telemetry.Record
	heading []float64
}

func newFleet(vehicles int) *fleet {
	f := &fleet{random: rand.New(rand.NewPCG(3, 4)), records: make([]telemetry.Record, vehicles), heading: make([]float64, vehicles)}
	for i := range f.records {
		f.records[i] = telemetry.Record{
			DeviceID: fmt.Sprintf("vehicle-%06d", i), FleetID: "acme", Zone: telemetry.UnknownZone, TimeMs: 1_770_000_000_000,
			Lat: f.random.Float64() * 0.36, Lon: f.random.Float64() * 0.36,
			BatteryPct: telemetry.Some(int32(15 + f.random.IntN(80))), TempC: telemetry.Some(4.5), SpeedKmh: telemetry.Some(50.0),
		}
		f.heading[i] = f.random.Float64() * 2 * math.Pi
	}
	return f
}

// next is the next fix of a vehicle.
func (f *fleet) next(i int) *telemetry.Record {
	r := &f.records[i]
	r.TimeMs += 10_000
	r.SpeedKmh.Value = max(0, min(140, r.SpeedKmh.Value+f.random.Float64()*20-10))
	way := r.SpeedKmh.Value / 3.6 * 10 / metresPerDegree
	r.Lat, r.Lon = r.Lat+way*math.Sin(f.heading[i]), r.Lon+way*math.Cos(f.heading[i])
	if r.Lat < 0 || r.Lat > 0.36 || r.Lon < 0 || r.Lon > 0.36 {
		f.heading[i] += math.Pi / 2
	}
	return r
}

// BenchmarkApply is what a fix costs with every rule and a thousand zones. Without the zones the engine alone remains.
func BenchmarkApply(b *testing.B) {
	rules, err := alerting.ParseRules("rules.yml", []byte(everything))
	if err != nil {
		b.Fatal(err)
	}
	for name, zones := range map[string]alerting.Zones{"zones=1000": town(b), "zones=0": nil} {
		b.Run(name, func(b *testing.B) {
			e, f := alerting.New(rules, zones), newFleet(1000)
			states := make([]alerting.State, len(f.records))
			fixes := make([]telemetry.Record, 256*len(f.records)) // made before, so that only the engine is measured
			for i := range fixes {
				fixes[i] = *f.next(i % len(f.records))
			}
			lap := fixes[len(fixes)-1].TimeMs - fixes[0].TimeMs + 10_000
			steps := 0
			count := func(telemetry.AlertEvent) { steps++ }
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				r := &fixes[i%len(fixes)]
				e.Apply(&states[i%len(states)], r, count)
				r.TimeMs += lap
			}
			b.ReportMetric(float64(steps)/float64(b.N), "steps/op")
		})
	}
}

// BenchmarkState is the memory that a device takes.
func BenchmarkState(b *testing.B) {
	rules, err := alerting.ParseRules("rules.yml", []byte(everything))
	if err != nil {
		b.Fatal(err)
	}
	e := alerting.New(rules, town(b))
	const devices = 100_000
	for b.Loop() {
		f := newFleet(devices)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		states := make([]alerting.State, devices)
		for range 20 {
			for i := range states {
				e.Apply(&states[i], f.next(i), func(telemetry.AlertEvent) {})
			}
		}
		runtime.GC()
		runtime.GC() // the buffers of the engine, too
		runtime.ReadMemStats(&after)
		open, text := 0, 0
		for i := range states {
			for range states[i].Open() {
				open++
			}
			if i%1000 == 0 {
				json, err := states[i].MarshalJSON()
				if err != nil {
					b.Fatal(err)
				}
				text += len(json)
			}
		}
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/devices, "B/device")
		b.ReportMetric(float64(text)/(devices/1000), "JSON-B/device")
		b.ReportMetric(float64(open)/devices, "open/device")
		runtime.KeepAlive(states)
		runtime.KeepAlive(f)
	}
}
