package queries

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/gocql/gocql"
	"github.com/stretchr/testify/require"
)

func TestTraceSumsTheActivities(t *testing.T) {
	var sum trace
	for _, activity := range []string{ // of Cassandra 5
		"Parsing SELECT device_id FROM open_alerts_by_fleet",
		"Executing single-partition query on open_alerts_by_fleet",
		"Skipped 0/2 non-slice-intersecting sstables, included 0 due to tombstones",
		"Merged data from memtables and 2 sstables",
		"Read 12 live rows and 340 tombstone cells",
		"Merged data from memtables and 1 sstables",
		"Read 3 live rows and 0 tombstone cells",
	} {
		sum.add(activity)
	}
	require.Equal(t, trace{sstables: 2, rows: 15, tombstones: 340}, sum)
}

func TestValuesFollowFromTheColumns(t *testing.T) {
	at := time.Date(2026, 11, 30, 12, 34, 56, 0, time.UTC)
	r := row{fleet: "f", device: "d", time: at, until: at.Add(time.Hour), limit: 7, bucket: 3, written: at, random: rand.New(rand.NewPCG(1, 1))}
	native := func(kind gocql.Type) gocql.TypeInfo { return gocql.NewNativeType(4, kind, "") }
	q := &gocql.QueryInfo{}
	for _, c := range []struct {
		name string
		kind gocql.Type
	}{
		{"fleet_id", gocql.TypeVarchar}, {"device_id", gocql.TypeVarchar}, {"day", gocql.TypeDate}, {"month", gocql.TypeDate}, {"ts", gocql.TypeTimestamp}, {"ts", gocql.TypeTimestamp},
		{"hour", gocql.TypeTimestamp}, {"hour", gocql.TypeInt}, {"bucket", gocql.TypeInt}, {"[timestamp]", gocql.TypeBigInt}, {"[limit]", gocql.TypeInt},
	} {
		q.Args = append(q.Args, gocql.ColumnInfo{Name: c.name, TypeInfo: native(c.kind)})
	}
	values, err := r.values(q)
	require.NoError(t, err)
	day := time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)
	require.Equal(t, []any{"f", "d", day, day.AddDate(0, 0, -29), at, at.Add(time.Hour), at.Truncate(time.Hour), 12, 3, at.UnixMicro(), 7}, values)

	q.Args = []gocql.ColumnInfo{{Name: "x", TypeInfo: native(gocql.TypeUUID)}}
	_, err = r.values(q)
	require.ErrorContains(t, err, `marker "x": no value for its type`)
}
