package validate

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixMilli()

const (
	minute = int64(60_000)
	day    = 24 * 60 * minute
)

// valid returns a valid record.
func valid() telemetry.Record {
	return telemetry.Record{
		DeviceID: "truck-1", FleetID: "wuxi", Zone: "depot", TimeMs: now - 1000, Lat: 31.5, Lon: 120.25,
		SpeedKmh: telemetry.Some(60.0), HeadingDeg: telemetry.Some(90.0), TempC: telemetry.Some(-18.0), BatteryPct: telemetry.Some(int32(80)),
		AccuracyM: telemetry.Some(4.5),
	}
}

// changed returns a valid record with one change.
func changed(change func(*telemetry.Record)) *telemetry.Record {
	r := valid()
	change(&r)
	return &r
}

func TestBoundsAcceptTheirEdges(t *testing.T) {
	longest := strings.Repeat("a", 128)
	for name, change := range map[string]func(*telemetry.Record){
		"nothing special": func(*telemetry.Record) {},
		"no optional field": func(r *telemetry.Record) {
			*r = telemetry.Record{DeviceID: r.DeviceID, FleetID: r.FleetID, TimeMs: r.TimeMs, Lat: r.Lat, Lon: r.Lon}
		},
		"device of 128 bytes":        func(r *telemetry.Record) { r.DeviceID = longest },
		"fleet of 128 bytes":         func(r *telemetry.Record) { r.FleetID = longest },
		"zone of 128 bytes":          func(r *telemetry.Record) { r.Zone = longest },
		"no zone":                    func(r *telemetry.Record) { r.Zone = "" },
		"this very moment":           func(r *telemetry.Record) { r.TimeMs = now },
		"exactly 5 min ahead":        func(r *telemetry.Record) { r.TimeMs = now + 5*minute },
		"30 days old but for 1 ms":   func(r *telemetry.Record) { r.TimeMs = now - 30*day + 1 },
		"north pole":                 func(r *telemetry.Record) { r.Lat = 90 },
		"south pole":                 func(r *telemetry.Record) { r.Lat = -90 },
		"date line from the west":    func(r *telemetry.Record) { r.Lon = 180 },
		"date line from the east":    func(r *telemetry.Record) { r.Lon = -180 },
		"on the equator":             func(r *telemetry.Record) { r.Lat, r.Lon = 0, 1 },
		"on the prime meridian":      func(r *telemetry.Record) { r.Lat, r.Lon = 1, 0 },
		"a millimetre from 0, 0":     func(r *telemetry.Record) { r.Lat, r.Lon = 1e-8, 0 },
		"standing":                   func(r *telemetry.Record) { r.SpeedKmh = telemetry.Some(0.0) },
		"as fast as can be":          func(r *telemetry.Record) { r.SpeedKmh = telemetry.Some(400.0) },
		"heading north":              func(r *telemetry.Record) { r.HeadingDeg = telemetry.Some(0.0) },
		"heading north by 360":       func(r *telemetry.Record) { r.HeadingDeg = telemetry.Some(360.0) },
		"empty battery":              func(r *telemetry.Record) { r.BatteryPct = telemetry.Some(int32(0)) },
		"full battery":               func(r *telemetry.Record) { r.BatteryPct = telemetry.Some(int32(100)) },
		"as cold as can be":          func(r *telemetry.Record) { r.TempC = telemetry.Some(-100.0) },
		"as hot as can be":           func(r *telemetry.Record) { r.TempC = telemetry.Some(200.0) },
		"as accurate as can be":      func(r *telemetry.Record) { r.AccuracyM = telemetry.Some(0.0) },
		"as vague as can be":         func(r *telemetry.Record) { r.AccuracyM = telemetry.Some(100_000.0) },
		"an absent value's leftover": func(r *telemetry.Record) { r.SpeedKmh = telemetry.Optional[float64]{Value: math.NaN()} },
	} {
		t.Run(name, func(t *testing.T) {
			if r := NewBounds(nil).Check(changed(change), now); r != nil {
				t.Errorf("rejected: %v", r)
			}
		})
	}
}

type rejectedCase struct {
	change func(*telemetry.Record)
	reason telemetry.Reason
	field  string
	value  string // as the message shows it
}

// allowed is the list of fleets for rejectedCases.
var allowed = []string{"wuxi", "taihu"}

// rejectedCases are records just beyond each border.
var rejectedCases = map[string]rejectedCase{
	"no device":             {func(r *telemetry.Record) { r.DeviceID = "" }, telemetry.MissingField, "device_id", ""},
	"no fleet":              {func(r *telemetry.Record) { r.FleetID = "" }, telemetry.MissingField, "fleet_id", ""},
	"device of 129 bytes":   {func(r *telemetry.Record) { r.DeviceID = strings.Repeat("a", 129) }, telemetry.BadID, "device_id", strings.Repeat("a", 64) + "…"},
	"device with a slash":   {func(r *telemetry.Record) { r.DeviceID = "a/b" }, telemetry.BadID, "device_id", "a/b"},
	"fleet with a space":    {func(r *telemetry.Record) { r.FleetID = "wu xi" }, telemetry.BadID, "fleet_id", "wu xi"},
	"zone in Chinese":       {func(r *telemetry.Record) { r.Zone = "无锡" }, telemetry.BadID, "zone", "无锡"},
	"fleet not on the list": {func(r *telemetry.Record) { r.FleetID = "berlin" }, telemetry.UnknownFleet, "fleet_id", "berlin"},
	"fleet in capitals":     {func(r *telemetry.Record) { r.FleetID = "Wuxi" }, telemetry.UnknownFleet, "fleet_id", "Wuxi"},

	"5 min and 1 ms ahead":  {func(r *telemetry.Record) { r.TimeMs = now + 5*minute + 1 }, telemetry.Future, "timestamp", "2026-03-01T12:05:00.001Z"},
	"microseconds":          {func(r *telemetry.Record) { r.TimeMs = now * 1000 }, telemetry.Future, "timestamp", ""},
	"the last there is":     {func(r *telemetry.Record) { r.TimeMs = math.MaxInt64 }, telemetry.Future, "timestamp", ""},
	"exactly 30 days old":   {func(r *telemetry.Record) { r.TimeMs = now - 30*day }, telemetry.TooOld, "timestamp", "2026-01-30T12:00:00.000Z"},
	"1970":                  {func(r *telemetry.Record) { r.TimeMs = 0 }, telemetry.TooOld, "timestamp", "1970-01-01T00:00:00.000Z"},
	"the first there is":    {func(r *telemetry.Record) { r.TimeMs = math.MinInt64 }, telemetry.TooOld, "timestamp", ""},
	"north of the pole":     {func(r *telemetry.Record) { r.Lat = math.Nextafter(90, 91) }, telemetry.LatRange, "lat", "90.00000000000001"},
	"south of the pole":     {func(r *telemetry.Record) { r.Lat = -90.5 }, telemetry.LatRange, "lat", "-90.5"},
	"lat not a number":      {func(r *telemetry.Record) { r.Lat = math.NaN() }, telemetry.LatRange, "lat", "NaN"},
	"lat without end":       {func(r *telemetry.Record) { r.Lat = math.Inf(1) }, telemetry.LatRange, "lat", "+Inf"},
	"east of the date line": {func(r *telemetry.Record) { r.Lon = 180.5 }, telemetry.LonRange, "lon", "180.5"},
	"west of the date line": {func(r *telemetry.Record) { r.Lon = math.Nextafter(-180, -181) }, telemetry.LonRange, "lon", "-180.00000000000003"},
	"lon not a number":      {func(r *telemetry.Record) { r.Lon = math.NaN() }, telemetry.LonRange, "lon", "NaN"},
	"0, 0":                  {func(r *telemetry.Record) { r.Lat, r.Lon = 0, 0 }, telemetry.ZeroPosition, "lat", "0"},
	"-0, 0":                 {func(r *telemetry.Record) { r.Lat, r.Lon = math.Copysign(0, -1), 0 }, telemetry.ZeroPosition, "lat", "0"},

	"backwards":                {func(r *telemetry.Record) { r.SpeedKmh = telemetry.Some(-0.1) }, telemetry.SpeedRange, "speed_kmh", "-0.1"},
	"faster than can be":       {func(r *telemetry.Record) { r.SpeedKmh = telemetry.Some(400.1) }, telemetry.SpeedRange, "speed_kmh", "400.1"},
	"speed not a number":       {func(r *telemetry.Record) { r.SpeedKmh = telemetry.Some(math.NaN()) }, telemetry.SpeedRange, "speed_kmh", "NaN"},
	"heading below 0":          {func(r *telemetry.Record) { r.HeadingDeg = telemetry.Some(-1.0) }, telemetry.HeadingRange, "heading_deg", "-1"},
	"heading above 360":        {func(r *telemetry.Record) { r.HeadingDeg = telemetry.Some(360.5) }, telemetry.HeadingRange, "heading_deg", "360.5"},
	"heading not a number":     {func(r *telemetry.Record) { r.HeadingDeg = telemetry.Some(math.NaN()) }, telemetry.HeadingRange, "heading_deg", "NaN"},
	"battery below empty":      {func(r *telemetry.Record) { r.BatteryPct = telemetry.Some(int32(-1)) }, telemetry.BatteryRange, "battery_pct", "-1"},
	"battery above full":       {func(r *telemetry.Record) { r.BatteryPct = telemetry.Some(int32(101)) }, telemetry.BatteryRange, "battery_pct", "101"},
	"colder than can be":       {func(r *telemetry.Record) { r.TempC = telemetry.Some(-100.1) }, telemetry.TempRange, "temp_c", "-100.1"},
	"hotter than can be":       {func(r *telemetry.Record) { r.TempC = telemetry.Some(200.1) }, telemetry.TempRange, "temp_c", "200.1"},
	"temperature not a number": {func(r *telemetry.Record) { r.TempC = telemetry.Some(math.NaN()) }, telemetry.TempRange, "temp_c", "NaN"},
	"accuracy below 0":         {func(r *telemetry.Record) { r.AccuracyM = telemetry.Some(-0.1) }, telemetry.AccuracyRange, "accuracy_m", "-0.1"},
	"accuracy of no use":       {func(r *telemetry.Record) { r.AccuracyM = telemetry.Some(100_000.5) }, telemetry.AccuracyRange, "accuracy_m", "100000.5"},
	"accuracy not a number":    {func(r *telemetry.Record) { r.AccuracyM = telemetry.Some(math.NaN()) }, telemetry.AccuracyRange, "accuracy_m", "NaN"},
}

func TestBoundsRejectBeyondTheirEdges(t *testing.T) {
	for name, c := range rejectedCases {
		t.Run(name, func(t *testing.T) {
			r := NewBounds(allowed).Check(changed(c.change), now)
			require.NotNil(t, r)
			assert.Equal(t, c.reason, r.Reason)
			assert.Equal(t, c.field, r.Field)
			if c.value != "" {
				assert.Equal(t, c.value, r.Value)
			}
			assert.NotEmpty(t, r.Remedy)
			assert.Contains(t, r.Error(), c.field)
			if c.reason != telemetry.MissingField {
				assert.NotEmpty(t, r.Value, "the message shows what came")
			}
		})
	}
}

// Sources give the reasons that need the raw text, the registry those of owners, the bounds all others.
func TestEveryReasonHasAnOrigin(t *testing.T) {
	byOthers := map[telemetry.Reason]bool{
		telemetry.Malformed: true, telemetry.BadTimestamp: true, telemetry.TooLarge: true,
		telemetry.WrongFleet: true, telemetry.UnknownDevice: true, telemetry.HeldDevice: true, telemetry.ForbiddenFleet: true,
		telemetry.TooManyDevices: true, telemetry.TooLate: true,
	}
	given := map[telemetry.Reason]bool{}
	for _, c := range rejectedCases {
		if r := NewBounds(allowed).Check(changed(c.change), now); r != nil {
			given[r.Reason] = true
			assert.Contains(t, telemetry.Reasons, r.Reason)
		}
	}
	for _, reason := range telemetry.Reasons {
		if given[reason] == byOthers[reason] {
			t.Errorf("%s: given by the validator %v, by others %v", reason, given[reason], byOthers[reason])
		}
	}
}

func TestAllowedFleets(t *testing.T) {
	for name, c := range map[string]struct {
		fleets []string
		fleet  string
		ok     bool
	}{
		"no list is any fleet":    {nil, "berlin", true},
		"empty list is any fleet": {[]string{}, "berlin", true},
		"on the list":             {[]string{"wuxi", "berlin"}, "berlin", true},
		"not on the list":         {[]string{"wuxi"}, "berlin", false},
		"the start of one":        {[]string{"berlin"}, "berl", false},
	} {
		t.Run(name, func(t *testing.T) {
			r := NewBounds(c.fleets).Check(changed(func(r *telemetry.Record) { r.FleetID = c.fleet }), now)
			if c.ok {
				assert.Nil(t, r)
				return
			}
			require.NotNil(t, r)
			assert.Equal(t, telemetry.UnknownFleet, r.Reason)
			assert.Contains(t, r.Remedy, "ETL_FLEETS")
		})
	}
}

// A rejected record becomes a dead letter as it came.
func TestBoundsChangeNothing(t *testing.T) {
	r := changed(func(r *telemetry.Record) { r.Zone, r.HeadingDeg = "", telemetry.Some(360.0) })
	before := *r
	NewBounds(nil).Check(r, now)
	assert.Equal(t, before, *r)
}
