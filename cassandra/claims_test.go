package cassandra_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

func TestClaimsAreReadByDeviceAndByInstance(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	const instance, other = "i~1", "i~2"
	claim := func(instance, device string, from cassandra.Day, writeTimeUs int64, fleets ...string) {
		m := cassandra.Mutation[cassandra.Claim]{Row: cassandra.Claim{InstanceID: instance, DeviceID: device, FromDay: from, Fleets: fleets}, WriteTimeUs: writeTimeUs}
		require.NoError(t, s.ApplyInstanceClaims(ctx, []cassandra.Mutation[cassandra.Claim]{m}))
		require.NoError(t, s.ApplyDeviceClaims(ctx, []cassandra.Mutation[cassandra.Claim]{m}))
	}
	remove := func(instance, device string, writeTimeUs int64) {
		m := cassandra.Mutation[cassandra.Claim]{Row: cassandra.Claim{InstanceID: instance, DeviceID: device}, Delete: true, WriteTimeUs: writeTimeUs}
		require.NoError(t, s.ApplyInstanceClaims(ctx, []cassandra.Mutation[cassandra.Claim]{m}))
		require.NoError(t, s.ApplyDeviceClaims(ctx, []cassandra.Mutation[cassandra.Claim]{m}))
	}
	var want []cassandra.Claim
	for i := range 40 {
		device := fmt.Sprintf("m-%02d", i)
		claim(instance, device, 20000, readUs, "north")
		want = append(want, cassandra.Claim{InstanceID: instance, DeviceID: device, FromDay: 20000, WriteTimeUs: readUs})
	}
	claim(other, "m-00", 20005, readUs)
	claim(instance, "m-00", 19999, readUs+2, "south") // an earlier record arrived
	claim(instance, "m-00", 19990, readUs+1)          // an earlier write
	want[0].FromDay, want[0].WriteTimeUs = 19999, readUs+2

	of := func(instance string) []cassandra.Claim {
		claims, _, err := s.Leftovers(ctx, instance)
		require.NoError(t, err)
		slices.SortFunc(claims, func(a, b cassandra.Claim) int { return strings.Compare(a.DeviceID, b.DeviceID) })
		return claims
	}
	require.Equal(t, want, of(instance), "every device, from all buckets")
	require.Equal(t, []cassandra.Claim{{InstanceID: other, DeviceID: "m-00", FromDay: 20005, WriteTimeUs: readUs}}, of(other))
	require.Empty(t, of("i~3"))
	on := func(device string) []cassandra.Claim {
		claims, err := s.ClaimsOfDevices(ctx, device)
		require.NoError(t, err)
		return claims
	}
	require.Equal(t, []cassandra.Claim{
		{InstanceID: instance, DeviceID: "m-00", FromDay: 19999, Fleets: []string{"north", "south"}},
		{InstanceID: other, DeviceID: "m-00", FromDay: 20005},
	}, on("m-00"), "fleets are added")

	remove(instance, "m-00", readUs+1)
	require.Len(t, on("m-00"), 2, "a claim that was moved since stays")
	require.Equal(t, want, of(instance))
	remove(instance, "m-00", readUs+2)
	require.Equal(t, []cassandra.Claim{{InstanceID: other, DeviceID: "m-00", FromDay: 20005}}, on("m-00"))
	require.Equal(t, want[1:], of(instance))
	require.Len(t, on("m-01"), 1)
	remove(instance, "unknown", readUs)
}

func TestInstancesKeepHeartbeatsAndSharedDevices(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	find := func(id string) (found cassandra.Instance, ok bool) {
		all, err := s.Instances(ctx)
		require.NoError(t, err)
		for _, p := range all {
			if p.ID == id {
				found, ok = p, true
			}
		}
		return found, ok
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	require.NoError(t, s.Heartbeat(ctx, "i~1", cassandra.RoleStream, now))
	require.NoError(t, s.Heartbeat(ctx, "i~2", cassandra.RoleStream, now.Add(-time.Hour)))
	require.NoError(t, s.Heartbeat(ctx, "i~2", cassandra.RoleStream, now.Add(-time.Minute)))
	p, ok := find("i~1")
	require.True(t, ok)
	require.Equal(t, cassandra.Instance{ID: "i~1", Role: cassandra.RoleStream, HeartbeatAt: now}, p)
	p, _ = find("i~2")
	require.Equal(t, cassandra.Instance{ID: "i~2", Role: cassandra.RoleStream, HeartbeatAt: now.Add(-time.Minute)}, p)

	require.NoError(t, s.AddSharedDevices(ctx, "i~1", []string{"b", "a"}))
	require.NoError(t, s.AddSharedDevices(ctx, "i~1", []string{"c", "a"}))
	require.NoError(t, s.RemoveSharedDevices(ctx, "i~1", []string{"b", "never"}))
	shared, err := s.SharedDevices(ctx, "i~1")
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"a", "c"}, shared)
	require.NoError(t, s.RemoveSharedDevices(ctx, "i~1", []string{"a", "c"}))
	shared, err = s.SharedDevices(ctx, "i~1")
	require.NoError(t, err)
	require.Empty(t, shared)

	require.NoError(t, s.RemoveInstance(ctx, "i~1"))
	_, ok = find("i~1")
	require.False(t, ok)
	require.NoError(t, s.AddSharedDevices(ctx, "i~1", []string{"a"}))
	_, ok = find("i~1")
	require.False(t, ok, "a late addition does not restore it")
	require.NoError(t, s.Heartbeat(ctx, "i~1", "", now))
	p, _ = find("i~1")
	require.Empty(t, p.Role, "a late heartbeat does not restore an instance")

	require.False(t, p.Fenced)
	require.NoError(t, s.Strong().FenceInstance(ctx, "i~2"))
	require.NoError(t, s.Heartbeat(ctx, "i~2", "", now))
	p, _ = find("i~2")
	require.True(t, p.Fenced, "a heartbeat does not remove the mark")

	hours := []cassandra.FleetHour{{"north", 3_600_000}, {"south", 0}}
	require.NoError(t, s.AddPendingHours(ctx, "i~2", hours))
	_, left, err := s.Leftovers(ctx, "i~2")
	require.NoError(t, err)
	require.Equal(t, hours, left)
	require.NoError(t, s.RemoveInstance(ctx, "i~2"))
	_, left, err = s.Leftovers(ctx, "i~2")
	require.NoError(t, err)
	require.Empty(t, left)
}
