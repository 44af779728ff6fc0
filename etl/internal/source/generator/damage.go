package generator

import (
	"math"
	"slices"
	"strings"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// breakable are the reasons for which a single simulated record can be rejected. Simulated positions have no accuracy.
var breakable = slices.DeleteFunc(slices.Clone(telemetry.Reasons), func(r telemetry.Reason) bool { return slices.Contains(unbreakable, r) })

var unbreakable = []telemetry.Reason{
	telemetry.TooLarge, telemetry.UnknownFleet, telemetry.ForbiddenFleet, telemetry.AccuracyRange, telemetry.WrongFleet, telemetry.UnknownDevice, telemetry.HeldDevice,
	telemetry.TooLate, telemetry.TooManyDevices,
}

// rolloverMs is the period of the GPS week number, 1024 weeks. Receivers that miss a rollover are off by it. It is also large
// enough that the records of a sample file are rejected at any time.
const rolloverMs = 1024 * 7 * 24 * 3600 * 1000

// breakIt damages a valid record for one of the reasons, chosen uniformly.
func breakIt(e *Emission, d *dice) {
	r := &e.Record
	e.Reason = breakable[d.below(len(breakable))]
	switch e.Reason {
	case telemetry.Malformed:
		if e.Cut = d.chance(0.3); !e.Cut {
			e.Field = pick(d, telemetry.FieldLat, telemetry.FieldLon, telemetry.FieldSpeed, telemetry.FieldHeading,
				telemetry.FieldBattery, telemetry.FieldTemp)
			e.Text = pick(d, "n/a", "--", "ERR", "#VALUE!", "1.2.3", "NaN")
		}
	case telemetry.MissingField:
		e.Field = pick(d, telemetry.RequiredFields...)
	case telemetry.BadTimestamp:
		e.Field = telemetry.FieldTimestamp
		e.Text = pick(d, "0000-00-00 00:00:00", "2026-13-45T25:61:00Z", "yesterday", "02/11/2026 06:00", "--:--:--")
	case telemetry.Future:
		r.TimeMs += rolloverMs
	case telemetry.TooOld:
		r.TimeMs -= rolloverMs
	case telemetry.LatRange:
		r.Lat = pick(d, 1.0, -1) * decimals(d.between(90.1, 900), 6)
	case telemetry.LonRange:
		r.Lon = pick(d, 1.0, -1) * decimals(d.between(180.1, 900), 6)
	case telemetry.ZeroPosition:
		r.Lat, r.Lon = 0, 0
	case telemetry.SpeedRange:
		r.SpeedKmh = telemetry.Some(pick(d, -1, 6553.5, decimals(d.between(400.1, 1200), 1)))
	case telemetry.HeadingRange:
		r.HeadingDeg = telemetry.Some(pick(d, -1, 655.35, decimals(d.between(361, 720), 1)))
	case telemetry.BatteryRange:
		r.BatteryPct = telemetry.Some(pick(d, -1, 255, 101+int32(d.below(100))))
	case telemetry.TempRange:
		// Values of a DS18B20 and a PT100 with a broken wire, and noise.
		r.TempC = telemetry.Some(pick(d, -127, 850, decimals(d.between(200.1, 999), 1)))
	case telemetry.BadID:
		spoil := pick(d, " ", "/", "#", "é")
		if name := pick(d, &r.DeviceID, &r.FleetID); d.chance(0.2) {
			*name = strings.Repeat(*name, telemetry.MaxNameLen/len(*name)+1)
		} else {
			*name = strings.Replace(*name, "-", spoil, 1)
		}
	}
}

// decimals rounds v to n decimals, to 0 rather than -0.
func decimals(v float64, n int) float64 {
	p := math.Pow10(n)
	return math.Round(v*p)/p + 0
}
