package writer

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const (
	dayMs    = int64(86_400_000)
	midnight = 20_500 * dayMs // of some day, UTC
)

// at returns a record of a device with every field, the given ms after midnight.
func at(device string, ms int64) *pipeline.Item {
	r := telemetry.Record{
		DeviceID: device, FleetID: "wuxi", Zone: "depot", TimeMs: midnight + ms, Lat: 31.5, Lon: 120.25,
		SpeedKmh: telemetry.Some(60.0), HeadingDeg: telemetry.Some(0.0), TempC: telemetry.Some(-18.5), BatteryPct: telemetry.Some(int32(0)),
		AccuracyM: telemetry.Some(0.0),
	}
	return &pipeline.Item{Record: r, Hash: r.PayloadHash()}
}

// planOf plans items in order, with new devices, and counts the late ones.
func planOf(items ...*pipeline.Item) (p *plan, late int) {
	p = newPlan(len(items))
	devices := map[string]*device{}
	for _, item := range items {
		if devices[item.DeviceID] == nil {
			devices[item.DeviceID] = &device{id: item.DeviceID}
		}
		if p.add(devices[item.DeviceID], item) {
			late++
		}
	}
	return p, late
}

type mapped struct {
	fleet string
	cassandra.LatestRow
}

func latestRows(p *plan) (rows []mapped) {
	for i := range p.latest {
		p.latest[i].rows(func(fleet string, row cassandra.LatestRow) { rows = append(rows, mapped{fleet, row}) })
	}
	return rows
}

func TestGroupIsOneDayOfOneDevice(t *testing.T) {
	p, _ := planOf(
		at("a", 0), at("b", 0), at("a", dayMs-1), at("a", dayMs), at("b", -1), at("a", 1), at("b", 1),
	)
	got := map[string][]int64{}
	for key, items := range p.history {
		for _, item := range items {
			assert.Equal(t, key.device.id, item.DeviceID)
			assert.Equal(t, key.day, cassandra.DayOf(item.TimeMs))
			name := key.device.id + " " + time.UnixMilli(item.TimeMs).UTC().Format(time.DateOnly)
			got[name] = append(got[name], item.TimeMs-midnight)
		}
	}
	assert.Equal(t, map[string][]int64{
		"a 2026-02-16": {0, dayMs - 1, 1}, "a 2026-02-17": {dayMs}, "b 2026-02-15": {-1}, "b 2026-02-16": {0, 1},
	}, got)
	assert.Len(t, p.history, 4)
}

// A batch writes the latest row of a device once, whatever the number of its records.
func TestBatchWritesOneLatestRowPerDevice(t *testing.T) {
	for name, order := range map[string]func(i int64) int64{
		"in order":     func(i int64) int64 { return i },
		"backwards":    func(i int64) int64 { return 99 - i },
		"in any order": func(i int64) int64 { return i * 37 % 100 },
	} {
		t.Run(name, func(t *testing.T) {
			var items []*pipeline.Item
			for i := range int64(100) {
				items = append(items, at("a", order(i)*1000))
			}
			p, late := planOf(items...)
			rows := latestRows(p)
			require.Len(t, rows, 1)
			assert.Equal(t, midnight+99_000, *rows[0].LastTsMs)
			assert.Equal(t, "wuxi", rows[0].fleet)
			assert.Len(t, p.devices, 1, "registered once")
			assert.Equal(t, midnight, p.devices[deviceKey{"wuxi", "a"}].ActivatedAtMs)
			newest, want := int64(-1), 0
			for i := range int64(100) {
				if n := order(i); n < newest {
					want++
				} else {
					newest = n
				}
			}
			assert.Equal(t, want, late)
		})
	}
}

// The newest record has no temperature: the cell keeps the previous temperature, with its own time.
func TestMissingCellKeepsTheNewestValue(t *testing.T) {
	older, newer := at("a", 1000), at("a", 2000)
	newer.TempC = telemetry.Optional[float64]{}
	for name, items := range map[string][]*pipeline.Item{"in order": {older, newer}, "late": {newer, older}} {
		t.Run(name, func(t *testing.T) {
			p, _ := planOf(items...)
			rows := latestRows(p)
			require.Len(t, rows, 2)
			assert.Equal(t, midnight+2000, *rows[0].LastTsMs)
			assert.Nil(t, rows[0].TempC)
			assert.Equal(t, version(newer), rows[0].WriteTimeUs)
			assert.Equal(t, cassandra.LatestRow{DeviceID: "a", TempC: &older.TempC.Value, WriteTimeUs: version(older)}, rows[1].LatestRow, "only that cell")
		})
	}
}

func TestVersionIsTheTimeWithTheHashBelowTheMillisecond(t *testing.T) {
	for hash, want := range map[uint64]int64{0: 5_000, 999: 5_999, 1000: 5_000, 1<<64 - 1: 5_615} {
		assert.Equal(t, want, version(&pipeline.Item{Record: telemetry.Record{TimeMs: 5}, Hash: hash}), "hash %d", hash)
	}
}

// Of two expiring cells with one timestamp the one written later stays, so conflicting payloads must not share one.
func TestConflictsThatAgreeBelowTheMillisecondDifferInTheHistory(t *testing.T) {
	one := &pipeline.Item{Record: telemetry.Record{TimeMs: 5}, Hash: 123_456}
	other := &pipeline.Item{Record: telemetry.Record{TimeMs: 5}, Hash: 123_456 + 7_000}
	require.Equal(t, version(one), version(other))
	assert.NotEqual(t, historyVersion(one), historyVersion(other))
	assert.Equal(t, int64(5_000+456*60_000+123), historyVersion(one))
	for low := range uint64(999) {
		lower, higher := &pipeline.Item{Hash: 1<<63/1000*1000 + low}, &pipeline.Item{Hash: low + 1}
		require.Less(t, version(lower), version(higher))
		require.Less(t, historyVersion(lower), historyVersion(higher), "history and map prefer the same")
	}
}

// A null would be a tombstone, and a 0 would be a false measurement.
func TestHistoryRowHasNoCellForAbsentValues(t *testing.T) {
	full := at("a", 0)
	row := historyRow(full, midnight)
	assert.Equal(t, cassandra.TelemetryRow{
		TsMs: midnight, FleetID: "wuxi", Lat: 31.5, Lon: 120.25, Zone: "depot",
		SpeedKmh: &full.SpeedKmh.Value, HeadingDeg: &full.HeadingDeg.Value, TempC: &full.TempC.Value, BatteryPct: &full.BatteryPct.Value,
		AccuracyM:   &full.AccuracyM.Value,
		WriteTimeUs: historyVersion(full), TTLSeconds: 30 * 86_400,
	}, row)
	for name, c := range map[string]struct {
		clear func(*pipeline.Item)
		cell  func(cassandra.TelemetryRow) bool
	}{
		"speed":       {func(r *pipeline.Item) { r.SpeedKmh.Valid = false }, func(r cassandra.TelemetryRow) bool { return r.SpeedKmh != nil }},
		"heading":     {func(r *pipeline.Item) { r.HeadingDeg.Valid = false }, func(r cassandra.TelemetryRow) bool { return r.HeadingDeg != nil }},
		"temperature": {func(r *pipeline.Item) { r.TempC.Valid = false }, func(r cassandra.TelemetryRow) bool { return r.TempC != nil }},
		"charge":      {func(r *pipeline.Item) { r.BatteryPct.Valid = false }, func(r cassandra.TelemetryRow) bool { return r.BatteryPct != nil }},
		"accuracy":    {func(r *pipeline.Item) { r.AccuracyM.Valid = false }, func(r cassandra.TelemetryRow) bool { return r.AccuracyM != nil }},
	} {
		t.Run(name, func(t *testing.T) {
			item := at("a", 0)
			assert.True(t, c.cell(historyRow(item, midnight)))
			c.clear(item)
			assert.False(t, c.cell(historyRow(item, midnight)))
			p, _ := planOf(item)
			rows := latestRows(p)
			require.Len(t, rows, 1)
			l := rows[0]
			assert.False(t, c.cell(cassandra.TelemetryRow{SpeedKmh: l.SpeedKmh, HeadingDeg: l.HeadingDeg, TempC: l.TempC, BatteryPct: l.BatteryPct}), "nor the latest row")
		})
	}
}

func TestTimeToLiveAtTheEndOfThirtyDays(t *testing.T) {
	const month = 30 * dayMs
	for name, c := range map[string]struct {
		ageMs int64
		want  int32
	}{
		"new":                        {0, 2_592_000},
		"a second old":               {1000, 2_591_999},
		"less than a second old":     {1, 2_591_999}, // never longer than its 30 days
		"two seconds left":           {month - 2000, 2},
		"one second left":            {month - 1000, 1},
		"less than a second left":    {month - 1, 1},
		"it expired on its way":      {month + 60_000, 1},
		"as far ahead as it may be":  {-5 * 60_000, 2_592_000},
		"a device's clock runs 1 ms": {-1, 2_592_000},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, c.want, ttlSeconds(midnight-c.ageMs, midnight)) })
	}
}
