package cassandra_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

func TestGeofencesAreKeptByFleet(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	const fleet = "fleet-geofences"
	circle := cassandra.Geofence{FleetID: fleet, Name: "depot", Kind: "depot", Geometry: `{"type":"Point","coordinates":[120,31]}`, RadiusM: ptr(150.0), SpeedLimitKmh: ptr(20.0), DwellS: ptr(int32(600))}
	area := cassandra.Geofence{FleetID: fleet, Name: "harbor", Geometry: `{"type":"Polygon","coordinates":[]}`}
	require.NoError(t, s.ApplyGeofences(ctx, fleet, cassandra.Put(readUs, area, circle)))
	geofences, err := s.Geofences(ctx, fleet)
	require.NoError(t, err)
	require.Equal(t, []cassandra.Geofence{circle, area}, geofences)
	require.NoError(t, s.ApplyGeofences(ctx, fleet, cassandra.Remove(readUs-1, area)))
	require.NoError(t, s.ApplyGeofences(ctx, fleet, cassandra.Remove(readUs, circle)))
	geofences, err = s.Geofences(ctx, fleet)
	require.NoError(t, err)
	require.Equal(t, []cassandra.Geofence{area}, geofences)
}
