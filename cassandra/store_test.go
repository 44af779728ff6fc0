package cassandra_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

func TestOpenChoosesTheConsistencyLevelByReplication(t *testing.T) {
	for name, c := range map[string]struct {
		replication cassandra.Replication
		level, want string
	}{
		"two of four": {twoAndTwo, "", "TWO"},
		"one replica": {cassandra.Replication{"dc1": 1}, "", "ONE"},
		"configured":  {twoAndTwo, "local_quorum", "LOCAL_QUORUM"},
		"one per dc":  {cassandra.Replication{"dc1": 1, "dc2": 1}, "", "TWO"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := realCluster(t)
			admin, err := cassandra.Connect(t.Context(), cfg, "", quiet())
			require.NoError(t, err)
			defer admin.Close()
			require.NoError(t, admin.Exec(t.Context(), "CREATE KEYSPACE "+cfg.Keyspace+" WITH replication = "+c.replication.CQL()))
			cfg.WriteConsistency = c.level
			s, err := cassandra.Open(t.Context(), cfg, quiet(), nil)
			require.NoError(t, err)
			defer s.Close()
			require.Equal(t, c.want, s.WriteConsistency())
			require.Equal(t, "LOCAL_ONE", s.ReadConsistency())
		})
	}
}

func TestOpenReturnsTheReason(t *testing.T) {
	cfg := realCluster(t)
	_, err := cassandra.Open(t.Context(), cfg, quiet(), nil)
	require.ErrorContains(t, err, "create it with: fleet-etl schema apply")
	require.Equal(t, cassandra.GiveUp, cassandra.ReasonOf(err).Advice())

	cfg.Hosts, cfg.ConnectTimeout = []string{"127.0.0.1:1"}, time.Second
	_, err = cassandra.Open(t.Context(), cfg, quiet(), nil)
	require.ErrorContains(t, err, "127.0.0.1:1")
	require.Equal(t, cassandra.Wait, cassandra.ReasonOf(err).Advice(), "the cluster may start later")
}

func TestOnlyTheLocalDataCenterCoordinates(t *testing.T) {
	s, reg := realStore(t)
	require.NoError(t, s.Ready(t.Context()))
	for i := range 200 {
		_, err := s.Latest(t.Context(), fmt.Sprint("absent-", i))
		require.ErrorIs(t, err, cassandra.ErrNotFound)
	}
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() != "cassandra_requests_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "dc" {
					require.Equal(t, "dc1", l.GetValue())
				}
			}
		}
	}
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, problems)
}

func TestInvalidStatementIsCountedByReason(t *testing.T) {
	s, reg := realStore(t)
	err := s.WriteInvalid(t.Context()) // as after an incompatible change of the schema
	require.Equal(t, cassandra.ReasonInvalid, cassandra.ReasonOf(err))
	require.Equal(t, cassandra.GiveUp, cassandra.ReasonOf(err).Advice())
	require.ErrorContains(t, err, "write fleets: invalid")
	require.ErrorContains(t, err, "color")
	families, err := reg.Gather()
	require.NoError(t, err)
	counted := map[string]float64{}
	for _, f := range families {
		if f.GetName() == "cassandra_request_errors_total" {
			for _, m := range f.GetMetric() {
				if n := m.GetCounter().GetValue(); n > 0 {
					counted[m.GetLabel()[1].GetValue()+" "+m.GetLabel()[2].GetValue()] = n
				}
			}
		}
	}
	require.Equal(t, map[string]float64{"invalid fleets": 1}, counted)
}
