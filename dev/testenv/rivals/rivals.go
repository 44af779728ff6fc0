// Package rivals makes the rows of two fleets, for tests of what one of them sees of the other.
package rivals

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// The two fleets and their devices.
const (
	Own   = "fleet-b"
	Other = "fleet-a"

	OwnDevice    = "b-0"
	OtherDevice  = "a-0"    // never was in the own fleet
	SharedDevice = "shared" // was in the own fleet, then in the other one, and is in the own one again
)

// FleetRows are the rows of a fleet.
type FleetRows struct {
	Fleet     string
	Devices   []cassandra.Device
	Positions []cassandra.Telemetry
	Alerts    []cassandra.Alert
	Hours     []cassandra.AnalyticsRow
	Geofences []cassandra.Geofence
}

// None is the variant of Rows without another fleet.
const None = 2

// Rows returns the rows of the own fleet, which depend on the seed alone, and of the other fleet, which depend on the variant, too.
// The shared device has at least so many positions of the other fleet.
func Rows(seed, variant uint64, now time.Time, hidden int) []FleetRows {
	own := rowsOf(rand.New(rand.NewPCG(seed, 100)), Own, now, 300, time.Minute, OwnDevice, "b-1", "b-2", SharedDevice)
	own.drive(rand.New(rand.NewPCG(seed, 101)), SharedDevice, now.Add(-9*24*time.Hour), 20, time.Minute)
	if variant == None {
		return []FleetRows{own}
	}
	rng := rand.New(rand.NewPCG(seed, variant))
	devices := []string{OtherDevice}
	for i := range 1 + rng.IntN(5) {
		devices = append(devices, fmt.Sprintf("a-%d-%d", variant, i))
	}
	other := rowsOf(rng, Other, now, 200+rng.IntN(500), time.Duration(1+rng.IntN(3600))*time.Second, devices...)
	from := now.Add(-24*time.Hour - time.Duration(rng.IntN(1e6))*time.Millisecond)
	other.drive(rng, SharedDevice, from, hidden+rng.IntN(hidden/10), 5*time.Second)
	other.Devices = append(other.Devices, cassandra.Device{FleetID: Other, DeviceID: SharedDevice, Status: cassandra.StatusMoved})
	return []FleetRows{own, other}
}

func rowsOf(rng *rand.Rand, fleet string, now time.Time, n int, interval time.Duration, devices ...string) FleetRows {
	r := FleetRows{Fleet: fleet}
	for _, device := range devices {
		activated := now.Add(-time.Duration(rng.IntN(1e6)) * time.Second)
		r.Devices = append(r.Devices, cassandra.Device{FleetID: fleet, DeviceID: device, ActivatedAt: activated, Status: cassandra.StatusActive})
		r.drive(rng, device, now.Add(-time.Duration(rng.IntN(1000))*time.Second), n, interval)
	}
	for i := range 10 + rng.IntN(30) {
		r.Alerts = append(r.Alerts, cassandra.Alert{
			FleetID: fleet, Severity: cassandra.Severities[rng.IntN(3)], OpenedMs: now.Add(-time.Duration(i+1) * time.Hour).UnixMilli(),
			DeviceID: devices[rng.IntN(len(devices))], Type: []string{"speeding", fleet}[rng.IntN(2)], Message: fmt.Sprint(rng.IntN(1000), " km/h"),
		})
	}
	for i := range 40 {
		at, speed := now.Add(-time.Duration(i)*time.Hour), rng.Float64()
		r.Hours = append(r.Hours, cassandra.AnalyticsRow{
			FleetID: fleet, Day: cassandra.DayOf(at.UnixMilli()), Hour: int32(at.UTC().Hour()), TotalDistanceKm: rng.Float64(), AvgSpeedKmh: &speed,
			ActiveDevicesCount: int32(rng.IntN(100)),
		})
	}
	for i := range 1 + rng.IntN(3) {
		r.Geofences = append(r.Geofences, cassandra.Geofence{
			FleetID: fleet, Name: fmt.Sprint("zone-", i), Geometry: fmt.Sprintf(`{"type":"Point","coordinates":[%v,52]}`, rng.Float64()), RadiusM: new(float64),
		})
	}
	return r
}

// drive adds positions of a device, one per interval up to the last.
func (r *FleetRows) drive(rng *rand.Rand, device string, last time.Time, n int, interval time.Duration) {
	for i := range n {
		speed := float64(rng.IntN(100))
		r.Positions = append(r.Positions, cassandra.Telemetry{
			DeviceID: device, FleetID: r.Fleet, Ts: last.Add(-time.Duration(i) * interval).Truncate(time.Millisecond), Lat: rng.Float64(), Lon: rng.Float64(),
			SpeedKmh: &speed, Zone: fmt.Sprint("zone-", rng.IntN(3)),
		})
	}
}

// Latest returns the latest positions of the devices that are in the fleet.
func (r *FleetRows) Latest() (latest []cassandra.Telemetry) {
	for _, d := range r.Devices {
		var newest cassandra.Telemetry
		for _, p := range r.Positions {
			if p.DeviceID == d.DeviceID && d.Status == cassandra.StatusActive && p.Ts.After(newest.Ts) {
				newest = p
			}
		}
		if newest.DeviceID != "" {
			latest = append(latest, newest)
		}
	}
	return latest
}

// Write writes the rows to a store.
func (r *FleetRows) Write(ctx context.Context, store *cassandra.Store) error {
	if err := store.WriteFleet(ctx, r.Fleet); err != nil {
		return err
	}
	for _, d := range r.Devices {
		row := cassandra.DeviceRow{DeviceID: d.DeviceID, Status: d.Status, ActivatedAtMs: max(d.ActivatedAt.UnixMilli(), 1), StatusWriteTimeUs: 1}
		if err := store.WriteDevices(ctx, r.Fleet, []cassandra.DeviceRow{row}); err != nil {
			return err
		}
	}
	type partition struct {
		device string
		day    cassandra.Day
	}
	history := map[partition][]cassandra.TelemetryRow{}
	for _, p := range r.Positions {
		key := partition{p.DeviceID, cassandra.DayOf(p.Ts.UnixMilli())}
		history[key] = append(history[key], cassandra.TelemetryRow{
			TsMs: p.Ts.UnixMilli(), FleetID: r.Fleet, Lat: p.Lat, Lon: p.Lon, SpeedKmh: p.SpeedKmh, Zone: p.Zone, WriteTimeUs: 1, TTLSeconds: 40 * 24 * 3600,
		})
	}
	for key, rows := range history {
		for part := range slices.Chunk(rows, 100) {
			if err := store.WriteHistory(ctx, key.device, key.day, part); err != nil {
				return err
			}
		}
	}
	for _, p := range r.Latest() {
		ms := p.Ts.UnixMilli()
		row := cassandra.LatestRow{DeviceID: p.DeviceID, LastTsMs: &ms, Lat: &p.Lat, Lon: &p.Lon, SpeedKmh: p.SpeedKmh, Zone: p.Zone, WriteTimeUs: 1}
		if err := store.WriteLatestByFleet(ctx, r.Fleet, cassandra.Bucket(p.DeviceID), []cassandra.LatestRow{row}); err != nil {
			return err
		}
	}
	for _, a := range r.Alerts {
		if err := store.ApplyFleetAlerts(ctx, cassandra.Put(1, a)); err != nil {
			return err
		}
		if err := store.ApplyOpenAlerts(ctx, cassandra.Put(1, a)); err != nil {
			return err
		}
	}
	if err := store.ApplyAnalytics(ctx, cassandra.Put(1, r.Hours...)); err != nil {
		return err
	}
	return store.ApplyGeofences(ctx, r.Fleet, cassandra.Put(1, r.Geofences...))
}

// RequireSame requires the same responses in both worlds, and shows the first one that is different.
func RequireSame(t testing.TB, want, got []string) {
	t.Helper()
	for i := range min(len(want), len(got)) {
		require.Equal(t, want[i], got[i])
	}
	require.Len(t, got, len(want))
}
