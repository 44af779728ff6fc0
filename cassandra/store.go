package cassandra

import (
	"context"
	"time"

	"github.com/gocql/gocql"
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
	TableOwners        = "owner_by_device"
	TableFormerOwners  = "former_owners_by_device"

	TableDeviceDays       = "device_days"
	TableHours            = "hours_by_fleet"
	TableTrips            = "trips_by_device_month"
	TableDeviceAlerts     = "alerts_by_device_month"
	TableOpenAlerts       = "open_alerts_by_fleet"
	TableInstances        = "etl_instances"
	TableSharedDevices    = "shared_devices_by_instance"
	TableClaims           = "claims_by_device"
	TableClaimsByInstance = "claims_by_instance"
	TablePendingHours     = "pending_hours_by_instance"
)

// DerivedTables hold the rows that follow from stored telemetry, and the instances that derive them.
var DerivedTables = []string{
	TableAlerts, TableAnalytics, TableDeviceDays, TableHours, TableTrips, TableDeviceAlerts, TableOpenAlerts,
	TableInstances, TableSharedDevices, TableClaims, TableClaimsByInstance, TablePendingHours,
}

var tables = append([]string{TableHistory, TableLatest, TableLatestByFleet, TableDevices, TableFleets, TableGeofences, TableOwners, TableFormerOwners}, DerivedTables...)

// Store is one store per concern on a shared session. It is safe for concurrent use.
type Store struct {
	*Session
	TelemetryStore
	RegistryStore
	OwnerStore
	AlertStore
	TripStore
	RollupStore
	StateStore
	ClaimStore
	GeofenceStore
	QueryStore
}

func newStore(s *Session) *Store {
	return &Store{
		s, TelemetryStore{s}, RegistryStore{s}, OwnerStore{s}, AlertStore{s}, TripStore{s}, RollupStore{s}, StateStore{s}, ClaimStore{s}, GeofenceStore{s}, QueryStore{s},
	}
}

// Strong returns the store with reads at the lowest level that overlaps every acknowledged write (R + W > N).
func (s *Store) Strong() *Store { return s.at(overlapping(s.write, s.replication)) }

// Fallback returns the store with reads at the level of writes, for when too few replicas are up for Strong.
func (s *Store) Fallback() *Store { return s.at(s.write) }

func (s *Store) at(level gocql.Consistency) *Store {
	view := *s.Session
	view.read = level
	return newStore(&view)
}

// Session is an open connection to the keyspace. It sends the requests of every store, at one consistency level for
// writes and one for reads. It is safe for concurrent use.
type Session struct {
	driver      *gocql.Session
	config      Config
	write       gocql.Consistency
	read        gocql.Consistency
	replication Replication
	reads       chan struct{} // a slot for each partition that may be read at once; nil: unlimited
	unregister  func()
}

// HistoryID returns the id of the telemetry table. It differs between clusters and keyspaces, and a keyspace that is dropped
// and created again gets another.
func (s *Session) HistoryID(ctx context.Context) (string, error) {
	var id gocql.UUID
	err := s.driver.Query("SELECT id FROM system_schema.tables WHERE keyspace_name = ? AND table_name = ?", s.config.Keyspace, TableHistory).
		WithContext(ctx).Consistency(gocql.One).Scan(&id)
	return id.String(), opError("read id of table "+TableHistory, err)
}

// ClusterTime returns the time of the node that coordinates the request, in milliseconds.
func (s *Session) ClusterTime(ctx context.Context) (time.Time, error) {
	var now gocql.UUID
	err := s.driver.Query("SELECT now() FROM system.local").WithContext(ctx).Consistency(gocql.One).Scan(&now)
	return now.Time(), opError("read the time of a node", err)
}

// Open connects to the keyspace and checks that its replication can serve the consistency levels of the configuration. It
// tries once: a caller that can wait calls it again while ReasonOf(err).Advice() allows. The metrics are registered on reg,
// which may be nil.
func Open(ctx context.Context, cfg Config, logger logrus.FieldLogger, reg prometheus.Registerer) (*Store, error) {
	o := newObserver()
	admin, err := connectNode(ctx, cfg.WithDefaults(), "", o, logger)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	cfg = admin.config
	if err := admin.CheckLocalDC(ctx); err != nil {
		return nil, err
	}
	replication, err := admin.Replication(ctx)
	if err != nil {
		return nil, err
	}
	levels, err := chooseLevels(cfg, replication)
	if err != nil {
		return nil, err
	}
	driver, err := connect(ctx, cfg, cfg.Keyspace, o, logger)
	if err != nil {
		return nil, err
	}
	s := &Session{driver: driver, config: cfg, write: levels.write, read: levels.read, replication: replication, unregister: func() {}}
	if cfg.ReadsInFlight > 0 {
		s.reads = make(chan struct{}, cfg.ReadsInFlight)
	}
	if reg != nil {
		metrics := []prometheus.Collector{o.duration, o.errors, o.hosts, o.connects}
		reg.MustRegister(metrics...)
		s.unregister = func() {
			for _, metric := range metrics {
				reg.Unregister(metric)
			}
		}
	}
	return newStore(s), nil
}

// Close ends the connection and unregisters its metrics. It does not wait: requests in flight fail.
func (s *Session) Close() {
	s.driver.Close()
	s.unregister()
}

// WriteConsistency is the consistency level of writes.
func (s *Session) WriteConsistency() string { return s.write.String() }

// ReadConsistency is the consistency level of reads.
func (s *Session) ReadConsistency() string { return s.read.String() }

// Replication is the replication of the keyspace when the store was opened.
func (s *Session) Replication() Replication { return s.replication }

// selectReady reads at most one row. A read needs the same replicas as a write at the same level.
const selectReady = "SELECT fleet_id FROM fleets WHERE shard = 0 LIMIT 1"

// Ready returns an error if the cluster does not answer at the consistency level of writes.
func (s *Session) Ready(ctx context.Context) error {
	err := s.query(ctx, selectReady).Consistency(s.write).Exec()
	return opError("read "+TableFleets+" at "+s.write.String(), err)
}
