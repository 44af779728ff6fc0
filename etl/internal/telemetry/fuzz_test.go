package telemetry_test

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// FuzzParseJSON checks that any text is rejected with a known reason, or is a record of finite numbers that survives a round
// trip.
func FuzzParseJSON(f *testing.F) {
	for _, text := range []string{
		`{"device_id":"v1","fleet_id":"wuxi","timestamp":"2026-11-18T10:26:40.123Z","lat":31.5,"lon":"120.25","speed_kmh":0.1,"heading_deg":359.9,"battery_pct":79.5,"temp_c":-4,"zone":"depot","accuracy_m":3}`,
		`{"device_id":17,"timestamp":1795000000.25,"lat":-0,"lon":1e-320,"speed_kmh":null,"zone":"","extra":{"lat":1}}`,
		`{"DEVICE_ID":"a","device_id":"b","Lat":1}`, `{"device_id":"\u0000\ud800","timestamp":"2026-11-18 10:26:40"}`, `{"lat":"NaN","lon":"0x1p3"}`, `{"lat":1e999}`, "[]", "{", "",
		`{"device_id":"` + strings.Repeat("x", telemetry.MaxJSON) + `"}`,
	} {
		f.Add([]byte(text), "wuxi")
		f.Add([]byte(text), "")
	}
	f.Fuzz(func(t *testing.T, text []byte, fleet string) {
		if fleet != "" && !telemetry.ValidName(fleet) {
			t.Skip("not a valid fleet of a token")
		}
		r, rejection := telemetry.ParseJSON(text, fleet)
		if rejection != nil {
			require.True(t, slices.Contains(telemetry.Reasons, rejection.Reason), rejection.Reason)
			require.NotEmpty(t, rejection.Remedy)
			require.Less(t, len(rejection.Error()), 1000)
			return
		}
		require.NotEmpty(t, r.DeviceID)
		require.NotEmpty(t, r.FleetID)
		for _, name := range []string{r.DeviceID, r.FleetID, r.Zone} {
			require.True(t, utf8.ValidString(name) && strings.TrimSpace(name) == name, "%q", name)
		}
		for _, v := range []float64{r.Lat, r.Lon, r.SpeedKmh.Value, r.HeadingDeg.Value, r.TempC.Value, r.AccuracyM.Value} {
			require.False(t, math.IsNaN(v) || math.IsInf(v, 0))
		}
		require.True(t, r.BatteryPct.Value >= 0 && r.BatteryPct.Value <= 100)
		if ms := r.TimeMs; ms > -100_000_000_000 && ms < 100_000_000_000 {
			return // so small a number is parsed as seconds
		}
		again, err := json.Marshal(pipeline.FieldsOf(&r))
		require.NoError(t, err)
		back, rejection := telemetry.ParseJSON(again, "")
		if len(again) > telemetry.MaxJSON {
			require.NotNil(t, rejection)
			return // escaped names
		}
		require.Nil(t, rejection)
		require.Equal(t, r, back)
	})
}
