package derive

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/alerting"
	"github.com/fleettracing/fleet-tracing/etl/internal/alerting/rules"
	"github.com/fleettracing/fleet-tracing/etl/internal/geofence"
	"github.com/fleettracing/fleet-tracing/etl/internal/rollup"
	"github.com/fleettracing/fleet-tracing/etl/internal/source/generator"
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

// TestMeasureDerivation prints what it costs to keep up alerts, trips and hourly figures. The store answers at once and
// keeps nothing, so the figures are of our own work. Times are CPU time, that of the garbage collector among it: what
// else the machine does meanwhile changes them little. It decides nothing about them: make bench runs it. Elsewhere a
// hundredth of its work shows that it can be run.
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

	fmt.Printf("%d records of %d vehicles, %d zones (%.2f within reach of a fix), all rules\n", records, vehicles, 1000, around(index, track))
	fmt.Printf("%-66s %10s\n", "CPU time per record", "µs")
	line := func(name string, us float64) { fmt.Printf("%-66s %10.2f\n", name, us) }
	line("alerts, without zones", leastOf(3, func() { applyAll(alerting.New(parsed, nil), track, false) })/n)
	line("alerts", leastOf(3, func() { applyAll(zoned, track, false) })/n)
	line("alerts, hours, trips", leastOf(3, func() { applyAll(zoned, track, true) })/n)
	var fold, flush float64
	for range 3 {
		before, after := foldAll(t, zoned, track)
		if fold == 0 || before < fold {
			fold, flush = before, after
		}
	}
	fold, flush = fold/n, flush/n
	line("the whole fold: Before and Stored of windows of 10,000 records", fold)
	line("flush after each of these windows", flush)

	heap := devicesInMemory(t, remembered)
	fmt.Printf("%-66s %10s\n", "", "MB")
	fmt.Printf("%-66s %10.0f\n", fmt.Sprintf("heap of %d devices (goal 300 MB for 100,000)", remembered), heap/1e6)

	fmt.Printf("%-66s %10s\n", "CPU time", "ms")
	fmt.Printf("%-66s %10.1f\n", "one day of a device, 8,640 fixes, derived anew", rederiveDay(t, zoned)/1e3)
	fmt.Printf("%-66s %10.1f\n", "one hour of 10,000 devices summed", sumOfHour(t)/1e3)
}

// simulate gives the records of simulated vehicles in the order in which they come, complete as the pipeline makes them.
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

// city is so many zones of every fleet over the simulator's city: circles, and polygons of 5 to 40 corners, of 50 to 400 m.
// more is a feature besides them.
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
				const metresPerDegree = 111_195
				ring = append(ring, fmt.Sprintf("[%f,%f]", lon+radius*cos/metresPerDegree/math.Cos(lat*math.Pi/180), lat+radius*sin/metresPerDegree))
			}
			geometry = `{"type":"Polygon","coordinates":[[` + strings.Join(ring, ",") + `]]}`
		}
		fmt.Fprintf(&text, `{"type":"Feature","properties":{%s},"geometry":%s}`, properties, geometry)
	}
	text.WriteString(more + "]}")
	zones, err := geofence.Parse("zones.geojson", []byte(text.String()))
	require.NoError(t, err)
	index, err := geofence.NewIndex(zones)
	require.NoError(t, err)
	return index
}

// around is how many zones a fix has within reach, on the average.
func around(index *geofence.Index, track []telemetry.Record) float64 {
	var found []telemetry.NearbyGeofence
	n := 0
	for i := 0; i < len(track); i += 97 {
		found = index.Near(track[i].FleetID, track[i].Lat, track[i].Lon, 25, found[:0])
		n += len(found)
	}
	return float64(n) / float64(len(track)/97+1)
}

// nothing is a sink that keeps nothing.
type nothing struct{}

func (nothing) Hour(rollup.Hour)          {}
func (nothing) Trip(rollup.Trip)          {}
func (nothing) Step(telemetry.AlertEvent) {}

// applyAll feeds a track to the engine, and with figures set to the hours and trips as well.
func applyAll(e *alerting.Engine, track []telemetry.Record, figures bool) {
	states := map[string]*state{}
	for i := range track {
		r := &track[i]
		s := states[r.DeviceID]
		if s == nil {
			s = &state{}
			states[r.DeviceID] = s
		}
		if figures {
			s.apply(e, r, nothing{})
		} else {
			e.Apply(&s.Alerts, r, func(telemetry.AlertEvent) {})
		}
	}
}

// foldAll lets a track through a deriver in windows, and gives the CPU time of the fold and that of the flushes, in µs.
func foldAll(t *testing.T, e *alerting.Engine, track []telemetry.Record) (fold, flush float64) {
	d := open(e, &atOnce{}, track[0].TimeMs)
	for _, window := range windows(track) {
		d.clockMs = window[len(window)-1].TimeMs
		fold += cpu(func() {
			require.NoError(t, d.Before(t.Context(), slices.Values(window)))
			d.Stored(window)
		})
		flush += cpu(func() { require.NoError(t, d.once(t.Context(), false)) })
	}
	return fold, flush
}

// windows cuts records into windows, numbered from 1.
func windows(track []telemetry.Record) func(yield func(int64, []*telemetry.Record) bool) {
	return func(yield func(int64, []*telemetry.Record) bool) {
		number := int64(0)
		for part := range slices.Chunk(track, 10_000) {
			window := make([]*telemetry.Record, len(part))
			for i := range part {
				window[i] = &part[i]
			}
			number++
			if !yield(number, window) {
				return
			}
		}
	}
}

// measured is a deriver by the clock of what it is fed.
type measured struct {
	*Deriver
	clockMs int64
}

func open(e *alerting.Engine, s Store, nowMs int64) *measured {
	m := &measured{clockMs: nowMs}
	m.Deriver = New(Options{
		Flush: 5 * time.Second, Settle: 10 * time.Second, Idle: time.Hour, Devices: 1_000_000, NewsAge: 15 * time.Minute, ProcessDead: 30 * time.Second,
	}, e, "rules", once{}, logrus.New(), prometheus.NewRegistry(), func() time.Time { return time.UnixMilli(m.clockMs) })
	m.Open(Stores{s, s})
	return m
}

func silent() *logrus.Logger {
	logger := logrus.New()
	logger.SetLevel(logrus.PanicLevel)
	return logger
}

// devicesInMemory gives the heap, in bytes, that so many devices take after half an hour of one fix a minute. All of them
// are in a zone, and for too long; most have another alert.
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
	d := open(e, &atOnce{}, 0)
	feedFleet(t, d, vehicles)
	after := heap()
	open, zones, trips := 0, 0, 0
	for _, v := range d.devices {
		for range v.state.Alerts.Open() {
			open++
		}
		text, err := v.state.Alerts.MarshalJSON()
		require.NoError(t, err)
		zones += strings.Count(string(text), `"i":true`)
		current := newRows()
		v.state.Roll.Current(&current)
		trips += len(current.trips)
	}
	require.Len(t, d.devices, vehicles)
	n := float64(vehicles)
	fmt.Printf("each device has on the average %.2f open alerts, is in %.2f zones, and %.2f are on a trip or stop that is known\n",
		float64(open)/n, float64(zones)/n, float64(trips)/n)
	runtime.KeepAlive(d)
	return after - before
}

func feedFleet(t *testing.T, d *measured, vehicles int) {
	const minutes = 30
	s, err := generator.New(generator.Options{
		Seed: 1, Vehicles: vehicles, Fleets: 100, Interval: time.Minute, Records: vehicles * minutes,
		Start: time.Now().Truncate(24 * time.Hour).Add(8 * time.Hour),
	})
	require.NoError(t, err)
	var e generator.Emission
	number := int64(0)
	for more := true; more; {
		records := make([]telemetry.Record, 0, 10_000)
		for len(records) < cap(records) {
			if more = s.Next(&e); !more {
				break
			}
			validate.Normalize(&e.Record)
			records = append(records, e.Record)
		}
		if len(records) == 0 {
			break
		}
		d.clockMs = records[len(records)-1].TimeMs
		for _, window := range windows(records) {
			number++
			require.NoError(t, d.Before(t.Context(), slices.Values(window)))
			d.Stored(window)
		}
		require.NoError(t, d.flush(t.Context(), false))
	}
}

// rederiveDay gives the CPU time, in µs, of deriving a device anew from a day of one fix every ten seconds.
func rederiveDay(t *testing.T, e *alerting.Engine) float64 {
	day := cassandra.DayOf(time.Now().UnixMilli()) - 1
	store := &atOnce{day: day}
	for _, r := range simulate(t, generator.Options{Seed: 1, Vehicles: 1, Interval: 10 * time.Second, Records: 8640, Start: day.Time()}) {
		store.fixes = append(store.fixes, telemetryOf(r))
	}
	d := open(e, store, (day + 1).Time().UnixMilli())
	id := store.fixes[0].DeviceID
	require.NoError(t, d.Rederive(t.Context(), []string{id}, day))
	return leastOf(20, func() {
		d.devices[id].doubt(day, "gap")
		require.NoError(t, d.rederive(t.Context(), true))
		require.Equal(t, store.fixes[8639].Ts.UnixMilli(), d.devices[id].state.Roll.LastMs())
	})
}

// sumOfHour gives the CPU time, in µs, of summing one hour of 10,000 devices.
func sumOfHour(t *testing.T) float64 {
	store := &atOnce{}
	for i := range 10_000 {
		store.hours = append(store.hours, cassandra.HourRow{
			FleetID: "f", DeviceID: fmt.Sprintf("vehicle-%05d", i), DistanceKm: float64(i) / 7, SpeedSumKmh: float64(i), SpeedCount: 360, Records: 360, MaxSpeedKmh: 50, DrivingS: 100,
		})
	}
	d := open(nil, store, time.Now().UnixMilli())
	return leastOf(20, func() { require.NoError(t, d.sumHour(t.Context(), fleetHour{"f", 0})) })
}

// cpu is the CPU time of the whole process, in µs, that something takes.
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

// leastOf is the least CPU time of several tries: what others do on the machine only ever adds to it.
func leastOf(tries int, do func()) float64 {
	least := math.Inf(1)
	for range tries {
		runtime.GC()
		least = min(least, cpu(do))
	}
	return least
}

// atOnce is a store that answers at once and keeps nothing. It has a day of fixes and an hour of devices at the most.
type atOnce struct {
	day   cassandra.Day
	fixes []cassandra.Telemetry
	hours []cassandra.HourRow
}

var errNone = &cassandra.Error{Op: "read", Reason: cassandra.ReasonNotFound, Err: cassandra.ErrNotFound}

func (s *atOnce) Positions(_ context.Context, _ string, day cassandra.Day) ([]cassandra.Telemetry, error) {
	if day != s.day {
		return nil, nil
	}
	return s.fixes, nil
}
func (s *atOnce) Latest(context.Context, string) (cassandra.Telemetry, error) {
	return cassandra.Telemetry{}, errNone
}
func (s *atOnce) LatestOfFleet(context.Context, string) ([]cassandra.Telemetry, error) {
	return nil, nil
}
func (s *atOnce) Fleets(context.Context) ([]string, error) { return nil, nil }
func (s *atOnce) LastDeviceDay(context.Context, string, cassandra.Day) (cassandra.DeviceDay, bool, error) {
	return cassandra.DeviceDay{}, false, nil
}
func (s *atOnce) DeviceDays(context.Context, string, cassandra.Day) ([]cassandra.DeviceDay, error) {
	return nil, nil
}
func (s *atOnce) WriteDeviceDay(context.Context, string, cassandra.DeviceDay, int64) error {
	return nil
}
func (s *atOnce) Hours(context.Context, string, int64) ([]cassandra.HourRow, error) {
	return slices.Clone(s.hours), nil
}
func (s *atOnce) WriteHours(context.Context, []cassandra.HourRow, int64) error         { return nil }
func (s *atOnce) DeleteHour(context.Context, string, int64, string, int64) error       { return nil }
func (s *atOnce) WriteAnalytics(context.Context, []cassandra.AnalyticsRow) error       { return nil }
func (s *atOnce) DeleteAnalytics(context.Context, string, int64, int64) error          { return nil }
func (s *atOnce) WriteTrips(context.Context, string, []cassandra.TripRow, int64) error { return nil }
func (s *atOnce) DeleteTrip(context.Context, string, int64, string, int64) error       { return nil }
func (s *atOnce) AnalyticsRows(context.Context, string, cassandra.Day) ([]cassandra.AnalyticsRow, error) {
	return nil, nil
}
func (s *atOnce) Trips(context.Context, string, int64, int64) ([]cassandra.TripRow, error) {
	return nil, nil
}
func (s *atOnce) DeviceAlerts(context.Context, string, int64, int64) ([]cassandra.AlertState, error) {
	return nil, nil
}
func (s *atOnce) FleetAlerts(context.Context, string, cassandra.Day, int64, int64) ([]cassandra.AlertState, error) {
	return nil, nil
}
func (s *atOnce) OpenAlerts(context.Context, string) ([]cassandra.AlertState, error) { return nil, nil }
func (s *atOnce) OpenAlertsOfDevice(context.Context, string, string) ([]cassandra.AlertState, error) {
	return nil, nil
}
func (s *atOnce) WriteDeviceAlert(context.Context, *cassandra.AlertState, int64) error {
	return nil
}
func (s *atOnce) DeleteDeviceAlert(context.Context, string, int64, string, int64) error { return nil }
func (s *atOnce) WriteFleetAlert(context.Context, *cassandra.AlertState, int64) error   { return nil }
func (s *atOnce) DeleteFleetAlert(context.Context, *cassandra.AlertState, int64) error  { return nil }
func (s *atOnce) WriteOpenAlert(context.Context, *cassandra.AlertState, int64) error    { return nil }
func (s *atOnce) DeleteOpenAlert(context.Context, string, string, string, int64) error  { return nil }
func (s *atOnce) WriteClaim(context.Context, cassandra.Claim, int64) error              { return nil }
func (s *atOnce) DeleteClaim(context.Context, string, string, int64) error              { return nil }
func (s *atOnce) ClaimsOfDevice(context.Context, string) ([]cassandra.Claim, error)     { return nil, nil }
func (s *atOnce) ClaimsOfInstance(context.Context, string) ([]cassandra.Claim, error) {
	return nil, nil
}
func (s *atOnce) Heartbeat(context.Context, string, time.Time) error       { return nil }
func (s *atOnce) Instances(context.Context) ([]cassandra.Instance, error)  { return nil, nil }
func (s *atOnce) AddSharedDevices(context.Context, string, []string) error { return nil }
func (s *atOnce) AckSharedDevices(context.Context, string, []string) error { return nil }
func (s *atOnce) RemoveInstance(context.Context, string) error             { return nil }
