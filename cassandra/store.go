package cassandra

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
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

	TableDeviceDays     = "device_days"
	TableHours          = "hours_by_fleet"
	TableTrips          = "trips_by_device_month"
	TableDeviceAlerts   = "alerts_by_device_month"
	TableOpenAlerts     = "open_alerts_by_fleet"
	TableProcesses      = "etl_processes"
	TableMarks          = "marks_by_device"
	TableMarksByProcess = "marks_by_process"
)

// DerivedTables are the tables of what is derived from the stored telemetry, and of who derives it.
var DerivedTables = []string{
	TableAlerts, TableAnalytics, TableDeviceDays, TableHours, TableTrips, TableDeviceAlerts, TableOpenAlerts,
	TableProcesses, TableMarks, TableMarksByProcess,
}

var tables = append([]string{TableHistory, TableLatest, TableLatestByFleet, TableDevices, TableFleets, TableGeofences}, DerivedTables...)

// Store is an open session on the keyspace. It is safe for concurrent use.
type Store struct {
	session *gocql.Session
	config  Config
	write   gocql.Consistency
	read    gocql.Consistency

	replication Replication
	reads       chan struct{} // a place for each partition that may be read at once; nil: no bound
	unregister  func()
}

// Open connects to the keyspace and checks that its replication can serve the levels of the configuration. It tries
// once: whoever can wait calls it again while ReasonOf its error advises so. reg may be nil.
func Open(ctx context.Context, cfg Config, logger logrus.FieldLogger, reg prometheus.Registerer) (*Store, error) {
	cfg = cfg.withDefaults()
	o := newObserver(nil)
	if cfg.LocalDC == "" {
		var err error
		if cfg.LocalDC, err = nearestDC(ctx, cfg, o, logger); err != nil {
			return nil, err
		}
	}
	replication, levels, err := inspect(ctx, cfg, o, logger)
	if err != nil {
		return nil, err
	}
	session, err := connect(ctx, cfg, cfg.Keyspace, o, logger)
	if err != nil {
		return nil, err
	}
	s := &Store{session: session, config: cfg, write: levels.write, read: levels.read, replication: replication, unregister: func() {}}
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
	return s, nil
}

// Close ends the session and takes its metrics off the registry. It waits for nothing: requests under way fail.
func (s *Store) Close() {
	s.session.Close()
	s.unregister()
}

// Sure is the store with reads at the lowest level that meets every acknowledged write. It shares the session.
func (s *Store) Sure() *Store {
	sure := *s
	sure.read = overlapping(s.write, s.replication)
	return &sure
}

// LikeWrites is the store with reads at the level of writes: for when too few replicas live for Sure.
func (s *Store) LikeWrites() *Store {
	like := *s
	like.read = s.write
	return &like
}

// WriteConsistency is the level that writes are made at.
func (s *Store) WriteConsistency() string { return s.write.String() }

// ReadConsistency is the level that reads are made at, unless one says otherwise.
func (s *Store) ReadConsistency() string { return s.read.String() }

// LocalDC is the data centre whose nodes are spoken to.
func (s *Store) LocalDC() string { return s.config.LocalDC }

// Replication is that of the keyspace when the session was opened.
func (s *Store) Replication() Replication { return maps.Clone(s.replication) }

// Nodes is how many nodes the cluster knows, dead or alive.
func (s *Store) Nodes(ctx context.Context) (n int, err error) {
	byDC, err := nodesByDC(ctx, s.session)
	for _, nodes := range byDC {
		n += nodes
	}
	return n, err
}

// Ready tells whether the cluster answers at the level of writes: a small read at that level, since a level needs the
// same replicas for both.
func (s *Store) Ready(ctx context.Context) error {
	err := s.query(ctx, selectReady).Consistency(s.write).Exec()
	return opError("ask "+TableFleets+" at "+s.write.String(), err)
}

// connect opens a driver session; with an empty keyspace one that can only look at the system's tables and make
// keyspaces.
func connect(ctx context.Context, cfg Config, keyspace string, o *observer, logger logrus.FieldLogger) (*gocql.Session, error) {
	if len(cfg.Hosts) == 0 {
		return nil, fmt.Errorf("connect to Cassandra: no contact points; set %s", cfg.setting("CASSANDRA_HOSTS"))
	}
	cluster := gocql.NewCluster(cfg.Hosts...)
	cluster.Port = cfg.Port
	cluster.Keyspace = keyspace
	cluster.ProtoVersion = 4
	cluster.NumConns = cfg.Connections
	cluster.Timeout = cfg.Timeout
	cluster.WriteTimeout = cfg.Timeout
	cluster.ConnectTimeout = cfg.ConnectTimeout
	cluster.ReconnectInterval = reconnectInterval
	cluster.RetryPolicy = nil // retries are the caller's: it knows what they cost
	cluster.QueryObserver = o
	cluster.BatchObserver = o
	cluster.ConnectObserver = o
	cluster.Logger = driverLog{logger}
	// Local replicas first, then other local nodes; remote ones only when no local node has a connection.
	nodes := gocql.RoundRobinHostPolicy()
	if cfg.LocalDC != "" {
		nodes = gocql.DCAwareRoundRobinPolicy(cfg.LocalDC)
	}
	cluster.PoolConfig.HostSelectionPolicy = gocql.TokenAwareHostPolicy(nodes, gocql.ShuffleReplicas())
	if cfg.Username != "" {
		cluster.Authenticator = gocql.PasswordAuthenticator{Username: cfg.Username, Password: cfg.Password}
	}
	if cfg.TLS != nil {
		cluster.SslOpts = &gocql.SslOptions{Config: cfg.TLS, EnableHostVerification: !cfg.TLS.InsecureSkipVerify}
	}

	if cfg.alone {
		cluster.DisableInitialHostLookup = true
	}
	if cfg.hasty {
		cluster.MaxWaitSchemaAgreement = time.Nanosecond
	}

	type opened struct {
		session *gocql.Session
		err     error
	}
	done := make(chan opened, 1)
	go func() {
		session, err := cluster.CreateSession()
		done <- opened{session, err}
	}()
	select {
	case got := <-done:
		if got.err != nil {
			return nil, connectError(cfg, got.err, o.lastConnectError())
		}
		return got.session, nil
	case <-ctx.Done():
		go func() { // the driver can't be told to stop; whatever it still opens is closed
			if late := <-done; late.session != nil {
				late.session.Close()
			}
		}()
		return nil, opError("connect to Cassandra", ctx.Err())
	}
}

// nearestDC is the data centre of the first contact point that answers.
func nearestDC(ctx context.Context, cfg Config, o *observer, logger logrus.FieldLogger) (string, error) {
	var failed error
	for _, host := range cfg.Hosts {
		one := cfg
		one.Hosts, one.alone = []string{host}, true
		session, err := connect(ctx, one, "", o, logger)
		if err == nil {
			var dc string
			err = session.Query("SELECT data_center FROM system.local").WithContext(ctx).Consistency(gocql.One).Scan(&dc)
			session.Close()
			if err == nil {
				return dc, nil
			}
			err = opError("read system.local of "+host, err)
		}
		failed = err
		if ctx.Err() != nil {
			break
		}
	}
	if len(cfg.Hosts) > 1 && ReasonOf(failed) == ReasonNoHosts {
		return "", connectError(cfg, errors.New("no contact point answers; the last: "+failed.Error()), o.lastConnectError())
	}
	if failed == nil {
		_, failed = connect(ctx, cfg, "", o, logger) // no contact points: it says so
	}
	return "", failed
}

// connectError says who could not be reached and why. The driver flattens its reason to text, so the reason is taken
// from the last connection that was seen to fail.
func connectError(cfg Config, err, seen error) error {
	reason := ReasonNoHosts
	switch {
	case seen != nil && classify(seen) == ReasonUnauthorized:
		reason, err = ReasonUnauthorized, seen
	case strings.Contains(err.Error(), "authentication required"):
		reason, err = ReasonUnauthorized, fmt.Errorf("%w; set %s and %s", err, cfg.setting("CASSANDRA_USERNAME"), cfg.setting("CASSANDRA_PASSWORD"))
	}
	return &Error{Op: "connect to Cassandra at " + strings.Join(cfg.Hosts, ", "), Reason: reason, Err: err}
}

// reconnectInterval is how often nodes that are down are tried again. The driver's own minute is far too long for a
// loader that waits for them.
const reconnectInterval = 2 * time.Second

// driverLog lets the driver's complaints through as debug lines: what matters of them shows as errors and metrics.
type driverLog struct{ logger logrus.FieldLogger }

func (l driverLog) Print(v ...any) { l.logger.WithField("message", fmt.Sprint(v...)).Debug("driver") }
func (l driverLog) Printf(format string, v ...any) {
	l.Print(strings.TrimSpace(fmt.Sprintf(format, v...)))
}
func (l driverLog) Println(v ...any) { l.Print(strings.TrimSpace(fmt.Sprintln(v...))) }
