package schema

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/dev/testenv"
)

var twoAndTwo = cassandra.Replication{"dc1": 2, "dc2": 2}

func quiet() logrus.FieldLogger {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	return logger
}

// realCluster returns the settings of a new keyspace on the cluster of CASSANDRA_TEST_HOSTS.
func realCluster(t *testing.T) cassandra.Config {
	cfg := cassandra.Config{Hosts: testenv.CassandraHosts(t), Keyspace: fmt.Sprintf("test_%08x", rand.Uint32()), LocalDC: "dc1"}
	t.Cleanup(func() { assert.NoError(t, Drop(context.WithoutCancel(t.Context()), cfg, quiet())) })
	return cfg
}

func TestSchemaIsAppliedAndChecked(t *testing.T) {
	cfg := realCluster(t)
	ctx := t.Context()
	_, err := Check(ctx, cfg, twoAndTwo, quiet())
	require.ErrorContains(t, err, "schema apply", "the error of a missing keyspace says how to create it")

	require.NoError(t, Apply(ctx, cfg, twoAndTwo, quiet()))
	require.NoError(t, Apply(ctx, cfg, twoAndTwo, quiet()), "repeated")
	differences, err := Check(ctx, cfg, twoAndTwo, quiet())
	require.NoError(t, err)
	require.Empty(t, differences)

	require.NoError(t, Exec(ctx, cfg, quiet(),
		"ALTER TABLE devices_by_fleet DROP model",
		"ALTER TABLE telemetry_by_device_day DROP zone",
		"ALTER TABLE telemetry_by_device_day ADD odometer_km double",
		"DROP TABLE fleet_analytics_by_day",
		"CREATE TABLE fleet_analytics_by_day (fleet_id text, day date, hour text, total_distance_km double, avg_speed_kmh double, alerts_count int, active_devices_count int, PRIMARY KEY (fleet_id, day, hour))",
		"DROP TABLE fleets",
		"ALTER TABLE device_days WITH gc_grace_seconds = 864000",
		"ALTER TABLE latest_telemetry_by_device WITH compaction = {'class': 'SizeTieredCompactionStrategy'}",
	))
	differences, err = Check(ctx, cfg, cassandra.Replication{"dc1": 2}, quiet())
	require.NoError(t, err)
	require.Equal(t, []string{
		"keyspace " + cfg.Keyspace + ": replication is dc1=2,dc2=2, not dc1=2",
		"table devices_by_fleet: column model is missing; add it with: ALTER TABLE devices_by_fleet ADD model text",
		"table fleet_analytics_by_day: column day is clustering key 1 asc, not partition key 2",
		"table fleet_analytics_by_day: column driving_s is missing; add it with: ALTER TABLE fleet_analytics_by_day ADD driving_s bigint",
		"table fleet_analytics_by_day: column hour is text, not int",
		"table fleet_analytics_by_day: column max_speed_kmh is missing; add it with: ALTER TABLE fleet_analytics_by_day ADD max_speed_kmh double",
		"table fleet_analytics_by_day: column records_count is missing; add it with: ALTER TABLE fleet_analytics_by_day ADD records_count bigint",
		"table fleets: missing; create it with: fleet-etl schema apply",
		"table telemetry_by_device_day: column zone is missing; add it with: ALTER TABLE telemetry_by_device_day ADD zone text",
		`table device_days: gc_grace_seconds is "864000", not "86400"; set it with: fleet-etl schema apply`,
		`table latest_telemetry_by_device: compaction class is "org.apache.cassandra.db.compaction.SizeTieredCompactionStrategy", not "LeveledCompactionStrategy"; set it with: fleet-etl schema apply`,
	}, differences)

	require.NoError(t, Apply(ctx, cfg, twoAndTwo, quiet()))
	differences, err = Check(ctx, cfg, twoAndTwo, quiet())
	require.NoError(t, err)
	require.Equal(t, []string{
		"table fleet_analytics_by_day: column day is clustering key 1 asc, not partition key 2",
		"table fleet_analytics_by_day: column hour is text, not int",
	}, differences, "missing columns and tables are created; a wrong key needs the administrator")
	require.NoError(t, Exec(ctx, cfg, quiet(), "DROP TABLE fleet_analytics_by_day"))
	require.NoError(t, Apply(ctx, cfg, twoAndTwo, quiet()))
	differences, err = Check(ctx, cfg, twoAndTwo, quiet())
	require.NoError(t, err)
	require.Empty(t, differences, "an additional column does not count")
}

func TestApplyRejectsWhatTheClusterCannotServe(t *testing.T) {
	base := realCluster(t)
	for name, c := range map[string]struct {
		change      func(*cassandra.Config)
		replication cassandra.Replication
		want        string
	}{
		"more replicas than nodes":     {nil, cassandra.Replication{"dc1": 3, "dc2": 2}, `data center "dc1" has 2 node(s) for 3 replicas`},
		"unknown data center":          {nil, cassandra.Replication{"dc9": 1}, `data center "dc9" is not in the cluster, which has dc1, dc2`},
		"unknown local data center":    {func(c *cassandra.Config) { c.LocalDC = "dc9" }, twoAndTwo, `"dc9" (CASSANDRA_DC)`},
		"level above the replicas":     {func(c *cassandra.Config) { c.WriteConsistency = "THREE" }, cassandra.Replication{"dc1": 2}, "THREE needs 3 replicas"},
		"local level without replicas": {func(c *cassandra.Config) { c.WriteConsistency = "LOCAL_QUORUM" }, cassandra.Replication{"dc2": 2}, `needs replicas in the local data center "dc1"`},
		"read level without replicas":  {nil, cassandra.Replication{"dc2": 2}, "CASSANDRA_READ_CONSISTENCY LOCAL_ONE needs replicas"},
		"unknown level":                {func(c *cassandra.Config) { c.ReadConsistency = "MOST" }, twoAndTwo, `CASSANDRA_READ_CONSISTENCY "MOST"`},
		"ANY, which stores nothing":    {func(c *cassandra.Config) { c.WriteConsistency = "ANY" }, twoAndTwo, `CASSANDRA_WRITE_CONSISTENCY "ANY"`},
		"level for writes only":        {func(c *cassandra.Config) { c.ReadConsistency = "EACH_QUORUM" }, twoAndTwo, "for writes only"},
		"invalid keyspace name":        {func(c *cassandra.Config) { c.Keyspace = "no-name" }, twoAndTwo, `keyspace "no-name" (CASSANDRA_KEYSPACE)`},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := base
			if c.change != nil {
				c.change(&cfg)
			}
			require.ErrorContains(t, Apply(t.Context(), cfg, c.replication, quiet()), c.want)
		})
	}
}
