package processor

import (
	"context"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
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
	"github.com/fleettracing/fleet-tracing/etl/internal/geofence"
	"github.com/fleettracing/fleet-tracing/etl/internal/rollup"
	"github.com/fleettracing/fleet-tracing/etl/internal/source/generator"
	"github.com/fleettracing/fleet-tracing/etl/internal/stamp"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
	"github.com/fleettracing/fleet-tracing/etl/internal/validate"
)

// allRules has every type of alert on, for every zone.
const allRules = `
defaults:
  speed_limit: {limit: 60}
  temperature: {high: {LOW: 30, HIGH: 40}, low: {LOW: -20, HIGH: -30}}
  geofence_enter: {geofences: ["*"]}
  geofence_exit: {geofences: ["*"]}
  geofence_dwell: {geofences: {"*": 10m}}
`

// TestMeasureDerivation prints the cost of alerts, trips and hourly statistics. The store answers at once and keeps
// nothing, so the numbers are of this package's own work, in CPU time with the garbage collector included. It asserts
// nothing about them: make bench runs it. Elsewhere a hundredth of its work shows that it runs.
func TestMeasureDerivation(t *testing.T) {
	const vehicles = 1000
	records, remembered := 500_000, 100_000
	if os.Getenv("FLEET_BENCH") == "" {
		records, remembered = records/100, remembered/100
	}
	n := float64(records)
	start := time.Now().Add(-time.Duration(records/vehicles)*10*time.Second - time.Minute).Truncate(time.Second)
	track := simulate(t, generator.Options{Seed: 1, Vehicles: vehicles, Interval: 10 * time.Second, Start: start, Records: records})
	parsed, err := rules.Parse("rules", []byte(allRules))
	require.NoError(t, err)
	index := city(t, 1000, "")
	zoned := alerting.New(parsed, index)

	fmt.Printf("%d records of %d vehicles, %d geofences (%.2f near a position), all rules\n", records, vehicles, 1000, around(index, track))
	fmt.Printf("%-66s %10s\n", "CPU time per record", "µs")
	line := func(name string, us float64) { fmt.Printf("%-66s %10.2f\n", name, us) }
	line("alerts, without geofences", leastOf(3, func() { applyAll(alerting.New(parsed, nil), track, false) })/n)
	line("alerts", leastOf(3, func() { applyAll(zoned, track, false) })/n)
	line("alerts, hours, trips", leastOf(3, func() { applyAll(zoned, track, true) })/n)
	var apply, flush float64
	for range 3 {
		before, after := applyAndFlush(t, zoned, track)
		if apply == 0 || before < apply {
			apply, flush = before, after
		}
	}
	apply, flush = apply/n, flush/n
	line("claim and apply batches of 10,000 records", apply)
	line("flush after each of these batches", flush)

	heap := devicesInMemory(t, remembered)
	fmt.Printf("%-66s %10s\n", "", "MB")
	fmt.Printf("%-66s %10.0f\n", fmt.Sprintf("heap of %d devices (goal 300 MB for 100,000)", remembered), heap/1e6)

	fmt.Printf("%-66s %10s\n", "CPU time", "ms")
	fmt.Printf("%-66s %10.1f\n", "one day of a device, 8,640 records, recomputed", recomputeDay(t, zoned)/1e3)
	fmt.Printf("%-66s %10.1f\n", "one hour of 10,000 devices summed", sumOfHour(t)/1e3)
}

// simulate returns the records of simulated vehicles in the order of arrival, normalized as the pipeline does.
func simulate(t *testing.T, o generator.Options) []telemetry.Record {
	s, err := generator.New(o)
	require.NoError(t, err)
	var records []telemetry.Record
	var e generator.Emission
	for s.Next(&e) {
		validate.Normalize(&e.Record)
		records = append(records, e.Record)
	}
	return records
}

// city returns geofences of every fleet in the simulator's city: circles, and polygons of 5 to 40 corners, of 50 to 400 m.
// more is an additional feature.
func city(t *testing.T, n int, more string) *geofence.Index {
	const south, north, west, east = 52.30, 52.48, 9.60, 9.84
	random := rand.New(rand.NewPCG(1, 2))
	var text strings.Builder
	text.WriteString(`{"type":"FeatureCollection","features":[`)
	for i := range n {
		if i > 0 {
			text.WriteByte(',')
		}
		lat, lon, radius := south+random.Float64()*(north-south), west+random.Float64()*(east-west), 50+random.Float64()*350
		properties := fmt.Sprintf(`"name":"zone-%d","fleet":"*"`, i)
		if i%4 == 0 {
			properties += `,"speed_limit_kmh":50`
		}
		geometry := fmt.Sprintf(`{"type":"Point","coordinates":[%f,%f]}`, lon, lat)
		if i%3 == 0 {
			properties += fmt.Sprintf(`,"radius_m":%f`, radius)
		} else {
			corners := 5 + random.IntN(36)
			var ring []string
			for k := range corners + 1 {
				sin, cos := math.Sincos(2 * math.Pi * float64(k%corners) / float64(corners))
				const metersPerDegree = 111_195
				ring = append(ring, fmt.Sprintf("[%f,%f]", lon+radius*cos/metersPerDegree/math.Cos(lat*math.Pi/180), lat+radius*sin/metersPerDegree))
			}
			geometry = `{"type":"Polygon","coordinates":[[` + strings.Join(ring, ",") + `]]}`
		}
		fmt.Fprintf(&text, `{"type":"Feature","properties":{%s},"geometry":%s}`, properties, geometry)
	}
	text.WriteString(more + "]}")
	geofences, err := geofence.Parse("geofences.geojson", []byte(text.String()))
	require.NoError(t, err)
	index, err := geofence.NewIndex(geofences)
	require.NoError(t, err)
	return index
}

// around returns the average number of geofences near a position.
func around(index *geofence.Index, track []telemetry.Record) float64 {
	var found []telemetry.NearbyGeofence
	n := 0
	for i := 0; i < len(track); i += 97 {
		found = index.Near(track[i].FleetID, track[i].Lat, track[i].Lon, 25, found[:0])
		n += len(found)
	}
	return float64(n) / float64(len(track)/97+1)
}

// nothing is a sink that discards everything.
type nothing struct{}

func (nothing) Hour(rollup.Hour)           {}
func (nothing) Trip(rollup.Trip)           {}
func (nothing) Alert(telemetry.AlertEvent) {}

// applyAll applies a track to the engine, and with statistics set to hours and trips too.
func applyAll(e *alerting.Engine, track []telemetry.Record, statistics bool) {
	states := map[string]*derived.State{}
	for i := range track {
		r := &track[i]
		s := states[r.DeviceID]
		if s == nil {
			s = &derived.State{}
			states[r.DeviceID] = s
		}
		if statistics {
			s.Apply(e, r, nothing{})
		} else {
			e.Apply(&s.Alerts, r, func(telemetry.AlertEvent) {})
		}
	}
}

// applyAndFlush runs a track through a processor in batches, and returns the CPU time of both steps, in µs.
func applyAndFlush(t *testing.T, e *alerting.Engine, track []telemetry.Record) (apply, flush float64) {
	m := measure(t, e, &discard{View: fakestore.New().View(nil)}, track[0].TimeMs)
	for batch := range batches(track) {
		m.clockMs.Store(batch[len(batch)-1].TimeMs)
		apply += cpu(func() { m.apply(t, batch) })
		flush += cpu(func() { require.NoError(t, m.runCycle(t.Context(), false)) })
	}
	return apply, flush
}

// batches cuts records into batches.
func batches(track []telemetry.Record) iter.Seq[[]*telemetry.Record] {
	return func(yield func([]*telemetry.Record) bool) {
		for part := range slices.Chunk(track, 10_000) {
			batch := make([]*telemetry.Record, len(part))
			for i := range part {
				batch[i] = &part[i]
			}
			if !yield(batch) {
				return
			}
		}
	}
}

// measured is a processor with the clock of its records.
type measured struct {
	*Processor
	clockMs atomic.Int64
}

func measure(t *testing.T, e *alerting.Engine, s *discard, nowMs int64) *measured {
	m := &measured{}
	m.clockMs.Store(nowMs)
	now := func() time.Time { return time.UnixMilli(m.clockMs.Load()) }
	logger, reg := silent(), prometheus.NewRegistry()
	exec := executor.New(executor.Options{MaxInFlight: 64, RetryRate: 100}, logger, reg, time.Now)
	stamps := stamp.New(now)
	c := claims.New(claims.Options{
		Role: cassandra.RoleStream, Heartbeat: 5 * time.Second, Lease: time.Hour, FenceAfter: time.Hour, MaxClockSkew: 10 * time.Second,
	}, executor.Views[claims.Store]{Strong: s, Fallback: s}, exec, stamps, logger, reg, time.Now)
	m.Processor = New(Options{
		Flush: 5 * time.Second, MaxClockSkew: 10 * time.Second, Idle: time.Hour, Devices: 1_000_000, NotifyMaxAge: 15 * time.Minute,
	}, func() derived.Rules { return derived.Rules{Engine: e, Fingerprint: "rules"} }, executor.Views[Store]{Strong: s, Fallback: s}, exec, c, stamps,
		func([]telemetry.AlertEvent) {}, logger, reg, now)
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return m
}

// apply claims the devices of stored records and applies them.
func (m *measured) apply(t *testing.T, batch []*telemetry.Record) {
	_, err := m.Acquire(t.Context(), claims.WantsOf(slices.Values(batch)))
	require.NoError(t, err)
	m.Apply(batch)
}

func silent() *logrus.Logger {
	logger := logrus.New()
	logger.SetLevel(logrus.PanicLevel)
	return logger
}

// devicesInMemory returns the heap, in bytes, of devices after half an hour of one record per minute. All of them are in a
// geofence, and for too long; most have another alert.
func devicesInMemory(t *testing.T, vehicles int) float64 {
	parsed, err := rules.Parse("rules", []byte(allRules+"  battery_low: {levels: {LOW: 100, MEDIUM: 40, HIGH: 20}}\n"))
	require.NoError(t, err)
	e := alerting.New(parsed, city(t, 1000, `,{"type":"Feature","properties":{"name":"region","fleet":"*","radius_m":80000},"geometry":{"type":"Point","coordinates":[9.72,52.39]}}`))
	heap := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // pools, too
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	before := heap()
	m := measure(t, e, &discard{View: fakestore.New().View(nil)}, 0)
	const minutes = 30
	track := simulate(t, generator.Options{
		Seed: 1, Vehicles: vehicles, Fleets: 100, Interval: time.Minute, Records: vehicles * minutes,
		Start: time.Now().Truncate(24 * time.Hour).Add(8 * time.Hour),
	})
	for batch := range batches(track) {
		m.clockMs.Store(batch[len(batch)-1].TimeMs)
		m.apply(t, batch)
		require.NoError(t, m.runCycle(t.Context(), false))
	}
	track = nil
	after := heap()
	require.Len(t, m.devices, vehicles)
	runtime.KeepAlive(m)
	runtime.KeepAlive(track)
	return after - before
}

// recomputeDay returns the CPU time, in µs, of recomputing a device from a day of one record every ten seconds.
func recomputeDay(t *testing.T, e *alerting.Engine) float64 {
	day := cassandra.DayOf(time.Now().UnixMilli()) - 1
	store := &discard{View: fakestore.New().View(nil), day: day}
	for _, r := range simulate(t, generator.Options{Seed: 1, Vehicles: 1, Interval: 10 * time.Second, Records: 8640, Start: day.Time()}) {
		store.positions = append(store.positions, fakestore.TelemetryOf(r))
	}
	m := measure(t, e, store, (day + 1).Time().UnixMilli())
	id := store.positions[0].DeviceID
	require.NoError(t, m.Recompute(t.Context(), []string{id}, day))
	return leastOf(20, func() {
		m.devices[id].markDirty(day, reasonGap)
		lease, err := m.claims.Confirm(t.Context())
		require.NoError(t, err)
		require.NoError(t, m.recompute(t.Context(), lease, true))
		require.Equal(t, store.positions[8639].Ts.UnixMilli(), m.devices[id].state.Roll.LastMs())
	})
}

func sumOne(t *testing.T, m *measured, lease claims.Lease) error {
	m.hours.Add(slices.Values([]cassandra.FleetHour{{FleetID: "f"}}))
	return m.hours.Run(t.Context(), lease, false, 0)
}

// sumOfHour returns the CPU time, in µs, of summing one hour of 10,000 devices.
func sumOfHour(t *testing.T) float64 {
	store := &discard{View: fakestore.New().View(nil)}
	for i := range 10_000 {
		store.hours = append(store.hours, cassandra.HourRow{
			FleetID: "f", DeviceID: fmt.Sprintf("vehicle-%05d", i), DistanceKm: float64(i) / 7, SpeedSumKmh: float64(i), SpeedCount: 360, Records: 360, MaxSpeedKmh: 50, DrivingS: 100,
		})
	}
	m := measure(t, nil, store, time.Now().UnixMilli())
	lease, err := m.claims.Confirm(t.Context())
	require.NoError(t, err)
	return leastOf(20, func() {
		require.NoError(t, sumOne(t, m, lease))
	})
}

// cpu returns the CPU time of the whole process, in µs, during do.
func cpu(do func()) float64 {
	used := func() float64 {
		var u syscall.Rusage
		if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
			return 0
		}
		return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e3
	}
	before := used()
	do()
	return used() - before
}

// leastOf returns the least CPU time of several tries: other work on the machine only adds to it.
func leastOf(tries int, do func()) float64 {
	least := math.Inf(1)
	for range tries {
		runtime.GC()
		least = min(least, cpu(do))
	}
	return least
}

// discard is a store that keeps no derived row. It has one day of positions and one hour of devices.
type discard struct {
	*fakestore.View
	day       cassandra.Day
	positions []cassandra.Telemetry
	hours     []cassandra.HourRow
}

func (s *discard) Positions(_ context.Context, _ string, day cassandra.Day) ([]cassandra.Telemetry, error) {
	if day != s.day {
		return nil, nil
	}
	return s.positions, nil
}

func (s *discard) Hours(context.Context, string, int64) ([]cassandra.HourRow, error) {
	return slices.Clone(s.hours), nil
}

func (s *discard) ApplyAnalytics(context.Context, []cassandra.Mutation[cassandra.AnalyticsRow]) error {
	return nil
}

func (s *discard) ApplyDeviceAlerts(context.Context, []cassandra.Mutation[cassandra.Alert]) error {
	return nil
}

func (s *discard) ApplyFleetAlerts(context.Context, []cassandra.Mutation[cassandra.Alert]) error {
	return nil
}

func (s *discard) ApplyOpenAlerts(context.Context, []cassandra.Mutation[cassandra.Alert]) error {
	return nil
}

func (s *discard) ApplyTrips(context.Context, string, []cassandra.Mutation[cassandra.TripRow]) error {
	return nil
}

func (s *discard) ApplyHours(context.Context, []cassandra.Mutation[cassandra.HourRow]) error {
	return nil
}

func (s *discard) ApplyDeviceDays(context.Context, string, []cassandra.Mutation[cassandra.DeviceDay]) error {
	return nil
}
