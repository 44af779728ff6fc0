package httpapi

import (
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

func sampleEntry() entry {
	return entry{
		at: time.UnixMilli(1_795_000_000_123), origin: "0199aa", protocol: protocolTelemetry,
		records: []received{
			{index: 0, record: telemetry.Record{DeviceID: "v1", FleetID: "wuxi", TimeMs: 1_795_000_000_000, Lat: 31.5, Lon: -120.25}, raw: `{"id":"v1"}`},
			{index: 1, rejection: telemetry.Reject(telemetry.LatRange, "lat", "91", "give less"), raw: "\xff\x00 as it came"},
			{index: 300, record: telemetry.Record{
				DeviceID: "v2", FleetID: "wuxi", Zone: "depot", TimeMs: 1_795_000_000_999, Lat: 0.1, Lon: 1.0 / 3, SpeedKmh: telemetry.Some(0.0),
				HeadingDeg: telemetry.Some(359.9), TempC: telemetry.Some(-1.5), BatteryPct: telemetry.Some(int32(0)),
			}},
		},
	}
}

func TestAnEntryComesBackAsItWas(t *testing.T) {
	e := sampleEntry()
	text, err := e.encode()
	require.NoError(t, err)
	got, err := decodeEntry(text)
	require.NoError(t, err)
	require.NotEmpty(t, got.records[2].raw, "a record always has a text for the dead letters")
	parsed, rejection := telemetry.ParseJSON([]byte(got.records[2].raw), "")
	require.Nil(t, rejection)
	require.Equal(t, e.records[2].record, parsed)
	e.records[2].raw = got.records[2].raw
	require.Equal(t, e, got)
}

func TestTheRecordsTextIsNotKeptTwice(t *testing.T) {
	e := sampleEntry()
	e.records = e.records[:1]
	json, err := e.records[0].record.AppendJSON(nil)
	require.NoError(t, err)
	e.records[0].raw = string(json)
	text, err := e.encode()
	require.NoError(t, err)
	require.Less(t, len(text), len(json)+40)
	got, err := decodeEntry(text)
	require.NoError(t, err)
	require.Equal(t, e, got)
}

func TestOnlyWholeEntriesAreRead(t *testing.T) {
	e := sampleEntry()
	text, err := e.encode()
	require.NoError(t, err)
	for n := range text {
		_, err := decodeEntry(text[:n])
		require.Error(t, err, "cut at %d", n)
	}
	_, err = decodeEntry(append(text, 0))
	require.ErrorContains(t, err, "1 bytes are left over")
	text[0] = 2
	_, err = decodeEntry(text)
	require.ErrorIs(t, err, errVersion(2))

	for name, spoil := range map[string]func(*entry){
		"no records":       func(e *entry) { e.records = nil },
		"unknown protocol": func(e *entry) { e.protocol = "smoke signals" },
		"unknown reason":   func(e *entry) { e.records[1].rejection.Reason = "mood" },
		"no such record":   func(e *entry) { e.records[0].record.DeviceID = "" },
	} {
		e := sampleEntry()
		spoil(&e)
		text, err := e.encode()
		require.NoError(t, err)
		_, err = decodeEntry(text)
		require.Error(t, err, name)
	}
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
		for _, r := range e.records {
			if r.rejection == nil && r.record.TimeMs < 100_000_000_000 {
				return // milliseconds of the seventies read as seconds; such a record is refused long before
			}
		}
		again, err := e.encode()
		require.NoError(t, err)
		back, err := decodeEntry(again)
		require.NoError(t, err)
		require.True(t, reflect.DeepEqual(e, back))
	})
}
