package executor

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
)

func dataQuery(text string) backend.DataQuery {
	return backend.DataQuery{RefID: "A", JSON: json.RawMessage(text), MaxDataPoints: 100, Interval: time.Hour,
		TimeRange: backend.TimeRange{From: monday, To: monday.Add(24*time.Hour - 1)}}
}

// dayOf makes a track of n positions in a day, one a minute, of a fleet. Speeds are the minutes.
func dayOf(day time.Time, n int, fleet string) *cassandra.Track {
	t := &cassandra.Track{}
	for i := range n {
		t.Positions = append(t.Positions, cassandra.Position{
			TsMs: day.Add(time.Duration(i) * time.Minute).UnixMilli(), Lat: 52, Lon: 9, SpeedKmh: float64(i), HeadingDeg: 90,
			BatteryPct: 50, TempC: math.NaN(), Zone: "depot", Fleet: fleet,
		})
	}
	return t
}

func tracks(days map[time.Time]*cassandra.Track) *fakeReader {
	f := &fakeReader{tracks: map[string]*cassandra.Track{}}
	for day, track := range days {
		f.tracks["d "+day.Format(time.DateOnly)] = track
	}
	return f
}

func TestTrackReadsEachDayAndDownsamples(t *testing.T) {
	f := tracks(map[time.Time]*cassandra.Track{monday: dayOf(monday, 500, "north"), monday.AddDate(0, 0, 1): dayOf(monday.AddDate(0, 0, 1), 400, "north")})
	q := &query.Track{Common: common("time_series"), Devices: []string{"d", "d"}, Fields: []string{"speed_kmh", "temp_c"}}
	q.To = monday.AddDate(0, 0, 2)
	r := run(t, newExecutor(f), q)
	assert.Len(t, f.reads, 3, "one read for each day: %v", f.reads)
	require.Len(t, r.Frames, 1, "the temperature is unknown")
	speeds := texts(t, r, "speed_kmh")
	assert.LessOrEqual(t, len(speeds), 100)
	assert.Contains(t, speeds, "0")
	assert.Contains(t, speeds, "499", "the maximum is kept")
	assert.Empty(t, r.Truncations)

	none := run(t, newExecutor(f), &query.Track{Common: common("time_series"), Devices: []string{"unknown"}})
	assert.Empty(t, none.Frames[0].Fields)
}

func TestTrackRoutes(t *testing.T) {
	f := tracks(map[time.Time]*cassandra.Track{monday: dayOf(monday, 3, "north")})
	r := run(t, newExecutor(f), &query.Track{Common: common("table"), Devices: []string{"d", "other"}})
	require.Len(t, r.Frames, 2, "one frame for each vehicle")
	assert.Equal(t, []string{"0", "1", "2"}, texts(t, r, "speed_kmh"))
	assert.Equal(t, []string{"null", "null", "null"}, texts(t, r, "temp_c"))
	assert.Equal(t, 0, r.Frames[1].Rows())
}

func TestTrackHidesPositionsOfForbiddenFleets(t *testing.T) {
	day := dayOf(monday, 2, "south")
	north := dayOf(monday.Add(time.Hour), 3, "north")
	for _, p := range north.Positions {
		p.Zone = "port"
		day.Positions = append(day.Positions, p)
	}
	f := tracks(map[time.Time]*cassandra.Track{monday: day})
	r := run(t, newExecutor(f, "north"), &query.Track{Common: common("table"), Devices: []string{"d"}})
	assert.Equal(t, []string{"north", "north", "north"}, texts(t, r, "fleet_id"))
	assert.Empty(t, r.Truncations, "nothing reveals what another fleet has")

	both := run(t, newExecutor(f, "middle", "north", "south"), &query.Track{Common: common("table"), Devices: []string{"d"}})
	assert.Equal(t, []string{"south", "south", "north", "north", "north"}, texts(t, both, "fleet_id"), "in the order of time")
	f.reads = nil
	none := run(t, newExecutor(f, "middle"), &query.Track{Common: common("table"), Devices: []string{"d"}})
	assert.Equal(t, 0, none.Frames[0].Rows())
	assert.Equal(t, []string{"fleets of d"}, f.reads, "the history of another fleet's device is not read")

	named := run(t, newExecutor(f), &query.Track{Common: common("table", "south"), Devices: []string{"d"}})
	assert.Equal(t, []string{"south", "south"}, texts(t, named, "fleet_id"))
	assert.Empty(t, named.Truncations)

	parsed, err := query.Parse(dataQuery(`{"queryType":"track","format":"table","devices":["d"],"filters":[{"key":"zone","operator":"=","value":"depot"},{"key":"speed_kmh","operator":">","value":"100"}]}`), false)
	require.NoError(t, err)
	assert.Len(t, texts(t, run(t, newExecutor(f), parsed), "zone"), 2, "filters on numbers do not cut holes into a track")
}

func TestTrackLimits(t *testing.T) {
	days := map[time.Time]*cassandra.Track{}
	for i := range 4 {
		day := monday.AddDate(0, 0, -i)
		days[day] = dayOf(day, 400, "north")
	}
	q := func() *query.Track {
		q := &query.Track{Common: common("table"), Devices: []string{"d"}}
		q.From = monday.AddDate(0, 0, -3)
		return q
	}
	f := tracks(days)
	e := newExecutor(f)
	e.settings.MaxPartitions = 2
	r := run(t, e, q())
	assert.Equal(t, []string{"Only the newest 2 day(s), starting 2026-03-08: a query reads at most 2 partitions, and it names 1 vehicle(s)."}, r.Truncations)
	assert.Len(t, f.reads, 2)

	e.settings.MaxPartitions = 1
	two := q()
	two.Devices = []string{"a", "d"}
	assert.Contains(t, run(t, e, two).Truncations, "Only the first 1 of 2 vehicles: a query reads at most 1 partitions.")

	e = newExecutor(tracks(days))
	e.settings.MaxRowsRead = 1000 // the third day exceeds it
	assert.Equal(t, []string{"Only the newest positions of d, starting 2026-03-07T00:00:00Z: a query reads at most 1000 rows."}, run(t, e, q()).Truncations)

	f = tracks(nil)
	old := q()
	old.From = time.Unix(0, 0)
	run(t, newExecutor(f), old)
	assert.Len(t, f.reads, 31, "days older than the retention are not read")

	few := q()
	few.Limit = 12
	assert.LessOrEqual(t, len(texts(t, run(t, newExecutor(tracks(days)), few), "lat")), 12)
}
