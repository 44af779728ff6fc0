package pipeline_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

func TestTimeTextParsesAsTheSameTime(t *testing.T) {
	for _, ms := range []int64{
		0, 1, -1, 5000, 99_999_999_999, 100_000_000_000, 1_793_527_200_123, -62_135_596_800_000, 253_402_300_799_999, 253_402_300_800_000,
		1_793_527_200_123_456, math.MaxInt64, math.MinInt64 + 1,
	} {
		text := pipeline.TimeText(ms)
		got, err := telemetry.TimeFormat{}.Parse(text)
		require.NoError(t, err, text)
		require.Equal(t, ms, got, text)
	}
}

// A rejected record can be reprocessed from its fields alone.
func TestDeadLetterHasTheFieldsOfTheRecord(t *testing.T) {
	now := time.Now().UnixMilli()
	bare := telemetry.Record{DeviceID: "bus-1", FleetID: "wuxi", TimeMs: now, Lat: 91.25, Lon: -1e-7}
	full := bare
	full.Zone, full.BatteryPct = "port", telemetry.Some(int32(0))
	full.SpeedKmh, full.HeadingDeg, full.TempC = telemetry.Some(0.1), telemetry.Some(1./3), telemetry.Some(-40.)
	full.AccuracyM = telemetry.Some(0.25)
	h := newHarness(storing(), 1)
	require.NoError(t, h.Run(context.Background(), context.Background(), emitting("s", pipeline.Batch{
		Items: []pipeline.Item{{Record: bare, Raw: "bus-1;wuxi;91.25"}, {Record: full}, {Record: telemetry.Record{TimeMs: now}}},
	})))
	require.Len(t, h.deadLetters.all, 1)
	rejected := h.deadLetters.all[0].rejected
	require.Len(t, rejected, 3)
	for i, want := range []telemetry.Record{bare, full} {
		text, err := json.Marshal(rejected[i].Fields)
		require.NoError(t, err)
		got, rejection := telemetry.ParseJSON(text, "")
		require.Nil(t, rejection)
		require.Equal(t, want, got)
	}
	require.Equal(t, "bus-1;wuxi;91.25", rejected[0].Raw)
	require.Equal(t, []string{"device_id", "fleet_id", "lat", "lon", "timestamp"}, keys(rejected[0].Fields))
	require.Equal(t, "map[lat:0 lon:0 timestamp:"+pipeline.TimeText(now)+"]", fmt.Sprint(rejected[2].Fields))
}

func keys(m map[string]string) (names []string) {
	for _, name := range []string{"device_id", "fleet_id", "lat", "lon", "speed_kmh", "timestamp", "zone", "temp_c", "battery_pct", "heading_deg", "accuracy_m"} {
		if _, ok := m[name]; ok {
			names = append(names, name)
		}
	}
	return names
}
