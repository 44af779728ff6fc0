package protocol

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

var defaults = Defaults{Fleet: "wuxi", Device: "jane:phone", Time: time.UnixMilli(1_795_000_000_123)}

func TestSplit(t *testing.T) {
	for name, c := range map[string]struct {
		text  string
		lines bool
		want  []string
		err   string
	}{
		"object":                {`{"a":1}`, false, []string{`{"a":1}`}, ""},
		"object over lines":     {"{\n\"a\":1\n}", false, []string{"{\n\"a\":1\n}"}, ""},
		"array":                 {` [{"a":1}, 2] `, false, []string{`{"a":1}`, `2`}, ""},
		"lines":                 {"{\"a\":1}\r\n\n{\"b\":2}\n", false, []string{`{"a":1}`, `{"b":2}`}, ""},
		"bad line among others": {"{\"a\":1}\n{\"b\"\n{}", true, []string{`{"a":1}`, `{"b"`, `{}`}, ""},
		"one bad object":        {`{"a":}`, false, []string{`{"a":}`}, ""},
		"byte order mark":       {"\ufeff{}", false, []string{`{}`}, ""},
		"empty":                 {" ", false, nil, "the body is empty"},
		"gzip":                  {"\x1f\x8b", false, nil, "Content-Encoding: gzip"},
		"CSV":                   {"a,b", false, nil, "not JSON"},
		"incomplete array":      {"[{}, {", false, nil, "incomplete"},
		"text after array":      {"[{}] true", false, nil, "something follows the array"},
		"too many in array":     {"[1,2,3,4]", false, nil, ErrTooMany.Error()},
		"too many lines":        {"{}\n{}\n{}\n{}", false, nil, ErrTooMany.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			parts, err := split([]byte(c.text), c.lines, 3)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			got := make([]string, len(parts))
			for i, p := range parts {
				got[i] = string(p)
			}
			require.Equal(t, c.want, got)
		})
	}
}

// The raw text of every message gives the same record again, with what it took from its request.
func TestRawTextIsComplete(t *testing.T) {
	const body = `{"_type":"location","tst":1795000000,"lat":31.5,"lon":120.25,"vel":36}`
	const location = `{"location":{"timestamp":"2026-11-18T10:26:40Z","coords":{"latitude":31.5,"longitude":120.25,"speed":10}},"device_id":7}`
	ownTracks, _, err := OwnTracks([]byte(body), defaults, 1)
	require.NoError(t, err)
	traccar, _, err := Traccar([]byte(location), defaults, 1)
	require.NoError(t, err)
	records, err := Telemetry([]byte(`{"device_id":"v1","timestamp":1795000000,"lat":31.5,"lon":120.25}`), false, defaults, 1)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		message Message
		device  string
	}{
		"telemetry": {records[0], "v1"}, "owntracks": {ownTracks[0], "jane:phone"}, "traccar": {traccar[0], "7"},
		"osmand": {OsmAnd("id=v1&lat=31.5&lon=120.25&speed=20", defaults), "v1"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Nil(t, c.message.Rejection)
			require.Equal(t, c.device, c.message.Record.DeviceID)
			require.Equal(t, "wuxi", c.message.Record.FleetID)
			again, rejection := ParseRaw(c.message.Raw)
			require.Nil(t, rejection)
			require.Equal(t, c.message.Record, again)
		})
	}
}

func TestUnits(t *testing.T) {
	for name, c := range map[string]struct {
		position position
		want     float64 // km/h
	}{
		"knots": {position{speed: "10", kmh: knots}, 18.52}, "m/s": {position{speed: "10", kmh: metersPerSecond}, 36}, "km/h": {position{speed: "10", kmh: kmPerHour}, 10},
	} {
		p := c.position
		p.device, p.fleet, p.time, p.lat, p.lon, p.battery, p.percent = "v1", "wuxi", "1795000000", "1", "2", "0.5", 100
		p.accuracy, p.heading = "-1", " "
		r, rejection := p.record()
		require.Nil(t, rejection, name)
		require.Equal(t, telemetry.Some(c.want), r.SpeedKmh, name)
		require.Equal(t, telemetry.Some(int32(50)), r.BatteryPct, name)
		require.False(t, r.AccuracyM.Valid, "a negative value is unknown")
		require.False(t, r.HeadingDeg.Valid)
	}
}

func TestWithoutToken(t *testing.T) {
	require.Equal(t, "id=1&mytoken=x&lat=2", WithoutToken("id=1&token=secret&mytoken=x&&token&lat=2"))
}

func TestBoundName(t *testing.T) {
	require.Equal(t, "phone", BoundName("phone"))
	long := BoundName(strings.Repeat("x", 4000))
	require.Less(t, len(long), 200)
	require.False(t, telemetry.ValidName(long), "a truncated name must not name another device")
}

func TestRepairTime(t *testing.T) {
	for in, want := range map[string]string{
		"2026-11-18T10:26:40 08:00": "2026-11-18T10:26:40+08:00", "2026-11-18T10:26:40+0800": "2026-11-18T10:26:40+08:00",
		"2026-11-18 10:26:40": "2026-11-18 10:26:40", "1795000000": "1795000000",
	} {
		require.Equal(t, want, repairTime(in))
	}
}
