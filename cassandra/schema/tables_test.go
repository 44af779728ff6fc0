package schema

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

func TestStatementsAreRendered(t *testing.T) {
	statements, err := render("fleet_iot", twoAndTwo)
	require.NoError(t, err)
	require.Equal(t, "CREATE KEYSPACE IF NOT EXISTS fleet_iot WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 2, 'dc2': 2}", statements[0])
	require.Len(t, statements, 1+len(Tables()))
	for _, statement := range statements {
		require.NotContains(t, statement, "--")
		require.NotContains(t, statement, ";")
	}
}

func TestTablesAreParsed(t *testing.T) {
	tables := Tables()
	for _, name := range slices.Concat(cassandra.DerivedTables, []string{cassandra.TableHistory, cassandra.TableLatest, cassandra.TableLatestByFleet,
		cassandra.TableDevices, cassandra.TableFleets, cassandra.TableGeofences, cassandra.TableOwners, cassandra.TableFormerOwners}) {
		require.NotEmpty(t, tables[name].Columns, name)
		delete(tables, name)
	}
	require.Empty(t, tables, "every table has a constant")

	tables = Tables()
	require.Equal(t, map[string]cassandra.Column{
		"shard": {Type: "int", Kind: "partition key 1"}, "fleet_id": {Type: "text", Kind: "clustering key 1 asc"},
	}, tables[cassandra.TableFleets].Columns)
	history := tables[cassandra.TableHistory].Columns
	require.Equal(t, cassandra.Column{Type: "text", Kind: "partition key 1"}, history["device_id"])
	require.Equal(t, cassandra.Column{Type: "date", Kind: "partition key 2"}, history["day"])
	require.Equal(t, cassandra.Column{Type: "timestamp", Kind: "clustering key 1 desc"}, history["ts"])
	require.Equal(t, cassandra.Column{Type: "double", Kind: "regular"}, history["lat"])
	require.Equal(t, cassandra.Column{Type: "set<text>", Kind: "regular"}, tables[cassandra.TableDeviceDays].Columns["fleets"])
}

func TestOptionsAreParsed(t *testing.T) {
	tables := Tables()
	options := tables[cassandra.TableHistory].options
	windows := "compaction = {'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': 'DAYS', 'compaction_window_size': '1'}"
	require.Equal(t, map[string]option{
		"gc_grace_seconds": {"86400", "gc_grace_seconds = 86400"}, "compaction class": {"TimeWindowCompactionStrategy", windows},
		"compaction compaction_window_unit": {"DAYS", windows}, "compaction compaction_window_size": {"1", windows},
	}, options)
	leveled := option{"LeveledCompactionStrategy", "compaction = {'class': 'LeveledCompactionStrategy'}"}
	require.Equal(t, leveled, tables[cassandra.TableLatest].options["compaction class"])
	require.Empty(t, tables[cassandra.TableFleets].options)
}

// An open alert must have expired on every node before the tombstone of its end is dropped, or it returns with a node that was
// down meanwhile.
func TestOpenAlertsExpireBeforeTombstones(t *testing.T) {
	options := Tables()[cassandra.TableOpenAlerts].options
	grace, err := time.ParseDuration(options["gc_grace_seconds"].value + "s")
	require.NoError(t, err)
	require.GreaterOrEqual(t, grace, cassandra.OpenAlertTTL+time.Hour)
}

// Rows of hours are never deleted, so that none can return.
func TestHoursHaveNoTombstones(t *testing.T) {
	require.Empty(t, Tables()[cassandra.TableHours].options)
}

// stored are tables as a cluster reports them.
func stored(tables map[string]Table) map[string]map[string]cassandra.Column {
	columns := map[string]map[string]cassandra.Column{}
	for name, table := range tables {
		columns[name] = table.Columns
	}
	return columns
}

func TestDifferencesOfColumns(t *testing.T) {
	have := stored(Tables())
	changes, messages := compareColumns(Tables(), have)
	require.Empty(t, changes)
	require.Empty(t, messages)

	delete(have, cassandra.TableFleets)
	delete(have[cassandra.TableHistory], "zone")
	have[cassandra.TableHistory]["lat"] = cassandra.Column{Type: "float", Kind: "regular"}
	have[cassandra.TableHistory]["ts"] = cassandra.Column{Type: "timestamp", Kind: "clustering key 1 asc"}
	have[cassandra.TableHistory]["odometer_km"] = cassandra.Column{Type: "double", Kind: "regular"}
	changes, messages = compareColumns(Tables(), have)
	require.Equal(t, []string{
		"table fleets: missing; create it with: fleet-etl schema apply",
		"table telemetry_by_device_day: column lat is float, not double",
		"table telemetry_by_device_day: column ts is clustering key 1 asc, not clustering key 1 desc",
		"table telemetry_by_device_day: column zone is missing; add it with: ALTER TABLE telemetry_by_device_day ADD zone text",
	}, messages)
	require.Equal(t, []string{"ALTER TABLE telemetry_by_device_day ADD zone text"}, changes)
}

func TestDifferencesOfOptions(t *testing.T) {
	want := map[string]Table{"t": {options: parseOptions(" WITH compaction = {'class': 'LeveledCompactionStrategy'} AND gc_grace_seconds = 86400")}, "absent": {}}
	have := map[string]map[string]string{"t": {
		"gc_grace_seconds": "86400",
		"compaction class": "org.apache.cassandra.db.compaction.LeveledCompactionStrategy", "compaction min_threshold": "4",
	}}
	changes, messages := compareOptions(want, have)
	require.Empty(t, changes)
	require.Empty(t, messages)
	have["t"]["gc_grace_seconds"] = "864000"
	changes, messages = compareOptions(want, have)
	require.Equal(t, []string{"ALTER TABLE t WITH gc_grace_seconds = 86400"}, changes)
	require.Equal(t, []string{`table t: gc_grace_seconds is "864000", not "86400"; set it with: fleet-etl schema apply`}, messages)
}
