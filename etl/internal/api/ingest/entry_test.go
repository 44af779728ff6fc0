package ingest

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/protocol"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

func sampleEntry() entry {
	return entry{
		AcceptedMs: 1_795_000_000_123, Origin: "0199aa", Sender: "wuxi",
		Messages: []protocol.Message{
			{Index: 0, Record: telemetry.Record{DeviceID: "v1", FleetID: "wuxi", TimeMs: 1_795_000_000_000, Lat: 31.5, Lon: -120.25}, Raw: `{"id":"v1"}`},
			{Index: 1, Rejection: telemetry.Reject(telemetry.LatRange, "lat", "91", "give less"), Raw: "\xff\x00 as it came"},
			{Index: 300, Record: telemetry.Record{
				DeviceID: "v2", FleetID: "wuxi", Zone: "depot", TimeMs: 1_795_000_000_999, Lat: 0.1, Lon: 1.0 / 3, SpeedKmh: telemetry.Some(0.0),
				HeadingDeg: telemetry.Some(359.9), TempC: telemetry.Some(-1.5), BatteryPct: telemetry.Some(int32(0)),
			}},
			{Index: 301, Record: telemetry.Record{
				DeviceID: "v3", FleetID: "wuxi", TimeMs: 1_795_000_001_000, Lat: 1, Lon: 2, AccuracyM: telemetry.Some(4.5),
			}, Raw: "id=v3"},
			{Index: 302, Rejection: telemetry.Reject(telemetry.AccuracyRange, telemetry.FieldAccuracy, "-5", "give more"), Raw: "id=v4"},
		},
	}
}

func TestEntryRoundTrip(t *testing.T) {
	e := sampleEntry()
	text, err := e.encode()
	require.NoError(t, err)
	got, err := decodeEntry(text)
	require.NoError(t, err)
	require.Equal(t, e, got)
}

func TestEntryIsNotMuchLongerThanItsRecords(t *testing.T) {
	e := sampleEntry()
	text, err := e.encode()
	require.NoError(t, err)
	raw := 0
	for _, m := range e.Messages {
		raw += len(m.Raw)
	}
	require.Less(t, len(text), raw+400*len(e.Messages))
}

func TestInvalidEntriesAreRejected(t *testing.T) {
	e := sampleEntry()
	text, err := e.encode()
	require.NoError(t, err)
	for n := range text {
		_, err := decodeEntry(text[:n])
		require.Error(t, err, "cut at %d", n)
	}
	_, err = decodeEntry(append(text, 0))
	require.ErrorContains(t, err, "extraneous")
	text[0] = 2
	_, err = decodeEntry(text)
	require.ErrorIs(t, err, errVersion)
	require.ErrorContains(t, err, "entry version 2, want version 1")
}

func FuzzDecodeEntry(f *testing.F) {
	e := sampleEntry()
	text, _ := e.encode()
	f.Add(text)
	f.Add([]byte{entryVersion, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := decodeEntry(text)
		if err != nil {
			return
		}
		for _, r := range e.Messages {
			if v := r.Record; v != v { // a NaN differs from itself; records with one are rejected before
				return
			}
		}
		again, err := e.encode()
		require.NoError(t, err)
		back, err := decodeEntry(again)
		require.NoError(t, err)
		require.True(t, reflect.DeepEqual(e, back))
	})
}
