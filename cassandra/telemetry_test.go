package cassandra_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/gocql/gocql"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

func TestHistoryReadsDaysNewestFirst(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	start := midnight().Add(-36 * time.Hour)
	const n, step = 150, 20 * time.Minute // 50 hours: three or four days
	byDay := map[cassandra.Day][]cassandra.TelemetryRow{}
	for i := range n {
		ms := start.Add(time.Duration(i) * step).UnixMilli()
		if ms > time.Now().UnixMilli() {
			break
		}
		byDay[cassandra.DayOf(ms)] = append(byDay[cassandra.DayOf(ms)], cassandra.TelemetryRow{
			TsMs: ms, FleetID: "f", Lat: float64(i), Lon: 120, Zone: "unknown", WriteTimeUs: ms * 1000, TTLSeconds: 3600,
		})
	}
	total := 0
	for day, rows := range byDay {
		total += len(rows)
		require.NoError(t, s.WriteHistory(ctx, "h-across", day, rows))
		require.NoError(t, s.WriteHistory(ctx, "h-across", day, rows), "a repeated write changes nothing")
	}
	require.Greater(t, len(byDay), 1)

	all, err := s.History(ctx, cassandra.HistoryQuery{DeviceID: "h-across", From: start, To: time.Now()})
	require.NoError(t, err)
	require.Len(t, all, total)
	for i, row := range all {
		require.Equal(t, float64(total-1-i), row.Lat, "newest first")
		require.Nil(t, row.SpeedKmh)
		require.Nil(t, row.BatteryPct)
	}

	inside, err := s.History(ctx, cassandra.HistoryQuery{DeviceID: "h-across", From: start.Add(step), To: start.Add(3 * step)})
	require.NoError(t, err)
	require.Len(t, inside, 3, "both ends are included")

	var paged []cassandra.Telemetry
	q := cassandra.HistoryQuery{DeviceID: "h-across", From: start, To: time.Now(), Limit: 7}
	for {
		part, err := s.History(ctx, q)
		require.NoError(t, err)
		paged = append(paged, part...)
		if len(part) < 7 {
			break
		}
		require.Len(t, part, 7)
		q.To = part[6].Ts.Add(-time.Millisecond)
	}
	require.Equal(t, all, paged, "the newest rows up to a limit, each once")

	century, err := s.History(ctx, cassandra.HistoryQuery{DeviceID: "h-across", From: time.Unix(0, 0), To: time.Now().AddDate(50, 0, 0)})
	require.NoError(t, err)
	require.Len(t, century, total, "a range of a century reads only days within the retention")

	none, err := s.History(ctx, cassandra.HistoryQuery{DeviceID: "h-across", From: time.Now(), To: start})
	require.NoError(t, err)
	require.Empty(t, none)
}

func TestHistoryKeepsEveryValueWithoutNulls(t *testing.T) {
	s, _ := realStore(t)
	ms := time.Now().Add(-time.Hour).UnixMilli()
	full := cassandra.TelemetryRow{
		TsMs: ms, FleetID: "fleet-001", Lat: -33.8688197, Lon: 151.2092955, SpeedKmh: ptr(62.5), HeadingDeg: ptr(359.9),
		BatteryPct: ptr(int32(0)), TempC: ptr(-18.25), AccuracyM: ptr(4.5), Zone: "depot", WriteTimeUs: ms * 1000, TTLSeconds: 3600,
	}
	sparse := cassandra.TelemetryRow{TsMs: ms + 1, FleetID: "fleet-001", Lat: 1, Lon: 2, Zone: "unknown", WriteTimeUs: (ms + 1) * 1000, TTLSeconds: 3600}
	require.NoError(t, s.WriteHistory(t.Context(), "h-sparse", cassandra.DayOf(ms), []cassandra.TelemetryRow{full, sparse}))
	require.NoError(t, s.WriteHistory(t.Context(), "h-sparse", cassandra.DayOf(ms), []cassandra.TelemetryRow{sparse}), "one row is a single statement")

	rows, err := s.History(t.Context(), cassandra.HistoryQuery{DeviceID: "h-sparse", From: time.UnixMilli(ms), To: time.UnixMilli(ms + 1)})
	require.NoError(t, err)
	require.Equal(t, []cassandra.Telemetry{
		{DeviceID: "h-sparse", FleetID: "fleet-001", Ts: time.UnixMilli(ms + 1).UTC(), Lat: 1, Lon: 2, Zone: "unknown"},
		{
			DeviceID: "h-sparse", FleetID: "fleet-001", Ts: time.UnixMilli(ms).UTC(), Lat: -33.8688197, Lon: 151.2092955, SpeedKmh: ptr(62.5),
			HeadingDeg: ptr(359.9), BatteryPct: ptr(int32(0)), TempC: ptr(-18.25), AccuracyM: ptr(4.5), Zone: "depot",
		},
	}, rows)
	live, tombstones := traced(t, s, s.Driver().Query(cassandra.SelectHistory, "h-sparse", cassandra.DayOf(ms).Time(), time.UnixMilli(ms), time.UnixMilli(ms+1)))
	require.Positive(t, live)
	require.Zero(t, tombstones, "an absent value writes no cell")
}

// traced runs a query and returns the number of rows and tombstones that its replicas read.
func traced(t *testing.T, s *cassandra.Store, q *gocql.Query) (live, tombstones int) {
	var trace traceID
	require.NoError(t, q.Trace(&trace).Consistency(gocql.One).Iter().Close())
	require.Eventually(t, func() bool { // nodes write traces asynchronously
		iter := s.Driver().Query("SELECT activity FROM system_traces.events WHERE session_id = ?", trace.id).Consistency(gocql.One).Iter()
		var activity string
		for iter.Scan(&activity) {
			var l, d int
			if n, _ := fmt.Sscanf(activity, "Read %d live rows and %d tombstone cells", &l, &d); n == 2 {
				live, tombstones = live+l, tombstones+d
			}
		}
		return iter.Close() == nil && live > 0
	}, 10*time.Second, 100*time.Millisecond)
	return live, tombstones
}

type traceID struct{ id []byte }

func (t *traceID) Trace(id []byte) { t.id = id }

func TestHistoryRowsExpire(t *testing.T) {
	s, _ := realStore(t)
	ms := time.Now().Add(-29 * 24 * time.Hour).UnixMilli()
	row := cassandra.TelemetryRow{TsMs: ms, FleetID: "f", Lat: 1, Lon: 2, Zone: "unknown", WriteTimeUs: ms * 1000, TTLSeconds: 86400}
	require.NoError(t, s.WriteHistory(t.Context(), "h-ttl", cassandra.DayOf(ms), []cassandra.TelemetryRow{row}))
	var ttl int
	require.NoError(t, s.Driver().Query("SELECT TTL(lat) FROM telemetry_by_device_day WHERE device_id = ? AND day = ?", "h-ttl", cassandra.DayOf(ms).Time()).Scan(&ttl))
	require.InDelta(t, 86400, ttl, 60)
}

func TestLatestPositionWinsInAnyOrder(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	now := time.Now().UnixMilli()
	rows := make([]cassandra.LatestRow, 20)
	for i := range rows {
		ms := now - int64(i)*1000
		rows[i] = cassandra.LatestRow{
			DeviceID: "l-newest", FleetID: "fleet-newest", LastTsMs: ptr(ms), Lat: ptr(float64(i)), Lon: ptr(100.0), SpeedKmh: ptr(float64(i)),
			Zone: "unknown", WriteTimeUs: ms * 1000,
		}
	}
	rows[7].BatteryPct = ptr(int32(77)) // the only one with a battery level
	rand.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	for i := range rows {
		require.NoError(t, s.WriteLatest(ctx, &rows[i]))
		require.NoError(t, s.WriteLatestByFleet(ctx, "fleet-newest", cassandra.Bucket("l-newest"), rows[i:i+1]))
	}
	want := cassandra.Telemetry{
		DeviceID: "l-newest", FleetID: "fleet-newest", Ts: time.UnixMilli(now).UTC(), Lat: 0, Lon: 100, SpeedKmh: ptr(0.0), BatteryPct: ptr(int32(77)), Zone: "unknown",
	}
	got, err := s.Latest(ctx, "l-newest")
	require.NoError(t, err)
	require.Equal(t, want, got)
	fleet, err := s.LatestOfFleet(ctx, "fleet-newest")
	require.NoError(t, err)
	require.Equal(t, []cassandra.Telemetry{want}, fleet)

	_, err = s.Latest(ctx, "unknown")
	require.ErrorIs(t, err, cassandra.ErrNotFound)
	require.Equal(t, cassandra.ReasonNotFound, cassandra.ReasonOf(err))

	stored, err := s.LatestWriteTimes(ctx, []string{"unknown", "l-newest"})
	require.NoError(t, err)
	require.Equal(t, cassandra.WriteTimes{}, stored[0])
	require.Equal(t, cassandra.WriteTimes{Found: true, FleetID: "fleet-newest", LastUs: now * 1000, SpeedUs: now * 1000, BatteryUs: (now - 7000) * 1000}, stored[1])
}

func TestLatestOfFleetReadsOneRequestPerBucket(t *testing.T) {
	s, reg := realStore(t)
	ctx := t.Context()
	now := time.Now().UnixMilli()
	byBucket := map[int32][]cassandra.LatestRow{}
	for i := range 500 {
		id := fmt.Sprintf("v-%03d", i)
		byBucket[cassandra.Bucket(id)] = append(byBucket[cassandra.Bucket(id)], cassandra.LatestRow{DeviceID: id, LastTsMs: ptr(now), Lat: ptr(1.0), Lon: ptr(2.0), Zone: "unknown", WriteTimeUs: now * 1000})
	}
	for bucket, rows := range byBucket {
		require.NoError(t, s.WriteLatestByFleet(ctx, "fleet-map", bucket, rows))
	}
	require.Len(t, byBucket, cassandra.FleetBuckets, "every bucket is used")
	before := requests(t, reg)
	rows, err := s.LatestOfFleet(ctx, "fleet-map")
	require.NoError(t, err)
	require.Len(t, rows, 500)
	require.Equal(t, "v-000", rows[0].DeviceID)
	require.Equal(t, "v-499", rows[499].DeviceID)
	require.EqualValues(t, cassandra.FleetBuckets, requests(t, reg)-before, "one request per bucket, not per device")

	all, after, pages := []cassandra.Telemetry(nil), "", 0
	for {
		page, err := s.LatestPage(ctx, "fleet-map", after, 70)
		require.NoError(t, err)
		all, after, pages = append(all, page.Rows...), page.Next, pages+1
		if after == "" {
			break
		}
		require.Len(t, page.Rows, 70)
	}
	require.Equal(t, rows, all)
	require.Equal(t, 8, pages)
	measured, stats := cassandra.WithReadStats(ctx)
	page, err := s.LatestPage(measured, "fleet-map", "v-099", 1)
	require.NoError(t, err)
	require.Equal(t, "v-100", page.Rows[0].DeviceID)
	require.Equal(t, "v-100", page.Next)
	require.LessOrEqual(t, stats.Totals().Rows, 2*cassandra.FleetBuckets, "not the whole fleet for one row")

	require.NoError(t, s.DeleteLatestByFleet(ctx, "fleet-map", "v-007", now*1000))
	rows, err = s.LatestOfFleet(ctx, "fleet-map")
	require.NoError(t, err)
	require.Len(t, rows, 499, "the moved device is removed")
}

func TestPositionsReadsADayOldestFirst(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	day := cassandra.DayOf(midnight().UnixMilli()) - 1
	first := day.Time().UnixMilli()
	row := func(ms int64) cassandra.TelemetryRow {
		return cassandra.TelemetryRow{TsMs: ms, FleetID: "f", Lat: 1, Lon: 2, Zone: "unknown", WriteTimeUs: ms * 1000, TTLSeconds: 3600}
	}
	full := row(first + 1)
	full.SpeedKmh, full.HeadingDeg, full.BatteryPct, full.TempC, full.AccuracyM = ptr(62.5), ptr(359.9), ptr(int32(7)), ptr(-18.25), ptr(4.5)
	require.NoError(t, s.WriteHistory(ctx, "d-fixes", day, []cassandra.TelemetryRow{row(first + cassandra.MsPerDay - 1), full, row(first)}))
	require.NoError(t, s.WriteHistory(ctx, "d-fixes", day+1, []cassandra.TelemetryRow{row(first + cassandra.MsPerDay)}))
	fixes, err := s.Positions(ctx, "d-fixes", day)
	require.NoError(t, err)
	bare := cassandra.Telemetry{DeviceID: "d-fixes", FleetID: "f", Lat: 1, Lon: 2, Zone: "unknown"}
	begin, second, end := bare, bare, bare
	begin.Ts, second.Ts, end.Ts = time.UnixMilli(first).UTC(), time.UnixMilli(first+1).UTC(), time.UnixMilli(first+cassandra.MsPerDay-1).UTC()
	second.SpeedKmh, second.HeadingDeg, second.BatteryPct, second.TempC, second.AccuracyM = full.SpeedKmh, full.HeadingDeg, full.BatteryPct, full.TempC, full.AccuracyM
	require.Equal(t, []cassandra.Telemetry{begin, second, end}, fixes)
	fixes, err = s.Positions(ctx, "d-fixes", day-1)
	require.NoError(t, err)
	require.Empty(t, fixes)
}
