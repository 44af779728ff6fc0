package validate

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// at is a position on the equator, km kilometers east of a start, after the given seconds.
func at(device string, second int64, km float64) telemetry.Record {
	return telemetry.Record{DeviceID: device, TimeMs: now + second*1000, Lon: 10 + km/111.195080}
}

const none = -1

func TestSpeedComesFromThePreviousPosition(t *testing.T) {
	given := at("a", 60, 1)
	given.SpeedKmh = telemetry.Some(12.345)
	standing := at("a", 60, 1)
	standing.SpeedKmh = telemetry.Some(0.0)
	moved := at("a", 60, 1)
	moved.FleetID = "other"
	halfSecond := at("a", 0, 0.01)
	halfSecond.TimeMs += 500
	for name, c := range map[string]struct {
		positions []telemetry.Record
		want      []float64
	}{
		"the first position":                    {[]telemetry.Record{at("a", 0, 0)}, []float64{none}},
		"1 km in a minute":                      {[]telemetry.Record{at("a", 0, 0), at("a", 60, 1)}, []float64{none, 60}},
		"a stop":                                {[]telemetry.Record{at("a", 0, 0), at("a", 60, 0)}, []float64{none, 0}},
		"each segment separately":               {[]telemetry.Record{at("a", 0, 0), at("a", 60, 1), at("a", 120, 3)}, []float64{none, 60, 120}},
		"westwards is positive":                 {[]telemetry.Record{at("a", 0, 3), at("a", 60, 2)}, []float64{none, 60}},
		"rounded to a tenth":                    {[]telemetry.Record{at("a", 0, 0), at("a", 60, 1.0009)}, []float64{none, 60.1}},
		"half a second counts":                  {[]telemetry.Record{at("a", 0, 0), halfSecond}, []float64{none, 72}},
		"two positions at the same time":        {[]telemetry.Record{at("a", 0, 0), at("a", 0, 1)}, []float64{none, none}},
		"from the second of them to the next":   {[]telemetry.Record{at("a", 0, 0), at("a", 0, 1), at("a", 60, 2)}, []float64{none, none, 60}},
		"just below a jump":                     {[]telemetry.Record{at("a", 0, 0), at("a", 60, 4.999)}, []float64{none, 299.9}},
		"a jump":                                {[]telemetry.Record{at("a", 0, 0), at("a", 60, 5.01)}, []float64{none, none}},
		"the position after a jump counts":      {[]telemetry.Record{at("a", 0, 0), at("a", 60, 50), at("a", 120, 51)}, []float64{none, none, 60}},
		"a given speed stays":                   {[]telemetry.Record{at("a", 0, 0), given}, []float64{none, 12.345}},
		"a given 0 stays":                       {[]telemetry.Record{at("a", 0, 0), standing}, []float64{none, 0}},
		"a position with a given speed counts":  {[]telemetry.Record{at("a", 0, 0), given, at("a", 120, 3)}, []float64{none, 12.345, 120}},
		"another device starts again":           {[]telemetry.Record{at("a", 0, 0), at("b", 60, 1), at("b", 120, 3)}, []float64{none, none, 120}},
		"another fleet starts again":            {[]telemetry.Record{at("a", 0, 0), moved}, []float64{none, none}},
		"a device that comes back starts again": {[]telemetry.Record{at("a", 0, 0), at("b", 30, 1), at("a", 60, 1)}, []float64{none, none, none}},
		"an earlier position has none":          {[]telemetry.Record{at("a", 60, 1), at("a", 0, 0)}, []float64{none, none}},
		"a pause of a day is a segment":         {[]telemetry.Record{at("a", 0, 0), at("a", 86_400, 24)}, []float64{none, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			var s SpeedEstimator
			for i := range c.positions {
				r := c.positions[i]
				s.Apply(&r)
				if c.want[i] == none {
					assert.False(t, r.SpeedKmh.Valid, "position %d has no speed, not %v", i+1, r.SpeedKmh.Value)
					continue
				}
				require.True(t, r.SpeedKmh.Valid, "position %d has a speed", i+1)
				assert.InDelta(t, c.want[i], r.SpeedKmh.Value, 1e-9)
				r.SpeedKmh = c.positions[i].SpeedKmh
				assert.Equal(t, c.positions[i], r, "nothing else changes")
			}
		})
	}
}
