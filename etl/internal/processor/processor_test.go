package processor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/alerting"
	"github.com/fleettracing/fleet-tracing/etl/internal/alerting/rules"
	"github.com/fleettracing/fleet-tracing/etl/internal/claims"
	"github.com/fleettracing/fleet-tracing/etl/internal/derived"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/fakestore"
	"github.com/fleettracing/fleet-tracing/etl/internal/recompute"
	"github.com/fleettracing/fleet-tracing/etl/internal/stamp"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
	"github.com/fleettracing/fleet-tracing/etl/internal/verify"
)

// theRules are strict, so that short tracks raise many alerts.
const theRules = `
defaults:
  speed_limit: {limit: 70, for: 1m, cool_down: 5m, levels: {LOW: 0, MEDIUM: 10, HIGH: 25}}
  battery_low: {levels: {LOW: 40, MEDIUM: 20}}
  device_offline: {after: {LOW: 15m}}
`

func engine(t testing.TB) (*alerting.Engine, string) {
	parsed, err := rules.Parse("rules", []byte(theRules))
	require.NoError(t, err)
	return alerting.New(parsed, circle{}), parsed.Fingerprint()
}

// circle is one geofence around the middle of the tracks.
type circle struct{}

func (circle) Near(_ string, lat, lon, reachM float64, found []telemetry.NearbyGeofence) []telemetry.NearbyGeofence {
	inside := 1500 - 1000*telemetry.DistanceKm(lat, lon, 52, 9)
	if inside < -reachM {
		return found
	}
	return append(found, telemetry.NearbyGeofence{Name: "middle", InsideM: inside, AreaM2: 7e6, OnEnter: true, OnExit: true, DwellS: telemetry.Some(int32(600))})
}

// process is one process that derives rows.
type process struct {
	*Processor
	claims *claims.Claims
	view   *fakestore.View
	ctx    context.Context
	end    context.CancelFunc // ends Run
	die    context.CancelFunc // ends everything
	ended  chan error
	beats  chan error
	notes  *notes
}

// notes are the events that receivers were notified of.
type notes struct {
	mu     sync.Mutex
	events []telemetry.AlertEvent
}

func (p *process) notified() []telemetry.AlertEvent {
	p.notes.mu.Lock()
	defer p.notes.mu.Unlock()
	return slices.Clone(p.notes.events)
}

func start(t testing.TB, store *fakestore.Store, stream bool) *process {
	return startOn(t, store, stream, func(v *fakestore.View) Store { return v })
}

// startOn starts a process whose processor uses a store that is made of a view.
func startOn(t testing.TB, store *fakestore.Store, stream bool, storeOf func(*fakestore.View) Store) *process {
	e, fingerprint := engine(t)
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	ctx, die := context.WithCancel(context.Background())
	stop, end := context.WithCancel(ctx)
	p := &process{ctx: ctx, end: end, die: die, view: store.View(die), ended: make(chan error, 1), beats: make(chan error, 1), notes: &notes{}}
	skew := time.Duration(rand.Int64N(int64(6*time.Second))) - 3*time.Second // of its clock
	now := func() time.Time { return time.Now().Add(skew) }
	reg := prometheus.NewRegistry()
	exec := executor.New(executor.Options{MaxInFlight: 64, RetryRate: 100}, logger, reg, now)
	role, flush := cassandra.RoleBatch, time.Minute
	if stream {
		role, flush = cassandra.RoleStream, 5*time.Second
	}
	stamps := stamp.New(now)
	rows := storeOf(p.view)
	held, ok := rows.(claims.Store)
	if !ok {
		held = p.view
	}
	p.claims = claims.New(claims.Options{
		Role: role, Heartbeat: 5 * time.Second, Lease: 10 * time.Second, FenceAfter: 20 * time.Second, MaxClockSkew: 10 * time.Second,
	}, executor.Views[claims.Store]{Strong: held, Fallback: held}, exec, stamps, logger, reg, now)
	p.Processor = New(Options{
		Flush: flush, MaxClockSkew: 10 * time.Second, Idle: 2 * time.Minute, Devices: 100, NotifyMaxAge: 15 * time.Minute, Stream: stream,
	}, func() derived.Rules { return derived.Rules{Engine: e, Fingerprint: fingerprint} },
		executor.Views[Store]{Strong: rows, Fallback: rows}, exec, p.claims, stamps, func(events []telemetry.AlertEvent) {
			p.notes.mu.Lock()
			defer p.notes.mu.Unlock()
			p.notes.events = append(p.notes.events, events...)
		}, logger, reg, now)
	go func() { p.beats <- p.claims.Run(ctx) }()
	go func() { p.ended <- p.Run(ctx, stop) }()
	return p
}

// store stores records as the record path does, and returns nil if they are acknowledged.
func (p *process) store(records []telemetry.Record) (err error) {
	ctx := p.ctx
	defer func() {
		if p.view.Killed() {
			err = fakestore.ErrKilled
		}
	}()
	pointers := make([]*telemetry.Record, len(records))
	for i := range records {
		pointers[i] = &records[i]
	}
	if _, err := p.Acquire(ctx, claims.WantsOf(slices.Values(pointers))); err != nil {
		return err
	}
	for i := range records {
		if err := p.view.Request(); err != nil {
			return err
		}
		p.view.Write(&records[i])
	}
	if _, err := p.claims.Confirm(p.ctx); err != nil {
		return err
	}
	p.notify(p.Apply(pointers))
	return nil
}

// kill ends the process without a chance to do anything.
func (p *process) kill() {
	p.view.KillAfter(0)
	p.view.Pause(0)
	p.die()
	<-p.ended
	<-p.beats
}

// finish ends it in good order.
func (p *process) finish(t testing.TB) {
	p.end()
	require.NoError(t, <-p.ended)
	left, err := p.Finish(context.Background(), true)
	require.NoError(t, err)
	p.die()
	require.NoError(t, <-p.beats)
	if !left {
		require.NoError(t, p.claims.Remove(context.Background()))
	}
}

// drive makes the records of a device: trips, stops, speeding, a battery that empties, silence, absent values.
func drive(rng *rand.Rand, id string, from, to time.Time) []telemetry.Record {
	var records []telemetry.Record
	lat, lon, battery := 52+rng.Float64()*.02-.01, 9+rng.Float64()*.02-.01, 100.0
	dLat, dLon := 0.0, 0.0
	fleet := "north"
	for at := from; at.Before(to); {
		if rng.IntN(12) == 0 {
			dLat, dLon = rng.NormFloat64()*.004, rng.NormFloat64()*.004
		}
		if rng.IntN(10) == 0 {
			dLat, dLon = 0, 0
		}
		if lat > 52.03 || lat < 51.97 {
			dLat = -dLat
		}
		if lon > 9.03 || lon < 8.97 {
			dLon = -dLon
		}
		lat, lon = lat+dLat, lon+dLon
		if rng.IntN(200) == 0 {
			fleet = map[string]string{"north": "south", "south": "north"}[fleet]
		}
		r := telemetry.Record{DeviceID: id, FleetID: fleet, Zone: "unknown", TimeMs: at.UnixMilli(), Lat: lat, Lon: lon}
		if rng.IntN(5) > 0 {
			r.SpeedKmh = telemetry.Some(float64(rng.IntN(110)))
		}
		if battery -= .5; battery < 5 {
			battery = 100
		}
		if rng.IntN(3) > 0 {
			r.BatteryPct = telemetry.Some(int32(battery))
		}
		records = append(records, r)
		at = at.Add(time.Duration(20+rng.IntN(100)) * time.Second)
		if rng.IntN(60) == 0 {
			at = at.Add(time.Duration(rng.IntN(200)) * time.Minute)
		}
	}
	return records
}

// arrive returns the records in order of arrival: shuffled as the seed says, with duplicates and conflicting payloads.
func arrive(rng *rand.Rand, tracks [][]telemetry.Record) []telemetry.Record {
	var all []telemetry.Record
	for _, track := range tracks {
		all = append(all, track...)
	}
	slices.SortStableFunc(all, func(a, b telemetry.Record) int { return int(a.TimeMs - b.TimeMs) })
	switch rng.IntN(3) {
	case 0:
		rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	case 1: // some are late
		for i := range all {
			if rng.IntN(20) == 0 {
				j := min(len(all)-1, i+rng.IntN(100))
				all[i], all[j] = all[j], all[i]
			}
		}
	}
	for range len(all) / 10 {
		r := all[rng.IntN(len(all))]
		if rng.IntN(4) == 0 { // another payload with the same time
			r.Lat += .0001
			r.SpeedKmh = telemetry.Some(float64(rng.IntN(100)))
			if rng.IntN(4) == 0 {
				r.FleetID = "south"
			}
		}
		all = slices.Insert(all, rng.IntN(len(all)), r)
	}
	return all
}

func seeds(t *testing.T) []uint64 {
	n := 8
	if text := os.Getenv("PROCESSOR_SEEDS"); text != "" {
		var err error
		n, err = strconv.Atoi(text)
		require.NoError(t, err)
	}
	var all []uint64
	for i := range n {
		all = append(all, uint64(i)+1)
	}
	if text := os.Getenv("PROCESSOR_SEED"); text != "" {
		one, err := strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
		all = []uint64{one}
	}
	return all
}

// Any order, duplication, number of processes, crash and pause gives the rows that follow from the stored records.
func TestRowsAreAFunctionOfTheStoredRecords(t *testing.T) {
	for _, seed := range seeds(t) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { surviveFaults(t, seed) })
		})
	}
}

func surviveFaults(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 7))
	store := fakestore.New()
	time.Sleep(48 * time.Hour)
	var tracks [][]telemetry.Record
	for i := range 1 + rng.IntN(4) {
		from := time.Now().Add(-time.Duration(6+rng.IntN(30)) * time.Hour)
		tracks = append(tracks, drive(rng, fmt.Sprint("v", i), from, time.Now().Add(-time.Duration(rng.IntN(40))*time.Minute)))
	}
	queue := arrive(rng, tracks)

	crashes, pauses := rng.IntN(3), rng.IntN(3)
	var processes []*process
	for range 1 + rng.IntN(3) {
		processes = append(processes, start(t, store, true))
	}
	for len(queue) > 0 {
		chunk := slices.Clone(queue[:min(len(queue), 1+rng.IntN(60))])
		queue = queue[len(chunk):]
		i := rng.IntN(len(processes))
		for range 10 { // a sender prefers a process that responds
			if !processes[i].view.Paused() {
				break
			}
			i = rng.IntN(len(processes))
		}
		p := processes[i]
		if crashes > 0 && rng.IntN(15) == 0 && !p.view.Killed() {
			crashes--
			p.view.KillAfter(rng.IntN(60)) // it is killed in the middle of something
		}
		if pauses > 0 && rng.IntN(15) == 0 {
			pauses--
			paused := processes[rng.IntN(len(processes))]
			paused.view.Pause([]time.Duration{15 * time.Second, 45 * time.Second, 10 * time.Minute}[rng.IntN(3)])
			if rng.IntN(2) == 0 && !paused.view.Killed() {
				paused.view.KillAfter(rng.IntN(100)) // and killed soon after it resumes
			}
		}
		if err := p.store(chunk); err != nil {
			require.ErrorIs(t, err, fakestore.ErrKilled)
			queue = append(chunk, queue...) // which is not acknowledged
		}
		time.Sleep(time.Duration(rng.IntN(4000)) * time.Millisecond)
		if p.view.Killed() {
			p.kill()
			processes[i] = start(t, store, true)
		}
	}
	time.Sleep(time.Duration(rng.IntN(700)) * time.Second)
	for i, p := range processes {
		if p.view.Killed() { // while others were sent to
			p.kill()
			processes[i] = start(t, store, true)
		} else {
			p.view.KillAfter(-1)
		}
	}
	time.Sleep(20 * time.Minute) // every device is offline
	var ending sync.WaitGroup
	for _, p := range processes {
		ending.Go(func() { p.finish(t) })
		time.Sleep(time.Duration(rng.IntN(3)) * 3 * time.Second) // some end at the same time
	}
	ending.Wait()
	start(t, store, true).finish(t) // what killed ones left
	requireFresh(t, store)
}

// requireFresh compares every derived row with a computation over all stored records of each device.
func requireFresh(t testing.TB, store *fakestore.Store) {
	e, _ := engine(t)
	all := store.View(nil)
	wantHours := map[cassandra.FleetHour][]cassandra.HourRow{}
	var wantOpen []string
	alerts := 0
	for id, records := range store.Records() {
		o := expected(e, records, time.Now().UnixMilli())
		var trips []cassandra.TripRow
		for _, trip := range o.Trips {
			trips = append(trips, derived.TripRow(trip))
		}
		have, err := all.Trips(context.Background(), id, 0, 1<<60)
		require.NoError(t, err)
		require.ElementsMatch(t, trips, have, "trips of %s", id)

		var want []cassandra.Alert
		for _, a := range o.Alerts {
			want = append(want, derived.AlertRow(id, a))
			if a.EndedMs == 0 {
				wantOpen = append(wantOpen, fakestore.KeyOf(a.FleetID, id, a.Type, a.OpenedMs, a.Severity))
			}
		}
		rows, err := all.DeviceAlerts(context.Background(), id, 0, 1<<60)
		require.NoError(t, err)
		require.ElementsMatch(t, want, rows, "alerts of %s", id)
		alerts += len(want)
		for key, h := range o.Hours {
			wantHours[key] = append(wantHours[key], derived.HourRow(id, h))
		}
	}
	byFleet := fakestore.List[cassandra.Alert](store, cassandra.TableAlerts, "")
	byDevice := fakestore.List[cassandra.Alert](store, cassandra.TableDeviceAlerts, "")
	require.ElementsMatch(t, byDevice, byFleet, "alerts of fleets")
	require.Len(t, byFleet, alerts, "alerts of fleets")
	var open []string
	for _, a := range fakestore.List[cassandra.Alert](store, cassandra.TableOpenAlerts, "") {
		open = append(open, fakestore.KeyOf(a.FleetID, a.DeviceID, a.Type, a.OpenedMs, a.Severity))
	}
	require.ElementsMatch(t, wantOpen, open, "open alerts")

	rows := 0
	for key, want := range wantHours {
		have, err := all.Hours(context.Background(), key.FleetID, key.HourMs)
		require.NoError(t, err)
		require.ElementsMatch(t, want, have, "hour %s of %s", time.UnixMilli(key.HourMs).UTC(), key.FleetID)
		rows += len(have)
		sums, err := all.Analytics(context.Background(), key.FleetID, cassandra.DayOf(key.HourMs), cassandra.DayOf(key.HourMs))
		require.NoError(t, err)
		i := slices.IndexFunc(sums, func(s cassandra.AnalyticsRow) bool {
			return int64(s.Hour) == key.HourMs%(24*derived.HourMs)/derived.HourMs
		})
		require.GreaterOrEqual(t, i, 0, "statistics of hour %s of %s", time.UnixMilli(key.HourMs).UTC(), key.FleetID)
		requireSum(t, want, sums[i])
	}
	require.Len(t, fakestore.List[cassandra.HourRow](store, cassandra.TableHours, ""), rows, "no hours but these")
	require.Len(t, fakestore.List[cassandra.AnalyticsRow](store, cassandra.TableAnalytics, ""), len(wantHours), "no statistics but these")
	require.Empty(t, fakestore.List[cassandra.Claim](store, cassandra.TableClaims, ""), "no claim is left")
	require.Empty(t, fakestore.List[cassandra.Claim](store, cassandra.TableClaimsByInstance, ""), "no claim is left")
	instances, err := store.View(nil).Instances(context.Background())
	require.NoError(t, err)
	require.Empty(t, instances, "no instance is left")
}

// requireSum compares a sum with one that is added up in the simplest way.
func requireSum(t testing.TB, rows []cassandra.HourRow, sum cassandra.AnalyticsRow) {
	var km, speeds, driving, most float64
	var count, records int64
	var alerts, active int32
	for _, r := range rows {
		km, speeds, driving, most = km+r.DistanceKm, speeds+r.SpeedSumKmh, driving+r.DrivingS, max(most, r.MaxSpeedKmh)
		count, records, alerts = count+r.SpeedCount, records+r.Records, alerts+r.Alerts
		if r.Records > 0 {
			active++
		}
	}
	require.InDelta(t, km, sum.TotalDistanceKm, 1e-9)
	require.Equal(t, alerts, sum.AlertsCount)
	require.Equal(t, active, sum.ActiveDevicesCount)
	require.Equal(t, records, *sum.RecordsCount)
	require.InDelta(t, driving, float64(*sum.DrivingS), 1)
	if count > 0 {
		require.InDelta(t, speeds/float64(count), *sum.AvgSpeedKmh, 1e-9)
		require.Equal(t, most, *sum.MaxSpeedKmh)
	} else {
		require.Nil(t, sum.AvgSpeedKmh)
	}
}

// expected computes what follows from the records of a device.
func expected(e *alerting.Engine, records map[int64]telemetry.Record, nowMs int64) *recompute.Outcome {
	o := recompute.NewOutcome()
	var order []telemetry.Record
	for _, r := range records {
		order = append(order, r)
	}
	slices.SortFunc(order, func(a, b telemetry.Record) int { return int(a.TimeMs - b.TimeMs) })
	for i := range order {
		o.State.Apply(e, &order[i], o)
	}
	o.State.Advance(e, nowMs, o)
	o.State.Roll.Current(o)
	for a := range o.State.Alerts.Open() {
		o.Alerts[derived.KeyOf(a)] = a
	}
	return o
}

// Verify reports no row that is right, and each one that is wrong.
func TestVerifyFindsWrongRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(3, 3))
		store := fakestore.New()
		time.Sleep(48 * time.Hour)
		p := start(t, store, true)
		for _, r := range drive(rng, "v1", time.Now().Add(-20*time.Hour), time.Now()) {
			require.NoError(t, p.store([]telemetry.Record{r}))
		}
		time.Sleep(20 * time.Minute)
		p.finish(t)
		e, fingerprint := engine(t)
		v := &verify.Verifier{Store: store.View(nil), Rules: derived.Rules{Engine: e, Fingerprint: fingerprint}, Now: time.Now}
		compare := func() []string {
			report, err := v.Verify(context.Background(), []string{"north", "south"}, cassandra.DayOf(time.Now().UnixMilli())-2, cassandra.DayOf(time.Now().UnixMilli()))
			require.NoError(t, err)
			require.Positive(t, report.Records)
			var found []string
			for _, d := range report.Differences {
				found = append(found, d.Table)
			}
			return found
		}
		require.Empty(t, compare())

		spoil := func(table string, change func(c *fakestore.Cell)) {
			t.Helper()
			for _, c := range store.Cells(table) {
				was := *c
				change(c)
				require.Contains(t, strings.Join(compare(), " "), table)
				*c = was
				return
			}
			t.Errorf("nothing in %s", table)
		}
		gone := func(c *fakestore.Cell) { c.Deleted = c.Wrote }
		for _, table := range []string{
			cassandra.TableTrips, cassandra.TableDeviceAlerts, cassandra.TableAlerts, cassandra.TableOpenAlerts, cassandra.TableHours, cassandra.TableAnalytics,
		} {
			spoil(table, gone)
		}
		spoil(cassandra.TableAnalytics, func(c *fakestore.Cell) { r := c.Row.(cassandra.AnalyticsRow); r.TotalDistanceKm += .001; c.Row = r })
		spoil(cassandra.TableHours, func(c *fakestore.Cell) { r := c.Row.(cassandra.HourRow); r.Records++; c.Row = r })
		spoil(cassandra.TableTrips, func(c *fakestore.Cell) { r := c.Row.(cassandra.TripRow); r.EndMs++; c.Row = r })
		spoil(cassandra.TableDeviceAlerts, func(c *fakestore.Cell) { r := c.Row.(cassandra.Alert); r.EndedMs++; c.Row = r })
		spoil(cassandra.TableOpenAlerts, func(c *fakestore.Cell) { r := c.Row.(cassandra.Alert); r.OpenedMs++; c.Row = r })
		require.Empty(t, compare(), "the changes are undone")
	})
}

// An alert is notified once, by the instance that finds it first, and once more by one that takes over from a crashed one.
// Late records notify nothing.
func TestAlertIsNotifiedOnce(t *testing.T) {
	fast := func(at time.Time, kmh float64) telemetry.Record {
		return telemetry.Record{DeviceID: "v1", FleetID: "north", Zone: "unknown", TimeMs: at.UnixMilli(), Lat: 51, Lon: 8, SpeedKmh: telemetry.Some(kmh)}
	}
	opened := func(steps []telemetry.AlertEvent) (n int) {
		for _, s := range steps {
			if s.Type == telemetry.SpeedLimit && s.Transition == telemetry.AlertOpened {
				n++
			}
		}
		return n
	}
	synctest.Test(t, func(t *testing.T) {
		store := fakestore.New()
		time.Sleep(48 * time.Hour)
		p := start(t, store, true)
		for range 10 { // too fast for 100 s
			require.NoError(t, p.store([]telemetry.Record{fast(time.Now(), 100)}))
			time.Sleep(10 * time.Second)
		}
		require.Equal(t, 1, opened(p.notified()))
		p.kill()
		again := start(t, store, true)
		for range 10 {
			require.NoError(t, again.store([]telemetry.Record{fast(time.Now(), 100)}))
			time.Sleep(10 * time.Second)
		}
		require.Equal(t, 1, opened(again.notified()), "the other may not have sent it")
		open, err := again.view.OpenAlerts(context.Background(), "north")
		require.NoError(t, err)
		require.Len(t, open, 1)
		require.True(t, open[0].Notify)
		require.NoError(t, again.store([]telemetry.Record{fast(time.Now(), 20)}))
		time.Sleep(10 * time.Second)
		require.Equal(t, telemetry.AlertResolved, again.notified()[len(again.notified())-1].Transition)

		// Ten minutes that arrive two hours late.
		for i := range 60 {
			kmh := 100.0
			if i == 59 {
				kmh = 30
			}
			require.NoError(t, again.store([]telemetry.Record{fast(time.Now().Add(-2*time.Hour+time.Duration(10*i)*time.Second), kmh)}))
		}
		time.Sleep(30 * time.Second)
		require.Equal(t, 1, opened(again.notified()), "late records notify no alert that has ended")
		rows, err := again.view.DeviceAlerts(context.Background(), "v1", 0, 1<<60)
		require.NoError(t, err)
		require.Len(t, slices.DeleteFunc(rows, func(a cassandra.Alert) bool { return a.Type != string(telemetry.SpeedLimit) }), 2, "they are stored as alerts")
		again.finish(t)
		requireFresh(t, store)
	})
}

// A late record may end a silence that has raised an alert, even after the device was unloaded and loaded again.
func TestLateRecordEndsASilence(t *testing.T) {
	at := func(at time.Time) telemetry.Record {
		return telemetry.Record{DeviceID: "v1", FleetID: "north", Zone: "unknown", TimeMs: at.UnixMilli(), Lat: 51, Lon: 8}
	}
	synctest.Test(t, func(t *testing.T) {
		store := fakestore.New()
		time.Sleep(48 * time.Hour)
		p := start(t, store, true)
		last := time.Now()
		require.NoError(t, p.store([]telemetry.Record{at(last)}))
		time.Sleep(2 * time.Hour)
		open, err := p.view.OpenAlerts(context.Background(), "north")
		require.NoError(t, err)
		require.Len(t, open, 1, "offline, although it was unloaded long before")
		require.Zero(t, p.loaded())
		require.NoError(t, p.store([]telemetry.Record{at(last.Add(10 * time.Minute))}))
		time.Sleep(time.Minute)
		p.finish(t)
		requireFresh(t, store)
	})
}

// A device that another instance had for a while is derived in memory again once that instance has released it.
func TestSharingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fakestore.New()
		time.Sleep(48 * time.Hour)
		one, other := start(t, store, true), start(t, store, true)
		shared := func() bool { s, _ := one.claims.Status("v1"); return s.Shared }
		send := func(p *process, n int) {
			for range n {
				require.NoError(t, p.store([]telemetry.Record{{DeviceID: "v1", FleetID: "north", Zone: "unknown", TimeMs: time.Now().UnixMilli(), Lat: 51, Lon: 8}}))
				time.Sleep(5 * time.Second)
			}
		}
		send(one, 3)
		require.False(t, shared())
		send(other, 3)
		send(one, 3)
		require.True(t, shared())
		ended := make(chan struct{})
		go func() { defer close(ended); other.finish(t) }()
		send(one, 30)
		<-ended
		require.False(t, shared())
		one.finish(t)
		requireFresh(t, store)
	})
}

// An instance with a fast clock is taken over soon after its crash, too.
func TestCrashedInstanceWithFastClockIsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fakestore.New()
		time.Sleep(48 * time.Hour)
		crashed, other := start(t, store, true), start(t, store, true)
		require.NoError(t, crashed.store([]telemetry.Record{{DeviceID: "v1", FleetID: "north", Zone: "unknown", TimeMs: time.Now().UnixMilli(), Lat: 51, Lon: 8}}))
		time.Sleep(20 * time.Second)
		crashed.kill()
		store.SetHeartbeat(crashed.claims.InstanceID(), time.Now().Add(45*time.Minute))
		time.Sleep(10 * time.Minute)
		instances, err := store.View(nil).Instances(t.Context())
		require.NoError(t, err)
		var processes []string
		for _, i := range instances {
			processes = append(processes, i.ID)
		}
		require.Contains(t, processes, other.claims.InstanceID())
		require.NotContains(t, processes, crashed.claims.InstanceID(), "long before its heartbeat is old by its own clock")
		other.finish(t)
		requireFresh(t, store)
	})
}

func TestFailedRequestEndsTheProcessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t, fakestore.New(), false)
		p.view.KillAfter(0)
		err := <-p.ended
		require.True(t, err == nil || errors.Is(err, fakestore.ErrKilled), "%v", err)
		p.die()
		<-p.beats
	})
}
