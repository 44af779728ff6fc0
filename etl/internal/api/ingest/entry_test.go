package ingest

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
			{index: 301, record: telemetry.Record{
				DeviceID: "v3", FleetID: "wuxi", TimeMs: 1_795_000_001_000, Lat: 1, Lon: 2, AccuracyM: telemetry.Some(4.5),
			}, raw: "id=v3"},
			{index: 302, rejection: telemetry.Reject(telemetry.AccuracyRange, telemetry.FieldAccuracy, "-5", "give more"), raw: "id=v4"},
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

// What lay in the journal when the program was updated is not lost. The text is what the version before records had an
// accuracy wrote.
func TestAnEntryOfTheVersionBeforeIsRead(t *testing.T) {
	const before = "\x01\xfb\xbc\xd9\xf2\x9e4\x060199aa\ttelemetry\x03" +
		"\x00\x00W{\"device_id\":\"v1\",\"fleet_id\":\"wuxi\",\"timestamp\":1795000000000,\"lat\":31.5,\"lon\":-120.25}\v{\"id\":\"v1\"}" +
		"\x01\x01\tlat_range\x03lat\x0291\tgive less\r\xff\x00 as it came" +
		"\x00\xac\x02\xb0\x01{\"device_id\":\"v2\",\"fleet_id\":\"wuxi\",\"timestamp\":1795000000999,\"lat\":0.1,\"lon\":0.3333333333333333," +
		"\"speed_kmh\":0,\"heading_deg\":359.9,\"battery_pct\":0,\"temp_c\":-1.5,\"zone\":\"depot\"}\x00"
	got, err := decodeEntry([]byte(before))
	require.NoError(t, err)
	want := sampleEntry()
	want.records = want.records[:3]
	want.records[2].raw = got.records[2].raw
	require.Equal(t, want, got)
	again, err := got.encode()
	require.NoError(t, err)
	require.Equal(t, before, string(again), "and without an accuracy it is what is written today")
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
