package validate

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

var _ pipeline.Validator = (*Validator)(nil)

func validate(t *testing.T, x *Validator, r *telemetry.Record) telemetry.Seen {
	t.Helper()
	payload, seen, rejection := x.Validate(r, now)
	if rejection != nil {
		t.Fatal(rejection)
	}
	assert.Equal(t, r.PayloadHash(), payload, "the hash is that of the record as it is stored")
	return seen
}

func TestNormalize(t *testing.T) {
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
		"-0 meters are 0": {
			func(r *telemetry.Record) { r.AccuracyM = telemetry.Some(minus0) },
			func(r *telemetry.Record) { r.AccuracyM = telemetry.Some(0.0) },
		},
		"-0 degrees are 0": {
			func(r *telemetry.Record) { r.Lat, r.Lon = minus0, 1 },
			func(r *telemetry.Record) { r.Lat, r.Lon = 0, 1 },
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, want := valid(), valid()
			c.change(&got)
			c.want(&want)
			Normalize(&got)
			assert.Equal(t, want, got)
			assert.Equal(t, want.PayloadHash(), got.PayloadHash(), "signs of zero included")
		})
	}
}

func TestValidateFindsDuplicates(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*telemetry.Record)
		want   telemetry.Seen
	}{
		"the very record":                {func(*telemetry.Record) {}, telemetry.Duplicate},
		"another second":                 {func(r *telemetry.Record) { r.TimeMs -= 1000 }, telemetry.New},
		"another millisecond":            {func(r *telemetry.Record) { r.TimeMs++ }, telemetry.New},
		"another device":                 {func(r *telemetry.Record) { r.DeviceID = "truck-2" }, telemetry.New},
		"another position":               {func(r *telemetry.Record) { r.Lat += 1e-6 }, telemetry.Conflict},
		"another fleet":                  {func(r *telemetry.Record) { r.FleetID = "taihu" }, telemetry.New},
		"without its temperature":        {func(r *telemetry.Record) { r.TempC = telemetry.Optional[float64]{} }, telemetry.Conflict},
		"without its accuracy":           {func(r *telemetry.Record) { r.AccuracyM = telemetry.Optional[float64]{} }, telemetry.Conflict},
		"with another charge":            {func(r *telemetry.Record) { r.BatteryPct = telemetry.Some(int32(79)) }, telemetry.Conflict},
		"with 0 where nothing was known": {func(r *telemetry.Record) { r.SpeedKmh = telemetry.Some(0.0) }, telemetry.Conflict},
	} {
		t.Run(name, func(t *testing.T) {
			x := New(nil, 100, nil)
			first, second := valid(), valid()
			assert.Equal(t, telemetry.New, validate(t, x, &first))
			c.change(&second)
			assert.Equal(t, c.want, validate(t, x, &second))
		})
	}
}

func TestValidateSeesTwoFormsOfOneRecordAsDuplicates(t *testing.T) {
	x := New(nil, 100, nil)
	north, alsoNorth := valid(), valid()
	north.HeadingDeg, north.Zone, north.Lat = telemetry.Some(0.0), "", 0
	alsoNorth.HeadingDeg, alsoNorth.Zone, alsoNorth.Lat = telemetry.Some(360.0), "unknown", math.Copysign(0, -1)
	assert.Equal(t, telemetry.New, validate(t, x, &north))
	assert.Equal(t, telemetry.Duplicate, validate(t, x, &alsoNorth))
}

// The corrected form of a rejected record is new.
func TestRejectedRecordsAreNotRemembered(t *testing.T) {
	x := New(nil, 100, nil)
	broken, corrected := valid(), valid()
	broken.Lat = 91
	_, _, rejection := x.Validate(&broken, now)
	require.NotNil(t, rejection)
	assert.Equal(t, telemetry.New, validate(t, x, &corrected))
}

func TestValidatorKnowsItsFleets(t *testing.T) {
	r := valid()
	_, _, rejection := New([]string{"wuxi"}, 10, nil).Validate(&r, now)
	assert.Nil(t, rejection)
	_, _, rejection = New([]string{"berlin"}, 10, nil).Validate(&r, now)
	assert.NotNil(t, rejection)
}
