package cassandra_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

func TestHoursKeepTheShareOfEachDevice(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	const fleet = "fleet-hours"
	hour := at(t, "2026-11-24T23:00:00Z")
	row := func(device string, km float64) cassandra.HourRow {
		return cassandra.HourRow{
			FleetID: fleet, HourMs: hour, DeviceID: device, DistanceKm: km, SpeedSumKmh: 120.5, SpeedCount: 3, Records: 4_000_000_000,
			MaxSpeedKmh: 61.25, DrivingS: 59.875, Alerts: 2,
		}
	}
	read := func() []cassandra.HourRow {
		rows, err := s.Hours(ctx, fleet, hour)
		require.NoError(t, err)
		return rows
	}
	require.Empty(t, read())
	require.NoError(t, s.ApplyHours(ctx, cassandra.Put(readUs, []cassandra.HourRow{row("b", 2), row("a", 1)}...)))
	require.NoError(t, s.ApplyHours(ctx, cassandra.Put(readUs, []cassandra.HourRow{row("c", 3)}...)))
	require.Equal(t, []cassandra.HourRow{row("a", 1), row("b", 2), row("c", 3)}, read(), "sorted by device")

	require.NoError(t, s.ApplyHours(ctx, cassandra.Put(readUs-1, []cassandra.HourRow{row("a", 9)}...)))
	require.NoError(t, s.ApplyHours(ctx, cassandra.Put(readUs+1, []cassandra.HourRow{row("b", 8)}...)))
	require.NoError(t, s.ApplyHours(ctx, cassandra.Remove(readUs, cassandra.HourRow{FleetID: fleet, HourMs: hour, DeviceID: "b"}))) // it readUs before the latest did
	require.NoError(t, s.ApplyHours(ctx, cassandra.Remove(readUs, cassandra.HourRow{FleetID: fleet, HourMs: hour, DeviceID: "c"})))
	require.Equal(t, []cassandra.HourRow{row("a", 1), row("b", 8)}, read(), "who readUs last wins, deletions included")
	require.NoError(t, s.ApplyHours(ctx, cassandra.Put(readUs+1, []cassandra.HourRow{row("c", 7)}...)))
	require.Equal(t, []cassandra.HourRow{row("a", 1), row("b", 8), row("c", 7)}, read())

	other, err := s.Hours(ctx, fleet, hour+3_600_000)
	require.NoError(t, err)
	require.Empty(t, other)
}

func TestAnalyticsCanLoseValues(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	const fleet = "fleet-statistics"
	hour := at(t, "2026-11-24T23:00:00Z")
	day := cassandra.DayOf(hour)
	full := cassandra.AnalyticsRow{
		FleetID: fleet, Day: day, Hour: 23, TotalDistanceKm: 12.5, AvgSpeedKmh: ptr(40.5), AlertsCount: 2, ActiveDevicesCount: 3,
		RecordsCount: ptr(int64(77)), MaxSpeedKmh: ptr(61.25), DrivingS: ptr(int64(59)),
	}
	write := func(r cassandra.AnalyticsRow, writeTimeUs int64) {
		require.NoError(t, s.ApplyAnalytics(ctx, cassandra.Put(writeTimeUs, r)))
	}
	read := func() []cassandra.AnalyticsRow {
		rows, err := s.Analytics(ctx, fleet, day, day)
		require.NoError(t, err)
		return rows
	}
	write(full, readUs)
	require.Equal(t, []cassandra.AnalyticsRow{full}, read())
	silent := full
	silent.AvgSpeedKmh, silent.MaxSpeedKmh = nil, nil
	write(silent, readUs+1)
	require.Equal(t, []cassandra.AnalyticsRow{silent}, read(), "a value without records is deleted")
	write(full, readUs)
	require.Equal(t, []cassandra.AnalyticsRow{silent}, read())
	require.NoError(t, s.ApplyAnalytics(ctx, cassandra.Remove(readUs, full)))
	require.Equal(t, []cassandra.AnalyticsRow{silent}, read(), "a deletion only removes earlier writes")
	require.NoError(t, s.ApplyAnalytics(ctx, cassandra.Remove(readUs+1, cassandra.FleetHour{FleetID: fleet, HourMs: hour + 10}.Analytics())))
	require.Empty(t, read(), "any instant of the hour works")
}
