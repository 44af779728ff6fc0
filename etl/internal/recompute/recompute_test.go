package recompute

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/alerting"
	"github.com/fleettracing/fleet-tracing/etl/internal/alerting/rules"
	"github.com/fleettracing/fleet-tracing/etl/internal/derived"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/fakestore"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

type noGeofences struct{}

func (noGeofences) Near(_ string, _, _, _ float64, found []telemetry.NearbyGeofence) []telemetry.NearbyGeofence {
	return found
}

func testRules(t *testing.T) derived.Rules {
	parsed, err := rules.Parse("rules", []byte(`
defaults:
  speed_limit: {limit: 70, for: 1m, cool_down: 5m, levels: {LOW: 0, MEDIUM: 10, HIGH: 25}}
  battery_low: {levels: {LOW: 40, MEDIUM: 20}}
`))
	require.NoError(t, err)
	return derived.Rules{Engine: alerting.New(parsed, noGeofences{}), Fingerprint: parsed.Fingerprint()}
}

// noon is the time of the first record.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// drive stores half an hour of driving, too fast at first, and then half an hour at rest with a battery that is low.
func drive(store *fakestore.Store, from time.Time) (last time.Time) {
	lon := 9.0
	for i := range 360 {
		last = from.Add(time.Duration(i) * 10 * time.Second)
		r := telemetry.Record{DeviceID: "v1", FleetID: "north", Zone: "unknown", TimeMs: last.UnixMilli(), Lat: 51, BatteryPct: telemetry.Some(int32(80))}
		switch {
		case i < 30:
			lon += .004
			r.SpeedKmh = telemetry.Some(100.0)
		case i < 180:
			lon += .002
			r.SpeedKmh = telemetry.Some(50.0)
		default:
			r.SpeedKmh, r.BatteryPct = telemetry.Some(0.0), telemetry.Some(int32(30))
		}
		r.Lon = lon
		store.View(nil).Write(&r)
	}
	return last
}

// recorder is a store that notes every row that is written or deleted.
type recorder struct {
	*fakestore.View
	at int64 // write timestamp of the recomputation
	mu sync.Mutex
	op []string
}

func note[R any](r *recorder, table string, rows []cassandra.Mutation[R], key func(R) string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, row := range rows {
		verb := "put"
		if row.Delete {
			verb = "delete"
		}
		op := fmt.Sprint(verb, " ", table, " ", key(row.Row))
		if row.WriteTimeUs != r.at {
			op += fmt.Sprintf(" at %+d", row.WriteTimeUs-r.at)
		}
		r.op = append(r.op, op)
	}
}

func alertKey(a cassandra.Alert) string { return fmt.Sprint(a.Type, " ", a.Severity, " ", a.FleetID) }

func (r *recorder) ApplyDeviceAlerts(ctx context.Context, rows []cassandra.Mutation[cassandra.Alert]) error {
	note(r, cassandra.TableDeviceAlerts, rows, alertKey)
	return r.View.ApplyDeviceAlerts(ctx, rows)
}

func (r *recorder) ApplyFleetAlerts(ctx context.Context, rows []cassandra.Mutation[cassandra.Alert]) error {
	note(r, cassandra.TableAlerts, rows, alertKey)
	return r.View.ApplyFleetAlerts(ctx, rows)
}

func (r *recorder) ApplyOpenAlerts(ctx context.Context, rows []cassandra.Mutation[cassandra.Alert]) error {
	note(r, cassandra.TableOpenAlerts, rows, func(a cassandra.Alert) string { return fmt.Sprint(alertKey(a), " notify ", a.Notify) })
	return r.View.ApplyOpenAlerts(ctx, rows)
}

func (r *recorder) ApplyTrips(ctx context.Context, id string, rows []cassandra.Mutation[cassandra.TripRow]) error {
	note(r, cassandra.TableTrips, rows, func(t cassandra.TripRow) string { return t.Kind })
	return r.View.ApplyTrips(ctx, id, rows)
}

func (r *recorder) ApplyHours(ctx context.Context, rows []cassandra.Mutation[cassandra.HourRow]) error {
	note(r, cassandra.TableHours, rows, func(h cassandra.HourRow) string {
		return fmt.Sprint(h.FleetID, time.UnixMilli(h.HourMs).UTC().Format(" 15:04"))
	})
	return r.View.ApplyHours(ctx, rows)
}

// recompute recomputes the device of a request and writes what follows. It returns what it wrote.
func recompute(t *testing.T, store *fakestore.Store, r Request) []string {
	t.Helper()
	r.DeviceID = "v1"
	r.From = max(r.From, cassandra.DayOf(noon.UnixMilli()))
	if r.Fleets == nil {
		r.Fleets = []string{"north"}
	}
	if r.Now.IsZero() {
		r.Now = noon.Add(time.Hour)
	}
	result, err := Device(t.Context(), store.View(nil), testRules(t), r)
	require.NoError(t, err)
	logger, _ := logtest.NewNullLogger()
	rec := &recorder{View: store.View(nil), at: r.At}
	w := derived.Writer{Store: rec, Exec: executor.New(executor.Options{MaxInFlight: 4, RetryRate: 1}, logger, prometheus.NewRegistry(), time.Now)}
	guard := func(context.Context) error { return nil }
	rows, open := &derived.Changes{}, &derived.Changes{}
	result.AddTo(rows)
	result.AddOpenAlerts(open, func(derived.AlertKey) bool { return true })
	failed, err := w.Write(t.Context(), rows, guard)
	require.NoError(t, err)
	require.Empty(t, failed)
	failed, err = w.Write(t.Context(), open, guard)
	require.NoError(t, err)
	require.Empty(t, failed)
	slices.Sort(rec.op)
	return rec.op
}

// always is written by every recomputation of the drive.
var always = []string{
	"put " + cassandra.TableHours + " north 12:00",
	"put " + cassandra.TableOpenAlerts + " battery_low LOW north notify true at +1",
}

var everything = []string{
	"put " + cassandra.TableAlerts + " battery_low LOW north", "put " + cassandra.TableAlerts + " speed_limit HIGH north",
	"put " + cassandra.TableDeviceAlerts + " battery_low LOW north", "put " + cassandra.TableDeviceAlerts + " speed_limit HIGH north",
	"delete " + cassandra.TableOpenAlerts + " speed_limit HIGH north notify false",
	"put " + cassandra.TableTrips + " stop", "put " + cassandra.TableTrips + " trip",
}

// elsewhere is where another instance may have found the alerts.
var elsewhere = []string{
	"delete " + cassandra.TableAlerts + " battery_low HIGH north", "delete " + cassandra.TableAlerts + " battery_low MEDIUM north",
	"delete " + cassandra.TableAlerts + " speed_limit LOW north", "delete " + cassandra.TableAlerts + " speed_limit MEDIUM north",
}

func and(more ...string) []string {
	all := slices.Concat(always, more)
	slices.Sort(all)
	return all
}

func TestRecomputationWritesEverythingToAnEmptyStore(t *testing.T) {
	store := fakestore.New()
	drive(store, noon)
	require.Equal(t, and(everything...), recompute(t, store, Request{At: 1000}))
}

// change changes the row of a table that the choice picks, as another writer would.
func change[R any](t *testing.T, store *fakestore.Store, table string, pick func(*R) bool) {
	t.Helper()
	for _, c := range store.Cells(table) {
		if row := c.Row.(R); pick(&row) {
			c.Row = row
			return
		}
	}
	t.Fatalf("%s has no such row", table)
}

func remove[R any](t *testing.T, store *fakestore.Store, table string, chosen func(R) bool) {
	t.Helper()
	for _, c := range store.Cells(table) {
		if chosen(c.Row.(R)) {
			c.Deleted = c.Wrote
		}
	}
}

func TestRecomputationWritesTheDifference(t *testing.T) {
	day := cassandra.DayOf(noon.UnixMilli())
	speeding := func(a cassandra.Alert) bool { return a.Type == string(telemetry.SpeedLimit) }
	both := func(t *testing.T, store *fakestore.Store, to func(*cassandra.Alert)) {
		for _, table := range []string{cassandra.TableDeviceAlerts, cassandra.TableAlerts} {
			change(t, store, table, func(a *cassandra.Alert) bool {
				if speeding(*a) {
					to(a)
				}
				return speeding(*a)
			})
		}
	}
	extra := func(t *testing.T, store *fakestore.Store, a cassandra.Alert) {
		v, rows := store.View(nil), cassandra.Put(1500, a)
		require.NoError(t, v.ApplyDeviceAlerts(t.Context(), rows))
		require.NoError(t, v.ApplyFleetAlerts(t.Context(), rows))
		if a.EndedMs == 0 {
			require.NoError(t, v.ApplyOpenAlerts(t.Context(), rows))
		}
	}
	for name, c := range map[string]struct {
		spoil   func(t *testing.T, store *fakestore.Store)
		request Request
		want    []string
	}{
		"unchanged": {spoil: func(*testing.T, *fakestore.Store) {}, want: and()},
		"whole":     {request: Request{Whole: true}, spoil: func(*testing.T, *fakestore.Store) {}, want: and(slices.Concat(everything, elsewhere)...)},
		"alert that only notifies or was resolved differently": {
			spoil: func(t *testing.T, store *fakestore.Store) {
				both(t, store, func(a *cassandra.Alert) { a.Notify, a.Resolved = true, false })
			},
			want: and(),
		},
		"changed alert": {
			spoil: func(t *testing.T, store *fakestore.Store) {
				both(t, store, func(a *cassandra.Alert) { a.Peak++ })
			},
			want: and("delete "+cassandra.TableOpenAlerts+" speed_limit HIGH north notify false",
				"put "+cassandra.TableAlerts+" speed_limit HIGH north", "put "+cassandra.TableDeviceAlerts+" speed_limit HIGH north"),
		},
		"missing alert": {
			spoil: func(t *testing.T, store *fakestore.Store) {
				remove(t, store, cassandra.TableDeviceAlerts, speeding)
				remove(t, store, cassandra.TableAlerts, speeding)
			},
			want: and("delete "+cassandra.TableOpenAlerts+" speed_limit HIGH north notify false",
				"put "+cassandra.TableAlerts+" speed_limit HIGH north", "put "+cassandra.TableDeviceAlerts+" speed_limit HIGH north"),
		},
		"alert with another severity": {
			spoil: func(t *testing.T, store *fakestore.Store) {
				both(t, store, func(a *cassandra.Alert) { a.Severity = "LOW" })
			},
			want: and("delete "+cassandra.TableOpenAlerts+" speed_limit HIGH north notify false", "delete "+cassandra.TableAlerts+" speed_limit LOW north at -1",
				"put "+cassandra.TableAlerts+" speed_limit HIGH north", "put "+cassandra.TableDeviceAlerts+" speed_limit HIGH north"),
		},
		"vanished alert that ended": {
			spoil: func(t *testing.T, store *fakestore.Store) {
				ms := noon.Add(-time.Minute).UnixMilli()
				extra(t, store, cassandra.Alert{FleetID: "north", DeviceID: "v1", Type: "speed_limit", Severity: "LOW", OpenedMs: ms, EndedMs: ms + 1})
			},
			want: and("delete "+cassandra.TableAlerts+" speed_limit LOW north", "delete "+cassandra.TableDeviceAlerts+" speed_limit LOW north",
				"delete "+cassandra.TableHours+" north 11:00"),
		},
		"vanished alert that is open": {
			spoil: func(t *testing.T, store *fakestore.Store) {
				extra(t, store, cassandra.Alert{FleetID: "north", DeviceID: "v1", Type: "speed_limit", Severity: "LOW", OpenedMs: noon.Add(2 * time.Minute).UnixMilli()})
			},
			want: and("delete "+cassandra.TableAlerts+" speed_limit LOW north", "delete "+cassandra.TableDeviceAlerts+" speed_limit LOW north",
				"delete "+cassandra.TableOpenAlerts+" speed_limit LOW north notify false"),
		},
		"changed trip": {
			spoil: func(t *testing.T, store *fakestore.Store) {
				change(t, store, cassandra.TableTrips, func(r *cassandra.TripRow) bool { r.EndMs++; return r.Kind == "trip" })
			},
			want: and("put " + cassandra.TableTrips + " trip"),
		},
		"missing trip": {
			spoil: func(t *testing.T, store *fakestore.Store) {
				remove(t, store, cassandra.TableTrips, func(r cassandra.TripRow) bool { return r.Kind == "stop" })
			},
			want: and("put " + cassandra.TableTrips + " stop"),
		},
		"vanished trip": {
			spoil: func(t *testing.T, store *fakestore.Store) {
				row := cassandra.TripRow{StartMs: noon.Add(time.Minute).UnixMilli(), Kind: "trip", FleetID: "north"}
				require.NoError(t, store.View(nil).ApplyTrips(t.Context(), "v1", cassandra.Put(1500, row)))
			},
			want: and("delete " + cassandra.TableTrips + " trip"),
		},
		"alert that was resolved by hand": {
			spoil: func(t *testing.T, store *fakestore.Store) {
				open := fakestore.List[cassandra.Alert](store, cassandra.TableOpenAlerts, "")
				require.Len(t, open, 1)
				store.View(nil).Resolve(open[0], 1500)
			},
			want: always[:1],
		},
		"shared device": {
			spoil:   func(*testing.T, *fakestore.Store) {},
			request: Request{Shared: true},
			want:    and(slices.Concat(everything[:5], elsewhere)...),
		},
		"device that was in another fleet": {
			spoil:   func(*testing.T, *fakestore.Store) {},
			request: Request{Fleets: []string{"north", "south"}},
			want: and(func() (hours []string) {
				for h := range 24 {
					hours = append(hours, fmt.Sprintf("delete %s south %02d:00", cassandra.TableHours, h))
					if h != 12 {
						hours = append(hours, fmt.Sprintf("delete %s north %02d:00", cassandra.TableHours, h))
					}
				}
				return hours
			}()...),
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := fakestore.New()
			drive(store, noon)
			recompute(t, store, Request{At: 1000})
			c.spoil(t, store)
			request := c.request
			request.At, request.From = 2000, day
			require.Equal(t, c.want, recompute(t, store, request))
			request = Request{At: 3000, Now: c.request.Now}
			got := recompute(t, store, request)
			require.Subset(t, and(), got, "nothing is left to change")
		})
	}
}

// A device that has moved sends a late record for its new fleet: the hours of the former fleet stay untouched.
func TestLateRecordAfterAMoveTouchesNoHourOfTheFormerFleet(t *testing.T) {
	store := fakestore.New()
	first := cassandra.DayOf(noon.UnixMilli())
	for i, fleet := range []string{"north", "south", "south", "south"} {
		for _, at := range []time.Time{noon, noon.Add(10 * time.Minute)} {
			store.View(nil).Write(&telemetry.Record{DeviceID: "v1", FleetID: fleet, TimeMs: at.AddDate(0, 0, i).UnixMilli(), Lat: 51, Lon: 9})
		}
	}
	now := noon.AddDate(0, 0, 3).Add(time.Hour)
	recompute(t, store, Request{At: 1000, Now: now, Fleets: []string{"north", "south"}})
	store.View(nil).Write(&telemetry.Record{DeviceID: "v1", FleetID: "south", TimeMs: noon.AddDate(0, 0, 2).Add(time.Minute).UnixMilli(), Lat: 51, Lon: 9})
	for _, row := range recompute(t, store, Request{At: 2000, Now: now, From: first + 2, Fleets: []string{"south"}}) {
		require.NotContains(t, row, "north")
	}
	// Shortly after the move, the claim on the device still names both fleets. Then the last day alone is cleaned.
	hours := 0
	for _, row := range recompute(t, store, Request{At: 3000, Now: now, From: first + 2, Fleets: []string{"north", "south"}}) {
		if strings.Contains(row, "north") {
			hours++
		}
	}
	require.LessOrEqual(t, hours, 24)
}

func TestRecomputationContinuesTheStateOfTheDayBefore(t *testing.T) {
	store := fakestore.New()
	midnight := noon.Add(12 * time.Hour)
	last := drive(store, midnight.Add(-10*time.Minute)) // the trip crosses midnight
	until := last.Add(time.Minute).UnixMilli()
	first := cassandra.DayOf(noon.UnixMilli())
	rules := testRules(t)
	whole, err := Replay(t.Context(), store.View(nil), rules, "v1", first, first+1, until)
	require.NoError(t, err)
	require.Len(t, whole.Days, 2)
	require.Equal(t, 360, whole.Count)
	v := store.View(nil)
	require.NoError(t, v.ApplyDeviceDays(t.Context(), "v1", cassandra.Put(1000, whole.Days[0])))
	second, err := Replay(t.Context(), v, rules, "v1", first+1, first+1, until)
	require.NoError(t, err)
	require.Equal(t, 300, second.Count)
	want := whole.State.Encode()
	got := second.State.Encode()
	require.JSONEq(t, string(want[2:]), string(got[2:]))
	for key, trip := range second.Trips {
		require.Equal(t, whole.Trips[key], trip)
	}
	require.NotEmpty(t, second.Trips)
}

func TestRecomputationIgnoresPlatformFleetsAndCellsWithoutAFleet(t *testing.T) {
	store := fakestore.New()
	for i, fleet := range []string{"", "_canary", "north"} {
		store.View(nil).Write(&telemetry.Record{DeviceID: "v1", FleetID: fleet, TimeMs: noon.Add(time.Duration(i) * time.Minute).UnixMilli()})
	}
	day := cassandra.DayOf(noon.UnixMilli())
	o, err := Replay(t.Context(), store.View(nil), testRules(t), "v1", day-2, day+2, noon.Add(time.Hour).UnixMilli())
	require.NoError(t, err)
	require.Equal(t, 1, o.Count)
	require.Len(t, o.Days, 1)
	require.Equal(t, []string{"north"}, o.Days[0].Fleets)
	require.Equal(t, day, o.LastDay)
}

func TestOutcomeIncludesTheRecordsOfItsLastDay(t *testing.T) {
	store := fakestore.New()
	r := telemetry.Record{DeviceID: "v1", FleetID: "north", Zone: "unknown", TimeMs: noon.UnixMilli(), Lat: 51, Lon: 8}
	store.View(nil).Write(&r)
	day := cassandra.DayOf(noon.UnixMilli())
	o, err := Replay(t.Context(), store.View(nil), testRules(t), "v1", day, day, noon.UnixMilli())
	require.NoError(t, err)
	require.True(t, o.Includes(&r))
	other := r
	other.Lat++
	require.False(t, o.Includes(&other), "another payload of the same time")
	other = r
	other.TimeMs++
	require.False(t, o.Includes(&other))
}

// Rows that another program wrote, with values that no record can have, change nothing and stop nothing.
func TestImplausibleRowsAreLeftOut(t *testing.T) {
	derive := func(bad ...telemetry.Record) *Outcome {
		store := fakestore.New()
		for i := range 60 {
			r := telemetry.Record{DeviceID: "v1", FleetID: "north", Zone: "unknown", TimeMs: noon.Add(time.Duration(i) * 10 * time.Second).UnixMilli(), Lat: 51, Lon: 9 + float64(i)*.001}
			store.View(nil).Write(&r)
		}
		for i, r := range bad {
			r.DeviceID, r.FleetID, r.TimeMs = "v1", "north", noon.Add(time.Duration(i)*10*time.Second+5*time.Second).UnixMilli()
			store.View(nil).Write(&r)
		}
		day := cassandra.DayOf(noon.UnixMilli())
		o, err := Replay(t.Context(), store.View(nil), testRules(t), "v1", day, day, noon.Add(time.Hour).UnixMilli())
		require.NoError(t, err)
		o.State.Encode()
		return o
	}
	nan, inf := math.NaN(), math.Inf(1)
	require.Equal(t, derive().Trips, derive(telemetry.Record{Lat: nan, Lon: 9}, telemetry.Record{Lat: 51, Lon: inf}, telemetry.Record{Lat: 1e300, Lon: 9}).Trips)
	o := derive(telemetry.Record{Lat: 51, Lon: 9, SpeedKmh: telemetry.Some(nan), TempC: telemetry.Some(inf)}, telemetry.Record{Lat: 51, Lon: 9.001, SpeedKmh: telemetry.Some(1e300)})
	require.Equal(t, 62, o.Count)
}
