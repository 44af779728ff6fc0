package alerting_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/fleettracing/fleet-tracing/etl/internal/alerting"
	"github.com/fleettracing/fleet-tracing/etl/internal/alerting/rules"
	"github.com/fleettracing/fleet-tracing/etl/internal/geofence"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const metersPerDegree = 111_195.08

// everything enables every rule.
const everything = `
defaults:
  temperature: {high: {LOW: 30, HIGH: 40}, low: {LOW: -20, HIGH: -30}}
  geofence_enter: {geofences: ["*"]}
  geofence_exit: {geofences: ["*"]}
  geofence_dwell: {geofences: {"*": 1h}}
fleets:
  acme: {speed_limit: {limit: 110}}
`

// town returns a thousand geofences of 100 to 600 m in an area of 40 by 40 km. Half of them are hexagons, some have a limit.
func town(b *testing.B) alerting.Geofences {
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
			ring = append(ring, fmt.Sprintf("[%f,%f]", lon+radius*math.Cos(a)/metersPerDegree, lat+radius*math.Sin(a)/metersPerDegree))
		}
		fmt.Fprintf(&text, `{"type":"Feature","properties":{%s},"geometry":{"type":"Polygon","coordinates":[[%s]]}}`, properties, strings.Join(ring, ","))
	}
	text.WriteString("]}")
	list, err := geofence.Parse("geofences.geojson", []byte(text.String()))
	if err != nil {
		b.Fatal(err)
	}
	index, err := geofence.NewIndex(list)
	if err != nil {
		b.Fatal(err)
	}
	return index
}

// fleet is vehicles that drive around in the town, with a position every ten seconds.
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

// next returns the next position of a vehicle.
func (f *fleet) next(i int) *telemetry.Record {
	r := &f.records[i]
	r.TimeMs += 10_000
	r.SpeedKmh.Value = max(0, min(140, r.SpeedKmh.Value+f.random.Float64()*20-10))
	distance := r.SpeedKmh.Value / 3.6 * 10 / metersPerDegree
	r.Lat, r.Lon = r.Lat+distance*math.Sin(f.heading[i]), r.Lon+distance*math.Cos(f.heading[i])
	if r.Lat < 0 || r.Lat > 0.36 || r.Lon < 0 || r.Lon > 0.36 {
		f.heading[i] += math.Pi / 2
	}
	return r
}

// BenchmarkApply measures the cost of a position with every rule, with a thousand geofences and without.
func BenchmarkApply(b *testing.B) {
	r, err := rules.Parse("rules.yml", []byte(everything))
	if err != nil {
		b.Fatal(err)
	}
	for name, geofences := range map[string]alerting.Geofences{"geofences=1000": town(b), "geofences=0": nil} {
		b.Run(name, func(b *testing.B) {
			e, f := alerting.New(r, geofences), newFleet(1000)
			states := make([]alerting.State, len(f.records))
			records := make([]telemetry.Record, 256*len(f.records)) // made in advance, so that only the engine is measured
			for i := range records {
				records[i] = *f.next(i % len(f.records))
			}
			lap := records[len(records)-1].TimeMs - records[0].TimeMs + 10_000
			events := 0
			count := func(telemetry.AlertEvent) { events++ }
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				r := &records[i%len(records)]
				e.Apply(&states[i%len(states)], r, count)
				r.TimeMs += lap
			}
			b.ReportMetric(float64(events)/float64(b.N), "events/op")
		})
	}
}

// BenchmarkState measures the memory of a device.
func BenchmarkState(b *testing.B) {
	r, err := rules.Parse("rules.yml", []byte(everything))
	if err != nil {
		b.Fatal(err)
	}
	e := alerting.New(r, town(b))
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
		runtime.GC() // for the buffers of the engine
		runtime.ReadMemStats(&after)
		open, text := 0, 0
		for i := range states {
			for range states[i].Open() {
				open++
			}
			if i%1000 == 0 {
				stored, err := json.Marshal(&states[i])
				if err != nil {
					b.Fatal(err)
				}
				text += len(stored)
			}
		}
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/devices, "B/device")
		b.ReportMetric(float64(text)/(devices/1000), "JSON-B/device")
		b.ReportMetric(float64(open)/devices, "open/device")
		runtime.KeepAlive(states)
		runtime.KeepAlive(f)
	}
}
