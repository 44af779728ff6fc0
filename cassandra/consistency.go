package cassandra

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/gocql/gocql"
	"github.com/sirupsen/logrus"
)

// levels are the consistency levels of a session.
type levels struct{ write, read gocql.Consistency }

// inspect checks the settings against the cluster and the keyspace before the first write.
func inspect(ctx context.Context, cfg Config, o *observer, logger logrus.FieldLogger) (Replication, levels, error) {
	session, err := connect(ctx, cfg, "", o, logger)
	if err != nil {
		return nil, levels{}, err
	}
	defer session.Close()
	if err := checkLocalDC(ctx, session, cfg); err != nil {
		return nil, levels{}, err
	}
	replication, err := replicationOf(ctx, session, cfg)
	if err != nil {
		return nil, levels{}, err
	}
	chosen, err := chooseLevels(cfg, replication)
	if err != nil {
		return nil, levels{}, err
	}
	if cfg.WriteConsistency == "" && chosen.write == gocql.One {
		logger.WithFields(logrus.Fields{"keyspace": cfg.Keyspace, "replication": replication.String()}).
			Info("keyspace has a single replica, writing at ONE")
	}
	return replication, chosen, nil
}

// nodesByDC counts the nodes of the cluster, up or down, by data center.
func nodesByDC(ctx context.Context, session *gocql.Session) (map[string]int, error) {
	nodes := map[string]int{}
	for _, table := range []string{"system.local", "system.peers"} {
		iter := session.Query("SELECT data_center FROM " + table).WithContext(ctx).Iter()
		var dc string
		for iter.Scan(&dc) {
			nodes[dc]++
		}
		if err := iter.Close(); err != nil {
			return nil, opError("read "+table, err)
		}
	}
	return nodes, nil
}

func checkLocalDC(ctx context.Context, session *gocql.Session, cfg Config) error {
	if cfg.LocalDC == "" {
		return nil
	}
	nodes, err := nodesByDC(ctx, session)
	if err != nil {
		return err
	}
	if nodes[cfg.LocalDC] == 0 {
		return fmt.Errorf("local data center %q (%s): not in the cluster, which has %s",
			cfg.LocalDC, cfg.Setting("CASSANDRA_DC"), strings.Join(slices.Sorted(maps.Keys(nodes)), ", "))
	}
	return nil
}

// replicationOf reads the replication of the keyspace. The error says how to create a missing keyspace.
func replicationOf(ctx context.Context, session *gocql.Session, cfg Config) (Replication, error) {
	keyspace := cfg.Keyspace
	var options map[string]string
	err := session.Query("SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?", keyspace).
		WithContext(ctx).Consistency(gocql.One).Scan(&options)
	if err != nil {
		if errors.Is(err, gocql.ErrNotFound) {
			return nil, &Error{Op: "open keyspace " + keyspace + " (" + cfg.Setting("CASSANDRA_KEYSPACE") + ")", Reason: ReasonNotFound,
				Err: errors.New("it does not exist; create it with: fleet-etl schema apply")}
		}
		return nil, opError("read replication of keyspace "+keyspace, err)
	}
	r := Replication{}
	for key, value := range options {
		switch key {
		case "class":
		case "replication_factor": // SimpleStrategy, which ignores data centers
			n, _ := strconv.Atoi(value)
			r["*"] = n
		default:
			n, _ := strconv.Atoi(value)
			r[key] = n
		}
	}
	return r, nil
}

// chooseLevels returns the consistency levels of the configuration or their defaults. It returns an error if the replication
// cannot serve them even with every node up.
func chooseLevels(cfg Config, replication Replication) (levels, error) {
	write := cfg.WriteConsistency
	if write == "" {
		// LOCAL_QUORUM of two replicas is both: one node down would stop all writes. Any two of all replicas survive the
		// loss of a node and of a data center.
		write = "TWO"
		if replication.Total() < 2 {
			write = "ONE"
		}
	}
	w, err := checkLevel(cfg.Setting("CASSANDRA_WRITE_CONSISTENCY"), write, cfg, replication)
	if err != nil {
		return levels{}, err
	}
	r, err := checkLevel(cfg.Setting("CASSANDRA_READ_CONSISTENCY"), cfg.ReadConsistency, cfg, replication)
	if err != nil {
		return levels{}, err
	}
	if r == gocql.EachQuorum {
		return levels{}, fmt.Errorf("%s EACH_QUORUM: Cassandra supports it for writes only; choose QUORUM or LOCAL_QUORUM", cfg.Setting("CASSANDRA_READ_CONSISTENCY"))
	}
	return levels{write: w, read: r}, nil
}

func checkLevel(variable, name string, cfg Config, replication Replication) (gocql.Consistency, error) {
	level, err := gocql.ParseConsistencyWrapper(strings.ToUpper(strings.TrimSpace(name)))
	if err != nil || level == gocql.Any {
		return 0, fmt.Errorf("%s %q: choose ONE, TWO, THREE, QUORUM, ALL, LOCAL_ONE, LOCAL_QUORUM or EACH_QUORUM", variable, name)
	}
	need := map[gocql.Consistency]int{gocql.One: 1, gocql.Two: 2, gocql.Three: 3}[level]
	if have := replication.Total(); have < need {
		return 0, fmt.Errorf("%s %s needs %d replicas, and keyspace %q has %d (%s); lower the level or raise %s",
			variable, level, need, cfg.Keyspace, have, replication, cfg.Setting("CASSANDRA_REPLICATION"))
	}
	if level == gocql.LocalOne || level == gocql.LocalQuorum {
		if _, simple := replication["*"]; !simple && replication[cfg.LocalDC] == 0 {
			return 0, fmt.Errorf("%s %s needs replicas in the local data center %q, and keyspace %q has them in %s only; set %s or %s",
				variable, level, cfg.LocalDC, cfg.Keyspace, replication, cfg.Setting("CASSANDRA_DC"), cfg.Setting("CASSANDRA_REPLICATION"))
		}
	}
	return level, nil
}

// overlapping returns the lowest read level that reaches at least one replica of every acknowledged write at the given
// level (R + W > N).
func overlapping(write gocql.Consistency, replication Replication) gocql.Consistency {
	acknowledged := map[gocql.Consistency]int{gocql.One: 1, gocql.LocalOne: 1, gocql.Two: 2, gocql.Three: 3}[write]
	if acknowledged == 0 {
		return write // quorums overlap, and any replica has a write at ALL
	}
	switch replication.Total() - acknowledged + 1 {
	case 1:
		return gocql.One
	case 2:
		return gocql.Two
	case 3:
		return gocql.Three
	default:
		return gocql.All
	}
}
