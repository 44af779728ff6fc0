package cassandra_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

func TestOwnerIsSetOnceAndMovedByComparison(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	at := func(minute int) time.Time { return time.Date(2026, 3, 1, 12, minute, 0, 0, time.UTC) }
	owners, err := s.Owners(ctx, []string{"o-none", "o-1"})
	require.NoError(t, err)
	require.Equal(t, []cassandra.Owner{{DeviceID: "o-none"}, {DeviceID: "o-1"}}, owners, "unknown devices have no owner")

	first := cassandra.Owner{DeviceID: "o-1", FleetID: "a", Since: at(0), SetBy: cassandra.SetByRecord}
	for range 2 {
		set, err := s.SetFirstOwners(ctx, []cassandra.Owner{first})
		require.NoError(t, err)
		require.Equal(t, []cassandra.Owner{first}, set, "a repetition changes nothing")
	}
	rival := cassandra.Owner{DeviceID: "o-1", FleetID: "b", Since: at(1), SetBy: cassandra.SetByRecord}
	mate := rival
	for i := 0; mate.DeviceID == rival.DeviceID || cassandra.OwnerBucket(mate.DeviceID) != cassandra.OwnerBucket(rival.DeviceID); i++ {
		mate.DeviceID = fmt.Sprint("o-mate-", i)
	}
	set, err := s.SetFirstOwners(ctx, []cassandra.Owner{rival, mate})
	require.NoError(t, err)
	require.Equal(t, []cassandra.Owner{first, mate}, set, "the first one stays, and the other of its bucket is set")

	second := cassandra.Owner{DeviceID: "o-1", FleetID: "b", Since: at(2), SetBy: cassandra.SetByTrusted}
	is, err := s.MoveOwner(ctx, first, second)
	require.NoError(t, err)
	second.FormerFleet = "a"
	require.Equal(t, second, is)
	is, err = s.MoveOwner(ctx, first, cassandra.Owner{DeviceID: "o-1", FleetID: "c", Since: at(3), SetBy: cassandra.SetByTrusted})
	require.NoError(t, err)
	require.Equal(t, second, is, "it was moved since it was read")
	third := cassandra.Owner{DeviceID: "o-1", FleetID: "a", Since: at(4), SetBy: cassandra.SetByAdministrator}
	_, err = s.MoveOwner(ctx, second, third)
	require.NoError(t, err)
	third.FormerFleet = "b"
	for _, store := range []*cassandra.Store{s, s.Strong(), s.Fallback()} {
		owners, err = store.Owners(ctx, []string{"o-none", "o-1"})
		require.NoError(t, err)
		require.Equal(t, []cassandra.Owner{{DeviceID: "o-none"}, third}, owners)
	}
	former, err := s.FormerOwners(ctx, "o-1")
	require.NoError(t, err)
	require.Equal(t, []cassandra.Owner{
		{DeviceID: "o-1", FleetID: "b", Since: at(2), SetBy: cassandra.SetByTrusted},
		{DeviceID: "o-1", FleetID: "a", Since: at(0), SetBy: cassandra.SetByRecord},
	}, former, "newest first")
}

// Of several fleets that claim a device at the same time, one becomes its owner, and all learn which.
func TestConcurrentClaimsAgree(t *testing.T) {
	s, _ := realStore(t)
	results := make([]cassandra.Owner, 8)
	var claims sync.WaitGroup
	for i := range results {
		claims.Go(func() {
			for try := 0; results[i].FleetID == "" && try < 20; try++ { // contention may cause timeouts
				set, err := s.SetFirstOwners(t.Context(), []cassandra.Owner{{DeviceID: "o-race", FleetID: string(rune('a' + i)), Since: time.UnixMilli(1000).UTC(), SetBy: cassandra.SetByRecord}})
				if err == nil {
					results[i] = set[0]
				}
			}
		})
	}
	claims.Wait()
	require.NotEmpty(t, results[0].FleetID)
	for _, o := range results {
		require.Equal(t, results[0], o)
	}
}

// What a device sent for its former fleet leaves its latest row. What it sent later stays.
func TestLatestRowIsCleared(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	ms := int64(1_772_366_400_000)
	require.NoError(t, s.WriteLatest(ctx, &cassandra.LatestRow{DeviceID: "o-latest", FleetID: "a", LastTsMs: &ms, Lat: ptr(1.0), Lon: ptr(2.0), TempC: ptr(4.0), SpeedKmh: ptr(50.0), WriteTimeUs: 1000}))
	require.NoError(t, s.ClearLatest(ctx, "o-latest", 1000))
	require.NoError(t, s.WriteLatest(ctx, &cassandra.LatestRow{DeviceID: "o-latest", FleetID: "b", LastTsMs: &ms, Lat: ptr(3.0), Lon: ptr(4.0), TempC: ptr(5.0), WriteTimeUs: 2000}))
	require.NoError(t, s.WriteLatest(ctx, &cassandra.LatestRow{DeviceID: "o-latest", BatteryPct: ptr(int32(9)), WriteTimeUs: 900}))
	got, err := s.Latest(ctx, "o-latest")
	require.NoError(t, err)
	require.Equal(t, cassandra.Telemetry{DeviceID: "o-latest", FleetID: "b", Ts: time.UnixMilli(ms).UTC(), Lat: 3, Lon: 4, TempC: ptr(5.0), Zone: ""}, got)
}
