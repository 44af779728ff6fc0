package validate

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// fix is a position on the equator, so many km east of a start, after so many seconds.
func fix(device string, second int64, km float64) telemetry.Record {
	return telemetry.Record{DeviceID: device, TimeMs: now + second*1000, Lon: 10 + km/111.195080}
}

const none = -1

func TestSpeedComesFromThePreviousPosition(t *testing.T) {
	given := fix("a", 60, 1)
	given.SpeedKmh = telemetry.Some(12.345)
	standing := fix("a", 60, 1)
	standing.SpeedKmh = telemetry.Some(0.0)
	halfSecond := fix("a", 0, 0.01)
	halfSecond.TimeMs += 500
	for name, c := range map[string]struct {
		fixes []telemetry.Record
		want  []float64
	}{
		"the first fix has none":                 {[]telemetry.Record{fix("a", 0, 0)}, []float64{none}},
		"1 km in a minute":                       {[]telemetry.Record{fix("a", 0, 0), fix("a", 60, 1)}, []float64{none, 60}},
		"a stop":                                 {[]telemetry.Record{fix("a", 0, 0), fix("a", 60, 0)}, []float64{none, 0}},
		"each leg by itself":                     {[]telemetry.Record{fix("a", 0, 0), fix("a", 60, 1), fix("a", 120, 3)}, []float64{none, 60, 120}},
		"westwards is no negative speed":         {[]telemetry.Record{fix("a", 0, 3), fix("a", 60, 2)}, []float64{none, 60}},
		"to a tenth":                             {[]telemetry.Record{fix("a", 0, 0), fix("a", 60, 1.0009)}, []float64{none, 60.1}},
		"half a second counts":                   {[]telemetry.Record{fix("a", 0, 0), halfSecond}, []float64{none, 72}},
		"a second fix at the same instant":       {[]telemetry.Record{fix("a", 0, 0), fix("a", 0, 1)}, []float64{none, none}},
		"and from that one the next":             {[]telemetry.Record{fix("a", 0, 0), fix("a", 0, 1), fix("a", 60, 2)}, []float64{none, none, 60}},
		"just no jump":                           {[]telemetry.Record{fix("a", 0, 0), fix("a", 60, 4.999)}, []float64{none, 299.9}},
		"a jump":                                 {[]telemetry.Record{fix("a", 0, 0), fix("a", 60, 5.01)}, []float64{none, none}},
		"after a jump counts the fix it went to": {[]telemetry.Record{fix("a", 0, 0), fix("a", 60, 50), fix("a", 120, 51)}, []float64{none, none, 60}},
		"a given speed stays":                    {[]telemetry.Record{fix("a", 0, 0), given}, []float64{none, 12.345}},
		"a given 0 stays":                        {[]telemetry.Record{fix("a", 0, 0), standing}, []float64{none, 0}},
		"a fix with its own speed starts a leg":  {[]telemetry.Record{fix("a", 0, 0), given, fix("a", 120, 3)}, []float64{none, 12.345, 120}},
		"another device starts anew":             {[]telemetry.Record{fix("a", 0, 0), fix("b", 60, 1), fix("b", 120, 3)}, []float64{none, none, 120}},
		"a device that comes back starts anew":   {[]telemetry.Record{fix("a", 0, 0), fix("b", 30, 1), fix("a", 60, 1)}, []float64{none, none, none}},
		"an earlier fix is no leg":               {[]telemetry.Record{fix("a", 60, 1), fix("a", 0, 0)}, []float64{none, none}},
		"a pause of a day is a leg":              {[]telemetry.Record{fix("a", 0, 0), fix("a", 86_400, 24)}, []float64{none, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			var s SpeedEstimator
			for i := range c.fixes {
				r := c.fixes[i]
				s.Apply(&r)
				if c.want[i] == none {
					assert.False(t, r.SpeedKmh.Valid, "fix %d has no speed, not %v", i+1, r.SpeedKmh.Value)
					continue
				}
				require.True(t, r.SpeedKmh.Valid, "fix %d has a speed", i+1)
				assert.InDelta(t, c.want[i], r.SpeedKmh.Value, 1e-9)
				r.SpeedKmh = c.fixes[i].SpeedKmh
				assert.Equal(t, c.fixes[i], r, "nothing else is touched")
			}
		})
	}
}
