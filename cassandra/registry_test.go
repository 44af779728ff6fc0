package cassandra_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

func TestRegistryKeepsEarliestActivationAndLatestStatus(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	now := time.Now().UnixMilli()
	for i := range 25 {
		require.NoError(t, s.WriteDevices(ctx, "fleet-registry", []cassandra.DeviceRow{
			{DeviceID: fmt.Sprintf("d%02d", i), Status: cassandra.StatusActive, ActivatedAtMs: now, StatusWriteTimeUs: now * 1000},
		}))
	}
	require.NoError(t, s.WriteDevices(ctx, "fleet-registry", []cassandra.DeviceRow{
		{DeviceID: "d00", ActivatedAtMs: now - 5000},
		{DeviceID: "d01", ActivatedAtMs: now + 5000},
		{DeviceID: "d02", Status: cassandra.StatusMoved, StatusWriteTimeUs: (now + 1) * 1000},
		{DeviceID: "d03", Status: cassandra.StatusMoved, StatusWriteTimeUs: (now - 1) * 1000},
		{DeviceID: "d04", Model: "Sprinter", Status: cassandra.StatusActive, StatusWriteTimeUs: (now + 1) * 1000},
	}))
	var all []cassandra.Device
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
	require.Len(t, all, 24, "every device but the moved one, once")
	byID := map[string]cassandra.Device{}
	for _, d := range all {
		byID[d.DeviceID] = d
	}
	require.Equal(t, now-5000, byID["d00"].ActivatedAt.UnixMilli(), "the earliest start stays")
	require.Equal(t, now, byID["d01"].ActivatedAt.UnixMilli(), "a later one changes nothing")
	require.NotContains(t, byID, "d02")
	require.Equal(t, cassandra.StatusActive, byID["d03"].Status, "an older move changes nothing")
	require.Equal(t, "Sprinter", byID["d04"].Model)
	_, err := s.Devices(ctx, "fleet-registry", 10, "%%%")
	require.ErrorContains(t, err, `page "%%%"`)

	for _, fleet := range []string{"beta", "alpha", "alpha", "gamma"} {
		require.NoError(t, s.WriteFleet(ctx, fleet))
	}
	fleets, err := s.Fleets(ctx)
	require.NoError(t, err)
	fleets = slices.DeleteFunc(fleets, func(fleet string) bool { return !slices.Contains([]string{"alpha", "beta", "gamma"}, fleet) }) // of other tests
	require.Equal(t, []string{"alpha", "beta", "gamma"}, fleets)
}
