package cassandra_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

func TestDeviceDaysKeepTheLatestState(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	const device = "d-days"
	today := cassandra.DayOf(time.Now().UnixMilli())
	_, found, err := s.LastDeviceDay(ctx, device, today)
	require.NoError(t, err)
	require.False(t, found)
	none, err := s.DeviceDays(ctx, device, 0)
	require.NoError(t, err)
	require.Empty(t, none)

	write := func(day cassandra.Day, state, rules string, writeTimeUs int64, fleets ...string) {
		require.NoError(t, s.ApplyDeviceDays(ctx, device, cassandra.Put(writeTimeUs, cassandra.DeviceDay{Day: day, State: []byte(state), Rules: rules, Fleets: fleets})))
	}
	write(today-3, "old", "r1", readUs, "north")
	write(today-1, "first", "r1", readUs+10, "north")
	write(today-1, "second", "r2", readUs+20, "south")
	write(today-1, "late", "r0", readUs+15, "east") // readUs before the second did, came after it
	write(today, "now", "r2", readUs+30)            // without a fleet

	want := []cassandra.DeviceDay{
		{Day: today - 3, State: []byte("old"), Rules: "r1", Fleets: []string{"north"}, WriteTimeUs: readUs},
		{Day: today - 1, State: []byte("second"), Rules: "r2", Fleets: []string{"east", "north", "south"}, WriteTimeUs: readUs + 20},
		{Day: today, State: []byte("now"), Rules: "r2", WriteTimeUs: readUs + 30},
	}
	days, err := s.DeviceDays(ctx, device, today-3)
	require.NoError(t, err)
	require.Equal(t, want, days, "oldest first; who readUs last wins, and fleets are only ever added to")
	days, err = s.DeviceDays(ctx, device, today-2)
	require.NoError(t, err)
	require.Equal(t, want[1:], days)

	for day, state := range map[cassandra.Day]string{today + 1: "now", today: "now", today - 1: "second", today - 2: "old"} {
		before, found, err := s.LastDeviceDay(ctx, device, day)
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, state, string(before.State), "latest up to %s", day)
	}
	_, found, err = s.LastDeviceDay(ctx, device, today-4)
	require.NoError(t, err)
	require.False(t, found)
}
