package cassandra

import (
	"context"
	"maps"

	"github.com/gocql/gocql"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
)

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

// OpenSession connects to the keyspace and checks that its replication can serve the consistency levels of the
// configuration. It tries once: a caller that can wait calls it again while ReasonOf(err).Advice() allows. The metrics
// are registered on reg, which may be nil.
func OpenSession(ctx context.Context, cfg Config, logger logrus.FieldLogger, reg prometheus.Registerer) (*Session, error) {
	cfg = cfg.WithDefaults()
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
	return s, nil
}

// Close ends the session and unregisters its metrics. It does not wait: requests in flight fail.
func (s *Session) Close() {
	s.driver.Close()
	s.unregister()
}

// Strong returns the session with reads at the lowest level that overlaps every acknowledged write (R + W > N).
func (s *Session) Strong() *Session { return s.reading(overlapping(s.write, s.replication)) }

// Fallback returns the session with reads at the level of writes, for when too few replicas are up for Strong.
func (s *Session) Fallback() *Session { return s.reading(s.write) }

func (s *Session) reading(level gocql.Consistency) *Session {
	view := *s
	view.read = level
	return &view
}

// WriteConsistency is the consistency level of writes.
func (s *Session) WriteConsistency() string { return s.write.String() }

// ReadConsistency is the consistency level of reads.
func (s *Session) ReadConsistency() string { return s.read.String() }

// LocalDC is the data center whose nodes coordinate the requests.
func (s *Session) LocalDC() string { return s.config.LocalDC }

// Replication is the replication of the keyspace when the session was opened.
func (s *Session) Replication() Replication { return maps.Clone(s.replication) }

// Nodes counts the nodes of the cluster, up or down.
func (s *Session) Nodes(ctx context.Context) (n int, err error) {
	byDC, err := nodesByDC(ctx, s.driver)
	for _, nodes := range byDC {
		n += nodes
	}
	return n, err
}

// selectReady reads at most one row. A read needs the same replicas as a write at the same level.
const selectReady = "SELECT fleet_id FROM fleets WHERE shard = 0 LIMIT 1"

// Ready returns an error if the cluster does not answer at the consistency level of writes.
func (s *Session) Ready(ctx context.Context) error {
	err := s.query(ctx, selectReady).Consistency(s.write).Exec()
	return opError("read "+TableFleets+" at "+s.write.String(), err)
}
