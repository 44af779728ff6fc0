// Package queries measures every CQL statement on a keyspace of 30 days and 10,000 vehicles, which it fills itself.
package queries

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// Fleet is what the keyspace is filled with: a large fleet that sends seldom, so that there are many partitions, and a
// few vehicles that send often, so that there are the largest ones.
type Fleet struct {
	Vehicles   int
	Every      time.Duration
	Dense      int // of the vehicles
	DenseEvery time.Duration
	Days       int
}

const fleetID = "fleet-001"

// How much follows from a vehicle's day. These are the figures of fleet-etl load for 300 vehicles of the generator that
// send every hour, with the zones of data/geofences.geojson: 4,696 trips and stops and 2,855 alerts in 1,500 days of a
// vehicle, and 85 alerts open at the end.
const (
	tripsOfDay      = 3
	tripsOfDenseDay = 40
	alertsOfDay     = 2
	openOf          = 0.28 // of the vehicles
	stateBytes      = 700
)

// Fill writes what a fleet would have left, through the typed writes of package cassandra, with the mutations that
// fleet-etl makes of a backlog: a vehicle's day at once, hours in hundreds. What is derived is made up beside the
// telemetry instead of following from it: for what a read costs, the number and the size of the rows matter. It goes on
// where one that was interrupted has stopped.
type Fill struct {
	Store *cassandra.Store
	Fleet Fleet
	State string // file that names the days that are done
	Out   io.Writer

	now time.Time
}

// atOnce bounds the writes under way.
const atOnce = 256

// Run fills the keyspace; done is false when the time was up before the end.
func (f *Fill) Run(ctx context.Context, until time.Time) (done bool, err error) {
	f.now = time.Now().UTC()
	today := cassandra.DayOf(f.now.UnixMilli())
	if err := os.MkdirAll(filepath.Dir(f.State), 0o755); err != nil {
		return false, err
	}
	state, err := os.OpenFile(f.State, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return false, err
	}
	defer state.Close()
	filled := map[string]bool{}
	for lines := bufio.NewScanner(state); lines.Scan(); {
		filled[lines.Text()] = true
	}
	type step struct {
		name string
		do   func(context.Context) error
	}
	steps := []step{{"newest", f.newest}}
	for day := today - cassandra.Day(f.Fleet.Days) + 1; day <= today; day++ {
		steps = append(steps, step{day.String(), func(ctx context.Context) error { return f.day(ctx, day) }})
	}
	for _, s := range steps {
		if filled[s.name] {
			continue
		}
		if !time.Now().Before(until) {
			fmt.Fprintln(f.Out, "the time is up; run it again to go on")
			return false, nil
		}
		started := time.Now()
		if err := s.do(ctx); err != nil {
			return false, fmt.Errorf("fill %s: %w", s.name, err)
		}
		if _, err := fmt.Fprintln(state, s.name); err != nil {
			return false, err
		}
		fmt.Fprintf(f.Out, "filled %s in %s\n", s.name, time.Since(started).Round(time.Second))
	}
	return true, nil
}

func (f *Fill) dense(n int) bool { return n < f.Fleet.Dense }

func (f *Fill) device(n int) string {
	if f.dense(n) {
		return fmt.Sprintf("dense-%04d", n)
	}
	return fmt.Sprintf("vehicle-%05d", n)
}

func (f *Fill) every(n int) time.Duration {
	if f.dense(n) {
		return f.Fleet.DenseEvery
	}
	return f.Fleet.Every
}

// each does something for every vehicle, so many at once.
func (f *Fill) each(ctx context.Context, do func(ctx context.Context, n int, r *rand.Rand) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for n := range f.Fleet.Vehicles {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			return again(ctx, func() error { return do(ctx, n, rand.New(rand.NewPCG(uint64(n), 9))) })
		})
	}
	return g.Wait()
}

// again repeats writes that a busy node was too slow for: they are the same each time.
func again(ctx context.Context, do func() error) (err error) {
	for range 20 {
		if err = do(); err == nil || ctx.Err() != nil || cassandra.ReasonOf(err).Advice() == cassandra.GiveUp {
			return err
		}
		time.Sleep(time.Second)
	}
	return err
}

// day fills a day with telemetry and with what follows from it.
func (f *Fill) day(ctx context.Context, day cassandra.Day) error {
	if err := f.each(ctx, func(ctx context.Context, n int, r *rand.Rand) error {
		return errors.Join(f.history(ctx, n, day, r), f.derived(ctx, n, day, r))
	}); err != nil {
		return err
	}
	if day > cassandra.DayOf(f.now.UnixMilli())-hourDays {
		if err := f.hours(ctx, day); err != nil {
			return err
		}
	}
	return errors.Join(f.figures(ctx, day), f.alerts(ctx, day))
}

// hourDays are the days whose hours are filled: each hour is a partition of its own, and nobody reads several.
const hourDays = 7

func (f *Fill) history(ctx context.Context, n int, day cassandra.Day, r *rand.Rand) error {
	var rows []cassandra.TelemetryRow
	// The vehicles don't send at one moment.
	phase := time.Duration(r.Int64N(int64(f.every(n))))
	for at := day.Time().Add(phase); at.Before((day + 1).Time()) && at.Before(f.now); at = at.Add(f.every(n)) {
		left := 30*24*time.Hour - f.now.Sub(at)
		if left < time.Hour {
			continue
		}
		speed, heading, battery, temp := r.Float64()*60, r.Float64()*360, int32(r.IntN(100)), 4+r.Float64()
		rows = append(rows, cassandra.TelemetryRow{
			TsMs: at.UnixMilli(), FleetID: fleetID, Lat: 52.3 + r.Float64()/10, Lon: 9.7 + r.Float64()/10, SpeedKmh: &speed, HeadingDeg: &heading,
			BatteryPct: &battery, TempC: &temp, Zone: "city-centre", WriteTimeUs: at.UnixMicro(), TTLSeconds: int32(left.Seconds()),
		})
	}
	for part := range slices.Chunk(rows, 100) {
		if err := f.Store.WriteHistory(ctx, f.device(n), day, part); err != nil {
			return err
		}
	}
	return nil
}

// followed are the vehicles that have states and alerts of their own day by day: these are read by vehicle alone, so
// those of the others would only take time.
const followed = 1000

// derived writes a vehicle's state at the end of a day, its alerts, and at the end of a month its trips.
func (f *Fill) derived(ctx context.Context, n int, day cassandra.Day, r *rand.Rand) error {
	at := (day + 1).Time().UnixMicro()
	if n < followed {
		d := cassandra.DeviceDay{Day: day, State: make([]byte, stateBytes), Rules: "rules", Fleets: []string{fleetID}}
		if err := f.Store.WriteDeviceDay(ctx, f.device(n), d, at); err != nil {
			return err
		}
		for range alertsOfDay {
			if err := f.Store.WriteDeviceAlert(ctx, f.alert(n, f.moment(day, r), r), at); err != nil {
				return err
			}
		}
	}
	today := cassandra.DayOf(f.now.UnixMilli())
	if (day+1).Month() == day.Month() && day != today {
		return nil
	}
	count := tripsOfDay
	if f.dense(n) {
		count = tripsOfDenseDay
	}
	speed, step := 50.0, 24*time.Hour/time.Duration(count)
	var rows []cassandra.TripRow
	for start := max(day.Month(), today-cassandra.Day(f.Fleet.Days)+1).Time(); start.Before((day + 1).Time()); start = start.Add(step) {
		rows = append(rows, cassandra.TripRow{
			StartMs: start.UnixMilli(), EndMs: start.Add(step).UnixMilli(), Kind: []string{"stop", "trip"}[len(rows)%2], FleetID: fleetID, DistanceKm: r.Float64() * 20,
			MaxSpeedKmh: &speed, IdleS: 60, StartLat: 52.3, StartLon: 9.7, EndLat: 52.4, EndLon: 9.8, StartZone: "depot-1", EndZone: "city-centre",
		})
	}
	for part := range slices.Chunk(rows, 100) {
		if err := f.Store.WriteTrips(ctx, f.device(n), part, at); err != nil {
			return err
		}
	}
	return nil
}

// moment is some time of a day that is over.
func (f *Fill) moment(day cassandra.Day, r *rand.Rand) time.Time {
	end := (day + 1).Time()
	if f.now.Before(end) {
		end = f.now
	}
	return day.Time().Add(time.Duration(r.Int64N(int64(end.Sub(day.Time())))))
}

// hours writes what every vehicle adds to each hour of a day.
func (f *Fill) hours(ctx context.Context, day cassandra.Day) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for hour := range 24 {
		start := day.Time().Add(time.Duration(hour) * time.Hour)
		if start.After(f.now) {
			break
		}
		for first := 0; first < f.Fleet.Vehicles; first += 100 {
			rows := make([]cassandra.HourRow, 0, 100)
			for n := first; n < min(first+100, f.Fleet.Vehicles); n++ {
				rows = append(rows, cassandra.HourRow{
					FleetID: fleetID, HourMs: start.UnixMilli(), DeviceID: f.device(n), DistanceKm: 12.25, SpeedSumKmh: 31.5, SpeedCount: 1, Records: 1, MaxSpeedKmh: 31.5, DrivingS: 600,
				})
			}
			g.Go(func() error {
				return again(ctx, func() error { return f.Store.WriteHours(ctx, rows, start.UnixMicro()) })
			})
		}
	}
	return g.Wait()
}

// figures writes the sums of a day's hours.
func (f *Fill) figures(ctx context.Context, day cassandra.Day) error {
	records, speed := int64(f.Fleet.Vehicles), 31.5
	rows := make([]cassandra.AnalyticsRow, 24)
	for hour := range rows {
		rows[hour] = cassandra.AnalyticsRow{
			FleetID: fleetID, Day: day, Hour: int32(hour), TotalDistanceKm: 122_500, AvgSpeedKmh: &speed, AlertsCount: 800, ActiveDevicesCount: int32(f.Fleet.Vehicles),
			RecordsCount: &records, MaxSpeedKmh: &speed, DrivingS: &records, WriteTimeUs: (day + 1).Time().UnixMicro(),
		}
	}
	return again(ctx, func() error { return f.Store.WriteAnalytics(ctx, rows) })
}

var alertTypes = []string{"geofence_dwell", "geofence_enter", "speed_limit", "battery_low"}

// alerts writes the alerts of a day in the fleet, which have ended.
func (f *Fill) alerts(ctx context.Context, day cassandra.Day) error {
	bySeverity := map[string][]cassandra.Alert{}
	for n := range f.Fleet.Vehicles {
		r := rand.New(rand.NewPCG(uint64(n), uint64(day)))
		for range alertsOfDay {
			a := f.alert(n, f.moment(day, r), r)
			bySeverity[a.Severity] = append(bySeverity[a.Severity], *a)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, rows := range bySeverity {
		for part := range slices.Chunk(rows, 100) {
			g.Go(func() error {
				return again(ctx, func() error { return f.Store.WriteFleetAlerts(ctx, part, (day + 1).Time().UnixMicro()) })
			})
		}
	}
	return g.Wait()
}

func (f *Fill) alert(n int, opened time.Time, r *rand.Rand) *cassandra.Alert {
	severity := "LOW"
	switch p := r.IntN(100); {
	case p < 5:
		severity = "HIGH"
	case p < 30:
		severity = "MEDIUM"
	}
	ms := opened.UnixMilli()
	return &cassandra.Alert{
		FleetID: fleetID, DeviceID: f.device(n), Type: alertTypes[r.IntN(len(alertTypes))], Severity: severity, OpenedMs: ms, StartedMs: ms - 30_000, EndedMs: ms + 600_000,
		Message: "97 km/h, limit 50 km/h, for 1 min 49 s, in city-centre", Peak: 97, Threshold: 50, Zone: "city-centre", Lat: 52.37, Lon: 9.73, Notify: true,
	}
}

// newest writes what there is of each vehicle once, and the alerts of the last half day as they came and went: what is
// open now stands among the tombstones of what has ended since.
func (f *Fill) newest(ctx context.Context) error {
	if err := f.Store.WriteFleet(ctx, fleetID); err != nil {
		return err
	}
	var zones []cassandra.Geofence
	for i := range 20 {
		radius := 180.0
		zones = append(zones, cassandra.Geofence{Name: fmt.Sprintf("zone-%02d", i), Kind: "depot", Geometry: `{"type":"Point","coordinates":[9.809232,52.392527]}`, RadiusM: &radius})
	}
	if err := f.Store.WriteGeofences(ctx, fleetID, zones, f.now.UnixMicro()); err != nil {
		return err
	}
	var devices []cassandra.DeviceRow
	latest := map[int32][]cassandra.LatestRow{}
	for n := range f.Fleet.Vehicles {
		row := f.latest(n)
		devices = append(devices, cassandra.DeviceRow{
			DeviceID: row.DeviceID, Status: cassandra.StatusActive, ActivatedAtMs: f.now.Add(-30 * aDay).UnixMilli(), StatusWriteTimeUs: row.WriteTimeUs,
		})
		latest[cassandra.Bucket(row.DeviceID)] = append(latest[cassandra.Bucket(row.DeviceID)], row)
	}
	for part := range slices.Chunk(devices, 100) {
		if err := again(ctx, func() error { return f.Store.WriteDevices(ctx, fleetID, part) }); err != nil {
			return err
		}
	}
	for bucket, rows := range latest {
		for part := range slices.Chunk(rows, 100) {
			if err := again(ctx, func() error { return f.Store.WriteLatestByFleet(ctx, fleetID, bucket, part) }); err != nil {
				return err
			}
		}
	}
	return f.each(ctx, func(ctx context.Context, n int, r *rand.Rand) error {
		row, a := f.latest(n), f.alert(n, f.now.Add(-12*time.Hour), r)
		if err := errors.Join(f.Store.WriteLatest(ctx, &row), f.Store.WriteOpenAlert(ctx, a, a.OpenedMs*1000)); err != nil || r.Float64() < openOf {
			return err
		}
		return f.Store.DeleteOpenAlert(ctx, a.FleetID, a.DeviceID, a.Type, a.EndedMs*1000)
	})
}

func (f *Fill) latest(n int) cassandra.LatestRow {
	r := rand.New(rand.NewPCG(uint64(n), 7))
	at := f.now.Add(-time.Duration(r.Int64N(int64(f.every(n)))))
	ms, lat, lon, speed, heading, battery, temp := at.UnixMilli(), 52.3+r.Float64()/10, 9.7+r.Float64()/10, r.Float64()*60, r.Float64()*360, int32(r.IntN(100)), 4.5
	return cassandra.LatestRow{
		DeviceID: f.device(n), FleetID: fleetID, LastTsMs: &ms, Lat: &lat, Lon: &lon, SpeedKmh: &speed, HeadingDeg: &heading, BatteryPct: &battery, TempC: &temp,
		Zone: "city-centre", WriteTimeUs: at.UnixMicro(),
	}
}
