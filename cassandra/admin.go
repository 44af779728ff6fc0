package cassandra

import (
	"context"
	"fmt"
	"strings"

	"github.com/gocql/gocql"
	"github.com/sirupsen/logrus"
)

// Admin is a connection for administration. It changes schemas and roles, and reads system tables.
type Admin struct {
	config    Config
	driver    *gocql.Session
	agreement *gocql.Session // of the same node; waits for schema agreement
}

// Connect connects to the cluster without a keyspace. Each schema change waits until the nodes agree.
func Connect(ctx context.Context, cfg Config, logger logrus.FieldLogger) (*Admin, error) {
	cfg = cfg.WithDefaults()
	session, err := connect(ctx, cfg, "", newObserver(nil), logger)
	if err != nil {
		return nil, err
	}
	return &Admin{config: cfg, driver: session, agreement: session}, nil
}

// ConnectNode connects to the keyspace on the first contact point that answers, and to no other node. A single node sees
// each of its changes before the next, so that changes need not wait for agreement: call AwaitAgreement at the end.
func ConnectNode(ctx context.Context, cfg Config, logger logrus.FieldLogger) (*Admin, error) {
	cfg = cfg.WithDefaults()
	cfg.alone = true
	var failed error
	for _, host := range cfg.Hosts {
		cfg.Hosts, cfg.hasty = []string{host}, false
		agreement, err := connect(ctx, cfg, cfg.Keyspace, newObserver(nil), logger)
		if err != nil {
			failed = err
			continue
		}
		cfg.hasty = true
		driver, err := connect(ctx, cfg, cfg.Keyspace, newObserver(nil), logger)
		if err != nil {
			agreement.Close()
			return nil, err
		}
		return &Admin{config: cfg, driver: driver, agreement: agreement}, nil
	}
	if failed == nil {
		_, failed = connect(ctx, cfg, cfg.Keyspace, newObserver(nil), logger) // returns the error about missing contact points
	}
	return nil, failed
}

// Close closes the connection.
func (a *Admin) Close() {
	a.driver.Close()
	a.agreement.Close()
}

// Exec runs statements in order.
func (a *Admin) Exec(ctx context.Context, statements ...string) error {
	for _, statement := range statements {
		head, _, _ := strings.Cut(statement, "\n") // what follows may be a password
		if err := a.driver.Query(statement).WithContext(ctx).Exec(); err != nil {
			return opError("run "+head, err)
		}
	}
	return nil
}

// AwaitAgreement waits until the nodes agree on the schema. Only the node that made a change is sure to know of it.
func (a *Admin) AwaitAgreement(ctx context.Context) error {
	return opError("wait until the nodes agree on the schema", a.agreement.AwaitSchemaAgreement(ctx))
}

// Version returns the release of Cassandra and the name of the cluster.
func (a *Admin) Version(ctx context.Context) (release, cluster string, err error) {
	err = a.driver.Query("SELECT release_version, cluster_name FROM system.local").WithContext(ctx).Consistency(gocql.One).Scan(&release, &cluster)
	return release, cluster, opError("read system.local", err)
}

// Nodes counts the nodes of each data center, up or down.
func (a *Admin) Nodes(ctx context.Context) (map[string]int, error) { return nodesByDC(ctx, a.driver) }

// Replication reads the replication of the keyspace. The error says how to create a missing keyspace.
func (a *Admin) Replication(ctx context.Context) (Replication, error) {
	return replicationOf(ctx, a.driver, a.config)
}

// CheckLocalDC returns an error if the cluster does not have the local data center of the configuration.
func (a *Admin) CheckLocalDC(ctx context.Context) error { return checkLocalDC(ctx, a.driver, a.config) }

// CheckConsistency returns an error if the replication cannot serve the consistency levels of the configuration even with
// every node up.
func (a *Admin) CheckConsistency(replication Replication) error {
	_, err := chooseLevels(a.config, replication)
	return err
}

// Column is the type and the kind of a column: a partition or clustering key with its position, or regular.
type Column struct{ Type, Kind string }

// Columns reads the columns of the keyspace, by table and name.
func (a *Admin) Columns(ctx context.Context) (map[string]map[string]Column, error) {
	return columnsOf(ctx, a.driver, a.config.Keyspace)
}

func columnsOf(ctx context.Context, session *gocql.Session, keyspace string) (map[string]map[string]Column, error) {
	iter := session.Query("SELECT table_name, column_name, type, kind, position, clustering_order FROM system_schema.columns WHERE keyspace_name = ?", keyspace).
		WithContext(ctx).Consistency(gocql.One).Iter()
	columns := map[string]map[string]Column{}
	var table, name, cqlType, kind, order string
	var position int
	for iter.Scan(&table, &name, &cqlType, &kind, &position, &order) {
		if columns[table] == nil {
			columns[table] = map[string]Column{}
		}
		columns[table][name] = Column{cqlType, ColumnKind(kind, position, order)}
	}
	return columns, opError("read columns of keyspace "+keyspace, iter.Close())
}

// ColumnKind describes the kind, the position from 0 and the order of a column as system_schema.columns has them.
func ColumnKind(kind string, position int, order string) string {
	switch kind {
	case "partition_key":
		return fmt.Sprintf("partition key %d", position+1)
	case "clustering":
		return fmt.Sprintf("clustering key %d %s", position+1, order)
	default:
		return kind
	}
}

// TableOptions reads gc_grace_seconds and compaction of the tables of the keyspace, by table and option. The value of a
// number has the name "".
func (a *Admin) TableOptions(ctx context.Context) (map[string]map[string]map[string]string, error) {
	iter := a.driver.Query("SELECT table_name, gc_grace_seconds, compaction FROM system_schema.tables WHERE keyspace_name = ?", a.config.Keyspace).
		WithContext(ctx).Consistency(gocql.One).Iter()
	options := map[string]map[string]map[string]string{}
	var table string
	var grace int
	for {
		var compaction map[string]string
		if !iter.Scan(&table, &grace, &compaction) {
			return options, opError("read tables of keyspace "+a.config.Keyspace, iter.Close())
		}
		options[table] = map[string]map[string]string{"gc_grace_seconds": {"": fmt.Sprint(grace)}, "compaction": compaction}
	}
}

// NearestDC returns the data center of the first contact point that answers.
func NearestDC(ctx context.Context, cfg Config, logger logrus.FieldLogger) (string, error) {
	return nearestDC(ctx, cfg.WithDefaults(), newObserver(nil), logger)
}
