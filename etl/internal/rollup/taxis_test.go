package rollup

import (
	"cmp"
	"encoding/csv"
	"maps"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/dev/testenv"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// taxis returns a day of taxis, in event order by taxi.
func taxis(t *testing.T) map[string][]telemetry.Record {
	file, err := os.Open(testenv.Taxis(t))
	require.NoError(t, err)
	defer file.Close()
	rows, err := csv.NewReader(file).ReadAll()
	require.NoError(t, err)
	require.Equal(t, []string{"longitude", "latitude", "timestamp", "taxi"}, rows[0])
	number := func(s string) float64 {
		v, err := strconv.ParseFloat(s, 64)
		require.NoError(t, err)
		return v
	}
	records := map[string][]telemetry.Record{}
	for _, row := range rows[1:] {
		at, err := time.Parse(time.DateTime, row[2])
		require.NoError(t, err)
		records[row[3]] = append(records[row[3]], telemetry.Record{
			DeviceID: row[3], FleetID: "wuxi", TimeMs: at.Add(-8 * time.Hour).UnixMilli(), Lon: number(row[0]), Lat: number(row[1]),
		})
	}
	for id, f := range records {
		slices.SortStableFunc(f, func(a, b telemetry.Record) int { return cmp.Compare(a.TimeMs, b.TimeMs) })
		records[id] = slices.CompactFunc(f, func(a, b telemetry.Record) bool { return a.TimeMs == b.TimeMs })
	}
	return records
}

func TestDayOfTaxis(t *testing.T) {
	all := taxis(t)
	var perTaxi, km, hours, speeds []float64
	var trips, stops, records int
	for _, id := range slices.Sorted(maps.Keys(all)) {
		got := applyRecords(t, all[id])
		requireSame(t, oracleTable(all[id], nil), got, "%s", id)
		requireSound(t, got, all[id])
		records += len(all[id])
		of := 0
		for _, r := range got.sortedTrips() {
			if r.Kind == KindStop {
				stops++
				continue
			}
			of++
			km, hours = append(km, r.DistanceKm), append(hours, float64(r.EndMs-r.StartMs)/3_600_000)
			speeds = append(speeds, r.MaxSpeedKmh.Value)
			assert.LessOrEqual(t, r.MaxSpeedKmh.Value, 300.0)
			assert.LessOrEqual(t, r.DistanceKm, 300*hours[len(hours)-1])
		}
		perTaxi = append(perTaxi, float64(of))
		trips += of
	}
	t.Logf("%d taxis, %d records: %d trips, %d stops", len(all), records, trips, stops)
	for _, line := range []struct {
		name   string
		values []float64
	}{{"trips per taxi", perTaxi}, {"km per trip", km}, {"hours per trip", hours}, {"fastest km/h", speeds}} {
		v := slices.Sorted(slices.Values(line.values))
		at := func(q float64) float64 { return v[int(q*float64(len(v)-1))] }
		t.Logf("%-13s min %6.2f   quarter %6.2f   median %6.2f   three quarters %6.2f   max %6.2f", line.name, at(0), at(0.25), at(0.5), at(0.75), at(1))
		switch median := at(0.5); line.name {
		case "trips per taxi":
			assert.True(t, 1 <= median && median <= 20, "median %v", median)
		case "km per trip":
			assert.True(t, 1 <= median && median <= 60, "median %v", median)
		case "hours per trip":
			assert.True(t, 0.05 <= median && median <= 3, "median %v", median)
			assert.LessOrEqual(t, at(1), 24.0)
		}
	}
}
