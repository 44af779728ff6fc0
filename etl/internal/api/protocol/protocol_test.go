package protocol

import (
	"net/url"
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

// A record takes from its request what it lacks. The raw text stays as it arrived, unless the record is rejected: then it has
// the names too, for the dead letter.
func TestRecordTakesDefaultsOfItsRequest(t *testing.T) {
	ownTracks := func(body string) Message {
		messages, _, err := OwnTracks([]byte(body), defaults, 1)
		require.NoError(t, err)
		return messages[0]
	}
	traccar := func(body string) Message {
		messages, _, err := Traccar([]byte(body), defaults, 1)
		require.NoError(t, err)
		return messages[0]
	}
	records := func(body string) Message {
		messages, err := Telemetry([]byte(body), false, defaults, 1)
		require.NoError(t, err)
		return messages[0]
	}
	for name, c := range map[string]struct {
		decode     func(string) Message
		text       string
		device     string
		latitude   string // in the text
		namesAdded string
	}{
		"telemetry": {records, `{"device_id":"v1","timestamp":1795000000,"lat":31.5,"lon":120.25}`, "v1", `31.5`, `"fleet_id":"wuxi"`},
		"owntracks": {ownTracks, `{"_type":"location","tst":1795000000,"lat":31.5,"lon":120.25,"vel":36}`, "jane:phone", `31.5`, `{"fleet_id":"wuxi","device_id":"jane:phone"`},
		"traccar": {
			traccar, `{"location":{"timestamp":"2026-11-18T10:26:40Z","coords":{"latitude":31.5,"longitude":120.25,"speed":10}},"device_id":7}`, "7", `31.5`, `"fleet_id":"wuxi"`,
		},
		"osmand": {func(query string) Message { return OsmAnd(query, defaults) }, "id=v1&lat=31.5&lon=120.25&speed=20", "v1", "31.5", "&fleet_id=wuxi"},
	} {
		t.Run(name, func(t *testing.T) {
			m := c.decode(c.text)
			require.Nil(t, m.Rejection)
			require.Equal(t, c.device, m.Record.DeviceID)
			require.Equal(t, "wuxi", m.Record.FleetID)
			require.Equal(t, c.text, m.Raw)

			broken := strings.Replace(c.text, c.latitude, `"north"`, 1)
			m = c.decode(broken)
			require.Equal(t, telemetry.Malformed, m.Rejection.Reason)
			require.Contains(t, m.Raw, strings.TrimPrefix(broken, "{"))
			require.Contains(t, m.Raw, c.namesAdded)
		})
	}
}

// Of a text above the maximum size only an excerpt is kept, whatever the protocol and whatever else is wrong with it.
func TestTooLargeTextIsKeptAsExcerpt(t *testing.T) {
	long := strings.Repeat("x", telemetry.MaxJSON)
	for name, text := range map[string]string{
		"telemetry": `{"device_id":"v1","timestamp":1795000000,"lat":31.5,"lon":120.25,"x":"` + long + `"}`,
		"owntracks": `{"_type":"location","tst":1795000000,"lat":31.5,"lon":120.25,"x":"` + long + `"}`,
		"traccar":   `{"location":{"timestamp":"2026-11-18T10:26:40Z","coords":{"latitude":31.5,"longitude":120.25},"x":"` + long + `"},"device_id":7}`,
		"osmand":    "id=v1&lat=31.5&lon=120.25&x=" + long,
		"no JSON":   `[{"_type":` + long,
	} {
		t.Run(name, func(t *testing.T) {
			var messages []Message
			var err error
			switch name {
			case "telemetry":
				messages, err = Telemetry([]byte(text), false, defaults, 1)
			case "traccar":
				messages, _, err = Traccar([]byte(text), defaults, 1)
			case "osmand":
				messages = []Message{OsmAnd(text, defaults)}
			default:
				messages, _, err = OwnTracks([]byte(text), defaults, 1)
			}
			require.NoError(t, err)
			require.Len(t, messages, 1)
			require.Equal(t, *telemetry.RejectTooLarge([]byte(text)), *messages[0].Rejection)
			require.Equal(t, text[:telemetry.MaxExcerpt], messages[0].Raw)
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
		r, rejection := p.record(Defaults{})
		require.Nil(t, rejection, name)
		require.Equal(t, telemetry.Some(c.want), r.SpeedKmh, name)
		require.Equal(t, telemetry.Some(int32(50)), r.BatteryPct, name)
		require.False(t, r.AccuracyM.Valid, "a negative value is unknown")
		require.False(t, r.HeadingDeg.Valid)
	}
}

func TestWithoutToken(t *testing.T) {
	require.Equal(t, "id=1&mytoken=x&lat=2", WithoutToken("id=1&token=secret&mytoken=x&&token&lat=2"))
	for _, query := range []string{"%74oken=secret&id=1", "id=1&toke%6E=secret", "%74%6F%6b%65%6E=secret&id=1", "id=1&%74oken", "id=1&%74oken=a&token=secret"} {
		values, err := url.ParseQuery(query)
		require.NoError(t, err)
		require.True(t, values.Has("token"), "it authenticates")
		require.Equal(t, "id=1", WithoutToken(query))
	}
	require.Equal(t, "%7=a&%74okens=b&Token=c", WithoutToken("%7=a&%74okens=b&Token=c"), "other names")
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
