package cassandra_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

func TestTripsAreReadByMonth(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	const device = "d-trips"
	trip := func(start string, kind string) cassandra.TripRow {
		from := at(t, start)
		return cassandra.TripRow{
			StartMs: from, EndMs: from + 600_000, Kind: kind, FleetID: "f", DistanceKm: 3.5, IdleS: 12.25,
			StartLat: 31.1, StartLon: 120.1, EndLat: 31.2, EndLon: 120.2, StartZone: "depot", EndZone: "unknown",
		}
	}
	rows := []cassandra.TripRow{
		trip("2025-12-31T23:59:59.999Z", "trip"), // ends in the next year
		trip("2026-01-01T00:00:00Z", "stop"),
		trip("2026-01-01T00:00:00Z", "trip"), // same instant, different kind
		trip("2026-01-31T23:00:00Z", "trip"),
		trip("2026-03-01T00:00:00Z", "trip"), // after a month without trips
	}
	rows[1].MaxSpeedKmh = ptr(0.0)
	rows[4].Open, rows[4].MaxSpeedKmh = true, ptr(51.5)
	for _, row := range rows {
		require.NoError(t, s.ApplyTrips(ctx, device, cassandra.Put(readUs, row)))
	}
	read := func(from, to string) []cassandra.TripRow {
		found, err := s.Trips(ctx, device, at(t, from), at(t, to))
		require.NoError(t, err)
		slices.SortStableFunc(found, func(a, b cassandra.TripRow) int {
			if a.StartMs == b.StartMs {
				return strings.Compare(a.Kind, b.Kind)
			}
			return 0
		})
		return found
	}
	require.Equal(t, rows, read("2025-12-01T00:00:00Z", "2026-03-31T00:00:00Z"), "oldest first, across months")
	require.Equal(t, rows[1:4], read("2026-01-01T00:00:00Z", "2026-01-31T23:00:00Z"), "both ends are included")
	require.Equal(t, rows[:3], read("2025-12-31T23:59:59.999Z", "2026-01-01T00:00:00Z"))
	require.Empty(t, read("2026-02-01T00:00:00Z", "2026-02-28T23:59:59Z"))

	closed := rows[4]
	closed.Open, closed.EndMs, closed.MaxSpeedKmh = false, closed.EndMs+1, nil
	require.NoError(t, s.ApplyTrips(ctx, device, cassandra.Put(readUs+5, closed)))
	require.NoError(t, s.ApplyTrips(ctx, device, cassandra.Put(readUs+4, rows[4])))
	require.Equal(t, []cassandra.TripRow{closed}, read("2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"), "who readUs last wins, also where it has no speed any more")

	require.NoError(t, s.ApplyTrips(ctx, device, cassandra.Remove(readUs, cassandra.TripRow{StartMs: rows[0].StartMs, Kind: "trip"})))
	require.NoError(t, s.ApplyTrips(ctx, device, cassandra.Remove(readUs+1, cassandra.TripRow{StartMs: rows[2].StartMs, Kind: "trip"})))
	require.NoError(t, s.ApplyTrips(ctx, device, cassandra.Remove(readUs+4, cassandra.TripRow{StartMs: closed.StartMs, Kind: "trip"}))) // before it was closed
	require.Equal(t, []cassandra.TripRow{rows[1], rows[3], closed}, read("2025-12-01T00:00:00Z", "2026-03-31T00:00:00Z"))
}
