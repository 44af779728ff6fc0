package transform

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

var _ pipeline.Transform = (*Transform)(nil)

func apply(t *testing.T, x *Transform, r *telemetry.Record) telemetry.Seen {
	t.Helper()
	payload, seen, rejection := x.Apply(r, now)
	if rejection != nil {
		t.Fatal(rejection)
	}
	assert.Equal(t, r.PayloadHash(), payload, "the hash is that of the record as it is stored")
	return seen
}

func TestCompleteFillsInWhatIsLeftOpen(t *testing.T) {
	minus0 := math.Copysign(0, -1)
	for name, c := range map[string]struct{ change, want func(*telemetry.Record) }{
		"nothing is open": {func(*telemetry.Record) {}, func(*telemetry.Record) {}},
		"no zone": {
			func(r *telemetry.Record) { r.Zone = "" },
			func(r *telemetry.Record) { r.Zone = "unknown" },
		},
		"heading 360 is north": {
			func(r *telemetry.Record) { r.HeadingDeg = telemetry.Some(360.0) },
			func(r *telemetry.Record) { r.HeadingDeg = telemetry.Some(0.0) },
		},
		"heading just below stays": {
			func(r *telemetry.Record) { r.HeadingDeg = telemetry.Some(359.99) },
			func(r *telemetry.Record) { r.HeadingDeg = telemetry.Some(359.99) },
		},
		"what is absent stays absent": {
			func(r *telemetry.Record) {
				r.SpeedKmh, r.HeadingDeg, r.TempC, r.BatteryPct = telemetry.Optional[float64]{}, telemetry.Optional[float64]{}, telemetry.Optional[float64]{}, telemetry.Optional[int32]{}
			},
			func(r *telemetry.Record) {
				r.SpeedKmh, r.HeadingDeg, r.TempC, r.BatteryPct = telemetry.Optional[float64]{}, telemetry.Optional[float64]{}, telemetry.Optional[float64]{}, telemetry.Optional[int32]{}
			},
		},
		"no accuracy stays none": {
			func(r *telemetry.Record) { r.AccuracyM = telemetry.Optional[float64]{} },
			func(r *telemetry.Record) { r.AccuracyM = telemetry.Optional[float64]{} },
		},
		"-0 metres are 0": {
			func(r *telemetry.Record) { r.AccuracyM = telemetry.Some(minus0) },
			func(r *telemetry.Record) { r.AccuracyM = telemetry.Some(0.0) },
		},
		"-0 degrees are 0": {
			func(r *telemetry.Record) { r.Lat, r.Lon = minus0, 1 },
			func(r *telemetry.Record) { r.Lat, r.Lon = 0, 1 },
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, want := good(), good()
			c.change(&got)
			c.want(&want)
			Complete(&got)
			assert.Equal(t, want, got)
			assert.Equal(t, want.PayloadHash(), got.PayloadHash(), "signs of zero included")
		})
	}
}

func TestApplyTellsDuplicates(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*telemetry.Record)
		want   telemetry.Seen
	}{
		"the very record":                {func(*telemetry.Record) {}, telemetry.Same},
		"another second":                 {func(r *telemetry.Record) { r.TimeMs -= 1000 }, telemetry.New},
		"another millisecond":            {func(r *telemetry.Record) { r.TimeMs++ }, telemetry.New},
		"another device":                 {func(r *telemetry.Record) { r.DeviceID = "truck-2" }, telemetry.New},
		"another position":               {func(r *telemetry.Record) { r.Lat += 1e-6 }, telemetry.Rival},
		"another fleet":                  {func(r *telemetry.Record) { r.FleetID = "taihu" }, telemetry.Rival},
		"without its temperature":        {func(r *telemetry.Record) { r.TempC = telemetry.Optional[float64]{} }, telemetry.Rival},
		"without its accuracy":           {func(r *telemetry.Record) { r.AccuracyM = telemetry.Optional[float64]{} }, telemetry.Rival},
		"with another charge":            {func(r *telemetry.Record) { r.BatteryPct = telemetry.Some(int32(79)) }, telemetry.Rival},
		"with 0 where nothing was known": {func(r *telemetry.Record) { r.SpeedKmh = telemetry.Some(0.0) }, telemetry.Rival},
	} {
		t.Run(name, func(t *testing.T) {
			x := New(nil, 100)
			first, second := good(), good()
			assert.Equal(t, telemetry.New, apply(t, x, &first))
			c.change(&second)
			assert.Equal(t, c.want, apply(t, x, &second))
		})
	}
}

// What means the same is the same, however it was written.
func TestApplyTakesTwoWordingsForOneRecord(t *testing.T) {
	x := New(nil, 100)
	north, alsoNorth := good(), good()
	north.HeadingDeg, north.Zone, north.Lat = telemetry.Some(0.0), "", 0
	alsoNorth.HeadingDeg, alsoNorth.Zone, alsoNorth.Lat = telemetry.Some(360.0), "unknown", math.Copysign(0, -1)
	assert.Equal(t, telemetry.New, apply(t, x, &north))
	assert.Equal(t, telemetry.Same, apply(t, x, &alsoNorth))
}

// A record that was refused was not taken: its mended form is new.
func TestARefusedRecordIsNotRemembered(t *testing.T) {
	x := New(nil, 100)
	broken, mended := good(), good()
	broken.Lat = 91
	_, _, rejection := x.Apply(&broken, now)
	require.NotNil(t, rejection)
	assert.False(t, x.Valid(&broken, now))
	assert.Equal(t, telemetry.New, apply(t, x, &mended))
}

// Sources ask whether a record is valid before they hand it over.
func TestValidRemembersNothing(t *testing.T) {
	x := New(nil, 100)
	r := good()
	before := r
	assert.True(t, x.Valid(&r, now))
	assert.Equal(t, before, r)
	assert.Equal(t, telemetry.New, apply(t, x, &r))
}

func TestTheFleetsOfATransformAreThoseItWasGiven(t *testing.T) {
	r := good()
	assert.True(t, New([]string{"wuxi"}, 10).Valid(&r, now))
	assert.False(t, New([]string{"berlin"}, 10).Valid(&r, now))
}
