package cassandra

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
)

// Tables of the keyspace.
const (
	TableHistory       = "telemetry_by_device_day"
	TableLatest        = "latest_telemetry_by_device"
	TableLatestByFleet = "latest_telemetry_by_fleet"
	TableDevices       = "devices_by_fleet"
	TableFleets        = "fleets"
	TableAlerts        = "alerts_by_fleet_day"
	TableAnalytics     = "fleet_analytics_by_day"
	TableGeofences     = "geofences_by_fleet"

	TableDeviceDays       = "device_days"
	TableHours            = "hours_by_fleet"
	TableTrips            = "trips_by_device_month"
	TableDeviceAlerts     = "alerts_by_device_month"
	TableOpenAlerts       = "open_alerts_by_fleet"
	TableInstances        = "etl_instances"
	TableClaims           = "claims_by_device"
	TableClaimsByInstance = "claims_by_instance"
	TablePendingHours     = "pending_hours_by_instance"
)

// DerivedTables hold the rows that follow from stored telemetry, and the instances that derive them.
var DerivedTables = []string{
	TableAlerts, TableAnalytics, TableDeviceDays, TableHours, TableTrips, TableDeviceAlerts, TableOpenAlerts,
	TableInstances, TableClaims, TableClaimsByInstance, TablePendingHours,
}

var tables = append([]string{TableHistory, TableLatest, TableLatestByFleet, TableDevices, TableFleets, TableGeofences}, DerivedTables...)

// Store is one store per concern on a shared session. A caller that needs a single concern takes that store alone.
// It is safe for concurrent use.
type Store struct {
	*Session
	TelemetryStore
	RegistryStore
	AlertStore
	TripStore
	RollupStore
	StateStore
	ClaimStore
	GeofenceStore
	QueryStore
}

// NewStore makes the stores of a session.
func NewStore(s *Session) *Store {
	return &Store{
		Session:        s,
		TelemetryStore: TelemetryStore{s},
		RegistryStore:  RegistryStore{s},
		AlertStore:     AlertStore{s},
		TripStore:      TripStore{s},
		RollupStore:    RollupStore{s},
		StateStore:     StateStore{s},
		ClaimStore:     ClaimStore{s},
		GeofenceStore:  GeofenceStore{s},
		QueryStore:     QueryStore{s},
	}
}

// Open is OpenSession with every store on the session.
func Open(ctx context.Context, cfg Config, logger logrus.FieldLogger, reg prometheus.Registerer) (*Store, error) {
	s, err := OpenSession(ctx, cfg, logger, reg)
	if err != nil {
		return nil, err
	}
	return NewStore(s), nil
}

// Strong is the store on Session.Strong.
func (s *Store) Strong() *Store { return NewStore(s.Session.Strong()) }

// Fallback is the store on Session.Fallback.
func (s *Store) Fallback() *Store { return NewStore(s.Session.Fallback()) }
