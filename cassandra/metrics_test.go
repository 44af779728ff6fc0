package cassandra

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDescribe(t *testing.T) {
	for _, c := range []struct{ statement, operation, table string }{
		{insertHistory, "write", TableHistory},
		{insertLatest, "write", TableLatest},
		{insertLatestByFleet, "write", TableLatestByFleet},
		{deleteLatestByFleet, "write", TableLatestByFleet},
		{insertDeviceStatus, "write", TableDevices},
		{insertFleet, "write", TableFleets},
		{insertDeviceSince, "write", TableDevices},
		{insertGeofence, "write", TableGeofences},
		{deleteGeofence, "write", TableGeofences},
		{insertAnalytics, "write", TableAnalytics},
		{deleteAnalytics, "write", TableAnalytics},
		{updateDeviceDay, "write", TableDeviceDays},
		{insertHour, "write", TableHours},
		{insertTrip, "write", TableTrips},
		{deleteTrip, "write", TableTrips},
		{insertDeviceAlert, "write", TableDeviceAlerts},
		{deleteDeviceAlert, "write", TableDeviceAlerts},
		{insertFleetAlert, "write", TableAlerts},
		{insertFleetAlertEnded, "write", TableAlerts},
		{insertFleetAlertOpen, "write", TableAlerts},
		{deleteFleetAlert, "write", TableAlerts},
		{insertOpenAlert, "write", TableOpenAlerts},
		{deleteOpenAlert, "write", TableOpenAlerts},
		{updateHeartbeat, "write", TableInstances},
		{insertSharedDevice, "write", TableSharedDevices},
		{deleteSharedDevice, "write", TableSharedDevices},
		{deleteInstance, "write", TableInstances},
		{updateClaim, "write", TableClaims},
		{deleteClaim, "write", TableClaims},
		{insertClaimByInstance, "write", TableClaimsByInstance},
		{deleteClaimByInstance, "write", TableClaimsByInstance},
		{selectHistoryLimit, "read", TableHistory},
		{selectLatest, "read", TableLatest},
		{selectLatestFleet, "read", TableLatestByFleet},
		{selectWriteTimes, "read", TableLatest},
		{selectDevices, "read", TableDevices},
		{selectFleets, "read", TableFleets},
		{insertAlertResolved, "write", TableAlerts},
		{selectAnalytics, "read", TableAnalytics},
		{selectDeviceIDs, "read", TableDevices},
		{selectGeofences, "read", TableGeofences},
		{selectTrack, "read", TableHistory},
		{selectPositions, "read", TableHistory},
		{selectLastDeviceDay, "read", TableDeviceDays},
		{selectDeviceDays, "read", TableDeviceDays},
		{selectHours, "read", TableHours},
		{selectTrips, "read", TableTrips},
		{selectDeviceAlerts, "read", TableDeviceAlerts},
		{selectFleetAlerts, "read", TableAlerts},
		{selectOpenAlerts, "read", TableOpenAlerts},
		{selectSharedDevices, "read", TableSharedDevices},
		{selectOpenAlertsOfDevice, "read", TableOpenAlerts},
		{selectInstances, "read", TableInstances},
		{selectClaims, "read", TableClaims},
		{selectClaimsByInstance, "read", TableClaimsByInstance},
		{"SELECT data_center FROM system.peers", "read", ""},
	} {
		operation, table := describe(c.statement)
		require.Equal(t, c.operation, operation, c.statement)
		require.Equal(t, c.table, table, c.statement)
	}
}

func TestOpenAlertsExpire(t *testing.T) {
	require.Contains(t, insertOpenAlert, fmt.Sprintf(" AND TTL %d", int(OpenAlertTTL.Seconds())))
}
