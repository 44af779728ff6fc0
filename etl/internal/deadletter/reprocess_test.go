package deadletter

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

var _ pipeline.Source = (*Reprocessor)(nil)

func listOf(entries ...Entry) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for i, e := range entries {
			e.Number, e.ID = int64(i+1), ID{byte(i + 1)}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// reprocess returns what a Reprocessor of the entries emits, as one batch, and why it skips entries, by number.
func reprocess(t *testing.T, set map[string]string, entries ...Entry) (got pipeline.Batch, skipped map[int64]string) {
	t.Helper()
	skipped = map[int64]string{}
	s, err := NewReprocessor(ReprocessOptions{
		Entries: listOf(entries...), Set: set, Done: func([]ID) error { return nil },
		Skipped: func(e Entry, why string) { skipped[e.Number] = why },
	})
	require.NoError(t, err)
	require.NoError(t, s.Run(t.Context(), func(b pipeline.Batch) error {
		require.Equal(t, "deadletters", b.Origin)
		got.Items, got.Rejected = append(got.Items, b.Items...), append(got.Rejected, b.Rejected...)
		return nil
	}))
	return got, skipped
}

func TestEntryBecomesItsRecord(t *testing.T) {
	const at = 1793527200123
	plain := telemetry.Record{DeviceID: "bus-1", FleetID: "wuxi", TimeMs: at, Lat: 31.5, Lon: 120.5}
	other, full := plain, plain
	other.FleetID, other.Zone = "berlin", "depot"
	full.SpeedKmh, full.HeadingDeg, full.TempC = telemetry.Some(50.5), telemetry.Some(90.), telemetry.Some(-1.5)
	full.BatteryPct, full.Zone = telemetry.Some(int32(80)), "port"
	full.AccuracyM = telemetry.Some(4.5)
	parsed := map[string]string{"device_id": "bus-1", "fleet_id": "wuxi", "timestamp": "1793527200123", "lat": "31.5", "lon": "120.5"}
	for name, c := range map[string]struct {
		entry Entry
		set   map[string]string
		want  telemetry.Record
	}{
		"parsed fields":       {Entry{Raw: "bus-1;…", Record: parsed}, nil, plain},
		"of a fleet's sender": {Entry{Sender: "wuxi", Record: parsed}, nil, plain},
		"every field": {Entry{Raw: "?", Record: map[string]string{
			"device_id": "bus-1", "fleet_id": "wuxi", "timestamp": "2026-11-01T10:00:00.123Z", "lat": "31.5", "lon": " 120.5 ", "speed_kmh": "50.5",
			"heading_deg": "90", "temp_c": "-1.5", "battery_pct": "79.6", "zone": "port", "accuracy_m": "4.5",
		}}, nil, full},
		"JSON": {Entry{Raw: ` {"device_id":"bus-1","fleet_id":"wuxi","timestamp":1793527200123,"lat":"31.5","lon":120.5,"zone":null}`}, nil, plain},
		"JSON set to have no accuracy": {Entry{Raw: `{"device_id":"bus-1","fleet_id":"wuxi","timestamp":1793527200123,"lat":31.5,"lon":120.5,"accuracy_m":-5}`},
			map[string]string{"accuracy_m": ""}, plain},
		"JSON with much besides": {Entry{Raw: fmt.Sprintf(
			`{"device_id":"bus-1","fleet_id":"wuxi","timestamp":1793527200123,"lat":31.5,"lon":120.5,"note":%q}`, strings.Repeat("x", 20_000))}, nil, plain},
		"parsed fields before JSON": {Entry{Raw: `{"device_id":"bus-2"}`, Record: parsed}, nil, plain},
		"set":                       {Entry{Record: parsed}, map[string]string{"fleet_id": " berlin ", "zone": "depot"}, other},
		"set over JSON": {Entry{Raw: `{"device_id":"bus-1","fleet_id":7,"timestamp":1793527200123,"lat":31.5,"lon":120.5}`},
			map[string]string{"fleet_id": "berlin", "zone": "depot"}, other},
		"set to nothing": {Entry{Record: map[string]string{
			"device_id": "bus-1", "fleet_id": "wuxi", "timestamp": "1793527200123", "lat": "31.5", "lon": "120.5", "temp_c": "hot",
		}}, map[string]string{"temp_c": ""}, plain},
	} {
		t.Run(name, func(t *testing.T) {
			got, skipped := reprocess(t, c.set, c.entry)
			require.Empty(t, skipped)
			require.Empty(t, got.Rejected)
			require.Equal(t, []pipeline.Item{{Record: c.want, Sender: c.entry.Sender, Position: 1, Raw: c.entry.Raw}}, got.Items)
		})
	}
}

// Whatever the reason of a dead letter is, and whatever is set, its record enters no fleet that its sender could not write to.
func TestRecordEntersNoFleetThatItsSenderMayNotWriteTo(t *testing.T) {
	in := func(fleet string) map[string]string {
		return map[string]string{"device_id": "bus-1", "fleet_id": fleet, "timestamp": "1793527200123", "lat": "31.5", "lon": "120.5"}
	}
	for name, c := range map[string]struct {
		entry Entry
		set   string // fleet
		allow bool
		want  string // fleet; empty: skipped
	}{
		"another fleet":                     {entry: Entry{Source: "api", Sender: "b", Reason: "forbidden_fleet", Record: in("a")}},
		"another fleet, for another reason": {entry: Entry{Source: "api", Sender: "b", Reason: "bad_timestamp", Record: in("a")}},
		"its own fleet":                     {entry: Entry{Source: "api", Sender: "b", Record: in("b")}, want: "b"},
		"set to another fleet":              {entry: Entry{Source: "api", Sender: "b", Record: in("b")}, set: "a"},
		"set to its own fleet":              {entry: Entry{Source: "api", Sender: "b", Record: in("a")}, set: "b", want: "b"},
		"allowed":                           {entry: Entry{Source: "api", Sender: "b", Record: in("b")}, set: "a", allow: true, want: "a"},
		"rejected again before":             {entry: Entry{Source: "deadletters", Sender: "b", Record: in("a")}},
		"a token of all fleets":             {entry: Entry{Source: "api", Sender: "*", Record: in("a")}, want: "a"},
		"without a sender":                  {entry: Entry{Source: "api", Record: in("a")}},
		"without a sender, allowed":         {entry: Entry{Source: "api", Record: in("a")}, allow: true, want: "a"},
		"a file":                            {entry: Entry{Source: "csvfile", Record: in("b")}, set: "a", want: "a"},
	} {
		t.Run(name, func(t *testing.T) {
			o := ReprocessOptions{Entries: listOf(c.entry), AllowForbidden: c.allow}
			if c.set != "" {
				o.Set = map[string]string{"fleet_id": c.set}
			}
			why, fleets := "", ""
			o.Skipped = func(_ Entry, reason string) { why = reason }
			s, err := NewReprocessor(o)
			require.NoError(t, err)
			require.NoError(t, s.Run(t.Context(), func(b pipeline.Batch) error {
				for _, item := range b.Items {
					if !c.allow {
						require.Equal(t, c.entry.Sender, item.Sender, "it keeps its sender when it is rejected again")
					}
					fleets += item.FleetID
				}
				return nil
			}))
			require.Equal(t, c.want, fleets)
			if c.want == "" {
				require.Contains(t, why, "forbidden_fleet")
				require.Contains(t, why, "--allow-forbidden-fleet")
			}
		})
	}
	got, _ := reprocess(t, nil, Entry{Source: "api", Sender: "b", Record: map[string]string{"device_id": "bus-1"}})
	require.Equal(t, "b", got.Rejected[0].Sender)
}

func TestInvalidRecordIsRejectedAgain(t *testing.T) {
	got, skipped := reprocess(t, map[string]string{"fleet_id": "wuxi"},
		Entry{Raw: "raw", Record: map[string]string{"device_id": "bus-1", "lat": "north"}},
		Entry{Raw: `{"device_id":"bus-1","timestamp":"yesterday","lat":true}`},
		Entry{Raw: "bus-1,wuxi,1"}, Entry{Raw: ""}, Entry{Raw: `{"device_id":`})
	require.Empty(t, got.Items)
	require.Len(t, got.Rejected, 2)
	assert.Equal(t, telemetry.MissingField, got.Rejected[0].Reason)
	assert.Equal(t, "raw", got.Rejected[0].Raw)
	assert.Equal(t, map[string]string{"device_id": "bus-1", "lat": "north", "fleet_id": "wuxi"}, got.Rejected[0].Fields, "with the values of --set")
	assert.Equal(t, telemetry.BadTimestamp, got.Rejected[1].Reason)
	assert.EqualValues(t, 2, got.Rejected[1].Position)
	assert.Equal(t, map[string]string{"device_id": "bus-1", "timestamp": "yesterday", "fleet_id": "wuxi"}, got.Rejected[1].Fields)
	require.Len(t, skipped, 3)
	assert.Contains(t, skipped[3], "could not be parsed into fields")
	assert.Contains(t, skipped[4], "could not be parsed into fields")
	assert.Contains(t, skipped[5], "not valid JSON")
}

func TestWrongValuesOfSet(t *testing.T) {
	for name, c := range map[string]struct{ field, value, want string }{
		"no field":        {"fleet", "wuxi", `--set fleet=wuxi: unknown field "fleet": the fields are device_id`},
		"nothing":         {"fleet_id", " ", "--set fleet_id= : the value is missing"},
		"no name":         {"fleet_id", "my fleet", "--set fleet_id=my fleet: every record would be rejected"},
		"no number":       {"lat", "north", "--set lat=north: malformed"},
		"no time":         {"timestamp", "now", "--set timestamp=now: bad_timestamp"},
		"no such percent": {"battery_pct", "101", "--set battery_pct=101: battery_range"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewReprocessor(ReprocessOptions{Set: map[string]string{c.field: c.value}})
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestEntriesAreDoneWhenTheirBatchIsDurable(t *testing.T) {
	var entries []Entry
	for range 2*batchEntries + 1 {
		entries = append(entries, Entry{Raw: `{}`})
	}
	var done []ID
	s, err := NewReprocessor(ReprocessOptions{Entries: listOf(entries...), Done: func(ids []ID) error { done = append(done, ids...); return nil }})
	require.NoError(t, err)
	var batches []pipeline.Batch
	require.NoError(t, s.Run(t.Context(), func(b pipeline.Batch) error { batches = append(batches, b); return nil }))
	require.Len(t, batches, 3)
	require.NoError(t, s.Flush())
	require.Empty(t, done, "nothing is durable yet")
	batches[1].Done(pipeline.Outcome{})
	require.NoError(t, s.Flush())
	require.Len(t, done, batchEntries)
	batches[0].Done(pipeline.Outcome{})
	batches[2].Done(pipeline.Outcome{})
	require.NoError(t, s.Flush())
	require.NoError(t, s.Flush())
	require.Len(t, done, 2*batchEntries+1)
}

func TestReprocessorEndsWithContextAndError(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s, err := NewReprocessor(ReprocessOptions{Entries: listOf(Entry{Raw: "{}"})})
	require.NoError(t, err)
	require.NoError(t, s.Run(ctx, func(pipeline.Batch) error { t.Error("emit was called after the context ended"); return nil }))

	broken := errors.New("broken")
	require.ErrorIs(t, s.Run(t.Context(), func(pipeline.Batch) error { return broken }), broken)
	s, err = NewReprocessor(ReprocessOptions{Entries: func(yield func(Entry, error) bool) { yield(Entry{}, broken) }})
	require.NoError(t, err)
	require.ErrorIs(t, s.Run(t.Context(), func(pipeline.Batch) error { return nil }), broken)
}
