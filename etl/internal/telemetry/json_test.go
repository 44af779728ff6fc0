package telemetry

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestJSONRecords(t *testing.T) {
	whole := Record{
		DeviceID: "a-1", FleetID: "f", Zone: "z", TimeMs: 1_770_000_000_123, Lat: 52.5, Lon: -9.25,
		SpeedKmh: Some(0.0), HeadingDeg: Some(90.5), TempC: Some(-18.0), BatteryPct: Some(int32(77)), AccuracyM: Some(4.5),
	}
	bare := Record{DeviceID: "a-1", FleetID: "f", TimeMs: 1_770_000_000_000, Lat: 1, Lon: 2}
	for name, c := range map[string]struct {
		text string
		want Record
	}{
		"all fields":            {`{"device_id":"a-1","fleet_id":"f","timestamp":1770000000123,"lat":52.5,"lon":-9.25,"speed_kmh":0,"heading_deg":90.5,"battery_pct":77,"temp_c":-18,"zone":"z","accuracy_m":4.5}`, whole},
		"numbers in quotes":     {`{"device_id":"a-1","fleet_id":"f","timestamp":"1770000000123","lat":"52.5","lon":" -9.25","speed_kmh":"0","heading_deg":"90.5","battery_pct":"76.6","temp_c":"-18.0","zone":"z","accuracy_m":"4.5"}`, whole},
		"nulls and more fields": {` {"device_id":"a-1","fleet_id":null,"timestamp":"2026-02-02T02:40:00Z","lat":1,"lon":2,"speed_kmh":null,"accuracy_m":null,"zone":"","odometer":{"km":5}} `, bare},
		"seconds":               {`{"device_id":"a-1","timestamp":1770000000,"lat":1,"lon":2}`, bare},
	} {
		t.Run(name, func(t *testing.T) {
			got, rejection := ParseJSON([]byte(c.text), "f")
			require.Nil(t, rejection)
			assert.Equal(t, c.want, got)
		})
	}
	for text, want := range map[string]Rejection{
		`[1]`:              {Malformed, "", "[1]", "send a JSON object"},
		``:                 {Malformed, "", "", "send a JSON object"},
		`{"device_id":"a"`: {Malformed, "", `{"device_id":"a"`, "send valid JSON: unexpected end of JSON input"},
		`{"fleet_id":"f","timestamp":1,"lat":1,"lon":2}`:                                   {MissingField, FieldDeviceID, "", "give it a value"},
		`{"device_id":"a","timestamp":1,"lat":1,"lon":2}`:                                  {MissingField, FieldFleetID, "", "give it a value"},
		`{"device_id":"a","fleet_id":"f","timestamp":1,"lon":2}`:                           {MissingField, FieldLat, "", "give it a value"},
		`{"device_id":"a","fleet_id":"f","timestamp":"soon","lat":1,"lon":2}`:              {BadTimestamp, FieldTimestamp, "soon", "give RFC 3339, epoch seconds or milliseconds, or set the layout"},
		`{"device_id":"a","fleet_id":"f","timestamp":1,"lat":[1],"lon":2}`:                 {Malformed, FieldLat, "[1]", "give a string or a number"},
		`{"device_id":true,"fleet_id":"f","timestamp":1,"lat":1,"lon":2}`:                  {Malformed, FieldDeviceID, "true", "give a string or a number"},
		`{"device_id":"a","fleet_id":"f","timestamp":1,"lat":"1e999","lon":2}`:             {Malformed, FieldLat, "1e999", "give a decimal number"},
		`{"device_id":"a","fleet_id":"f","timestamp":1,"lat":1,"lon":2,"battery_pct":-1}`:  {BatteryRange, FieldBattery, "-1", "give percent from 0 to 100"},
		`{"device_id":"a","fleet_id":"f","timestamp":1,"lat":1,"lon":2,"accuracy_m":"±5"}`: {Malformed, FieldAccuracy, "±5", "give a decimal number"},
		`{"device_id":"a","fleet_id":"f","timestamp":1,"lat":1,"lon":2,"accuracy_m":{}}`:   {Malformed, FieldAccuracy, "{}", "give a string or a number"},
	} {
		_, rejection := ParseJSON([]byte(text), "")
		require.NotNil(t, rejection, text)
		assert.Equal(t, want, *rejection, text)
	}
	_, rejection := ParseJSON([]byte(`{"zone":"`+strings.Repeat("x", MaxJSON)+`"}`), "f")
	require.NotNil(t, rejection)
	assert.Equal(t, TooLarge, rejection.Reason)
}
