package cassandra

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gocql/gocql"
	"github.com/sirupsen/logrus"
)

// connect opens a driver session. With an empty keyspace, statements must name theirs.
func connect(ctx context.Context, cfg Config, keyspace string, o *observer, logger logrus.FieldLogger) (*gocql.Session, error) {
	if ctx.Err() != nil { // an attempt that fails at once must not hide the reason
		return nil, opError("connect to Cassandra", ctx.Err())
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
	cluster.RetryPolicy = nil // the caller decides on retries
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
		cluster.MaxWaitSchemaAgreement = time.Nanosecond // Admin.Exec waits, once for all of its statements
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
		go func() { // CreateSession cannot be canceled; close the session if it still opens
			if late := <-done; late.session != nil {
				late.session.Close()
			}
		}()
		return nil, opError("connect to Cassandra", ctx.Err())
	}
}

// connectNode connects to the first contact point that answers, and to no other node. If the configuration has no local
// data center, that of the node becomes it.
func connectNode(ctx context.Context, cfg Config, keyspace string, o *observer, logger logrus.FieldLogger) (*Admin, error) {
	failed := fmt.Errorf("connect to Cassandra: no contact points; set %s", cfg.Setting("CASSANDRA_HOSTS"))
	for _, host := range cfg.Hosts {
		node := cfg
		node.Hosts, node.alone = []string{host}, true
		session, err := connect(ctx, node, keyspace, o, logger)
		if err == nil && cfg.LocalDC == "" {
			if err = session.Query("SELECT data_center FROM system.local").WithContext(ctx).Consistency(gocql.One).Scan(&cfg.LocalDC); err != nil {
				session.Close()
				err = opError("read system.local of "+host, err)
			}
		}
		if err == nil {
			return &Admin{config: cfg, driver: session}, nil
		}
		failed = err
		if ctx.Err() != nil || ReasonOf(err) == ReasonUnauthorized {
			break
		}
	}
	if len(cfg.Hosts) > 1 && ReasonOf(failed) == ReasonNoHosts {
		failed = connectError(cfg, errors.New("no contact point answers; last error: "+failed.Error()), o.lastConnectError())
	}
	return nil, failed
}

// connectError names the contact points and the reason. The driver reduces its error to text, so the reason is that of
// the last failed connection.
func connectError(cfg Config, err, seen error) error {
	reason := ReasonNoHosts
	switch {
	case seen != nil && classify(seen) == ReasonUnauthorized:
		reason, err = ReasonUnauthorized, seen
	case strings.Contains(err.Error(), "authentication required"):
		reason, err = ReasonUnauthorized, fmt.Errorf("%w; set %s and %s", err, cfg.Setting("CASSANDRA_USERNAME"), cfg.Setting("CASSANDRA_PASSWORD"))
	}
	return &Error{Op: "connect to Cassandra at " + strings.Join(cfg.Hosts, ", "), Reason: reason, Err: err}
}

// reconnectInterval is the time between two attempts to reach a node that is down. The driver's default of a minute is
// far too long for a writer that waits for it.
const reconnectInterval = 2 * time.Second

// driverLog logs the driver's messages at debug level: errors and metrics report the same faults.
type driverLog struct{ logger logrus.FieldLogger }

func (l driverLog) Print(v ...any) { l.logger.WithField("message", fmt.Sprint(v...)).Debug("driver") }

func (l driverLog) Printf(format string, v ...any) {
	l.Print(strings.TrimSpace(fmt.Sprintf(format, v...)))
}

func (l driverLog) Println(v ...any) { l.Print(strings.TrimSpace(fmt.Sprintln(v...))) }
