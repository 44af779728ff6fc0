package deadletters

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

var _ pipeline.Source = (*Source)(nil)

func listOf(letters ...Letter) iter.Seq2[Letter, error] {
	return func(yield func(Letter, error) bool) {
		for i, l := range letters {
			l.Number, l.ID = int64(i+1), [16]byte{byte(i + 1)}
			if !yield(l, nil) {
				return
			}
		}
	}
}

// run runs a source over the letters and gives what it emitted, as one batch, and what it passed over.
func run(t *testing.T, set map[string]string, letters ...Letter) (got pipeline.Batch, passed map[int64]string) {
	t.Helper()
	passed = map[int64]string{}
	s, err := New(Options{
		Letters: listOf(letters...), Set: set, Settled: func([][16]byte) error { return nil },
		Passed: func(l Letter, why string) { passed[l.Number] = why },
	})
	require.NoError(t, err)
	require.NoError(t, s.Run(t.Context(), func(b pipeline.Batch) error {
		require.Equal(t, "deadletters", b.Origin)
		got.Items, got.Rejected = append(got.Items, b.Items...), append(got.Rejected, b.Rejected...)
		return nil
	}))
	return got, passed
}

func TestALetterBecomesTheRecordThatItWas(t *testing.T) {
	const at = 1793527200123
	plain := telemetry.Record{DeviceID: "bus-1", FleetID: "wuxi", TimeMs: at, Lat: 31.5, Lon: 120.5}
	other, full := plain, plain
	other.FleetID, other.Zone = "berlin", "depot"
	full.SpeedKmh, full.HeadingDeg, full.TempC = telemetry.Some(50.5), telemetry.Some(90.), telemetry.Some(-1.5)
	full.BatteryPct, full.Zone = telemetry.Some(int32(80)), "port"
	full.AccuracyM = telemetry.Some(4.5)
	apart := map[string]string{"device_id": "bus-1", "fleet_id": "wuxi", "timestamp": "1793527200123", "lat": "31.5", "lon": "120.5"}
	for name, c := range map[string]struct {
		letter Letter
		set    map[string]string
		want   telemetry.Record
	}{
		"taken apart": {Letter{Raw: "bus-1;…", Fields: apart}, nil, plain},
		"every field": {Letter{Raw: "?", Fields: map[string]string{
			"device_id": "bus-1", "fleet_id": "wuxi", "timestamp": "2026-11-01T10:00:00.123Z", "lat": "31.5", "lon": " 120.5 ", "speed_kmh": "50.5",
			"heading_deg": "90", "temp_c": "-1.5", "battery_pct": "79.6", "zone": "port", "accuracy_m": "4.5",
		}}, nil, full},
		"JSON": {Letter{Raw: ` {"device_id":"bus-1","fleet_id":"wuxi","timestamp":1793527200123,"lat":"31.5","lon":120.5,"zone":null}`}, nil, plain},
		"JSON set to have no accuracy": {Letter{Raw: `{"device_id":"bus-1","fleet_id":"wuxi","timestamp":1793527200123,"lat":31.5,"lon":120.5,"accuracy_m":-5}`},
			map[string]string{"accuracy_m": ""}, plain},
		"JSON with much besides": {Letter{Raw: fmt.Sprintf(
			`{"device_id":"bus-1","fleet_id":"wuxi","timestamp":1793527200123,"lat":31.5,"lon":120.5,"note":%q}`, strings.Repeat("x", 20_000))}, nil, plain},
		"taken apart before JSON": {Letter{Raw: `{"device_id":"bus-2"}`, Fields: apart}, nil, plain},
		"set":                     {Letter{Fields: apart}, map[string]string{"fleet_id": " berlin ", "zone": "depot"}, other},
		"set over JSON": {Letter{Raw: `{"device_id":"bus-1","fleet_id":7,"timestamp":1793527200123,"lat":31.5,"lon":120.5}`},
			map[string]string{"fleet_id": "berlin", "zone": "depot"}, other},
		"set to nothing": {Letter{Fields: map[string]string{
			"device_id": "bus-1", "fleet_id": "wuxi", "timestamp": "1793527200123", "lat": "31.5", "lon": "120.5", "temp_c": "hot",
		}}, map[string]string{"temp_c": ""}, plain},
	} {
		t.Run(name, func(t *testing.T) {
			got, passed := run(t, c.set, c.letter)
			require.Empty(t, passed)
			require.Empty(t, got.Rejected)
			require.Equal(t, []pipeline.Item{{Record: c.want, Position: 1, Raw: c.letter.Raw}}, got.Items)
		})
	}
}

func TestWhatIsStillNoRecordIsRefusedOnceMore(t *testing.T) {
	got, passed := run(t, map[string]string{"fleet_id": "wuxi"},
		Letter{Raw: "raw", Fields: map[string]string{"device_id": "bus-1", "lat": "north"}},
		Letter{Raw: `{"device_id":"bus-1","timestamp":"yesterday","lat":true}`},
		Letter{Raw: "bus-1,wuxi,1"}, Letter{Raw: ""}, Letter{Raw: `{"device_id":`})
	require.Empty(t, got.Items)
	require.Len(t, got.Rejected, 2)
	assert.Equal(t, telemetry.MissingField, got.Rejected[0].Reason)
	assert.Equal(t, "raw", got.Rejected[0].Raw)
	assert.Equal(t, map[string]string{"device_id": "bus-1", "lat": "north", "fleet_id": "wuxi"}, got.Rejected[0].Fields, "with what was mended")
	assert.Equal(t, telemetry.BadTimestamp, got.Rejected[1].Reason)
	assert.EqualValues(t, 2, got.Rejected[1].Position)
	assert.Equal(t, map[string]string{"device_id": "bus-1", "timestamp": "yesterday", "fleet_id": "wuxi"}, got.Rejected[1].Fields)
	require.Len(t, passed, 3)
	assert.Contains(t, passed[3], "could not be taken apart")
	assert.Contains(t, passed[4], "could not be taken apart")
	assert.Contains(t, passed[5], "no valid JSON")
}

func TestWrongValuesToSet(t *testing.T) {
	for name, c := range map[string]struct{ field, value, want string }{
		"no field":        {"fleet", "wuxi", `--set fleet=wuxi: there is no field "fleet": the fields are device_id`},
		"nothing":         {"fleet_id", " ", "--set fleet_id= : the value is missing"},
		"no name":         {"fleet_id", "my fleet", "--set fleet_id=my fleet: every record would be refused"},
		"no number":       {"lat", "north", "--set lat=north: malformed"},
		"no time":         {"timestamp", "now", "--set timestamp=now: bad_timestamp"},
		"no such percent": {"battery_pct", "101", "--set battery_pct=101: battery_range"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(Options{Set: map[string]string{c.field: c.value}})
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestLettersAreSettledWhenTheirBatchIsDurable(t *testing.T) {
	var letters []Letter
	for range 2*batchLetters + 1 {
		letters = append(letters, Letter{Raw: `{}`})
	}
	var settled [][16]byte
	s, err := New(Options{Letters: listOf(letters...), Settled: func(ids [][16]byte) error { settled = append(settled, ids...); return nil }})
	require.NoError(t, err)
	var batches []pipeline.Batch
	require.NoError(t, s.Run(t.Context(), func(b pipeline.Batch) error { batches = append(batches, b); return nil }))
	require.Len(t, batches, 3)
	require.NoError(t, s.Settle())
	require.Empty(t, settled, "nothing is durable yet")
	batches[1].Done(pipeline.Outcome{})
	require.NoError(t, s.Settle())
	require.Len(t, settled, batchLetters)
	batches[0].Done(pipeline.Outcome{})
	batches[2].Done(pipeline.Outcome{})
	require.NoError(t, s.Settle())
	require.NoError(t, s.Settle())
	require.Len(t, settled, 2*batchLetters+1)
}

func TestRunEndsWithItsContextAndWithAnError(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s, err := New(Options{Letters: listOf(Letter{Raw: "{}"})})
	require.NoError(t, err)
	require.NoError(t, s.Run(ctx, func(pipeline.Batch) error { t.Error("it was told to stop"); return nil }))

	broken := errors.New("broken")
	require.ErrorIs(t, s.Run(t.Context(), func(pipeline.Batch) error { return broken }), broken)
	s, err = New(Options{Letters: func(yield func(Letter, error) bool) { yield(Letter{}, broken) }})
	require.NoError(t, err)
	require.ErrorIs(t, s.Run(t.Context(), func(pipeline.Batch) error { return nil }), broken)
}
