package telemetry_test

import (
	"fmt"
	"hash/maphash"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

func nan() float64 { return math.NaN() }

// full is a record with all fields but the accuracy, which was added later.
func full() telemetry.Record {
	return telemetry.Record{
		DeviceID: "truck-1", FleetID: "wuxi", Zone: "depot", TimeMs: 1_772_366_400_000,
		Lat: 31.5689, Lon: 120.2886,
		SpeedKmh: telemetry.Some(63.4), HeadingDeg: telemetry.Some(270.5), TempC: telemetry.Some(-18.25), BatteryPct: telemetry.Some(int32(77)),
	}
}

func accurate(r telemetry.Record, meters float64) telemetry.Record {
	r.AccuracyM = telemetry.Some(meters)
	return r
}

// The hash is part of stored write timestamps, so it must never change. The expected values come from another
// implementation of the same definition.
func TestPayloadHashIsStable(t *testing.T) {
	bare := full()
	bare.SpeedKmh, bare.HeadingDeg, bare.TempC, bare.BatteryPct = telemetry.Optional[float64]{}, telemetry.Optional[float64]{}, telemetry.Optional[float64]{}, telemetry.Optional[int32]{}
	for name, c := range map[string]struct {
		record telemetry.Record
		want   uint64
	}{
		"every field":      {full(), 17540620253957584721},
		"required fields":  {bare, 7067957213692420854},
		"nothing":          {telemetry.Record{}, 88751969070874612},
		"accuracy as well": {accurate(full(), 4.5), 15036383850474409710},
		"accuracy alone":   {accurate(bare, 0), 6439983059872179909},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, c.want, c.record.PayloadHash()) })
	}
}

func TestPayloadHashDependsOnEveryField(t *testing.T) {
	variants := map[string]func(*telemetry.Record){
		"as it is":                    func(*telemetry.Record) {},
		"another fleet":               func(r *telemetry.Record) { r.FleetID = "wuxi2" },
		"no fleet":                    func(r *telemetry.Record) { r.FleetID = "" },
		"another zone":                func(r *telemetry.Record) { r.Zone = "depo" },
		"no zone":                     func(r *telemetry.Record) { r.Zone = "" },
		"fleet and zone change place": func(r *telemetry.Record) { r.FleetID, r.Zone = r.Zone, r.FleetID },
		"a letter moves to the zone":  func(r *telemetry.Record) { r.FleetID, r.Zone = "wux", "idepot" },
		"another lat by one bit":      func(r *telemetry.Record) { r.Lat = math.Nextafter(r.Lat, 90) },
		"another lon by one bit":      func(r *telemetry.Record) { r.Lon = math.Nextafter(r.Lon, 180) },
		"south":                       func(r *telemetry.Record) { r.Lat = -r.Lat },
		"west":                        func(r *telemetry.Record) { r.Lon = -r.Lon },
		"lat and lon change place":    func(r *telemetry.Record) { r.Lat, r.Lon = r.Lon, r.Lat },
		"another speed":               func(r *telemetry.Record) { r.SpeedKmh = telemetry.Some(63.5) },
		"speed 0":                     func(r *telemetry.Record) { r.SpeedKmh = telemetry.Some(0.0) },
		"no speed":                    func(r *telemetry.Record) { r.SpeedKmh = telemetry.Optional[float64]{} },
		"another heading":             func(r *telemetry.Record) { r.HeadingDeg = telemetry.Some(270.0) },
		"heading 0":                   func(r *telemetry.Record) { r.HeadingDeg = telemetry.Some(0.0) },
		"no heading":                  func(r *telemetry.Record) { r.HeadingDeg = telemetry.Optional[float64]{} },
		"speed and heading change place": func(r *telemetry.Record) {
			r.SpeedKmh, r.HeadingDeg = r.HeadingDeg, r.SpeedKmh
		},
		"another temperature": func(r *telemetry.Record) { r.TempC = telemetry.Some(-18.0) },
		"temperature 0":       func(r *telemetry.Record) { r.TempC = telemetry.Some(0.0) },
		"no temperature":      func(r *telemetry.Record) { r.TempC = telemetry.Optional[float64]{} },
		"another charge":      func(r *telemetry.Record) { r.BatteryPct = telemetry.Some(int32(78)) },
		"charge 0":            func(r *telemetry.Record) { r.BatteryPct = telemetry.Some(int32(0)) },
		"no charge":           func(r *telemetry.Record) { r.BatteryPct = telemetry.Optional[int32]{} },
		"an accuracy":         func(r *telemetry.Record) { r.AccuracyM = telemetry.Some(4.5) },
		"another accuracy":    func(r *telemetry.Record) { r.AccuracyM = telemetry.Some(5.0) },
		"accuracy 0":          func(r *telemetry.Record) { r.AccuracyM = telemetry.Some(0.0) },
		"accuracy of no charge": func(r *telemetry.Record) {
			r.BatteryPct, r.AccuracyM = telemetry.Optional[int32]{}, telemetry.Some(77.0)
		},
		"only the speed": func(r *telemetry.Record) {
			r.HeadingDeg, r.TempC = telemetry.Optional[float64]{}, telemetry.Optional[float64]{}
		},
		"only the heading": func(r *telemetry.Record) {
			r.HeadingDeg, r.SpeedKmh, r.TempC = r.SpeedKmh, telemetry.Optional[float64]{}, telemetry.Optional[float64]{}
		},
	}
	seen := map[uint64]string{}
	for name, change := range variants {
		r := full()
		change(&r)
		h := r.PayloadHash()
		if other, taken := seen[h]; taken {
			t.Errorf("%q and %q have the hash %d", name, other, h)
		}
		seen[h] = name
	}
}

func TestPayloadHashIgnoresTheIdentity(t *testing.T) {
	want := full()
	other := full()
	other.DeviceID, other.TimeMs = "truck-2", 5
	assert.Equal(t, want.PayloadHash(), other.PayloadHash())
}

func TestPayloadHashIgnoresTheValueOfAnAbsentField(t *testing.T) {
	absent, leftover := full(), full()
	absent.SpeedKmh = telemetry.Optional[float64]{}
	absent.BatteryPct = telemetry.Optional[int32]{}
	leftover.SpeedKmh.Valid = false
	leftover.BatteryPct.Valid = false
	leftover.AccuracyM.Value = 4.5
	assert.Equal(t, absent.PayloadHash(), leftover.PayloadHash())
}

// Write timestamps contain the hash modulo 1000. Similar payloads must not collide in it more often than random ones.
func TestPayloadHashSpreadsBelowTheMillisecond(t *testing.T) {
	const pairs = 20_000
	nudges := map[string]func(r *telemetry.Record, i int){
		"lat":         func(r *telemetry.Record, i int) { r.Lat += float64(i+1) * 1e-6 },
		"lon":         func(r *telemetry.Record, i int) { r.Lon += float64(i+1) * 1e-6 },
		"speed":       func(r *telemetry.Record, i int) { r.SpeedKmh = telemetry.Some(float64(i) / 100) },
		"heading":     func(r *telemetry.Record, i int) { r.HeadingDeg = telemetry.Some(float64(i) / 100) },
		"temperature": func(r *telemetry.Record, i int) { r.TempC = telemetry.Some(float64(i) / 100) },
		"accuracy":    func(r *telemetry.Record, i int) { r.AccuracyM = telemetry.Some(float64(i) / 100) },
		"fleet":       func(r *telemetry.Record, i int) { r.FleetID = fmt.Sprintf("fleet-%05d", i) },
	}
	for name, nudge := range nudges {
		t.Run(name, func(t *testing.T) {
			last := full()
			before := last.PayloadHash()
			equal := 0
			for i := range pairs {
				r := full()
				nudge(&r, i)
				h := r.PayloadHash()
				if h%1000 == before%1000 {
					equal++
				}
				before = h
			}
			assert.InDelta(t, pairs/1000, equal, 15, "colliding pairs of %d", pairs)
		})
	}
}

func TestKeyedHash(t *testing.T) {
	secret := maphash.MakeSeed()
	want := full()
	absent, leftover := full(), full()
	absent.SpeedKmh, absent.BatteryPct = telemetry.Optional[float64]{}, telemetry.Optional[int32]{}
	leftover.SpeedKmh.Valid, leftover.BatteryPct.Valid, leftover.AccuracyM.Value = false, false, 4.5
	assert.Equal(t, absent.KeyedHash(secret), leftover.KeyedHash(secret), "the value of an absent field does not count")
	other := full()
	other.Lat += 1e-9
	assert.NotEqual(t, want.KeyedHash(secret), other.KeyedHash(secret))
	assert.NotEqual(t, want.KeyedHash(secret), want.KeyedHash(maphash.MakeSeed()), "it depends on the secret")
}

func TestTimeIsUTC(t *testing.T) {
	r := telemetry.Record{TimeMs: 1_772_366_400_250}
	assert.Equal(t, time.Date(2026, 3, 1, 12, 0, 0, 250e6, time.UTC), r.Time())
}

func TestSomeOfZeroIsValid(t *testing.T) {
	assert.True(t, telemetry.Some(0.0).Valid)
	assert.False(t, telemetry.Optional[float64]{}.Valid)
}

func TestOptionalToPointerAndBack(t *testing.T) {
	some, none := telemetry.Some(7), telemetry.Optional[int]{}
	assert.Equal(t, some, telemetry.FromPtr(some.Ptr()))
	assert.Nil(t, none.Ptr())
	assert.Equal(t, none, telemetry.FromPtr(none.Ptr()))
	assert.Zero(t, testing.AllocsPerRun(10, func() { _ = some.Ptr() }))
}
