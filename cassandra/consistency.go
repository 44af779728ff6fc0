package cassandra

import (
	"fmt"
	"strings"

	"github.com/gocql/gocql"
)

// levels are the consistency levels of a store.
type levels struct{ write, read gocql.Consistency }

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
	missed := replication.Total() - acknowledged // by so many replicas; one more has it
	if missed < 0 || missed > 2 {
		return gocql.All
	}
	return [...]gocql.Consistency{gocql.One, gocql.Two, gocql.Three}[missed]
}

// readOverlapping reads at the level of Strong, and at that of Fallback if too few replicas are up.
func readOverlapping[T any](s *Session, read func(gocql.Consistency) (T, error)) (T, error) {
	result, err := read(overlapping(s.write, s.replication))
	if classify(err).TooFewReplicas() {
		return read(s.write)
	}
	return result, err
}
