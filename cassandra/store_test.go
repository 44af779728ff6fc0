package cassandra

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/gocql/gocql"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/dev/testenv"
)

// realCluster gives the settings of a keyspace of the test's own on the cluster that CASSANDRA_TEST_HOSTS names, four
// nodes in dc1 and dc2 as `go run ./dev cluster up` starts them.
func realCluster(t *testing.T) Config {
	cfg := Config{Hosts: testHosts(t), Keyspace: fmt.Sprintf("test_%08x", rand.Uint32()), LocalDC: "dc1"}
	t.Cleanup(func() {
		assert.NoError(t, DropKeyspace(context.WithoutCancel(t.Context()), cfg, quiet()))
	})
	return cfg
}

func testHosts(t *testing.T) []string { return testenv.CassandraHosts(t) }

var twoAndTwo = Replication{"dc1": 2, "dc2": 2}

func quiet() logrus.FieldLogger {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	return logger
}

// shared is one keyspace for all tests that only write rows: making one takes a dozen seconds. Each test has names of
// its own in it.
var shared struct {
	once   sync.Once
	config Config
	err    error
}

func TestMain(m *testing.M) {
	status := m.Run()
	if shared.config.Keyspace != "" {
		if err := DropKeyspace(context.Background(), shared.config, quiet()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = max(status, 1)
		}
	}
	os.Exit(status)
}

// realStore opens the shared keyspace, with reads at ALL, so that a test sees what it wrote.
func realStore(t *testing.T) (*Store, *prometheus.Registry) {
	hosts := testHosts(t)
	shared.once.Do(func() {
		shared.config = Config{Hosts: hosts, Keyspace: fmt.Sprintf("test_%08x", rand.Uint32()), LocalDC: "dc1", ReadConsistency: "ALL"}
		shared.err = ApplySchema(t.Context(), shared.config, twoAndTwo, quiet())
	})
	require.NoError(t, shared.err)
	reg := prometheus.NewRegistry()
	s, err := Open(t.Context(), shared.config, quiet(), reg)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s, reg
}

func ptr[T any](v T) *T { return &v }

func TestSchemaIsAppliedOnceAndCheckedByColumn(t *testing.T) {
	cfg := realCluster(t)
	ctx := t.Context()
	_, err := CheckSchema(ctx, cfg, twoAndTwo, quiet())
	require.ErrorContains(t, err, "schema apply", "a keyspace that is not there is an error that says how to make it")

	require.NoError(t, ApplySchema(ctx, cfg, twoAndTwo, quiet()))
	require.NoError(t, ApplySchema(ctx, cfg, twoAndTwo, quiet()), "twice is once")
	differences, err := CheckSchema(ctx, cfg, twoAndTwo, quiet())
	require.NoError(t, err)
	require.Empty(t, differences)

	session, err := connect(ctx, cfg.withDefaults(), cfg.Keyspace, newObserver(nil), quiet())
	require.NoError(t, err)
	defer session.Close()
	require.NoError(t, execSchema(ctx, session, []string{
		"ALTER TABLE devices_by_fleet DROP model",
		"ALTER TABLE telemetry_by_device_day DROP zone",
		"ALTER TABLE telemetry_by_device_day ADD odometer_km double",
		"DROP TABLE fleet_analytics_by_day",
		"CREATE TABLE fleet_analytics_by_day (fleet_id text, day date, hour text, total_distance_km double, avg_speed_kmh double, alerts_count int, active_devices_count int, PRIMARY KEY (fleet_id, day, hour))",
		"DROP TABLE fleets",
		"ALTER TABLE device_days WITH gc_grace_seconds = 864000",
		"ALTER TABLE latest_telemetry_by_device WITH compaction = {'class': 'SizeTieredCompactionStrategy'}",
	}))
	differences, err = CheckSchema(ctx, cfg, Replication{"dc1": 2}, quiet())
	require.NoError(t, err)
	require.Equal(t, []string{
		"keyspace " + cfg.Keyspace + ": replication is dc1=2,dc2=2, not dc1=2",
		"table devices_by_fleet: column model is missing; add it with: ALTER TABLE devices_by_fleet ADD model text",
		"table fleet_analytics_by_day: column day is clustering key 1 asc, not partition key 2",
		"table fleet_analytics_by_day: column driving_s is missing; add it with: ALTER TABLE fleet_analytics_by_day ADD driving_s bigint",
		"table fleet_analytics_by_day: column hour is text, not int",
		"table fleet_analytics_by_day: column max_speed_kmh is missing; add it with: ALTER TABLE fleet_analytics_by_day ADD max_speed_kmh double",
		"table fleet_analytics_by_day: column records_count is missing; add it with: ALTER TABLE fleet_analytics_by_day ADD records_count bigint",
		"table fleets: missing; make it with: fleet-etl schema apply",
		"table telemetry_by_device_day: column zone is missing; add it with: ALTER TABLE telemetry_by_device_day ADD zone text",
		`table device_days: gc_grace_seconds is "864000", not "86400"; set it with: fleet-etl schema apply`,
		`table latest_telemetry_by_device: compaction class is "org.apache.cassandra.db.compaction.SizeTieredCompactionStrategy", not "LeveledCompactionStrategy"; set it with: fleet-etl schema apply`,
	}, differences)

	require.NoError(t, ApplySchema(ctx, cfg, twoAndTwo, quiet()))
	differences, err = CheckSchema(ctx, cfg, twoAndTwo, quiet())
	require.NoError(t, err)
	require.Equal(t, []string{
		"table fleet_analytics_by_day: column day is clustering key 1 asc, not partition key 2",
		"table fleet_analytics_by_day: column hour is text, not int",
	}, differences, "columns and tables that were missing are there; a key can't be mended, so it is left to the administrator")
	require.NoError(t, execSchema(ctx, session, []string{"DROP TABLE fleet_analytics_by_day"}))
	require.NoError(t, ApplySchema(ctx, cfg, twoAndTwo, quiet()))
	differences, err = CheckSchema(ctx, cfg, twoAndTwo, quiet())
	require.NoError(t, err)
	require.Empty(t, differences, "as one that was made today, but for a column that somebody added")
}

func TestSchemaIsRefusedWithTheReason(t *testing.T) {
	base := realCluster(t)
	for name, c := range map[string]struct {
		change      func(*Config)
		replication Replication
		want        string
	}{
		"more replicas than nodes":        {nil, Replication{"dc1": 3, "dc2": 2}, `data centre "dc1" has 2 node(s) for 3 replicas`},
		"a data centre that is not":       {nil, Replication{"dc9": 1}, `no data centre "dc9", but dc1, dc2`},
		"local data centre that is not":   {func(c *Config) { c.LocalDC = "dc9" }, twoAndTwo, `"dc9" (CASSANDRA_DC)`},
		"level above the replicas":        {func(c *Config) { c.WriteConsistency = "THREE" }, Replication{"dc1": 2}, "THREE needs 3 replicas"},
		"local level without replicas":    {func(c *Config) { c.WriteConsistency = "LOCAL_QUORUM" }, Replication{"dc2": 2}, `needs replicas in the local data centre "dc1"`},
		"read level without replicas":     {nil, Replication{"dc2": 2}, "CASSANDRA_READ_CONSISTENCY LOCAL_ONE needs replicas"},
		"a level that is none":            {func(c *Config) { c.ReadConsistency = "MOST" }, twoAndTwo, `CASSANDRA_READ_CONSISTENCY "MOST"`},
		"ANY, which stores nothing":       {func(c *Config) { c.WriteConsistency = "ANY" }, twoAndTwo, `CASSANDRA_WRITE_CONSISTENCY "ANY"`},
		"a level that reads don't know":   {func(c *Config) { c.ReadConsistency = "EACH_QUORUM" }, twoAndTwo, "for writes only"},
		"a keyspace name that is no name": {func(c *Config) { c.Keyspace = "no-name" }, twoAndTwo, `keyspace "no-name" (CASSANDRA_KEYSPACE)`},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := base
			if c.change != nil {
				c.change(&cfg)
			}
			require.ErrorContains(t, ApplySchema(t.Context(), cfg, c.replication, quiet()), c.want)
		})
	}
}

func TestOpenChoosesTheLevelByTheReplicas(t *testing.T) {
	for name, c := range map[string]struct {
		replication Replication
		level, want string
	}{
		"two of four":   {twoAndTwo, "", "TWO"},
		"a single one":  {Replication{"dc1": 1}, "", "ONE"},
		"as it is told": {twoAndTwo, "local_quorum", "LOCAL_QUORUM"},
		"one in each":   {Replication{"dc1": 1, "dc2": 1}, "", "TWO"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := realCluster(t)
			statements, err := schemaStatements(cfg.Keyspace, c.replication)
			require.NoError(t, err)
			system, err := connect(t.Context(), cfg.withDefaults(), "", newObserver(nil), quiet())
			require.NoError(t, err)
			defer system.Close()
			require.NoError(t, execSchema(t.Context(), system, statements[:1]))
			cfg.WriteConsistency = c.level
			s, err := Open(t.Context(), cfg, quiet(), nil)
			require.NoError(t, err)
			defer s.Close()
			require.Equal(t, c.want, s.WriteConsistency())
			require.Equal(t, "LOCAL_ONE", s.ReadConsistency())
		})
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	cfg := realCluster(t)
	_, err := Open(t.Context(), cfg, quiet(), nil)
	require.ErrorContains(t, err, "make it with: fleet-etl schema apply")
	require.Equal(t, GiveUp, ReasonOf(err).Advice())

	cfg.Hosts, cfg.ConnectTimeout = []string{"127.0.0.1:1"}, time.Second
	_, err = Open(t.Context(), cfg, quiet(), nil)
	require.ErrorContains(t, err, "127.0.0.1:1")
	require.Equal(t, Wait, ReasonOf(err).Advice(), "a cluster that is not there yet is worth waiting for")
}

// midnight is the newest UTC midnight that is at least a minute ago.
func midnight() time.Time { return time.Now().Add(-time.Minute).UTC().Truncate(24 * time.Hour) }

func TestHistoryIsReadAcrossDaysNewestFirst(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	start := midnight().Add(-36 * time.Hour)
	const n, step = 150, 20 * time.Minute // 50 hours: three or four days
	byDay := map[Day][]TelemetryRow{}
	for i := range n {
		ms := start.Add(time.Duration(i) * step).UnixMilli()
		if ms > time.Now().UnixMilli() {
			break
		}
		byDay[DayOf(ms)] = append(byDay[DayOf(ms)], TelemetryRow{
			TsMs: ms, FleetID: "f", Lat: float64(i), Lon: 120, Zone: "unknown", WriteTimeUs: ms * 1000, TTLSeconds: 3600,
		})
	}
	total := 0
	for day, rows := range byDay {
		total += len(rows)
		require.NoError(t, s.WriteHistory(ctx, "h-across", day, rows))
		require.NoError(t, s.WriteHistory(ctx, "h-across", day, rows), "writing again changes nothing")
	}
	require.Greater(t, len(byDay), 1)

	all, err := s.History(ctx, HistoryQuery{DeviceID: "h-across", From: start, To: time.Now()})
	require.NoError(t, err)
	require.Len(t, all.Rows, total)
	require.Empty(t, all.Next)
	for i, row := range all.Rows {
		require.Equal(t, float64(total-1-i), row.Lat, "newest first")
		require.Nil(t, row.SpeedKmh)
		require.Nil(t, row.BatteryPct)
	}

	inside, err := s.History(ctx, HistoryQuery{DeviceID: "h-across", From: start.Add(step), To: start.Add(3 * step)})
	require.NoError(t, err)
	require.Len(t, inside.Rows, 3, "both ends are included")

	var paged []Telemetry
	q := HistoryQuery{DeviceID: "h-across", From: start, To: time.Now(), Limit: 7}
	for {
		page, err := s.History(ctx, q)
		require.NoError(t, err)
		paged = append(paged, page.Rows...)
		if page.Next == "" {
			break
		}
		require.Len(t, page.Rows, 7)
		q.Page = page.Next
	}
	require.Equal(t, all.Rows, paged, "pages are the whole, without a gap or a repetition")

	century, err := s.History(ctx, HistoryQuery{DeviceID: "h-across", From: time.Unix(0, 0), To: time.Now().AddDate(50, 0, 0)})
	require.NoError(t, err)
	require.Len(t, century.Rows, total, "a range of a century plans only the days that can be there")

	_, err = s.History(ctx, HistoryQuery{DeviceID: "h-across", From: start, To: time.Now(), Page: "nonsense"})
	require.ErrorContains(t, err, `page "nonsense"`)
	none, err := s.History(ctx, HistoryQuery{DeviceID: "h-across", From: time.Now(), To: start})
	require.NoError(t, err)
	require.Empty(t, none.Rows)
}

func TestHistoryKeepsEveryValueAndWritesNoNulls(t *testing.T) {
	s, _ := realStore(t)
	ms := time.Now().Add(-time.Hour).UnixMilli()
	full := TelemetryRow{
		TsMs: ms, FleetID: "fleet-001", Lat: -33.8688197, Lon: 151.2092955, SpeedKmh: ptr(62.5), HeadingDeg: ptr(359.9),
		BatteryPct: ptr(int32(0)), TempC: ptr(-18.25), AccuracyM: ptr(4.5), Zone: "depot", WriteTimeUs: ms * 1000, TTLSeconds: 3600,
	}
	sparse := TelemetryRow{TsMs: ms + 1, FleetID: "fleet-001", Lat: 1, Lon: 2, Zone: "unknown", WriteTimeUs: (ms + 1) * 1000, TTLSeconds: 3600}
	require.NoError(t, s.WriteHistory(t.Context(), "h-sparse", DayOf(ms), []TelemetryRow{full, sparse}))
	require.NoError(t, s.WriteHistory(t.Context(), "h-sparse", DayOf(ms), []TelemetryRow{sparse}), "alone it is a single statement")

	page, err := s.History(t.Context(), HistoryQuery{DeviceID: "h-sparse", From: time.UnixMilli(ms), To: time.UnixMilli(ms + 1)})
	require.NoError(t, err)
	require.Equal(t, []Telemetry{
		{DeviceID: "h-sparse", FleetID: "fleet-001", Ts: time.UnixMilli(ms + 1).UTC(), Lat: 1, Lon: 2, Zone: "unknown"},
		{
			DeviceID: "h-sparse", FleetID: "fleet-001", Ts: time.UnixMilli(ms).UTC(), Lat: -33.8688197, Lon: 151.2092955, SpeedKmh: ptr(62.5),
			HeadingDeg: ptr(359.9), BatteryPct: ptr(int32(0)), TempC: ptr(-18.25), AccuracyM: ptr(4.5), Zone: "depot",
		},
	}, page.Rows)
	live, tombstones := traced(t, s, s.query(t.Context(), selectHistory, "h-sparse", DayOf(ms).Time(), time.UnixMilli(ms), time.UnixMilli(ms+1)))
	require.Positive(t, live)
	require.Zero(t, tombstones, "an absent value writes no cell")
}

// traced runs a query and tells how many rows and tombstones its replicas read.
func traced(t *testing.T, s *Store, q *gocql.Query) (live, tombstones int) {
	var trace traceID
	require.NoError(t, q.Trace(&trace).Consistency(gocql.One).Iter().Close())
	require.Eventually(t, func() bool { // nodes write their traces a moment later
		iter := s.driver.Query("SELECT activity FROM system_traces.events WHERE session_id = ?", trace.id).Consistency(gocql.One).Iter()
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

func TestRowsExpireWithTheirEvent(t *testing.T) {
	s, _ := realStore(t)
	ms := time.Now().Add(-29 * 24 * time.Hour).UnixMilli()
	row := TelemetryRow{TsMs: ms, FleetID: "f", Lat: 1, Lon: 2, Zone: "unknown", WriteTimeUs: ms * 1000, TTLSeconds: 86400}
	require.NoError(t, s.WriteHistory(t.Context(), "h-ttl", DayOf(ms), []TelemetryRow{row}))
	var ttl int
	require.NoError(t, s.driver.Query("SELECT TTL(lat) FROM telemetry_by_device_day WHERE device_id = ? AND day = ?", "h-ttl", DayOf(ms).Time()).Scan(&ttl))
	require.InDelta(t, 86400, ttl, 60)
}

func TestTheNewestFixWinsWhateverTheOrder(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	now := time.Now().UnixMilli()
	rows := make([]LatestRow, 20)
	for i := range rows {
		ms := now - int64(i)*1000
		rows[i] = LatestRow{
			DeviceID: "l-newest", FleetID: "fleet-newest", LastTsMs: ptr(ms), Lat: ptr(float64(i)), Lon: ptr(100.0), SpeedKmh: ptr(float64(i)),
			Zone: "unknown", WriteTimeUs: ms * 1000,
		}
	}
	rows[7].BatteryPct = ptr(int32(77)) // the only one that knows its charge
	rand.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	for i := range rows {
		require.NoError(t, s.WriteLatest(ctx, &rows[i]))
		require.NoError(t, s.WriteLatestByFleet(ctx, "fleet-newest", Bucket("l-newest"), rows[i:i+1]))
	}
	want := Telemetry{
		DeviceID: "l-newest", FleetID: "fleet-newest", Ts: time.UnixMilli(now).UTC(), Lat: 0, Lon: 100, SpeedKmh: ptr(0.0), BatteryPct: ptr(int32(77)), Zone: "unknown",
	}
	got, err := s.Latest(ctx, "l-newest")
	require.NoError(t, err)
	require.Equal(t, want, got)
	fleet, err := s.LatestOfFleet(ctx, "fleet-newest")
	require.NoError(t, err)
	require.Equal(t, []Telemetry{want}, fleet)

	_, err = s.Latest(ctx, "nobody")
	require.ErrorIs(t, err, ErrNotFound)
	require.Equal(t, ReasonNotFound, ReasonOf(err))

	stored, err := s.LatestWriteTimes(ctx, []string{"nobody", "l-newest"})
	require.NoError(t, err)
	require.Equal(t, WriteTimes{}, stored[0])
	require.Equal(t, WriteTimes{Found: true, FleetID: "fleet-newest", LastUs: now * 1000, SpeedUs: now * 1000, BatteryUs: (now - 7000) * 1000}, stored[1])
}

func TestTheMapOfAFleetIsAFewPartitions(t *testing.T) {
	s, reg := realStore(t)
	ctx := t.Context()
	now := time.Now().UnixMilli()
	byBucket := map[int32][]LatestRow{}
	for i := range 500 {
		id := fmt.Sprintf("v-%03d", i)
		byBucket[Bucket(id)] = append(byBucket[Bucket(id)], LatestRow{DeviceID: id, LastTsMs: ptr(now), Lat: ptr(1.0), Lon: ptr(2.0), Zone: "unknown", WriteTimeUs: now * 1000})
	}
	for bucket, rows := range byBucket {
		require.NoError(t, s.WriteLatestByFleet(ctx, "fleet-map", bucket, rows))
	}
	require.Len(t, byBucket, FleetBuckets, "the buckets are all used")
	before := requests(t, reg)
	rows, err := s.LatestOfFleet(ctx, "fleet-map")
	require.NoError(t, err)
	require.Len(t, rows, 500)
	require.Equal(t, "v-000", rows[0].DeviceID)
	require.Equal(t, "v-499", rows[499].DeviceID)
	require.EqualValues(t, FleetBuckets, requests(t, reg)-before, "one request a bucket, not one a device")

	require.NoError(t, s.DeleteLatestByFleet(ctx, "fleet-map", "v-007", now*1000))
	rows, err = s.LatestOfFleet(ctx, "fleet-map")
	require.NoError(t, err)
	require.Len(t, rows, 499, "a device that moved is off the map")
}

// requests counts the requests that nodes were sent.
func requests(t *testing.T, reg *prometheus.Registry) (n float64) {
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "cassandra_requests_total" {
			for _, m := range f.GetMetric() {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

func TestTheRegistryKeepsTheEarliestStartAndTheLatestStatus(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	now := time.Now().UnixMilli()
	for i := range 25 {
		require.NoError(t, s.WriteDevices(ctx, "fleet-registry", []DeviceRow{
			{DeviceID: fmt.Sprintf("d%02d", i), Status: StatusActive, ActivatedAtMs: now, StatusWriteTimeUs: now * 1000},
		}))
	}
	require.NoError(t, s.WriteDevices(ctx, "fleet-registry", []DeviceRow{
		{DeviceID: "d00", ActivatedAtMs: now - 5000},
		{DeviceID: "d01", ActivatedAtMs: now + 5000},
		{DeviceID: "d02", Status: StatusMoved, StatusWriteTimeUs: (now + 1) * 1000},
		{DeviceID: "d03", Status: StatusMoved, StatusWriteTimeUs: (now - 1) * 1000},
		{DeviceID: "d04", Model: "Sprinter", Status: StatusActive, StatusWriteTimeUs: (now + 1) * 1000},
	}))
	var all []Device
	page := ""
	for {
		p, err := s.Devices(ctx, "fleet-registry", 10, page)
		require.NoError(t, err)
		require.LessOrEqual(t, len(p.Rows), 10)
		all = append(all, p.Rows...)
		if page = p.Next; page == "" {
			break
		}
	}
	require.Len(t, all, 24, "all but the one that moved, each once")
	byID := map[string]Device{}
	for _, d := range all {
		byID[d.DeviceID] = d
	}
	require.Equal(t, now-5000, byID["d00"].ActivatedAt.UnixMilli(), "the earliest start stays")
	require.Equal(t, now, byID["d01"].ActivatedAt.UnixMilli(), "a later one changes nothing")
	require.NotContains(t, byID, "d02")
	require.Equal(t, StatusActive, byID["d03"].Status, "an older move changes nothing")
	require.Equal(t, "Sprinter", byID["d04"].Model)
	_, err := s.Devices(ctx, "fleet-registry", 10, "%%%")
	require.ErrorContains(t, err, `page "%%%"`)

	for _, fleet := range []string{"beta", "alpha", "alpha", "gamma"} {
		require.NoError(t, s.WriteFleet(ctx, fleet))
	}
	fleets, err := s.Fleets(ctx)
	require.NoError(t, err)
	require.Equal(t, []string{"alpha", "beta", "gamma"}, fleets)
}

func TestAlertsAndAnalyticsAreReadByDays(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	late := midnight()
	early := late.Add(-time.Millisecond)
	alert := func(ts time.Time, severity, kind string) Alert {
		return Alert{FleetID: "fleet-alerts", Severity: severity, OpenedMs: ts.UnixMilli(), DeviceID: "d", Type: kind, Message: kind + "!"}
	}
	speed, battery, offline := alert(late, "HIGH", "speed_limit"), alert(late, "HIGH", "battery_low"), alert(early, "LOW", "device_offline")
	require.NoError(t, s.WriteFleetAlerts(ctx, []Alert{speed, battery}, looked))
	require.NoError(t, s.WriteFleetAlerts(ctx, []Alert{offline}, looked))
	require.NoError(t, s.ResolveAlert(ctx, &speed, looked+1))
	speed.Resolved = true

	alerts, err := s.Alerts(ctx, AlertQuery{FleetID: "fleet-alerts", From: early, To: late})
	require.NoError(t, err)
	require.Equal(t, []Alert{battery, speed, offline}, alerts, "two alerts of one instant are two; newest first over midnight")
	alerts, err = s.Alerts(ctx, AlertQuery{FleetID: "fleet-alerts", From: early, To: late, Severities: []string{"LOW"}})
	require.NoError(t, err)
	require.Len(t, alerts, 1)
	alerts, err = s.Alerts(ctx, AlertQuery{FleetID: "fleet-alerts", From: early, To: late, Limit: 2})
	require.NoError(t, err)
	require.Len(t, alerts, 2)
	_, err = s.Alerts(ctx, AlertQuery{FleetID: "fleet-alerts", From: early.AddDate(-3, 0, 0), To: late})
	require.ErrorContains(t, err, "at most 400")

	today := DayOf(late.UnixMilli())
	hour := func(day Day, h int32, mean *float64) AnalyticsRow {
		return AnalyticsRow{FleetID: "fleet-alerts", Day: day, Hour: h, TotalDistanceKm: 12.5, AvgSpeedKmh: mean, AlertsCount: 2, ActiveDevicesCount: 3, WriteTimeUs: 1}
	}
	require.NoError(t, s.WriteAnalytics(ctx, []AnalyticsRow{hour(today, 1, nil), hour(today, 0, ptr(40.5))}))
	require.NoError(t, s.WriteAnalytics(ctx, []AnalyticsRow{hour(today-1, 23, ptr(0.0))}))
	hours, err := s.Analytics(ctx, "fleet-alerts", today-1, today)
	require.NoError(t, err)
	require.Equal(t, []Hour{
		{FleetID: "fleet-alerts", Start: late.Add(-time.Hour), TotalDistanceKm: 12.5, AvgSpeedKmh: ptr(0.0), AlertsCount: 2, ActiveDevicesCount: 3},
		{FleetID: "fleet-alerts", Start: late, TotalDistanceKm: 12.5, AvgSpeedKmh: ptr(40.5), AlertsCount: 2, ActiveDevicesCount: 3},
		{FleetID: "fleet-alerts", Start: late.Add(time.Hour), TotalDistanceKm: 12.5, AlertsCount: 2, ActiveDevicesCount: 3},
	}, hours)
}

func TestOnlyTheLocalDataCentreCoordinates(t *testing.T) {
	s, reg := realStore(t)
	require.NoError(t, s.Ready(t.Context()))
	for i := range 200 {
		_, err := s.Latest(t.Context(), fmt.Sprint("absent-", i))
		require.ErrorIs(t, err, ErrNotFound)
	}
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() != "cassandra_requests_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "dc" {
					require.Equal(t, "dc1", l.GetValue())
				}
			}
		}
	}
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, problems)
}

func TestARefusedStatementIsCountedByReason(t *testing.T) {
	s, reg := realStore(t)
	b := s.batch(t.Context(), 1) // what a schema that was changed under us looks like
	b.add("INSERT INTO fleets (shard, colour) VALUES (?, ?)", []any{int32(0), "red"})
	err := b.exec(TableFleets)
	require.Equal(t, ReasonRefused, ReasonOf(err))
	require.Equal(t, GiveUp, ReasonOf(err).Advice())
	require.ErrorContains(t, err, "write fleets: refused")
	require.ErrorContains(t, err, "colour")
	families, err := reg.Gather()
	require.NoError(t, err)
	counted := map[string]float64{}
	for _, f := range families {
		if f.GetName() == "cassandra_request_errors_total" {
			for _, m := range f.GetMetric() {
				if n := m.GetCounter().GetValue(); n > 0 {
					counted[m.GetLabel()[1].GetValue()+" "+m.GetLabel()[2].GetValue()] = n
				}
			}
		}
	}
	require.Equal(t, map[string]float64{"refused fleets": 1}, counted)
}

func TestFanOutIsBoundedOrderedAndEndsAtTheFirstError(t *testing.T) {
	var mu sync.Mutex
	running, most := 0, 0
	parts := make([]int, 100)
	for i := range parts {
		parts[i] = i
	}
	double := func(_ context.Context, i int) (int, error) {
		mu.Lock()
		running++
		most = max(most, running)
		mu.Unlock()
		time.Sleep(time.Millisecond)
		mu.Lock()
		running--
		mu.Unlock()
		return 2 * i, nil
	}
	results, err := fanOut(t.Context(), 4, parts, double)
	require.NoError(t, err)
	require.LessOrEqual(t, most, 4)
	require.Greater(t, most, 1)
	for i, r := range results {
		require.Equal(t, 2*i, r)
	}
	_, err = fanOut(t.Context(), 4, parts, func(ctx context.Context, i int) (int, error) {
		if i == 3 {
			return 0, errors.New("third")
		}
		<-ctx.Done()
		return 0, ctx.Err()
	})
	require.EqualError(t, err, "third")
}

func TestDays(t *testing.T) {
	require.Equal(t, "1970-01-01", DayOf(0).String())
	require.Equal(t, "1969-12-31", DayOf(-1).String())
	require.Equal(t, "2026-11-24", DayOf(1795478400000).String())
	require.Equal(t, []Day{1, 0, -1}, daysBack(-1, msPerDay))
	require.Empty(t, daysBack(1, 0))
}

func TestReplicationIsParsed(t *testing.T) {
	r, err := ParseReplication("dc2=2, dc1=3")
	require.NoError(t, err)
	require.Equal(t, Replication{"dc1": 3, "dc2": 2}, r)
	require.Equal(t, "dc1=3,dc2=2", r.String())
	for _, bad := range []string{"", "dc1", "dc1=", "dc1=0", "dc1=x", "=2", "dc1=1,dc1=2", "dc1'=1"} {
		_, err := ParseReplication(bad)
		require.Error(t, err, bad)
	}
}

func TestEveryStatementIsDescribed(t *testing.T) {
	for _, c := range []struct{ statement, operation, table string }{
		{insertHistory, "write", TableHistory},
		{insertLatest, "write", TableLatest},
		{insertLatestByFleet, "write", TableLatestByFleet},
		{deleteLatestByFleet, "write", TableLatestByFleet},
		{insertDeviceStatus, "write", TableDevices},
		{insertFleet, "write", TableFleets},
		{insertDeviceSince, "write", TableDevices},
		{insertGeofence, "write", TableGeofences},
		{deleteGeofence, "write", TableGeofences},
		{insertAnalytics, "write", TableAnalytics},
		{deleteAnalytics, "write", TableAnalytics},
		{updateDeviceDay, "write", TableDeviceDays},
		{insertHour, "write", TableHours},
		{deleteHour, "write", TableHours},
		{insertTrip, "write", TableTrips},
		{deleteTrip, "write", TableTrips},
		{insertDeviceAlert, "write", TableDeviceAlerts},
		{deleteDeviceAlert, "write", TableDeviceAlerts},
		{insertFleetAlert, "write", TableAlerts},
		{insertFleetAlertEnd, "write", TableAlerts},
		{deleteFleetAlert, "write", TableAlerts},
		{insertOpenAlert, "write", TableOpenAlerts},
		{deleteOpenAlert, "write", TableOpenAlerts},
		{updateHeartbeat, "write", TableInstances},
		{addSharedDevices, "write", TableInstances},
		{removeSharedDevices, "write", TableInstances},
		{deleteInstance, "write", TableInstances},
		{updateClaim, "write", TableClaims},
		{deleteClaim, "write", TableClaims},
		{insertClaimByInstance, "write", TableClaimsByInstance},
		{deleteClaimByInstance, "write", TableClaimsByInstance},
		{selectHistoryLimit, "read", TableHistory},
		{selectLatest, "read", TableLatest},
		{selectLatestFleet, "read", TableLatestByFleet},
		{selectWriteTimes, "read", TableLatest},
		{selectDevices, "read", TableDevices},
		{selectFleets, "read", TableFleets},
		{insertAlertResolved, "write", TableAlerts},
		{selectAnalytics, "read", TableAnalytics},
		{selectHourRows, "read", TableAnalytics},
		{selectDeviceIDs, "read", TableDevices},
		{selectGeofences, "read", TableGeofences},
		{selectTrack, "read", TableHistory},
		{selectPositions, "read", TableHistory},
		{selectLastDeviceDay, "read", TableDeviceDays},
		{selectDeviceDays, "read", TableDeviceDays},
		{selectHours, "read", TableHours},
		{selectTrips, "read", TableTrips},
		{selectDeviceAlerts, "read", TableDeviceAlerts},
		{selectFleetAlerts, "read", TableAlerts},
		{selectOpenAlerts, "read", TableOpenAlerts},
		{selectOpenAlertsOfDevice, "read", TableOpenAlerts},
		{selectInstances, "read", TableInstances},
		{selectClaims, "read", TableClaims},
		{selectClaimsByInstance, "read", TableClaimsByInstance},
		{"SELECT data_center FROM system.peers", "read", ""},
	} {
		operation, table := describe(c.statement)
		require.Equal(t, c.operation, operation, c.statement)
		require.Equal(t, c.table, table, c.statement)
	}
}
