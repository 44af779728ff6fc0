package cassandra

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gocql/gocql"
	"github.com/sirupsen/logrus"
)

// Admin is a connection to one node, for administration. It changes schemas and roles, and reads system tables.
type Admin struct {
	config Config
	driver *gocql.Session
}

// Connect connects to the first contact point that answers, and to no other node. With an empty keyspace, statements must
// name theirs.
func Connect(ctx context.Context, cfg Config, keyspace string, logger logrus.FieldLogger) (*Admin, error) {
	return connectNode(ctx, cfg.WithDefaults(), keyspace, newObserver(), logger)
}

// Close closes the connection.
func (a *Admin) Close() { a.driver.Close() }

// LocalDC is the data center of the configuration or else of the node.
func (a *Admin) LocalDC() string { return a.config.LocalDC }

// agreementTimeout is how long nodes may take to learn of a change of the schema.
const agreementTimeout = time.Minute

// Exec runs statements in order, and waits until the nodes agree on the schema. The node sees each of its changes before
// the next, so that one wait is enough: it takes one to two seconds.
func (a *Admin) Exec(ctx context.Context, statements ...string) error {
	if len(statements) == 0 {
		return nil
	}
	for _, statement := range statements {
		head, _, _ := strings.Cut(statement, "\n") // what follows may be a password
		if err := a.driver.Query(statement).WithContext(ctx).Exec(); err != nil {
			return opError("run "+head, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, agreementTimeout)
	defer cancel()
	for {
		versions, err := a.countNodes(ctx, "schema_version")
		delete(versions, "") // of a node that is joining
		if err == nil && len(versions) == 1 || err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return opError("wait until the nodes agree on the schema; check whether one is down", ctx.Err())
		}
	}
}

// countNodes counts the nodes of the cluster, up or down, by a column of their system tables.
func (a *Admin) countNodes(ctx context.Context, column string) (map[string]int, error) {
	nodes := map[string]int{}
	for _, table := range []string{"system.local", "system.peers"} {
		iter := a.driver.Query("SELECT " + column + " FROM " + table).WithContext(ctx).Consistency(gocql.One).Iter()
		var value string
		for iter.Scan(&value) {
			nodes[value]++
		}
		if err := iter.Close(); err != nil {
			return nil, opError("read "+table, err)
		}
	}
	return nodes, nil
}

// Version returns the release of Cassandra and the name of the cluster.
func (a *Admin) Version(ctx context.Context) (release, cluster string, err error) {
	err = a.driver.Query("SELECT release_version, cluster_name FROM system.local").WithContext(ctx).Consistency(gocql.One).Scan(&release, &cluster)
	return release, cluster, opError("read system.local", err)
}

// Nodes counts the nodes of each data center, up or down.
func (a *Admin) Nodes(ctx context.Context) (map[string]int, error) {
	return a.countNodes(ctx, "data_center")
}

// Replication reads the replication of the keyspace. The error says how to create a missing keyspace.
func (a *Admin) Replication(ctx context.Context) (Replication, error) {
	keyspace := a.config.Keyspace
	var options map[string]string
	err := a.driver.Query("SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?", keyspace).
		WithContext(ctx).Consistency(gocql.One).Scan(&options)
	if errors.Is(err, gocql.ErrNotFound) {
		return nil, &Error{Op: "open keyspace " + keyspace + " (" + a.config.Setting("CASSANDRA_KEYSPACE") + ")", Reason: ReasonNotFound,
			Err: errors.New("it does not exist; create it with: fleet-etl schema apply")}
	}
	if err != nil {
		return nil, opError("read replication of keyspace "+keyspace, err)
	}
	r := Replication{}
	for dc, replicas := range options {
		if dc == "class" {
			continue
		}
		if dc == "replication_factor" { // SimpleStrategy, which ignores data centers
			dc = "*"
		}
		r[dc], _ = strconv.Atoi(replicas)
	}
	return r, nil
}

// CheckLocalDC returns an error if the cluster does not have the local data center of the configuration.
func (a *Admin) CheckLocalDC(ctx context.Context) error {
	nodes, err := a.Nodes(ctx)
	if err == nil && nodes[a.config.LocalDC] == 0 {
		err = fmt.Errorf("local data center %q (%s): not in the cluster, which has %s",
			a.config.LocalDC, a.config.Setting("CASSANDRA_DC"), strings.Join(slices.Sorted(maps.Keys(nodes)), ", "))
	}
	return err
}

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
	keyspace := a.config.Keyspace
	iter := a.driver.Query("SELECT table_name, column_name, type, kind, position, clustering_order FROM system_schema.columns WHERE keyspace_name = ?", keyspace).
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

// TableOptions reads gc_grace_seconds and compaction of the tables of the keyspace, by table and option. The parts of
// compaction are options, for example "compaction class".
func (a *Admin) TableOptions(ctx context.Context) (map[string]map[string]string, error) {
	iter := a.driver.Query("SELECT table_name, gc_grace_seconds, compaction FROM system_schema.tables WHERE keyspace_name = ?", a.config.Keyspace).
		WithContext(ctx).Consistency(gocql.One).Iter()
	options := map[string]map[string]string{}
	var table string
	var grace int
	for {
		var compaction map[string]string
		if !iter.Scan(&table, &grace, &compaction) {
			return options, opError("read tables of keyspace "+a.config.Keyspace, iter.Close())
		}
		options[table] = map[string]string{"gc_grace_seconds": fmt.Sprint(grace)}
		for name, value := range compaction {
			options[table]["compaction "+name] = value
		}
	}
}
