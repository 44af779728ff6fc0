package cassandra

import (
	"testing"

	"github.com/gocql/gocql"
	"github.com/stretchr/testify/require"
)

func TestConsistencyLevelsFollowTheReplication(t *testing.T) {
	for name, c := range map[string]struct {
		write, read  string
		replication  Replication
		wantW, wantR gocql.Consistency
	}{
		"defaults":                    {"", "LOCAL_ONE", twoAndTwo, gocql.Two, gocql.LocalOne},
		"one replica":                 {"", "LOCAL_ONE", Replication{"dc1": 1}, gocql.One, gocql.LocalOne},
		"lower case and spaces":       {" local_quorum ", "quorum", twoAndTwo, gocql.LocalQuorum, gocql.Quorum},
		"SimpleStrategy":              {"", "LOCAL_ONE", Replication{"*": 3}, gocql.Two, gocql.LocalOne},
		"EACH_QUORUM is for writes":   {"EACH_QUORUM", "ONE", twoAndTwo, gocql.EachQuorum, gocql.One},
		"as many replicas as written": {"THREE", "ONE", Replication{"dc1": 2, "dc2": 1}, gocql.Three, gocql.One},
	} {
		got, err := chooseLevels(Config{LocalDC: "dc1", WriteConsistency: c.write, ReadConsistency: c.read}, c.replication)
		require.NoError(t, err, name)
		require.Equal(t, levels{c.wantW, c.wantR}, got, name)
	}
}

func TestConsistencyLevelsThatCannotWorkAreErrors(t *testing.T) {
	settings := map[string]string{"CASSANDRA_READ_CONSISTENCY": "Consistency"}
	for want, c := range map[string]struct {
		write, read string
		replication Replication
	}{
		`CASSANDRA_WRITE_CONSISTENCY "ANY": choose ONE`:                                         {"ANY", "ONE", twoAndTwo},
		`Consistency "MOST": choose ONE`:                                                        {"", "MOST", twoAndTwo},
		"Consistency EACH_QUORUM: Cassandra supports it for writes only":                        {"", "EACH_QUORUM", twoAndTwo},
		`THREE needs 3 replicas, and keyspace "k" has 2 (dc1=2); lower the level or raise CASS`: {"THREE", "ONE", Replication{"dc1": 2}},
		`LOCAL_ONE needs replicas in the local data center "dc1", and keyspace "k" has them in`: {"", "LOCAL_ONE", Replication{"dc2": 2}},
	} {
		_, err := chooseLevels(Config{LocalDC: "dc1", Keyspace: "k", WriteConsistency: c.write, ReadConsistency: c.read, Settings: settings}, c.replication)
		require.ErrorContains(t, err, want)
	}
}

// A strong read and an acknowledged write have a replica in common: R + W > N.
func TestStrongReadsOverlapAcknowledgedWrites(t *testing.T) {
	for _, c := range []struct {
		write    gocql.Consistency
		replicas int
		want     gocql.Consistency
	}{
		{gocql.One, 1, gocql.One},
		{gocql.Two, 2, gocql.One},
		{gocql.Two, 3, gocql.Two},
		{gocql.Two, 4, gocql.Three},
		{gocql.One, 4, gocql.All},
		{gocql.Three, 4, gocql.Two},
		{gocql.Two, 6, gocql.All},
		{gocql.LocalQuorum, 4, gocql.LocalQuorum},
		{gocql.Quorum, 3, gocql.Quorum},
		{gocql.All, 4, gocql.All},
	} {
		require.Equal(t, c.want, overlapping(c.write, Replication{"dc1": c.replicas}), "%s of %d", c.write, c.replicas)
	}
	s := newStore(&Session{write: gocql.Two, read: gocql.LocalOne, replication: twoAndTwo})
	require.Equal(t, "THREE", s.Strong().ReadConsistency())
	require.Equal(t, "TWO", s.Fallback().ReadConsistency())
	require.Equal(t, gocql.Three, s.Strong().AlertStore.read, "every store of the view reads at its level")
	require.Equal(t, "LOCAL_ONE", s.ReadConsistency(), "the original is unchanged")
}
